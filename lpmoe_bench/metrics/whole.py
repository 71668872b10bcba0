"""Scores that a data set has but its images have not: of counts and curves of all images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .engine import PairScores
from .overlap import Counts, f_measure, sum_counts
from .protocol import Protocol

OF_COUNTS: dict[str, Callable[[Counts], float]] = {
    "ber_dataset": lambda counts: counts.ber,
    "miss_dataset": lambda counts: 1 - counts.recall,
    "false_alarm_dataset": lambda counts: 1 - counts.specificity,
    "accuracy_dataset": lambda counts: counts.accuracy,
    "iou_dataset": lambda counts: counts.iou,
    "dice_dataset": lambda counts: counts.dice,
}


def whole_scores(pairs: Sequence[PairScores], protocol: Protocol) -> dict[str, float]:
    """Return those of the protocol's metrics that are no mean over images; pairs: not empty."""
    counts = sum_counts([pair.counts for pair in pairs])
    found = {key: OF_COUNTS[key](counts) for key in protocol.metrics if key in OF_COUNTS}
    if "f_mean_pr" in protocol.metrics:
        stacked = np.stack([np.asarray(pair.values["f_mean_pr"]) for pair in pairs])
        precision, recall = (mean_curve(stacked[:, i]) for i in range(2))
        found["f_mean_pr"] = float(np.max(f_measure(precision, recall, protocol.f_beta2)))
    return found


def mean_curve(curves: Any) -> np.ndarray:
    """Return the mean of curves, (n, 256), over n; each level is summed exactly, then rounded."""
    columns = np.asarray(curves).T.tolist()
    return np.array([math.fsum(column) / len(column) for column in columns])
