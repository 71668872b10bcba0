"""The engine against PySODMetrics 1.6.2 on adversarial pairs: every score of every pair to 1e-9."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import adversarial
import numpy as np
import py_sod_metrics as sod
import pytest
from adversarial import EACH, RATIOS, TOLERANCE, by_engine, by_pysodmetrics, draw_pairs, normalised

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics import kernels
from lpmoe_bench.metrics.engine import Measured, prepare_mask, score_pair
from lpmoe_bench.metrics.formulas import matlab_thresholds, passed
from lpmoe_bench.metrics.kernels import BAND, ONE, nearest_offsets
from lpmoe_bench.metrics.maps import PreparedMask
from lpmoe_bench.metrics.protocols import MATLAB, REFERENCE, get_protocol
from lpmoe_bench.metrics.reference import reference_scores
from lpmoe_bench.metrics.scorer import Scorer


def draw_large_pairs(count, seed):
    """Pairs of the size of real images: far from the object, and many pixels about it."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        shape = (int(rng.integers(300, 800)), int(rng.integers(300, 1100)))
        mask, noise = np.zeros(shape, np.uint8), rng.integers(0, 256, shape).astype(np.uint8)
        for _ in range(rng.integers(1, 30)):
            y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
            mask[y : y + rng.integers(1, 200), x : x + rng.integers(1, 200)] = 255
        if index % 3 == 0:
            mask[:] = 0
            mask[rng.integers(0, shape[0]), rng.integers(0, shape[1])] = 255
        preds = [noise, np.where(mask > 0, noise // 2 + 128, noise // 3), noise // 255 * 255]
        yield preds[index % 4 % 3].astype(np.uint8), mask


def floats(pairs, seed):
    """The same pairs with maps of floats that no 8-bit map can hold."""
    rng = np.random.default_rng(seed)
    for index, (pred, mask) in enumerate(pairs):
        noise = rng.random(pred.shape) * rng.choice([0, 1e-9, 1 / 255, 0.3])
        kind = np.float32 if index % 2 else np.float64
        yield np.clip(pred / 255 + noise, 0, 1).astype(kind), mask


def test_every_score_equals_pysodmetrics():
    worst = adversarial.check(draw_pairs(300, seed=1))
    assert len(worst) == 5 + len(RATIOS) * len(EACH)


def test_every_score_of_float_maps_equals_pysodmetrics():
    adversarial.check(floats(draw_pairs(150, seed=2), seed=3))


@pytest.mark.slow
def test_every_score_equals_pysodmetrics_on_thousands_of_pairs():
    print(adversarial.check(draw_pairs(3000, seed=4)))
    print(adversarial.check(floats(draw_pairs(1500, seed=5), seed=6)))
    print(adversarial.check(draw_large_pairs(40, seed=8)))


# Scorers: any division of the images gives the same bits; images and data sets differ.


COD = get_protocol("cod")
HALF = np.array([[255, 255], [0, 0]], np.uint8)
IMAGES = [(f"image{i:03d}", *pair) for i, pair in enumerate(draw_pairs(60, seed=21))]


def score(images, **options):
    scorer = Scorer(COD, **options)
    for name, pred, mask in images:
        scorer.add(name, pred, mask, dataset="set")
    return scorer


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_any_division_gives_the_same_bits(workers):
    whole = score(IMAGES).result()
    order = np.random.default_rng(workers).permutation(len(IMAGES))
    shuffled = [IMAGES[i] for i in order]
    parts = [score(shuffled[i::workers]) for i in range(workers)]
    merged = Scorer(COD)
    for part in reversed(parts):
        merged.merge(pickle.loads(pickle.dumps(part)))
    assert merged.result() == whole
    # Merging in another grouping.
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].result() == whole


def test_threads_that_share_masks_give_the_same_bits():
    whole = score(IMAGES).result()
    masks = {name: prepare_mask(mask).everything() for name, _, mask in IMAGES}
    work = [[(name, pred, masks[name]) for name, pred, _ in IMAGES[i::4]] for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(score, work))
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].result() == whole


def test_an_image_in_two_parts_is_refused():
    first, second = score(IMAGES[:3]), score(IMAGES[2:5])
    with pytest.raises(DataError, match="image image002 was scored twice"):
        first.merge(second)
    with pytest.raises(DataError, match="image image000 was scored twice"):
        first.add(*IMAGES[0])


def grey(rows):
    return np.array([[255 if c == "#" else 0 for c in row] for row in rows.split()], np.uint8)


def test_scores_of_the_data_set_are_not_the_mean_of_the_images():
    # tp, fp, fn, tn: a 1 1 1 13, b 8 0 4 4, c 0 1 1 14
    images = [
        ("a", grey("##.. .... .... ...."), grey("#..# .... .... ....")),
        ("b", grey("#### #### .... ...."), grey("#### #### #### ....")),
        ("c", grey("...# .... .... ...."), grey("#... .... .... ....")),
    ]
    result = score(images).result()
    assert result.pixels == (9, 2, 6, 31)
    assert result.pixels.iou == pytest.approx(9 / 17)
    assert result.pixels.dice == pytest.approx(18 / 26)
    assert result.pixels.ber == pytest.approx(1 - (9 / 15 + 31 / 33) / 2)
    assert result.scores["iou"] == pytest.approx((1 / 3 + 8 / 12 + 0) / 3)
    assert result.scores["dice"] == pytest.approx((2 / 4 + 16 / 20 + 0) / 3)
    balanced = [Fraction(1, 2) + Fraction(13, 14), Fraction(8, 12) + 1, Fraction(14, 15)]
    assert result.scores["ber"] == pytest.approx(float(1 - sum(balanced) / 6))
    assert result.pixels.iou - result.scores["iou"] > 0.19


def test_images_left_out_do_not_count_in_the_data_set():
    empty = ("b", grey("##.."), grey("...."))
    assert score([("a", grey("##.."), grey("#..."))]).result().pixels == (1, 1, 0, 2)
    assert score([("a", grey("##.."), grey("#...")), empty]).result().pixels == (1, 1, 0, 2)


def test_what_is_unusual_is_said_with_the_name():
    last = grey(".... ....").copy()
    last[-1] = 255
    images = [("a", last, last), ("b", 0 * last, grey("#... ...."))]
    result = score(images).result()
    assert [sentence.split(":")[0] for sentence in result.warnings] == ["image a", "image b"]
    assert "leaves out the empty quadrants" in result.warnings[0]
    assert "its map is constant" in result.warnings[1]
    assert np.isnan(score(images, mode=REFERENCE).result().scores["s_measure"])


# The engine against numbers that PySODMetrics 1.6.2 gave once, kept beside their pairs.
#
# They guard against a drift of both on a new numpy. To make them again:
# PYTHONPATH=tests/support python tests/metrics/test_engine.py


FILE = Path(__file__).parents[1] / "golden" / "metrics.json"
LEVELS = [0, 64, 127, 128, 254, 255]  # of each curve, beside its mean and maximum


def told(scores):
    """Scores as JSON holds them: curves by some of their points, NaN as None."""
    found = {}
    for key, value in scores.items():
        values = np.asarray(value, float)
        if values.ndim:
            values = np.array([*values[LEVELS], values.mean(), values.max()])
        found[key] = [None if np.isnan(v) else float(v) for v in values.ravel()]
    return found


def pixels(vector, key):
    return np.frombuffer(bytes.fromhex(vector[key]), np.uint8).reshape(vector["shape"])


def make():
    assert version("pysodmetrics") == "1.6.2"
    first, others = {}, []
    for pred, mask in draw_pairs(400, seed=7):
        if not 1 < pred.size < 300:
            continue
        scores = told(by_pysodmetrics(normalised(pred), mask > 128))
        facts = {"shape": pred.shape, "pred": pred.tobytes().hex(), "mask": mask.tobytes().hex()}
        kind = (mask.max() > 128, mask.min() > 128, scores["s_measure"] == [None])
        if first.setdefault(kind, facts) is not facts:
            others.append(facts)
        facts["scores"] = scores
    vectors = [*first.values(), *others][:24]
    lines = ",\n".join(json.dumps(vector) for vector in vectors)
    FILE.write_text(f"[\n{lines}\n]\n")


VECTORS = json.loads(FILE.read_text()) if FILE.exists() else []


def test_the_vectors_cover_what_is_hard():
    assert len(VECTORS) == 24
    masks = [pixels(vector, "mask") > 128 for vector in VECTORS]
    assert any(mask.all() for mask in masks)
    assert any(not mask.any() for mask in masks)
    assert any(None in vector["scores"]["s_measure"] for vector in VECTORS)


@pytest.mark.parametrize("vector", VECTORS, ids=[str(i) for i in range(len(VECTORS))])
def test_scores_equal_the_golden_ones(vector):
    mask = PreparedMask(pixels(vector, "mask"))
    ours = told(by_engine(Measured(pixels(vector, "pred"), mask, mode=REFERENCE)))
    assert ours.keys() == vector["scores"].keys()
    for key, expected in vector["scores"].items():
        assert [v is None for v in ours[key]] == [v is None for v in expected], key
        close = [v for v in expected if v is not None]
        assert [v for v in ours[key] if v is not None] == pytest.approx(close, abs=TOLERANCE), key


if __name__ == "__main__":
    make()


# What the modes differ in, a mask that several maps share, and maps that are refused.


def test_score_pair_equals_its_oracle_but_for_flagged_pairs():
    flagged = 0
    for pred, mask in draw_pairs(200, seed=11):
        ours, theirs = score_pair(pred, mask, COD), reference_scores(pred, mask, COD)
        assert ours.counts == theirs.counts
        assert ours.foreground_share == theirs.foreground_share
        unstable = "s_unstable" in ours.flags
        flagged += unstable
        assert ours.flags == theirs.flags + ("s_unstable",) * unstable
        for key, value in theirs.values.items():
            if not (unstable and key == "s_measure"):
                assert ours.values[key] == pytest.approx(value, abs=1e-9), key
    assert 0 < flagged < 40


def test_a_constant_quadrant_counts_one():
    # The object is the left column, so the right quadrants are background throughout, where the
    # map is 77 / 255: the mean of 36 such floats is another float.
    mask = np.zeros((17, 5), np.uint8)
    mask[:, 0] = 255
    pred = np.where(mask > 0, 255, 77).astype(np.uint8)
    pred[0, 0] = 0  # so that min-max changes nothing
    right = normalised(pred)[:, 1:]
    rests = [np.sum((part - part.mean()) ** 2) != 0 for part in (right[:9], right[9:])]
    ours = Measured(pred, PreparedMask(mask))
    theirs = Measured(pred, PreparedMask(mask), mode=REFERENCE)
    assert ours.s_unstable
    lost = rests[0] * 36 / 85 + rests[1] * 32 / 85
    assert lost > 0
    assert ours.s_measure - theirs.s_measure == pytest.approx(lost / 2, abs=1e-12)


def test_an_image_of_one_pixel_has_an_alignment_of_at_most_one():
    one, zero = np.full((1, 1), 255, np.uint8), np.zeros((1, 1), np.uint8)
    for pred, mask, expected in ((one, one, 1), (zero, one, 1), (one, zero, 0), (zero, zero, 0)):
        pair = Measured(pred, PreparedMask(mask))  # a map of 0 is object at its adaptive threshold
        assert pair.e_adaptive == expected
        assert 0 <= pair.e_curve.min() <= pair.e_curve.max() <= 1
        theirs = Measured(pred, PreparedMask(mask), mode=REFERENCE)
        assert theirs.e_adaptive == expected * 2.0**52
    result = score_pair(one, one, COD)
    assert "single_pixel" in result.flags
    assert "single_pixel" not in score_pair(one, one, get_protocol("glass")).flags
    assert result.values["e_mean"] == reference_scores(one, one, COD).values["e_mean"] == 1


def test_the_matlab_grid_is_counted_from_both_ends():
    grid = matlab_thresholds()
    assert grid[[0, 51, 255]].tolist() == [1, 1 - 51 * (1 / 255), 0]
    assert grid[204] == 51 * (1 / 255)
    assert np.all(np.diff(grid) < 0)
    naive = 1 - np.arange(256) / 255
    assert 0 < np.count_nonzero(naive != grid) < 256  # which moves counts at equal floats
    # 1 reaches all thresholds and exceeds all but the first; 0 reaches the last one only.
    assert passed(np.array([1.0, 0.0]), "matlab").tolist() == [256, 1]
    assert passed(np.array([1.0, 0.0]), "matlab", above=True).tolist() == [255, 0]


def alignment_of(binary, mask):
    """E-measure of a binary map by PySODMetrics."""
    measure = sod.Emeasure()
    measure.gt_fg_numel, measure.gt_size = int(mask.sum()), mask.size
    return measure.cal_em_with_threshold(binary.astype(float), mask, 0.5)


@pytest.mark.parametrize("floats", [False, True])
def test_matlab_mode_equals_the_literal_thresholds(floats):
    moved = 0
    for pred, mask in draw_pairs(25, seed=12):
        p, g = normalised(pred), mask > 128
        pair = Measured(p if floats else pred, PreparedMask(mask), mode=MATLAB)
        for i, threshold in enumerate(matlab_thresholds()):
            assert pair.curve.tp[i] == np.count_nonzero(p[g] >= threshold)
            assert pair.curve.fp[i] == np.count_nonzero(p[~g] >= threshold)
            assert pair.e_curve[i] == pytest.approx(alignment_of(p > threshold, g), abs=1e-12)
        adaptive = p > min(2 * p.mean(), 1)
        assert pair.e_adaptive == pytest.approx(alignment_of(adaptive, g), abs=1e-12)
        moved += not np.allclose(pair.e_curve, Measured(pred, PreparedMask(mask)).e_curve)
    assert moved > 10


def test_maps_that_share_a_mask_score_as_alone():
    pairs = list(draw_pairs(120, seed=13))
    for pred, mask in pairs[::3]:
        shared = PreparedMask(mask).everything()
        for other in (pred, np.roll(pred, 1), 255 - pred, pred):
            alone = by_engine(Measured(other, PreparedMask(mask)))
            again = by_engine(Measured(other, shared))
            assert all(np.array_equal(alone[key], again[key], equal_nan=True) for key in alone)


def test_layout_of_the_arrays_does_not_matter():
    pred, mask = next(p for p in draw_pairs(50, seed=14) if min(p[0].shape) > 9)
    straight = by_engine(Measured(pred, PreparedMask(mask)))
    for turn in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2]):
        turned = by_engine(Measured(turn(pred), PreparedMask(turn(mask))))
        assert all(np.array_equal(straight[key], turned[key]) for key in straight)
    pred.flags.writeable = False
    assert by_engine(Measured(pred, PreparedMask(mask)))["mae"] == straight["mae"]


def test_a_threshold_on_a_level_falls_as_the_reference_lets_it():
    rng, moved = np.random.default_rng(16), 0
    for _ in range(400):
        # Of n pixels a are 255, the rest share one level so that twice the mean is that level.
        n, level = int(rng.integers(3, 60)), int(rng.integers(1, 200))
        pred = np.zeros((1, n), np.uint8)
        pred[0, 0], pred[0, 1] = 255, level
        total = n * level // 2 - 255 - level
        if n * level % 2 or not 0 <= total <= 255 * (n - 2):
            continue
        for i in range(2, n):
            pred[0, i] = min(total, 255)
            total -= int(pred[0, i])
        p = normalised(pred)
        mask = np.zeros((1, n), np.uint8)
        mask[0, : n // 2] = 255
        pair = Measured(pred, PreparedMask(mask))
        expected = p >= min(2 * p.mean(), 1)
        assert pair.adaptive.tp + pair.adaptive.fp == np.count_nonzero(expected)
        histogram_mean = float(pair.map.sums.sum()) / n
        moved += np.count_nonzero(p >= 2 * histogram_mean) != np.count_nonzero(expected)
    assert moved > 0  # in some the histogram's mean alone would fall to the other side


def test_weights_equal_those_of_the_distance_transform():
    from scipy.ndimage import distance_transform_edt

    rng = np.random.default_rng(15)
    for shape in ((1, 500), (500, 1), (230, 260), (37, 41), (300, 3)):
        mask = np.zeros(shape, np.uint8)
        for _ in range(rng.integers(1, 5)):
            mask[rng.integers(0, shape[0]), rng.integers(0, shape[1])] = 255
        around = PreparedMask(mask).surroundings
        distance, (rows, columns) = distance_transform_edt(mask == 0, return_indices=True)
        expected = np.where(mask > 0, 0, np.exp(np.log(0.5) / 5 * distance))
        assert np.abs(around.weights / ONE - expected).max() < 1.2e-10
        near = np.flatnonzero((distance > 0) & (distance**2 < BAND + 0.5))
        assert np.array_equal(around.near, near)
        assert np.array_equal(around.nearest, (rows * shape[1] + columns).ravel()[near])
    assert len(nearest_offsets()[0]) == 61


@pytest.mark.parametrize(
    ("pred", "mask", "sentence"),
    [
        (np.full((2, 2), 1.5), np.zeros((2, 2), np.uint8), "floats outside of 0 to 1"),
        (np.full((2, 2), np.nan), np.zeros((2, 2), np.uint8), "floats outside of 0 to 1"),
        (np.zeros((2, 2), np.int64), np.zeros((2, 2), np.uint8), "map is int64"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), "same size"),
        (np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8), "holds only 0 and 1"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2)), "mask is float64"),
        (np.zeros((0, 2), np.uint8), np.zeros((0, 2), np.uint8), "must be uint8 of"),
    ],
)
def test_bad_arrays_are_refused(pred, mask, sentence):
    with pytest.raises(DataError, match=sentence):
        Measured(pred, PreparedMask(mask))


@pytest.mark.parametrize(
    ("pred", "mask", "sentence"),
    [
        (HALF, HALF[:1], r"image a cannot be scored: map is \(2, 2\) and mask is \(1, 2\)"),
        (HALF.astype(np.int32), HALF, "map is int32"),
        (HALF / 100, HALF, "floats outside of 0 to 1"),
        (HALF, HALF > 0, "mask is bool"),
        (HALF, HALF // 255, "mask holds only 0 and 1"),
    ],
)
def test_bad_pairs_are_refused_by_name(pred, mask, sentence):
    with pytest.raises(DataError, match=sentence):
        Scorer(COD).add("a", pred, mask)


# Kernels are compiled once for all starts, and without a cache where none can be written.


CODE = """
import numpy as np
from lpmoe_bench.metrics.kernels import weighted_sum
assert weighted_sum(np.full((2, 3), 7, np.uint8), np.full((2, 3), 5, np.uint32)) == 210
print(sum(weighted_sum.stats.cache_hits.values()), sum(weighted_sum.stats.cache_misses.values()))
"""


def starts(code, **environment):
    """Run the code in two processes, one after the other; return what each printed."""
    kept = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    return [
        subprocess.check_output(
            [sys.executable, "-c", code], env=kept | environment, text=True
        ).split()
        for _ in range(2)
    ]


def test_a_second_start_compiles_nothing_even_if_the_package_cannot_be_written(tmp_path):
    package = tmp_path / "sealed"
    package.mkdir()
    for name in ("__init__", "kernels"):
        shutil.copy(Path(kernels.__file__).with_name(f"{name}.py"), package)
    (package / "__init__.py").write_text("")
    (package / "__pycache__").touch()  # no folder can be made there, whoever runs this
    cache = tmp_path / "cache"
    code = CODE.replace("lpmoe_bench.metrics", "sealed")
    found = starts(code, PYTHONPATH=str(tmp_path), XDG_CACHE_HOME=str(cache), HOME=str(tmp_path))
    assert found == [["0", "1"], ["1", "0"]]
    assert len(list(package.iterdir())) == 3


def test_kernels_work_without_a_cache(monkeypatch):
    asked = []

    def njit(nogil, cache=False):
        asked.append(cache)
        if cache:
            raise RuntimeError("no locator available")
        return lambda function: function

    monkeypatch.setattr(kernels, "njit", njit)
    assert kernels.kernel(np.sum) is np.sum
    assert asked == [True, False]


def test_rows_tell_the_groups_of_their_images():
    rng, scorer = np.random.default_rng(0), Scorer(get_protocol("cod"))
    for name in ("v1a", "v1b", "v2a", "x"):
        mask = np.zeros((8, 9), np.uint8)
        mask[2:5, 3:6] = 255
        scorer.add(name, rng.integers(0, 256, (8, 9)).astype(np.uint8), mask, "set/test")
    bare = scorer.result()
    found = bare.with_groups({"v1a": "1", "v1b": "1", "v2a": "2"})
    assert [row["group"] for row in found.rows] == ["1", "1", "2", ""]
    assert found.counts == bare.counts | {"groups": 3}  # the last image is one of its own
    assert found.scores == bare.scores
    assert bare.with_groups({}) is bare
