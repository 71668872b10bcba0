"""Multi-scale deformable sampling in plain torch: weighted bilinear reads at learnt places.

The core of Deformable DETR (Zhu et al., ICLR 2021, arXiv 2010.04159, equation 3) without a compiled
extension: out(q) = sum over levels l and points p of w(q, l, p) * value_l at location(q, l, p).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Grids = Sequence[tuple[int, int]]


class Places(NamedTuple):
    """Where the tokens of one or more grids lie; x before y, each 0 to 1 over the image."""

    grids: Grids  # (height, width) of each level
    points: Tensor  # (T, 2), the centres of all cells, level after level, row by row
    cells: Tensor  # (L, 2), the size of one cell of each level


def places(grids: Grids, like: Tensor) -> Places:
    """Return the places of grids on the device of `like`, in float32.

    Made from ranges on the device itself, without a copy between devices: once a forward pass this
    costs less than a cache would.
    """
    points, cells = [], []
    for height, width in grids:
        y = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) / width
        points.append(torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1))
        cells += [x[0] * 2, y[0] * 2]  # the first centre lies half a cell from the edge
    return Places(grids, torch.cat(points), torch.stack(cells).view(-1, 2))


def star(heads: int, levels: int, points: int) -> Tensor:
    """Return the offsets to start from, (heads * levels * points * 2,), in cells of a level.

    Each head looks another way, its points 1, 2, ... cells off; the star's tips lie on a square.
    """
    angle = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
    ray = torch.stack([angle.cos(), angle.sin()], dim=-1)
    ray = ray / ray.abs().amax(-1, keepdim=True)
    reach = torch.arange(1, points + 1, dtype=torch.float32)
    offsets = ray[:, None, None] * reach[:, None]  # (h, 1, P, 2)
    return offsets.expand(heads, levels, points, 2).flatten()


def sample(value: Tensor, grids: Grids, where: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted bilinear reads of `value`, (B, Q, h * d); outside the grid is zero.

    value: (B, T, h, d), the levels one after the other. where: (B, Q, h, L, P, 2), 0 to 1.
    weights: (B, Q, h, L, P).
    """
    heads = value.shape[2]
    # Heads go into the batch; points come before queries, so the sum over points is vectorised.
    value = value.permute(0, 2, 3, 1).flatten(0, 1)  # (B * h, d, T)
    where = (2 * where - 1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # (L, B * h, P, Q, 2)
    weights = weights.permute(3, 0, 2, 4, 1).flatten(1, 2).unsqueeze(2)  # (L, B * h, 1, P, Q)
    total = None
    start = 0
    for level, (height, width) in enumerate(grids):
        plane = value[:, :, start : start + height * width].unflatten(2, (height, width))
        start += height * width
        read = F.grid_sample(plane, where[level], padding_mode="zeros", align_corners=False)
        part = (read * weights[level]).sum(2)  # (B * h, d, Q)
        total = part if total is None else total + part
    assert total is not None
    return total.unflatten(0, (-1, heads)).permute(0, 3, 1, 2).flatten(2)


def precise(x: Tensor) -> Tensor:
    """Bring half-precision numbers to float32 and leave others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
