"""The protocols: what the papers of each task print, and exactly how it comes about."""

from __future__ import annotations

from dataclasses import replace

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.protocol import Protocol
from method_zoo.errors import unknown

__all__ = ["COD", "PROTOCOLS", "Protocol", "get_protocol", "list_protocols"]

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
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


def list_protocols() -> list[str]:
    """Return the names of all protocols."""
    return sorted(PROTOCOLS)


def get_protocol(name: str) -> Protocol:
    """Return the protocol of that name; raises UsageError for an unknown one."""
    if name not in PROTOCOLS:
        raise UsageError(unknown("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]
