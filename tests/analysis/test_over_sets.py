"""One answer over test sets: against draws of the same model, and baycomp's where both meet."""

import numpy as np
import pytest
from baycomp.single import Posterior
from scipy import stats

from lpmoe_bench.analysis.over_sets import answer_over_sets
from lpmoe_bench.analysis.pairing import PairedRows
from lpmoe_bench.analysis.samples import Samples
from lpmoe_bench.analysis.significance import compare_paired, spread_of


def paired(values, test="one"):
    """A pair whose difference has these values, (seeds, images)."""
    seeds, images = list(range(len(values))), [f"i{n}" for n in range(values.shape[1])]
    sides = (Samples(seeds, images, v, []) for v in (values, np.zeros_like(values)))
    return PairedRows(test, "s_measure", tuple(seeds), *sides, spread_of(values))


def drawn(rng, mean, seeds=3, images=60, seed_sd=0.01, common=None):
    own = rng.normal(0, seed_sd, (seeds, 1)) if common is None else common[:, None]
    return mean + own + rng.normal(0, 0.05, (1, images)) + rng.normal(0, 0.05, (seeds, images))


def test_one_set_is_its_own_answer():
    d = drawn(np.random.default_rng(0), 0.03)
    answer = answer_over_sets([paired(d)], 0.005, True)
    (line,) = compare_paired([spread_of(d)])
    assert (answer.low, answer.high) == pytest.approx((line.low, line.high), abs=1e-3)
    assert answer.better == pytest.approx(1 - line.p / 2, abs=2e-3)
    assert answer.between_sd == 0


def test_one_seed_on_one_set_is_the_bayesian_t_test():
    """Benavoli et al. (JMLR 18, 2017): with a flat prior the mean is t."""
    d = drawn(np.random.default_rng(1), 0.02, seeds=1)
    answer = answer_over_sets([paired(d)], 0.01, True)
    # Not by its `two_on_single`, which widens the variance for folds that share their images.
    _, same, more = Posterior(d.mean(), d.var(ddof=1) / 60, 59, 0.01).probs()
    assert (answer.by_margin, answer.equal) == pytest.approx((more, same), abs=2e-3)


def _reference(pairs, margin, rng, draws=60_000):
    """The model again, by draws that are weighted: nothing here but numpy and its definition."""
    seeds, sets = pairs[0].spread.seeds, len(pairs)
    of_seeds = (seeds - 1) / rng.chisquare(seeds - 1, draws)
    total, image = np.empty((2, draws, sets))
    for t, pair in enumerate(pairs):
        a, b, c = pair.spread.squares
        n = pair.spread.units - 1
        b = b * n / rng.chisquare(n, draws)
        c = c * n * (seeds - 1) / rng.chisquare(n * (seeds - 1), draws)
        size = seeds * (n + 1)
        total[:, t] = np.max([a * of_seeds + b - c, a * of_seeds, b], axis=0) / size
        image[:, t] = np.maximum(b - c, 0) / size
    x = np.stack([pair.a.values.mean(axis=1) for pair in pairs], axis=1)
    x = x - x.mean(axis=0)
    alike = x.mean(axis=1)
    between, free = sets * (alike**2).sum() / (seeds - 1), (seeds - 1) * (sets - 1)
    apart = ((x - alike[:, None]) ** 2).sum() / free * free / rng.chisquare(free, draws)
    common = np.maximum(between * of_seeds - apart, 0) / sets / seeds
    own = np.maximum(total - common[:, None], image)
    tau = np.abs(rng.standard_cauchy(draws)) * np.sqrt(np.median(own + common[:, None]))
    variance = own + tau[:, None] ** 2
    means = np.array([pair.spread.mean for pair in pairs])
    # The mean is flat before the data, so it is integrated out on a grid of its own.
    grid = np.linspace(-0.3, 0.3, 601)
    density = np.zeros((draws, len(grid)))
    for t in range(sets):
        density += stats.norm.logpdf(means[t] - grid, 0, np.sqrt(variance[:, t])[:, None])
    weight = np.exp(density).sum(axis=1)
    chosen = rng.choice(draws, 40_000, p=weight / weight.sum())
    of_mean = np.exp(density[chosen] - density[chosen].max(axis=1, keepdims=True))
    edges = of_mean.cumsum(axis=1) / of_mean.sum(axis=1, keepdims=True)
    place = (edges < rng.random(len(chosen))[:, None]).sum(axis=1)
    mean = grid[np.minimum(place, 600)] + rng.normal(0, np.sqrt(common[chosen]))
    chances = [(mean > limit).mean() for limit in (0, margin)]
    return mean.mean(), *np.quantile(mean, (0.025, 0.975)), *chances


@pytest.mark.parametrize("sets", [2, 4])
def test_the_answer_is_that_of_the_model_by_draws(sets):
    rng = np.random.default_rng(sets)
    common = rng.normal(0, 0.01, 3)
    pairs = [
        paired(drawn(rng, mean, common=common), str(mean))
        for mean in (0.03, 0.01, 0.05, 0.02)[:sets]
    ]
    answer = answer_over_sets(pairs, 0.005, True)
    mean, low, high, better, by_margin = _reference(pairs, 0.005, rng)
    assert answer.mean == pytest.approx(mean, abs=1.5e-3)
    assert (answer.low, answer.high) == pytest.approx((low, high), abs=5e-3)
    assert (answer.better, answer.by_margin) == pytest.approx((better, by_margin), abs=0.015)


def test_errors_are_better_downwards_and_chances_add_up():
    rng = np.random.default_rng(5)
    pairs = [paired(drawn(rng, -0.04), name) for name in ("one", "two")]
    up, down = (answer_over_sets(pairs, 0.005, higher) for higher in (True, False))
    assert up.better == pytest.approx(1 - down.better)
    assert down.better > 0.9
    assert up.equal == pytest.approx(down.equal)
    assert down.by_margin + down.equal + up.by_margin == pytest.approx(1)
    assert down.test_sets == ("one", "two")
