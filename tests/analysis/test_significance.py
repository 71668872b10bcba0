"""Intervals, verdicts and corrections: worked by hand, and against draws of the same model."""

import math

import numpy as np
import pytest
from scipy import stats

from lpmoe_bench.analysis.significance import Uncertainty, compare_paired, holm, spread_of


def test_two_seeds_and_two_images_by_hand():
    # Rows 1 3 and 5 11: mean 5; seed means 2 and 8, image means 3 and 7.
    # MS seed = 2 (9 + 9) / 1 = 36, MS image = 2 (4 + 4) / 1 = 16,
    # rest 1 - 2 - 3 + 5 = 1, and -1, -1, 1 by symmetry: MS rest = 4 / 1 = 4.
    spread = spread_of([[1, 3], [5, 11]])
    assert (spread.mean, spread.squares) == (5, (36, 16, 4))
    assert (spread.seed_variance, spread.image_variance, spread.rest_variance) == (16, 6, 4)
    assert spread.variance == (36 + 16 - 4) / 4
    # Of the mean: 16 / 2, 6 / 2 and 4 / 4, twelve in all.
    assert spread.shares == pytest.approx((8 / 12, 3 / 12, 1 / 12))


def test_one_seed_is_the_paired_t_test_over_images():
    rng = np.random.default_rng(0)
    d = rng.normal(0.02, 0.1, (1, 40))
    (result,) = compare_paired([spread_of(d)])
    assert result.p == pytest.approx(stats.ttest_1samp(d[0], 0).pvalue)
    low, high = stats.ttest_1samp(d[0], 0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((low, high))
    assert result.verdict == "inconclusive"  # of the methods, whatever the images say


def test_without_images_it_is_the_paired_t_test_over_seeds():
    d = np.array([[0.01], [0.03], [0.02], [0.05]])
    (result,) = compare_paired([spread_of(d)])
    assert result.p == pytest.approx(stats.ttest_1samp(d[:, 0], 0).pvalue)


def test_where_only_seeds_vary_it_is_the_t_test_over_them_however_many_images():
    d = np.array([0.01, 0.03, 0.02])[:, None] * np.ones((3, 50))
    (result,) = compare_paired([spread_of(d)])
    assert result.p == pytest.approx(stats.ttest_1samp(d[:, 0], 0).pvalue, rel=1e-5)


@pytest.mark.parametrize(
    ("seeds", "units", "squares"),
    [
        (3, 250, (1.5, 2.0, 1.0)),
        (3, 5, (0.5, 10.0, 1.0)),
        (5, 8, (1.0, 1.0, 1.0)),
        (2, 60, (4.0, 3.0, 1.0)),
    ],
)
def test_the_rule_is_the_mean_over_draws_of_its_model(seeds, units, squares):
    rng, draws = np.random.default_rng(3), 400_000
    freedom = (seeds - 1, units - 1, (seeds - 1) * (units - 1))
    a, b, c = (
        square * n / rng.chisquare(n, draws) for square, n in zip(squares, freedom, strict=True)
    )
    variance = np.maximum(np.maximum(a + b - c, a), b) / (seeds * units)
    found = Uncertainty(squares, seeds, units)
    usual = math.sqrt(max(squares[0] + squares[1] - squares[2], *squares[:2]) / (seeds * units))
    for times in (1.0, 3.0, 8.0):
        drawn = stats.norm.sf(times * usual / np.sqrt(variance))
        error = drawn.std() / math.sqrt(draws)
        assert found.beyond(times * usual) == pytest.approx(drawn.mean(), abs=5 * error, rel=1e-3)


def test_the_interval_is_where_p_is_5_percent():
    found = Uncertainty((1.5, 2.0, 1.0), 3, 40)
    assert 2 * found.beyond(found.half_width(0.95)) == pytest.approx(0.05, rel=1e-6)


def test_holm_by_hand():
    # Sorted .01 .02 .04, times 3, 2, 1: .03, .04, .04.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("seeds", "mean", "sd", "up", "verdict"),
    [
        (3, 0.05, 0.01, True, "better"),
        (3, 0.05, 0.01, False, "worse"),
        (3, -0.05, 0.01, False, "better"),
        (3, 0.0001, 0.005, True, "equal"),
        (3, 0.001, 0.2, True, "inconclusive"),
        (2, 0.05, 0.0001, True, "inconclusive"),
        (2, 0.0, 0.0001, True, "inconclusive"),
    ],
)
def test_verdicts(seeds, mean, sd, up, verdict):
    d = np.random.default_rng(1).normal(0, sd, (seeds, 200))
    spread = spread_of(d - d.mean() + mean)
    (result,) = compare_paired([spread], 0.005, higher_is_better=up)
    assert result.verdict == result.of_models == verdict
    assert result.low < mean < result.high


def test_identical_methods_are_equal_with_a_margin_and_never_better():
    zero = spread_of(np.zeros((3, 5)))
    assert compare_paired([zero], 0.005)[0].verdict == "equal"
    assert compare_paired([zero])[0].verdict == "inconclusive"


def _with_p(aim):
    """The spread of a difference whose p is just this, before Holm."""
    d = np.random.default_rng(2).normal(0, 0.1, (3, 60))
    width = spread_of(d).uncertainty.half_width(1 - aim)
    return spread_of(d - d.mean() + width)


def test_a_family_is_harder_to_win_than_one_line():
    weak, noise = _with_p(0.03), [_with_p(0.7)] * 9
    assert compare_paired([weak])[0].verdict == "better"
    (found, *_) = compare_paired([weak, *noise])
    assert (found.verdict, found.family) == ("inconclusive", 10)
    assert found.p == pytest.approx(0.3, rel=1e-5)


def test_equal_is_harder_to_say_of_many():
    d = np.random.default_rng(2).normal(0, 0.01, (3, 60))
    same = spread_of(d - d.mean())
    margin = same.uncertainty.half_width(1 - 2 * 0.03)  # so that each of two sides has p 0.03
    (alone,) = compare_paired([same], margin)
    assert (alone.verdict, alone.p_equal) == ("equal", pytest.approx(0.03, rel=1e-5))
    both = compare_paired([same, same], margin)
    assert [one.verdict for one in both] == ["inconclusive"] * 2
    assert both[0].p_equal == pytest.approx(0.06, rel=1e-5)


def test_each_look_costs():
    weak = _with_p(0.02)
    assert compare_paired([weak], looks=2)[0].p == pytest.approx(0.04, rel=1e-5)
    assert compare_paired([weak], looks=3)[0].verdict == "inconclusive"
