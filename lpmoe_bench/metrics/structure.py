"""S-measure from sums over the object, the background and the four quadrants."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

EPS = 2.0**-52


class Spread(NamedTuple):
    """Values of some pixels: their number, mean and sum of squared deviations from it."""

    count: int
    mean: float
    squares: float


class Quadrant(NamedTuple):
    """Map and mask in one quadrant.

    squares and products are sums of the map's deviations from its mean: squared, and times the
    mask's deviations. constant: whether map and mask are constant. rounds: whether PySODMetrics'
    sums over a constant map leave a rest, which scores 0 instead of 1.
    """

    count: int
    foreground: int
    mean: float
    squares: float
    products: float
    constant: bool
    rounds: bool


def structure(
    foreground: Spread, background: Spread, quadrants: list[Quadrant], as_rounded: bool
) -> float:
    """Return the S-measure with alpha 0.5 of a mask with both object and background.

    Fan et al., ICCV 2017. A quadrant without pixels has weight 0. as_rounded: score a constant
    quadrant as the reference's rounding does.
    """
    size = foreground.count + background.count
    share = foreground.count / size
    inverse = background._replace(mean=1 - background.mean)
    objects = _likeness(foreground) * share + _likeness(inverse) * (1 - share)
    regions = math.fsum(_similarity(q, as_rounded) * q.count / size for q in quadrants if q.count)
    return max(0.0, 0.5 * objects + 0.5 * regions)


def _likeness(values: Spread) -> float:
    mean = values.mean
    deviation = math.sqrt(values.squares / (values.count - 1)) if values.count > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + deviation + EPS)


def _similarity(part: Quadrant, as_rounded: bool) -> float:
    if part.constant:
        return 0.0 if as_rounded and part.rounds else 1.0
    free = part.count - 1 + EPS
    x, y = part.mean, part.foreground / part.count
    covariance = part.products / free
    mask_squares = part.foreground * (1 - y) ** 2 + (part.count - part.foreground) * y**2
    top = 4 * x * y * covariance
    bottom = (x**2 + y**2) * (part.squares / free + mask_squares / free)
    if top != 0:
        return top / (bottom + EPS)
    return 1.0 if bottom == 0 else 0.0


def leaves_rest(values: np.ndarray) -> bool:
    """Whether the reference's variance of constant values, (h, w), is not 0 but rounding."""
    mean = np.mean(values)
    return bool(np.sum((values - mean) ** 2) != 0)
