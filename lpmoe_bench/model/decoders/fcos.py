"""FCOS: every place of a pyramid says a class, its distances to the sides of a box, its centerness.

Tian et al., ICCV 2019, arXiv 1904.01355, with the improvements of arXiv 2006.09214: places near
the centre of an object alone learn its box, and distances count in strides. Layers are
torchvision's; there are no anchors and no second stage.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSRegressionHead
from torchvision.ops import batched_nms, clip_boxes_to_image
from torchvision.ops.focal_loss import sigmoid_focal_loss
from torchvision.ops.giou_loss import generalized_box_iou_loss

from lpmoe_bench.data.targets import Found, Target
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Detector, Inputs
from lpmoe_bench.model.decoders.pyramid import STRIDES, FeaturePyramid
from lpmoe_bench.model.matching import mean_over_processes
from method_zoo.method import Features
from method_zoo.parts.deformable import precise

GROUPS = 32  # of the group norms of torchvision's layers
RADIUS = 1.5  # strides: how far from the centre of an object a place may learn it
NEAR, FAR = 4, 8  # strides: between these lies the farthest side of a box that a level learns
LEAST_SCORE, OVERLAP = 0.05, 0.6  # of a detection; of two of a class, the lower one is dropped
CANDIDATES = 1000  # on each level, before overlapping ones are dropped


class Locations(NamedTuple):
    """Where predictions are made: centres (P, 2) of x, y in pixels; stride of each, and the range
    of distances that it learns, (P,)."""

    centres: Tensor
    strides: Tensor
    nearest: Tensor
    farthest: Tensor


class FCOS(Detector):
    """Reads a pyramid of strides 4 to 32.

    width: channels of its maps and of the layers, a multiple of 32. layers: before each prediction.
    detections: most of an image, as the protocol counts.
    """

    title = "FCOS"
    reads = "maps"
    paper = "arXiv 1904.01355"
    kinds = ("detection",)
    losses = {"detection": "own"}
    fidelity = (
        "torchvision's layers at a quarter of their width; strides 4 to 32 where the paper has 8 "
        "to 128, so each level learns boxes of half the size"
    )

    def __init__(
        self, inputs: Inputs, classes: int, width: int = 64, layers: int = 4, detections: int = 100
    ):
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise UsageError(f"decoder width is {width}; it must be a multiple of {GROUPS}")
        if min(layers, detections) < 1:
            raise UsageError(f"layers is {layers}, detections {detections}; both must be 1 or more")
        self.classes, self.detections = classes, detections
        self.pyramid = FeaturePyramid(inputs, width, self.title)
        self.labels = FCOSClassificationHead(width, 1, classes, layers)
        self.boxes = FCOSRegressionHead(width, 1, layers)

    def outputs_of(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of classes (B, P, K), distances to left, top, right, bottom in strides
        (B, P, 4), and logits of centerness (B, P), places from the finest level to the coarsest."""
        maps = self.pyramid(features.maps)
        distances, centred = self.boxes(maps)
        return precise(self.labels(maps)), precise(distances), precise(centred)[..., 0]

    def loss(self, features: Features, targets: Sequence[Target], size: Sequence[int]) -> Tensor:
        """Return focal loss of classes, GIoU loss of boxes and cross-entropy of centerness, each
        divided by how many places of the batch have an object."""
        logits, distances, centred = self.outputs_of(features)
        places = places_of(size, logits.device)
        wanted = torch.zeros_like(logits)
        at: list[Tensor] = []
        boxes: list[Tensor] = []
        for own, target in zip(wanted, (one.trained() for one in targets), strict=True):
            where, which = assigned(places, target.boxes)
            own[where, target.classes[which]] = 1
            at.append(where)
            boxes.append(target.boxes[which])
        image = torch.cat([torch.full_like(one, k) for k, one in enumerate(at)])
        place, box = torch.cat(at), torch.cat(boxes)
        found = boxes_at(places, distances[image, place], place)
        near = centerness(places.centres[place], box)
        each = F.binary_cross_entropy_with_logits(centred[image, place], near, reduction="sum")
        total = sigmoid_focal_loss(logits, wanted, reduction="sum") + each
        total = total + generalized_box_iou_loss(found, box, reduction="sum")
        return total / mean_over_processes(len(place), logits)

    def predict(self, features: Features, size: Sequence[int]) -> list[Found]:
        """Return the boxes of each image; a score is the root of class times centerness."""
        logits, distances, centred = self.outputs_of(features)
        places = places_of(size, logits.device)
        scores = (logits.sigmoid() * centred.sigmoid()[..., None]).sqrt()
        return [
            self._found(one, own, places, size) for one, own in zip(scores, distances, strict=True)
        ]

    def _found(
        self, scores: Tensor, distances: Tensor, places: Locations, size: Sequence[int]
    ) -> Found:
        chosen = []
        for stride in STRIDES:  # the best of each level, so that none is crowded out
            level = torch.where(places.strides == stride)[0]
            # Levels follow one another in (P, K), so a place
            # in a level's own numbers is moved by its start.
            first = int(level[0]) * self.classes
            flat = scores[level].flatten()
            best = flat.topk(min(CANDIDATES, len(flat))).indices
            chosen.append(first + best[flat[best] > LEAST_SCORE])
        picked = torch.cat(chosen)
        score, place, kind = (
            scores.flatten()[picked],
            torch.div(picked, self.classes, rounding_mode="floor"),
            picked % self.classes,
        )
        boxes = boxes_at(places, distances[place], place)
        boxes = clip_boxes_to_image(boxes, (int(size[0]), int(size[1])))
        # Best first, so the cut keeps the best; boxes
        # of different classes do not drop one another.
        kept = batched_nms(boxes, score, kind, OVERLAP)[: self.detections]
        return Found(boxes[kept], kind[kept], score[kept])

    def countable(self, features: Features, size: Sequence[int]) -> Tensor:
        return torch.stack([one.sum() for one in self.outputs_of(features)]).sum()


def places_of(size: Sequence[int], device: torch.device) -> Locations:
    """Return the places of a canvas (h, w), level by level from stride 4, row by row in each."""
    centres, strides, nearest, farthest = [], [], [], []
    for stride in STRIDES:
        rows, columns = (torch.arange(int(side) // stride, device=device) for side in size)
        y, x = torch.meshgrid((rows + 0.5) * stride, (columns + 0.5) * stride, indexing="ij")
        centres.append(torch.stack([x.flatten(), y.flatten()], dim=1))
        own = torch.full_like(centres[-1][:, 0], stride)
        strides.append(own)
        # Nothing is too small for the finest level, nothing too large for the coarsest.
        nearest.append(own * (0 if stride == STRIDES[0] else NEAR))
        farthest.append(own * (torch.inf if stride == STRIDES[-1] else FAR))
    return Locations(*(torch.cat(parts) for parts in (centres, strides, nearest, farthest)))


def assigned(places: Locations, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places that learn an object, and which one; of several the smallest.

    boxes: (N, 4), each with a width and a height.
    """
    if not len(boxes):
        none = torch.zeros(0, dtype=torch.int64, device=boxes.device)
        return none, none
    x, y = places.centres[:, None].unbind(-1)  # (P, 1)
    left, top, right, bottom = boxes.unbind(-1)  # (N,)
    sides = torch.stack([x - left, y - top, right - x, bottom - y])  # (4, P, N)
    off_centre = torch.maximum((x - (left + right) / 2).abs(), (y - (top + bottom) / 2).abs())
    farthest = sides.amax(0)
    # (P, N): all four distances above 0 is inside of the box;
    # then near its centre, and of a size that the level learns.
    fits = (sides.amin(0) > 0) & (off_centre < RADIUS * places.strides[:, None])
    fits &= (farthest > places.nearest[:, None]) & (farthest <= places.farthest[:, None])
    areas = ((right - left) * (bottom - top)).expand_as(fits)
    smallest, which = torch.where(fits, areas, torch.inf).min(1)
    where = torch.where(smallest < torch.inf)[0]
    return where, which[where]


def boxes_at(places: Locations, distances: Tensor, place: Tensor) -> Tensor:
    """Return boxes (M, 4) in pixels of distances (M, 4) in strides at places, by their number."""
    lengths = distances * places.strides[place, None]
    centres = places.centres[place]
    return torch.cat([centres - lengths[:, :2], centres + lengths[:, 2:]], dim=1)


def centerness(centres: Tensor, boxes: Tensor) -> Tensor:
    """Return how central places are in their boxes, (M,), 1 at the middle; equation 3."""
    before, after = centres - boxes[:, :2], boxes[:, 2:] - centres
    ratios = torch.minimum(before, after) / torch.maximum(before, after)
    return ratios.prod(1).sqrt()
