"""Scores: equal to PySODMetrics, right on hand-worked numbers, safe where the reference is not."""

import dataclasses
import subprocess
import sys
import warnings

import numpy as np
import py_sod_metrics as sod
import pytest

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.engine import quick_score
from lpmoe_bench.metrics.facts import METRICS, get_metric
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import Scorer

COD = get_protocol("cod")
HALF = np.array([[255, 255], [0, 0]], np.uint8)
CORNER = np.array([[255, 0], [0, 0]], np.uint8)
STEPS = np.array([[255, 128], [0, 0]], np.uint8)


def pairs(count, seed=0):
    """Random and adversarial pairs of maps and masks, each of its own size."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        shape = tuple(rng.integers(2, 40, 2))
        noise = rng.integers(0, 256, shape).astype(np.uint8)
        mask = np.zeros(shape, np.uint8)
        kind = index % 7
        if kind < 4:
            top, left = rng.integers(0, shape[0]), rng.integers(0, shape[1])
            mask[top : top + 9, left : left + 7] = 255
        elif kind == 4:
            mask[:] = 255 * rng.integers(0, 2, shape)
        elif kind == 5:
            mask[:] = 255
        mask[-1, -1] = rng.choice([mask[-1, -1], 128, 129])  # 128 is background, 129 foreground
        preds = [noise, noise // 3 + 40, mask.copy(), 255 - mask, np.zeros_like(mask)]
        preds.append(np.where(noise > 127, 255, 0).astype(np.uint8))
        yield f"image{index:03d}", preds[index % len(preds)], mask


def reference(items):
    """Scores of a data set by PySODMetrics' own recorders; S is left out where it is NaN."""
    s, e, w, mae = sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure(), sod.MAE()
    handlers = {
        "f": sod.FmeasureHandler(True, True, beta=0.3),
        "ber": sod.BERHandler(False, False, with_binary=True),
        "dice": sod.DICEHandler(False, False, with_binary=True),
        "iou": sod.IOUHandler(False, False, with_binary=True),
    }
    f = sod.FmeasureV2(handlers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _, pred, mask in items:
            for recorder in (s, e, w, mae, f):
                recorder.step(pred, mask)
    em, fm = e.get_results()["em"], f.get_results()
    scores = {
        "e_mean": em["curve"].mean(),
        "e_max": em["curve"].max(),
        "e_adaptive": em["adp"],
        "f_mean": fm["f"]["dynamic"].mean(),
        "f_max": fm["f"]["dynamic"].max(),
        "f_adaptive": fm["f"]["adaptive"],
        "weighted_f": w.get_results()["wfm"],
        "mae": mae.get_results()["mae"],
        **{key: fm[key]["binary"] for key in ("ber", "dice", "iou")},
    }
    return scores, dict(zip([name for name, *_ in items], s.sms, strict=True))


def score(items, protocol=COD):
    scorer = Scorer(protocol)
    for name, pred, mask in items:
        scorer.add(name, pred, mask, dataset="set")
    return scorer.result()


def test_equals_pysodmetrics_on_adversarial_pairs():
    items = list(pairs(210))
    everything = dataclasses.replace(COD, empty_masks="score")
    result = score(items, everything)
    expected, s_values = reference(items)
    for key, value in expected.items():
        assert result.scores[key] == pytest.approx(value, abs=1e-12), key
    rows = {row["image"]: row for row in result.rows}
    undefined = {name for name, value in s_values.items() if np.isnan(value)}
    assert 0 < len(undefined) < len(items) / 2
    for name, value in s_values.items():
        assert ("s_undefined" in rows[name]["flags"]) == (name in undefined)
        if name not in undefined:
            assert rows[name]["s_measure"] == pytest.approx(float(value), abs=1e-12)


def test_two_images_worked_by_hand():
    result = score([("a", STEPS, CORNER), ("b", STEPS, HALF)])
    # F over levels 255..129, 128..1 and 0. a: 1, .65/1.15, .325/1.075. b: .65/.8, 1, .65/1.15.
    a = [1.0] * 127 + [0.65 / 1.15] * 128 + [0.325 / 1.075]
    b = [0.8125] * 127 + [1.0] * 128 + [0.65 / 1.15]
    assert result.scores["f_max"] == pytest.approx((1 + 0.8125) / 2)  # not the mean of maxima, 1
    assert [row["f_max"] for row in result.rows] == pytest.approx([1.0, 0.8125])
    assert result.scores["f_mean"] == pytest.approx(sum(a + b) / 512)
    # The grey pixel is 128/255 > 0.5, so both maps are HALF at 0.5.
    assert result.scores["iou"] == pytest.approx((0.5 + 1) / 2)
    assert result.scores["dice"] == pytest.approx((2 / 3 + 1) / 2)
    assert result.scores["ber"] == pytest.approx((1 - 0.5 * (1 + 2 / 3)) / 2)
    assert result.scores["mae"] == pytest.approx((128 / 255 + 127 / 255) / 8)
    assert result.rows[0]["foreground_share"] == 0.25


def test_map_equal_to_mask_reaches_the_known_extremes():
    result = score([("a", HALF, HALF)])
    assert result.scores["e_max"] == pytest.approx(4 / 3)  # the definition divides by N - 1
    assert result.scores["s_measure"] == pytest.approx(1)
    assert result.scores["weighted_f"] == pytest.approx(1)
    assert result.scores["mae"] == 0


def test_rows_average_to_the_scores_and_order_does_not_matter():
    items = [item for item in pairs(70, seed=1) if item[2].max() > 128]
    forward, backward = score(items), score(items[::-1])
    assert forward == backward
    for key in COD.metrics:
        values = [row[key] for row in forward.rows]
        assert forward.scores[key] == pytest.approx(sum(values) / len(values), abs=1e-14)
    assert list(forward.scores) == list(COD.metrics)
    assert [row["image"] for row in forward.rows] == sorted(name for name, *_ in items)


def test_s_measure_skips_empty_quadrants():
    mask = np.zeros((4, 4), np.uint8)
    mask[-1] = 255
    perfect = score([("a", mask, mask)])
    assert perfect.scores["s_measure"] == pytest.approx(1)
    assert perfect.rows[0]["flags"] == "s_undefined"
    assert perfect.counts["s_undefined"] == 1

    pred = np.arange(0, 256, 17, dtype=np.uint8).reshape(4, 4)
    p, g = np.arange(16).reshape(4, 4) / 15, mask > 128

    def similarity(x, y):
        cov = np.cov(x.ravel(), y.ravel())
        top = 4 * x.mean() * y.mean() * cov[0, 1]
        return top / ((x.mean() ** 2 + y.mean() ** 2) * (cov[0, 0] + cov[1, 1]))

    def likeness(x):
        return 2 * x.mean() / (x.mean() ** 2 + 1 + x.std(ddof=1))

    # The centroid column 1.5 rounds to 2, so three columns are left of the corner, one right.
    region = similarity(p[:, :3], g[:, :3]) * 12 / 16 + similarity(p[:, 3:], g[:, 3:]) * 4 / 16
    objects = likeness(p[g]) * 0.25 + likeness(1 - p[~g]) * 0.75
    assert quick_score("s_measure", pred, mask) == pytest.approx((region + objects) / 2, abs=1e-12)


def test_quick_score_equals_the_row_and_refuses_data_set_metrics():
    name, pred, mask = next(pairs(1))
    row = score([(name, pred, mask)]).rows[0]
    for key in COD.metrics:
        if get_metric(key).per_image:
            assert quick_score(key, pred, mask) == row[key]
    with pytest.raises(UsageError, match="e_max is defined for a whole data set"):
        quick_score("e_max", pred, mask)
    with pytest.raises(UsageError, match="did you mean 's_measure'"):
        quick_score("s_mesure", pred, mask)


def test_empty_masks_are_listed_but_left_out():
    empty = np.zeros_like(HALF)
    alone, beside = score([("a", STEPS, HALF)]), score([("a", STEPS, HALF), ("b", STEPS, empty)])
    assert beside.scores == alone.scores
    assert beside.counts["images"] == 2
    assert beside.counts["scored"] == beside.counts["empty_masks"] == 1
    assert beside.rows[1]["flags"] == "empty_mask"
    assert beside.rows[1]["s_measure"] is None
    with pytest.raises(DataError, match="set has no score: all 1 masks are empty"):
        score([("b", STEPS, empty)])
    with pytest.raises(DataError, match="no image was scored"):
        Scorer(COD).result()


def test_unusual_maps_and_masks_are_flagged():
    full, constant = np.full_like(HALF, 255), np.full_like(HALF, 7)
    result = score([("a", constant, HALF), ("b", HALF, full)])
    assert [row["flags"] for row in result.rows] == ["constant_pred", "full_mask"]
    assert result.counts["constant_preds"] == result.counts["full_masks"] == 1


@pytest.mark.parametrize(
    ("pred", "mask", "sentence"),
    [
        (HALF, HALF[:1], r"image a cannot be scored: map is \(2, 2\) and mask is \(1, 2\)"),
        (HALF / 255, HALF, "map is float64"),
        (HALF, HALF > 0, "mask is bool"),
        (HALF, HALF // 255, "mask holds only 0 and 1"),
    ],
)
def test_bad_pairs_are_refused_by_name(pred, mask, sentence):
    with pytest.raises(DataError, match=sentence):
        Scorer(COD).add("a", pred, mask)


def test_a_name_counts_once():
    scorer = Scorer(COD)
    scorer.add("a", HALF, HALF)
    with pytest.raises(DataError, match="image a was scored twice"):
        scorer.add("a", HALF, HALF)


def test_protocols_are_pinned():
    # A change of this hash is a change of numbers: give the protocol a new version with it.
    assert COD.hash == "0d7dbcd529cbf42460ce5c839f2a5bd6f78cdaa33e31d037948cb0fd5705fe1d"
    assert COD.label == f"cod v1 ({COD.hash[:8]})"
    assert dataclasses.replace(COD, mask_threshold=127).hash != COD.hash
    assert dataclasses.replace(COD, title="Other words").hash == COD.hash
    assert set(COD.headline) <= set(COD.metrics) <= set(METRICS)
    with pytest.raises(UsageError, match="did you mean 'cod'"):
        get_protocol("cof")


def test_facts_load_without_numpy():
    code = "import sys; from lpmoe_bench.metrics.protocols import get_protocol"
    code += "; get_protocol('cod').hash; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_does_not_compute_does_not_wait_for_numba():
    code = "import sys; from lpmoe_bench.metrics.protocols import get_protocol"
    code += "; from lpmoe_bench.metrics.scorer import Scorer"
    code += "; Scorer(get_protocol('cod')); print({'numba', 'py_sod_metrics'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
