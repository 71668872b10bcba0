"""How a data set's score comes about from the rows of its images, where it is no mean of theirs.

One table from metric to the columns that hold an image's part, how these are read, the score of
some images, and the scores with one unit left out, of which a jackknife is made. Sums of parts do
for counts and confusions. A score that is no function of sums, such as average precision, gives
`RowScore` its own `score`, in which an image counts as often as its weight says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from lpmoe_bench.metrics.classes import (
    CONFUSION,
    ClassCounts,
    ClassProtocol,
    class_sums,
    read_confusions,
)
from lpmoe_bench.metrics.facts import METRICS, OF_COUNTS, Precision
from lpmoe_bench.metrics.formulas import Counts
from lpmoe_bench.metrics.hits import mean_precision, mean_precision_without, read_hits
from lpmoe_bench.metrics.objects import ObjectProtocol
from lpmoe_bench.metrics.panoptic import SEGMENTS, PanopticProtocol, SegmentCounts, read_segments
from lpmoe_bench.metrics.protocols import ScoringRules

Cell = str | float | None
COUNTS = Counts._fields


class Parts(NamedTuple):
    """What images have to do with a score. counted: bool (n,), which of them count at all;
    of_image: the parts of those that do, one each."""

    counted: np.ndarray
    of_image: np.ndarray


@dataclass(frozen=True, kw_only=True)
class RowScore:
    """A score of the rows of several images.

    columns: of per_image.csv. read: from these columns, each with a cell an image, to the parts;
    raises ValueError. score: of parts and how often each image counts, (n,). exact: whether the
    score of all rows is the record's; not where a protocol leaves out images that have counts.
    """

    columns: tuple[str, ...]
    read: Callable[[Sequence[Sequence[Cell]]], Parts]
    score: Callable[[np.ndarray, np.ndarray], float]
    exact: bool = True

    def of_all(self, parts: np.ndarray) -> float:
        """Return the score of these images, NaN where they have none."""
        return float(self.score(parts, np.ones(len(parts))))

    def of_each(self, parts: np.ndarray) -> np.ndarray:
        """Return the score of each image by itself, NaN where it has none."""
        return np.array([self.of_all(parts[place : place + 1]) for place in range(len(parts))])

    def leave_out(self, parts: np.ndarray, places: np.ndarray, units: int) -> np.ndarray:
        """Return the score without each unit, (units,); NaN where the rest does not tell it.

        Args:
            parts: of the images.
            places: of each image the number of its unit.
            units: how many there are.
        """
        rest = (places != unit for unit in range(units))
        return np.array([self.score(parts, own.astype(float)) for own in rest], float)


@dataclass(frozen=True, kw_only=True)
class SumScore(RowScore):
    """A score of the sums over images of what their rows hold.

    of_sums: of sums, (..., *part), the scores (...). tells: of the same sums, whether they say what
    the score of such images is; None: they always do.
    """

    of_sums: Callable[[np.ndarray], Any]
    tells: Callable[[np.ndarray], np.ndarray] | None = None

    def of_each(self, parts: np.ndarray) -> np.ndarray:
        return np.asarray(self.of_sums(parts), float)

    def leave_out(self, parts: np.ndarray, places: np.ndarray, units: int) -> np.ndarray:
        by_unit = np.zeros((units, *parts.shape[1:]))
        # add.at and not +=: a unit has several images, of which += would keep the last alone.
        np.add.at(by_unit, places, parts)
        # Pixels are whole numbers, so taking a unit away is exact; sums of IoU are rounded.
        rest = by_unit.sum(axis=0) - by_unit
        values = np.asarray(self.of_sums(rest), float)
        return values if self.tells is None else np.where(self.tells(rest), values, np.nan)


@dataclass(frozen=True, kw_only=True)
class HitScore(RowScore):
    """An average precision of detections, all images of which are ranked together.

    which: which one. classes: how many there are. place: of the class; None for their mean.
    """

    which: Precision
    classes: int
    place: int | None

    @classmethod
    def of(cls, which: Precision, classes: int, place: int | None) -> "HitScore":
        def read(columns: Sequence[Sequence[Cell]]) -> Parts:
            return _hit_parts(tuple(str(cell or "") for cell in columns[0]), classes)

        def score(parts: np.ndarray, weights: np.ndarray) -> float:
            return mean_precision(parts.tolist(), classes, which, place, weights)

        own = {"which": which, "classes": classes, "place": place}
        return cls(columns=(which.column,), read=read, score=score, **own)

    def leave_out(self, parts: np.ndarray, places: np.ndarray, units: int) -> np.ndarray:
        which, place = self.which, self.place
        return mean_precision_without(parts.tolist(), self.classes, which, place, places, units)


def row_score(
    key: str, protocol: ScoringRules | None = None, classes: Sequence[str] = ()
) -> RowScore | None:
    """Return how a metric comes about from rows, None for one that they do not tell so.

    Args:
        key: of the metric.
        protocol: that the record was scored by; counts of binary maps need none.
        classes: the names of the record's classes, in their order.
    """
    metric = METRICS.get(key)
    if metric is None or metric.per_image:
        return None
    if key in OF_COUNTS:
        return _of_counts(OF_COUNTS[key])
    name = key.partition("/")[2]
    if not classes or (name and name not in classes):
        return None
    if metric.of_classes and isinstance(protocol, ClassProtocol):
        return _of_confusion(metric.of_classes, protocol, classes, name)
    place = classes.index(name) if name else None
    if metric.of_objects and isinstance(protocol, ObjectProtocol):
        known = metric.of_objects.column in protocol.parts
        return HitScore.of(metric.of_objects, len(classes), place) if known else None
    if metric.of_segments and isinstance(protocol, PanopticProtocol):
        return _of_segments(metric.of_segments, len(classes), place)
    return None


def _of_counts(ratio: Callable[[Any], Any]) -> SumScore:
    """The score of the pixels of binary maps: tp, fp, fn, tn."""

    def read(columns: Sequence[Sequence[Cell]]) -> Parts:
        # An image that the protocol left out has empty cells; one NaN in a row marks it below.
        cells = [[float("nan" if x in (None, "") else x) for x in own] for own in columns]
        table = np.array(cells, float).T.reshape(-1, len(COUNTS))
        counted = np.isfinite(table.sum(axis=1))
        return Parts(counted, table[counted])

    def of_sums(sums: np.ndarray) -> Any:
        # One subset is given as plain numbers, several as arrays over the subsets: (..., 4) has
        # the four counts last, Counts wants them first.
        return ratio(
            Counts(*sums.tolist()) if sums.ndim == 1 else Counts(*np.moveaxis(sums, -1, 0))
        )

    def score(parts: np.ndarray, weights: np.ndarray) -> float:
        return of_sums(weights @ parts)

    return SumScore(columns=COUNTS, read=read, score=score, exact=False, of_sums=of_sums)


@lru_cache(maxsize=12)  # the seeds of two rows that are compared, by the scores of many classes
def _class_parts(texts: tuple[str, ...], classes: int) -> Parts:
    counted = np.array([bool(text) for text in texts], bool)
    # (images, 3, K): three sums an image and class, not its whole confusion of K x K.
    sums = class_sums(*read_confusions(texts, classes), len(texts), classes)[counted]
    sums.flags.writeable = False  # shared by all who ask
    return Parts(counted, sums)


def _of_confusion(
    ratio: Callable[[Any], Any], protocol: ClassProtocol, classes: Sequence[str], name: str
) -> SumScore:
    """The score of label maps: pixels of each class that are right, labelled so, called so."""
    place, count = list(classes).index(name) if name else None, len(classes)

    def read(columns: Sequence[Sequence[Cell]]) -> Parts:
        return _class_parts(tuple(str(cell or "") for cell in columns[0]), count)

    def of_sums(sums: np.ndarray) -> Any:
        # (..., 3, K): whatever stands in front is images or subsets.
        tp, labelled, called = np.moveaxis(sums, -2, 0)
        values = ratio(ClassCounts(tp, labelled, called, protocol.absent))
        return values if place is None else values[..., place]

    def tells(sums: np.ndarray) -> np.ndarray:
        return sums[..., 1, place] > 0  # images without the class say nothing of how it is found

    def score(parts: np.ndarray, weights: np.ndarray) -> float:
        return float(of_sums(np.tensordot(weights, parts, 1)))

    return SumScore(
        columns=(CONFUSION,),
        read=read,
        score=score,
        of_sums=of_sums,
        tells=None if place is None else tells,
    )


@lru_cache(maxsize=24)  # boxes and masks of the seeds of two rows
def _hit_parts(texts: tuple[str, ...], classes: int) -> Parts:
    counted = np.array([bool(text) for text in texts], bool)
    found = np.empty(int(counted.sum()), object)  # one an image
    # An array of objects, so that parts are sliced and chosen by mask as those of other scores.
    found[:] = [read_hits(text, classes) for text in texts if text]
    found.flags.writeable = False  # shared by all who ask
    return Parts(counted, found)


@lru_cache(maxsize=12)
def _segment_parts(texts: tuple[str, ...], classes: int) -> Parts:
    counted = np.array([bool(text) for text in texts], bool)
    found = [read_segments(text, classes) for text in texts if text]
    sums = np.array(found).reshape(len(found), 2, 4, classes)
    sums.flags.writeable = False
    return Parts(counted, sums)


def _of_segments(ratio: Callable[[Any], Any], classes: int, place: int | None) -> SumScore:
    """The score of panoptic maps: segments of each class that are matched, false, missed."""

    def read(columns: Sequence[Sequence[Cell]]) -> Parts:
        return _segment_parts(tuple(str(cell or "") for cell in columns[0]), classes)

    def of_sums(sums: np.ndarray) -> Any:
        values = ratio(SegmentCounts(sums))
        return values if place is None else values[..., place]

    def tells(sums: np.ndarray) -> np.ndarray:
        # (..., 2, 4, K): rows 1 and 3 of the four are matched and missed; the sum is over the axis
        # of things and stuff, one of which is 0.
        tp, missed = (sums[..., k, place].sum(axis=-1) for k in (1, 3))
        return tp + missed > 0  # images without the class say nothing of how it is found

    def score(parts: np.ndarray, weights: np.ndarray) -> float:
        return float(of_sums(np.tensordot(weights, parts, 1)))

    return SumScore(
        columns=(SEGMENTS,),
        read=read,
        score=score,
        of_sums=of_sums,
        tells=None if place is None else tells,
    )
