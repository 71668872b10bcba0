"""The protocols: what the papers of each task print, and exactly how it comes about."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.base import ScoringRules
from lpmoe_bench.metrics.classes import CLASS_PROTOCOLS
from lpmoe_bench.metrics.extra import Extra, get_extra, known_metrics
from lpmoe_bench.metrics.facts import Metric, get_metric
from lpmoe_bench.metrics.objects import OBJECT_PROTOCOLS
from lpmoe_bench.metrics.panoptic import PANOPTIC_PROTOCOLS

Resize = Literal["bilinear to mask", "bicubic to mask", "nearest to mask"]
EmptyMasks = Literal["skip", "score", "zero", "one"]
# How an image without an object counts, by name; the first two as `--vary` has always had them.
EMPTY_MASKS: dict[EmptyMasks, str] = {
    "score": "with empty masks",
    "skip": "without empty masks",
    "zero": "empty masks count 0",
    "one": "empty masks count 1 where the map is empty",
}

# Protocol: a named, versioned, hashed set of rules that turns maps into scores.


@dataclass(frozen=True)
class Protocol(ScoringRules):
    """Everything that decides a score of binary maps, besides the maps themselves."""

    kind: ClassVar[str] = "binary"  # no field, which would be hashed
    of_class: ClassVar[tuple[str, ...]] = ()
    name: str
    version: int
    title: str
    source: str
    normalisation: Literal["minmax", "none"]
    resize: Resize
    quantisation: Literal["uint8 half up"]
    mask_threshold: int  # of 0..255; foreground lies strictly above
    thresholds: Literal[
        "256 levels, at least", "MATLAB grid, at least", "MATLAB grid, at least; E above"
    ]
    binary_threshold: float  # of the normalised map; foreground lies strictly above
    f_beta2: float
    aggregation: Literal["image mean, maxima of the mean curve", "counts of the data set"]
    empty_masks: EmptyMasks
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    primary: str
    percent: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def counts_mask(self, foreground: int) -> bool:
        """Whether an image whose mask has that many object pixels counts."""
        return foreground > 0 or self.empty_masks != "skip"

    def explain(self) -> list[tuple[str, str]]:
        """Return (field, sentences) that tell all of it, each of its metrics included."""
        return _sentences(self)

    def family(self, key: str) -> str:
        return key.partition("_")[0]

    def ways(self) -> list[ScoringRules]:
        stretched = self.normalisation == "minmax"
        changes: list[tuple[str, dict[str, Any]]] = [
            (
                "not stretched" if stretched else "stretched",
                {"normalisation": "none" if stretched else "minmax"},
            ),
            *((words, {"empty_masks": way}) for way, words in EMPTY_MASKS.items()),
            *((f"resized {how.split()[0]}", {"resize": how}) for how in get_args(Resize)),
        ]
        return [
            *(one for name, one in MAP_PROTOCOLS.items() if name != self.name),
            *(
                replace(self, name=f"{self.name} ({words})", extra=(), **change)
                for words, change in changes
                if any(getattr(self, field) != value for field, value in change.items())
            ),
        ]


COD = Protocol(
    name="cod",
    version=1,
    title="Camouflaged object detection",
    source="CODToolbox as PySODMetrics 1.6.2 computes it; images with an object, mean E as in "
    "SINet-V2 and most papers since 2021",
    normalisation="minmax",
    resize="bilinear to mask",
    quantisation="uint8 half up",
    mask_threshold=128,
    thresholds="256 levels, at least",
    binary_threshold=0.5,
    f_beta2=0.3,
    aggregation="image mean, maxima of the mean curve",
    empty_masks="skip",
    metrics=(
        *("s_measure", "e_mean", "e_max", "e_adaptive", "f_mean", "f_max", "f_adaptive"),
        *("weighted_f", "mae", "ber", "dice", "iou"),
    ),
    headline=("s_measure", "e_mean", "weighted_f", "mae"),
    primary="s_measure",
)
COD_MATLAB = replace(
    COD,
    name="cod_matlab",
    title="Camouflaged object detection, thresholds as in MATLAB",
    source="CODToolbox: E above and F at least at MATLAB's symmetric grid 1:-1/255:0; maps are "
    "resized bilinearly here and not by imresize",
    thresholds="MATLAB grid, at least; E above",
)
SOD = replace(
    COD,
    name="sod",
    title="Salient object detection",
    source="PySODMetrics 1.6.2; F max is the maximum of the mean curve, images with an object",
    headline=("s_measure", "e_mean", "f_max", "weighted_f", "mae"),
)
POLYP_PRANET = replace(
    COD,
    name="polyp_pranet",
    title="Polyp segmentation, PraNet's evaluation",
    source="PraNet's MATLAB toolbox: mDice and mIoU are means over 256 thresholds of the image "
    "means, all at least at MATLAB's grid; F with beta^2 1",
    thresholds="MATLAB grid, at least",
    f_beta2=1.0,
    metrics=(
        *("dice_mean256", "iou_mean256", "dice_max", "weighted_f", "s_measure", "e_mean"),
        *("e_max", "e_adaptive", "f_mean", "f_max", "mae", "dice", "iou"),
    ),
    headline=("dice_mean256", "iou_mean256", "weighted_f", "s_measure", "e_max", "mae"),
    primary="dice_mean256",
)
SHADOW_SBU = replace(
    COD,
    name="shadow_sbu",
    title="Shadow detection, error rates of the data set",
    source="Stony Brook's ComputeBERonSet: map and mask above 125 of 255, no stretching, pixels "
    "counted over all images",
    normalisation="none",
    mask_threshold=125,
    binary_threshold=125 / 255,
    aggregation="counts of the data set",
    empty_masks="score",
    metrics=("ber_dataset", "miss_dataset", "false_alarm_dataset", "accuracy_dataset"),
    headline=("ber_dataset", "miss_dataset", "false_alarm_dataset"),
    primary="ber_dataset",
    percent=("ber_dataset", "miss_dataset", "false_alarm_dataset"),
)
SHADOW_PER_IMAGE = replace(
    SHADOW_SBU,
    name="shadow_per_image",
    title="Shadow detection, balanced error rate of each image",
    source="Conv-LoRA and SAM-Adapter: map and mask above 125 of 255, no stretching, the mean of "
    "the images' rates; images with shadow",
    aggregation="image mean, maxima of the mean curve",
    empty_masks="skip",
    metrics=("ber", "accuracy", "iou", "mae"),
    headline=("ber",),
    primary="ber",
    percent=("ber",),
)
GLASS = replace(
    COD,
    name="glass",
    title="Glass and mirror segmentation",
    source="code of GDNet and MirrorNet: no stretching, map at least half, means over images; F is "
    "the best of mean precision and mean recall",
    normalisation="none",
    metrics=("iou", "accuracy", "f_mean_pr", "mae", "ber", "iou_dataset", "ber_dataset"),
    headline=("iou", "accuracy", "f_mean_pr", "mae", "ber"),
    primary="iou",
    percent=("iou", "ber", "iou_dataset", "ber_dataset"),
)
SKIN_ISIC2017 = replace(
    COD,
    name="skin_isic2017",
    title="Skin lesions, ISIC 2017",
    source="ISIC 2017 part 1: map at least half, no stretching, means over images, ranked by "
    "Jaccard",
    normalisation="none",
    metrics=("iou", "dice", "accuracy", "recall", "specificity"),
    headline=("iou", "dice", "accuracy", "recall", "specificity"),
    primary="iou",
)
SKIN_ISIC2018 = replace(
    SKIN_ISIC2017,
    name="skin_isic2018",
    title="Skin lesions, ISIC 2018",
    source="ISIC 2018 task 1: as in 2017, but an image's Jaccard below 0.65 counts 0",
    metrics=("iou_from65", "iou", "dice", "accuracy", "recall", "specificity"),
    headline=("iou_from65", "iou", "dice"),
    primary="iou_from65",
)
CONV_LORA = replace(
    COD,
    name="conv_lora",
    title="Leaf disease, roads and skin lesions as Conv-LoRA scores them",
    source="AutoGluon's code of Conv-LoRA: the IoU of each image at 0.5, then their mean, 0 where "
    "mask and map are empty. Departs from it: at the mask's own size and not on masks squashed to "
    "1024 x 1024, on maps of 8 bits and not of floats; so its printed numbers are near, not equal. "
    "Its S, E (mean), F (weighted) and MAE are those of protocol cod, its BER is that of "
    "shadow_per_image",
    normalisation="none",
    empty_masks="score",
    metrics=("iou", "dice", "recall", "specificity", "accuracy"),
    headline=("iou", "dice"),
    primary="iou",
    percent=("iou", "dice"),
)
DIS5K = replace(
    COD,
    name="dis5k",
    title="Dichotomous segmentation at high resolution",
    source="DIS5K (Qin et al., ECCV 2022) as PySODMetrics 1.6.2 computes it, at the mask's full "
    "size; its human correction effort is the extra metric hce, which takes long",
    metrics=("f_max", "weighted_f", "mae", "s_measure", "e_mean", "f_mean", "e_max", "iou"),
    headline=("f_max", "weighted_f", "mae", "s_measure", "e_mean"),
    primary="f_max",
)
MEDICAL = replace(
    SKIN_ISIC2017,
    name="medical",
    title="Medical images, each case by itself",
    source="MONAI's DiceMetric and MeanIoU, whose means leave out cases with an empty mask; MedPy "
    "differs in those only. The Hausdorff distance is the extra metric hd95",
    metrics=("dice", "iou", "recall", "specificity", "accuracy"),
    headline=("dice", "iou"),
    primary="dice",
)
POOLED = replace(
    MEDICAL,
    name="pooled",
    title="Overlap of the pixels of all images together",
    source="IoU and Dice of the object class as semantic segmentation code has them, such as "
    "MMSegmentation's IoUMetric: intersections and unions are summed over the data set. No mean "
    "with the background's",
    aggregation="counts of the data set",
    empty_masks="score",
    metrics=("iou_dataset", "dice_dataset", "accuracy_dataset", "ber_dataset"),
    headline=("iou_dataset", "dice_dataset", "accuracy_dataset"),
    primary="iou_dataset",
    percent=("iou_dataset", "dice_dataset", "accuracy_dataset", "ber_dataset"),
)
_ALL = (
    *(COD, COD_MATLAB, SOD, DIS5K, POLYP_PRANET, SHADOW_SBU, SHADOW_PER_IMAGE, GLASS),
    *(SKIN_ISIC2017, SKIN_ISIC2018, CONV_LORA, MEDICAL, POOLED),
)
MAP_PROTOCOLS = {protocol.name: protocol for protocol in _ALL}  # of binary maps
PROTOCOLS: dict[str, ScoringRules] = {
    **MAP_PROTOCOLS,
    **{
        protocol.name: protocol
        for protocol in (*CLASS_PROTOCOLS, *OBJECT_PROTOCOLS, *PANOPTIC_PROTOCOLS)
    },
}


def get_protocol(name: str) -> ScoringRules:
    """Return the protocol of that name, of any kind of task.

    Args:
        name: one of `PROTOCOLS`.

    Raises:
        UsageError: The name is unknown; the closest ones are named.
    """
    if name not in PROTOCOLS:
        raise UsageError.unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def map_protocol(name: str) -> Protocol:
    """Return the protocol of binary maps of that name.

    Args:
        name: one of `MAP_PROTOCOLS`.

    Raises:
        UsageError: The name is unknown, or that of a protocol of another kind of task.
    """
    other = get_protocol(name)
    if name not in MAP_PROTOCOLS:
        raise UsageError(
            f"protocol {name} is of {other.kind} tasks, and these are binary maps; choose one of "
            f"{', '.join(MAP_PROTOCOLS)}"
        )
    return MAP_PROTOCOLS[name]


# Modes: what counts where PySODMetrics is wrong, and where MATLAB's tools differ from it.


@dataclass(frozen=True)
class Mode:
    """How a score comes about, besides the protocol.

    empty_quadrant: the S-measure of a mask whose centroid lies on the last row or column, where
    the reference is 0 times 0 / 0. constant_quadrant: of a quadrant in which map and mask are
    constant, which is 1, but 0 in the reference if its sums round. single_pixel: the E-measure of
    an image of one pixel, which the reference divides by a rounding guard of 2.2e-16. grid: the
    256 thresholds, from high to low; "levels" are those of the truncated 8-bit map.
    alignment_above: whether the E-measure's foreground lies strictly above the threshold, rather
    than at least at it.
    """

    name: Literal["default", "reference", "matlab", "pranet"]
    empty_quadrant: Literal["skip", "nan"] = "skip"
    constant_quadrant: Literal["exact", "as rounded"] = "exact"
    single_pixel: Literal["exact", "as divided"] = "exact"
    grid: Literal["levels", "matlab"] = "levels"
    alignment_above: bool = False


DEFAULT = Mode("default")
REFERENCE = Mode(
    "reference", empty_quadrant="nan", constant_quadrant="as rounded", single_pixel="as divided"
)
MATLAB = Mode("matlab", grid="matlab", alignment_above=True)
PRANET = Mode("pranet", grid="matlab")
_OF_THRESHOLDS = {
    "256 levels, at least": DEFAULT,
    "MATLAB grid, at least": PRANET,
    "MATLAB grid, at least; E above": MATLAB,
}


def mode_of(protocol: Protocol) -> Mode:
    """Return the mode that a protocol's thresholds ask for."""
    return _OF_THRESHOLDS[protocol.thresholds]


# A protocol in sentences: what happens to map and mask, and how images become one score.

_NORMALISATION = {
    "minmax": "is stretched, each image by itself, so that its lowest value is 0 and its highest 1",
    "none": "is taken as it is, 255 being 1: nothing is stretched",
}
_RESIZE = {
    "bilinear to mask": "A map of another size is resized bilinearly to its mask's size",
    "bicubic to mask": "A map of another size is resized bicubically to its mask's size",
    "nearest to mask": "A map of another size takes the nearest pixel for each of its mask's",
}
_QUANTISATION = {
    "uint8 half up": "and rounded to 8 bits, half up; a map of 16 bits or of floats keeps its "
    "precision"
}
_THRESHOLDS = {
    "256 levels, at least": "The 256 thresholds are 255/255 down to 0; the map, rounded down to "
    "8 bits, is object where it is at least the threshold. At the last one everything is object.",
    "MATLAB grid, at least": "The 256 thresholds are MATLAB's 1:-1/255:0, in 64-bit floats; the "
    "map is object where it is at least the threshold.",
    "MATLAB grid, at least; E above": "The 256 thresholds are MATLAB's 1:-1/255:0, in 64-bit "
    "floats; the map is object where it is at least the threshold, but strictly above it for E.",
}
_AGGREGATION = {
    "image mean, maxima of the mean curve": "Each image has a score and the data set their mean. "
    "A maximum is that of the mean curve, at one threshold for all images.",
    "counts of the data set": "The pixels of all images are counted together; there is no mean "
    "over images.",
}
_EMPTY = {
    "skip": "An image whose mask is empty is left out, listed and counted.",
    "score": "An image whose mask is empty counts like any other; a ratio of 0 to 0 is 0.",
    "zero": "An image whose mask is empty counts 0 in overlap, precision, recall and F.",
    "one": "An image whose mask is empty counts 1 in overlap, precision, recall and F where its "
    "map is empty too, else 0.",
}


def explain_protocol(protocol: ScoringRules) -> list[tuple[str, str]]:
    """Return (field, sentences) that tell all of a protocol, each of its metrics included."""
    return protocol.explain()


def _sentences(protocol: Protocol) -> list[tuple[str, str]]:
    level = protocol.binary_threshold
    share = f"{level:g}" if level == 0.5 else f"{level * 255:g} of 255"
    named = {key: get_metric(key) for key in protocol.metrics}
    columns = known_metrics()
    first, *rest = [columns[key].label for key in protocol.headline]
    shown = ", ".join([first, *rest])
    resized = f"{_RESIZE[protocol.resize]} {_QUANTISATION[protocol.quantisation]}"
    return [
        ("protocol", f"{protocol.label}: {protocol.title}"),
        ("source", f"{protocol.source}."),
        ("map", f"A map {_NORMALISATION[protocol.normalisation]}. {resized}."),
        (
            "mask",
            f"A mask pixel is object above {protocol.mask_threshold} of 255; masks are never "
            f"resized. {_EMPTY[protocol.empty_masks]}",
        ),
        ("binary", f"At '.5' a map pixel is object strictly above {share}."),
        *_curves(protocol),
        ("images", _AGGREGATION[protocol.aggregation]),
        ("scale", _scale(protocol)),
        (
            "tables",
            f"A table shows {shown}; methods are ranked by {named[protocol.primary].label}.",
        ),
        ("hash", f"{protocol.hash}; a change of any rule is a new version with another hash."),
        ("metrics", ""),
        *((f"  {key}", _metric(metric, protocol)) for key, metric in named.items()),
        *((f"  {key}", _metric(get_extra(key), protocol)) for key in protocol.extra),
    ]


def explain_metric(metric: Metric) -> list[tuple[str, str]]:
    """Return (field, sentences) about a metric, of a protocol or extra."""
    lines = [
        ("metric", metric.key),
        ("label", metric.label),
        ("about", f"{metric.definition}."),
        ("better", "higher" if metric.higher_is_better else "lower"),
        ("unit", metric.unit or "a fraction, from 0 to 1"),
        ("of", "an image; a data set has the mean" if metric.per_image else "a whole data set"),
    ]
    if isinstance(metric, Extra):
        fields = ("source", "hazard", "undefined")
        lines += [(field, f"{getattr(metric, field)}.") for field in fields]
        lines.append(("cost", f"{metric.cost} times the weighted F-measure of PySODMetrics."))
        lines += [("needs", "the RGB image")] * metric.needs_image
        lines += [("note", f"off by default; ask with --extra {metric.key}")]
    return lines


def _curves(protocol: Protocol) -> list[tuple[str, str]]:
    """Say what only metrics over thresholds, and F, rest on."""
    keys = protocol.metrics
    levels = ("_mean", "_max", "_mean256", "_mean_pr", "ods", "ois", "ois_counts")
    lines = []
    if any(key.endswith(levels) for key in keys):
        lines.append(("thresholds", _THRESHOLDS[protocol.thresholds]))
    if any(key.startswith("f_") for key in keys):
        lines.append(("F", f"beta^2 is {protocol.f_beta2:g}; the weighted F has beta^2 1."))
    return lines


def _scale(protocol: Protocol) -> str:
    if not protocol.percent:
        return "Scores are fractions, in records and in tables."
    labels = ", ".join(get_metric(key).label for key in protocol.percent)
    return f"Records hold fractions; a table prints {labels} in percent."


def _metric(metric: Metric, protocol: Protocol) -> str:
    percent = " (%)" if metric.key in protocol.percent else ""
    return f"{metric.label}{percent}: {metric.definition}."
