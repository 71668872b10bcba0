"""The expert center of AdaRoute and its router: weights mixed anew for every image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Center(nn.Module):
    """Experts that several modules share: G ways down, G ways up, G filters of each size.

    The modules are handed their center; none of them owns it, so that it is one object, counted
    and saved once.
    """

    def __init__(self, dim: int, width: int, experts: int, sizes: tuple[int, ...]):
        super().__init__()
        shapes = [(width, dim), (dim, width), *((width, 1, k, k) for k in sizes)]
        self.experts = nn.ParameterList(
            nn.init.trunc_normal_(nn.Parameter(torch.empty(experts, *shape)), std=0.02)
            for shape in shapes
        )

    def forward(self, gates: Tensor) -> list[Tensor]:
        """Shares of the experts, (2 + K, B, G), to the weights of each image.

        Down (B, r, C), up (B, C, r), then a filter (B, r, 1, k, k) for each of the K sizes.
        """
        return [
            (gate @ expert.flatten(1)).unflatten(1, expert.shape[1:])
            for gate, expert in zip(gates, self.experts, strict=True)
        ]


class Router(nn.Module):
    """Says for each image how much every expert of every kind counts: a dense softmax a kind."""

    def __init__(self, dim: int, hidden: int, kinds: int, experts: int):
        super().__init__()
        self.down, self.out = nn.Linear(dim, hidden), nn.Linear(hidden, kinds * experts)
        self.shape = (kinds, experts)
        for layer in (self.down, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, u: Tensor) -> Tensor:
        """Tokens, (B, N, C), to shares, (kinds, B, G)."""
        logits = self.out(F.gelu(self.down(u.mean(1))))
        return logits.unflatten(1, self.shape).softmax(-1).transpose(0, 1)


class Uniform(nn.Module):
    """In place of the router, every expert counts the same for every image."""

    def __init__(self, kinds: int, experts: int):
        super().__init__()
        self.kinds, self.experts = kinds, experts

    def forward(self, u: Tensor) -> Tensor:
        return u.new_full((self.kinds, u.shape[0], self.experts), 1 / self.experts)
