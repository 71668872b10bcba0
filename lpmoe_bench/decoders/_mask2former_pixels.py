"""Pixel decoder of Mask2Former: four maps to three refined ones and a mask feature at stride 4.

Cheng et al., CVPR 2022, arXiv 2112.01527, with the multi-scale deformable attention of Deformable
DETR, arXiv 2010.04159.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.decoders._decoder import full_precision
from lpmoe_bench.decoders._sine_position import sine_position
from method_zoo.parts.deformable import Places, places, precise, sample, star

GROUPS = 32  # of all group norms
LEVELS, HEADS, POINTS = 3, 8, 4


class PixelDecoder(nn.Module):
    """Tokens of strides 32, 16 and 8 read one another; the map of stride 4 is added after them."""

    def __init__(self, channels: list[int], width: int, layers: int = 6):
        super().__init__()
        norm = lambda: nn.GroupNorm(GROUPS, width)  # noqa: E731
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), norm()) for c in reversed(channels[1:])
        )
        self.level = nn.Parameter(torch.randn(LEVELS, width))
        self.layers = nn.ModuleList(DeformableLayer(width) for _ in range(layers))
        self.lateral = nn.Sequential(nn.Conv2d(channels[0], width, 1, bias=False), norm())
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), norm(), nn.ReLU()
        )
        self.mask = nn.Conv2d(width, width, 1)
        self._initialise()

    def _initialise(self) -> None:
        for conv in [m for m in self.modules() if isinstance(m, nn.Conv2d)]:
            nn.init.xavier_uniform_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """maps: (B, C_k, H_k, W_k), strides 4 to 32.

        Returns the maps of strides 32, 16 and 8 and the mask feature of stride 4, of equal width.
        """
        finest, *coarser = maps
        levels = [into(m) for into, m in zip(self.inputs, reversed(coarser), strict=True)]
        grids = [(m.shape[-2], m.shape[-1]) for m in levels]
        where = places(grids, finest)
        position = torch.cat(
            [
                sine_position(grid, m.shape[1], m).flatten(1).t() + own
                for grid, m, own in zip(grids, levels, self.level, strict=True)
            ]
        )
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in levels], dim=1)  # (B, T, C)
        for layer in self.layers:
            x = layer(x, position, where)
        parts = x.transpose(1, 2).split([h * w for h, w in grids], dim=2)
        levels = [p.unflatten(2, grid) for p, grid in zip(parts, grids, strict=True)]
        y = self.lateral(finest)
        y = y + F.interpolate(levels[-1], y.shape[-2:], mode="bilinear", align_corners=False)
        return levels, self.mask(self.smooth(y))


class DeformableLayer(nn.Module):
    """x <- LN(x + A(x + position, x)); x <- LN(x + FFN(x)), hidden width four times as large."""

    def __init__(self, width: int):
        super().__init__()
        count = HEADS * LEVELS * POINTS
        self.offsets = nn.Linear(width, 2 * count)
        self.weights = nn.Linear(width, count)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )
        self._initialise()

    def _initialise(self) -> None:
        """Start on a star of points around each token, with equal weights."""
        with torch.no_grad():
            self.offsets.bias.copy_(star(HEADS, LEVELS, POINTS))
        for zero in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(zero)
        for linear in (self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, position: Tensor, where: Places) -> Tensor:
        """x: (B, T, C), all tokens. position: (T, C)."""
        x = self.norm1(x + self._attention(x + position, x, where))
        return self.norm2(x + self.mlp(x))

    def _attention(self, query: Tensor, x: Tensor, where: Places) -> Tensor:
        value = self.value(x).unflatten(2, (HEADS, -1))
        offsets = self.offsets(query).unflatten(2, (HEADS, LEVELS, POINTS, 2))
        weights = self.weights(query).unflatten(2, (HEADS, LEVELS * POINTS))
        weights = precise(weights).softmax(-1).unflatten(3, (LEVELS, POINTS))
        with full_precision(x):
            # Offsets count in cells of their level.
            points = where.points[:, None, None, None] + precise(offsets) * where.cells[:, None]
            read = sample(precise(value), where.grids, points, weights)
        return self.output(read)
