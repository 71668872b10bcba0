"""Overlap scores of a binarised map from its four counts, single numbers or whole curves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


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
