"""What is shown of scores: curves as plots, the worst images, a second opinion by PySODMetrics."""

import sys

import cv2
import numpy as np
import pytest
from adversarial import draw_pairs

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.protocols import MAP_PROTOCOLS, get_protocol
from lpmoe_bench.metrics.scorer import Scorer
from lpmoe_bench.scoring.robustness import COUNTS, verify_scores
from lpmoe_bench.scoring.views import Views, worst_images, write_curves, write_worst
from lpmoe_bench.scoring.work import error_picture

COD = get_protocol("cod")
PAIRS = {
    f"image{i:02d}": pair for i, pair in enumerate(p for p in draw_pairs(60, 41) if p[0].size > 9)
}


def score(protocol, pairs=PAIRS, **options):
    scorer = Scorer(protocol, **options)
    for name, (pred, mask) in pairs.items():
        scorer.add(name, pred, mask)
    return scorer


def test_curves_are_means_whose_extremes_are_scores():
    result = score(COD, curves=True).result()
    curves, scores = result.curves, result.scores
    assert max(curves.f) == pytest.approx(scores["f_max"])
    assert max(curves.e) == pytest.approx(scores["e_max"])
    assert sum(curves.e) / 256 == pytest.approx(scores["e_mean"])
    assert sum(curves.f) / 256 == pytest.approx(scores["f_mean"])
    assert curves.recall[-1] == 1  # everything is object
    assert list(curves.recall) == sorted(curves.recall)
    assert (curves.thresholds[0], curves.thresholds[-1]) == (1, 0)
    names = list(PAIRS)
    parts = [score(COD, {n: PAIRS[n] for n in names[i::3][::-1]}, curves=True) for i in range(3)]
    parts[2].merge(parts[0])
    parts[2].merge(parts[1])
    assert parts[2].result() == result
    assert score(COD).result().curves is None
    assert score(COD).result().scores == scores


def test_curves_of_one_image_by_hand():
    pred = np.array([[255, 128], [0, 0]], np.uint8)
    mask = np.array([[255, 0], [0, 0]], np.uint8)
    curves = score(COD, {"a": (pred, mask)}, curves=True).result().curves
    assert curves.precision == tuple([1.0] * 127 + [0.5] * 128 + [0.25])
    assert curves.recall == (1.0,) * 256
    assert curves.f[200] == pytest.approx(1.3 * 0.5 / (0.3 * 0.5 + 1))


def test_curves_are_plotted(tmp_path):
    curves = score(COD, curves=True).result().curves
    methods = {"LoRA $r$": curves, "_LPMoE & more": curves}
    files = write_curves(methods, COD, tmp_path, dataset="CAMO")
    names = [f"curve_{kind}.{form}" for kind in ("pr", "f", "e") for form in ("png", "svg")]
    assert [file.name for file in files] == names
    first = {file: file.read_bytes() for file in files}
    for file in files[::2]:
        pixels = cv2.imread(str(file))
        assert min(pixels.shape[:2]) > 500
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    for file, axis in zip(files[1::2], ("recall", "threshold", "threshold"), strict=True):
        text = file.read_text()
        for word in ("LoRA $r$</text>", "_LPMoE &amp; more", "CAMO", axis, "protocol cod v1"):
            assert word in text, word
    again = write_curves(methods, COD, tmp_path, dataset="CAMO", formats=("svg",))
    assert again == files[1::2]
    assert {file: file.read_bytes() for file in files} == first


def test_no_matplotlib_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'lpmoe-bench\[plot\]'"):
        write_curves({}, COD, tmp_path)


def test_the_worst_images_come_worst_first():
    rows = [
        {"image": "a", "mae": 0.5, "s_measure": 0.5, "hd95": 3.0, "flags": ""},
        {"image": "b", "mae": 0.1, "s_measure": 0.9, "hd95": None, "flags": ""},
        {"image": "c", "mae": 0.5, "s_measure": 0.2, "hd95": 9.0, "flags": ""},
        {"image": "d", "mae": None, "s_measure": None, "hd95": None, "flags": "empty_mask"},
    ]
    assert worst_images(rows, COD, 2) == [("c", "s_measure", 0.2), ("a", "s_measure", 0.5)]
    assert [one.image for one in worst_images(rows, COD, 9, "mae")] == ["a", "c", "b"]
    assert [one.image for one in worst_images(rows, COD, 9, "hd95")] == ["c", "a"]
    with pytest.raises(UsageError, match="no image has a value of iou"):
        worst_images(rows, COD, 2, "iou")
    with pytest.raises(UsageError, match="ask for 1 or more"):
        worst_images(rows, COD, 0)


def test_images_have_their_own_value_of_what_the_data_set_has():
    counts = [(9, 0, 1, 10), (5, 5, 5, 5), (0, 0, 0, 20)]
    rows = [
        {"image": name, "flags": "", "ber_dataset": None} | dict(zip(COUNTS, c, strict=True))
        for name, c in zip("abc", counts, strict=True)
    ]
    worst = worst_images(rows, get_protocol("shadow_sbu"), 3)
    assert [(one.image, one.value) for one in worst] == [
        ("b", 0.5),
        ("c", 0.5),
        ("a", pytest.approx(0.05)),
    ]
    (first,) = worst_images(rows, get_protocol("pooled"), 1)
    assert (first.image, first.value) == ("c", 0)


def test_worst_images_are_pictured(tmp_path):
    mask = np.zeros((300, 400), np.uint8)
    mask[100:200, 100:200] = 255
    pred = np.roll(mask, 50, axis=1)
    image, errors = np.full((300, 400, 3), 60, np.uint8), error_picture(pred, mask)
    result = score(COD, {"ä" * 200: (pred, mask), "b": (mask, mask)}).result()
    worst = worst_images(result.rows, COD, 2)
    whole, bare = Views(pred, mask, errors, image), Views(pred, mask, errors)
    with_image = write_worst(worst, lambda name: whole, tmp_path / "a.png", "worst of LoRA")
    without = write_worst(worst, lambda name: bare, tmp_path / "b.png")
    wide, narrow = (cv2.imread(str(path)) for path in (with_image, without))
    assert wide.shape[1] > narrow.shape[1]
    assert wide.shape[0] > narrow.shape[0]  # by the title
    blue, orange = [181, 90, 0], [0, 100, 220]  # as OpenCV orders channels
    for colour in (blue, orange):
        assert (wide == colour).all(axis=2).any()


def test_errors_are_blue_where_missed_and_orange_where_invented():
    pred = np.array([[255, 0, 255, 0, 128]], np.uint8)
    mask = np.array([[255, 255, 0, 0, 0]], np.uint8)
    shown = error_picture(pred, mask)[0].tolist()
    assert shown[:4] == [[255, 255, 255], [0, 90, 181], [220, 100, 0], [255, 255, 255]]
    assert shown[4][2] == round(255 * (1 - 128 / 255))


@pytest.mark.parametrize("name", MAP_PROTOCOLS)
def test_pysodmetrics_agrees_under_every_protocol(name):
    protocol = MAP_PROTOCOLS[name]
    result = score(protocol).result()
    seen = []
    found = verify_scores(
        result.rows, PAIRS.__getitem__, protocol, 12, on_progress=lambda *at: seen.append(at)
    )
    assert seen[-1] == (12, 12)
    assert len(found.images) == 12
    assert found.largest <= 1e-9
    keys = {key for key in protocol.metrics if not key.endswith("_dataset")}
    asked = set(found.differences) | set(found.skipped)
    assert keys <= asked
    if any(key.endswith("_dataset") for key in protocol.metrics):
        assert "counts" in found.differences
    if name == "cod_matlab":
        assert set(found.skipped) >= {"e_mean", "f_max", "e_adaptive"}
        assert {"mae", "weighted_f", "f_adaptive"} <= found.differences.keys()


def test_a_wrong_row_is_noticed():
    rows = score(COD).result().rows
    for row in rows:
        if row["mae"] is not None:
            row["mae"] += 1e-6
    found = verify_scores(rows, PAIRS.__getitem__, COD, 3)
    assert found.differences["mae"] == pytest.approx(1e-6)
    assert found.differences["iou"] == 0
    shadow = get_protocol("shadow_sbu")
    rows = score(shadow).result().rows
    for row in rows:
        row["tp"] += 2
    assert verify_scores(rows, PAIRS.__getitem__, shadow, 3).differences["counts"] == 2


def test_images_are_drawn_by_seed():
    rows = score(COD).result().rows
    first, again, other = (
        verify_scores(rows, PAIRS.__getitem__, COD, 5, seed).images for seed in (0, 0, 1)
    )
    assert first == again == tuple(sorted(first))
    assert other != first
    left_out = {row["image"] for row in rows if "empty_mask" in row["flags"]}
    everything = verify_scores(rows, PAIRS.__getitem__, COD, 1000)
    assert left_out
    assert set(everything.images) == PAIRS.keys() - left_out
    assert any(key.startswith("s_measure of ") for key in everything.skipped)
    with pytest.raises(UsageError, match="ask for 1 or more"):
        verify_scores(rows, PAIRS.__getitem__, COD, 0)
