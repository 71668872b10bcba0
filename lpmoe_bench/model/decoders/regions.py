"""Regions: what Faster and Mask R-CNN share, of torchvision's parts on a pyramid of the features.

Ren et al., NeurIPS 2015, arXiv 1506.01497, on a pyramid as in Lin et al., CVPR 2017, arXiv
1612.03144: anchors on every level become proposals, the best of which are read from the level that
suits their size, and get a class and a better box; He et al., ICCV 2017, arXiv 1703.06870, give
them a mask too.

torchvision's own models resize and normalise images and learn strides from the first batch. Here
boxes are in pixels of the canvas and strides are given, so that padded images change neither.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    maskrcnn_inference,
    project_masks_on_boxes,
)
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

from lpmoe_bench.data.targets import Found, Target
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Detector, Inputs
from lpmoe_bench.model.decoders.pyramid import STRIDES, FeaturePyramid
from lpmoe_bench.model.matching import mean_over_processes
from method_zoo.method import Features
from method_zoo.parts.deformable import precise

RATIOS = (0.5, 1.0, 2.0)  # of the anchors, height to width
ANCHORS, HALF = 256, 0.5  # sampled in an image to train the proposals; most of them on objects
POSITIVE = 0.25  # most of the regions sampled in an image that lie on objects
BETA = 1 / 9  # where the loss of boxes turns from a square into a line
BOX_SIDE, MASK_SIDE, MASK = 7, 14, 28  # cells that a region is read at, and those of its mask
LEAST_SCORE, OVERLAP = 0.05, 0.5  # of a detection; of two of a class, the lower one is dropped


class Proposed(NamedTuple):
    """What the proposals of a batch are trained with, and the proposals: boxes of each image."""

    boxes: list[Tensor]
    anchors: list[Tensor]
    objectness: Tensor
    shifts: Tensor


class RegionHead(Detector):
    """Proposals on all levels, then a class and a box for each; with `masked` a mask too.

    width: channels of the pyramid, a multiple of 8. hidden: units of the two layers that read a
    region. regions: sampled in an image in training. anchor: side of an anchor in cells of its
    level: 8 gives 32, 64, 128 and 256 pixels. detections: most of an image, as the protocol counts.
    """

    reads = "maps"
    masked: ClassVar[bool] = False

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
        super().__init__()
        if min(hidden, anchor, detections) < 1 or regions < 1 / POSITIVE:
            raise UsageError(
                f"hidden is {hidden}, anchor {anchor}, detections {detections} and regions "
                f"{regions}; the first three must be 1 or more, regions 4 or more"
            )
        self.classes, self.regions = classes, regions
        self.pyramid = FeaturePyramid(inputs, width, self.title)
        most = max(300, 2 * detections)
        self.proposals = RegionProposalNetwork(
            AnchorGenerator(tuple((anchor * s,) for s in STRIDES), (RATIOS,) * len(STRIDES)),
            _ProposalHead(width, len(RATIOS)),
            # Anchors between .3 and .7 teach nothing, but each object's best anchor always counts.
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=ANCHORS,
            positive_fraction=HALF,
            pre_nms_top_n={"training": 1000, "testing": max(500, most)},
            post_nms_top_n={"training": 500, "testing": most},
            nms_thresh=0.7,
        )
        self.heads = RoIHeads(
            _pool(BOX_SIDE),
            TwoMLPHead(width * BOX_SIDE**2, hidden),
            _BoxPredictor(hidden, classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=regions,
            positive_fraction=POSITIVE,
            bbox_reg_weights=None,
            score_thresh=LEAST_SCORE,
            nms_thresh=OVERLAP,
            detections_per_img=detections,
        )
        if self.masked:
            self.heads.mask_roi_pool = _pool(MASK_SIDE)
            self.heads.mask_head = MaskRCNNHeads(width, (width,) * 4, 1)
            self.heads.mask_predictor = _MaskPredictor(width, width, classes + 1)

    def loss(self, features: Features, targets: Sequence[Target], size: Sequence[int]) -> Tensor:
        """Return the sum of the losses of proposals, classes, boxes and masks.

        Each is divided by what was sampled of the batch. Proposals end where a padded image does.
        """
        return self.loss_on(self.maps_of(features), targets, size)

    def loss_on(self, maps: list[Tensor], targets: Sequence[Target], size: Sequence[int]) -> Tensor:
        """Return the loss of what `maps_of` gives."""
        inner = [target.inner or (size[0], size[1]) for target in targets]
        truth = [self._truth(target.trained()) for target in targets]
        images = _images(maps, size, inner)
        proposed = self._propose(maps, images)
        return self._proposal_loss(proposed, truth) + self._region_loss(
            maps, images, proposed.boxes, truth
        )

    def predict(self, features: Features, size: Sequence[int]) -> list[Found]:
        """Return what is found in each image, with masks inside their boxes where there are."""
        return self.found_on(self.maps_of(features), size)

    def found_on(self, maps: list[Tensor], size: Sequence[int]) -> list[Found]:
        """Return what is found on what `maps_of` gives."""
        heads = self._parts
        images = _images(maps, size, [(size[0], size[1])] * len(maps[0]))
        named, sizes = _named(maps), images.image_sizes
        regions = self._propose(maps, images).boxes
        logits, moves = heads.box_predictor(
            heads.box_head(heads.box_roi_pool(named, regions, sizes))
        )
        boxes, scores, labels = heads.postprocess_detections(logits, moves, regions, sizes)
        masks: Sequence[Tensor | None] = [None] * len(boxes)
        if self.masked:
            inside = self._mask_logits(heads.mask_roi_pool(named, boxes, sizes))
            masks = [own[:, 0] for own in maskrcnn_inference(inside, labels)]
        parts = zip(boxes, labels, scores, masks, strict=True)
        # torchvision's class 0 is the background: ours begin at 0 again.
        return [Found(b, k - 1, s, mask, framed=self.masked) for b, k, s, mask in parts]

    def countable(self, features: Features, size: Sequence[int]) -> Tensor:
        """Compute on shapes alone: as many regions as training samples, a quarter with a mask."""
        return self.counted_on(self.maps_of(features))

    def counted_on(self, maps: list[Tensor]) -> Tensor:
        """Return what is counted of what `maps_of` gives."""
        heads = self.heads
        objectness, shifts = self.proposals.head(maps)
        places = maps[0].new_zeros(self.regions * len(maps[0]), 5)
        logits, moves = heads.box_predictor(
            heads.box_head(roi_align(maps[0], places, BOX_SIDE))  # type: ignore[arg-type]
        )
        parts = [*objectness, *shifts, logits, moves]
        if self.masked:
            few = places[: int(self.regions * POSITIVE) * len(maps[0])]
            parts.append(self._mask_logits(roi_align(maps[0], few, MASK_SIDE)))  # type: ignore[arg-type]
        return torch.stack([part.sum() for part in parts]).sum()

    def maps_of(self, features: Features) -> list[Tensor]:
        """Return the pyramid in single precision: half has too few digits for corners of boxes."""
        return [precise(m) for m in self.pyramid(features.maps)]

    def _truth(self, target: Target) -> dict[str, Tensor]:
        """Return objects as torchvision has them: class 0 is the background."""
        truth = {"boxes": target.boxes.float(), "labels": target.classes + 1}
        if not self.masked:
            return truth
        if target.masks is None:
            raise UsageError(
                f"{self.title} learns masks, but these objects have boxes alone; use a task of "
                f"kind detection with --decoder faster_rcnn"
            )
        return truth | {"masks": target.masks}

    def _propose(self, maps: list[Tensor], images: ImageList) -> Proposed:
        network = self.proposals
        objectness, shifts = network.head(maps)
        anchors = network.anchor_generator(images, maps)
        counts = [one[0].numel() for one in objectness]  # of anchors, on each level
        scores, moves = concat_box_prediction_layers(objectness, shifts)
        # Detached: proposals are the places that the second
        # stage reads, and are trained by their own loss.
        boxes = network.box_coder.decode(moves.detach(), anchors).view(len(anchors), -1, 4)
        kept, _ = network.filter_proposals(boxes, scores, images.image_sizes, counts)
        return Proposed(kept, anchors, scores.flatten(), moves)

    def _proposal_loss(self, proposed: Proposed, truth: list[dict[str, Tensor]]) -> Tensor:
        network = self.proposals
        labels, matched = network.assign_targets_to_anchors(proposed.anchors, truth)
        wanted = torch.cat(network.box_coder.encode(matched, proposed.anchors))
        positive, negative = (torch.cat(own).bool() for own in network.fg_bg_sampler(labels))
        sampled = positive | negative
        found = F.binary_cross_entropy_with_logits(
            proposed.objectness[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        moved = _box_loss(proposed.shifts[positive], wanted[positive])
        return (found + moved) / mean_over_processes(int(sampled.sum()), wanted)

    def _region_loss(
        self,
        maps: list[Tensor],
        images: ImageList,
        proposals: list[Tensor],
        truth: list[dict[str, Tensor]],
    ) -> Tensor:
        heads, named, sizes = self._parts, _named(maps), images.image_sizes
        regions, matched, labels, wanted = heads.select_training_samples(proposals, truth)
        logits, moves = heads.box_predictor(
            heads.box_head(heads.box_roi_pool(named, regions, sizes))
        )
        label = torch.cat(labels)
        positive = torch.where(label > 0)[0]
        own = moves.unflatten(1, (-1, 4))[positive, label[positive]]  # each class has its own box
        total = F.cross_entropy(logits, label, reduction="sum")
        total = total + _box_loss(own, torch.cat(wanted)[positive])
        loss = total / mean_over_processes(len(label), logits)
        if not self.masked:
            return loss
        # Masks are learnt in regions that lie on an object, and only there.
        kept = [one > 0 for one in labels]
        inside = [boxes[where] for boxes, where in zip(regions, kept, strict=True)]
        masks = self._mask_logits(heads.mask_roi_pool(named, inside, sizes))
        parts = zip(truth, inside, matched, kept, strict=True)
        true = [_read_masks(one["masks"], boxes, m[where]) for one, boxes, m, where in parts]
        # A mask for each class is predicted; the one of the
        # true class is trained, so classes do not compete.
        chosen = masks[torch.arange(len(masks), device=masks.device), label[positive]]
        each = F.binary_cross_entropy_with_logits(chosen, torch.cat(true), reduction="none")
        return loss + each.mean((1, 2)).sum() / mean_over_processes(len(masks), masks)

    def _mask_logits(self, regions: Tensor) -> Tensor:  # (N, C, 14, 14) to (N, K + 1, 28, 28)
        return self._parts.mask_predictor(self._parts.mask_head(regions))

    @property
    def _parts(self) -> Any:  # those of masks may be None, as torchvision declares them
        return self.heads


def _images(maps: list[Tensor], size: Sequence[int], inner: list[tuple[int, int]]) -> ImageList:
    """Return what torchvision takes for images: of the canvas it reads the shape alone."""
    return ImageList(maps[0].new_empty(()).expand(len(inner), 3, *size), inner)


def _named(maps: list[Tensor]) -> dict[str, Tensor]:
    return {str(k): m for k, m in enumerate(maps)}


def _pool(side: int) -> MultiScaleRoIAlign:
    """Return what reads regions from the level that suits them, (N, C, side, side)."""
    pool = MultiScaleRoIAlign([str(k) for k in range(len(STRIDES))], side, 2)
    # Else they are taken from the first batch, as if its largest image filled the canvas.
    pool.scales = [1 / stride for stride in STRIDES]
    pool.map_levels = LevelMapper(2, 5)  # powers of two: strides 4 to 32
    return pool


def _box_loss(moves: Tensor, wanted: Tensor) -> Tensor:
    return F.smooth_l1_loss(moves, wanted, beta=BETA, reduction="sum")


def _read_masks(masks: Tensor, boxes: Tensor, matched: Tensor) -> Tensor:
    """Return the part of a mask that lies in each box, (P, 28, 28); matched: (P,), whose it is."""
    if not len(boxes):  # of an image without objects there is no mask to read from
        return boxes.new_zeros(0, MASK, MASK)
    return project_masks_on_boxes(masks, boxes, matched, MASK)


# The layers that give numbers for boxes, classes and masks: in single precision under autocast.


class _ProposalHead(RPNHead):
    def forward(self, x: list[Tensor]) -> Any:
        return tuple([precise(m) for m in maps] for maps in super().forward(x))


class _BoxPredictor(FastRCNNPredictor):
    def forward(self, x: Tensor) -> Any:
        return tuple(precise(one) for one in super().forward(x))


class _MaskPredictor(MaskRCNNPredictor):
    def forward(self, input: Tensor) -> Tensor:
        return precise(nn.Sequential.forward(self, input))
