"""Scores of panoptic maps: panoptic quality, of things and of stuff, and its protocol.

All scores rest on four numbers of each class, summed over the images: the IoU of matched segments,
matched ones, false ones, missed ones. Nothing here imports numpy until there is something to score.

Source: Kirillov et al., Panoptic segmentation, CVPR 2019, and panopticapi's rules of void and
crowds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.base import LABEL_FLAGS, ScoreResult, ScoringRules, SetScorer
from lpmoe_bench.metrics.classes import VOID, check_classes
from lpmoe_bench.metrics.facts import METRICS, get_metric

if TYPE_CHECKING:
    import numpy as np

# What is scored: a map of segments beside the segments of the truth.


class Panoptic(NamedTuple):
    """What was found in one image, at its own size.

    segments: int (h, w), the number of each pixel's segment, 0 where there is none. classes: int
    (n,), of the segments 1 to n, each of which has pixels.
    """

    segments: np.ndarray
    classes: np.ndarray


class TrueSegments(Protocol):
    """The segments of one image, at its own size.

    labels: uint8 (h, w), the class of pixels of stuff, `VOID` elsewhere. masks: the things, N of
    them in a form that `runs.to_runs` reads, none of which share pixels. classes: int (N,), of the
    things. crowd: bool (N,), a group that is not told apart. shape: height and width.
    """

    @property
    def labels(self) -> Any: ...
    @property
    def masks(self) -> Any: ...
    @property
    def classes(self) -> np.ndarray: ...
    @property
    def crowd(self) -> np.ndarray: ...
    @property
    def shape(self) -> tuple[int, int]: ...


# PanopticProtocol: the rules.


@dataclass(frozen=True)
class PanopticProtocol(ScoringRules):
    """Everything that decides a score of panoptic maps, besides these themselves."""

    kind: ClassVar[str] = "panoptic"
    name: str
    version: int
    title: str
    source: str
    matching: Literal["same class, IoU above .5"]
    void: Literal["out of the union, absorbs by more than half"]
    crowd: Literal["absorbs its own class by more than half"]
    aggregation: Literal["counts of the data set, mean over classes that are there"]
    of_class: tuple[str, ...]
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    primary: str
    percent: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def explain(self) -> list[tuple[str, str]]:
        """Return (field, sentences) that tell all of it, each of its metrics included."""
        labels = [get_metric(key).label for key in self.headline]
        return [
            ("protocol", f"{self.label}: {self.title}"),
            ("source", f"{self.source}."),
            (
                "matching",
                "A segment of the map finds one of the truth of the same class if their IoU is "
                "above .5, which no two can; what finds none is false, what is not found is "
                "missed. A segment of the map counts whatever its size.",
            ),
            (
                "void",
                "Pixels without a class in the truth are left out of the union; a false segment "
                "more than half of which lies on them is left out.",
            ),
            (
                "crowds",
                "A crowd is neither found nor missed; a false segment of its class more than half "
                "of which lies on it, or on it and on void pixels, is left out. Of several crowds "
                "of a class in an image the last one does so.",
            ),
            (
                "images",
                "The segments of all images are counted together, class by class; there is no mean "
                "over images. The mean is over the classes that the truth or a map has.",
            ),
            ("scale", "Records hold fractions; a table prints percent."),
            (
                "tables",
                f"A table shows {', '.join(labels)}, with --by-class each class; methods are "
                f"ranked by {get_metric(self.primary).label}.",
            ),
            ("hash", f"{self.hash}; a change of any rule is a new version with another hash."),
            ("metrics", ""),
            *self.tell_metrics(),
        ]


_ALL = tuple(key for key, metric in METRICS.items() if metric.of_segments and "/" not in key)
COCO_PANOPTIC = PanopticProtocol(
    name="coco_panoptic",
    version=1,
    title="Panoptic segmentation, panoptic quality",
    source="panopticapi's evaluation; a segment's area is its pixels in the map of the truth, not "
    "what its JSON says, which agree in sound files",
    matching="same class, IoU above .5",
    void="out of the union, absorbs by more than half",
    crowd="absorbs its own class by more than half",
    aggregation="counts of the data set, mean over classes that are there",
    of_class=("pq",),
    metrics=_ALL,
    headline=("pq", "sq", "rq", "pq_things", "pq_stuff"),
    primary="pq",
    percent=_ALL,
)
PANOPTIC_PROTOCOLS = (COCO_PANOPTIC,)

# Counts and ratios of segments.


class SegmentCounts(NamedTuple):
    """Segments of each class, float64 (..., 2, 4, K), of one image, of all, or of several subsets.

    The first of the axes named is things and stuff, which have no class in common, the second the
    sum of IoU of matched segments, and how many are matched, false and missed.
    """

    sums: np.ndarray

    @property
    def pq(self) -> np.ndarray:
        """Panoptic quality of each class, (..., K); NaN of one that is nowhere."""
        return self.of_class("pq")

    def of_class(self, stem: str) -> np.ndarray:
        """Return "pq", "sq" or "rq" of each class, (..., K); NaN of one that is nowhere."""
        return _ratios(self.sums.sum(axis=-3), stem)

    def mean(self, stem: str, place: int | None = None) -> Any:
        """Return the mean over the classes that are somewhere.

        Args:
            stem: "pq", or its factors "sq" and "rq".
            place: 0 for things, 1 for stuff, None for all.
        """
        import numpy as np

        sums = self.sums.sum(axis=-3) if place is None else self.sums[..., place, :, :]
        values = _ratios(sums, stem)
        # NaN marks a class that neither truth nor map has; the mean leaves it out.
        known = ~np.isnan(values)
        total, count = np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1)
        return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _ratios(sums: np.ndarray, stem: str) -> np.ndarray:
    """Return a ratio of each class, (..., K), of sums (..., 4, K); NaN of one that is nowhere."""
    import numpy as np

    iou, tp, fp, fn = np.moveaxis(sums, -2, 0)
    above, below = {"pq": (iou, tp + fp / 2 + fn / 2), "rq": (tp, tp + fp / 2 + fn / 2)}.get(
        stem, (iou, tp)
    )
    values = np.divide(above, below, out=np.zeros_like(iou), where=below > 0)
    return np.where(tp + fp + fn > 0, values, np.nan)


class SegmentMatches(NamedTuple):
    """Which of the P segments of an image's map find which of the G of its truth.

    ious: float64 (G, P), of those that match, else 0. matched: bool (G, P). false: bool (P,), those
    that find none and are not left out. missed: bool (G,), those that none finds, crowds apart.
    """

    ious: np.ndarray
    matched: np.ndarray
    false: np.ndarray
    missed: np.ndarray


def match_segments(
    truth: np.ndarray,
    true_classes: np.ndarray,
    crowd: np.ndarray,
    found: np.ndarray,
    found_classes: np.ndarray,
) -> SegmentMatches:
    """Return which segments match.

    Args:
        truth: int (h, w), the number of each pixel's segment, 0 where it is void.
        true_classes: int (G,), of the segments 1 to G.
        crowd: bool (G,), which of them are crowds.
        found: int (h, w), as `truth`, of the map.
        found_classes: int (P,).
    """
    import numpy as np

    # Both numbers of a pixel in one: a single count over the image gives the overlap of every
    # pair, (G + 1, P + 1), with void pixels in row 0 and pixels without a segment in column 0.
    wide = len(found_classes) + 1
    pixels = np.bincount(
        (truth.astype(np.int64) * wide + found).ravel(), minlength=(len(true_classes) + 1) * wide
    ).reshape(-1, wide)
    void, shared = pixels[0, 1:], pixels[1:, 1:]
    areas, found_areas = pixels[1:].sum(axis=1), pixels[:, 1:].sum(axis=0)
    # Kirillov et al., CVPR 2019: a found segment's void pixels are taken out of the union.
    union = areas[:, None] + found_areas - shared - void
    same = true_classes[:, None] == found_classes
    # IoU above 1/2, in whole numbers. A segment overlaps at most one other by that much, so no
    # assignment has to be solved.
    matched = same & ~crowd[:, None] & (2 * shared > union)
    left_out = void.astype(np.int64)
    # The last crowd of a class is the one that panopticapi keeps.
    last = {int(true_classes[place]): place for place in np.flatnonzero(crowd)}
    for own, place in last.items():
        left_out = left_out + np.where(found_classes == own, shared[place], 0)
    ious = np.divide(shared, union, out=np.zeros(union.shape), where=matched)
    # More than half on void or crowd: nobody can say that such a segment is wrong.
    false = ~matched.any(axis=0) & (2 * left_out <= found_areas)
    return SegmentMatches(ious, matched, false, ~matched.any(axis=1) & ~crowd)


def count_segments(
    truth: np.ndarray,
    true_classes: np.ndarray,
    crowd: np.ndarray,
    found: np.ndarray,
    found_classes: np.ndarray,
    classes: int,
) -> np.ndarray:
    """Return what the panoptic quality of an image is made of.

    Args:
        truth: see `match_segments`, as the next four.
        true_classes: of the segments of the truth.
        crowd: which of them are crowds.
        found: the map.
        found_classes: of its segments.
        classes: how many there are.

    Returns:
        float64 (4, classes): sum of IoU of matched segments; how many are matched, false, missed.
    """
    import numpy as np

    ious, matched, false, missed = match_segments(truth, true_classes, crowd, found, found_classes)
    of, by = np.nonzero(matched)
    return np.stack(
        [
            np.bincount(true_classes[of], ious[of, by], classes),
            np.bincount(true_classes[of], minlength=classes),
            np.bincount(found_classes[false], minlength=classes),
            np.bincount(true_classes[missed], minlength=classes),
        ]
    ).astype(np.float64)


# The counts of an image in a row, "class:iou:tp:fp:fn;...", a "t" or "s" behind the class.

SEGMENTS = "panoptic"  # the column
NOTHING = "none"  # of an image that says nothing of any class
_PART = r"\d{1,3}[ts]:\d{1,6}(?:\.\d+)?:\d{1,6}:\d{1,6}:\d{1,6}"
_ROW = re.compile(rf"{_PART}(?:;{_PART})*")


def segments_text(counts: np.ndarray, things: Collection[int]) -> str:
    """Return the counts of an image, (4, K), as a cell has them; things: numbers of classes."""
    import numpy as np

    parts = []
    for own in np.flatnonzero(counts[1:].any(axis=0)).tolist():
        iou, *numbers = counts[:, own].tolist()
        letter = "t" if own in things else "s"
        # repr gives the shortest text that reads back as the same float.
        parts.append(":".join([f"{own}{letter}", repr(iou), *(str(int(n)) for n in numbers)]))
    return ";".join(parts) or NOTHING


def read_segments(text: str, classes: int) -> np.ndarray:
    """Read what `segments_text` wrote.

    Args:
        text: of one image.
        classes: how many there are.

    Returns:
        float64 (2, 4, classes), see `SegmentCounts`.

    Raises:
        ValueError: it is none, or names a class that there is not.
    """
    import numpy as np

    if text != NOTHING and not _ROW.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no row of segments")
    found = np.zeros((2, 4, classes))
    for part in text.split(";") if text != NOTHING else ():
        name, *numbers = part.split(":")
        own = int(name[:-1])
        if own >= classes or found[:, :, own].any():
            raise ValueError(f"a row of segments has class {own} twice, or beyond its {classes}")
        found["ts".index(name[-1]), :, own] = [float(number) for number in numbers]
    return found


# PanopticScorer: scores of a data set.


class PanopticScorer(SetScorer):
    """Collects the panoptic maps of one data set, image by image, in any order.

    The result depends neither on that order nor on how the images are divided among several scorers
    that are merged at the end. A scorer pickles, and keeps counts but no map.

    Args:
        protocol: the rules.
        classes: their names, in the order of their numbers.
        things: the names of those that are things; the others are stuff.

    Raises:
        UsageError: there is no class, or more than 254, or one has no name or that of another, or
            a thing is none of them.
    """

    def __init__(self, protocol: PanopticProtocol, classes: Sequence[str], things: Collection[str]):
        super().__init__(protocol, classes)
        check_classes(self.classes)
        for name in sorted(things):
            if name not in self.classes:
                raise UsageError.unknown("class of things", name, self.classes)
        self.things = frozenset(self.classes.index(name) for name in things)

    @property
    def _settings(self) -> tuple[Any, ...]:
        return *super()._settings, self.things

    def add(self, name: str, pred: Panoptic, truth: TrueSegments, dataset: str = "") -> None:
        """Count one image.

        Args:
            name: of the image, once in a data set.
            pred: what was found in it.
            truth: what is in it.
            dataset: the same for all images of a scorer.

        Raises:
            DataError: sizes differ, or a class is none, or segments share pixels or have none, or
                the name was seen before; the image is named.
        """
        import numpy as np

        self._check_new(name, dataset)
        ids, classes, crowd, found, found_classes = self._checked(name, pred, truth)
        counts = count_segments(ids, classes, crowd, found, found_classes, len(self.classes))
        crowds = int(crowd.sum())
        self.dataset, self._images[name] = dataset, segments_text(counts, self.things)
        self._counts[name] = (
            *(len(crowd) - crowds, crowds, len(found_classes)),
            *(ids.size, int(np.count_nonzero(ids == 0))),
        )

    def matches(
        self, name: str, pred: Panoptic, truth: TrueSegments
    ) -> tuple[np.ndarray, SegmentMatches]:
        """Return the segments of an image's truth, int (h, w), 0 where it is void, and which of
        them which segments of its map find; nothing is collected. Raises DataError as `add`."""
        ids, classes, crowd, found, found_classes = self._checked(name, pred, truth)
        return ids, match_segments(ids, classes, crowd, found, found_classes)

    def _checked(
        self, name: str, pred: Panoptic, truth: TrueSegments
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return truth and map as `count_segments` takes them; raises DataError."""
        try:
            found, found_classes = self._found(pred, tuple(truth.shape))
        except ValueError as error:
            raise DataError(f"image {name} cannot be scored: its map has {error}") from None
        try:
            return *self.segments(truth), found, found_classes
        except ValueError as error:
            raise DataError(f"image {name} cannot be scored: its truth has {error}") from None

    def _found(self, pred: Panoptic, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers and classes of the map's segments; raises ValueError."""
        import numpy as np

        ids, classes = np.asarray(pred.segments), self._classes(pred.classes)
        if ids.shape != shape or ids.dtype.kind not in "iu" or not ids.size:
            raise ValueError(
                f"{ids.dtype} numbers of shape {list(ids.shape)}; the truth is {list(shape)}"
            )
        if ids.min() < 0 or ids.max() > len(classes):
            odd = ids.min() if ids.min() < 0 else ids.max()
            raise ValueError(f"segment {odd}, but classes of segments 1 to {len(classes)}")
        here = np.bincount(ids.ravel(), minlength=len(classes) + 1)[1:]
        if not here.all():
            raise ValueError(f"no pixel of segment {int(np.argmin(here)) + 1}; leave it out")
        return ids, classes

    def segments(self, truth: TrueSegments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the segments of an image's truth.

        Returns:
            The number of each pixel's segment, int (h, w), 0 where it is void, and of the segments
            1 to n their classes, int (n,), and whether each is a crowd, bool (n,). Stuff is first.

        Raises:
            ValueError: it is no truth: segments share pixels, or a class is none.
        """
        import numpy as np

        from lpmoe_bench.metrics.runs import to_pixels

        height, width = truth.shape
        labels, ids = np.asarray(truth.labels), np.zeros((height, width), np.int64)
        if labels.shape != ids.shape or labels.dtype != np.uint8:
            raise ValueError(
                f"labels {labels.dtype} of {list(labels.shape)}, not uint8 of its size"
            )
        stuff = [int(own) for own in np.unique(labels) if own != VOID]
        classes = self._classes(stuff)
        if things := [own for own in stuff if own in self.things]:
            raise ValueError(f"{self.classes[things[0]]} in its map of stuff, which is a thing")
        # Segments 1 to S are stuff, one a class; things follow from S + 1; 0 stays void.
        for number, own in enumerate(stuff, 1):
            ids[labels == own] = number
        own_classes = self._classes(truth.classes)
        crowd = np.asarray(truth.crowd, bool)
        masks = () if truth.masks is None else truth.masks
        if not len(masks) == len(own_classes) == len(crowd):
            raise ValueError(f"{len(masks)} masks of {len(own_classes)} things")
        if odd := [own for own in own_classes.tolist() if own not in self.things]:
            raise ValueError(f"{self.classes[odd[0]]} among its things, which is stuff")
        for number, mask in enumerate(masks, len(stuff) + 1):
            pixels = to_pixels(mask, height, width)
            if ids[pixels].any():
                raise ValueError("two segments that share pixels")
            if not pixels.any():
                raise ValueError("a thing without a pixel")
            ids[pixels] = number
        crowds = np.concatenate([np.zeros(len(stuff), bool), crowd])
        return ids, np.concatenate([classes, own_classes]), crowds

    def _classes(self, given: Any) -> np.ndarray:
        import numpy as np

        found, last = np.asarray(given), len(self.classes) - 1
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise ValueError(f"classes that are {found.dtype} of shape {list(found.shape)}")
        if odd := [own for own in found.tolist() if not 0 <= own <= last]:
            raise ValueError(f"class {odd[0]}; the {last + 1} classes are 0 to {last}")
        return found.astype(np.int64)

    def result(self) -> ScoreResult:
        """Return the scores of all images so far.

        Raises:
            DataError: no image has a segment.
        """
        import numpy as np

        names = sorted(self._images)
        segments, crowds, found, pixels, void = (
            sum(own) for own in zip((0,) * 5, *self._counts.values(), strict=True)
        )
        if not segments:
            said = "no image was scored"
            if names:
                said = f"none of its {len(names)} images has a segment, crowds apart"
            raise DataError(f"{self.dataset or 'the data set'} has no score: {said}")
        rows = [
            {
                **{"dataset": self.dataset, "image": name},
                **dict.fromkeys(self.protocol.metrics),
                **{SEGMENTS: self._images[name], "flags": self._flag(name)},
            }
            for name in names
        ]
        counts = {"images": len(rows), "scored": len(rows), "segments": segments}
        counts |= {"crowds": crowds, "found_segments": found}
        counts |= {flag: sum(row["flags"] == flag for row in rows) for flag in LABEL_FLAGS}
        counts |= {"pixels": pixels, "void_pixels": void}
        optional = (*LABEL_FLAGS, "crowds", "void_pixels")  # said where there are some
        parts = [read_segments(self._images[name], len(self.classes)) for name in names]
        return ScoreResult(
            segment_scores(SegmentCounts(np.sum(parts, axis=0)), self.protocol, self.classes),
            rows,
            {key: n for key, n in counts.items() if n or key not in optional},
        )

    def _flag(self, name: str) -> str:
        *_, pixels, void = self._counts[name]
        return "all_void" * (pixels == void)


def segment_scores(
    counts: SegmentCounts, protocol: PanopticProtocol, classes: Sequence[str]
) -> dict[str, float | None]:
    """Return the scores of a data set.

    Args:
        counts: of all its images.
        protocol: the rules.
        classes: the names of the classes.

    Returns:
        {metric: value}, those of the protocol, then those of each class; None for a class that is
        nowhere, and for things or stuff where there are none.
    """

    def of(key: str) -> Any:
        ratio = METRICS[key].of_segments
        assert ratio is not None, "a metric of segments"
        return ratio(counts)

    found: dict[str, Any] = {key: float(of(key)) for key in protocol.metrics}
    for stem in protocol.of_class:
        values = of(f"{stem}/{classes[0]}").tolist()
        found |= {f"{stem}/{name}": value for name, value in zip(classes, values, strict=True)}
    return {key: None if value != value else value for key, value in found.items()}
