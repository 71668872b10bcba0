"""Plans: what seeds and images resolve, and how many would settle a comparison, by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from lpmoe_bench.analysis.planning import resolved, resolved_text, seeds_needed, settling
from lpmoe_bench.analysis.significance import compare_paired, spread_of

SEEDS_ALONE = [[1.0] * 3, [7.0] * 3, [4.0] * 3]  # sd 3 over seeds, on images that never differ


def test_what_is_resolved_by_hand_where_seeds_alone_vary():
    # t at 0.975 with 2 degrees is 4.303, the normal at 0.8 is 0.8416: 5.144 x 3 / sqrt(3).
    spread = spread_of(SEEDS_ALONE)
    assert resolved(spread, 0.05) == pytest.approx((4.3027 + 0.8416) * math.sqrt(3), rel=1e-4)
    assert resolved(spread, 0.01) == pytest.approx((9.9248 + 0.8416) * math.sqrt(3), rel=1e-4)
    assert resolved(spread, 0.05, seeds=12) == pytest.approx(
        (stats.t.ppf(0.975, 11) + 0.8416) * 3 / math.sqrt(12), rel=1e-3
    )
    assert resolved(spread, 0.05, seeds=2) is None  # two seeds give no verdict


def test_more_images_help_where_images_vary():
    rng = np.random.default_rng(0)
    spread = spread_of(rng.normal(0, 0.1, (1, 50)) + rng.normal(0, 0.01, (3, 50)))
    now, four = resolved(spread, 0.05) or 0.0, resolved(spread, 0.05, units=200) or 0.0
    assert 0.4 < four / now < 0.6


def test_seeds_needed_by_hand():
    # Mean 4: (t(n - 1) + 0.8416) 3 / sqrt(n) is 4.27 at n = 5 ... found by trying each n.
    (result,) = compare_paired([spread_of(SEEDS_ALONE)])
    fewest = next(
        n for n in range(4, 99) if (stats.t.ppf(0.975, n - 1) + 0.8416) * 3 / math.sqrt(n) <= 4
    )
    assert result.verdict == "inconclusive"
    assert seeds_needed(result) == fewest == 7
    assert settling(result) == "about 4 more seeds would settle it with 80 % power, 7 in all"


def test_seeds_needed_count_with_holm():
    unsettled = spread_of(SEEDS_ALONE)
    noise = spread_of([[-1.0] * 3, [1.5] * 3, [0.2] * 3])
    clear = spread_of([[4.0] * 3, [4.01] * 3, [4.005] * 3])
    fewest = next(
        n for n in range(4, 99) if (stats.t.ppf(1 - 0.0125, n - 1) + 0.8416) * 3 / math.sqrt(n) <= 4
    )
    assert seeds_needed(compare_paired([unsettled, noise])[0]) == fewest > 7
    found = compare_paired([unsettled, clear])
    assert [result.verdict for result in found] == ["inconclusive", "better"]
    assert seeds_needed(found[0]) == 7  # what is settled takes no part of the level


def test_images_alone_can_stand_in_the_way():
    image = np.random.default_rng(0).normal(0, 1, (1, 30))
    d = image - image.mean() + 0.01 + np.random.default_rng(1).normal(0, 1e-4, (3, 30))
    (result,) = compare_paired([spread_of(d)])
    assert seeds_needed(result) is None
    assert settling(result) == "more seeds alone would not settle it; more test images may"


def test_a_difference_within_the_margin_may_be_settled_as_equal():
    d = np.random.default_rng(4).normal(0, 0.02, (3, 1)) * np.ones((3, 40))
    (result,) = compare_paired([spread_of(d - d.mean())], 0.02)
    needed = seeds_needed(result)
    assert result.verdict == "inconclusive"
    assert needed is not None
    assert 3 < needed < 60


def test_a_footer_has_the_least_and_the_most_that_is_resolved():
    pair = [spread_of(SEEDS_ALONE), spread_of(np.array(SEEDS_ALONE) / 10)]
    one, two = (resolved(spread, 0.025) or 0.0 for spread in pair)
    text = resolved_text(compare_paired(pair), lambda value: f"{value:.2f}")
    assert text == f"Differences from {two:.2f} to {one:.2f} on are found here with 80 % power."
    few = compare_paired([spread_of([[1.0, 2.0], [2.0, 1.0]])])
    assert resolved_text(few, str) == ""


def test_one_group_of_nearly_all_images_resolves_nothing():
    d = np.array([[0.3, 0.1, 0.2], [0.31, 0.1, 0.2], [0.305, 0.1, 0.2]])
    even, one = spread_of(d, (10, 10, 10)), spread_of(d, (98, 1, 1))
    assert compare_paired([even])[0].verdict == "inconclusive"
    assert resolved(even, 0.05) is not None
    (result,) = compare_paired([one], 10.0)  # any margin: the others say nothing of groups
    assert result.verdict == "inconclusive"
    assert resolved(one, 0.05) is None
    assert seeds_needed(result) is None
    assert settling(result).startswith("one group holds nearly all images")


def test_maps_of_no_seed_are_not_told_to_add_seeds():
    (result,) = compare_paired([spread_of(SEEDS_ALONE)])
    assert "more seeds" in settling(result)
    assert "more test images" in settling(result, models=True)
