"""The dynamic mixed local-prior extractor of Controllable-LPMoE: an image to four prior maps.

u_1 = pool(unit(image)), u_k = unit(u'_{k-1}) with stride 2; u'_k = u_k + M(u_k); p_k = W u'_k.
The mixture M and the projection W are the same for all four scales.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._errors import ZooError
from ._lpmoe_experts import Mixture, Unit

SCALES = 4


class PriorExtractor(nn.Module):
    """A small convolutional network beside the backbone (spec, section 1).

    width: its channels at every scale. norm: "shared" BatchNorm in the mixture, as the authors have
    it, or "per_scale": a copy of each BatchNorm for each scale, the other weights shared.
    """

    def __init__(self, dim: int, width: int = 64, norm: str = "shared"):
        super().__init__()
        if width < 4 or width % 4:
            raise ZooError(f"width is {width}; it must be a positive multiple of 4")
        if norm not in ("shared", "per_scale"):
            raise ZooError(f"norm is {norm!r}; allowed are 'shared' (as in the paper), 'per_scale'")
        self.stem = Unit(nn.Conv2d(3, width, 3, stride=2, padding=1), width)
        self.downs = nn.ModuleList(
            Unit(nn.Conv2d(width, width, 3, stride=2, padding=1), width) for _ in range(SCALES - 1)
        )
        self.mixture = Mixture(width, SCALES if norm == "per_scale" else 1)
        self.project = nn.Conv2d(width, dim, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Normalised image, (B, 3, h, w), to maps (B, C, ., .) at strides 4, 8, 16, 32."""
        # Channels last throughout: the maps become tokens, and meet tokens, without a copy.
        image = image.contiguous(memory_format=torch.channels_last)
        u = F.max_pool2d(self.stem(image), 3, stride=2, padding=1)
        maps = []
        for scale in range(SCALES):
            if scale > 0:
                u = self.downs[scale - 1](u)
            u = u + self.mixture(u, scale)
            maps.append(self.project(u))
        return maps
