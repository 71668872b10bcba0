"""Scores of data sets: equal to PySODMetrics, and each protocol on numbers worked by hand."""

import dataclasses
import warnings

import numpy as np
import py_sod_metrics as sod
import pytest

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics import protocols
from lpmoe_bench.metrics.engine import Measured, quick_score, score_pair
from lpmoe_bench.metrics.facts import METRICS, OF_COUNTS, get_metric, refuse_ambiguous
from lpmoe_bench.metrics.maps import PreparedMask
from lpmoe_bench.metrics.scorer import Scorer

COD = protocols.get_protocol("cod")
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
    assert np.isnan(Measured(mask, PreparedMask(mask), mode=protocols.REFERENCE).s_measure)
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


# Each protocol, where it differs from the others.


def scored(name, *pairs):
    items = [(f"image{index}", *pair) for index, pair in enumerate(pairs)]
    return score(items, protocols.get_protocol(name))


def test_shadow_rates_of_the_data_set_and_of_the_images():
    # Above 125 of 255 in map and mask, and nothing is stretched: 125 is no shadow, 126 is.
    pred = np.array([[126, 125, 0, 0]], np.uint8)
    mask = np.array([[255, 126, 125, 0]], np.uint8)  # tp 1, fp 0, fn 1, tn 2
    other = np.array([[200, 200, 200, 0]], np.uint8), np.array([[255, 0, 0, 0]], np.uint8)
    result = scored("shadow_sbu", (pred, mask), other)  # 1 2 0 1, together 2 2 1 3
    assert result.scores["miss_dataset"] == pytest.approx(1 / 3)
    assert result.scores["false_alarm_dataset"] == pytest.approx(2 / 5)
    assert result.scores["ber_dataset"] == pytest.approx((1 / 3 + 2 / 5) / 2)
    assert result.scores["accuracy_dataset"] == pytest.approx(5 / 8)
    assert result.rows[1]["ber_dataset"] is None
    assert [result.rows[1][key] for key in ("tp", "fp", "fn", "tn")] == [1, 2, 0, 1]
    each = scored("shadow_per_image", (pred, mask), other)
    assert each.scores["ber"] == pytest.approx((1 / 2 + 0 + 0 + 2 / 3) / 4)
    assert "tp" not in each.rows[0]


def test_an_image_without_shadow_counts_in_the_data_set_only():
    empty = HALF, np.zeros_like(HALF)  # fp 2, tn 2
    assert scored("shadow_sbu", (HALF, HALF), empty).scores["ber_dataset"] == pytest.approx(1 / 6)
    assert scored("shadow_per_image", (HALF, HALF), empty).scores["ber"] == 0


def test_polyp_means_over_thresholds():
    result = scored("polyp_pranet", (HALF, CORNER))
    # At the last of the thresholds, 0, everything is object.
    assert result.scores["dice_mean256"] == pytest.approx((255 * 2 / 3 + 2 / 5) / 256)
    assert result.scores["iou_mean256"] == pytest.approx((255 / 2 + 1 / 4) / 256)
    assert result.scores["dice_max"] == result.scores["dice"] == pytest.approx(2 / 3)
    assert result.scores["f_max"] == pytest.approx(2 / 3)  # beta^2 is 1: F is Dice
    best = scored("polyp_pranet", (STEPS, CORNER), (STEPS, HALF))
    # Dice: 1, then 2/3; and 2/3, then 1. The mean curve is as high throughout, but for 0.
    assert best.scores["dice_max"] == pytest.approx(5 / 6)


def test_the_e_measure_starts_empty_in_matlab():
    curves = {
        name: score_pair(HALF, HALF, protocols.get_protocol(name)).values["e_max"]
        for name in ("cod", "cod_matlab", "polyp_pranet")
    }
    perfect, constant = 4 / 3, 1 / 3
    assert curves["cod"][[0, 1, 254, 255]] == pytest.approx([perfect] * 3 + [constant])
    assert curves["polyp_pranet"] == pytest.approx(curves["cod"])
    assert curves["cod_matlab"][[0, 1, 254, 255]] == pytest.approx([constant] + [perfect] * 3)
    assert score_pair(HALF, HALF, protocols.get_protocol("cod_matlab")).values["f_max"][0] == 1


def test_glass_reads_f_off_mean_precision_and_mean_recall():
    pairs = (STEPS, CORNER), (STEPS, HALF)
    # Above 128: precision 1 and 1, recall 1 and 1/2. The mean of F is lower.
    expected = 1.3 * 0.75 / (0.3 + 0.75)
    result = scored("glass", *pairs)
    assert result.scores["f_mean_pr"] == pytest.approx(expected)
    assert scored("sod", *pairs).scores["f_max"] == pytest.approx((1 + 0.8125) / 2)
    assert result.scores["iou"] == pytest.approx((1 / 2 + 1) / 2)
    assert result.scores["iou_dataset"] == pytest.approx(3 / 4)
    assert all(row["f_mean_pr"] is None for row in result.rows)


def test_glass_and_skin_stretch_nothing():
    faint = HALF // 4
    assert scored("glass", (faint, HALF)).scores["iou"] == 0
    assert scored("skin_isic2017", (faint, HALF)).scores["recall"] == 0
    assert scored("sod", (faint, HALF)).scores["mae"] == 0


def test_skin_counts_a_poor_jaccard_as_nothing_in_2018_only():
    two_thirds = np.array([[255, 255, 255]], np.uint8), np.array([[255, 255, 0]], np.uint8)
    pairs = (HALF, CORNER), two_thirds
    result = scored("skin_isic2018", *pairs)
    assert result.scores["iou_from65"] == pytest.approx((0 + 2 / 3) / 2)
    result = scored("skin_isic2017", *pairs)
    assert result.scores["iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert result.scores["specificity"] == pytest.approx((2 / 3 + 0) / 2)
    assert result.scores["recall"] == 1
    assert result.scores["accuracy"] == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_conv_lora_means_over_images_with_empty_ones_as_nothing():
    empty = np.zeros_like(HALF)
    # IoU 1/2, then 2 of 3, then 0 for a map and mask both empty; Dice likewise.
    two_thirds = np.array([[255, 255, 255]], np.uint8), np.array([[255, 255, 0]], np.uint8)
    result = scored("conv_lora", (HALF, CORNER), two_thirds, (empty, empty))
    assert result.scores["iou"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert result.scores["dice"] == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    # 127 of 255 is below a half and nothing is stretched: 128 is object.
    assert scored("conv_lora", (HALF // 255 * 127, HALF)).scores["iou"] == 0
    assert scored("conv_lora", (HALF // 255 * 128, HALF)).scores["iou"] == 1
    # A case without object is left out where cases stand by themselves.
    assert scored("medical", (HALF, CORNER), (empty, empty)).scores["iou"] == 1 / 2


def test_pooled_pixels_are_no_mean_of_images():
    # tp, fp, fn, tn: 1 1 0 2, then 0 2 0 2 for an empty mask
    result = scored("pooled", (HALF, CORNER), (HALF, np.zeros_like(HALF)))
    assert result.scores["iou_dataset"] == pytest.approx(1 / 4)
    assert result.scores["dice_dataset"] == pytest.approx(2 / 5)
    assert result.scores["accuracy_dataset"] == pytest.approx(5 / 8)
    assert result.scores["ber_dataset"] == pytest.approx(1 - (1 + 4 / 7) / 2)
    assert scored("medical", (HALF, CORNER)).scores["dice"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", protocols.MAP_PROTOCOLS)
def test_every_protocol_scores_whatever_the_division(name):
    protocol = protocols.MAP_PROTOCOLS[name]
    rng = np.random.default_rng(31)
    images = []
    for index in range(9):
        mask = np.where(rng.random((12, 15)) < 0.4, 255, 0).astype(np.uint8)
        images.append(
            (f"{index}", (mask // 2 + rng.integers(0, 100, mask.shape)).astype("u1"), mask)
        )
    scorers = [Scorer(protocol) for _ in range(4)]
    for index, image in enumerate(images):
        scorers[0].add(*image)
        scorers[1 + index % 3].add(*image)
    scorers[3].merge(scorers[1])
    scorers[3].merge(scorers[2])
    result = scorers[0].result()
    assert scorers[3].result() == result
    assert list(result.scores) == list(protocol.metrics)
    for key, value in result.scores.items():
        assert 0 <= value <= 1.01
        column = [row[key] for row in result.rows]
        if key in OF_COUNTS or key == "f_mean_pr":
            assert column == [None] * 9
        else:
            assert value == pytest.approx(sum(column) / 9, abs=1e-14)
        if get_metric(key).per_image:
            name, pred, mask = images[0]
            assert quick_score(key, pred, mask, protocol) == column[0]


def test_protocols_are_sound():
    assert len({protocol.hash for protocol in protocols.PROTOCOLS.values()}) == len(
        protocols.PROTOCOLS
    )
    for name, protocol in protocols.PROTOCOLS.items():
        assert protocol.name == name
        assert set(protocol.headline) <= set(protocol.metrics) <= set(METRICS)
        assert protocol.primary in protocol.metrics
        assert set(protocol.percent) <= set(protocol.metrics)


@pytest.mark.parametrize("name", protocols.MAP_PROTOCOLS)
def test_every_protocol_is_told_in_sentences(name):
    protocol = protocols.MAP_PROTOCOLS[name]
    told = dict(protocols.explain_protocol(protocol))
    text = " ".join(told.values())
    assert protocol.hash in text
    assert protocol.source in told["source"]
    for key in protocol.metrics:
        assert get_metric(key).definition in told[f"  {key}"]
        assert ("(%)" in told[f"  {key}"]) == (key in protocol.percent)
    assert ("stretched, each" in told["map"]) == (protocol.normalisation == "minmax")
    assert f"above {protocol.mask_threshold} of 255" in told["mask"]
    assert ("left out" in told["mask"]) == (protocol.empty_masks == "skip")
    assert ("counted together" in told["images"]) == (protocol.aggregation[:6] == "counts")
    assert ("MATLAB" in told.get("thresholds", "")) == protocol.thresholds.startswith("MATLAB")
    assert ("percent" in told["scale"]) == bool(protocol.percent)
    assert ("125 of 255" in told["binary"]) == name.startswith("shadow")


def test_a_key_is_never_refused_and_a_word_of_one_meaning_is_named():
    for key in METRICS:
        refuse_ambiguous(key)
        assert get_metric(key).key == key
    with pytest.raises(UsageError, match="metric 'maxE' is called e_max here"):
        get_metric("maxE")
    assert dict(protocols.explain_metric(METRICS["mae"]))["better"] == "lower"
    assert dict(protocols.explain_metric(METRICS["e_max"]))["of"] == "a whole data set"


WORDS = ("E", "F", "mDice", "Dice", "IoU", "mIoU", "Fm", "F_beta", "BER", "Acc", "Jaccard", "maxF")


@pytest.mark.parametrize("word", WORDS)
def test_words_that_mean_several_things_are_refused(word):
    with pytest.raises(UsageError, match=f"'{word}' means different things.*say .*, ") as caught:
        get_metric(word)
    named = str(caught.value).split("; say ")[1].split(", ")
    assert set(named) <= set(METRICS)


# A change of a hash is a change of numbers: give the protocol a new version with it.
HASHES = {
    "cod": "0d7dbcd5",
    "cod_matlab": "a67066d0",
    "sod": "dc3ef68c",
    "polyp_pranet": "1bf41763",
    "shadow_sbu": "610e36d0",
    "shadow_per_image": "63fdd7aa",
    "glass": "987cd38d",
    "skin_isic2017": "68399b3b",
    "skin_isic2018": "e3c7fc12",
    "dis5k": "2daeb617",
    "conv_lora": "99808f87",
    "medical": "b02f0efa",
    "pooled": "7e88372a",
    "classes": "b7971425",
    "trans10k": "d64e271e",
    "coco_boxes": "60f7981f",
    "coco_masks": "2526e687",
    "cells": "fbcf8e96",
    "dsb2018": "9718a492",
    "coco_panoptic": "187eeca0",
}


def test_hashes_are_pinned():
    assert COD.hash == "0d7dbcd529cbf42460ce5c839f2a5bd6f78cdaa33e31d037948cb0fd5705fe1d"
    assert COD.label == f"cod v1 ({COD.hash[:8]})"
    protocol = protocols.PROTOCOLS["shadow_sbu"]
    for other in ({"percent": ()}, {"title": "Other words"}):  # what a table prints
        assert dataclasses.replace(protocol, **other).hash == protocol.hash
    for other in ({"empty_masks": "skip"}, {"mask_threshold": 127}):
        assert dataclasses.replace(protocol, **other).hash != protocol.hash
    with pytest.raises(UsageError, match="did you mean 'cod'"):
        protocols.get_protocol("cof")
    assert {name: protocol.hash[:8] for name, protocol in protocols.PROTOCOLS.items()} == HASHES
