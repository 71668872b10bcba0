"""FPN: deep maps are added into shallow ones, then refined to stride 4; the default.

Follows the top-down path of Lin et al., CVPR 2017, arXiv 1612.03144, with group norm.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.model.decoders.decoder import Decoder, Inputs
from method_zoo import Features, ZooError

FINEST_STRIDE = 4


class FPN(Decoder):
    """Maps of equal stride (a plain ViT) are summed in place; any channels and strides go.

    width: channels of all its maps. Logits come at stride 4, (B, classes, h/4, w/4).
    """

    title = "FPN"
    reads = "maps"
    paper = "arXiv 1612.03144"
    fidelity = "light: one 3 x 3 convolution a level, with group norm and GELU"

    def __init__(self, inputs: Inputs, classes: int, width: int = 64):
        super().__init__()
        if width < 8 or width % 8:
            raise ZooError(f"decoder width is {width}; it must be a positive multiple of 8")
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in inputs.channels)
        self.smooth = nn.ModuleList(_conv(width) for _ in inputs.channels)
        # From the finest map's stride down to 4, by a factor of two each.
        doublings = max(0, (min(inputs.strides) // FINEST_STRIDE).bit_length() - 1)
        self.refine = nn.ModuleList(_conv(width) for _ in range(doublings))
        self.logits = nn.Conv2d(width, classes, 1)

    def forward(self, features: Features) -> Tensor:
        y = None
        levels = list(zip(features.maps, self.lateral, self.smooth, strict=True))
        for feature, lateral, smooth in reversed(levels):  # deep to shallow
            x = lateral(feature)
            # A plain ViT's maps are of one size: then nothing is resized here.
            y = smooth(x if y is None else x + _resize(y, x.shape[-2:]))
        assert y is not None
        for refine in self.refine:
            y = refine(_resize(y, (2 * y.shape[-2], 2 * y.shape[-1])))
        return self.logits(y)


def _conv(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.GELU()
    )


def _resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
