"""A mask prepared once, and a map beside it reduced to the sums that scores are made of."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics import formulas

if TYPE_CHECKING:
    from lpmoe_bench.metrics.surfaces import Surface

# PreparedMask: what the scores need to know of a mask, worked out once for all maps.


class Surroundings(NamedTuple):
    """The background as the weighted F-measure sees it.

    weights: uint32 (h, w) in fixed point, 0 on the object. near: flat indices of background pixels
    about the object, in order. nearest: the object pixels nearest to them. box: top, bottom, left,
    right of the object, half open.
    """

    weights: np.ndarray
    near: np.ndarray
    nearest: np.ndarray
    box: tuple[int, int, int, int]


class PreparedMask:
    """A mask with the work done that does not depend on the map; it is not changed afterwards.

    Made from a mask of uint8 (h, w), foreground strictly above `threshold`, or of bool; `ignored`,
    bool (h, w), are pixels that count for nothing and are background here. Raises DataError for
    anything else, for a mask of nothing but 0 and 1 as uint8, and where all pixels are ignored.
    """

    def __init__(self, mask: np.ndarray, threshold: int = 128, ignored: np.ndarray | None = None):
        if mask.ndim != 2 or not mask.size or mask.dtype not in (np.uint8, np.bool_):
            raise DataError(
                f"mask is {mask.dtype} {mask.shape}; it must be uint8 of (h, w), 0..255"
            )
        # Checked before the threshold: a label map of 0 and 1 would lose its whole object to it.
        if mask.dtype == np.uint8:
            if mask.max() == 1:  # would silently count as empty
                raise DataError("mask holds only 0 and 1; foreground must be 255")
            mask = mask > threshold
        if ignored is not None:
            if ignored.all():
                raise DataError("all pixels of the mask are ignored; leave the image out")
            mask = mask & ~ignored
        self.threshold, self.ignored = threshold, ignored
        self.pixels = np.ascontiguousarray(mask).view(np.uint8)  # 0 and 1, (h, w)

    @property
    def shape(self) -> tuple[int, int]:
        h, w = self.pixels.shape
        return h, w

    @property
    def size(self) -> int:
        return self.pixels.size

    @cached_property
    def counted(self) -> PreparedMask:
        """The pixels that count as a mask of one row, (1, n); itself where all of them do."""
        if self.ignored is None:
            return self
        return PreparedMask(self.pixels.view(np.bool_)[~self.ignored][None], self.threshold)

    @cached_property
    def _lines(self) -> tuple[np.ndarray, np.ndarray]:
        from lpmoe_bench.metrics.kernels import count_lines

        return count_lines(self.pixels)

    @cached_property
    def foreground(self) -> int:
        """Number of object pixels."""
        return int(self._lines[0].sum())

    @property
    def mixed(self) -> bool:
        """Whether there are both object and background."""
        return 0 < self.foreground < self.size

    @cached_property
    def corner(self) -> tuple[int, int]:
        """Rows above and columns left of the point where the S-measure's quadrants meet.

        It is the object's centroid, rounded half to even, plus 1 as MATLAB counts. A mask that is
        empty or full has one quadrant.
        """
        if not self.mixed:
            return self.shape
        # The centroid needs only the object pixels of each row and each column.
        centre = (int(line @ np.arange(len(line))) / self.foreground for line in self._lines)
        row, column = (round(place) + 1 for place in centre)
        return row, column

    @property
    def empty_quadrant(self) -> bool:
        """Whether a quadrant has no pixels although there are both object and background."""
        (row, column), (h, w) = self.corner, self.shape
        return self.mixed and (row == h or column == w)

    def quadrant(self, index: int) -> tuple[slice, slice]:
        """Return the rows and columns of a quadrant: left to right, then top to bottom."""
        row, column = self.corner
        rows = slice(0, row) if index < 2 else slice(row, None)
        return rows, slice(0, column) if index % 2 == 0 else slice(column, None)

    @cached_property
    def surroundings(self) -> Surroundings:
        """What the weighted F-measure needs; the mask must not be empty."""
        from lpmoe_bench.metrics import kernels

        weights, near, squares = kernels.weigh_background(self.pixels, kernels.weight_table())
        nearest = kernels.nearest_pixels(self.pixels, near, squares, *kernels.nearest_offsets())
        rows, columns = (np.flatnonzero(line) for line in self._lines)
        box = (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
        return Surroundings(weights, near, nearest, box)

    @cached_property
    def surface(self) -> Surface:
        """Outline and skeleton of the object, which all maps share."""
        from lpmoe_bench.metrics.surfaces import Surface

        return Surface(self.pixels)

    @cached_property
    def weight_sum(self) -> float:
        """Sum of the weights, in their fixed-point unit."""
        return float(self.surroundings.weights.sum(dtype=np.uint64))

    def everything(self) -> PreparedMask:
        """Do all the work now, so that threads that share the mask only read it; return self."""
        # Reading them is what fills the cached properties.
        self._done = (self.corner, self.weight_sum if self.foreground else 0.0)
        return self


# An 8-bit map beside a prepared mask, reduced to the sums that the scores are made of.

TIE = 1e-9  # nearer to a level than this, a threshold depends on how the mean was summed


class ByteMap:
    """An 8-bit map, (h, w): everything but the weighted F-measure comes from one histogram.

    limits: the least and the greatest level that normalisation knows of, by default the map's.
    """

    def __init__(
        self,
        pred: np.ndarray,
        mask: PreparedMask,
        normalisation: str,
        limits: tuple[int, int] | None = None,
    ):
        from lpmoe_bench.metrics.kernels import joint_histogram

        self.pred, self.mask = np.ascontiguousarray(pred), mask
        # 256 levels x object or not x four quadrants: every sum over pixels that a score needs is a
        # sum over these 2048 numbers, whatever the size of the image.
        self._parts = joint_histogram(self.pred, mask.pixels, *mask.corner)  # (4, 2, 256)
        self._counts = self._parts.sum(0)  # (2, 256): background, object
        used = np.flatnonzero(self._counts.sum(0))
        self.low, self.high = int(used[0]), int(used[-1])
        self.values = formulas.value_table(*(limits or (self.low, self.high)), normalisation)

    @property
    def constant(self) -> bool:
        return self.low == self.high

    @property
    def normalised(self) -> np.ndarray:
        """The map's pixels in [0, 1], (h, w)."""
        return self.values[self.pred]

    def called(self, threshold: float) -> np.ndarray:
        """Return the pixels strictly above a threshold, bool (h, w)."""
        return (self.values > threshold)[self.pred]

    @cached_property
    def sums(self) -> np.ndarray:
        """Sums of the map over background and object, (2,)."""
        return self._counts @ self.values

    @cached_property
    def mean(self) -> float:
        return float(self.sums.sum()) / self.mask.size

    @property
    def error(self) -> float:
        """Mean absolute difference of map and mask."""
        return float(self.sums[0] + self._counts[1] @ (1 - self.values)) / self.mask.size

    @property
    def adaptive_threshold(self) -> float:
        """Twice the mean, at most 1; as the reference sums it where a level is that near."""
        mean = self.mean
        # A level on the threshold falls to one side or the other by
        # the mean's last bits. There the pixels are summed as the
        # reference sums them; everywhere else the histogram is enough.
        if np.any(np.abs(self.values - 2 * mean)[self._counts.sum(0) > 0] < TIE):
            mean = float(np.mean(self.values[self.pred]))
        return min(2 * mean, 1.0)

    def counts_at(self, threshold: float, above: bool = False) -> formulas.Counts:
        """Binarise at a threshold of the normalised map: at least it, or strictly above."""
        called = self.values > threshold if above else self.values >= threshold
        fp, tp = (self._counts @ called).tolist()
        return formulas.Counts.of(tp, fp, self.mask.foreground, self.mask.size)

    def counts_over(self, grid: str, above: bool = False) -> formulas.Counts:
        """Binarise at the 256 thresholds of a grid, from high to low."""
        places = formulas.passed(self.values, grid, above)
        # Levels that pass equally many thresholds count together: 0 to 256 thresholds, 257 places.
        counts = np.stack([np.bincount(places, row, 257) for row in self._counts])
        fp, tp = formulas.counts_passing(counts.astype(np.int64))
        return formulas.Counts.of(tp, fp, self.mask.foreground, self.mask.size)

    def moments(self, foreground: bool) -> formulas.Moments:
        """Values on the object, or on the background; there must be some."""
        counts = self._counts[int(foreground)]
        total = int(counts.sum())
        mean = float(counts @ self.values) / total
        return formulas.Moments(total, mean, float(counts @ (self.values - mean) ** 2))

    def quadrants(self) -> list[formulas.Quadrant]:
        return [self._quadrant(i) for i in range(4) if self._parts[i].any()]

    def _quadrant(self, index: int) -> formulas.Quadrant:
        counts = self._parts[index]
        levels = counts.sum(0)
        off, on = counts.sum(1).tolist()
        total = off + on
        mean = float(levels @ self.values) / total
        away = self.values - mean
        # Products of deviations, by mask value: 1 - y on the object, -y off it.
        lower, upper = (counts @ away).tolist()
        y = on / total
        only = np.flatnonzero(levels)
        same = len(only) == 1
        flat = same and 0 in (on, off)
        return formulas.Quadrant(
            total,
            on,
            mean,
            0.0 if same else float(levels @ away**2),
            # A constant part has no deviation; its sum would be rounding and not 0.
            0.0 if same else upper * (1 - y) - lower * y,
            flat,
            flat and self._rounds(index, float(self.values[only[0]])),
        )

    def _rounds(self, index: int, value: float) -> bool:
        # A mean of zeros, or of ones, is exact: nothing is left over.
        if value in (0.0, 1.0):
            return False
        return formulas.leaves_rest(self.values[self.pred][self.mask.quadrant(index)])

    def weighted_background(self) -> float:
        """Sum of the map on the background times its weights, in their fixed-point unit."""
        from lpmoe_bench.metrics.kernels import weighted_sum

        total = weighted_sum(self.pred, self.mask.surroundings.weights)
        # The values are a straight line over the levels, so the sum over levels is enough.
        zero, one, weights = self.values[self.low], self.values[self.high], self.mask.weight_sum
        if self.constant:
            return float(zero) * weights
        # value(level) = zero + slope (level - low), summed with the weights.
        slope = float(one - zero) / (self.high - self.low)
        return float(zero) * weights + slope * (total - self.low * weights)

    def errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return 1 - map as a table, and each pixel's place in it, (h, w)."""
        return 1 - self.values, self.pred


# A map of floats beside a prepared mask, with the same sums as an 8-bit map.


class FloatMap:
    """A map of floats in [0, 1], (h, w), widened to 64 bits; slower, as each pixel is its own.

    limits: the least and the greatest value that normalisation knows of, by default the map's.
    """

    def __init__(
        self,
        pred: np.ndarray,
        mask: PreparedMask,
        normalisation: str,
        limits: tuple[np.floating, np.floating] | None = None,
    ):
        values = np.ascontiguousarray(pred, np.float64)
        if not (values.min() >= 0 and values.max() <= 1):  # false for NaN as well
            raise DataError("map holds floats outside of 0 to 1, or NaN; save probabilities")
        low, high = values.min(), values.max()
        self.mask, self.constant = mask, bool(low == high)
        low, high = limits or (low, high)
        self.values = formulas.stretch(values, low, high) if normalisation == "minmax" else values
        self._on = mask.pixels.view(np.bool_)

    @property
    def normalised(self) -> np.ndarray:
        return self.values

    def called(self, threshold: float) -> np.ndarray:
        return self.values > threshold

    @cached_property
    def sums(self) -> np.ndarray:
        return np.array([self.values[~self._on].sum(), self.values[self._on].sum()])

    @cached_property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def error(self) -> float:
        return float(np.mean(np.abs(self.values - self._on)))

    @property
    def adaptive_threshold(self) -> float:
        return min(2 * self.mean, 1.0)

    def counts_at(self, threshold: float, above: bool = False) -> formulas.Counts:
        called = self.values > threshold if above else self.values >= threshold
        tp = int(np.count_nonzero(called & self._on))
        fp = int(np.count_nonzero(called)) - tp
        return formulas.Counts.of(tp, fp, self.mask.foreground, self.mask.size)

    def counts_over(self, grid: str, above: bool = False) -> formulas.Counts:
        # One count for both: thresholds passed by background are 0..256, those by object 257..513.
        places = formulas.passed(self.values, grid, above) + 257 * self.mask.pixels.astype(np.int64)
        fp, tp = formulas.counts_passing(np.bincount(places.ravel(), minlength=514).reshape(2, 257))
        return formulas.Counts.of(tp, fp, self.mask.foreground, self.mask.size)

    def moments(self, foreground: bool) -> formulas.Moments:
        values = self.values[self._on == foreground]
        mean = float(np.mean(values))
        return formulas.Moments(values.size, mean, float(np.sum((values - mean) ** 2)))

    def quadrants(self) -> list[formulas.Quadrant]:
        parts = (self.mask.quadrant(index) for index in range(4))
        return [self._quadrant(self.values[part], self._on[part]) for part in parts]

    def _quadrant(self, values: np.ndarray, on: np.ndarray) -> formulas.Quadrant:
        if not values.size:
            return formulas.Quadrant(0, 0, 0.0, 0.0, 0.0, False, False)
        foreground, mean = int(np.count_nonzero(on)), float(np.mean(values))
        away, y = values - mean, foreground / values.size
        same = bool(values.min() == values.max())
        flat = same and foreground in (0, values.size)
        squares = 0.0 if same else float(np.sum(away**2))
        products = 0.0 if same else float(np.sum(away * (on - y)))
        rounds = flat and formulas.leaves_rest(values)
        return formulas.Quadrant(values.size, foreground, mean, squares, products, flat, rounds)

    def weighted_background(self) -> float:
        return float(np.sum(self.values * self.mask.surroundings.weights))

    def errors(self) -> tuple[np.ndarray, np.ndarray]:
        # Every pixel is a level of its own.
        places = np.arange(self.values.size, dtype=np.int32).reshape(self.values.shape)
        return 1 - self.values.ravel(), places
