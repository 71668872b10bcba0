"""An 8-bit map beside a prepared mask, reduced to the sums that the scores are made of."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .levels import curve, passed, value_table
from .overlap import Counts
from .prepared import PreparedMask
from .structure import Quadrant, Spread, leaves_rest

TIE = 1e-9  # nearer to a level than this, a threshold depends on how the mean was summed


class ByteMap:
    """An 8-bit map, (h, w): everything but the weighted F-measure comes from one histogram."""

    def __init__(self, pred: np.ndarray, mask: PreparedMask, normalisation: str):
        from .counting import joint_histogram

        self.pred, self.mask = np.ascontiguousarray(pred), mask
        self._parts = joint_histogram(self.pred, mask.pixels, *mask.corner)  # (4, 2, 256)
        self._counts = self._parts.sum(0)  # (2, 256): background, object
        used = np.flatnonzero(self._counts.sum(0))
        self.low, self.high = int(used[0]), int(used[-1])
        self.values = value_table(self.low, self.high, normalisation)

    @property
    def constant(self) -> bool:
        return self.low == self.high

    @property
    def normalised(self) -> np.ndarray:
        """The map's pixels in [0, 1], (h, w)."""
        return self.values[self.pred]

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
        if np.any(np.abs(self.values - 2 * mean)[self._counts.sum(0) > 0] < TIE):
            mean = float(np.mean(self.values[self.pred]))
        return min(2 * mean, 1.0)

    def counts_at(self, threshold: float, above: bool = False) -> Counts:
        """Binarise at a threshold of the normalised map: at least it, or strictly above."""
        called = self.values > threshold if above else self.values >= threshold
        fp, tp = (self._counts @ called).tolist()
        return Counts.of(tp, fp, self.mask.foreground, self.mask.size)

    def counts_over(self, grid: str, above: bool = False) -> Counts:
        """Binarise at the 256 thresholds of a grid, from high to low."""
        places = passed(self.values, grid, above)
        counts = np.stack([np.bincount(places, row, 257) for row in self._counts])
        fp, tp = curve(counts.astype(np.int64))
        return Counts.of(tp, fp, self.mask.foreground, self.mask.size)

    def spread(self, foreground: bool) -> Spread:
        """Values on the object, or on the background; there must be some."""
        counts = self._counts[int(foreground)]
        total = int(counts.sum())
        mean = float(counts @ self.values) / total
        return Spread(total, mean, float(counts @ (self.values - mean) ** 2))

    def quadrants(self) -> list[Quadrant]:
        return [self._quadrant(i) for i in range(4) if self._parts[i].any()]

    def _quadrant(self, index: int) -> Quadrant:
        counts = self._parts[index]
        levels = counts.sum(0)
        off, on = counts.sum(1).tolist()
        total = off + on
        mean = float(levels @ self.values) / total
        away = self.values - mean
        lower, upper = (counts @ away).tolist()
        y = on / total
        only = np.flatnonzero(levels)
        same = len(only) == 1
        flat = same and 0 in (on, off)
        return Quadrant(
            total,
            on,
            mean,
            0.0 if same else float(levels @ away**2),
            0.0 if same else upper * (1 - y) - lower * y,
            flat,
            flat and self._rounds(index, float(self.values[only[0]])),
        )

    def _rounds(self, index: int, value: float) -> bool:
        if value in (0.0, 1.0):
            return False
        return leaves_rest(self.values[self.pred][self.mask.quadrant(index)])

    def weighted_background(self) -> float:
        """Sum of the map on the background times its weights, in their fixed-point unit."""
        from .smoothing import weighted_sum

        total = weighted_sum(self.pred, self.mask.surroundings.weights)
        # The values are a straight line over the levels, so the sum over levels is enough.
        zero, one = self.values[self.low], self.values[self.high]
        if self.constant:
            return float(zero) * self.mask.weight_sum
        slope = float(one - zero) / (self.high - self.low)
        return float(zero) * self.mask.weight_sum + slope * (
            total - self.low * self.mask.weight_sum
        )

    def errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return 1 - map as a table, and each pixel's place in it, (h, w)."""
        return 1 - self.values, self.pred
