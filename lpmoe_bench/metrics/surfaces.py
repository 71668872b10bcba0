"""Outlines, distances between them and skeletons: worked out once a mask, for all who ask."""

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lpmoe_bench.metrics.kernels import envelope, kernel

FAR = 65535  # no outline in this column
DIAGONAL = math.sqrt(0.5)
# Length of the contour through a corner by which of its four pixels are object, 8 being above left,
# 4 above right, 2 below left, 1 below right: a cut corner is half a diagonal, a side is 1.
LENGTHS = np.array([0, 1, 1, 2, 1, 2, 3, 1, 1, 3, 2, 1, 2, 1, 1, 0])
LENGTHS = np.array([0, DIAGONAL, 1, 2 * DIAGONAL])[LENGTHS]

# Kernels. An outline is where an object pixel has background, or the frame, above, below, left or
# right of it: what erosion by a cross takes away.


@kernel
def _outline(mask):
    """Return the rows and columns, (n,), of a 0/1 mask's outline, in the order of rows."""
    h, w = mask.shape
    # Room for the outline of a convex object; a ragged one makes it grow below.
    rows, n = np.empty(h * 2 + w * 2 + 16, np.int32), 0
    columns = np.empty_like(rows)
    for y in range(h):
        for x in range(w):
            if not mask[y, x]:
                continue
            inner = 0 < y < h - 1 and 0 < x < w - 1
            if inner and mask[y - 1, x] and mask[y + 1, x] and mask[y, x - 1] and mask[y, x + 1]:
                continue
            if n == len(rows):  # room for twice as many
                wider = np.empty(2 * n, np.int32)
                wider[:n] = rows
                rows = wider
                wider = np.empty(2 * n, np.int32)
                wider[:n] = columns
                columns = wider
            rows[n], columns[n] = y, x
            n += 1
    return rows[:n].copy(), columns[:n].copy()


@kernel
def _corners(mask):
    """Return rows, columns, (n,), and codes of the corners between object and background.

    Corner (y, x) lies above and left of pixel (y, x), so that there is one more each way.
    """
    h, w = mask.shape
    found = 0
    for step in range(2):  # to count, then to write
        rows, columns = np.empty(found, np.int32), np.empty(found, np.int32)
        codes, found = np.empty(found, np.uint8), 0
        for y in range(h + 1):
            for x in range(w + 1):
                code = 0
                if y > 0 and x > 0:
                    code += 8 * mask[y - 1, x - 1]
                if y > 0 and x < w:
                    code += 4 * mask[y - 1, x]
                if y < h and x > 0:
                    code += 2 * mask[y, x - 1]
                if y < h and x < w:
                    code += mask[y, x]
                if code == 0 or code == 15:
                    continue
                if step:
                    rows[found], columns[found], codes[found] = y, x, code
                found += 1
    return rows, columns, codes


@kernel
def _down_columns(rows, columns, height, width):
    """Return each pixel's distance to the nearest of some points of its column, FAR for none."""
    away = np.full((height, width), FAR, np.uint16)
    # As in `kernels`, but to points instead of to a mask, and without a limit of reach.
    for i in range(len(rows)):
        away[rows[i], columns[i]] = 0
    for y in range(1, height):
        for x in range(width):
            # A distance of FAR itself would later be read as "no outline in this column".
            if away[y - 1, x] < FAR - 1 and away[y - 1, x] + 1 < away[y, x]:
                away[y, x] = away[y - 1, x] + 1
    for y in range(height - 2, -1, -1):
        for x in range(width):
            if away[y + 1, x] < FAR - 1 and away[y + 1, x] + 1 < away[y, x]:
                away[y, x] = away[y + 1, x] + 1
    return away


@kernel
def _squares_at(rows, columns, away):
    """Return the squared distances from points, in the order of rows, to what `away` is of.

    The lower envelope of parabolas of Felzenszwalb and Huttenlocher (2012), in integers, for rows
    that hold a point alone: a distance is asked for on outlines, not everywhere.
    """
    width, n = away.shape[1], len(rows)
    squares = np.empty(n, np.int64)
    site, height = np.empty(width, np.int64), np.empty(width, np.int64)
    start = np.empty(width + 1, np.int64)
    at = 0
    while at < n:
        y, part = rows[at], 0
        envelope(away[y], FAR - 1, False, site, height, start)
        while at < n and rows[at] == y:
            x = np.int64(columns[at])
            # Points of a row go from left to right, so the parabola in force only moves on. The
            # last start is the width, which ends the search.
            while start[part + 1] <= x:
                part += 1
            squares[at] = (x - site[part]) * (x - site[part]) + height[part]
            at += 1
    return squares


# A mask as a surface.


class Points(NamedTuple):
    """Points of a grid in the order of rows: their rows, columns and weights, (n,)."""

    rows: np.ndarray
    columns: np.ndarray
    weights: np.ndarray


class Surface:
    """An object's outline, what is needed to measure distances to it, and its skeleton.

    Made from a mask, bool or 0/1 (h, w); each part is worked out when it is first asked for.
    """

    def __init__(self, mask: np.ndarray):
        self.pixels = np.ascontiguousarray(mask).view(np.uint8)
        self.shape = self.pixels.shape

    @cached_property
    def area(self) -> int:
        return int(np.count_nonzero(self.pixels))

    @cached_property
    def outline(self) -> Points:
        """The object's outermost pixels."""
        rows, columns = _outline(self.pixels)
        return Points(rows, columns, np.ones(len(rows)))

    @cached_property
    def contour(self) -> Points:
        """The corners between object and background, with the length of the contour at each."""
        rows, columns, codes = _corners(self.pixels)
        return Points(rows, columns, LENGTHS[codes])

    @cached_property
    def _away(self) -> np.ndarray:
        return _down_columns(self.outline.rows, self.outline.columns, *self.shape)

    @cached_property
    def _away_from_contour(self) -> np.ndarray:
        h, w = self.shape
        return _down_columns(self.contour.rows, self.contour.columns, h + 1, w + 1)

    def distances_from(self, other: "Surface") -> np.ndarray:
        """Return the distance of each of the other's outline pixels to this outline, (n,)."""
        return np.sqrt(_squares_at(other.outline.rows, other.outline.columns, self._away))

    def contour_distances_from(self, other: "Surface") -> np.ndarray:
        """Return the same of the corners of both contours."""
        points = other.contour
        return np.sqrt(_squares_at(points.rows, points.columns, self._away_from_contour))

    @cached_property
    def skeleton(self) -> np.ndarray:
        """The object thinned to lines, bool (h, w); Zhang and Suen, CACM 1984."""
        from skimage.morphology import skeletonize

        return np.asarray(skeletonize(self.pixels.view(np.bool_)), bool)


# Measures of a called object beside the mask's. Each is undefined for an empty mask.

TOLERANCE = 2  # pixels, within which a surface counts as met
BOUNDARY = 0.0075  # of the diagonal; Csurka et al., BMVC 2013, as MATLAB's bfscore has it

Scores = dict[str, float | None]


def surface_scores(called: Surface, mask: Surface) -> Scores:
    """Return what outlines and the distances between them say, by key; one transform each way."""
    keys = ("hd95", "hd95_monai", "hd100", "assd")
    if not mask.area:
        return dict.fromkeys((*keys, "nsd", "boundary_f"), None)
    diagonal = float(np.hypot(*mask.shape))
    if not called.area:
        return {**dict.fromkeys(keys, diagonal), "nsd": 0.0, "boundary_f": 0.0}
    there, back = mask.distances_from(called), called.distances_from(mask)
    both = np.concatenate([there, back])
    near = BOUNDARY * diagonal
    precision, recall = (float(np.mean(one <= near)) for one in (there, back))
    total = precision + recall
    return {
        # Two of many definitions: of both ways together, and the larger of the two ways.
        "hd95": float(np.percentile(both, 95)),
        "hd95_monai": max(float(np.percentile(one, 95)) for one in (there, back)),
        "hd100": float(both.max()),
        "assd": float(np.mean(both)),
        "nsd": float(np.mean(both <= TOLERANCE)),
        "boundary_f": 2 * precision * recall / total if total else 0.0,
    }


def contour_scores(called: Surface, mask: Surface) -> Scores:
    """Return the same as DeepMind's surface-distance counts it: by lengths of contours."""
    if not mask.area:
        return {"hd95_deepmind": None, "nsd_deepmind": None}
    if not called.area:
        return {"hd95_deepmind": float(np.hypot(*mask.shape)), "nsd_deepmind": 0.0}
    far, met, whole = [], 0.0, 0.0
    for one, other in ((called, mask), (mask, called)):
        distances, weights = other.contour_distances_from(one), one.contour.weights
        order = np.argsort(distances, kind="stable")
        # A percentile by length: the distance below which 95 % of the contour's length lies.
        share = np.cumsum(weights[order]) / np.sum(weights)
        place = min(int(np.searchsorted(share, 0.95)), len(order) - 1)
        far.append(float(distances[order][place]))
        met += float(weights[distances <= TOLERANCE].sum())
        whole += float(weights.sum())
    return {"hd95_deepmind": max(far), "nsd_deepmind": met / whole}


def centreline_dice(called: Surface, mask: Surface) -> Scores:
    """Return clDice: how much of each skeleton lies in the other object. Shit et al., CVPR 2021."""
    if not mask.area:
        return {"cldice": None}
    if not called.area:
        return {"cldice": 0.0}

    def inside(line: Surface, body: Surface) -> float:
        whole = np.count_nonzero(line.skeleton)
        return np.count_nonzero(line.skeleton & body.pixels.view(np.bool_)) / whole

    precision, recall = inside(called, mask), inside(mask, called)
    total = precision + recall
    return {"cldice": 2 * precision * recall / total if total else 0.0}


# Areas below the curves over all thresholds that a map has.


def areas_below(prediction: np.ndarray, mask: np.ndarray) -> Scores:
    """Return AUC and AP of one map: of the ROC curve, and of precision over recall in steps.

    prediction: float (h, w); mask: bool (h, w). Pixels of one value count together.
    """
    found: Scores = {"auc": None, "ap": None}
    positive = int(np.count_nonzero(mask))
    if not positive:
        return found
    # unique sorts upwards; the counts are turned round below, as thresholds go from high to low.
    levels, places = np.unique(prediction, return_inverse=True)
    every = np.bincount(places.ravel(), minlength=len(levels))[::-1]
    object_ = np.bincount(places.ravel(), mask.ravel(), len(levels))[::-1]
    tp, called = np.cumsum(object_), np.cumsum(every)
    # Gain of recall at each level times the precision there; no level is empty, so called > 0.
    found["ap"] = float(np.sum(object_ / positive * (tp / called)))
    if positive < mask.size:
        rates = tp / positive, (called - tp) / (mask.size - positive)
        # The curve begins at (0, 0), where nothing is called.
        up, across = (np.concatenate([[0.0], rate]) for rate in rates)
        found["auc"] = float(np.trapezoid(up, across))
    return found
