"""What each metric is: its label, its direction, its definition in one line, its formula.

A new metric is one entry of `_ALL`, which a protocol then names, and its case in the oracle,
`reference.py`. Metrics that are off by default are in `extra.py`. Nothing here imports numpy: to
list and to explain metrics takes no time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lpmoe_bench.errors import UsageError


@dataclass(frozen=True)
class Metric:
    """Facts about a metric.

    One of `of_pair`, `of_curves` and `of_counts` computes it.

    Attributes:
        key: its name in records and options.
        label: its name in tables.
        latex: its name in LaTeX.
        higher_is_better: which way is better.
        definition: one line.
        of_pair: from one map beside its mask (`engine.Measured`) and the protocol: a float, or a
            curve over the 256 thresholds, whose value the data set takes where its mean curve is
            highest.
        per_image: false where only a whole data set has a value.
        unit: of a value that is no fraction.
        decimals: how many a table prints of it.
        of_curves: where `of_pair` gives several curves, (n, 256): from their means over all images,
            and the protocol, the data set's value.
        of_counts: from the counts (`formulas.Counts`) of all images together.
    """

    key: str
    label: str
    latex: str
    higher_is_better: bool
    definition: str
    of_pair: Callable[[Any, Any], Any] | None = None
    per_image: bool = True
    unit: str = ""
    decimals: int = 3
    of_curves: Callable[[Any, Any], float] | None = None
    of_counts: Callable[[Any], Any] | None = None

    @property
    def arrow(self) -> str:
        """Return which way is better, as heads of tables show it."""
        return "↑" if self.higher_is_better else "↓"


def _of_data_set(
    name: str, label: str, higher: bool, definition: str, ratio: Callable[[Any], Any]
) -> Metric:
    """A ratio of the pixels of all images counted together, as a fraction."""
    text = f"{definition}, over the pixels of all images together at the binary threshold"
    label = f"{label}/set"
    key = f"{name}_dataset"
    return Metric(key, label, label, higher, text, per_image=False, of_counts=ratio)


def _best_f(curves: Any, protocol: Any) -> float:
    from lpmoe_bench.metrics.formulas import f_measure

    precision, recall = curves
    return float(f_measure(precision, recall, protocol.f_beta2).max())


_ALL = (
    Metric(
        "s_measure",
        "S",
        r"$S_\alpha$",
        True,
        "structure measure, alpha 0.5: mean of object and region similarity; an empty quadrant "
        "around the centroid has weight 0",
        lambda pair, _: pair.s_measure,
    ),
    Metric(
        "e_mean",
        "E mean",
        r"$E_\phi^{\mathrm{mean}}$",
        True,
        "enhanced alignment of the thresholded map, mean over the 256 levels",
        lambda pair, _: float(pair.e_curve.mean()),
    ),
    Metric(
        "e_max",
        "E max",
        r"$E_\phi^{\mathrm{max}}$",
        True,
        "enhanced alignment at the level where the data set's mean curve is highest",
        lambda pair, _: pair.e_curve,
        per_image=False,
    ),
    Metric(
        "e_adaptive",
        "E adp",
        r"$E_\phi^{\mathrm{adp}}$",
        True,
        "enhanced alignment at twice the map's mean (at most 1)",
        lambda pair, _: pair.e_adaptive,
    ),
    Metric(
        "f_mean",
        "F mean",
        r"$F_\beta^{\mathrm{mean}}$",
        True,
        "F-measure of the thresholded map, mean over the 256 levels",
        lambda pair, protocol: float(pair.curve.f(protocol.f_beta2).mean()),
    ),
    Metric(
        "f_max",
        "F max",
        r"$F_\beta^{\mathrm{max}}$",
        True,
        "F-measure at the level where the data set's mean curve is highest",
        lambda pair, protocol: pair.curve.f(protocol.f_beta2),
        per_image=False,
    ),
    Metric(
        "f_adaptive",
        "F adp",
        r"$F_\beta^{\mathrm{adp}}$",
        True,
        "F-measure at twice the map's mean (at most 1)",
        lambda pair, protocol: pair.adaptive.f(protocol.f_beta2),
    ),
    Metric(
        "weighted_f",
        "wF",
        r"$F_\beta^{w}$",
        True,
        "weighted F-measure, beta^2 1: errors weighted by their distance from the object",
        lambda pair, _: pair.weighted_f,
    ),
    Metric(
        "mae",
        "MAE",
        "MAE",
        False,
        "mean absolute error of the normalised map",
        lambda pair, _: pair.mae,
    ),
    Metric(
        "ber",
        "BER@.5",
        "BER@.5",
        False,
        "balanced error rate at 0.5 as a fraction: 1 - (recall + specificity) / 2, per image",
        lambda pair, _: pair.binary.ber,
    ),
    Metric(
        "dice",
        "Dice@.5",
        "Dice@.5",
        True,
        "2 tp / (2 tp + fp + fn) at 0.5, per image",
        lambda pair, _: pair.binary.dice,
    ),
    Metric(
        "iou",
        "IoU@.5",
        "IoU@.5",
        True,
        "tp / (tp + fp + fn) at 0.5, per image",
        lambda pair, _: pair.binary.iou,
    ),
    Metric(
        "iou_from65",
        "IoU@.5>=.65",
        r"IoU@.5$_{\geq .65}$",
        True,
        "IoU at 0.5 of an image that reaches 0.65, else 0",
        lambda pair, _: pair.binary.iou if pair.binary.iou >= 0.65 else 0.0,
    ),
    Metric(
        "accuracy",
        "Acc@.5",
        "Acc@.5",
        True,
        "share of pixels that are right at 0.5, per image",
        lambda pair, _: pair.binary.accuracy,
    ),
    Metric(
        "recall",
        "Recall@.5",
        "Recall@.5",
        True,
        "tp / (tp + fn) at 0.5, per image",
        lambda pair, _: pair.binary.recall,
    ),
    Metric(
        "specificity",
        "Spec@.5",
        "Spec@.5",
        True,
        "tn / (tn + fp) at 0.5, per image",
        lambda pair, _: pair.binary.specificity,
    ),
    Metric(
        "dice_mean256",
        "Dice mean256",
        "mDice",
        True,
        "Dice, mean over the 256 levels",
        lambda pair, _: float(pair.curve.dice.mean()),
    ),
    Metric(
        "iou_mean256",
        "IoU mean256",
        "mIoU",
        True,
        "IoU, mean over the 256 levels",
        lambda pair, _: float(pair.curve.iou.mean()),
    ),
    Metric(
        "dice_max",
        "Dice max",
        r"Dice$^{\mathrm{max}}$",
        True,
        "Dice at the level where the data set's mean curve is highest",
        lambda pair, _: pair.curve.dice,
        per_image=False,
    ),
    Metric(
        "f_mean_pr",
        "F of mean P,R",
        r"$F_\beta(\bar{P}, \bar{R})$",
        True,
        "F-measure of the data set's mean precision and mean recall, at the best of the 256 levels",
        lambda pair, _: pair.precision_recall,
        per_image=False,
        of_curves=_best_f,
    ),
    _of_data_set("ber", "BER", False, "balanced error rate", lambda counts: counts.ber),
    _of_data_set(
        "miss",
        "Miss",
        False,
        "share of object pixels that are missed",
        lambda counts: 1 - counts.recall,
    ),
    _of_data_set(
        "false_alarm",
        "False alarm",
        False,
        "share of background called object",
        lambda counts: 1 - counts.specificity,
    ),
    _of_data_set(
        "accuracy", "Acc", True, "share of pixels that are right", lambda counts: counts.accuracy
    ),
    _of_data_set("iou", "IoU", True, "tp / (tp + fp + fn)", lambda counts: counts.iou),
    _of_data_set("dice", "Dice", True, "2 tp / (2 tp + fp + fn)", lambda counts: counts.dice),
)
METRICS = {metric.key: metric for metric in _ALL}
OF_COUNTS = {key: metric.of_counts for key, metric in METRICS.items() if metric.of_counts}
_E = "e_mean e_max e_adaptive"
_F = "f_mean f_max f_adaptive f_mean_pr weighted_f"
_DICE = "dice dice_mean256 dice_max dice_dataset"
_IOU = "iou iou_mean256 iou_dataset iou_from65"
# What papers write, by the letters alone; `dice`, `iou` and `ber` as such are keys.
_AMBIGUOUS = {
    **dict.fromkeys(("e", "em", "ephi", "emeasure"), _E),
    "meane": "e_mean",
    "maxe": "e_max",
    "adpe": "e_adaptive",
    **dict.fromkeys(("f", "fm", "fbeta", "fmeasure"), _F),
    "maxf": "f_max f_mean_pr",
    "meanf": "f_mean",
    "avgf": "f_mean f_adaptive",
    "adpf": "f_adaptive",
    **dict.fromkeys(("dice", "mdice", "meandice", "dsc"), _DICE),
    **dict.fromkeys(("iou", "miou", "meaniou", "jaccard", "jac"), _IOU),
    "ber": "ber ber_dataset",
    **dict.fromkeys(("acc", "accuracy"), "accuracy accuracy_dataset"),
}


def get_metric(key: str) -> Metric:
    """Return the facts of a metric of the protocols.

    Args:
        key: such as "s_measure".

    Raises:
        UsageError: The key is unknown, or means different things in different papers.
    """
    if key in METRICS:
        return METRICS[key]
    refuse_ambiguous(key)
    raise UsageError.unknown("metric", key, METRICS)


def refuse_ambiguous(key: str) -> None:
    """Raise UsageError with the names to choose from for what papers write, such as E or mDice."""
    if key in METRICS:
        return
    if meanings := _AMBIGUOUS.get("".join(filter(str.isalnum, key.lower())), "").split():
        if len(meanings) == 1:
            raise UsageError(f"metric '{key}' is called {meanings[0]} here; say that")
        names = ", ".join(meanings)
        raise UsageError(f"metric '{key}' means different things in different papers; say {names}")
