"""Intervals, verdicts and corrections: worked by hand, and by simulation of their promises."""

import math

import numpy as np
import pytest
from scipy import stats

from lpmoe_bench.analysis.significance import compare_paired, half_width, holm, settling, spread_of


def test_two_seeds_and_two_images_by_hand():
    # Rows 1 3 and 5 11: mean 5; seed means 2 and 8, image means 3 and 7.
    # MS seed = 2 (9 + 9) / 1 = 36, MS image = 2 (4 + 4) / 1 = 16,
    # rest 1 - 2 - 3 + 5 = 1, and -1, -1, 1 by symmetry: MS rest = 4 / 1 = 4.
    spread = spread_of([[1, 3], [5, 11]])
    assert spread.mean == 5
    assert (spread.seed_variance, spread.image_variance, spread.rest_variance) == (16, 6, 4)
    assert spread.variance == (36 + 16 - 4) / 4
    assert spread.freedom == pytest.approx(48**2 / (36**2 + 16**2 + 4**2))
    assert half_width(spread) == pytest.approx(stats.t.ppf(0.975, spread.freedom) * math.sqrt(12))


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


def test_holm_by_hand():
    # Sorted .01 .02 .04, times 3, 2, 1: .03, .04, .04.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("mean", "sd", "margin", "up", "verdict"),
    [
        (0.05, 0.01, 0.005, True, "better"),
        (0.05, 0.01, 0.005, False, "worse"),
        (-0.05, 0.01, 0.005, False, "better"),
        (0.0001, 0.005, 0.005, True, "equal"),
        (0.001, 0.2, 0.005, True, "inconclusive"),
    ],
)
def test_verdicts(mean, sd, margin, up, verdict):
    d = np.random.default_rng(1).normal(0, sd, (3, 200))
    (result,) = compare_paired([spread_of(d - d.mean() + mean)], margin, higher_is_better=[up])
    assert result.verdict == verdict


def test_identical_methods_are_equal_with_a_margin_and_never_better():
    zero = spread_of(np.zeros((3, 5)))
    assert compare_paired([zero], 0.005)[0].verdict == "equal"
    assert compare_paired([zero])[0].verdict == "inconclusive"


def test_a_family_is_harder_to_win_than_one_line():
    d = np.random.default_rng(2).normal(0, 0.1, (3, 60))
    weak = spread_of(d - d.mean() + 1.05 * half_width(spread_of(d)))
    assert compare_paired([weak])[0].verdict == "better"
    noise = [spread_of(np.random.default_rng(s).normal(0, 0.1, (3, 60))) for s in range(9)]
    assert compare_paired([weak, *noise])[0].verdict == "inconclusive"


def test_seeds_needed_by_hand():
    # Seeds at 1 and 7 on images that never differ: mean 4, sd 4.243 over seeds, two of them.
    # 4 > t(n - 1) 4.243 / sqrt(n) first holds at n = 7: 2.447 x 1.604 = 3.92; n = 6 gives 4.45.
    spread = spread_of([[1, 1, 1], [7, 7, 7]])
    (result,) = compare_paired([spread])
    assert result.verdict == "inconclusive"
    assert result.seeds_needed == 7
    assert settling(result) == "about 5 more seeds would settle it, 7 in all"


def test_seeds_needed_count_with_holm():
    # As above, but beside a line that is not settled either, so that p must be below 0.025:
    # t at 0.9875 is 2.84 for n = 8, 2.84 x 1.5 = 4.26, and 2.75 for n = 9, 2.75 x 1.414 = 3.89.
    unsettled, clear = spread_of([[1, 1, 1], [7, 7, 7]]), spread_of([[4, 4, 4], [4.01, 4.01, 4.01]])
    noise = spread_of([[-1, -1, -1], [1.5, 1.5, 1.5]])
    assert compare_paired([unsettled, noise])[0].seeds_needed == 9
    found = compare_paired([unsettled, clear])
    assert [result.verdict for result in found] == ["inconclusive", "better"]
    assert found[0].seeds_needed == 7  # what is settled takes no part of the level


def test_images_alone_can_stand_in_the_way():
    image = np.random.default_rng(0).normal(0, 1, (1, 30))
    d = image - image.mean() + 0.01 + np.random.default_rng(1).normal(0, 1e-4, (3, 30))
    (result,) = compare_paired([spread_of(d)])
    assert result.seeds_needed is None
    assert settling(result) == "more seeds alone would not settle it; more test images may"


def _coverage(seeds, images, seed_sd, image_sd, rest_sd, trials):
    random, inside = np.random.default_rng(5).standard_normal, 0
    for _ in range(trials):
        d = seed_sd * random((seeds, 1)) + image_sd * random((1, images))
        spread = spread_of(d + rest_sd * random((seeds, images)))
        inside += abs(spread.mean) < half_width(spread)
    return inside / trials


SPREADS = [(0.01, 0.1, 0.1), (0.004, 0.1, 0.05), (0.02, 0.02, 0.1), (0, 0.1, 0.1)]


@pytest.mark.parametrize("sds", SPREADS)
def test_three_seeds_cover_at_least_93_percent(sds):
    assert _coverage(3, 100, *sds, trials=3000) >= 0.93


@pytest.mark.parametrize("sds", SPREADS)
def test_eight_seeds_cover_93_to_97_percent(sds):
    assert 0.93 <= _coverage(8, 100, *sds, trials=3000) <= 0.97


def test_false_alarms_stay_at_the_stated_level():
    rng = np.random.default_rng(7)
    trials, alarms = 1500, 0
    for _ in range(trials):
        noise = rng.normal(0, 0.01, (4, 3, 1)) + rng.normal(0, 0.1, (4, 3, 60))
        family = [spread_of(d + rng.normal(0, 0.1, (1, 60))) for d in noise]
        alarms += any(result.verdict in ("better", "worse") for result in compare_paired(family))
    assert alarms / trials <= 0.065  # 5 % and three standard errors; without Holm about 17 %
