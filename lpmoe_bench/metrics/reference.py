"""The engine's oracle: scores of one pair, computed by PySODMetrics 1.6.2."""

from collections.abc import Callable

import numpy as np
import py_sod_metrics as sod

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.engine import PairScores, check_pair
from lpmoe_bench.metrics.formulas import EPS, Counts
from lpmoe_bench.metrics.protocols import Protocol


def reference_scores(pred: np.ndarray, mask: np.ndarray, protocol: Protocol) -> PairScores:
    """Score a map against a mask, uint8 (h, w) on 0..255, in every metric of the protocol.

    The map (h, w) is uint8, uint16 or float, as the engine's `score_pair` takes it. It agrees with
    that to 1e-9, but for an S-measure flagged as `s_unstable`, which rests on rounding here.
    Its thresholds are the 256 levels whatever the protocol's are. Raises DataError where shapes or
    types differ from that, or the mask holds only 0 and 1.
    """
    p, g = _prepare(pred, mask, protocol)
    metrics = [key for key in protocol.metrics if key in _GROUPS]
    groups = dict.fromkeys(_GROUPS[key] for key in metrics)
    values = {key: value for group in groups for key, value in group(p, g, protocol).items()}
    flags = [
        name
        for name, holds in (
            ("empty_mask", not g.any()),
            ("full_mask", g.all()),
            ("constant_pred", p.min() == p.max()),
            ("s_undefined", "s_measure" in values and _undefined(g)),
            ("single_pixel", "e_mean" in values and g.size == 1),
        )
        if holds
    ]
    called, total = p > protocol.binary_threshold, int(np.count_nonzero(g))
    counts = Counts.of(int(np.sum(called & g)), int(np.sum(called & ~g)), total, g.size)
    values = {key: values[key] for key in metrics}
    return PairScores(values, total / g.size, tuple(flags), counts)


def _prepare(
    pred: np.ndarray, mask: np.ndarray, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Return the normalised map as float64 and the mask as bool."""
    check_pair(pred, mask)
    if mask.max() == 1:  # would silently count as empty
        raise DataError("mask holds only 0 and 1; foreground must be 255")
    p = pred.astype(np.float64) / 255
    # The same operations in the same order as the reference, so that not one bit differs.
    if protocol.normalisation == "minmax" and p.max() != p.min():
        p = (p - p.min()) / (p.max() - p.min())
    elif pred.dtype != np.uint8:  # it knows 8 bits only: what means 1 otherwise is ours to say
        p = pred.astype(np.float64) / (65535 if pred.dtype == np.uint16 else 1)
    return p, mask > protocol.mask_threshold


def _structure(p: np.ndarray, g: np.ndarray, protocol: Protocol) -> dict:
    measure = sod.Smeasure()
    if not _undefined(g):
        return {"s_measure": float(measure.cal_sm(p, g))}
    region = _region(measure, p, g)
    return {"s_measure": max(0.0, float(0.5 * measure.object(p, g) + 0.5 * region))}


def _split(g: np.ndarray) -> tuple[int, int]:
    """Return the rows above and the columns left of the quadrants' corner: the centroid plus 1."""
    total = np.count_nonzero(g)
    row, column = (
        np.round(np.dot(np.count_nonzero(g, axis=1 - axis), np.arange(g.shape[axis])) / total)
        for axis in (0, 1)
    )
    return int(row) + 1, int(column) + 1


def _undefined(g: np.ndarray) -> bool:
    """Whether a quadrant is empty, which makes the reference's S-measure NaN (0 times 0 / 0)."""
    if not g.any() or g.all():
        return False
    y, x = _split(g)
    return y == g.shape[0] or x == g.shape[1]


def _region(measure: sod.Smeasure, p: np.ndarray, g: np.ndarray) -> float:
    """Return the region term over the quadrants that have pixels, each weighted by its area."""
    y, x = _split(g)
    score = 0.0
    for rows in (slice(0, y), slice(y, None)):
        for columns in (slice(0, x), slice(x, None)):
            part = g[rows, columns]
            if part.size:
                score += float(measure.ssim(p[rows, columns], part)) * part.size / g.size
    return score


def _alignment(p: np.ndarray, g: np.ndarray, protocol: Protocol) -> dict:
    measure = sod.Emeasure()
    # Already normalised, by the protocol's rule: it must not be stretched again.
    measure.step(p, g, normalize=False)
    # It divides by size - 1 + EPS; one pixel counts as it is.
    scale = EPS if g.size == 1 else 1.0
    curve = np.asarray(measure.changeable_ems[0]) * scale
    adaptive = float(measure.adaptive_ems[0]) * scale
    return {"e_mean": float(np.mean(curve)), "e_max": curve, "e_adaptive": adaptive}


def _overlap(p: np.ndarray, g: np.ndarray, protocol: Protocol) -> dict:
    handlers = {
        "f": sod.FmeasureHandler(True, True, beta=protocol.f_beta2),
        "dice": sod.DICEHandler(True, False),
        "iou": sod.IOUHandler(True, False),
        "precision": sod.PrecisionHandler(True, False),
        "recall": sod.RecallHandler(True, False),
    }
    sod.FmeasureV2(handlers).step(p, g, normalize=False)
    curves = {key: np.asarray(handler.dynamic_results)[0] for key, handler in handlers.items()}
    means = {f"{key}_mean256": float(np.mean(curves[key])) for key in ("dice", "iou")}
    return means | {
        "f_mean": float(np.mean(curves["f"])),
        "f_max": curves["f"],
        "f_adaptive": float(np.asarray(handlers["f"].adaptive_results)[0]),
        "dice_max": curves["dice"],
        "f_mean_pr": np.stack([curves["precision"], curves["recall"]]),
    }


def _binary(p: np.ndarray, g: np.ndarray, protocol: Protocol) -> dict:
    handlers = {
        "ber": sod.BERHandler(False, False, with_binary=True),
        "dice": sod.DICEHandler(False, False, with_binary=True),
        "iou": sod.IOUHandler(False, False, with_binary=True),
        "accuracy": sod.OverallAccuracyHandler(False, False, with_binary=True),
        "recall": sod.RecallHandler(False, False, with_binary=True),
        "specificity": sod.SpecificityHandler(False, False, with_binary=True),
        "precision": sod.PrecisionHandler(False, False, with_binary=True),
        "kappa": sod.KappaHandler(False, False, with_binary=True),
    }
    # They cut at 0.5, so the map is cut at the protocol's threshold first.
    called = (p > protocol.binary_threshold).astype(np.float64)
    sod.FmeasureV2(handlers).step(called, g, normalize=False)
    values = {key: float(np.asarray(h.binary_results)[0]) for key, h in handlers.items()}
    return values | {"iou_from65": values["iou"] if values["iou"] >= 0.65 else 0.0}


def _weighted(p: np.ndarray, g: np.ndarray, protocol: Protocol) -> dict:
    measure = sod.WeightedFmeasure()
    measure.step(p, g, normalize=False)
    return {"weighted_f": float(measure.weighted_fms[0])}


def _error(p: np.ndarray, g: np.ndarray, protocol: Protocol) -> dict:
    return {"mae": float(sod.MAE().cal_mae(p, g))}


_CURVES = ("f_mean", "f_max", "f_adaptive", "f_mean_pr", "dice_mean256", "iou_mean256", "dice_max")
_BINARY = (
    *("ber", "dice", "iou", "iou_from65", "accuracy", "recall", "specificity"),
    *("precision", "kappa"),
)
# Metrics that share work share a function; each returns all of its own.
_GROUPS: dict[str, Callable[[np.ndarray, np.ndarray, Protocol], dict]] = {
    "s_measure": _structure,
    "weighted_f": _weighted,
    "mae": _error,
    **dict.fromkeys(("e_mean", "e_max", "e_adaptive"), _alignment),
    **dict.fromkeys(_CURVES, _overlap),
    **dict.fromkeys(_BINARY, _binary),
}
