"""E-measure of a binarised map from its counts: the alignment has four values only."""

from __future__ import annotations

from typing import Any

from .overlap import Counts
from .structure import EPS


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
    total = 0.0
    for count, pred, mask in (
        (counts.tp, 1 - pred_mean, 1 - mask_mean),
        (counts.fp, 1 - pred_mean, -mask_mean),
        (counts.fn, -pred_mean, 1 - mask_mean),
        (counts.tn, -pred_mean, -mask_mean),
    ):
        phi = 2 * (pred * mask) / (pred**2 + mask**2 + EPS)
        total = total + (phi + 1) ** 2 / 4 * count
    return total / free
