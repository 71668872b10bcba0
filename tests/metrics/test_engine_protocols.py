"""Each protocol on numbers worked by hand, where it differs from the others."""

import dataclasses

import numpy as np
import pytest

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.engine import quick_score, score_pair
from lpmoe_bench.metrics.facts import METRICS, OF_COUNTS, get_metric, refuse_ambiguous
from lpmoe_bench.metrics.protocols import PROTOCOLS, explain_metric, explain_protocol, get_protocol
from lpmoe_bench.metrics.scorer import Scorer

HALF = np.array([[255, 255], [0, 0]], np.uint8)
CORNER = np.array([[255, 0], [0, 0]], np.uint8)
STEPS = np.array([[255, 128], [0, 0]], np.uint8)


def score(name, *pairs):
    scorer = Scorer(get_protocol(name))
    for index, (pred, mask) in enumerate(pairs):
        scorer.add(f"image{index}", pred, mask)
    return scorer.result()


def test_shadow_rates_of_the_data_set_and_of_the_images():
    # Above 125 of 255 in map and mask, and nothing is stretched: 125 is no shadow, 126 is.
    pred = np.array([[126, 125, 0, 0]], np.uint8)
    mask = np.array([[255, 126, 125, 0]], np.uint8)  # tp 1, fp 0, fn 1, tn 2
    other = np.array([[200, 200, 200, 0]], np.uint8), np.array([[255, 0, 0, 0]], np.uint8)
    result = score("shadow_sbu", (pred, mask), other)  # 1 2 0 1, together 2 2 1 3
    assert result.scores["miss_dataset"] == pytest.approx(1 / 3)
    assert result.scores["false_alarm_dataset"] == pytest.approx(2 / 5)
    assert result.scores["ber_dataset"] == pytest.approx((1 / 3 + 2 / 5) / 2)
    assert result.scores["accuracy_dataset"] == pytest.approx(5 / 8)
    assert result.rows[1]["ber_dataset"] is None
    assert [result.rows[1][key] for key in ("tp", "fp", "fn", "tn")] == [1, 2, 0, 1]
    each = score("shadow_per_image", (pred, mask), other)
    assert each.scores["ber"] == pytest.approx((1 / 2 + 0 + 0 + 2 / 3) / 4)
    assert "tp" not in each.rows[0]


def test_an_image_without_shadow_counts_in_the_data_set_only():
    empty = HALF, np.zeros_like(HALF)  # fp 2, tn 2
    assert score("shadow_sbu", (HALF, HALF), empty).scores["ber_dataset"] == pytest.approx(1 / 6)
    assert score("shadow_per_image", (HALF, HALF), empty).scores["ber"] == 0


def test_polyp_means_over_thresholds():
    result = score("polyp_pranet", (HALF, CORNER))
    # At the last of the thresholds, 0, everything is object.
    assert result.scores["dice_mean256"] == pytest.approx((255 * 2 / 3 + 2 / 5) / 256)
    assert result.scores["iou_mean256"] == pytest.approx((255 / 2 + 1 / 4) / 256)
    assert result.scores["dice_max"] == result.scores["dice"] == pytest.approx(2 / 3)
    assert result.scores["f_max"] == pytest.approx(2 / 3)  # beta^2 is 1: F is Dice
    best = score("polyp_pranet", (STEPS, CORNER), (STEPS, HALF))
    # Dice: 1, then 2/3; and 2/3, then 1. The mean curve is as high throughout, but for 0.
    assert best.scores["dice_max"] == pytest.approx(5 / 6)


def test_the_e_measure_starts_empty_in_matlab():
    curves = {
        name: score_pair(HALF, HALF, get_protocol(name)).values["e_max"]
        for name in ("cod", "cod_matlab", "polyp_pranet")
    }
    perfect, constant = 4 / 3, 1 / 3
    assert curves["cod"][[0, 1, 254, 255]] == pytest.approx([perfect] * 3 + [constant])
    assert curves["polyp_pranet"] == pytest.approx(curves["cod"])
    assert curves["cod_matlab"][[0, 1, 254, 255]] == pytest.approx([constant] + [perfect] * 3)
    assert score_pair(HALF, HALF, get_protocol("cod_matlab")).values["f_max"][0] == 1


def test_glass_reads_f_off_mean_precision_and_mean_recall():
    pairs = (STEPS, CORNER), (STEPS, HALF)
    # Above 128: precision 1 and 1, recall 1 and 1/2. The mean of F is lower.
    expected = 1.3 * 0.75 / (0.3 + 0.75)
    result = score("glass", *pairs)
    assert result.scores["f_mean_pr"] == pytest.approx(expected)
    assert score("sod", *pairs).scores["f_max"] == pytest.approx((1 + 0.8125) / 2)
    assert result.scores["iou"] == pytest.approx((1 / 2 + 1) / 2)
    assert result.scores["iou_dataset"] == pytest.approx(3 / 4)
    assert all(row["f_mean_pr"] is None for row in result.rows)


def test_glass_and_skin_stretch_nothing():
    faint = HALF // 4
    assert score("glass", (faint, HALF)).scores["iou"] == 0
    assert score("skin_isic2017", (faint, HALF)).scores["recall"] == 0
    assert score("sod", (faint, HALF)).scores["mae"] == 0


def test_skin_counts_a_poor_jaccard_as_nothing_in_2018_only():
    two_thirds = np.array([[255, 255, 255]], np.uint8), np.array([[255, 255, 0]], np.uint8)
    pairs = (HALF, CORNER), two_thirds
    result = score("skin_isic2018", *pairs)
    assert result.scores["iou_from65"] == pytest.approx((0 + 2 / 3) / 2)
    result = score("skin_isic2017", *pairs)
    assert result.scores["iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert result.scores["specificity"] == pytest.approx((2 / 3 + 0) / 2)
    assert result.scores["recall"] == 1
    assert result.scores["accuracy"] == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_conv_lora_means_over_images_with_empty_ones_as_nothing():
    empty = np.zeros_like(HALF)
    # IoU 1/2, then 2 of 3, then 0 for a map and mask both empty; Dice likewise.
    two_thirds = np.array([[255, 255, 255]], np.uint8), np.array([[255, 255, 0]], np.uint8)
    result = score("conv_lora", (HALF, CORNER), two_thirds, (empty, empty))
    assert result.scores["iou"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert result.scores["dice"] == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    # 127 of 255 is below a half and nothing is stretched: 128 is object.
    assert score("conv_lora", (HALF // 255 * 127, HALF)).scores["iou"] == 0
    assert score("conv_lora", (HALF // 255 * 128, HALF)).scores["iou"] == 1
    # A case without object is left out where cases stand by themselves.
    assert score("medical", (HALF, CORNER), (empty, empty)).scores["iou"] == 1 / 2


def test_pooled_pixels_are_no_mean_of_images():
    # tp, fp, fn, tn: 1 1 0 2, then 0 2 0 2 for an empty mask
    result = score("pooled", (HALF, CORNER), (HALF, np.zeros_like(HALF)))
    assert result.scores["iou_dataset"] == pytest.approx(1 / 4)
    assert result.scores["dice_dataset"] == pytest.approx(2 / 5)
    assert result.scores["accuracy_dataset"] == pytest.approx(5 / 8)
    assert result.scores["ber_dataset"] == pytest.approx(1 - (1 + 4 / 7) / 2)
    assert score("medical", (HALF, CORNER)).scores["dice"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_scores_whatever_the_division(name):
    protocol = PROTOCOLS[name]
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
    assert len({protocol.hash for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert set(protocol.headline) <= set(protocol.metrics) <= set(METRICS)
        assert protocol.primary in protocol.metrics
        assert set(protocol.percent) <= set(protocol.metrics)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_told_in_sentences(name):
    protocol = PROTOCOLS[name]
    told = dict(explain_protocol(protocol))
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


def test_metrics_are_told():
    assert dict(explain_metric(METRICS["mae"]))["better"] == "lower"
    assert dict(explain_metric(METRICS["e_max"]))["of"] == "a whole data set"


def test_what_a_table_prints_is_no_part_of_the_hash():
    protocol = PROTOCOLS["shadow_sbu"]
    assert dataclasses.replace(protocol, percent=()).hash == protocol.hash
    assert dataclasses.replace(protocol, empty_masks="skip").hash != protocol.hash


@pytest.mark.parametrize("key", METRICS)
def test_a_key_is_never_refused(key):
    refuse_ambiguous(key)
    assert get_metric(key).key == key


def test_a_word_of_one_meaning_is_named():
    with pytest.raises(UsageError, match="metric 'maxE' is called e_max here"):
        get_metric("maxE")


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
}


def test_hashes_are_pinned():
    assert {name: protocol.hash[:8] for name, protocol in PROTOCOLS.items()} == HASHES
