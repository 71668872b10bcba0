"""Formulas of the scores, from counts and sums to numbers: overlap, F, S and E."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

# Overlap scores of a binarised map from its four counts, single numbers or whole curves.


class Counts(NamedTuple):
    """Pixels by what the map says and what is true: all int, or all int64 arrays of one shape.

    Counts of several images add up with `sum_counts`; every ratio is 0 where its denominator is 0.
    """

    tp: Any
    fp: Any
    fn: Any
    tn: Any

    @classmethod
    def of(cls, tp: Any, fp: Any, foreground: int, size: int) -> Counts:
        """Complete the counts from those of the pixels that the map calls object."""
        return cls(tp, fp, foreground - tp, size - foreground - fp)

    @property
    def precision(self) -> Any:
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> Any:
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> Any:
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def accuracy(self) -> Any:
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def iou(self) -> Any:
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def dice(self) -> Any:
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def ber(self) -> Any:
        """Balanced error rate, as a fraction."""
        return 1 - 0.5 * (self.recall + self.specificity)

    @property
    def iou_classes(self) -> Any:
        """Mean IoU of object and background."""
        # Seen from the background, fp and fn change places, so the same sum stands below.
        return 0.5 * (self.iou + _ratio(self.tn, self.tn + self.fp + self.fn))

    @property
    def dice_classes(self) -> Any:
        """Mean Dice of object and background."""
        return 0.5 * (self.dice + _ratio(2 * self.tn, 2 * self.tn + self.fp + self.fn))

    @property
    def mcc(self) -> float:
        """Matthews' correlation of single counts."""
        tp, fp, fn, tn = map(int, self)  # whose products leave 64 bits
        whole = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return (tp * tn - fp * fn) / math.sqrt(whole) if whole else 0.0

    @property
    def kappa(self) -> float:
        """Cohen's kappa of single counts."""
        tp, fp, fn, tn = map(int, self)
        whole = (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)
        return 2 * (tp * tn - fn * fp) / whole if whole else 0.0

    def f(self, beta2: float) -> Any:
        """F-measure; beta2 is the square of beta, the weight of recall."""
        return f_measure(self.precision, self.recall, beta2)


def sum_counts(counts: list[Counts]) -> Counts:
    """Return the counts of all images together."""
    return Counts(*(sum(column) for column in zip(*counts, strict=True)))


def f_measure(precision: Any, recall: Any, beta2: float) -> Any:
    """Return the F-measure of precision and recall, 0 where both are 0."""
    return _ratio((beta2 + 1) * precision * recall, beta2 * precision + recall)


def _ratio(part: Any, whole: Any) -> Any:
    if not isinstance(whole, np.ndarray):
        return part / whole if whole else 0.0
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole != 0)


# S-measure from sums over the object, the background and the four quadrants.

EPS = 2.0**-52


class Moments(NamedTuple):
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
    foreground: Moments, background: Moments, quadrants: list[Quadrant], as_rounded: bool
) -> float:
    """Return the S-measure with alpha 0.5 of a mask with both object and background.

    Fan et al., ICCV 2017. A quadrant without pixels has weight 0. as_rounded: score a constant
    quadrant as the reference's rounding does.
    """
    size = foreground.count + background.count
    share = foreground.count / size
    # The background is to be like 0: 1 - map is taken, whose squared deviations are the same.
    inverse = background._replace(mean=1 - background.mean)
    objects = _likeness(foreground) * share + _likeness(inverse) * (1 - share)
    regions = math.fsum(_similarity(q, as_rounded) * q.count / size for q in quadrants if q.count)
    return max(0.0, 0.5 * objects + 0.5 * regions)


def _likeness(values: Moments) -> float:
    mean = values.mean
    # MATLAB's std divides by n - 1, which one pixel does not have.
    deviation = math.sqrt(values.squares / (values.count - 1)) if values.count > 1 else 0.0
    # The paper has 2 lambda times the deviation; with its lambda of 0.5 that is the deviation.
    return 2 * mean / (mean**2 + 1 + deviation + EPS)


def _similarity(part: Quadrant, as_rounded: bool) -> float:
    if part.constant:
        return 0.0 if as_rounded and part.rounds else 1.0
    free = part.count - 1 + EPS
    # The SSIM of Wang et al. with one window a quadrant, and without its two constants.
    x, y = part.mean, part.foreground / part.count
    covariance = part.products / free
    # A 0/1 mask has only two deviations: 1 - y on the object and -y off it.
    mask_squares = part.foreground * (1 - y) ** 2 + (part.count - part.foreground) * y**2
    top = 4 * x * y * covariance
    bottom = (x**2 + y**2) * (part.squares / free + mask_squares / free)
    # The three cases of the authors' code: comparable, both without variation, only one without.
    if top != 0:
        return top / (bottom + EPS)
    return 1.0 if bottom == 0 else 0.0


def leaves_rest(values: np.ndarray) -> bool:
    """Whether the reference's variance of constant values, (h, w), is not 0 but rounding."""
    mean = np.mean(values)
    return bool(np.sum((values - mean) ** 2) != 0)


# E-measure of a binarised map from its counts: the alignment has four values only.


def alignment(counts: Counts, foreground: int, size: int, as_divided: bool = False) -> Any:
    """Return the E-measure, a number or a curve as the counts are.

    Fan et al., IJCAI 2018, as its authors' code has it: the sum is divided by size - 1, so that a
    perfect map scores a little more than 1. For an empty or full mask it is the share of pixels
    on which map and mask agree. An image of one pixel is divided by 1 or, as_divided, by EPS as
    in PySODMetrics, which makes its score up to 4.5e15.
    """
    called = counts.tp + counts.fp
    free = size - 1 + EPS if size > 1 or as_divided else 1.0
    if foreground == 0:
        return (size - called) / free
    if foreground == size:
        return called / free
    pred_mean, mask_mean = called / size, foreground / size
    # Map and mask are binary, so less their means each has two values: four kinds of pixels, hit,
    # false alarm, miss and rejection, with one alignment each. No pixel has to be looked at again.
    total = 0.0
    for count, pred, mask in (
        (counts.tp, 1 - pred_mean, 1 - mask_mean),
        (counts.fp, 1 - pred_mean, -mask_mean),
        (counts.fn, -pred_mean, 1 - mask_mean),
        (counts.tn, -pred_mean, -mask_mean),
    ):
        # phi is the paper's alignment, -1 to 1, and (phi + 1)^2 / 4 its enhanced form, 0 to 1.
        phi = 2 * (pred * mask) / (pred**2 + mask**2 + EPS)
        total = total + (phi + 1) ** 2 / 4 * count
    return total / free


# Levels: what an 8-bit value is worth after normalisation, and which thresholds a value passes.


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
    # The reference truncates to a level; a value of level v reaches the thresholds 0 to v.
    if grid == "levels":
        return (values * 255).astype(np.uint8).astype(np.int64) + 1
    ascending = matlab_thresholds()[::-1]
    # "right" counts thresholds up to the value, "left" those strictly below it.
    return np.searchsorted(ascending, values, side="left" if above else "right")


def counts_passing(counts: np.ndarray) -> np.ndarray:
    """Turn pixels by thresholds passed, (..., 257), into pixels passing each, (..., 256)."""
    # What passes the n-th highest threshold is what passed n or more of them from below.
    return counts[..., :0:-1].cumsum(-1)
