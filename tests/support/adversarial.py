"""Adversarial pairs of map and mask, scored by the engine and by PySODMetrics."""

import warnings

import numpy as np
import py_sod_metrics as sod

from lpmoe_bench.metrics.engine import Measured
from lpmoe_bench.metrics.maps import PreparedMask
from lpmoe_bench.metrics.protocols import REFERENCE

TOLERANCE = 1e-9


RATIOS = ("precision", "recall", "specificity", "accuracy", "iou", "dice", "ber", "f0.3", "f1")


EACH = ("curve", "adaptive", "binary")


def draw_shape(rng):
    kind = rng.integers(0, 8)
    if kind == 0:
        return 1, 1
    if kind == 1:
        flat = rng.random() < 0.5
        length = int(rng.integers(2, 400))
        return (1, length) if flat else (length, 1)
    return tuple(int(side) for side in rng.integers(1, 60, 2))


def draw_mask(rng, shape):
    h, w = shape
    mask = np.zeros(shape, np.uint8)
    kind = rng.integers(0, 10)
    if kind == 0:
        mask[rng.integers(0, h), rng.integers(0, w)] = 255  # one pixel
    elif kind == 1:
        mask[-1] = 255  # the centroid on the last row: an empty quadrant
    elif kind == 2:
        mask[:, -1] = 255
    elif kind == 3:
        mask[:] = 255
    elif kind == 4:
        mask = np.where(rng.random(shape) < rng.random(), 255, 0).astype(np.uint8)
    elif kind == 5:
        mask = rng.integers(126, 132, shape).astype(np.uint8)  # about the mask's threshold
    elif kind < 9:
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(0, h), rng.integers(0, w)
            mask[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = 255
    return mask if mask.max() != 1 else mask * 255


def draw_pred(rng, mask):
    kind, shape = rng.integers(0, 11), mask.shape
    noise = rng.integers(0, 256, shape).astype(np.uint8)
    if kind == 0:
        return np.full(shape, rng.choice([0, 255, 7, 128, 191]), np.uint8)  # constant
    if kind == 1:
        return mask.copy()
    if kind == 2:
        return 255 - mask
    if kind == 3:
        return np.where(noise > 127, 255, 0).astype(np.uint8)  # binary
    if kind == 4:
        return noise // 64 + 90  # few, near levels
    if kind == 5:
        return np.where(mask > 128, noise // 2 + 120, noise // 3).astype(np.uint8)
    if kind == 6:  # constant parts that are neither 0 nor 1 after normalisation
        pred = np.full(shape, rng.integers(1, 255), np.uint8)
        pred[rng.integers(0, shape[0]), rng.integers(0, shape[1])] = rng.choice([0, 255])
        pred[0, 0] = 255
        return pred
    if kind == 7:  # twice the mean is a level, or nearly so
        pred = np.zeros(shape, np.uint8)
        pred.flat[: max(1, pred.size // 2)] = 255
        pred.flat[-1] = rng.choice([0, 127, 128])
        return pred
    if kind == 8:
        return np.where(noise > 250, rng.integers(1, 256), 0).astype(np.uint8)  # sparse
    return noise


def draw_pairs(count, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mask = draw_mask(rng, draw_shape(rng))
        yield draw_pred(rng, mask), mask


def by_pysodmetrics(p, g):
    """Every score of a normalised map, (h, w), and a mask of bool."""
    handlers = {
        "precision": sod.PrecisionHandler,
        "recall": sod.RecallHandler,
        "specificity": sod.SpecificityHandler,
        "accuracy": sod.OverallAccuracyHandler,
        "iou": sod.IOUHandler,
        "dice": sod.DICEHandler,
        "ber": sod.BERHandler,
    }
    made = {key: handler(True, True, with_binary=True) for key, handler in handlers.items()}
    made["f0.3"] = sod.FmeasureHandler(True, True, with_binary=True, beta=0.3)
    made["f1"] = sod.FmeasureHandler(True, True, with_binary=True, beta=1)
    s, e, w, mae = sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure(), sod.MAE()
    f = sod.FmeasureV2(made)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # means over nothing
        for recorder in (s, e, w, mae, f):
            recorder.step(p, g, normalize=False)
    scores = {
        "s_measure": s.sms[0],
        "e_curve": e.changeable_ems[0],
        "e_adaptive": e.adaptive_ems[0],
        "weighted_f": w.weighted_fms[0],
        "mae": mae.maes[0],
    }
    for key, handler in made.items():
        scores[f"{key} curve"] = handler.dynamic_results[0]
        scores[f"{key} adaptive"] = handler.adaptive_results[0]
        scores[f"{key} binary"] = handler.binary_results[0]
    return scores


def normalised(pred):
    p = pred / 255 if pred.dtype == np.uint8 else pred.astype(np.float64)
    return (p - p.min()) / (p.max() - p.min()) if p.max() != p.min() else p


def by_engine(measured):
    scores = {
        key: getattr(measured, key)
        for key in ("s_measure", "e_curve", "e_adaptive", "weighted_f", "mae")
    }
    for each in EACH:
        counts = getattr(measured, each)
        scores |= {f"{key} {each}": getattr(counts, key) for key in RATIOS[:-2]}
        scores |= {f"f0.3 {each}": counts.f(0.3), f"f1 {each}": counts.f(1)}
    return scores


def differences(pred, mask, prepared=None):
    """Largest difference of each score from PySODMetrics'; NaN where only one of both is NaN."""
    prepared = PreparedMask(mask) if prepared is None else prepared
    ours = by_engine(Measured(pred, prepared, mode=REFERENCE))
    theirs = by_pysodmetrics(normalised(pred), mask > 128)
    assert ours.keys() == theirs.keys()
    found = {}
    for key in ours:
        a, b = np.asarray(ours[key], float), np.asarray(theirs[key], float)
        assert a.shape == b.shape, key
        both = np.isnan(a) & np.isnan(b)
        found[key] = float(np.max(np.where(both, 0, np.abs(np.where(both, 0, a - b)))))
    return found


def check(pairs):
    worst = {}
    for index, (pred, mask) in enumerate(pairs):
        for key, value in differences(pred, mask).items():
            assert value <= TOLERANCE, (index, key, value, pred.shape)
            worst[key] = max(worst.get(key, 0), value)
    return worst
