"""UperNet: a pyramid pooled at four sizes, added from coarse to fine, and read at stride 4.

Xiao et al., ECCV 2018, arXiv 1807.10221, with the pooling of PSPNet (arXiv 1612.01105) and an
auxiliary head of convolutions, as it is trained on ADE20K in mmsegmentation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Decoder, Inputs
from lpmoe_bench.model.decoders.pyramid import SimplePyramid
from method_zoo.method import Features

POOLS = (1, 2, 3, 6)  # cells of the pooled maps, a side
AUXILIARY_WIDTH, AUXILIARY_WEIGHT = 256, 0.4
DROPPED = 0.1  # channels before the logits, in training
GROUPS = 32  # of the group norms
WIDEST_PYRAMID = 256  # of the maps that are made of a plain ViT's


class UperNet(Decoder):
    """Reads maps at strides 4 to 32, or makes them of a plain ViT's; logits come at stride 4.

    width: a multiple of 32. norm: batch, as in the paper, or group, which does not look at other
    images of the batch. In training an auxiliary head on the map of stride 16 has logits too, which
    follow the others along the batch and whose loss weighs .4.
    """

    title = "UperNet"
    reads = "maps"
    paper = "arXiv 1807.10221"
    fidelity = (
        "mmsegmentation's layers and parameter count; a plain ViT's maps pass the simple pyramid "
        "that other decoders here read too"
    )

    batch_statistics = True

    def __init__(self, inputs: Inputs, classes: int, width: int = 512, norm: str = "batch"):
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise UsageError(f"decoder width is {width}; it must be a multiple of {GROUPS}")
        if norm not in ("batch", "group"):
            raise UsageError(f"decoder norm is {norm!r}; allowed are batch and group")
        self.pyramid = SimplePyramid(inputs, min(width, WIDEST_PYRAMID), "upernet")
        *finer, coarsest = self.pyramid.channels
        self.pooled = nn.ModuleList(_conv(coarsest, width, 1, norm) for _ in POOLS)
        self.bottleneck = _conv(coarsest + len(POOLS) * width, width, 3, norm)
        self.lateral = nn.ModuleList(_conv(c, width, 1, norm) for c in finer)
        self.smooth = nn.ModuleList(_conv(width, width, 3, norm) for _ in finer)
        self.fuse = _conv((len(finer) + 1) * width, width, 3, norm)
        self.logits = _logits(width, classes)
        self.auxiliary = nn.Sequential(
            _conv(finer[-1], AUXILIARY_WIDTH, 3, norm), _logits(AUXILIARY_WIDTH, classes)
        )

    @classmethod
    def depends_on_batch(cls, loss: str, options: Mapping[str, Any]) -> str:
        return "" if options.get("norm") == "group" else super().depends_on_batch(loss, options)

    def forward(self, features: Features) -> Tensor:
        return self._main(self.pyramid(features.maps))

    def predict(self, features: Features, size: Sequence[int]) -> Tensor:
        """Return logits at the images' size; in training those of the auxiliary head follow."""
        maps = self.pyramid(features.maps)
        logits = [self._main(maps)]
        if self.training:
            logits.append(self.auxiliary(maps[2]))
        return torch.cat([_resize(one.float(), size) for one in logits])

    def loss(self, features: Features, targets: Any, size: Sequence[int]) -> Tensor:
        """Return the criterion of the logits, and of the auxiliary head's with weight .4."""
        assert self.criterion is not None, "train_with comes first"
        outputs = self.predict(features, size).split(len(features.final))
        weights = (1.0, AUXILIARY_WEIGHT)[: len(outputs)]
        with torch.autocast(outputs[0].device.type, enabled=False):
            each = [
                w * self.criterion(one, targets) for w, one in zip(weights, outputs, strict=True)
            ]
        return torch.stack(each).sum()

    def _main(self, maps: list[Tensor]) -> Tensor:
        coarsest = maps[-1]
        seen = [coarsest]
        for side, conv in zip(POOLS, self.pooled, strict=True):
            seen.append(_resize(conv(F.adaptive_avg_pool2d(coarsest, side)), coarsest.shape[-2:]))
        levels = [self.bottleneck(torch.cat(seen, dim=1))]
        finer = [lateral(m) for lateral, m in zip(self.lateral, maps[:-1], strict=True)]
        for level in reversed(finer):  # what is added goes on to finer levels before it is smoothed
            levels.append(level + _resize(levels[-1], level.shape[-2:]))
        # From coarse to fine; the coarsest one comes out
        # of the bottleneck and is not smoothed again.
        top, *rest = levels
        smoothed = [conv(m) for conv, m in zip(self.smooth, reversed(rest), strict=True)]
        size = smoothed[0].shape[-2:]
        fused = self.fuse(torch.cat([_resize(m, size) for m in (*smoothed, top)], dim=1))
        return self.logits(fused)


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm that can also be counted: a map of one cell and one image has no spread."""

    def forward(self, input: Tensor) -> Tensor:
        if not input.is_meta:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias)


def _conv(channels: int, width: int, side: int, norm: str) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    normed = _BatchNorm(width) if norm == "batch" else nn.GroupNorm(GROUPS, width)
    return nn.Sequential(conv, normed, nn.ReLU())


def _logits(width: int, classes: int) -> nn.Sequential:
    conv = nn.Conv2d(width, classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.get_parameter("bias"), 0)
    return nn.Sequential(nn.Dropout2d(DROPPED), conv)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
