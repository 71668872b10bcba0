"""One-level Haar wavelet convolution: depthwise kernels on four half-resolution bands.

out = base(x) + H^-1(k * H(x)) with the orthonormal 2 x 2 Haar transform H (WTConv, Finder et al.,
ECCV 2024, arXiv 2407.05848, with one level).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WaveletConv(nn.Module):
    """Depthwise convolution of an image and of its Haar bands; both carry a learnt scale."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        pad, bands = kernel // 2, 4 * channels
        self.base = nn.Conv2d(channels, channels, kernel, padding=pad, groups=channels)
        self.base_scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bands = nn.Conv2d(bands, bands, kernel, padding=pad, groups=bands, bias=False)
        self.bands_scale = nn.Parameter(torch.full((1, bands, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W), odd sides too
        height, width = x.shape[-2:]
        bands = haar(F.pad(x, (0, width % 2, 0, height % 2)))
        detail = inverse_haar(_scaled(self.bands, self.bands_scale, bands))
        return _scaled(self.base, self.base_scale, x) + detail[..., :height, :width]


def haar(x: Tensor) -> Tensor:
    """Return the bands of an even-sized map: (B, C, H, W) -> (B, 4 C, H / 2, W / 2).

    Channel c becomes 4 c to 4 c + 3: average, vertical, horizontal and diagonal difference.
    """
    return _butterfly(F.pixel_unshuffle(x, 2))


def inverse_haar(bands: Tensor) -> Tensor:
    """Undo `haar`: the transform is its own inverse."""
    return F.pixel_shuffle(_butterfly(bands), 2)


def _butterfly(x: Tensor) -> Tensor:
    """Apply the symmetric orthonormal 4 x 4 Haar matrix to each group of four channels."""
    a, b, c, d = (x * 0.5).unflatten(1, (-1, 4)).unbind(2)
    top, bottom, left, right = a + b, c + d, a - b, c - d
    mixed = torch.stack([top + bottom, top - bottom, left + right, left - right], dim=2)
    return mixed.flatten(1, 2)


def _scaled(conv: nn.Conv2d, scale: Tensor, x: Tensor) -> Tensor:
    """Run conv(x) * scale with the scale multiplied into the small kernel instead of the map."""
    weight = conv.weight * scale.view(-1, 1, 1, 1)
    bias = None if conv.bias is None else conv.bias * scale.flatten()
    return F.conv2d(x, weight, bias, padding=conv.padding, groups=conv.groups)  # type: ignore[arg-type]
