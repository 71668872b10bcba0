"""What each metric is: its label, its direction, its definition in one line."""

from __future__ import annotations

from dataclasses import dataclass

from lpmoe_bench.errors import UsageError
from method_zoo.errors import unknown


@dataclass(frozen=True)
class Metric:
    """Facts about a metric. `per_image` is false where only a whole data set has a value.

    unit: of a value that is no fraction; decimals: how many a table prints of it.
    """

    key: str
    label: str
    latex: str
    higher_is_better: bool
    definition: str
    per_image: bool = True
    unit: str = ""
    decimals: int = 3


def _of_data_set(name: str, label: str, higher_is_better: bool, definition: str) -> Metric:
    """A ratio of the pixels of all images counted together, as a fraction."""
    text = f"{definition}, over the pixels of all images together at the binary threshold"
    label = f"{label}/set"
    return Metric(f"{name}_dataset", label, label, higher_is_better, text, per_image=False)


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
    Metric(
        "iou_from65",
        "IoU@.5>=.65",
        r"IoU@.5$_{\geq .65}$",
        True,
        "IoU at 0.5 of an image that reaches 0.65, else 0",
    ),
    Metric(
        "accuracy", "Acc@.5", "Acc@.5", True, "share of pixels that are right at 0.5, per image"
    ),
    Metric("recall", "Recall@.5", "Recall@.5", True, "tp / (tp + fn) at 0.5, per image"),
    Metric("specificity", "Spec@.5", "Spec@.5", True, "tn / (tn + fp) at 0.5, per image"),
    Metric("dice_mean256", "Dice mean256", "mDice", True, "Dice, mean over the 256 levels"),
    Metric("iou_mean256", "IoU mean256", "mIoU", True, "IoU, mean over the 256 levels"),
    Metric(
        "dice_max",
        "Dice max",
        r"Dice$^{\mathrm{max}}$",
        True,
        "Dice at the level where the data set's mean curve is highest",
        per_image=False,
    ),
    Metric(
        "f_mean_pr",
        "F of mean P,R",
        r"$F_\beta(\bar{P}, \bar{R})$",
        True,
        "F-measure of the data set's mean precision and mean recall, at the best of the 256 levels",
        per_image=False,
    ),
    _of_data_set("ber", "BER", False, "balanced error rate"),
    _of_data_set("miss", "Miss", False, "share of object pixels that are missed"),
    _of_data_set("false_alarm", "False alarm", False, "share of background called object"),
    _of_data_set("accuracy", "Acc", True, "share of pixels that are right"),
    _of_data_set("iou", "IoU", True, "tp / (tp + fp + fn)"),
    _of_data_set("dice", "Dice", True, "2 tp / (2 tp + fp + fn)"),
)
METRICS = {metric.key: metric for metric in _ALL}
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
    """Return the facts of a metric; raises UsageError for an unknown or an ambiguous key."""
    if key in METRICS:
        return METRICS[key]
    refuse_ambiguous(key)
    raise UsageError(unknown("metric", key, METRICS))


def refuse_ambiguous(key: str) -> None:
    """Raise UsageError with the names to choose from for what papers write, such as E or mDice."""
    if key in METRICS:
        return
    if meanings := _AMBIGUOUS.get("".join(filter(str.isalnum, key.lower())), "").split():
        if len(meanings) == 1:
            raise UsageError(f"metric '{key}' is called {meanings[0]} here; say that")
        names = ", ".join(meanings)
        raise UsageError(f"metric '{key}' means different things in different papers; say {names}")
