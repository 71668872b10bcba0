"""Limits of the gate: by hand, and by simulation of what they promise."""

import math

import numpy as np
import pytest
from scipy import stats

from lpmoe_bench.analysis.significance import holm, holm_levels
from lpmoe_bench.gate.baseline import MetricPin, Policy
from lpmoe_bench.gate.judge import Score, judge_scores
from lpmoe_bench.gate.limits import (
    Reference,
    content,
    learnt,
    p_value,
    reference_of,
    seeds_to_settle,
    tolerance,
)
from lpmoe_bench.gate.pin import metric_pin

POLICY = Policy()


def pinned(scores, rows=None, images=1):
    return reference_of(metric_pin(scores, rows, images, POLICY), images)


def test_the_limit_by_hand():
    # Scores .70 .72 .74: mean .72, sd .02. t(.95, 2) = 2.920; two new seeds:
    # 2.920 x .02 x sqrt(1/2 + 1/3) = .0533.
    reference = pinned([0.70, 0.72, 0.74])
    assert (reference.mean, reference.sd) == (pytest.approx(0.72), pytest.approx(0.02))
    assert learnt(reference, 2, 0.05) == pytest.approx(2.91999 * 0.02 * math.sqrt(5 / 6), rel=1e-5)


def test_a_drop_just_at_the_limit_has_the_p_of_the_level():
    reference = pinned([0.70, 0.72, 0.74, 0.71])
    drop = learnt(reference, 3, 0.05)
    assert drop is not None
    assert p_value(reference, drop, 3, POLICY) == pytest.approx(0.05)


def test_equal_seeds_are_a_two_sample_t_with_the_sd_of_one_side():
    base = np.array([0.5, 0.52, 0.49, 0.55, 0.51])
    reference = pinned(base.tolist())
    t = 0.03 / (base.std(ddof=1) * math.sqrt(2 / 5))
    assert p_value(reference, 0.03, 5, POLICY) == pytest.approx(stats.t.sf(t, 4))


def test_rows_raise_an_sd_that_is_small_by_luck():
    # Rows 1 3 and 3 1: both seeds score 2, sd 0. Rest -1 1 1 -1, mean square 4 / 1 = 4;
    # over two images a seed's mean has a variance of 4 / 2, sd 1.414.
    reference = pinned([2.0, 2.0], np.array([[1.0, 3.0], [3.0, 1.0]]), 2)
    assert reference.sd == pytest.approx(math.sqrt(2))
    assert reference.floored


def test_rows_change_nothing_where_seeds_differ_more():
    rows = np.array([[0.0, 0.2], [1.0, 1.2]])
    reference = pinned([0.1, 1.1], rows, 2)
    assert reference.sd == pytest.approx(math.sqrt(0.5))
    assert not reference.floored


def test_floor_and_cap_bound_what_is_learnt():
    reference = pinned([0.70, 0.72, 0.74])
    found = learnt(reference, 1, 0.05)
    assert tolerance(reference, 1, 0.05, POLICY) == found
    assert tolerance(reference, 1, 0.05, Policy(floor=0.2)) == 0.2
    assert tolerance(reference, 1, 0.05, Policy(cap=0.01)) == 0.01
    same = pinned([0.7, 0.7, 0.7])
    assert tolerance(same, 1, 0.05, POLICY) == 0.001


def test_one_seed_has_the_limit_that_is_given_and_no_other():
    one = pinned([0.7])
    assert tolerance(one, 1, 0.05, POLICY) is None
    assert tolerance(one, 1, 0.05, Policy(floor=0.01)) == 0.01
    assert tolerance(one, 1, 0.05, Policy(floor=0.01, cap=0.03)) == 0.03


@pytest.mark.parametrize("seed", range(20))
def test_levels_find_exactly_what_holm_finds(seed):
    p = (np.random.default_rng(seed).random(6) ** 4).tolist()
    adjusted = holm(p)
    found = [value < level for value, level in zip(p, holm_levels(p, 0.05), strict=True)]
    assert found == [value < 0.05 for value in adjusted]


def test_a_drop_below_the_floor_is_no_finding_of_holm():
    same = pinned([0.7, 0.7])
    assert p_value(same, 0.0005, 1, POLICY) == 1
    assert p_value(same, 0.002, 1, POLICY) == 0


def test_seeds_needed_by_hand():
    # sd .02 of three seeds. A drop of .06 with the candidate's alone: 2.920 x .02 = .0584 times
    # sqrt(1/n + 1/3) is below .06 from 1/n < .7223 on: two seeds.
    reference = pinned([0.70, 0.72, 0.74])
    assert seeds_to_settle(reference, 0.06, 0.05) == (2, False)
    # .03 is below .0584 x sqrt(1/3) = .0337, whatever the candidate: both sides need seeds.
    found = seeds_to_settle(reference, 0.03, 0.05)
    assert found is not None
    seeds, both = found
    assert both

    def limit(n):
        return stats.t.ppf(0.95, n - 1) * 0.02 * math.sqrt(2 / n)

    assert limit(seeds) < 0.03 <= limit(seeds - 1)
    assert seeds_to_settle(reference, 0.0, 0.05) is None
    assert seeds_to_settle(reference, 1e-6, 0.05) is None


# Variances as in records of real sets: seeds .002 to .02, seed x image .03 to .1; images .15 to .2,
# which cancel. Seeds of baseline and candidate, images, metrics, sd of seeds and of the rest.
SETTINGS = [
    (5, 1, 64, 1, 0.01, 0.05),
    (5, 5, 250, 1, 0.004, 0.08),
    (3, 3, 250, 1, 0.02, 0.05),
    (3, 1, 30, 1, 0.002, 0.1),
    (2, 2, 100, 1, 0.01, 0.05),
    (8, 2, 64, 4, 0.01, 0.05),
    (5, 2, 64, 4, 0.004, 0.05),
    (5, 5, 64, 4, 0.0, 0.05),
]


def _gate(rng, setting, drop=0.0, shared=0.0, skewed=False):
    """Draw a baseline and a candidate, and judge; `shared`: correlation of metrics in one seed."""
    n_b, n_c, images, metrics, seed_sd, rest_sd = setting
    image = rng.normal(0, 0.18, images)

    def noise(shape):  # of unit variance; skewed: a long tail of bad seeds
        return 1 - rng.exponential(1, shape) if skewed else rng.normal(0, 1, shape)

    common = noise((n_b + n_c, 1))
    scores = []
    for number in range(metrics):
        seed = seed_sd * (math.sqrt(shared) * common + math.sqrt(1 - shared) * noise(common.shape))
        rows = 0.7 + image + seed + rest_sd * noise((n_b + n_c, images))
        means = rows.mean(axis=1)
        reference = pinned(means[:n_b].tolist(), rows[:n_b], images)
        candidate = float(means[n_b:].mean()) - drop
        scores.append(Score("c", f"m{number}", reference, candidate, n_c, False))
    return judge_scores(scores, POLICY)


@pytest.fixture(autouse=True)
def _metrics(monkeypatch):
    """Let m0, m1, ... be metrics, as many as a call needs."""
    from lpmoe_bench.gate import judge
    from lpmoe_bench.metrics import facts

    fact = facts.METRICS["s_measure"]
    monkeypatch.setattr(judge, "METRICS", {f"m{n}": fact for n in range(9)})


def _alarms(setting, seed, trials=200, **how):
    rng = np.random.default_rng(seed)
    calls = [_gate(rng, setting, **how) for _ in range(trials)]
    return sum(any(line.verdict == "regressed" for line in call) for call in calls)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_of_200_clean_candidates_at_most_16_alarm(setting, shared):
    assert _alarms(setting, seed=1, shared=shared) <= 16


def test_the_level_is_used_up_where_the_model_is_exact():
    # Gate and nominal level agree: 5 % of 1000 within three standard errors of 0.7 %.
    alarms = _alarms((4, 2, 40, 1, 0.02, 0.05), seed=3, trials=1000)
    assert 29 <= alarms <= 71


def test_seeds_with_a_long_bad_tail_alarm_little_more_often():
    # Not promised by the model, which is of normal seeds: stated in docs/gate.md.
    assert _alarms((5, 2, 64, 1, 0.01, 0.05), seed=4, trials=500, skewed=True) <= 50


@pytest.mark.parametrize(
    ("setting", "drop", "power"),
    [
        ((5, 1, 64, 1, 0.01, 0.05), 0.06, 0.95),  # five times the sd of a seed's mean
        ((5, 5, 64, 1, 0.01, 0.05), 0.03, 0.95),
        ((5, 5, 64, 4, 0.01, 0.05), 0.04, 0.95),
        ((3, 3, 250, 1, 0.01, 0.05), 0.04, 0.85),
    ],
)
def test_a_real_drop_is_found(setting, drop, power):
    assert _alarms(setting, seed=2, drop=drop) >= power * 200


def test_one_broken_seed_of_five_does_not_hide_behind_its_own_spread():
    rng = np.random.default_rng(0)
    base = rng.normal(0.7, 0.01, 5)
    broken = [*base[:4], 0.2]
    score = Score("c", "m0", pinned(base.tolist()), np.mean(broken), 5, False)
    assert judge_scores([score], POLICY)[0].verdict == "regressed"
    assert stats.ttest_rel(base, broken, alternative="greater").pvalue > 0.05  # as pairs it would


def test_metrics_where_less_is_better_fall_by_rising(monkeypatch):
    from lpmoe_bench.gate import judge
    from lpmoe_bench.metrics.facts import METRICS

    monkeypatch.setattr(judge, "METRICS", METRICS)
    reference = pinned([0.10, 0.11, 0.12])
    for value, verdict in ((0.3, "regressed"), (0.01, "improved"), (0.11, "pass")):
        (line,) = judge_scores([Score("c", "mae", reference, value, 3, False)], POLICY)
        assert line.verdict == verdict


def test_doubt_names_the_seeds_that_would_settle_it():
    reference = pinned([0.70, 0.72, 0.74])
    (line,) = judge_scores([Score("c", "m0", reference, 0.68, 1, False)], POLICY)
    assert line.verdict == "inconclusive"
    assert line.judgement is not None
    assert line.judgement.needed == seeds_to_settle(reference, 0.04, 0.05) == (8, False)
    assert "about 8 seeds of the candidate" in line.reason


def test_one_seed_is_inconclusive_without_limits_of_its_own():
    one = reference_of(MetricPin(scores=[0.7], mean=0.7), 10)

    def verdict(value, **limits):
        (line,) = judge_scores([Score("c", "m0", one, value, 1, False)], Policy(**limits))
        return line.verdict

    assert verdict(0.69) == verdict(0.9) == "inconclusive"
    assert verdict(0.69, floor=0.02) == verdict(0.69, cap=0.02) == "pass"
    assert verdict(0.66, floor=0.02) == verdict(0.66, cap=0.02) == "regressed"
    assert verdict(0.66, floor=0.02, cap=0.05) == "inconclusive"
    assert judge_scores([Score("c", "m0", one, 0.7, 1, True)], POLICY)[0].verdict == "pass"


def test_a_drop_of_a_thousand_noises_is_told_at_once():
    """The inverse of the noncentral t did not end there, so that `check` hung."""
    quiet = Reference(0.8, 1e-7, 3)
    assert content(quiet, 0.001, 3, 0.9) < 1e-100
    near = [content(Reference(0.8, 0.001, 2), drop, 2, 0.99) for drop in (0.1414, 0.1415)]
    assert near[0] == pytest.approx(near[1], rel=0.02)  # on both sides of the change
