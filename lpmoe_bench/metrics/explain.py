"""A protocol in sentences: what happens to map and mask, and how images become one score."""

from __future__ import annotations

from .extra import Extra
from .facts import Metric, get_metric
from .protocol import Protocol

_NORMALISATION = {
    "minmax": "is stretched, each image by itself, so that its lowest value is 0 and its highest 1",
    "none": "is taken as it is, 255 being 1: nothing is stretched",
}
_RESIZE = {"bilinear to mask": "A map of another size is resized bilinearly to its mask's size"}
_QUANTISATION = {"uint8 half up": "and rounded to 8 bits, half up"}
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
}


def explain(protocol: Protocol) -> list[tuple[str, str]]:
    """Return (field, sentences) that tell all of a protocol, each of its metrics included."""
    named = {key: get_metric(key) for key in protocol.metrics}
    first, *rest = [named[key].label for key in protocol.headline]
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
        ("binary", f"At '.5' a map pixel is object strictly above {_share(protocol)}."),
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


def _share(protocol: Protocol) -> str:
    level = protocol.binary_threshold
    return f"{level:g}" if level == 0.5 else f"{level * 255:g} of 255"


def _curves(protocol: Protocol) -> list[tuple[str, str]]:
    """Say what only metrics over thresholds, and F, rest on."""
    keys = protocol.metrics
    levels = ("_mean", "_max", "_mean256", "_mean_pr")
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
