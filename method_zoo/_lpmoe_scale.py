"""Channel-oriented adaptive scale enhancement, the feed-forward layer of Controllable-LPMoE.

y = W1 x; on each grid m = depthwise3x3(y), m <- m * (g0 s + g1 (1 - s')) with channel attention s,
reverse channel attention 1 - s' and a gate g per image; out = W2 GELU(m).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._deformable import Grids


class ScaleEnhancement(nn.Module):
    """The feed-forward part of an extractor; three grids share all weights."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.reduce = nn.Linear(dim, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.channel = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.reverse = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.gate = nn.Linear(hidden, 2)
        self.expand = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, grids: Grids) -> Tensor:
        """Return the residual update, (B, T, C); the tokens of the grids follow one another."""
        parts = self.reduce(x).split([height * width for height, width in grids], dim=1)
        # Tokens seen as channels-last maps: they go in and come out without being transposed.
        maps = [
            self.depthwise(p.unflatten(1, grid).permute(0, 3, 1, 2))
            for p, grid in zip(parts, grids, strict=True)
        ]
        mean = torch.stack([m.mean((2, 3)) for m in maps], dim=1)  # (B, L, C)
        peak = torch.stack([m.amax((2, 3)) for m in maps], dim=1)
        factors = self.channel_factor(mean, peak)[..., None, None].unbind(1)
        scaled = [
            (m * f).permute(0, 2, 3, 1).flatten(1, 2) for m, f in zip(maps, factors, strict=True)
        ]
        return self.expand(F.gelu(torch.cat(scaled, dim=1)))

    def channel_factor(self, mean: Tensor, peak: Tensor) -> Tensor:
        """Return the one factor each channel of each map is multiplied with, (B, L, C).

        The authors pool five times and build two full maps; one mean and one maximum suffice.
        """
        pooled = (mean + peak).flatten(0, 1).unsqueeze(1)  # (B * L, 1, C)
        attended = self.channel(pooled).view_as(mean).sigmoid()
        reversed_ = 1 - self.reverse(pooled).view_as(mean).sigmoid()
        gate = self.gate(mean).softmax(-1)
        return gate[..., :1] * attended + gate[..., 1:] * reversed_
