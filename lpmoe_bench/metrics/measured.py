"""Measured: every score of one map, each worked out when it is first asked for."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

import numpy as np

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.alignment import alignment
from lpmoe_bench.metrics.byte_map import ByteMap
from lpmoe_bench.metrics.float_map import FloatMap
from lpmoe_bench.metrics.modes import DEFAULT, Mode
from lpmoe_bench.metrics.overlap import Counts
from lpmoe_bench.metrics.prepared import PreparedMask
from lpmoe_bench.metrics.structure import EPS, Quadrant, structure


class Measured:
    """Scores of a map, (h, w): uint8 on 0..255 or float on 0..1, beside a prepared mask.

    normalisation: "minmax" or "none". binary_threshold: foreground lies strictly above it.
    Raises DataError for a map of another shape or type, or with values outside of its range.
    """

    def __init__(
        self,
        pred: np.ndarray,
        mask: PreparedMask,
        normalisation: str = "minmax",
        mode: Mode = DEFAULT,
        binary_threshold: float = 0.5,
    ):
        if pred.shape != mask.shape:
            raise DataError(
                f"map is {pred.shape} and mask is {mask.shape}; "
                "both must be (h, w) of the same size"
            )
        if pred.dtype not in (np.uint8, np.float32, np.float64):
            raise DataError(f"map is {pred.dtype}; it must be uint8, 0..255, or float, 0..1")
        kind = ByteMap if pred.dtype == np.uint8 else FloatMap
        self.map = kind(pred, mask, normalisation)
        self.mask, self.mode, self.binary_threshold = mask, mode, binary_threshold

    @cached_property
    def binary(self) -> Counts:
        """Counts at the binary threshold."""
        return self.map.counts_at(self.binary_threshold, above=True)

    @cached_property
    def adaptive(self) -> Counts:
        """Counts at twice the map's mean, at most 1."""
        return self.map.counts_at(self.map.adaptive_threshold)

    @cached_property
    def curve(self) -> Counts:
        """Counts at the 256 thresholds, from high to low."""
        return self.map.counts_over(self.mode.grid)

    @property
    def mae(self) -> float:
        return self.map.error

    @cached_property
    def e_curve(self) -> Any:
        """E-measure at the 256 thresholds, (256,)."""
        counts = self.curve
        if self.mode.alignment_above:
            counts = self.map.counts_over(self.mode.grid, above=True)
        return self._alignment(counts)

    @property
    def e_adaptive(self) -> float:
        counts = self.adaptive
        if self.mode.alignment_above:
            counts = self.map.counts_at(self.map.adaptive_threshold, above=True)
        return float(self._alignment(counts))

    def _alignment(self, counts: Counts) -> Any:
        as_divided = self.mode.single_pixel == "as divided"
        return alignment(counts, self.mask.foreground, self.mask.size, as_divided)

    @cached_property
    def _quadrants(self) -> list[Quadrant]:
        return self.map.quadrants() if self.mask.mixed else []

    @property
    def s_measure(self) -> float:
        if not self.mask.mixed:
            return self.map.mean if self.mask.foreground else 1 - self.map.mean
        if self.mask.empty_quadrant and self.mode.empty_quadrant == "nan":
            return float("nan")
        on, off = self.map.spread(True), self.map.spread(False)
        return structure(on, off, self._quadrants, self.mode.constant_quadrant == "as rounded")

    @property
    def s_unstable(self) -> bool:
        """Whether the reference's S-measure rests on rounding in a constant quadrant."""
        return any(part.rounds for part in self._quadrants)

    @cached_property
    def weighted_f(self) -> float:
        """Weighted F-measure, beta^2 1; 0 for an empty mask. Margolin et al., CVPR 2014."""
        if not self.mask.foreground:
            return 0.0
        from lpmoe_bench.metrics.distance import ONE
        from lpmoe_bench.metrics.smoothing import object_error

        around, (errors, places) = self.mask.surroundings, self.map.errors()
        missed = object_error(
            places, self.mask.pixels, errors, around.box, around.near, around.nearest, _taps()
        )
        # An error on the background counts 2 - exp(...), twice less the weight, of itself.
        wrong = 2 * float(self.map.sums[0]) - self.map.weighted_background() / ONE
        hit = self.mask.foreground - missed
        recall, precision = 1 - missed / self.mask.foreground, hit / (hit + wrong + EPS)
        return 2 * recall * precision / (recall + precision + EPS)


@cache
def _taps() -> np.ndarray:
    from lpmoe_bench.metrics.smoothing import gaussian_taps

    return gaussian_taps()
