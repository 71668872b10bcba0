"""The bottleneck of adapters: down to a few channels and up again, its output zero at the start."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """Up(dropout(act(Down(x)))). Up starts at zero, Down Kaiming-uniform: of two factors that both
    start at zero neither would ever move."""

    def __init__(self, dim: int, width: int, act: Callable[[Tensor], Tensor], dropout: float = 0.0):
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        self.act, self.dropout = act, nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.dropout(self.act(self.down(x))))


# Convolve each image of a batch with kernels of its own, all in one grouped convolution.


def convolve_each(maps: Tensor, kernels: Tensor) -> Tensor:
    """Maps (B, C, H, W) and kernels (B, O, I, k, k), k odd, to (B, O, H, W).

    I = C is a dense kernel, I = 1 one filter a channel. The sides are padded with zeros.
    """
    batch, channels = maps.shape[:2]
    joined = F.conv2d(
        maps.flatten(0, 1)[None],
        kernels.flatten(0, 1),
        padding=kernels.shape[-1] // 2,
        groups=batch * channels // kernels.shape[2],
    )
    return joined[0].unflatten(0, (batch, -1))
