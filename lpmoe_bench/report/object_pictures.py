"""Pictures of objects: boxes, instances and panoptic maps beside their truth, and outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lpmoe_bench.config.kinds import get_kind
from lpmoe_bench.data.annotations import Mask
from lpmoe_bench.data.images import read_image
from lpmoe_bench.data.label_rules import VOID, LabelRules, class_colours, shown_few
from lpmoe_bench.data.object_drawing import (
    CROWD,
    LEAST_SCORE,
    MATCHED,
    Shapes,
    draw_objects,
    draw_outcomes,
    draw_segment_outcomes,
    draw_segments,
    numbers_of,
    object_colours,
    places_shown,
)
from lpmoe_bench.data.objects import Objects, read_objects
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.facts import Metric
from lpmoe_bench.metrics.objects import Detections, ObjectMatches, ObjectScorer
from lpmoe_bench.metrics.panoptic import Panoptic, PanopticScorer, SegmentMatches
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.records.store import StoredRecord
from lpmoe_bench.report.pictures import Colour, MapPictures, Part
from lpmoe_bench.scoring.results import read_found, read_panoptic_map
from lpmoe_bench.scoring.work import INVENTED, MISSED

WHITE = 255
LOST: Colour = tuple(MISSED.tolist())
FALSE: Colour = tuple(INVENTED.tolist())
OUTCOMES = ("matched at IoU .5", "missed", "false alarm")


@dataclass(frozen=True)
class ObjectPictures(MapPictures):
    """Detections, in boxes; what kinds of objects share.

    Those of a score of at least `least` are drawn, and matched with the truth by the rules of the
    protocol at an IoU of .5. An object that is found has the colour that it has in the truth.
    """

    least: float = LEAST_SCORE

    kind: ClassVar[str] = "detection"
    masks: ClassVar[bool] = False
    truth_title = "truth"
    has_object = False
    note = (
        f"Drawn are detections of a score of at least {LEAST_SCORE:g}. The AP of an image is that "
        "of all its detections by themselves; one without an object has none."
    )

    def above(self, score: float) -> ObjectPictures:
        return replace(self, least=score)

    @property
    def labels(self) -> LabelRules:
        """What is declared of the truth."""
        assert self.test.rules.labels is not None
        return self.test.rules.labels

    @property
    def colours(self) -> list[Colour]:
        """The colour of each class."""
        return class_colours(self.labels)

    @property
    def scorer(self) -> Any:
        """An empty scorer, by the usual protocol where that of the maps is not known."""
        protocol: Any = self.protocol or get_protocol(get_kind(self.kind).protocol)
        return ObjectScorer(protocol, self.labels.classes)

    def read(self, name: str) -> tuple[np.ndarray | None, Objects]:
        file, rules = self.test.images.get(name), self.test.rules
        truth = read_objects(self.test.masks[name], rules, file, self.masks)
        if file is None:
            return None, truth
        image = read_image(file, rules)
        if image.shape[:2] != truth.shape:
            high, wide = truth.shape
            raise DataError(
                f"{file} is {image.shape[1]} x {image.shape[0]} pixels, and its truth {wide} x "
                f"{high}; the two must belong together"
            )
        return image, truth

    def attached(self, files: Mapping[str, Mask], place: Path) -> Mapping[str, Mask]:
        job = get_kind(self.kind).job
        if place.is_dir():
            return job.attach(files, place, self.test)
        found, _ = job.open_file(place, self.test)
        if found.extra and not any(len(one.objects.classes) for one in found.files.values()):
            raise DataError(
                f"{place} speaks of no image of {self.test.label}, but of {shown_few(found.extra)}"
            )
        return found.files

    def read_map(self, path: Mask, truth: Objects, stored: StoredRecord | None) -> Any:
        return read_found(path, self.test.rules, truth.shape, self.masks)[0]

    def present(self, pred: Any, part: Part) -> set[int]:
        low, high = (np.array([part[k].start or 0 for k in (1, 0)]), _ends(part))
        inside = ((pred.boxes[:, 2:] > low) & (pred.boxes[:, :2] < high)).all(axis=1)
        if isinstance(pred, Detections):
            inside &= pred.scores >= self.least
            return set(pred.classes[inside].tolist())
        crowds = pred.crowd & inside
        return set(pred.classes[inside & ~crowds].tolist()) | ({VOID} if crowds.any() else set())

    def shown(self, pred: Any, truth: Objects) -> np.ndarray:
        return self.over(np.full((*truth.shape, 3), WHITE, np.uint8), pred, truth)

    def over(self, image: np.ndarray, pred: Any, truth: Objects) -> np.ndarray:
        if isinstance(pred, Detections):
            places = places_shown(pred.scores, self.least)
            numbers = _numbers_beside(pred.classes, self._matches(pred, truth), truth)
            crowd = np.zeros(len(places), bool)
        else:
            # Large ones first, for in a set of boxes small ones lie on top of them.
            places = np.argsort(-pred.areas, kind="stable")
            numbers, crowd = numbers_of(pred.classes), pred.crowd[places]
        colours = object_colours(pred.classes[places], numbers[places], self.colours)
        colours = [CROWD if c else own for c, own in zip(crowd.tolist(), colours, strict=True)]
        return draw_objects(image, Shapes(pred.boxes, pred.masks).only(places), colours)

    def _matches(self, pred: Detections, truth: Objects) -> ObjectMatches:
        return self.scorer.matches("shown", pred, truth, self.least)

    def errors(self, pred: Detections, truth: Objects) -> np.ndarray:
        found, true = Shapes(pred.boxes, pred.masks), Shapes(truth.boxes, truth.masks)
        matches = self._matches(pred, truth)
        outcomes = [
            (CROWD, true.only(truth.crowd)),
            (CROWD, found.only(matches.crowd)),
            (MATCHED, found.only(matches.right)),
            (LOST, true.only(matches.missed)),
            (FALSE, found.only(matches.false)),
        ]
        return draw_outcomes(truth.shape, outcomes)

    def told(self, pred: Detections, truth: Objects) -> str:
        matches = self._matches(pred, truth)
        return _told(matches.right.sum(), matches.missed.sum(), matches.false.sum())

    def score(self, metric: Metric, pred: Any, truth: Any) -> float | None:
        if self.protocol is None:
            return None
        scorer = self.scorer
        if not self.protocol.has_metric(metric.key):
            raise UsageError(
                f"protocol {self.protocol.name} does not have {metric.key}; choose one of "
                f"{', '.join(self.protocol.metrics)}"
            )
        scorer.add("image", pred, truth)
        try:
            return scorer.result().scores.get(metric.key)
        except DataError:  # there is no object
            return None

    def label(self, metric: Metric) -> str:
        return metric.label if metric.per_image else f"image {metric.label}"

    def swatches(self, present: Iterable[int], show: Sequence[str]) -> Mapping[str, Colour]:
        there, classes = set(present), self.labels.classes
        found: dict[str, Colour] = {}
        if len(classes) > 1 and show != ["errors"]:  # else colours tell objects apart alone
            found |= {classes[k]: self.colours[k] for k in sorted(there - {VOID})}
        if "errors" in show:
            found |= dict(zip(OUTCOMES, (MATCHED, LOST, FALSE), strict=True))
        return found | ({self._void: CROWD} if VOID in there else {})

    _void: ClassVar[str] = "crowd"


class InstancePictures(ObjectPictures):
    """Instances, each in a colour of its own."""

    kind = "instance"
    masks = True


class PanopticPictures(ObjectPictures):
    """Panoptic maps: stuff in the colours of classes, things in shades of them."""

    kind = "panoptic"
    masks = True
    note = "The PQ of an image is that of its segments by themselves."
    _void = "void or crowd"

    @property
    def scorer(self) -> Any:
        protocol: Any = self.protocol or get_protocol(get_kind(self.kind).protocol)
        return PanopticScorer(protocol, self.labels.classes, self.labels.things)

    def above(self, score: float) -> ObjectPictures:
        MapPictures.above(self, score)
        return self

    def read_map(self, path: Mask, truth: Objects, stored: StoredRecord | None) -> Panoptic:
        found = read_panoptic_map(path, len(self.labels.classes))[0]
        if found.segments.shape != truth.shape:
            (high, wide), (h, w) = found.segments.shape, truth.shape
            raise DataError(f"{path} is {wide} x {high} pixels, and its truth {w} x {h}")
        return found

    def present(self, pred: Any, part: Part) -> set[int]:
        if isinstance(pred, Panoptic):
            segments, classes, crowd = (
                pred.segments,
                pred.classes,
                np.zeros(len(pred.classes), bool),
            )
        else:
            segments, classes, crowd = self.scorer.segments(pred)
        there = np.unique(segments[part])
        own = there[there > 0] - 1
        blank = crowd[own].any() or (not isinstance(pred, Panoptic) and (there == 0).any())
        return set(classes[own[~crowd[own]]].tolist()) | ({VOID} if blank else set())

    def over(self, image: np.ndarray, pred: Any, truth: Objects, tint: float = 0.6) -> np.ndarray:
        segments, classes, crowd = self.scorer.segments(truth)
        numbers = numbers_of(classes)
        if isinstance(pred, Panoptic):
            of, by = np.nonzero(self._segments(pred, truth)[1].matched)
            own = numbers_of(pred.classes) + np.bincount(classes, minlength=VOID)[pred.classes]
            own[by] = numbers[of]
            segments, classes, numbers = pred.segments, pred.classes, own
            crowd = np.zeros(len(own), bool)
        # Stuff of a class is one segment, in the colour of the class itself.
        things = np.isin(np.array(self.labels.classes, object)[classes], self.labels.things)
        colours = object_colours(classes, np.where(things, numbers, 0), self.colours)
        colours = [CROWD if c else one for c, one in zip(crowd.tolist(), colours, strict=True)]
        picture = draw_segments(image, segments, colours, tint)
        if not isinstance(pred, Panoptic):
            picture[segments == 0] = CROWD
        return picture

    def shown(self, pred: Any, truth: Objects) -> np.ndarray:
        return self.over(np.full((*truth.shape, 3), WHITE, np.uint8), pred, truth, 1.0)

    def _segments(self, pred: Panoptic, truth: Objects) -> tuple[np.ndarray, SegmentMatches]:
        return self.scorer.matches("shown", pred, truth)

    def errors(self, pred: Panoptic, truth: Objects) -> np.ndarray:
        true, matches = self._segments(pred, truth)
        right = np.asarray(matches.matched.any(axis=0))
        pairs = zip(right.tolist(), matches.false.tolist(), strict=True)
        colours = [MATCHED if good else FALSE if false else None for good, false in pairs]
        return draw_segment_outcomes(pred.segments, colours, true, matches.missed, LOST)

    def told(self, pred: Panoptic, truth: Objects) -> str:
        matches = self._segments(pred, truth)[1]
        return _told(matches.matched.sum(), matches.missed.sum(), matches.false.sum())


def _told(matched: int, missed: int, false: int) -> str:
    return f"{matched} matched, {missed} missed, {false} false"


def _ends(part: Part) -> np.ndarray:
    return np.array([np.inf if part[k].stop is None else part[k].stop for k in (1, 0)])


def _numbers_beside(classes: np.ndarray, matches: ObjectMatches, truth: Objects) -> np.ndarray:
    """Return of each detection which one of its class it is: that of the object that it finds, else
    a number that no object has."""
    numbers = numbers_of(classes) + np.bincount(truth.classes, minlength=VOID)[classes]
    numbers[matches.right] = numbers_of(truth.classes)[matches.objects[matches.right]]
    return numbers
