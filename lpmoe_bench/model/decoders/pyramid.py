"""Pyramid: maps at strides 4, 8, 16 and 32 for heads that read such, whatever a method gives.

What a method has at these strides passes as it is. Of a plain ViT, whose maps all have stride 16,
they are made as in the simple feature pyramid of Li et al., ECCV 2022, arXiv 2203.16527: up and
down from one map.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Inputs

STRIDES = [4, 8, 16, 32]
GROUPS = 8  # of the group norms


class SimplePyramid(nn.Module):
    """Four maps at strides 4, 8, 16, 32, of `channels` each.

    Departs from the paper: the four taps are projected and summed where the paper reads the last
    one alone, the width is that of the head and norms are group norms.

    Args:
        inputs: what the method gives.
        width: channels of the maps that are made, a multiple of 8.
        reader: name of the decoder, for the error.

    Raises:
        UsageError: The method's maps have other strides.
    """

    def __init__(self, inputs: Inputs, width: int, reader: str):
        super().__init__()
        self.native = inputs.strides == STRIDES
        self.channels = list(inputs.channels) if self.native else [width] * len(STRIDES)
        if self.native:
            return  # nothing is drawn, so that the head starts as it would alone
        if set(inputs.strides) != {16}:
            raise UsageError(
                f"decoder {reader} reads maps at strides 4, 8, 16, 32 or makes them of maps at "
                f"stride 16, but this method gives {', '.join(map(str, inputs.strides))}; use "
                f"another decoder such as fpn"
            )
        self.lateral = nn.ModuleList(_conv(c, width, 1) for c in inputs.channels)
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(width, width, 2, stride=2),
                nn.GroupNorm(GROUPS, width),
                nn.GELU(),
            )
            for _ in range(2)
        )
        self.smooth = nn.ModuleList(_conv(width, width, 3) for _ in STRIDES)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Return maps (B, channels[k], H_k, W_k), fine to coarse."""
        if self.native:
            return maps
        middle = sum(lateral(m) for lateral, m in zip(self.lateral, maps, strict=True))
        assert isinstance(middle, Tensor)
        fine = self.up[0](middle)
        # Strides 4, 8, 16 and 32: stride 16 doubled twice, doubled, as it is, and halved.
        levels = [self.up[1](fine), fine, middle, F.max_pool2d(middle, 2)]
        return [smooth(m) for smooth, m in zip(self.smooth, levels, strict=True)]


class FeaturePyramid(nn.Module):
    """Four maps at strides 4, 8, 16, 32, all of one width, as heads of objects read them.

    Of a plain ViT's maps they are made as in `SimplePyramid`. A method's own pyramid goes through
    the top-down path of Lin et al., CVPR 2017, arXiv 1612.03144, with group norms.

    Args:
        inputs: what the method gives.
        width: channels of each map, a multiple of 8.
        reader: name of the decoder, for the error.

    Raises:
        UsageError: The method's maps have other strides, or the width is no multiple of 8.
    """

    def __init__(self, inputs: Inputs, width: int, reader: str):
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise UsageError(
                f"decoder width is {width}; it must be a positive multiple of {GROUPS}"
            )
        self.simple = SimplePyramid(inputs, width, reader)
        if self.simple.native:
            self.lateral = nn.ModuleList(_conv(c, width, 1) for c in inputs.channels)
            self.smooth = nn.ModuleList(_conv(width, width, 3) for _ in STRIDES)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Return maps (B, width, H_k, W_k), fine to coarse."""
        if not self.simple.native:
            return self.simple(maps)
        levels = [lateral(m) for lateral, m in zip(self.lateral, maps, strict=True)]
        for k in reversed(range(len(levels) - 1)):
            # From coarse to fine: what is added to a level
            # was added to by all coarser ones before.
            coarse = F.interpolate(levels[k + 1], levels[k].shape[-2:], mode="nearest")
            levels[k] = levels[k] + coarse
        return [smooth(m) for smooth, m in zip(self.smooth, levels, strict=True)]


def _conv(channels: int, width: int, side: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, side, padding=side // 2, bias=False), nn.GroupNorm(GROUPS, width)
    )
