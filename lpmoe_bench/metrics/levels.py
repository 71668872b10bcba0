"""Levels: what an 8-bit value is worth after normalisation, and which thresholds a value passes."""

from __future__ import annotations

from functools import cache

import numpy as np


def stretch(values: np.ndarray, low: np.floating, high: np.floating) -> np.ndarray:
    """Map [low, high] to [0, 1], as the reference does; nothing changes where both are equal."""
    return values if low == high else (values - low) / (high - low)


def value_table(low: int, high: int, normalisation: str) -> np.ndarray:
    """Return the normalised value of each 8-bit level, (256,), for a map from low to high.

    The same operations in the same order as the reference's on pixels, so that not one bit
    differs. Levels outside of low to high, which no pixel has, are clipped.
    """
    values = np.arange(256) / 255
    if normalisation == "minmax":
        values = np.clip(stretch(values, values[low], values[high]), 0, 1)
    return values


@cache
def matlab_thresholds() -> np.ndarray:
    """Return MATLAB's 1:-1/255:0, (256,): counted from both ends, so that rounding is symmetric.

    Source: CODToolbox; the stored curves of its maps rest on equality of floats at this grid.
    """
    step, index = 1 / 255, np.arange(256)
    return np.where(index <= 127, 1 - index * step, (255 - index) * step)


def passed(values: np.ndarray, grid: str, above: bool = False) -> np.ndarray:
    """Return how many of the 256 thresholds each value in [0, 1] reaches, as integers 0..256.

    It reaches the lowest ones: a value that passes n is foreground at thresholds 256 - n to 255,
    counted from the highest. With `above` it has to exceed them.
    """
    if grid == "levels":
        return (values * 255).astype(np.uint8).astype(np.int64) + 1
    ascending = matlab_thresholds()[::-1]
    return np.searchsorted(ascending, values, side="left" if above else "right")


def curve(counts: np.ndarray) -> np.ndarray:
    """Turn pixels by thresholds passed, (..., 257), into pixels passing each, (..., 256)."""
    return counts[..., :0:-1].cumsum(-1)
