"""Sine positions of a grid: half of the channels for the row, half for the column.

As in DETR (Carion et al., ECCV 2020, arXiv 2005.12872), normalised to a full turn over the image.
"""

import math

import torch
from torch import Tensor

TEMPERATURE = 10_000


def sine_position(grid: tuple[int, int], channels: int, like: Tensor) -> Tensor:
    """Return (channels, H, W) in float32, on the device of `like`; channels divide by four.

    Rows and columns count from 1 and end at 2 pi. Of each pair of channels the first is a sine, the
    second a cosine of the same frequency.
    """
    pair = torch.arange(channels // 4, device=like.device, dtype=torch.float32)
    wavelength = TEMPERATURE ** (4 * pair / channels)  # (C / 4,)
    axes = []
    for side in grid:
        turn = torch.arange(1, side + 1, device=like.device) * (2 * math.pi / side)
        angle = turn[:, None] / wavelength  # (side, C / 4)
        axes.append(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).t())
    rows, columns = axes  # (C / 2, H), (C / 2, W)
    height, width = grid
    rows = rows[:, :, None].expand(-1, -1, width)
    columns = columns[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])
