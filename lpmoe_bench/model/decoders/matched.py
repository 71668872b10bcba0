"""What decoders with queries share: classes of pixels, objects and segments of them; their loss."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lpmoe_bench.config.settings import MATCHING, check_loss
from lpmoe_bench.data.targets import Found, Segmented
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Decoder, Examined, Head
from lpmoe_bench.model.matching import (
    PAPER,
    PartWeights,
    TrueMasks,
    matching_loss,
    truth_of_labels,
    truth_of_targets,
)
from method_zoo.method import Features
from method_zoo.parts.deformable import full_precision, precise

SMALLEST = 1e-6  # added to a score before its logarithm


def query_scores(labels: Tensor, masks: Tensor) -> Tensor:
    """Return S_c = sum over queries q of p(q, c) m(q), (B, K, H, W), in single precision.

    Args:
        labels: logits of the classes and of "nothing", the last, (B, Q, K + 1).
        masks: logits of the masks, (B, Q, H, W).
    """
    shares = precise(labels).softmax(-1)[..., :-1]
    with full_precision(masks):
        return torch.einsum("bqc,bqhw->bchw", shares, precise(masks).sigmoid())


# Objects and segments of the queries of one image.


def objects_of_queries(
    shares: Tensor, masks: Tensor, size: Sequence[int], most: int = 100
) -> Found:
    """Return the best pairs of a query and a class, as Mask2Former's released code ranks them.

    A score is the probability of the class times the mean probability of the mask where it is above
    one half. Departs from that code: the mean is over the mask as the decoder gives it, not at the
    image's own size.

    Args:
        shares: probabilities of the classes, without "nothing", (Q, K).
        masks: logits over the canvas, (Q, h', w').
        size: (h, w) of the canvas.
        most: how many pairs.
    """
    # Pairs and not queries are ranked: place = query
    # * K + class, so a query may count several times.
    best, place = shares.flatten().topk(min(most, shares.numel()))
    query = torch.div(place, shares.shape[1], rounding_mode="floor")
    chosen = precise(masks)[query]
    inside = chosen > 0
    sure = (chosen.sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    scores, order = (best * sure).sort(descending=True, stable=True)
    boxes = _boxes_of(inside[order], size)
    return Found(boxes, (place % shares.shape[1])[order], scores, chosen[order])


def _boxes_of(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Return the boxes of masks (N, h', w') in pixels of the canvas; of one without a pixel 0."""
    edges = []
    for axis, side in ((1, size[1]), (2, size[0])):  # columns, then rows
        there = masks.any(axis)
        cells = there.shape[1]
        place = torch.arange(cells, device=masks.device)
        # Of a mask without a pixel low is `cells` and high 0; the minimum below makes both 0.
        low = torch.where(there, place, cells).amin(1)
        high = torch.where(there, place + 1, 0).amax(1)
        edges.append(torch.stack([low.minimum(high), high]) * (side / cells))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], dim=1)


def segments_of_queries(
    shares: Tensor, masks: Tensor, size: Sequence[int], most: int = 100
) -> Segmented:
    """Return the queries as they are: their merging is for the size of the image itself."""
    return Segmented(shares, precise(masks))


class Reading(NamedTuple):
    """What a kind of task with targets makes of queries, what it is in words, and whether the best
    alone are kept."""

    of_queries: Callable[..., Any]
    words: str
    ranked: bool = False


READINGS = {
    "instance": Reading(objects_of_queries, "objects", ranked=True),
    "panoptic": Reading(segments_of_queries, "objects and classes of stuff"),
}


class MatchedDecoder(Decoder):
    """A decoder whose queries have a label and a mask each, and that the matching loss can train.

    points: at which masks are compared. weights: of the parts of the loss. With another loss its
    logits are trained, as those of any decoder. detections: most objects of an image.
    """

    classes: int
    losses = {"semantic": "matching"}  # plainly, for it is read from here without an import
    points: int = 12_544
    weights: PartWeights = PAPER
    detections: int = 100
    reading: Reading | None = None  # of a kind of task with targets

    def queries_of(self, features: Features) -> tuple[Tensor, Tensor]:
        """Return logits of the labels, (D * B, Q, K + 1), and of the masks, (D * B, Q, H, W); in
        training of D outputs, one after the other along the batch."""
        raise NotImplementedError

    def matched(self, features: Features, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return what the matching loss takes: labels, and masks at whatever size they are held
        against the truth of the images, whose (h, w) is given."""
        return self.queries_of(features)

    def refuse_for_one(self, classes: int, **options: Any) -> None:
        """Refuse options of the matching loss where there is one class, which has no such loss."""
        for name, value in options.items():
            if classes == 1 and value != self.later_options[name]:
                raise UsageError(
                    f"option {name} of decoder {self.title} is for tasks of several classes, but "
                    f"this one has a mask alone; leave it out"
                )

    def train_with(
        self, loss: str, kind: str = "binary", class_weights: Sequence[float] | None = None
    ) -> None:
        check_loss(loss, kind)
        self.reading = READINGS.get(kind)
        if loss != MATCHING:
            super().train_with(loss, kind, class_weights)
        elif self.classes == 1 and self.reading is None:
            raise UsageError(
                f"loss {MATCHING} tells classes apart, but this task has one; use a task of two or "
                f"more, or another loss"
            )
        elif class_weights is not None:
            raise UsageError(
                f"train.class_weights are not for loss {MATCHING}; use cross_entropy, ce_dice or "
                f"focal, or leave them out"
            )
        else:
            self.criterion = None

    @classmethod
    def depends_on_batch(cls, loss: str, options: Mapping[str, Any]) -> str:
        return "divides by how many masks a batch holds" if loss == MATCHING else ""

    def loss(self, features: Features, targets: Any, size: Sequence[int]) -> Tensor:
        if self.criterion is not None:
            return super().loss(features, targets, size)
        labels, masks = self.matched(features, size)
        truth = truth_of_labels(targets) if self.reading is None else self._truth(labels, targets)
        return matching_loss(labels, masks, truth, self.points, self.weights)

    def _truth(self, labels: Tensor, targets: Any) -> list[TrueMasks]:
        """Return what targets hold, with classes as the labels of queries count them."""
        assert self.reading is not None
        if any(target.masks is None for target in targets):
            raise UsageError(
                f"{self.title} learns masks, but these objects have boxes alone; use a task of "
                f"kind detection with --decoder faster_rcnn"
            )
        truth = truth_of_targets(targets)
        if max((len(true.classes) for true in truth), default=0) > labels.shape[1]:
            warnings.warn(
                f"an image holds more {self.reading.words} than the {labels.shape[1]} queries of "
                f"decoder {self.title}: those beyond are not learnt; use more queries",
                stacklevel=2,
            )
        # One beyond would mean "nothing", without an error.
        assert all(bool((true.classes < self.classes).all()) for true in truth)
        return [true._replace(classes=true.classes + self._first(labels)) for true in truth]

    def _first(self, labels: Tensor) -> int:
        """Return the label of the first class: 1 where a background of its own stands before."""
        return labels.shape[-1] - 1 - self.classes

    def examine(self, features: Features, targets: Any, size: Sequence[int]) -> Examined:
        if self.criterion is not None:
            return super().examine(features, targets, size)
        return Head.examine(self, features, targets, size)

    def predict(self, features: Features, size: Sequence[int]) -> Any:
        """Return logits of maps, or for tasks of objects what the queries are, a list of images."""
        if self.reading is None:
            return super().predict(features, size)
        labels, masks = self.queries_of(features)
        count = len(features.final)  # in training of several outputs the last
        shares = precise(labels[-count:]).softmax(-1)[..., self._first(labels) : -1]
        pairs = zip(shares, masks[-count:], strict=True)
        return [self.reading.of_queries(*one, size, self.detections) for one in pairs]

    def countable(self, features: Features, size: Sequence[int]) -> Tensor:
        if self.reading is None:
            return super().countable(features, size)
        labels, masks = self.queries_of(features)
        return labels.sum() + masks.sum()
