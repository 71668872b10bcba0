"""Intervals and verdicts for paired differences measured over seeds x images.

The difference d of two methods' scores is read as d[s, i] = mean + seed s + image i + rest, all but
the mean random: another seed and another sample of images would give other values. Where images
vary together, as frames of one video, groups of them stand in their place. Its variance comes from
the mean squares a, b, c of seeds, images and the rest, with S - 1, J - 1 and (S - 1)(J - 1) degrees
of freedom. Each of them is known only as well as its degrees of freedom let it, so the variance is
a distribution and not a number: the generalised inference of Weerahandi (Exact statistical methods
for data analysis, 1995),

    V = max(a A + b B - c C, a A, b B) / (S J),  A = (S - 1) / chi2(S - 1), and so B and C,

over which p values and intervals are means. An estimate of the degrees of freedom (Satterthwaite)
gives p values that are several times too small just where the mean square of a few seeds is small
by luck, and Holm's correction works on those. A percentile bootstrap over three seeds covers only
about 86 % where it promises 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np

Verdict = Literal["better", "worse", "equal", "inconclusive"]
LEVEL = 0.95
FEWEST_SEEDS = 3  # from which there are verdicts: two seeds say too little of others
FEWEST_GROUPS = 2  # of one size: one video tells of no other
NODES = (32, 16, 4)  # of the rules over A, B and C: p is right to 0.1 % down to 1e-6
POWERS = (4, 4, 2)  # how closely the nodes crowd where chi2 is small and V large


@dataclass(frozen=True)
class Spread:
    """How a difference varies: its mean, and variances of seeds, images and the rest.

    images: how many were scored, 1 where no image has a share of its own. groups: how many groups
    of images vary independently, None where each image does; `image_variance` is then that of
    groups. `variance` is that of the mean, by the mean squares `squares`. evenness: what share of
    the groups would tell as much if all had one size; 1 where they do.
    """

    mean: float
    seeds: int
    images: int
    groups: int | None
    seed_variance: float
    image_variance: float
    rest_variance: float
    variance: float
    squares: tuple[float, float, float]
    evenness: float = 1.0

    @property
    def units(self) -> int:
        """How many units vary independently beside the seeds."""
        return self.images if self.groups is None else self.groups

    @property
    def effective_units(self) -> float:
        """How many units of one size would tell as much."""
        return self.units * self.evenness

    @property
    def is_one_group(self) -> bool:
        """Whether one group holds nearly all images: then nothing tells how groups differ."""
        return self.groups is not None and self.effective_units < FEWEST_GROUPS

    @property
    def shares(self) -> tuple[float, float, float]:
        """What part of the mean's variance is that of seeds, of images or groups, of the rest."""
        parts = (
            self.seed_variance / self.seeds,
            self.image_variance / self.units,
            self.rest_variance / (self.seeds * self.units),
        )
        total = sum(parts) or 1.0
        return parts[0] / total, parts[1] / total, parts[2] / total

    @cached_property
    def uncertainty(self) -> Uncertainty:
        """How far the true mean may lie from `mean`."""
        return Uncertainty(self.squares, self.seeds, self.units, self.evenness)


@dataclass(frozen=True)
class Comparison:
    """One difference, its interval and what it says; `p` is two-sided, adjusted for the family.

    p_equal: of the two one-sided tests that the difference lies within `margin`, adjusted too.
    verdict: of the methods. of_models: of the very models compared, where only images are random;
    it differs with one seed, which leaves the methods inconclusive. family: how many differences
    are judged together. level: at which Holm's procedure would judge the next finding among them.
    """

    spread: Spread
    low: float
    high: float
    p: float
    p_equal: float
    margin: float
    verdict: Verdict
    of_models: Verdict
    family: int
    level: float


class Uncertainty:
    """The distribution of the true mean around the one that was measured.

    Args:
        squares: mean squares of seeds, images or groups, and the rest.
        seeds: how many.
        units: how many images or groups; 1 where only seeds vary.
        evenness: what share of the units counts for the degrees of freedom of their mean square:
            where few groups hold most images, it rests on these alone, and is known as badly.
    """

    def __init__(self, squares: Sequence[Any], seeds: int, units: int, evenness: float = 1.0):
        self.freedom = (seeds - 1, max(units * evenness - 1, min(units - 1, 1)))
        variances, self.weights = _variances(squares, seeds, units, self.freedom)
        with np.errstate(divide="ignore"):
            self.rates = 1 / np.sqrt(variances)  # of no variance at all: infinite

    @property
    def is_zero(self) -> bool:
        """Whether nothing varied, so that the mean counts as exact."""
        return bool(np.isinf(self.rates).all())

    def beyond(self, distance: float) -> float:
        """Return the chance that the truth lies further above the mean than a distance."""
        from scipy import special

        if self.is_zero:
            # All of the chance lies at the measured mean; a distance of 0 cuts it in two halves.
            return float(distance < 0) + 0.5 * (distance == 0)
        if 0 in self.freedom:  # one source alone: Student's t, and no rule is as exact
            return float(special.stdtr(max(self.freedom), -distance * self.rates[0]))
        return float(self.weights @ special.ndtr(-distance * self.rates))

    def half_width(self, level: float) -> float:
        """Return the distance on either side that the truth leaves with chance 1 - level."""
        from scipy import special

        if self.is_zero:
            return 0.0
        if 0 in self.freedom:
            quantile = special.stdtrit(max(self.freedom), (1 + level) / 2)
            return float(quantile / self.rates[0])
        # Newton's method from 0: the chance is convex and falls, so no step leads too far.
        width, aim = 0.0, (1 - level) / 2
        while (excess := self.beyond(width) - aim) > 1e-9 * aim:
            # The slope of the chance is minus the density,
            # whose factor 1 / sqrt(2 pi) stands below.
            density = np.exp(-((width * self.rates) ** 2) / 2) * self.rates
            width += excess / float(self.weights @ density) * math.sqrt(2 * math.pi)
        return width


def _variances(
    squares: Sequence[Any], seeds: int, units: int, freedom: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return values of V and their weights: a product of Gauss-Legendre rules."""
    a, b, c = squares
    if seeds == 1 or units == 1:
        return np.array([max(a, b) / (seeds * units)]), np.ones(1)
    factors, weights = zip(
        *(
            _rule(*one)
            for one in zip((*freedom, freedom[0] * freedom[1]), NODES, POWERS, strict=True)
        ),
        strict=True,
    )
    of_seeds = a * factors[0][:, None, None]
    of_units = b * factors[1][None, :, None]
    # The mean's variance is (A + B - C) / (seeds * units), each mean square times a draw of
    # freedom / chi2. A difference may come out too small: it is at least what one source has.
    both = of_seeds + of_units - c * factors[2][None, None, :]
    total = np.maximum(np.maximum(both, of_seeds), of_units) / (seeds * units)
    weight = weights[0][:, None, None] * weights[1][None, :, None] * weights[2][None, None, :]
    return total.ravel(), weight.ravel()


@lru_cache(maxsize=512)
def _rule(freedom: float, nodes: int, power: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes of freedom / chi2(freedom) and their weights."""
    from scipy import special

    places, weights = np.polynomial.legendre.leggauss(nodes)
    places, weights = (places + 1) / 2, weights / 2
    # Levels u = v ** power: most nodes lie where chi2 is small, on which the tails of V rest.
    # The weights take the derivative of the substitution, power * v ** (power - 1).
    levels, weights = places**power, weights * power * places ** (power - 1)
    return freedom / (2 * special.gammaincinv(freedom / 2, levels)), weights


def spread_of(difference: Any, sizes: Sequence[int] | None = None) -> Spread:
    """Return the spread of differences, (seeds, units), at least one seed and two units in all.

    A matrix of one column holds one value a seed: then images count as fixed. sizes: how many
    images each column stands for where they are groups; such count as the effective number of Kish
    (Survey sampling, 1965), the square of the sum of sizes over the sum of their squares.
    """
    d = np.asarray(difference, dtype=np.float64)
    seeds, units = d.shape
    mean, *squares = _mean_squares(d)
    of_seeds, of_units, rest = squares
    total = max(of_seeds + of_units - rest, of_seeds, of_units)
    return Spread(
        mean,
        seeds,
        units if sizes is None else sum(sizes),
        None if sizes is None else units,
        max(0.0, (of_seeds - rest) / units),
        max(0.0, (of_units - rest) / seeds),
        rest,
        total / d.size,
        (of_seeds, of_units, rest),
        1.0 if sizes is None else sum(sizes) ** 2 / sum(n * n for n in sizes) / units,
    )


def rest_variance(values: np.ndarray) -> float:
    """Return the `rest_variance` that `spread_of` would, for who needs nothing else of it."""
    return _mean_squares(values)[3]


def _mean_squares(d: np.ndarray) -> tuple[float, float, float, float]:
    """Return the mean of (seeds, images), and the mean squares of seeds, images and the rest."""
    if d.size < 2:
        raise ValueError("one value has no spread")
    seeds, images = d.shape
    mean = math.fsum(d.ravel().tolist()) / d.size
    by_seed, by_image = d.mean(axis=1), d.mean(axis=0)
    # Two-way analysis of variance with one value a cell: what neither the seed nor the image
    # explains is interaction and noise, which cannot be told apart.
    rest = d - by_seed[:, None] - by_image[None, :] + mean
    return (
        mean,
        images * _mean_square(by_seed - mean, seeds - 1),
        seeds * _mean_square(by_image - mean, images - 1),
        _mean_square(rest, (seeds - 1) * (images - 1)),
    )


def _mean_square(deviations: np.ndarray, freedom: int) -> float:
    return float(np.sum(deviations**2)) / freedom if freedom else 0.0


def compare_paired(
    differences: Sequence[Spread],
    margins: float | Sequence[float] = 0.0,
    level: float = LEVEL,
    higher_is_better: bool | Sequence[bool] = True,
    models: bool | Sequence[bool] = False,
    looks: int = 1,
) -> list[Comparison]:
    """Judge a family of differences together, with Holm's correction over the family.

    A difference is `equal` when two one-sided tests put it within +- its margin (Schuirmann, 1987),
    `better` or `worse` when it is not 0, both where the adjusted p is below 1 - level; `equal`
    weighs more. Else, and with fewer than three seeds, or where one group of images holds nearly
    all, it is `inconclusive`. Intervals are not
    adjusted. Holm, A simple sequentially rejective multiple test procedure, 1979.

    Args:
        differences: the family.
        margins: differences within it are equal, in units of the score; of all, or of each.
        level: of confidence.
        higher_is_better: of all, or of each.
        models: whether the models themselves are judged, as where maps of no known seed are scored,
            so that one seed is enough; of all, or of each.
        looks: how often the same question was asked, with more seeds each time; p grows as often
            (Bonferroni).

    Returns:
        One comparison for each difference, in their order.
    """
    count = len(differences)
    each, ups, alone = (
        [given] * count if isinstance(given, float | int) else list(given)
        for given in (margins, higher_is_better, models)
    )
    raw = [_p_value(spread) for spread in differences]
    same = [_p_equal(one, margin) for one, margin in zip(differences, each, strict=True)]
    adjusted, adjusted_equal = (
        holm([min(1.0, looks * p) for p in values]) for values in (raw, same)
    )
    rivals = max(1, sum(p >= 1 - level for p in adjusted))  # which Holm still divides among
    return [
        _judge(spread, p, equal, margin, level, up, is_model, count, (1 - level) / rivals / looks)
        for spread, p, equal, margin, up, is_model in zip(
            differences, adjusted, adjusted_equal, each, ups, alone, strict=True
        )
    ]


def _judge(
    spread: Spread,
    p: float,
    p_equal: float,
    margin: float,
    level: float,
    up: bool,
    models: bool,
    family: int,
    next_level: float,
) -> Comparison:
    half = spread.uncertainty.half_width(level)
    found: Verdict = "inconclusive"
    # A difference may be both: proven not to be 0, and proven to be too small to matter.
    if p_equal < 1 - level:
        found = "equal"
    elif p < 1 - level:
        found = "better" if (spread.mean > 0) == up else "worse"
    # One seed is not stopped here: it may speak of the very models, though not of the methods.
    if 1 < spread.seeds < FEWEST_SEEDS or spread.is_one_group:
        found = "inconclusive"
    verdict = found if models or spread.seeds > 1 else "inconclusive"
    low, high = spread.mean - half, spread.mean + half
    return Comparison(spread, low, high, p, p_equal, margin, verdict, found, family, next_level)


def _p_value(spread: Spread) -> float:
    """Return the two-sided p of a difference that is 0."""
    if spread.mean == 0:
        return 1.0
    return min(1.0, 2 * spread.uncertainty.beyond(abs(spread.mean)))


def _p_equal(spread: Spread, margin: float) -> float:
    """Return the p of a difference that is as large as the margin: the larger of two sides."""
    return spread.uncertainty.beyond(margin - abs(spread.mean)) if margin > 0 else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's step-down procedure, in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in _ascending(p_values):
        # Never below that of a smaller p: a step is only reached through all before it.
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def holm_levels(p_values: Sequence[float], level: float) -> list[float]:
    """Return the level at which Holm's procedure judges each of a family, in the order given.

    Of m, the k-th smallest (from 0) is tested at level / (m - k) as long as all before it are
    findings; from the first that is none on, all stand at that one's level. So a p value is a
    finding exactly where it is below its own level here, which is where `holm` puts it below
    `level`.
    """
    found, stopped = [level] * len(p_values), False
    current = level
    for rank, index in _ascending(p_values):
        if not stopped:
            current = level / (len(p_values) - rank)
            stopped = p_values[index] >= current
        found[index] = current
    return found


def _ascending(p_values: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yield the rank and the index of each p value, the smallest first: the steps of Holm."""
    yield from enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index]))
