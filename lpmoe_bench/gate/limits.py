"""How far below its baseline a candidate's score may lie: a one-sided limit learnt from seeds.

Model. On the images of one pinned test set, seed s of a cell scores y[s, i] = mean + seed s +
image i + rest[s, i]. Baseline and candidate see the same images (checked by digest, count and
name), so the image terms are the same on both sides and cancel in a difference of means: images
are paired, and count as fixed. What is random about a seed's mean score is seed s and the mean of
rest[s, i] over its images: images are nested within seeds there, and the variance of one seed's
mean is sigma2 = var(seed) + var(rest) / images. The variance of the baseline's seed means estimates
exactly that sum with n_b - 1 degrees of freedom. Where rows an image exist, var(rest) / images is
known far better, from (n_b - 1)(images - 1) degrees of freedom, and sigma2 cannot be smaller: an
estimate that lies below by luck is raised to it, which never makes an alarm likelier.

A clean candidate of n_c seeds then falls by more than t(1 - level, n_b - 1) sd sqrt(1/n_c + 1/n_b)
with probability `level` at most: the prediction interval for the mean of new seeds (Hahn, Factors
for calculating two-sided prediction intervals, JASA 64, 1969; one-sided here). The baseline's sd
serves alone, never the candidate's: a change that breaks one seed of five makes the candidate's
spread large, and would so hide itself.

Seeds are not paired. With the same seeds both sides are correlated where the change draws the same
random numbers, and the true variance of the difference is smaller than the one above: the limit is
then wider than needed, never too narrow. Pairing would need the spread of the differences, which
is the candidate's own (see above); it would call a drop of 1e-6 a regression where rounding on
another processor moves every seed the same way; and it would change the limit by a jump when a
harmless change draws random numbers in another order. Scores that are equal to the last bit, seed
by seed, pass before any statistics.
"""

import math
from dataclasses import dataclass

from lpmoe_bench.gate.baseline import DEFAULT_FLOOR, MetricPin, Policy

MOST_SEEDS = 1000
FEWEST_SEEDS, GOOD_SEEDS = 2, 5


@dataclass(frozen=True)
class Reference:
    """A metric's baseline. sd: of the mean score of one new seed, None where only one is known.

    floored: whether the rows an image raised it above the sd of the seeds.
    """

    mean: float
    sd: float | None
    seeds: int
    floored: bool = False


def reference_of(pin: MetricPin, images: int) -> Reference:
    """Return what a pinned metric says of a new seed; the model is in the head of this file."""
    if pin.sd is None:
        return Reference(pin.mean, None, 1)
    # The spread of a few seeds may be small by luck; below what the rows allow it cannot lie.
    nested = math.sqrt((pin.rest_variance or 0.0) / max(1, images))
    return Reference(pin.mean, max(pin.sd, nested), len(pin.scores), nested > pin.sd)


def learnt(reference: Reference, seeds: int, level: float) -> float | None:
    """Return the drop of the mean of new seeds that chance exceeds with probability `level`."""
    from scipy import special

    if reference.sd is None:
        return None
    quantile = float(special.stdtrit(reference.seeds - 1, 1 - level))
    return quantile * reference.sd * math.sqrt(1 / seeds + 1 / reference.seeds)


def tolerance(reference: Reference, seeds: int, level: float, policy: Policy) -> float | None:
    """Return the drop that is still none: what is learnt, within floor and cap.

    None where one seed says nothing and the policy gives no limit of its own.
    """
    found = learnt(reference, seeds, level)
    if found is None:
        return policy.floor if policy.cap is None else policy.cap
    # First the floor, then the cap: the cap holds whatever chance would explain.
    floored = max(found, floor_of(policy))
    return floored if policy.cap is None else min(floored, policy.cap)


def floor_of(policy: Policy) -> float:
    """Return the drop up to which nothing is a regression."""
    return DEFAULT_FLOOR if policy.floor is None else policy.floor


def p_value(reference: Reference, drop: float, seeds: int, policy: Policy) -> float | None:
    """Return the chance of at least this drop in a clean candidate; 1 below the floor.

    None where no spread is known. A drop below the floor is never a finding, so that it must not
    count as one in Holm's steps either.
    """
    from scipy import special

    if reference.sd is None:
        return None
    if drop <= floor_of(policy):
        return 1.0
    if reference.sd == 0:  # seeds that never differed: any drop is beyond chance
        return 0.0
    t = drop / (reference.sd * math.sqrt(1 / seeds + 1 / reference.seeds))
    return float(special.stdtr(reference.seeds - 1, -t))


def seeds_needed(reference: Reference, drop: float, level: float) -> tuple[int, bool] | None:
    """Return how many seeds would make this drop a regression, should it stay as it is.

    The second value tells whether the baseline needs as many: without, candidate seeds do. None
    where even MOST_SEEDS would not, or where the spread is not known.
    """
    from scipy import special

    if reference.sd is None or drop <= 0:
        return None
    # With more candidate seeds the limit falls towards t sd / sqrt(n_b), but never below that.
    for seeds in range(1, MOST_SEEDS + 1):
        limit = learnt(reference, seeds, level)
        if limit is not None and limit < drop:
            return seeds, False
    # So both sides need more seeds, n each: the baseline's also make its quantile smaller.
    for seeds in range(reference.seeds + 1, MOST_SEEDS + 1):
        quantile = float(special.stdtrit(seeds - 1, 1 - level))
        if quantile * reference.sd * math.sqrt(2 / seeds) < drop:
            return seeds, True
    return None
