"""The gate of Conv-LoRA: which expert reads a map, and the loss that balances the choices.

logits = mean(a) W_g; training adds noise of deviation softplus(mean(a) W_n) + 0.01. The largest
wins. L = 0.01 (CV^2(importance) + CV^2(load)), over the maps of one call (Shazeer et al., 2017).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BALANCE = 0.01
LEAST_DEVIATION = 0.01


class Choice(NamedTuple):
    """index: (B,), the chosen expert. share: (B,), its softmax share. loss: scalar."""

    index: Tensor
    share: Tensor
    loss: Tensor


class Gate(nn.Module):
    """Chooses one of several experts for each map, with noise while training."""

    def __init__(self, rank: int, experts: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rank, experts))
        self.noise = nn.Parameter(torch.zeros(rank, experts))

    def forward(self, a: Tensor) -> Choice:
        """Low-rank maps a, (B, r, H, W), to the choice for each of them."""
        pooled = a.mean((2, 3)).float()
        clean = _project(pooled, self.weight)
        if not self.training:
            index = clean.argmax(1)
            load = importance = _one_hot(index, clean)
            logits = clean
        else:
            deviation = F.softplus(_project(pooled, self.noise)) + LEAST_DEVIATION
            logits = clean + torch.randn_like(clean) * deviation
            index = logits.argmax(1)
            importance = _one_hot(index, clean)
            load = _probability_of_top(clean, logits, deviation)
        loss = BALANCE * (_variation(importance.sum(0)) + _variation(load.sum(0)))
        share = logits.softmax(1).gather(1, index[:, None])[:, 0]
        return Choice(index, share, loss)


def _project(pooled: Tensor, weight: Tensor) -> Tensor:
    # Not a matrix product: that would run in half precision under autocast, where choices flip.
    return (pooled[:, :, None] * weight).sum(1)


def _one_hot(index: Tensor, like: Tensor) -> Tensor:
    return F.one_hot(index, like.shape[1]).to(like.dtype)


def _probability_of_top(clean: Tensor, noisy: Tensor, deviation: Tensor) -> Tensor:
    """Return how likely each expert would win if its own noise were drawn again, (B, E)."""
    if clean.shape[1] == 1:
        return torch.ones_like(clean)
    first, second = noisy.topk(2, dim=1).values.unbind(1)
    # The winner has to beat the second, the others have to beat the winner.
    rival = torch.where(noisy == first[:, None], second[:, None], first[:, None])
    return torch.special.ndtr((clean - rival) / deviation)


def _variation(x: Tensor) -> Tensor:
    """Return the squared coefficient of variation, with the unbiased variance."""
    if x.shape[0] == 1:
        return x.new_zeros(())
    return x.var() / (x.mean() ** 2 + 1e-10)
