"""What each metric is: its label, its direction, its definition in one line, its formula.

A new metric is one entry of `_ALL`, which a protocol then names, and its case in the oracle,
`reference.py`. Metrics that are off by default are in `extra.py`. Nothing here imports numpy: to
list and to explain metrics takes no time.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lpmoe_bench.errors import UsageError

MOST_UNITS = 1e9  # pixels or points: more than any image has
# What begins so rests on overlap alone: with neither object nor map it is 0 over 0.
BY_CONVENTION = ("f_", "weighted_f", "dice", "iou", "recall", "precision", "ber")


class Margin(NamedTuple):
    """Up to which difference two scores are called equal: in units of the score, or if `relative`
    a share of the score that is compared with."""

    value: float
    relative: bool = False

    def of(self, reference: float) -> float:
        """Return the margin beside a reference's score, in units of the score."""
        return self.value * abs(reference) if self.relative else self.value

    def __str__(self) -> str:
        return f"{100 * self.value:g} %" if self.relative else f"{self.value:g}"


class Precision(NamedTuple):
    """Which average precision: of the overlap of boxes or masks, of which objects, at which IoU.

    column: of per_image.csv. area: 0 for all objects, 1 to 3 for small, medium and large ones.
    iou: the place of one overlap among .50, .55 to .95; None for the mean of all ten.
    """

    column: str
    area: int = 0
    iou: int | None = None


@dataclass(frozen=True)
class Metric:
    """Facts about a metric.

    One of `of_pair`, `of_curves`, `of_counts`, `of_classes`, `of_objects` and `of_segments` says
    how it comes about; one that rests on a single image's objects alone has none of them.

    Attributes:
        key: its name in records and options.
        label: its name in tables.
        latex: its name in LaTeX; empty where the label will do.
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
        of_classes: from the pixels of each class (`classes.ClassCounts`) of all images together;
            of a metric of single classes, such as iou/sky, the values of all of them.
        of_objects: which average precision it is.
        of_segments: from the segments of each class (`panoptic.SegmentCounts`) of all images
            together; of a metric of single classes the values of all of them.
        own_margin: up to which difference two scores are called equal, where `margin` does not fit.
        own_limits: the least and the greatest value there can be, where `limits` does not fit.
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
    of_classes: Callable[[Any], Any] | None = None
    of_objects: Precision | None = None
    of_segments: Callable[[Any], Any] | None = None
    own_margin: Margin | None = None
    own_limits: tuple[float, float] | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """Return the least and the greatest value that an image or a data set can have."""
        return self.own_limits or ((0.0, MOST_UNITS) if self.unit else (0.0, 1.0))

    @property
    def margin(self) -> Margin:
        """Return up to which difference two scores are called equal.

        Errors lie near 0, where a fixed margin would call methods equal that differ by a fifth:
        theirs is a share of the score.
        """
        return self.own_margin or (Margin(0.005) if self.higher_is_better else Margin(0.05, True))

    @property
    def by_convention(self) -> bool:
        """Whether a protocol says what it counts where neither mask nor map has an object."""
        pooled = self.of_counts or self.of_classes
        return self.key.startswith(BY_CONVENTION) and not (pooled or "class" in self.key)

    @property
    def arrow(self) -> str:
        """Return which way is better, as heads of tables show it."""
        return "↑" if self.higher_is_better else "↓"


OfPair = Callable[[Any, Any], Any]  # of a map beside its mask, and the protocol
BEST_LEVEL = "at the level where the data set's mean curve is highest"


def _at_thresholds(
    key: str, symbol: str, text: str, curve: OfPair, adaptive: OfPair
) -> tuple[Metric, ...]:
    """What papers print of a score that depends on a threshold: mean, maximum, adaptive."""

    def one(end: str, short: str, where: str, of_pair: OfPair, per_image: bool = True) -> Metric:
        label, latex = f"{key.upper()} {short}", f"${symbol}^{{\\mathrm{{{short}}}}}$"
        # E is a sum over pixels, divided by their number less one: 4/3 where there are four.
        limits = (0.0, 2.0) if key == "e" else None
        return Metric(
            *(f"{key}_{end}", label, latex, True, f"{text} {where}", of_pair, per_image),
            own_limits=limits,
        )

    def mean(pair: Any, protocol: Any) -> float:
        return float(curve(pair, protocol).mean())

    return (
        one("mean", "mean", "of the thresholded map, mean over the 256 levels", mean),
        one("max", "max", BEST_LEVEL, curve, per_image=False),
        one("adaptive", "adp", "at twice the map's mean (at most 1)", adaptive),
    )


def _at_half(
    key: str, label: str, higher: bool, definition: str, limits: tuple[float, float] | None = None
) -> Metric:
    """A ratio of one image's pixels, its map cut at 0.5: an attribute of `formulas.Counts`."""
    label = f"{label}@.5"
    return Metric(
        *(key, label, label, higher, definition),
        of_pair=lambda pair, _: getattr(pair.binary, key),
        own_limits=limits,
    )


def _mean256(key: str, label: str) -> Metric:
    """The mean over all levels of an overlap: what PraNet's code calls mDice and mIoU."""

    def mean(pair: Any, protocol: Any) -> float:
        return float(getattr(pair.curve, key).mean())

    text = f"{label}, mean over the 256 levels"
    return Metric(f"{key}_mean256", f"{label} mean256", f"m{label}", True, text, mean)


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


def _best_counts(pair: Any, _: Any) -> Any:
    """Return tp, fp and fn at an image's own best threshold, for each of the 256 levels."""
    curve = pair.curve
    best = int(curve.dice.argmax())
    return [[float(one[best])] * 256 for one in (curve.tp, curve.fp, curve.fn)]


def _f1_of_counts(curves: Any, _: Any) -> float:
    tp, fp, fn = curves
    called = 2 * tp + fp + fn
    return float((2 * tp[called > 0] / called[called > 0]).max(initial=0.0))


def _of_class(stem: str, name: str) -> Metric:
    """A score of one class, such as "iou" or "pq" of the class of that name."""
    what, label, source = _OF_CLASS[stem]
    text = what.format(f"class {name}")
    # Without LaTeX of its own: tables write the label so that any name is safe in it.
    return Metric(f"{stem}/{name}", f"{label} {name}", "", True, text, None, False, **source)


def _over_classes(
    key: str, label: str, latex: str, definition: str, ratio: Callable[[Any], Any]
) -> Metric:
    """A score of label maps over all classes."""
    text = f"{definition}, over the pixels of all images together"
    return Metric(key, label, latex, True, text, None, False, of_classes=ratio)


def _average_precision(part: str) -> tuple[Metric, ...]:
    """COCO's average precisions of boxes or of masks: over ten overlaps, at two, by area."""
    before, letter = {"boxes": ("box", "b"), "masks": ("mask", "m")}[part]
    of_all = f"of {part}, mean over classes"

    def one(end: str, short: str, text: str, area: int = 0, iou: int | None = None) -> Metric:
        latex = rf"AP$^{{\mathrm{{{letter}}}}}" + (f"_{{{short}}}$" if short else "$")
        key, label = f"{before}_ap{end}", f"AP{short} {before}"
        which = Precision(part, area, iou)
        return Metric(key, label, latex, True, text, per_image=False, of_objects=which)

    ten = f"average precision {of_all}, mean over the overlaps .50, .55 to .95"
    return (
        one("", "", ten),
        one("50", "50", f"average precision {of_all}, at an overlap of .50", iou=0),
        one("75", "75", f"average precision {of_all}, at an overlap of .75", iou=5),
        one("_small", "s", f"{ten}, of objects of up to 32 x 32 pixels", 1),
        one("_medium", "m", f"{ten}, of objects of 32 x 32 to 96 x 96 pixels", 2),
        one("_large", "l", f"{ten}, of objects of at least 96 x 96 pixels", 3),
    )


def _panoptic(which: str, letter: str, place: int | None) -> tuple[Metric, ...]:
    """Panoptic quality and its two factors: of all classes, of things or of stuff."""
    of = f" of {which}" if which else ""
    what = f"mean over the classes{of} that truth or maps have"
    names = (
        ("pq", "PQ", "panoptic quality: IoU of matched segments / (tp + fp / 2 + fn / 2)"),
        ("sq", "SQ", "segmentation quality: mean IoU of matched segments"),
        ("rq", "RQ", "recognition quality: tp / (tp + fp / 2 + fn / 2), of segments"),
    )
    end = f"_{which}" if which else ""

    def ratio(stem: str) -> Callable[[Any], Any]:
        return lambda segments: segments.mean(stem, place)

    return tuple(
        Metric(
            *(f"{stem}{end}", f"{label}{letter}"),
            rf"{label}$^{{\mathrm{{{letter}}}}}$" if letter else label,
            *(True, f"{text}, {what}"),
            per_image=False,
            of_segments=ratio(stem),
        )
        for stem, label, text in names
    )


def _dsb(key: str, label: str, where: str) -> Metric:
    text = f"tp / (tp + fp + fn) of the objects of an image, {where}; mean over images"
    return Metric(key, label, label, True, text)


_POOLED = ", over the pixels of all images together"
_OF_CLASS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "iou": (
        "IoU of {}: right pixels among those that truth or map give it" + _POOLED,
        "IoU",
        {"of_classes": lambda c: c.iou},
    ),
    "acc": (
        "accuracy of {}: right pixels among those that are of it" + _POOLED,
        "Acc",
        {"of_classes": lambda c: c.acc},
    ),
    "box_ap": (
        "average precision of the boxes of {}, mean over the overlaps .50, .55 to .95",
        "AP box",
        {"of_objects": Precision("boxes")},
    ),
    "mask_ap": (
        "average precision of the masks of {}, mean over the overlaps .50, .55 to .95",
        "AP mask",
        {"of_objects": Precision("masks")},
    ),
    "pq": (
        "panoptic quality of {}: IoU of matched segments / (tp + fp / 2 + fn / 2)",
        "PQ",
        {"of_segments": lambda s: s.pq},
    ),
}
CLASS_STEMS = tuple(_OF_CLASS)
NAME = "NAME"  # stands for the name of a class
_CLASSES = "of object and background, their mean"

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
    *_at_thresholds(
        "e",
        r"E_\phi",
        "enhanced alignment",
        lambda pair, _: pair.e_curve,
        lambda pair, _: pair.e_adaptive,
    ),
    *_at_thresholds(
        "f",
        r"F_\beta",
        "F-measure",
        lambda pair, protocol: pair.curve.f(protocol.f_beta2),
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
    _at_half(
        "ber",
        "BER",
        False,
        "balanced error rate at 0.5 as a fraction: 1 - (recall + specificity) / 2, per image",
    ),
    _at_half("dice", "Dice", True, "2 tp / (2 tp + fp + fn) at 0.5, per image"),
    _at_half("iou", "IoU", True, "tp / (tp + fp + fn) at 0.5, per image"),
    Metric(
        "iou_from65",
        "IoU@.5>=.65",
        r"IoU@.5$_{\geq .65}$",
        True,
        "IoU at 0.5 of an image that reaches 0.65, else 0",
        lambda pair, _: pair.binary.iou if pair.binary.iou >= 0.65 else 0.0,
    ),
    _at_half("accuracy", "Acc", True, "share of pixels that are right at 0.5, per image"),
    _at_half("recall", "Recall", True, "tp / (tp + fn) at 0.5, per image"),
    _at_half("specificity", "Spec", True, "tn / (tn + fp) at 0.5, per image"),
    _at_half("precision", "Precision", True, "tp / (tp + fp) at 0.5, per image"),
    _at_half("mcc", "MCC", True, "Matthews' correlation coefficient at 0.5, per image", (-1, 1)),
    _at_half("kappa", "Kappa", True, "Cohen's kappa of map and mask at 0.5, per image", (-1, 1)),
    _at_half("iou_classes", "IoU 2 classes", True, f"IoU {_CLASSES} at 0.5, per image"),
    _at_half("dice_classes", "Dice 2 classes", True, f"Dice {_CLASSES} at 0.5, per image"),
    _mean256("dice", "Dice"),
    _mean256("iou", "IoU"),
    Metric(
        "dice_max",
        "Dice max",
        r"Dice$^{\mathrm{max}}$",
        True,
        f"Dice {BEST_LEVEL}",
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
    Metric(
        "ods",
        "ODS",
        "ODS",
        True,
        "F-measure, beta^2 1, of the pixels of all images together, at the one of the 256 levels "
        "that is best for the data set; pixels match in place, without a tolerance",
        lambda pair, _: [pair.curve.tp, pair.curve.fp, pair.curve.fn],
        per_image=False,
        of_curves=_f1_of_counts,
    ),
    Metric(
        "ois",
        "OIS",
        "OIS",
        True,
        "F-measure, beta^2 1, of each image at the level that is best for it, mean over images, as "
        "papers on cracks have it",
        lambda pair, _: float(pair.curve.dice.max()),
    ),
    Metric(
        "ois_counts",
        "OIS/set",
        "OIS/set",
        True,
        "F-measure, beta^2 1, of the pixels of all images together, each at the level that is best "
        "for it, as BSDS has it but without a tolerance of place",
        _best_counts,
        per_image=False,
        of_curves=_f1_of_counts,
    ),
    # Of all pixels together, not a mean over images: a large object counts more than a small one.
    _of_data_set("ber", "BER", False, "balanced error rate", lambda c: c.ber),
    _of_data_set(
        "miss", "Miss", False, "share of object pixels that are missed", lambda c: 1 - c.recall
    ),
    _of_data_set(
        "false_alarm",
        "False alarm",
        False,
        "share of background called object",
        lambda c: 1 - c.specificity,
    ),
    _of_data_set("accuracy", "Acc", True, "share of pixels that are right", lambda c: c.accuracy),
    _of_data_set("iou", "IoU", True, "tp / (tp + fp + fn)", lambda c: c.iou),
    _of_data_set("dice", "Dice", True, "2 tp / (2 tp + fp + fn)", lambda c: c.dice),
    _of_data_set("iou_classes", "IoU 2 classes", True, f"IoU {_CLASSES}", lambda c: c.iou_classes),
    _of_data_set(
        "dice_classes", "Dice 2 classes", True, f"Dice {_CLASSES}", lambda c: c.dice_classes
    ),
    # Of label maps, from the confusion of all images together.
    _over_classes(
        "mean_iou",
        "mIoU",
        "mIoU",
        "mean of the IoU of classes, absent ones as the protocol says",
        lambda c: c.mean_iou,
    ),
    _over_classes(
        "mean_acc",
        "mAcc",
        "mAcc",
        "mean over the classes of the truth of the share of their pixels that is right",
        lambda c: c.mean_acc,
    ),
    _over_classes("pixel_acc", "aAcc", "aAcc", "share of pixels that are right", lambda c: c.right),
    _over_classes(
        "fw_iou",
        "FWIoU",
        "FWIoU",
        "IoU of classes, each by its share of the labelled pixels",
        lambda c: c.fw_iou,
    ),
    # Of objects, from the hits of the detections of all images.
    *_average_precision("boxes"),
    *_average_precision("masks"),
    # Of segments, from the counts of all images.
    *_panoptic("", "", None),
    *_panoptic("things", "th", 0),
    *_panoptic("stuff", "st", 1),
    # Of the objects of single images.
    _dsb("dsb_score", "DSB", "mean over the overlaps .50, .55 to .95"),
    _dsb("dsb_50", "DSB50", "at an overlap above .50"),
    _dsb("dsb_75", "DSB75", "at an overlap above .75"),
    *(_of_class(stem, NAME) for stem in _OF_CLASS),
)


class MetricTable(dict[str, Metric]):
    """Facts of metrics by key; those of one class, such as iou/sky, come when they are asked for.

    Walked over, it has iou/NAME and the like in their place.
    """

    def __missing__(self, key: str) -> Metric:
        stem, _, name = key.partition("/")
        if stem not in _OF_CLASS or not name:
            raise KeyError(key)
        return _of_class(stem, name)

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, key) or (isinstance(key, str) and is_of_class(key))

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default


def is_of_class(key: str) -> bool:
    """Whether a key is that of a score of one class, such as iou/NAME or pq/NAME."""
    stem, _, name = key.partition("/")
    return stem in _OF_CLASS and bool(name)


METRICS = MetricTable((metric.key, metric) for metric in _ALL)
OF_COUNTS = {key: metric.of_counts for key, metric in METRICS.items() if metric.of_counts}
_E = "e_mean e_max e_adaptive"
_F = "f_mean f_max f_adaptive f_mean_pr weighted_f"
_DICE = "dice dice_mean256 dice_max dice_dataset dice_classes dice_classes_dataset"
_IOU = "iou iou_mean256 iou_dataset iou_from65 iou_classes iou_classes_dataset mean_iou iou/NAME"
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
    **dict.fromkeys(("acc", "accuracy"), "accuracy accuracy_dataset pixel_acc mean_acc acc/NAME"),
    **dict.fromkeys(("macc", "meanaccuracy"), "mean_acc"),
    **dict.fromkeys(("aacc", "pixelaccuracy", "pixacc"), "pixel_acc"),
    # Of objects; `ap` as such is an extra metric of binary maps.
    **dict.fromkeys(("map", "meanap"), "box_ap mask_ap box_ap50 mask_ap50 ap"),
    **dict.fromkeys(("ap50", "map50"), "box_ap50 mask_ap50"),
    **dict.fromkeys(("ap75", "map75"), "box_ap75 mask_ap75"),
    **dict.fromkeys(("apb", "apbox", "apbb"), "box_ap"),
    **dict.fromkeys(("apmask", "apsegm"), "mask_ap"),
    "apm": "mask_ap box_ap_medium mask_ap_medium",
    "aps": "box_ap_small mask_ap_small",
    "apl": "box_ap_large mask_ap_large",
    **dict.fromkeys(("pq", "panopticquality"), "pq"),
    "pqth": "pq_things",
    "pqst": "pq_stuff",
    **dict.fromkeys(("fwiou", "frequencyweightediou"), "fw_iou"),
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


class Margins(NamedTuple):
    """The margins of a comparison: of single metrics, else one for all, else each metric's own."""

    of_all: Margin | None = None
    of_each: Mapping[str, Margin] = {}

    def of(self, key: str) -> Margin:
        """Return the margin of a metric."""
        usual = METRICS[key].margin if key in METRICS else Margin(0.0)
        return self.of_each.get(key, self.of_all or usual)


def parse_margins(given: float | str | Iterable[str] | None) -> Margins:
    """Read margins as `--margin` takes them.

    Args:
        given: a number in units of the score, a share such as "5%", either for one metric as
            "mae=5%", several of these, or nothing for each metric's own.

    Raises:
        UsageError: a text is none of these, or a margin is not from 0 to 1.
    """
    parts = [str(given)] if isinstance(given, float | int | str) else list(given or ())
    of_all, of_each = None, {}
    for part in (piece.strip() for text in parts for piece in text.split(",")):
        key, equals, text = part.rpartition("=")
        try:
            value = float(text.removesuffix("%"))
        except ValueError:
            value = math.nan
        margin = Margin(value / 100, True) if text.endswith("%") else Margin(value)
        if not 0 <= margin.value <= 1:
            raise UsageError(
                f"margin got '{part}'; give a number from 0 to 1, a share such as 5%, or one "
                f"for a metric, such as mae=5%"
            )
        if equals:
            of_each[get_metric(key).key] = margin
        elif of_all is not None:
            raise UsageError(
                f"margin is given twice for all metrics, {of_all} and {margin}; drop one"
            )
        else:
            of_all = margin
    return Margins(of_all, of_each)
