"""Extra metrics: on numbers worked by hand, against PySODMetrics, and averaged by a scorer."""

import dataclasses
import math
import pickle
import warnings

import numpy as np
import py_sod_metrics as sod
import pytest

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.extra import (
    EXTRA,
    Extra,
    boundary_iou,
    extra_scores,
    get_extra,
    hausdorff95,
)
from lpmoe_bench.metrics.facts import METRICS, Metric
from lpmoe_bench.metrics.protocols import explain_metric, get_protocol
from lpmoe_bench.metrics.scorer import Scorer

COD = get_protocol("cod")


def box(shape, rows, columns):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def soft_pairs(count, seed):
    """Float maps beside masks of one or two boxes."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        h, w = (int(side) for side in rng.integers(12, 40, 2))
        g = box((h, w), (2, int(rng.integers(4, h - 2))), (1, int(rng.integers(4, w // 2))))
        g |= box((h, w), (h - 4, h - 1), (w - 5, w - 1))
        p = np.clip(0.6 * g + 0.5 * rng.random((h, w)) - 0.1, 0, 1)
        yield p, g, rng.integers(0, 256, (h, w, 3)).astype(np.uint8)


def test_boundary_iou_by_hand():
    # The diagonal is 14, so a band is 1 pixel wide. Rings of 12 pixels, moved by one column:
    # three pixels of each long side meet, and nothing else.
    mask = box((10, 10), (3, 7), (3, 7))
    assert boundary_iou(np.roll(mask, 1, axis=1), mask) == 6 / 18
    assert boundary_iou(mask, mask) == 1
    # What touches the frame of the image has a boundary there.
    full = np.ones((10, 10), bool)
    assert boundary_iou(box((10, 10), (1, 9), (1, 9)), full) == 0
    assert boundary_iou(box((10, 10), (0, 9), (0, 10)), full) == 26 / (36 + 8)


def test_the_band_grows_with_the_image():
    # The diagonal is 100, so a band is 2 pixels wide: a hollow object counts like a whole one.
    mask = box((60, 80), (20, 30), (20, 30))
    hollow = mask & ~box((60, 80), (22, 28), (22, 28))
    assert boundary_iou(hollow, mask) == 1
    assert boundary_iou(mask & ~box((60, 80), (21, 29), (21, 29)), mask) == 36 / 64


def test_hausdorff_by_hand():
    far = hausdorff95(box((9, 9), (3, 4), (4, 5)), box((9, 9), (0, 1), (0, 1)))
    assert far == 5  # 3 down, 4 across
    # Five pixels each way at 0 and one at 10: the 95th percentile of 11 lies half way to it.
    line = box((20, 9), (2, 3), (1, 6))
    assert hausdorff95(line | box((20, 9), (12, 13), (3, 4)), line) == pytest.approx(5)
    # Of 41 distances the 95th percentile is the 39th: one stray pixel does not count.
    line = box((20, 30), (2, 3), (1, 21))
    assert hausdorff95(line | box((20, 30), (12, 13), (3, 4)), line) == 0
    # From outline to outline: what lies inside has no distance.
    mask = box((30, 30), (5, 25), (5, 25))
    assert hausdorff95(mask & ~box((30, 30), (10, 20), (10, 20)), mask) > 0
    assert hausdorff95(mask, mask) == 0


def test_what_is_empty():
    empty, some = np.zeros((3, 4), bool), box((3, 4), (0, 1), (0, 1))
    assert boundary_iou(empty, empty) is hausdorff95(empty, empty) is None
    assert boundary_iou(some, empty) == boundary_iou(empty, some) == 0
    assert hausdorff95(some, empty) is None
    assert hausdorff95(empty, some) == 5  # the diagonal: nothing can be farther


def test_equal_to_pysodmetrics():
    keys = [key for key, extra in EXTRA.items() if "PySODMetrics" in extra.source]
    for p, g, image in soft_pairs(6, seed=1):
        found = extra_scores(keys, p, g, image)
        scale, context, camouflage = (
            sod.MSIoU(True, True, with_binary=True),
            sod.ContextMeasure(),
            sod.CamouflageContextMeasure(),
        )
        effort, error = sod.HumanCorrectionEffortMeasure(), sod.SizeInvarianceMAE()
        f = sod.FmeasureHandler(True, True, beta=0.3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # np.trapz
            for recorder in (
                *(scale, context, effort, error),
                sod.SizeInvarianceFmeasureV2({"f": f}),
            ):
                recorder.step(p, g, normalize=False)
        camouflage.step(p, g, img=image, normalize=False)
        assert found == pytest.approx(
            {
                "msiou_binary": scale.binary_results[0],
                "msiou_adaptive": scale.adaptive_results[0],
                "msiou_mean257": np.mean(scale.dynamic_results[0]),
                "hce": effort.hces[0],
                "context_measure": context.scores[0],
                "camouflage_context_measure": camouflage.scores[0],
                "si_mae": error.maes[0],
                "si_f_mean": np.mean(f.dynamic_results[0]),
                "si_f_adaptive": f.adaptive_results[0],
            },
            abs=1e-12,
        )
        assert 0 < found["si_mae"] < 1


def test_size_invariant_by_hand():
    # Objects of 100 and 64 pixels; the map has the first one, exactly, and nothing else.
    first, second = box((40, 40), (2, 12), (2, 12)), box((40, 40), (20, 28), (20, 28))
    found = extra_scores(
        ["si_f_mean", "si_f_adaptive", "si_mae"], first.astype(float), first | second
    )
    rest = (1600 - 164) / 164
    assert found["si_mae"] == pytest.approx((0 + 1 + rest * 0) / (2 + rest))
    # A map of zeros is object throughout at threshold 0, which the adaptive one then is.
    everything = [1.3 * p / (0.3 * p + 1) for p in (100 / 1600, 64 / 1600)]
    assert found["si_f_adaptive"] == pytest.approx((1 + everything[1]) / 2)
    assert found["si_f_mean"] == pytest.approx((255 + everything[0] + everything[1]) / 512)


def test_what_breaks_pysodmetrics_has_a_value_or_none():
    g = np.zeros((512, 512), bool)
    g[:, ::4] = g[:, 1::4] = True  # more edge pixels than 16 bits hold
    assert extra_scores(["msiou_binary"], g.astype(float), g) == {"msiou_binary": 1}
    size = ["si_mae", "si_f_mean", "si_f_adaptive"]
    many = np.zeros((30, 30), bool)
    many[::3, ::3] = True  # 100 objects
    assert set(extra_scores(size, many / 1.0, many).values()) == {None}
    for plain in (np.zeros((9, 9), bool), np.ones((9, 9), bool)):
        assert set(extra_scores(size, plain / 1.0, plain).values()) == {None}
    whole = np.ones((20, 20), bool)
    whole[5, 5] = False  # the box of the object covers the image
    found = extra_scores(size, whole / 1.0, whole)
    assert found["si_mae"] is None
    assert found["si_f_adaptive"] == 1
    diagonal = np.eye(9, dtype=bool)
    image = np.zeros((9, 9, 3), np.uint8)
    context = ["context_measure", "camouflage_context_measure"]
    assert set(extra_scores(context, diagonal / 1.0, diagonal, image).values()) == {None}
    small = np.ones((6, 9), bool)
    assert extra_scores(context, small / 1.0, small, image[:6])[context[1]] is None


def test_every_extra_is_told_and_qualified():
    assert not EXTRA.keys() & METRICS.keys()
    for key, extra in EXTRA.items():
        assert extra.per_image
        for field in ("source", "hazard", "undefined", "cost"):
            assert getattr(extra, field), (key, field)
        told = dict(explain_metric(extra))
        assert f"--extra {key}" in told["note"]
    assert dict(explain_metric(EXTRA["hd95"]))["unit"] == "px"
    assert not EXTRA["hd95"].higher_is_better
    assert not EXTRA["hce"].higher_is_better
    for word, names in (("MSIoU", "msiou_binary or msiou_adaptive"), ("SI-F", "si_f_mean or")):
        with pytest.raises(UsageError, match=f"say {names}"):
            get_extra(word)
    with pytest.raises(UsageError, match="did you mean 'hd95'"):
        get_extra("hd96")


def test_an_image_is_asked_for_and_checked():
    p, g, image = next(soft_pairs(1, seed=2))
    with pytest.raises(UsageError, match="camouflage_context_measure looks at the image"):
        extra_scores(["camouflage_context_measure"], p, g)
    with pytest.raises(DataError, match="sizes must be equal"):
        extra_scores(["camouflage_context_measure"], p, g, image[:-1])


def bytes_of(pairs):
    for index, (p, g, image) in enumerate(pairs):
        yield f"image{index}", (p * 255).astype(np.uint8), g.astype(np.uint8) * 255, image


def test_a_scorer_averages_what_has_a_value():
    extra = ("hd95", "si_mae", "boundary_iou")
    images = list(bytes_of(soft_pairs(5, seed=3)))
    full = np.full_like(images[0][1], 255)
    images[0] = ("full", images[0][1], full, images[0][3])  # has no size-invariant error
    images.append(("none", full, 0 * full, images[0][3]))  # left out
    plain, more = Scorer(COD), Scorer(COD, extra=extra)
    parts = [Scorer(COD, extra=extra) for _ in range(2)]
    for index, (name, pred, mask, _) in enumerate(images):
        plain.add(name, pred, mask)
        more.add(name, pred, mask)
        parts[index % 2].add(name, pred, mask)
    before, after = plain.result(), more.result()
    parts[1].merge(pickle.loads(pickle.dumps(parts[0])))
    assert parts[1].result() == after
    # Nothing else changes.
    assert list(after.scores) == [*COD.metrics, *extra]
    assert {key: after.scores[key] for key in COD.metrics} == before.scores
    assert [{k: v for k, v in row.items() if k not in extra} for row in after.rows] == before.rows
    for key, left_out in (("hd95", 0), ("si_mae", 1), ("boundary_iou", 0)):
        values = [row[key] for row in after.rows if row[key] is not None]
        assert len(values) == 5 - left_out
        assert after.scores[key] == math.fsum(values) / len(values)
        assert after.counts[f"{key}_undefined"] == left_out
    assert [row["hd95"] for row in after.rows if row["image"] == "none"] == [None]
    name, pred, mask, _ = images[1]
    stretched = (pred - pred.min()) / (pred.max() - pred.min())
    expected = extra_scores(extra, stretched, mask > 128)
    row = next(row for row in after.rows if row["image"] == name)
    assert {key: row[key] for key in extra} == pytest.approx(expected)


def test_no_value_at_all_is_none():
    full = np.full((8, 8), 255, np.uint8)
    scorer = Scorer(COD, extra=["si_mae"])
    scorer.add("a", full, full)
    assert scorer.result().scores["si_mae"] is None
    assert scorer.result().counts["si_mae_undefined"] == 1
    with pytest.raises(AssertionError, match="must agree"):
        scorer.merge(Scorer(COD))
    with pytest.raises(UsageError, match="did you mean 'si_mae'"):
        Scorer(COD, extra=["si_mea"])


def test_a_new_metric_is_one_entry(monkeypatch):
    def darkness(prediction, mask, image):
        calls.append(prediction.shape)
        return {"dark": float(1 - prediction.mean()), "object_share": float(mask.mean())}

    calls = []
    for key in ("dark", "object_share"):  # of one computation, done once
        extra = Extra(key, key, key, False, "a test", source="s", hazard="h", compute=darkness)
        monkeypatch.setitem(EXTRA, key, extra)
    scorer = Scorer(COD, extra=["dark", "object_share"])
    mask = box((8, 8), (0, 4), (0, 8)).astype(np.uint8) * 255
    scorer.add("a", mask, mask)
    assert len(calls) == 1
    assert {key: scorer.result().scores[key] for key in ("dark", "object_share")} == {
        "dark": 0.5,
        "object_share": 0.5,
    }
    assert ("note", "off by default; ask with --extra dark") in explain_metric(get_extra("dark"))


def test_a_new_metric_of_a_protocol_is_one_entry(monkeypatch):
    of_pair = Metric("hits", "Hits", "Hits", True, "a test", lambda pair, _: float(pair.binary.tp))
    of_set = Metric(
        *("rate", "Rate", "Rate", True, "a test"),
        per_image=False,
        of_counts=lambda counts: counts.tp / (counts.tp + counts.fp),
    )
    least = Metric(
        *("least", "Least", "Least", True, "a test", lambda pair, _: pair.precision_recall),
        per_image=False,
        of_curves=lambda curves, _: float(curves.min()),
    )
    for metric in (of_pair, of_set, least):
        monkeypatch.setitem(METRICS, metric.key, metric)
    protocol = dataclasses.replace(COD, name="own", metrics=("hits", "rate", "least"))
    scorer = Scorer(protocol)
    mask = box((8, 8), (0, 4), (0, 8)).astype(np.uint8) * 255
    scorer.add("a", mask, mask)
    scorer.add("b", np.full_like(mask, 255), mask)
    assert scorer.result().scores == {"hits": 32, "rate": 64 / 96, "least": 0.5}
    assert [row["tp"] for row in scorer.result().rows] == [32, 32]
