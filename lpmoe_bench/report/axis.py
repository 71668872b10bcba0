"""Scales: where a value lies on an axis, and which values are written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Scale:
    """An axis from `start` to `end`, in pixels. zero: where 0 lies on a logarithmic axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    zero: float | None = None

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        if self.log:
            if value <= 0:
                return self.start if self.zero is None else self.zero
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def linear(values: Sequence[float], start: float, end: float, room: float = 0.06) -> Scale:
    """Return a scale that holds the values with some room at both ends."""
    low, high = min(values), max(values)
    pad = (high - low) * room or abs(high) * 0.05 or 1.0
    return Scale(low - pad, high + pad, start, end)


def logarithmic(values: Sequence[float], start: float, end: float, gap: float = 46) -> Scale:
    """Return a logarithmic scale; values of 0 get a place of their own, `gap` pixels before it."""
    positive = [value for value in values if value > 0] or [1.0]
    spread = max(positive) / min(positive)
    factor = max(spread**0.07, 1.25)
    low, high = min(positive) / factor, max(positive) * factor
    if len(positive) == len(values):
        return Scale(low, high, start, end, True)
    return Scale(low, high, start + gap, end, True, start + gap / 3)


def ticks(scale: Scale, count: int = 5) -> list[tuple[float, str]]:
    """Return values along an axis and how they are written, about `count` of them."""
    values = _log_ticks(scale) if scale.log else _round_ticks(scale, count)
    named = [(value, number(value, values)) for value in values]
    return named if scale.zero is None else [(0.0, "0"), *named]


def number(value: float, among: Sequence[float] = ()) -> str:
    """Write a value shortly: 0.05, 12, 3k, 1.5M, with as many digits as `among` needs."""
    size = max((abs(one) for one in (*among, value)), default=0) if among else abs(value)
    if size >= 1e4 or (size >= 1e3 and not among):
        factor, unit = next((pair for pair in UNITS if abs(value) >= pair[0]), (1.0, ""))
        return f"{value / factor:.3g}{unit}"
    steps = [b - a for a, b in pairwise(among) if b > a]
    if not steps:
        return f"{value:.3g}"
    return f"{value:.{next(d for d in range(9) if _is_whole(min(steps) * 10**d))}f}"


def _is_whole(value: float) -> bool:
    return value > 0.5 and abs(value - round(value)) < 1e-6 * value


def _round_ticks(scale: Scale, count: int) -> list[float]:
    rough = (scale.high - scale.low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (1, 2, 2.5, 5, 10) if step * power >= rough - 1e-12) * power
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(scale: Scale) -> list[float]:
    decades = math.log10(scale.high / scale.low)
    steps = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
    powers = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    found = [step * 10.0**power for power in powers for step in steps]
    inside = [value for value in found if scale.low <= value <= scale.high]
    return inside if len(inside) > 1 else _round_ticks(scale, 4)  # one value shows no scale
