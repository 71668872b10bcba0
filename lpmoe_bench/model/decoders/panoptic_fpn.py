"""Panoptic FPN: Mask R-CNN for things, and a branch that gives each pixel a class of stuff.

Kirillov et al., CVPR 2019, arXiv 1901.02446: both read one pyramid. In the branch each level goes
up to stride 4 by 3 x 3 convolutions and doublings, and the levels are added; a pixel of a thing has
a class of its own there, "an object".
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.data.label_rules import VOID
from lpmoe_bench.data.targets import Layered, Target
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.pyramid import GROUPS, STRIDES
from lpmoe_bench.model.decoders.regions import RegionHead
from lpmoe_bench.model.matching import mean_over_processes
from method_zoo.method import Features
from method_zoo.parts.deformable import full_precision, precise

STUFF_WEIGHT = 0.5  # of the loss of stuff beside that of things; section 4 of the paper, on COCO


class PanopticFPN(RegionHead):
    """Options are those of Mask R-CNN; the branch of stuff is as wide as the pyramid.

    A head is not told which classes are things: both parts have an output for each class, and those
    that are never wanted learn to stay silent.
    """

    title = "Panoptic FPN"
    paper = "arXiv 1901.02446"
    kinds = ("panoptic",)
    losses = {"panoptic": "own"}
    masked = True
    fidelity = (
        "torchvision's parts at a quarter of their width (pyramid 64, layers 256), branch of stuff "
        "at half (64), 128 regions where the paper samples 512; outputs for every class in both"
    )

    def __init__(
        self,
        inputs: Inputs,
        classes: int,
        width: int = 64,
        hidden: int = 256,
        regions: int = 128,
        anchor: int = 8,
        detections: int = 100,
    ):
        super().__init__(inputs, classes, width, hidden, regions, anchor, detections)
        self.levels = nn.ModuleList(
            # A convolution for each doubling; the finest
            # level needs none and has one all the same.
            nn.ModuleList(_conv(width) for _ in range(max(1, doublings)))
            for doublings in range(len(STRIDES))
        )
        self.stuff = nn.Conv2d(width, classes + 1, 1)

    def loss(self, features: Features, targets: Sequence[Target], size: Sequence[int]) -> Tensor:
        """Return the losses of Mask R-CNN and half the cross-entropy of labelled pixels."""
        maps = self.maps_of(features)
        logits = F.interpolate(self._stuff(maps), tuple(size), mode="bilinear", align_corners=False)
        wanted = torch.stack([self._labels(target) for target in targets])
        count = mean_over_processes(int((wanted != VOID).sum()), logits)
        with full_precision(logits):
            each = F.cross_entropy(logits, wanted, ignore_index=VOID, reduction="sum")
        return self.loss_on(maps, targets, size) + STUFF_WEIGHT * each / count

    def _labels(self, target: Target) -> Tensor:
        """Return what each pixel is to the branch of stuff, (h, w): K where an object is."""
        if target.labels is None or target.masks is None:
            raise UsageError(
                f"{self.title} learns classes of stuff, but these objects come without; use a task "
                f"of kind panoptic"
            )
        # Crowds too are objects here: their pixels are
        # no stuff, though no box is learnt from them.
        return target.labels.masked_fill(target.masks.any(0), self.classes)

    def _stuff(self, maps: list[Tensor]) -> Tensor:
        """Return logits (B, K + 1, h / 4, w / 4) in single precision."""
        parts = []
        for doublings, (layers, x) in enumerate(zip(self.levels, maps, strict=True)):
            for layer in layers:  # type: ignore[union-attr]
                x = layer(x)
                if doublings:
                    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            parts.append(x)
        return precise(self.stuff(torch.stack(parts).sum(0)))

    def predict(self, features: Features, size: Sequence[int]) -> list[Layered]:  # type: ignore[override]
        """Return both layers of each image; they are merged at the size of the image itself."""
        maps = self.maps_of(features)
        pairs = zip(self.found_on(maps, size), self._stuff(maps), strict=True)
        found = []
        for one, stuff in pairs:
            assert one.masks is not None
            found.append(Layered(one.boxes, one.classes, one.scores, one.masks, stuff))
        return found

    def countable(self, features: Features, size: Sequence[int]) -> Tensor:
        maps = self.maps_of(features)
        return self.counted_on(maps) + self._stuff(maps).sum()


def _conv(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, width), nn.ReLU()
    )
