"""What verdicts promise, simulated small: benchmarks/verdicts.py has the whole of it.

Each promise is held beside the method that broke it, so that the bounds are known to be able to
fail: Satterthwaite's degrees of freedom, images of one video taken as independent, no correction
of "equal", and groups of one size where some are large.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lpmoe_bench.analysis.groups import Grouping
from lpmoe_bench.analysis.pairing import Rules, judge_paired, pair_samples
from lpmoe_bench.analysis.samples import Samples
from lpmoe_bench.analysis.significance import holm
from lpmoe_bench.metrics.facts import Margin, Margins

WORST = 0.06


def scores(rng, methods, seeds, images, seed_sd, image_sd, rest_sd, sizes=(), alike=0.0):
    """Return (methods, seeds, images) of equal methods; sds are of a difference of two."""

    def over_images(*lead):
        alone = rng.standard_normal((*lead, images))
        if not sizes:
            return alone
        common = np.repeat(rng.standard_normal((*lead, len(sizes))), sizes, axis=-1)
        return math.sqrt(alike) * common + math.sqrt(1 - alike) * alone

    of_seeds = seed_sd * rng.standard_normal((methods, seeds, 1))
    of_images = image_sd * over_images(methods, 1) + rest_sd * over_images(methods, seeds)
    return (of_seeds + of_images) / math.sqrt(2)


def pairs_of(values, sizes=()):
    """Return all methods but the first, paired with it."""
    seeds, images = list(range(values.shape[1])), [str(i) for i in range(values.shape[2])]
    sides = [Samples(seeds, images, own, []) for own in values]
    places = np.repeat(np.arange(len(sizes)), sizes) if sizes else ()
    grouping = Grouping("video", {str(i): f"v{k}" for i, k in enumerate(places)}) if sizes else None
    if grouping:
        sides = [side.grouped(grouping.of) for side in sides]
    return [pair_samples(one, sides[0], seeds, "t", "s_measure", grouping) for one in sides[1:]]


def judged(pairs, margin=0.0):
    return judge_paired(pairs, Rules(Margins(Margin(margin))))


def is_false(result):
    return result.verdict in ("better", "worse")


def satterthwaite_p(spread):
    a, b, c = spread.squares
    counts = (spread.seeds - 1, spread.units - 1, (spread.seeds - 1) * (spread.units - 1))
    freedom = (a + b - c) ** 2 / sum(x**2 / n for x, n in zip((a, b, c), counts, strict=True))
    return float(2 * stats.t.sf(abs(spread.mean) / math.sqrt(spread.variance), freedom))


def test_among_six_equal_methods_a_false_verdict_is_rare():
    rng, trials = np.random.default_rng(1), 200
    found = old = lines = 0
    for _ in range(trials):
        pairs = pairs_of(scores(rng, 6, 3, 250, 0.01, 0.04, 0.05))
        results = judged(pairs)
        found += any(map(is_false, results))
        lines += sum(not one.low <= 0 <= one.high for one in results)
        old += min(holm([satterthwaite_p(pair.spread) for pair in pairs])) < 0.05
    assert found / trials <= WORST
    assert lines / trials / 5 <= WORST
    assert old / trials > WORST  # by Satterthwaite's degrees of freedom


def test_a_real_gain_is_found_all_the_same():
    rng, trials = np.random.default_rng(2), 30
    found = 0
    for _ in range(trials):
        values = scores(rng, 6, 5, 250, 0.01, 0.04, 0.05)
        values[1] += 0.03
        found += judged(pairs_of(values))[0].verdict == "better"
    assert found / trials >= 0.8


@pytest.mark.parametrize(
    ("seeds", "sizes", "alike"), [(3, (20,) * 8, 0.3), (10, (60, 30, 20, 15, 12, 10, 9, 8), 0.3)]
)
def test_intervals_over_groups_have_the_truth(seeds, sizes, alike):
    rng, trials = np.random.default_rng(3), 200
    grouped = apart = 0
    for _ in range(trials):
        values = scores(rng, 2, seeds, sum(sizes), 0.003, 0.05, 0.05, sizes, alike)
        for held, pairs in ((True, pairs_of(values, sizes)), (False, pairs_of(values))):
            (result,) = judged(pairs)
            grouped += held and result.low <= 0 <= result.high
            apart += not held and result.low <= 0 <= result.high
    assert grouped / trials >= 0.93
    assert apart / trials < 0.93  # frames as independent images


def test_one_large_group_counts_for_little():
    rng, trials = np.random.default_rng(4), 200
    sizes, found, as_even = (190,) + (10,) * 19, 0, 0
    for _ in range(trials):
        values = scores(rng, 2, 10, sum(sizes), 0.003, 0.05, 0.05, sizes, 0.3)
        (pair,) = pairs_of(values, sizes)
        even = replace(pair, spread=replace(pair.spread, evenness=1.0))
        found += not is_false(judged([pair])[0])
        as_even += not is_false(judged([even])[0])
    assert pair.spread.evenness == pytest.approx(380**2 / (190**2 + 19 * 10**2) / 20)
    assert found / trials >= 0.93
    assert as_even / trials < 0.93  # by the number of groups alone


def test_methods_that_differ_by_the_margin_are_rarely_called_equal():
    rng, trials, margin, family = np.random.default_rng(5), 80, 0.005, 6
    found = alone = 0
    for _ in range(trials):
        values = scores(rng, 2 * family, 3, 100, 0.001, 0.01, 0.01)
        values[1::2] += margin
        pairs = [pairs_of(values[2 * k : 2 * k + 2])[0] for k in range(family)]
        found += any(one.verdict == "equal" for one in judged(pairs, margin))
        alone += any(judged([pair], margin)[0].verdict == "equal" for pair in pairs)
    assert found / trials <= WORST
    assert alone / trials > WORST  # without Holm over the family
