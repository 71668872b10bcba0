"""A map of floats beside a prepared mask, with the same sums as an 8-bit map."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.levels import curve, passed, stretch
from lpmoe_bench.metrics.overlap import Counts
from lpmoe_bench.metrics.prepared import PreparedMask
from lpmoe_bench.metrics.structure import Quadrant, Spread, leaves_rest


class FloatMap:
    """A map of floats in [0, 1], (h, w), widened to 64 bits; slower, as each pixel is its own."""

    def __init__(self, pred: np.ndarray, mask: PreparedMask, normalisation: str):
        values = np.ascontiguousarray(pred, np.float64)
        if not (values.min() >= 0 and values.max() <= 1):  # false for NaN as well
            raise DataError("map holds floats outside of 0 to 1, or NaN; save probabilities")
        low, high = values.min(), values.max()
        self.mask, self.constant = mask, bool(low == high)
        self.values = stretch(values, low, high) if normalisation == "minmax" else values
        self._on = mask.pixels.view(np.bool_)

    @property
    def normalised(self) -> np.ndarray:
        return self.values

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

    def counts_at(self, threshold: float, above: bool = False) -> Counts:
        called = self.values > threshold if above else self.values >= threshold
        tp = int(np.count_nonzero(called & self._on))
        fp = int(np.count_nonzero(called)) - tp
        return Counts.of(tp, fp, self.mask.foreground, self.mask.size)

    def counts_over(self, grid: str, above: bool = False) -> Counts:
        places = passed(self.values, grid, above) + 257 * self.mask.pixels.astype(np.int64)
        fp, tp = curve(np.bincount(places.ravel(), minlength=514).reshape(2, 257))
        return Counts.of(tp, fp, self.mask.foreground, self.mask.size)

    def spread(self, foreground: bool) -> Spread:
        values = self.values[self._on == foreground]
        mean = float(np.mean(values))
        return Spread(values.size, mean, float(np.sum((values - mean) ** 2)))

    def quadrants(self) -> list[Quadrant]:
        parts = (self.mask.quadrant(index) for index in range(4))
        return [self._quadrant(self.values[part], self._on[part]) for part in parts]

    def _quadrant(self, values: np.ndarray, on: np.ndarray) -> Quadrant:
        if not values.size:
            return Quadrant(0, 0, 0.0, 0.0, 0.0, False, False)
        foreground, mean = int(np.count_nonzero(on)), float(np.mean(values))
        away, y = values - mean, foreground / values.size
        same = bool(values.min() == values.max())
        flat = same and foreground in (0, values.size)
        squares = 0.0 if same else float(np.sum(away**2))
        products = 0.0 if same else float(np.sum(away * (on - y)))
        rounds = flat and leaves_rest(values)
        return Quadrant(values.size, foreground, mean, squares, products, flat, rounds)

    def weighted_background(self) -> float:
        return float(np.sum(self.values * self.mask.surroundings.weights))

    def errors(self) -> tuple[np.ndarray, np.ndarray]:
        # Every pixel is a level of its own.
        places = np.arange(self.values.size, dtype=np.int32).reshape(self.values.shape)
        return 1 - self.values.ravel(), places
