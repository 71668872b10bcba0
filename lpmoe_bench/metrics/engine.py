"""Scores of one pair under a protocol: what validation, evaluation and tests call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.curves import curves_of_pair
from lpmoe_bench.metrics.extra import extra_scores
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.measured import Measured
from lpmoe_bench.metrics.modes import Mode, mode_of
from lpmoe_bench.metrics.overlap import Counts
from lpmoe_bench.metrics.prepared import PreparedMask
from lpmoe_bench.metrics.protocol import Protocol
from lpmoe_bench.metrics.protocols import COD


class PairScores(NamedTuple):
    """Scores of one image. Metrics that need a whole data set hold a curve of 256 levels instead.

    values: {metric: float, or an array of (..., 256) from level 255 down to 0}; nothing for metrics
    of the data set's counts. flags: what is unusual. counts: pixels at the binary threshold, which
    add up over a data set. extra: extra metrics, None where the image has no value; empty unless
    asked for, and for an image that the protocol leaves out. curves: precision, recall, F and E at
    the 256 thresholds, (4, 256), if asked for.
    """

    values: dict[str, float | np.ndarray]
    foreground_share: float
    flags: tuple[str, ...]
    counts: Counts
    extra: dict[str, float | None] = {}  # never written to
    curves: np.ndarray | None = None


def prepare_mask(mask: np.ndarray, protocol: Protocol = COD) -> PreparedMask:
    """Do the work on a mask, uint8 (h, w) on 0..255, that all maps scored against it share."""
    return PreparedMask(mask, protocol.mask_threshold)


def score_pair(
    pred: np.ndarray,
    mask: np.ndarray | PreparedMask,
    protocol: Protocol,
    mode: Mode | None = None,
    extra: Sequence[str] = (),
    curves: bool = False,
    image: np.ndarray | None = None,
) -> PairScores:
    """Score a map against a mask, both uint8 (h, w) on 0..255, in every metric of the protocol.

    A mask that several maps are scored against is best prepared once. Without a mode it is the one
    that the protocol's thresholds ask for. `extra` names extra metrics, some of which need the
    `image`, RGB uint8 (h, w, 3). Raises DataError where shapes or types differ from that, or the
    mask holds only 0 and 1.
    """
    pair = _measure(pred, mask, protocol, mode or mode_of(protocol))
    values = {key: _SCORES[key](pair, protocol) for key in protocol.metrics if key in _SCORES}
    structured = "s_measure" in values
    aligned = any(key.startswith("e_") for key in values)
    flags = [
        name
        for name, holds in (
            ("empty_mask", not pair.mask.foreground),
            ("full_mask", pair.mask.foreground == pair.mask.size),
            ("constant_pred", pair.map.constant),
            ("s_undefined", structured and pair.mask.empty_quadrant),
            ("s_unstable", structured and pair.s_unstable),
            ("single_pixel", aligned and pair.mask.size == 1),
        )
        if holds
    ]
    more = {}
    if extra and protocol.counts_mask(pair.mask.foreground):
        more = extra_scores(extra, pair.map.normalised, pair.mask.pixels.view(np.bool_), image)
    return PairScores(
        values,
        pair.mask.foreground / pair.mask.size,
        tuple(flags),
        pair.binary,
        more,
        curves_of_pair(pair, protocol) if curves else None,
    )


def quick_score(
    metric: str, pred: np.ndarray, mask: np.ndarray | PreparedMask, protocol: Protocol = COD
) -> float:
    """Return one metric of one pair, both uint8 (h, w) on 0..255: what validation calls.

    Raises UsageError for a metric that only a whole data set has, such as `e_max`.
    """
    if not get_metric(metric).per_image:
        raise UsageError(
            f"{metric} is defined for a whole data set, not for one image; "
            f"choose another, such as {protocol.primary}"
        )
    pair = _measure(pred, mask, protocol, mode_of(protocol))
    return float(_SCORES[metric](pair, protocol))


def _measure(
    pred: np.ndarray, mask: np.ndarray | PreparedMask, protocol: Protocol, mode: Mode
) -> Measured:
    if not isinstance(mask, PreparedMask):
        _check(pred, mask)
        mask = prepare_mask(mask, protocol)
    assert mask.threshold == protocol.mask_threshold, "the mask was prepared for another protocol"
    _check(pred, mask.pixels)
    return Measured(pred, mask, protocol.normalisation, mode, protocol.binary_threshold)


def _check(pred: np.ndarray, mask: np.ndarray) -> None:
    if pred.ndim != 2 or pred.shape != mask.shape or not pred.size:
        raise DataError(
            f"map is {pred.shape} and mask is {mask.shape}; both must be (h, w) of the same size"
        )
    if pred.dtype != np.uint8 or mask.dtype != np.uint8:
        raise DataError(f"map is {pred.dtype} and mask is {mask.dtype}; both must be uint8, 0..255")


# A float, or the curve of a metric that the whole data set reduces to one value.
_SCORES: dict[str, Callable[[Measured, Protocol], Any]] = {
    "s_measure": lambda pair, _: pair.s_measure,
    "e_mean": lambda pair, _: float(np.mean(pair.e_curve)),
    "e_max": lambda pair, _: pair.e_curve,
    "e_adaptive": lambda pair, _: pair.e_adaptive,
    "f_mean": lambda pair, protocol: float(np.mean(pair.curve.f(protocol.f_beta2))),
    "f_max": lambda pair, protocol: pair.curve.f(protocol.f_beta2),
    "f_adaptive": lambda pair, protocol: pair.adaptive.f(protocol.f_beta2),
    "weighted_f": lambda pair, _: pair.weighted_f,
    "mae": lambda pair, _: pair.mae,
    "ber": lambda pair, _: pair.binary.ber,
    "dice": lambda pair, _: pair.binary.dice,
    "iou": lambda pair, _: pair.binary.iou,
    "iou_from65": lambda pair, _: pair.binary.iou if pair.binary.iou >= 0.65 else 0.0,
    "accuracy": lambda pair, _: pair.binary.accuracy,
    "recall": lambda pair, _: pair.binary.recall,
    "specificity": lambda pair, _: pair.binary.specificity,
    "dice_mean256": lambda pair, _: float(np.mean(pair.curve.dice)),
    "iou_mean256": lambda pair, _: float(np.mean(pair.curve.iou)),
    "dice_max": lambda pair, _: pair.curve.dice,
    "f_mean_pr": lambda pair, _: np.stack([pair.curve.precision, pair.curve.recall]),
}
