"""Average precision of objects, from rows that say of each detection where it is a hit.

A detection is a hit, a false alarm, or is left out, for each of ten overlaps and four ranges of
area. That does not depend on other images, so it is found once, image by image, and written into
the image's row. Average precision is made of rows alone, in which an image may count more than once
or not at all.

Source: the rules of pycocotools' COCOeval (Lin et al., Microsoft COCO, ECCV 2014), in float64.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from lpmoe_bench.metrics.facts import Precision

IOUS = np.linspace(0.5, 0.95, 10)  # COCO's own floats: overlaps of exactly .6 depend on them
RECALLS = np.linspace(0.0, 1.0, 101)
TWENTIETHS = np.arange(10, 20) / 20  # each the float that a ratio of whole numbers would be
AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))  # pixels, ends included
FALSE_ALARM, HIT, LEFT_OUT = 0, 1, 2
_DIGITS = 3 ** np.arange(len(AREAS) * len(IOUS), dtype=np.uint64)  # 3**40 fits into 64 bits
_MOST = 3 ** len(_DIGITS)

NOTHING = "none"  # the row of an image with neither object nor detection
_SCORE = r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?"
_FOUND = rf"{_SCORE}=[0-9a-f]{{1,16}}"
_CLASS = rf"\d{{1,3}}:\d{{1,9}}(?:/\d{{1,9}}){{3}}:(?:{_FOUND}(?: {_FOUND})*)?"
_ROW = re.compile(rf"{_CLASS}(?:;{_CLASS})*")


@dataclass(frozen=True, eq=False)
class ImageHits:
    """What one image has to do with average precision.

    classes: int (D,), of the detections that count. scores: float64 (D,). hits: int8 (D, 4, 10), by
    range of area and overlap: a hit, a false alarm, or left out. positives: for each class that the
    image has to do with, its objects in each range of area, int (4,), crowds left out.
    """

    classes: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    positives: dict[int, np.ndarray]


class FoundObjects(NamedTuple):
    """Detections of one image: classes int (D,), scores (D,), areas float64 (D,), pixels."""

    classes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray


class WantedObjects(NamedTuple):
    """Objects of one image: classes int (G,), areas float64 (G,), pixels, crowd bool (G,)."""

    classes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


# One image: overlaps, and which detection finds which object.


def shared_boxes(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the pixels that boxes share, float64 (D, G); boxes (n, 4) are x0 y0 x1 y1."""
    # (D, 1, 2) beside (1, G, 2): the corners of the shared box of every pair.
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    return sides[..., 0] * sides[..., 1]


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Return the pixels of boxes (n, 4), float64 (n,)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def overlap_ratios(
    shared: np.ndarray, found: np.ndarray, truth: np.ndarray, crowd: np.ndarray
) -> np.ndarray:
    """Return IoU, float64 (D, G); beside a crowd, the share of the detection that lies in it.

    Args:
        shared: pixels that they share, (D, G).
        found: pixels of the detections, (D,).
        truth: pixels of the objects, (G,).
        crowd: which of these are crowds, (G,).
    """
    # A crowd's own area says nothing: it holds many objects, and a detection may be one of them.
    whole = np.where(crowd, found[:, None], found[:, None] + truth - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)


def match(
    ious: np.ndarray,
    ignored: np.ndarray,
    crowd: np.ndarray,
    thresholds: np.ndarray,
    above: bool = False,
) -> np.ndarray:
    """Give each detection the object that it finds.

    The best detection chooses first: the free object of most overlap, but one that is ignored only
    where no other is left. Of equal overlaps the later object is taken.

    Args:
        ious: float64 (D, G), detections best first.
        ignored: bool (G,), objects that count neither as found nor as missed; crowds among them.
        crowd: bool (G,), objects that any number of detections may take.
        thresholds: the overlaps that are asked for, ascending, (T,).
        above: whether an overlap must be above the threshold, rather than at least it.

    Returns:
        int8 (D, T): `HIT`, `LEFT_OUT` where an ignored object is taken, else `FALSE_ALARM`.
    """
    result = np.full((len(ious), len(thresholds)), FALSE_ALARM, np.int8)
    pairs, many = _near(ious, ignored, float(thresholds[0])), crowd.tolist()
    for number, threshold in enumerate(thresholds.tolist()):
        for place, counted, _ in _chosen(pairs, many, threshold, above):
            result[place, number] = HIT if counted else LEFT_OUT
    return result


def match_one(
    ious: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, threshold: float, above: bool = False
) -> np.ndarray:
    """Return the place of the object that each detection takes, int (D,), -1 where it takes none;
    as `match` gives them at one overlap."""
    result = np.full(len(ious), -1)
    for place, _, own in _chosen(_near(ious, ignored, threshold), crowd.tolist(), threshold, above):
        result[place] = own
    return result


_Near = list[tuple[int, list[tuple[bool, float, int]]]]


def _near(ious: np.ndarray, ignored: np.ndarray, least: float) -> _Near:
    """Return the objects that overlap each detection so much, whether they count and by how much:
    few do, and the others are not looked at again."""
    counts = (~ignored).tolist()
    near = [np.flatnonzero(own >= least).tolist() for own in ious]
    return [
        (place, [(counts[g], float(ious[place, g]), g) for g in own])
        for place, own in enumerate(near)
        if own
    ]


def _chosen(
    pairs: _Near, many: Sequence[bool], threshold: float, above: bool
) -> Iterator[tuple[int, bool, int]]:
    """Yield each detection that takes an object, whether that counts, and which it is."""
    # As in COCOeval: boxes that are equal but for rounding overlap enough for any threshold.
    least = threshold if above else min(threshold, 1 - 1e-10)
    taken: set[int] = set()
    for place, own in pairs:
        free = [
            one
            for one in own
            if (one[1] > least or (one[1] == least and not above))
            and (one[2] not in taken or many[one[2]])
        ]
        if free:
            # Tuples are compared from left to right: one that counts before an ignored one, then
            # more overlap, then the later object. COCOeval's loop over objects ends with the same.
            counted, _, chosen = max(free)
            taken.add(chosen)
            yield place, counted, chosen


def image_hits(
    found: FoundObjects,
    wanted: WantedObjects,
    ious: Callable[[np.ndarray, np.ndarray], np.ndarray],
    most: int,
) -> ImageHits:
    """Return what an image has to do with average precision.

    Args:
        found: its detections.
        wanted: its objects.
        ious: from the places of some detections and of some objects to their overlaps.
        most: how many detections of a class count, the best.
    """
    chosen, hits, positives = (
        [np.zeros(0, int)],
        [np.zeros((0, len(AREAS), len(IOUS)), np.int8)],
        {},
    )
    for own in np.union1d(found.classes, wanted.classes).tolist():
        of_class = np.flatnonzero(found.classes == own)
        # Stable: of equal scores the earlier detection stays first, on any machine.
        best = of_class[np.argsort(-found.scores[of_class], kind="stable")][:most]
        objects = np.flatnonzero(wanted.classes == own)
        overlaps, crowd = ious(best, objects), wanted.crowd[objects]
        by_area, counts = [], []
        for low, high in AREAS:
            outside = (wanted.areas[objects] < low) | (wanted.areas[objects] > high)
            # Objects of other sizes are not deleted: a detection that finds one is no false alarm.
            hit = match(overlaps, crowd | outside, crowd, IOUS)
            beyond = (found.areas[best] < low) | (found.areas[best] > high)
            # A detection of another size is left out only if it finds nothing; as in COCOeval a
            # hit counts by the size of the object.
            hit[beyond[:, None] & (hit == FALSE_ALARM)] = LEFT_OUT
            by_area.append(hit)
            counts.append(int((~(crowd | outside)).sum()))
        chosen.append(best)
        hits.append(np.stack(by_area, axis=1))
        positives[int(own)] = np.array(counts)
    kept = np.concatenate(chosen)
    return ImageHits(found.classes[kept], found.scores[kept], np.concatenate(hits), positives)


# Rows: "class:positives:score=hits score=hits", classes joined by ";".


def hits_text(image: ImageHits) -> str:
    """Return an image as a cell of its row has it.

    Positives are those of the four ranges of area, joined by "/". The hits of a detection are one
    number in hex, whose forty digits of base 3 are the ranges, each with its overlaps, the lowest
    digit first. Equal scores are equal texts, so that ties stay ties.
    """
    # (D, 4, 10) becomes (D, 40): forty digits of base 3, summed to one number of 64 bits.
    codes = image.hits.reshape(-1, len(_DIGITS)).astype(np.uint64) @ _DIGITS
    parts = []
    for own, positives in image.positives.items():
        places = np.flatnonzero(image.classes == own)
        found = [
            f"{score}={code:x}"
            for score, code in zip(image.scores[places], codes[places].tolist(), strict=True)
        ]
        parts.append(f"{own}:{'/'.join(map(str, positives.tolist()))}:{' '.join(found)}")
    return ";".join(parts) or NOTHING


def read_hits(text: str, classes: int) -> ImageHits:
    """Read what `hits_text` wrote.

    Args:
        text: of one image.
        classes: how many there are.

    Raises:
        ValueError: it is none, or names a class that there is not.
    """
    if text != NOTHING and not _ROW.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no row of detections")
    of_each: list[int] = []
    scores: list[float] = []
    codes: list[int] = []
    positives: dict[int, np.ndarray] = {}
    for part in text.split(";") if text != NOTHING else ():
        name, counts, found = part.split(":")
        own = int(name)
        if own >= classes or own in positives:
            raise ValueError(f"a row of detections has class {own} twice, or beyond its {classes}")
        positives[own] = np.array([int(count) for count in counts.split("/")])
        pairs = [one.split("=") for one in found.split()]
        of_each += [own] * len(pairs)
        scores += [float(score) for score, _ in pairs]
        codes += [int(code, 16) for _, code in pairs]
    if any(code >= _MOST for code in codes):
        raise ValueError("a row of detections has hits that are none")
    # (D, 1) over (40,): all digits of all numbers at once.
    digits = np.array(codes, np.uint64)[:, None] // _DIGITS % np.uint64(3)
    hits = digits.astype(np.int8).reshape(-1, len(AREAS), len(IOUS))
    return ImageHits(np.array(of_each, int), np.array(scores, float), hits, positives)


# Many images: average precision.


class _ClassHits(NamedTuple):
    """Detections of one class in all images, best first, and the objects of each image.

    images: of each detection the place of its image, (D,). hits: int8 (D, 4, 10). positives:
    float64 (images, 4).
    """

    images: np.ndarray
    hits: np.ndarray
    positives: np.ndarray

    def precision(self, weights: np.ndarray, area: int, iou: int) -> float:
        """Return the average precision of images that count so often; NaN without an object."""
        return float(self.curve(weights, area, iou).mean())

    def curve(self, weights: np.ndarray, area: int, iou: int) -> np.ndarray:
        """Return the precision at 101 recalls of such images, (101,); NaN without an object."""
        positives = float(weights @ self.positives[:, area])
        if not positives:
            return np.full(len(RECALLS), np.nan)
        return _best_precisions(self.hits[:, area, iou], weights[self.images], positives)


def _best_precisions(hits: np.ndarray, weights: np.ndarray, positives: float) -> np.ndarray:
    """Return the best precision at each of 101 recalls or a higher one, (101,)."""
    # Detections come best first: place k holds what is right among the k + 1 best.
    right = np.cumsum(weights * (hits == HIT))
    wrong = np.cumsum(weights * (hits == FALSE_ALARM))
    called = right + wrong  # 0 as long as all are left out, or weigh nothing
    precision = np.divide(right, called, out=np.zeros_like(right), where=called > 0)
    # From the last detection back: the best precision at this recall or at a higher one.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(right / positives, RECALLS, side="left")
    return np.append(precision, 0.0)[reached]  # 0 at recalls that are not reached


def _by_class(images: Sequence[ImageHits], classes: int) -> list[_ClassHits]:
    """Return the detections of all images, class by class; ties stay in the order of images."""
    none = ImageHits(
        np.zeros(0, int), np.zeros(0), np.zeros((0, len(AREAS), len(IOUS)), np.int8), {}
    )
    # np.concatenate refuses an empty list, so an image without anything comes first.
    parts = [none, *images]
    whose = np.repeat(np.arange(len(images)), [len(one.classes) for one in images])
    scores, of_class = (
        np.concatenate([one.scores for one in parts]),
        np.concatenate([one.classes for one in parts]),
    )
    hits = np.concatenate([one.hits for one in parts])
    positives = np.zeros((classes, len(images), len(AREAS)))
    for place, one in enumerate(images):
        for own, counts in one.positives.items():
            positives[own, place] = counts
    # Two stable sorts, the less important key first: by class, then score, then order of images.
    order = np.argsort(-scores, kind="stable")
    order = order[np.argsort(of_class[order], kind="stable")]
    bounds = np.searchsorted(of_class[order], np.arange(classes + 1))
    return [
        _ClassHits(whose[order[a:b]], hits[order[a:b]], positives[own])
        for own, (a, b) in enumerate(pairwise(bounds))
    ]


def precision_table(
    images: Sequence[ImageHits],
    classes: int,
    weights: np.ndarray | None = None,
    areas: Sequence[int] = range(len(AREAS)),
    ious: Sequence[int] = range(len(IOUS)),
) -> np.ndarray:
    """Return average precisions, float64 (areas, ious, classes); NaN of a class without an object.

    Args:
        images: as their rows have them.
        classes: how many there are.
        weights: how often each image counts; once where there are none.
        areas: places in `AREAS`.
        ious: places in `IOUS`.
    """
    weights = np.ones(len(images)) if weights is None else np.asarray(weights, float)
    table = [
        [[own.precision(weights, area, iou) for iou in ious] for area in areas]
        for own in _by_class(images, classes)
    ]
    return np.moveaxis(np.array(table, float).reshape(classes, len(areas), len(ious)), 0, -1)


def precision_curves(
    images: Sequence[ImageHits], classes: int, iou: int, area: int = 0
) -> np.ndarray:
    """Return the precision of each class at the recalls 0, .01 to 1, float64 (classes, 101).

    It is the best precision at that recall or a higher one, whose mean is the average precision;
    NaN for a class without an object.

    Args:
        images: as their rows have them.
        classes: how many there are.
        iou: place in `IOUS` of the overlap that is asked for.
        area: place in `AREAS`.
    """
    weights = np.ones(len(images))
    return np.array([own.curve(weights, area, iou) for own in _by_class(images, classes)])


def count_objects(images: Sequence[ImageHits]) -> np.ndarray:
    """Return how many objects images have in each range of `AREAS`, crowds left out, int (4,)."""
    return sum((n for one in images for n in one.positives.values()), np.zeros(len(AREAS), int))


def choose(table: np.ndarray, what: Precision) -> np.ndarray:
    """Return the average precision of each class, (classes,), as a metric asks for it.

    Args:
        table: of all ranges and overlaps, see `precision_table`.
        what: the metric's range and overlap.
    """
    own = table[what.area]
    return own.mean(axis=0) if what.iou is None else own[what.iou]


def class_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is no NaN; NaN where there is nothing."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0).sum(axis=-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def mean_precision(
    images: Sequence[ImageHits],
    classes: int,
    what: Precision,
    place: int | None = None,
    weights: np.ndarray | None = None,
) -> float:
    """Return an average precision of images, NaN where they have no such object.

    Args:
        images: as their rows have them.
        classes: how many there are.
        what: range of area and overlap.
        place: of the class; None for the mean of those that have objects.
        weights: how often each image counts.
    """
    ious = range(len(IOUS)) if what.iou is None else [what.iou]
    values = precision_table(images, classes, weights, [what.area], ious)[0].mean(axis=0)
    return float(class_mean(values) if place is None else values[place])


def mean_precision_without(
    images: Sequence[ImageHits],
    classes: int,
    what: Precision,
    place: int | None,
    places: np.ndarray,
    units: int,
) -> np.ndarray:
    """Return the average precision without each unit of images, (units,); NaN where it has none.

    A class is looked at again only for units that have to do with it.

    Args:
        images: as their rows have them.
        classes: how many there are.
        what: range of area and overlap.
        place: of the class; None for the mean of those that have objects.
        places: of each image the number of its unit.
        units: how many there are.
    """
    ious = range(len(IOUS)) if what.iou is None else [what.iou]
    values = np.full((units, classes), np.nan)
    for number, own in enumerate(_by_class(images, classes)):
        if place not in (None, number):
            continue

        # The default binds this round's class; a plain closure would see the last one.
        def rest(weights: np.ndarray, own: _ClassHits = own) -> float:
            return float(np.mean([own.precision(weights, what.area, iou) for iou in ious]))

        # Units without anything of this class leave its value as it is with all images.
        values[:, number] = rest(np.ones(len(images)))
        with_objects = np.flatnonzero(own.positives[:, what.area])
        for unit in np.unique(places[np.concatenate([own.images, with_objects])]).tolist():
            values[unit, number] = rest((places != unit).astype(float))
    return class_mean(values) if place is None else values[:, place]


# The score of 2018's nuclei: objects of an image, without classes and areas.


def best_first(scores: np.ndarray) -> np.ndarray:
    """Return the places of scores, the highest first, of equal ones the earlier first."""
    return np.argsort(-scores, kind="stable")


def shares_found(ious: np.ndarray, crowd: np.ndarray) -> dict[str, float]:
    """Return tp / (tp + fp + fn) of an image as the score of the Data Science Bowl 2018 has it.

    Args:
        ious: float64 (D, G), detections best first.
        crowd: bool (G,), which objects are crowds.

    Returns:
        The mean over ten overlaps, and those above .50 and .75; 1 where there is nothing at all.
    """
    found = match(ious, crowd, crowd, TWENTIETHS, above=True)
    right, wrong = (found == HIT).sum(axis=0), (found == FALSE_ALARM).sum(axis=0)
    whole = wrong + int((~crowd).sum())  # tp + fn are the objects
    shares = np.divide(right, whole, out=np.ones(len(TWENTIETHS)), where=whole > 0)
    # TWENTIETHS[0] is .50 and TWENTIETHS[5] is .75.
    mean, at_half, at_75 = shares.mean(), shares[0], shares[5]
    return {"dsb_score": float(mean), "dsb_50": float(at_half), "dsb_75": float(at_75)}
