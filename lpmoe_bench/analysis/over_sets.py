"""One answer over the test sets of a task: a hierarchical mean of the differences on each.

The difference on test set t is read as d[t] = mean + set t + error t. Test sets are a sample of
those that the task could have, so a difference may be another on each: set t is normal with an
unknown sd tau, half-Cauchy before the data, with the scale of a usual standard error. Errors have
the variances that `significance` gives them, as uncertain as they are there. The same trained
models are tested on all sets, so that what a seed does to all of them alike is common to the errors
and does not shrink with more sets. Given the variances and tau all is normal, and the answer is a
mean over both: the model of Corani et al. (Machine Learning 106, 2017) with errors of seeds x
images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lpmoe_bench.analysis.pairing import PairedRows, Rules
from lpmoe_bench.analysis.significance import LEVEL
from lpmoe_bench.metrics.facts import METRICS

DRAWS, WIDTHS = 1024, 48  # of the variances, and values of tau


@dataclass(frozen=True)
class TaskAnswer:
    """The mean difference A - B over test sets of this kind, with its interval and chances.

    better: that A is better at all. by_margin: by more than the margin. equal: that the difference
    lies within it. between_sd: the median of tau, in units of the score; 0 for one test set.
    """

    metric: str
    test_sets: tuple[str, ...]
    mean: float
    low: float
    high: float
    better: float
    by_margin: float
    equal: float
    margin: float
    between_sd: float


def answer_by_rules(pairs: Sequence[PairedRows], rules: Rules) -> TaskAnswer:
    """Return one answer from a metric's pairs, by its own margin beside the mean of the references:
    the one place from which `compare` and `report` have it.

    A set of one group of images tells nothing of others: it takes part only where all are such.
    """
    pairs = [pair for pair in pairs if not pair.spread.is_one_group] or pairs
    reference = sum(pair.b.mean for pair in pairs) / len(pairs)
    margin = rules.margins.of(pairs[0].metric).of(reference)
    return answer_over_sets(pairs, margin, METRICS[pairs[0].metric].higher_is_better)


def answer_over_sets(
    pairs: Sequence[PairedRows], margin: float, higher_is_better: bool, level: float = LEVEL
) -> TaskAnswer:
    """Return one answer from a metric's pairs, one a test set; margin: in units of the score."""
    means = np.array([pair.spread.mean for pair in pairs])
    own, common = _error_variances(pairs)
    if len(pairs) == 1:
        widths = np.zeros(1)
    else:
        levels = (np.arange(WIDTHS) + 0.5) / WIDTHS
        # Quantiles of a half-Cauchy at even levels, so that all values of tau count alike before
        # the data; its scale is a usual standard error.
        widths = float(np.sqrt(np.median(own + common[:, None]))) * np.tan(np.pi / 2 * levels)
    # (draws, widths, sets): for each draw of the errors and each tau how much each set counts.
    precision = 1 / np.maximum(own[:, None, :] + widths[:, None] ** 2, np.finfo(float).tiny)
    total = precision.sum(axis=2)
    centre = (precision * means).sum(axis=2) / total
    # The density of the differences between sets; what all share moves only their mean.
    misfit = (precision * (means - centre[..., None]) ** 2).sum(axis=2)
    logs = (np.log(precision).sum(axis=2) - np.log(total) - misfit) / 2
    # Less the largest one: the exponential of hundreds would overflow.
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    # 1 / total is what is not known of the mean of the sets; what all share comes on top.
    sd = np.sqrt(1 / total + common[:, None])
    sign = 1 if higher_is_better else -1

    def below(value: float) -> float:
        return float((weights * _normal(value - centre, sd)).sum())

    def above(value: float) -> float:  # in the direction that is better
        return 1 - below(value) if sign > 0 else below(-value)

    mean = float((weights * centre).sum())
    # Of a mixture: the mean of its variances and the variance of its means.
    variance = float((weights * (sd**2 + (centre - mean) ** 2)).sum())
    # No more than (1 - level) / 2 lies further off on one side (Cantelli's inequality).
    reach = (variance * (1 + level) / (1 - level)) ** 0.5 * (1 + 1e-6)

    by_width = np.cumsum(weights.sum(axis=0))
    return TaskAnswer(
        pairs[0].metric,
        tuple(pair.test for pair in pairs),
        mean,
        _quantile(below, (1 - level) / 2, mean - reach, mean + reach),
        _quantile(below, (1 + level) / 2, mean - reach, mean + reach),
        above(0.0),
        above(margin),
        above(-margin) - above(margin),
        margin,
        float(widths[np.searchsorted(by_width, 0.5)]),
    )


def _error_variances(pairs: Sequence[PairedRows]) -> tuple[np.ndarray, np.ndarray]:
    """Return draws of the error variance of each set, (draws, sets), and of what all share."""
    from scipy import special
    from scipy.stats import qmc

    sets, seeds = len(pairs), min(pair.spread.seeds for pair in pairs)
    # Quasi-random and seeded: the same records give the same digits, with fewer draws.
    levels = qmc.Halton(2 * sets + 2, rng=0).random(DRAWS)

    def draws(place: int, freedom: float) -> np.ndarray:
        if freedom < 1:
            return np.zeros(DRAWS)
        return freedom / (2 * special.gammaincinv(freedom / 2, levels[:, place]))

    of_seeds, own = draws(0, seeds - 1), []
    for place, pair in enumerate(pairs):
        spread = pair.spread
        a, b, c = spread.squares
        size, (across, within) = spread.seeds * spread.units, spread.uncertainty.freedom
        image = b * draws(2 + 2 * place, within)
        rest = c * draws(3 + 2 * place, across * within)
        seed = a * of_seeds
        total = np.maximum(np.maximum(seed + image - rest, seed), image)
        own.append(np.stack([total / size, np.maximum(image - rest, 0) / size]))
    total, of_images = np.stack(own, axis=2)
    common = np.zeros(DRAWS)
    if seeds > 1 and sets > 1 and all(pair.spread.seeds == seeds for pair in pairs):
        x = np.stack([(p.a.values - p.b.values).mean(axis=1) for p in pairs], axis=1)
        # (seeds, sets), each set less its own mean: what
        # is left in common moves all sets of a seed.
        x = x - x.mean(axis=0)
        alike = x.mean(axis=1, keepdims=True)
        between = sets * float((alike**2).sum()) / (seeds - 1)
        apart = float(((x - alike) ** 2).sum()) / ((seeds - 1) * (sets - 1))
        apart_drawn = apart * draws(1, (seeds - 1) * (sets - 1))
        common = np.maximum(between * of_seeds - apart_drawn, 0) / sets / seeds
    return np.maximum(total - common[:, None], of_images), common


def _normal(distance: np.ndarray, sd: np.ndarray) -> np.ndarray:
    from scipy import special

    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sd > 0, special.ndtr(distance / sd), (distance >= 0) * 1.0)


def _quantile(below: Callable[[float], float], level: float, low: float, high: float) -> float:
    """Return where so much lies below, between two ends, far closer than anybody prints it."""
    from scipy import optimize

    if low == high:
        return low
    tolerance = 1e-9 * (high - low)
    return optimize.root_scalar(
        lambda value: below(value) - level, bracket=(low, high), xtol=tolerance
    ).root
