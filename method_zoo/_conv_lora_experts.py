"""The experts of Conv-LoRA: a 3 x 3 convolution of the low-rank map at another scale each.

E_s(a) = down_s(GELU(conv(up_s(a)))), up_s and down_s bicubic by s; E_1 does not resize. Exactly
the same with less work: at odd s the way down reads only the middle of each s x s cell, so only
the 3 x 3 values around each middle are interpolated, and the convolution takes steps of 3.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Experts(nn.ModuleList):
    """Experts for scales 1, 2, ...; each map goes through the one that was chosen for it."""

    one_of = True  # who counts work where the choice is not known divides by the number of experts

    def __init__(self, rank: int, count: int):
        super().__init__(Expert(rank, scale + 1) for scale in range(count))

    def forward(self, a: Tensor, index: Tensor) -> Tensor:
        """Maps a, (B, r, H, W), and the chosen experts, (B,), to E_index(a), (B, r, H, W)."""
        if torch.compiler.is_compiling() or a.is_meta:
            # Here the choice is not known: all experts run, and the chosen map is taken.
            every = torch.stack([expert(a) for expert in self], dim=1)
            return every[torch.arange(a.shape[0], device=a.device), index]
        chosen = index.tolist()  # the one time that the host waits for the device
        order = sorted(range(len(chosen)), key=chosen.__getitem__)
        used = sorted(set(chosen))
        parts = a[order].split([chosen.count(e) for e in used])
        done = torch.cat([self[e](part) for e, part in zip(used, parts, strict=True)])
        return done[sorted(range(len(order)), key=order.__getitem__)]


class Expert(nn.Module):
    """A convolution that sees the map `scale` times larger."""

    def __init__(self, rank: int, scale: int):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(rank, rank, 3, padding=1), scale
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, a: Tensor) -> Tensor:
        """Map, (B, r, H, W), to a map of the same size."""
        if self.scale == 1:
            return F.gelu(self.conv(a))
        height, width = a.shape[-2:]
        rows, columns = (_enlarge(size, self.scale, a) for size in (height, width))
        if self.scale % 2 == 0:
            large = F.gelu(self.conv(rows @ a @ columns.T))
            rows, columns = (_reduce(size, self.scale, a) for size in (height, width))
            return rows @ large @ columns.T
        large = _middles(rows, self.scale) @ a @ _middles(columns, self.scale).T
        return F.gelu(F.conv2d(large, self.conv.weight, self.conv.bias, stride=3))


def _enlarge(size: int, scale: int, like: Tensor) -> Tensor:
    """Return bicubic interpolation of a line as a matrix, (scale * size, size)."""
    return _resize(size, scale * size, like)


def _reduce(size: int, scale: int, like: Tensor) -> Tensor:
    """Return the way back as a matrix, (size, scale * size)."""
    return _resize(scale * size, size, like)


def _resize(source: int, target: int, like: Tensor) -> Tensor:
    if like.is_meta:  # nothing to compute, and torch would take seconds for that
        return like.new_empty(target, source)
    make = _bicubic if torch.compiler.is_compiling() else _kept
    return make(source, target, like.dtype, like.device)


@lru_cache(maxsize=128)
def _kept(source: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Make each matrix once: that costs as much as the products with it."""
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
        return _bicubic(source, target, dtype, device)


def _bicubic(source: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    unit = torch.eye(source, device=device, dtype=torch.promote_types(dtype, torch.float32))
    line = F.interpolate(unit[None, None], (target, source), mode="bicubic")[0, 0]
    return line.to(dtype)


def _middles(matrix: Tensor, scale: int) -> Tensor:
    """Keep the three lines around the middle of each cell of `scale` lines, scale odd."""
    cells = matrix.unflatten(0, (-1, scale))
    return cells[:, scale // 2 - 1 : scale // 2 + 2].flatten(0, 1)
