"""Extra metrics that PySODMetrics computes, kept from its overflows, NaN and crashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import py_sod_metrics as sod
from py_sod_metrics.size_invariance import parse_connected_components

OBJECTS = 53  # it codes them as bits of a float
PATCH = 7  # side of the camouflage measure's patches, pixels

Scores = dict[str, float | None]


def _multiscale(mode: str) -> Callable[[np.ndarray, np.ndarray, Any], Scores]:
    return lambda p, g, _: {f"msiou_{mode}": _multiscale_iou(p, g, mode)}


def _multiscale_iou(p: np.ndarray, g: np.ndarray, mode: str) -> float | None:
    if not g.any():
        return None
    measure = sod.MSIoU(False, False)
    # Its own edges are of 16 bits, whose sum rounds above 2048 pixels and overflows at 65504.
    edges = measure.get_edge(g).astype(np.float64)
    cells = [measure.shrink_by_grid(edges, size) for size in measure.cell_sizes]

    def area(called: np.ndarray) -> float:
        own = measure.get_edge(called).astype(np.float64)
        shares = measure.multi_scale_iou(own, edges, cells)
        return float(np.trapezoid(shares, dx=1 / (len(shares) - 1)))

    if mode == "binary":
        return area(p > 0.5)
    if mode == "adaptive":
        return area(p >= min(2 * float(p.mean()), 1))
    levels = (p * 255).astype(np.uint8)
    # A threshold between two levels in use cuts like the upper one; 256 is above all.
    upper = np.searchsorted(used := np.unique(levels), np.arange(257))
    areas = [area(levels >= level) for level in used] + [area(np.zeros_like(g))]
    return float(np.mean(np.array(areas)[upper]))


def _effort(p: np.ndarray, g: np.ndarray, _: Any) -> Scores:
    return {"hce": float(sod.HumanCorrectionEffortMeasure().cal_hce(p, g))}


def _context(p: np.ndarray, g: np.ndarray, _: Any) -> Scores:
    return {"context_measure": _step(sod.ContextMeasure(), p, g)}


def _camouflage(p: np.ndarray, g: np.ndarray, image: Any) -> Scores:
    big = min(g.shape) >= PATCH
    value = _step(sod.CamouflageContextMeasure(), p, g, img=image) if big else None
    return {"camouflage_context_measure": value}


def _step(measure: sod.ContextMeasure, p: np.ndarray, g: np.ndarray, **more: Any) -> float | None:
    if not g.any():
        return None
    try:
        measure.step(p, g, normalize=False, **more)
    except np.linalg.LinAlgError:  # the object's pixels lie on one line: no Gaussian of its shape
        return None
    return _finite(measure.scores[0])


def _size_invariant_error(p: np.ndarray, g: np.ndarray, _: Any) -> Scores:
    if not _has_objects(g):
        return {"si_mae": None}
    measure = sod.SizeInvarianceMAE()
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes that cover the image: 0 / 0
        measure.step(p, g, normalize=False)
    return {"si_mae": _finite(measure.maes[0])}


def _size_invariant_f(p: np.ndarray, g: np.ndarray, _: Any) -> Scores:
    if not _has_objects(g):
        return {"si_f_mean": None, "si_f_adaptive": None}
    handler = sod.FmeasureHandler(True, True, beta=0.3)
    sod.SizeInvarianceFmeasureV2({"f": handler}).step(p, g, normalize=False)
    assert handler.dynamic_results
    assert handler.adaptive_results
    return {
        "si_f_mean": float(np.mean(handler.dynamic_results[0])),
        "si_f_adaptive": float(handler.adaptive_results[0]),
    }


def _has_objects(g: np.ndarray) -> bool:
    """Whether the size-invariant metrics of PySODMetrics are right for this mask."""
    return bool(g.any()) and not g.all() and parse_connected_components(g)[0] <= OBJECTS


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


# By metric, what computes it from map, mask and image, perhaps together with others.
GROUPS: dict[str, Callable[[np.ndarray, np.ndarray, Any], Scores]] = {
    **{f"msiou_{mode}": _multiscale(mode) for mode in ("binary", "adaptive", "mean257")},
    "hce": _effort,
    "context_measure": _context,
    "camouflage_context_measure": _camouflage,
    "si_mae": _size_invariant_error,
    **dict.fromkeys(("si_f_mean", "si_f_adaptive"), _size_invariant_f),
}
