"""The feature pyramid of Controllable-LPMoE: prior maps plus resized ViT maps at strides 4 to 32.

c1 = p1 + up(c2); c_k <- c_k + resize(v_k); f_k = R(BN_k(c_k)) with one shared 1 x 1 convolution R.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Pyramid(nn.Module):
    """Four maps of dim / 4 channels (spec, section 4)."""

    def __init__(self, dim: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(4))
        self.reduce = nn.Conv2d(dim, dim // 4, 1, bias=False)

    def forward(self, p1: Tensor, priors: list[Tensor], taps: list[Tensor]) -> list[Tensor]:
        """Return maps at strides 4, 8, 16, 32.

        p1: (B, C, 4H, 4W). priors: strides 8, 16, 32. taps: four ViT maps, (B, C, H, W).
        """
        c1 = self.up(priors[0]).add_(p1)  # before the ViT's map is added to priors[0]
        maps = []
        for c, tap, norm in zip([c1, *priors], taps, self.norms, strict=True):
            size = c.shape[-2:]
            if tap.shape[-2:] != size:
                tap = F.interpolate(tap, size, mode="bilinear", align_corners=False)
            # c1 is the largest map by far and nobody else's: add in place, but never into bfloat16.
            c = c.add_(tap) if c is c1 and c.dtype == tap.dtype else c + tap
            maps.append(self.reduce(norm(c)))
        return maps
