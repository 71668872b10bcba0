"""Scores of objects: average precision of boxes and masks, and the score of nuclei of 2018.

What each detection of an image is, a hit or a false alarm, is found when the image is added; see
`hits`. Nothing here imports numpy until there is something to score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.base import OBJECT_FLAGS, ScoreResult, ScoringRules, SetScorer
from lpmoe_bench.metrics.classes import check_classes
from lpmoe_bench.metrics.facts import METRICS, get_metric

if TYPE_CHECKING:
    import numpy as np


Part = Literal["boxes", "masks"]

# What is scored: detections beside the objects of the truth.


class Detections(NamedTuple):
    """Objects found in one image, at its own size, in any order.

    boxes: float (N, 4), x0 y0 x1 y1 in pixels, half-open. classes: int (N,). scores: float (N,).
    masks: N of them in a form that `runs.to_runs` reads, None where there are boxes alone.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    masks: Sequence[Any] | None = None


class TrueObjects(Protocol):
    """The objects of one image, at its own size.

    boxes: float64 (N, 4), x0 y0 x1 y1 in pixels, half-open. classes: int (N,). crowd: bool (N,), a
    group that is not told apart. areas: float64 (N,), pixels, as the file says, by which an object
    is small, medium or large. masks: N of them in a form that `runs.to_runs` reads, or None. shape:
    height and width.
    """

    @property
    def boxes(self) -> np.ndarray: ...
    @property
    def classes(self) -> np.ndarray: ...
    @property
    def crowd(self) -> np.ndarray: ...
    @property
    def areas(self) -> np.ndarray: ...
    @property
    def masks(self) -> Any: ...
    @property
    def shape(self) -> tuple[int, int]: ...


# ObjectProtocol: the rules.


@dataclass(frozen=True)
class ObjectProtocol(ScoringRules):
    """Everything that decides a score of detections, besides these themselves.

    parts: what overlaps, each with scores of its own. most: how many detections of one class in one
    image count, the best. least_score: of a detection that counts at all. matching: when a
    detection finds an object. areas: ranges that have scores of their own. aggregation: how images
    become a score.
    """

    name: str
    version: int
    title: str
    source: str
    task: Literal["detection", "instance"]
    parts: tuple[Part, ...]
    most: int
    least_score: float
    matching: Literal["best first, IoU at least", "best first, IoU above"]
    overlaps: Literal[".50, .55 to .95"]
    areas: Literal["all, up to 32 x 32, to 96 x 96, larger", "all"]
    crowd: Literal["absorbs"]
    aggregation: Literal["precision at 101 recalls, mean over classes", "image mean, no classes"]
    of_class: tuple[str, ...]
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    primary: str
    percent: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.task

    def explain(self) -> list[tuple[str, str]]:
        """Return (field, sentences) that tell all of it, each of its metrics included."""
        labels = [get_metric(key).label for key in self.headline]
        by_class = ", with --by-class each class" if self.of_class else ""
        scale = "Records hold fractions; a table prints percent."
        return [
            ("protocol", f"{self.label}: {self.title}"),
            ("source", f"{self.source}."),
            ("overlap", f"IoU of {' and of '.join(self.parts)}, in 64-bit floats."),
            ("detections", _told_limits(self)),
            ("matching", _MATCHING[self.matching]),
            ("crowds", _CROWD[self.crowd]),
            *_told_areas(self),
            ("images", _AGGREGATION[self.aggregation]),
            ("scale", scale if self.percent else "Scores are fractions."),
            (
                "tables",
                f"A table shows {', '.join(labels)}{by_class}; methods are ranked by "
                f"{get_metric(self.primary).label}.",
            ),
            ("hash", f"{self.hash}; a change of any rule is a new version with another hash."),
            ("metrics", ""),
            *self.tell_metrics(),
        ]


def _told_limits(protocol: ObjectProtocol) -> str:
    what = "class" if protocol.of_class else "image"
    most = f"Of each {what} in an image the {protocol.most} detections of the highest score count"
    if what == "image":
        most = f"Of each image the {protocol.most} detections of the highest score count"
    least = f", if it is at least {protocol.least_score:g}" * (protocol.least_score > 0)
    return f"{most}{least}; of equal scores the earlier ones, by image name and place in it."


def _told_areas(protocol: ObjectProtocol) -> list[tuple[str, str]]:
    if protocol.areas == "all":
        return []
    sentence = (
        "Objects are small up to 32 x 32 pixels of area, as the truth's file has it, medium up to "
        "96 x 96, else large. At one range objects of others are ignored, and detections of others "
        "that find nothing, whose area is that of their own box or mask."
    )
    return [("areas", sentence)]


_MATCHING = {
    "best first, IoU at least": "The detection of the highest score chooses first: the free object "
    "of its class of most overlap, if that is at least the threshold. Whatever finds none, or one "
    "that is taken, is a false alarm.",
    "best first, IoU above": "The detection of the highest score chooses first: the free object of "
    "most overlap, of whichever class, if that is above the threshold. Overlapping detections are "
    "not cut apart.",
}
_CROWD = {
    "absorbs": "A crowd is neither found nor missed; it takes any number of detections, by the "
    "share of each that lies in it, which then count nowhere."
}
_AGGREGATION = {
    "precision at 101 recalls, mean over classes": "The detections of all images are ranked "
    "together, class by class; average precision is the mean over the recalls 0, .01 to 1 of the "
    "best precision at that recall or above. The mean is over classes that have an object.",
    "image mean, no classes": "Each image has a score and the data set their mean. An image with "
    "neither object nor detection counts 1.",
}


def _precisions(part: Part) -> tuple[str, ...]:
    own = [k for k, m in METRICS.items() if m.of_objects and m.of_objects.column == part]
    return tuple(key for key in own if "/" not in key)


_BOXES, _MASKS = _precisions("boxes"), _precisions("masks")
COCO_BOXES = ObjectProtocol(
    name="coco_boxes",
    version=1,
    title="Detection, average precision of boxes",
    source="COCO's evaluation as pycocotools 2.0.11 computes it, 100 detections of a class in an "
    "image",
    task="detection",
    parts=("boxes",),
    most=100,
    least_score=0.0,
    matching="best first, IoU at least",
    overlaps=".50, .55 to .95",
    areas="all, up to 32 x 32, to 96 x 96, larger",
    crowd="absorbs",
    aggregation="precision at 101 recalls, mean over classes",
    of_class=("box_ap",),
    metrics=_BOXES,
    headline=_BOXES,
    primary="box_ap",
    percent=_BOXES,
)
COCO_MASKS = replace(
    COCO_BOXES,
    name="coco_masks",
    title="Instance segmentation, average precision of masks, and of boxes",
    source="COCO's evaluation as pycocotools 2.0.11 computes it, 100 detections of a class in an "
    "image; the area of a found mask is its pixels, also where a result file gives a box beside "
    "it, whose area pycocotools would take",
    task="instance",
    parts=("masks", "boxes"),
    of_class=("mask_ap", "box_ap"),
    metrics=(*_MASKS, *_BOXES),
    headline=("mask_ap", "mask_ap50", "mask_ap75", "box_ap", "box_ap50", "box_ap75"),
    primary="mask_ap",
    percent=(*_MASKS, *_BOXES),
)
CELLS = replace(
    COCO_MASKS,
    name="cells",
    title="Instances of images with hundreds of objects, such as nuclei",
    source="coco_masks with 1000 detections of a class in an image: with COCO's 100 perfect "
    "detections of such images would lose objects",
    most=1000,
)
DSB2018 = ObjectProtocol(
    name="dsb2018",
    version=1,
    title="Nuclei, the score of the Data Science Bowl 2018",
    source="the evaluation of Kaggle's Data Science Bowl 2018: tp / (tp + fp + fn) of each image, "
    "mean over the thresholds .50, .55 to .95 that the IoU of masks must be above, mean over "
    "images. Detections have scores here, so that those below .5 are left out; theirs had none",
    task="instance",
    parts=("masks",),
    most=1000,
    least_score=0.5,
    matching="best first, IoU above",
    overlaps=".50, .55 to .95",
    areas="all",
    crowd="absorbs",
    aggregation="image mean, no classes",
    of_class=(),
    metrics=("dsb_score", "dsb_50", "dsb_75"),
    headline=("dsb_score", "dsb_50", "dsb_75"),
    primary="dsb_score",
)
OBJECT_PROTOCOLS = (COCO_BOXES, COCO_MASKS, CELLS, DSB2018)

# ObjectScorer: scores of a data set.


class ObjectMatches(NamedTuple):
    """What the D detections of one image find among its G objects.

    objects: int (D,), the object that a detection takes, -1 for none. right: bool (D,), those that
    find an object. false: bool (D,), false alarms. crowd: bool (D,), those that lie in a crowd and
    count nowhere. missed: bool (G,), objects that none finds, crowds apart. Detections that are not
    looked at are none of these.
    """

    objects: np.ndarray
    right: np.ndarray
    false: np.ndarray
    crowd: np.ndarray
    missed: np.ndarray


class ObjectScorer(SetScorer):
    """Collects the detections of one data set, image by image, in any order.

    The result depends neither on that order nor on how the images are divided among several scorers
    that are merged at the end: detections of equal score are ranked by the name of their image. A
    scorer pickles, and keeps rows but no mask.

    Args:
        protocol: the rules.
        classes: their names, in the order of their numbers.

    Raises:
        UsageError: there is no class, or more than 254, or one has no name or that of another.
    """

    def __init__(self, protocol: ObjectProtocol, classes: Sequence[str]):
        super().__init__(protocol, classes)
        check_classes(self.classes)

    def add(self, name: str, pred: Detections, truth: TrueObjects, dataset: str = "") -> None:
        """Score one image.

        Args:
            name: of the image, once in a data set.
            pred: what was found in it.
            truth: what is in it.
            dataset: the same for all images of a scorer.

        Raises:
            DataError: a box, class, score or mask is none, or the protocol needs masks and there
                are none, or the name was seen before; the image is named.
        """
        import numpy as np

        self._check_new(name, dataset)
        found, wanted = self._checked(name, pred, truth)
        kept = np.flatnonzero(found.scores >= self.protocol.least_score)
        # Where classes do not count, all detections of the image share one limit.
        kinds = found.classes[kept] if self.protocol.of_class else np.zeros(len(kept), int)
        cut = kept.size and int(np.bincount(kinds).max()) > self.protocol.most
        flags = {"no_objects": bool(wanted.crowd.all()), "detections_cut": bool(cut)}
        cells: dict[str, Any] = dict.fromkeys(self.protocol.metrics)
        for part in self.protocol.parts:
            cells |= _cells_of(part, self.protocol, found, wanted, kept)
        cells["flags"] = ";".join(flag for flag in OBJECT_FLAGS if flags[flag])
        crowds = int(wanted.crowd.sum())
        self.dataset, self._images[name] = dataset, cells
        self._counts[name] = len(wanted.crowd) - crowds, crowds, len(found.scores)

    def matches(
        self, name: str, pred: Detections, truth: TrueObjects, least_score: float = 0.0
    ) -> ObjectMatches:
        """Return which detections of an image find which objects at an IoU of .5, by the rules of
        the protocol; nothing is collected.

        Args:
            name: of the image.
            pred: what was found in it.
            truth: what is in it.
            least_score: of detections that are looked at. The others choose later, so that they
                change nothing for these.

        Raises:
            DataError: as `add`, except for a name that was seen before.
        """
        import numpy as np

        from lpmoe_bench.metrics import hits

        found, wanted = self._checked(name, pred, truth)
        overlaps = _overlaps(self.protocol.parts[0], found, wanted)
        above = self.protocol.matching == "best first, IoU above"
        kept = np.flatnonzero(found.scores >= max(least_score, self.protocol.least_score))
        objects = np.full(len(found.scores), -1)
        counted = np.zeros(len(found.scores), bool)
        classes, true_classes = found.classes, wanted.classes
        if not self.protocol.of_class:
            classes, true_classes = np.zeros_like(classes), np.zeros_like(true_classes)
        for own in np.unique(classes[kept]).tolist():
            best = kept[classes[kept] == own]
            best = best[hits.best_first(found.scores[best])][: self.protocol.most]
            those = np.flatnonzero(true_classes == own)
            crowd = wanted.crowd[those]
            taken = hits.match_one(overlaps(best, those), crowd, crowd, 0.5, above)
            objects[best[taken >= 0]] = those[taken[taken >= 0]]
            counted[best] = True
        crowds = counted & (objects >= 0)
        crowds[crowds] = wanted.crowd[objects[crowds]]
        missed = ~wanted.crowd & ~np.isin(np.arange(len(wanted.crowd)), objects)
        right = counted & (objects >= 0) & ~crowds
        return ObjectMatches(objects, right, counted & (objects < 0), crowds, missed)

    def _checked(self, name: str, pred: Detections, truth: TrueObjects) -> tuple[_Image, _Image]:
        """Return detections and objects as arrays that fit together; raises DataError."""
        import numpy as np

        count, objects = len(np.asarray(pred.scores)), len(np.asarray(truth.classes))
        try:
            found = _Image(
                _boxes(pred.boxes, count),
                self._classes(pred.classes, count),
                self._masks(pred.masks, truth.shape, count),
                scores=_scores(pred.scores),
            )
        except ValueError as error:
            raise DataError(f"image {name} cannot be scored: what is found has {error}") from None
        try:
            wanted = _Image(
                _boxes(truth.boxes, objects),
                self._classes(truth.classes, objects),
                self._masks(truth.masks, truth.shape, objects),
                areas=_column(truth.areas, objects, "areas", float),
                crowd=_column(truth.crowd, objects, "marks of crowds", bool),
            )
        except ValueError as error:
            raise DataError(f"image {name} cannot be scored: its truth has {error}") from None
        return found, wanted

    def _classes(self, given: Any, count: int) -> np.ndarray:
        found, last = _column(given, count, "classes", int), len(self.classes) - 1
        if count and (found.min() < 0 or found.max() > last):
            odd = found[(found < 0) | (found > last)][0]
            raise ValueError(f"class {odd}; the {last + 1} classes are 0 to {last}")
        return found

    def _masks(self, given: Any, shape: tuple[int, int], count: int) -> list[np.ndarray]:
        from lpmoe_bench.metrics.runs import to_runs

        if "masks" not in self.protocol.parts:
            return []
        if given is None:
            if count:
                raise ValueError(
                    f"boxes and no masks, which protocol {self.protocol.name} scores; score boxes "
                    f"by coco_boxes"
                )
            return []
        if len(given) != count:
            raise ValueError(f"{len(given)} masks of {count} objects")
        return [to_runs(mask, *shape) for mask in given]

    def result(self) -> ScoreResult:
        """Return the scores of all images so far.

        Raises:
            DataError: no image has an object.
        """
        objects, crowds, found = (
            sum(own) for own in zip((0, 0, 0), *self._counts.values(), strict=True)
        )
        if not objects:
            said = "no image was scored"
            if self._images:
                said = f"none of its {len(self._images)} images has an object, crowds apart"
            raise DataError(f"{self.dataset or 'the data set'} has no score: {said}")
        # Equal scores are ranked by the order of rows, so rows go by name, not by time of arrival.
        names = sorted(self._images)
        rows = [{"dataset": self.dataset, "image": name} | self._images[name] for name in names]
        scores = object_scores(rows, self.protocol, self.classes)
        counts = {"images": len(rows), "scored": len(rows), "objects": objects, "crowds": crowds}
        counts["detections"] = found
        flags = [flag for row in rows for flag in row["flags"].split(";")]
        counts |= {flag: flags.count(flag) for flag in OBJECT_FLAGS}
        optional = (*OBJECT_FLAGS, "crowds")  # said where there are some
        return ScoreResult(
            scores, rows, {k: n for k, n in counts.items() if n or k not in optional}
        )


def object_scores(
    rows: Sequence[dict[str, Any]], protocol: ObjectProtocol, classes: Sequence[str]
) -> dict[str, float | None]:
    """Return the scores of a data set from the rows of its images.

    Args:
        rows: as `ObjectScorer` makes them, in order of their names.
        protocol: the rules.
        classes: the names of the classes, in the order of their numbers.

    Returns:
        {metric: value}, those of the protocol, then those of each class; None where there is no
        object of that size or class.
    """
    import math

    from lpmoe_bench.metrics import hits

    # fsum is exact before it rounds: the order of images cannot move the last bit.
    if not protocol.of_class:
        values = {key: [row[key] for row in rows] for key in protocol.metrics}
        return {key: math.fsum(own) / len(own) for key, own in values.items()}
    tables = {
        part: hits.precision_table(
            [hits.read_hits(row[part], len(classes)) for row in rows], len(classes)
        )
        for part in protocol.parts
    }

    def of(key: str) -> Any:
        which = METRICS[key].of_objects
        assert which is not None, "a metric of objects"
        return hits.choose(tables[which.column], which)

    found: dict[str, Any] = {key: float(hits.class_mean(of(key))) for key in protocol.metrics}
    for stem in protocol.of_class:
        values = of(f"{stem}/{classes[0]}").tolist()
        found |= {f"{stem}/{name}": value for name, value in zip(classes, values, strict=True)}
    # Only NaN differs from itself. A record is JSON, which has no NaN.
    return {key: None if value != value else value for key, value in found.items()}


# One image: checked arrays, and the cells of its row.


@dataclass(frozen=True, eq=False)
class _Image:
    """Detections or objects of one image; areas are of objects, scores of detections."""

    boxes: np.ndarray
    classes: np.ndarray
    masks: list[np.ndarray]
    scores: Any = None
    areas: Any = None
    crowd: Any = None


def _cells_of(
    part: Part, protocol: ObjectProtocol, found: _Image, wanted: _Image, kept: np.ndarray
) -> dict[str, Any]:
    """Return the cells of an image's row that rest on the overlap of boxes or of masks."""
    import numpy as np

    from lpmoe_bench.metrics import hits

    ious = _overlaps(part, found, wanted)
    if not protocol.of_class:
        best = kept[hits.best_first(found.scores[kept])][: protocol.most]
        return hits.shares_found(ious(best, np.arange(len(wanted.crowd))), wanted.crowd)
    image = hits.image_hits(
        hits.FoundObjects(found.classes[kept], found.scores[kept], _sizes(part, found)[kept]),
        hits.WantedObjects(wanted.classes, wanted.areas, wanted.crowd),
        # image_hits numbers the kept detections from 0; `kept` leads back to their masks.
        lambda places, objects: ious(kept[places], objects),
        protocol.most,
    )
    return {part: hits.hits_text(image)}


def _sizes(part: Part, image: _Image) -> np.ndarray:
    from lpmoe_bench.metrics import hits, runs

    return hits.box_areas(image.boxes) if part == "boxes" else runs.areas_of(image.masks)


def _overlaps(
    part: Part, found: _Image, wanted: _Image
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return what gives the overlaps of some detections with some objects, by their places."""
    from lpmoe_bench.metrics import hits, runs

    sizes, true_sizes = _sizes(part, found), _sizes(part, wanted)

    def ious(places: np.ndarray, objects: np.ndarray) -> np.ndarray:
        if part == "boxes":
            shared = hits.shared_boxes(found.boxes[places], wanted.boxes[objects])
        else:
            own = [found.masks[place] for place in places]
            shared = runs.overlaps_of(own, [wanted.masks[place] for place in objects])
        return hits.overlap_ratios(
            shared, sizes[places], true_sizes[objects], wanted.crowd[objects]
        )

    return ious


def _column(given: Any, count: int, what: str, kind: type) -> np.ndarray:
    import numpy as np

    found = np.asarray(given)
    if found.shape != (count,):
        raise ValueError(f"{what} of shape {list(found.shape)} beside {count} objects")
    if kind is int and count and found.dtype.kind not in "iu":
        raise ValueError(f"classes that are {found.dtype} and no whole numbers")
    if kind is float and not np.isfinite(found.astype(float)).all():
        raise ValueError(f"{what} that are no finite numbers")
    return found.astype(kind)


def _boxes(given: Any, count: int) -> np.ndarray:
    import numpy as np

    found = np.asarray(given, np.float64)
    if found.size == 0 and not count:
        return np.zeros((0, 4))
    if found.shape != (count, 4):
        raise ValueError(f"boxes of shape {list(found.shape)} beside {count} objects")
    if not np.isfinite(found).all():
        raise ValueError("a box that is not finite")
    if (found[:, 2:] < found[:, :2]).any():
        odd = found[(found[:, 2:] < found[:, :2]).any(axis=1)][0]
        raise ValueError(f"the box {odd.tolist()}, whose end lies before its start")
    return found


def _scores(given: Any) -> np.ndarray:
    """Return scores as float64, as their own shortest texts have them: rows keep these."""
    import numpy as np

    found = np.asarray(given)
    if found.ndim != 1:
        raise ValueError(f"scores of shape {list(found.shape)}")
    if found.dtype.kind not in "f":
        found = found.astype(np.float64)
    if not np.isfinite(found).all():
        raise ValueError("a score that is not finite")
    # The float32 0.1 becomes 0.1 and not 0.10000000149: a row read back has the same number.
    return np.array([float(str(score)) for score in found], np.float64)
