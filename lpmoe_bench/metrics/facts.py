"""What each metric is: its label, its direction, its definition in one line."""

from __future__ import annotations

from dataclasses import dataclass

from lpmoe_bench.errors import UsageError
from method_zoo._errors import unknown


@dataclass(frozen=True)
class Metric:
    """Facts about a metric. `per_image` is false where only a whole data set has a value."""

    key: str
    label: str
    latex: str
    higher_is_better: bool
    definition: str
    per_image: bool = True


_ALL = (
    Metric(
        "s_measure",
        "S",
        r"$S_\alpha$",
        True,
        "structure measure, alpha 0.5: mean of object and region similarity; an empty quadrant "
        "around the centroid has weight 0",
    ),
    Metric(
        "e_mean",
        "E mean",
        r"$E_\phi^{\mathrm{mean}}$",
        True,
        "enhanced alignment of the thresholded map, mean over the 256 levels",
    ),
    Metric(
        "e_max",
        "E max",
        r"$E_\phi^{\mathrm{max}}$",
        True,
        "enhanced alignment at the level where the data set's mean curve is highest",
        per_image=False,
    ),
    Metric(
        "e_adaptive",
        "E adp",
        r"$E_\phi^{\mathrm{adp}}$",
        True,
        "enhanced alignment at twice the map's mean (at most 1)",
    ),
    Metric(
        "f_mean",
        "F mean",
        r"$F_\beta^{\mathrm{mean}}$",
        True,
        "F-measure of the thresholded map, mean over the 256 levels",
    ),
    Metric(
        "f_max",
        "F max",
        r"$F_\beta^{\mathrm{max}}$",
        True,
        "F-measure at the level where the data set's mean curve is highest",
        per_image=False,
    ),
    Metric(
        "f_adaptive",
        "F adp",
        r"$F_\beta^{\mathrm{adp}}$",
        True,
        "F-measure at twice the map's mean (at most 1)",
    ),
    Metric(
        "weighted_f",
        "wF",
        r"$F_\beta^{w}$",
        True,
        "weighted F-measure, beta^2 1: errors weighted by their distance from the object",
    ),
    Metric("mae", "MAE", "MAE", False, "mean absolute error of the normalised map"),
    Metric(
        "ber",
        "BER@.5",
        "BER@.5",
        False,
        "balanced error rate at 0.5 as a fraction: 1 - (recall + specificity) / 2, per image",
    ),
    Metric("dice", "Dice@.5", "Dice@.5", True, "2 tp / (2 tp + fp + fn) at 0.5, per image"),
    Metric("iou", "IoU@.5", "IoU@.5", True, "tp / (tp + fp + fn) at 0.5, per image"),
)
METRICS = {metric.key: metric for metric in _ALL}


def get_metric(key: str) -> Metric:
    """Return the facts of a metric; raises UsageError for an unknown key."""
    if key not in METRICS:
        raise UsageError(unknown("metric", key, METRICS))
    return METRICS[key]
