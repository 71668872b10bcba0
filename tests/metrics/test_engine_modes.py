"""What the modes differ in, a mask that several maps share, and maps that are refused."""

import numpy as np
import py_sod_metrics as sod
import pytest
from test_engine import by_engine, draw_pairs, normalised

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.engine import Measured, score_pair
from lpmoe_bench.metrics.formulas import matlab_thresholds, passed
from lpmoe_bench.metrics.kernels import BAND, ONE, nearest_offsets
from lpmoe_bench.metrics.maps import PreparedMask
from lpmoe_bench.metrics.protocols import MATLAB, MODES, REFERENCE, get_mode, get_protocol
from lpmoe_bench.metrics.reference import reference_scores

COD = get_protocol("cod")


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


def test_an_empty_quadrant_is_left_out_or_nan():
    mask = np.zeros((4, 4), np.uint8)
    mask[-1] = 255
    assert Measured(mask, PreparedMask(mask)).s_measure == pytest.approx(1)
    assert np.isnan(Measured(mask, PreparedMask(mask), mode=REFERENCE).s_measure)


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


def test_modes_are_named():
    assert list(MODES) == ["default", "reference", "matlab", "pranet"]
    assert get_mode("matlab") is MATLAB
    with pytest.raises(UsageError, match="did you mean 'matlab'"):
        get_mode("mathlab")


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
