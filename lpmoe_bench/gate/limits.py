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

That probability is one over baselines and candidates alike. A pinned baseline is one draw, judged
again and again: by luck its sd may be small, or its mean high, and then clean changes alarm more
often, always. With a confidence g the limit is a tolerance limit as well: in a share g of all
baselines at most `level` of clean candidates fall below it. The limit mean - k sd keeps that where
(N + z sqrt(n_b / n_c)) / (sd / sigma) <= k sqrt(n_b) with probability g, for N standard normal and
z the 1 - level quantile of a normal: k is the g quantile of a noncentral t of n_b - 1 degrees of
freedom and noncentrality z sqrt(n_b / n_c), divided by sqrt(n_b) (Hahn and Meeker, Statistical
Intervals, 1991, chapter 4, there for single values). Of a call with several scores the level is
shared by Holm, and 1 - g evenly by Bonferroni: in a share g of baselines every score then keeps its
own level, and so their sum the level of the call, however the scores hang together. (With a g of
0.9 for each of four independent scores of five seeds, 79 % of baselines keep it.) At small levels
and a small g the tolerance limit may be less than the prediction limit; the larger of both holds,
so that a confidence never makes an alarm likelier.

Seeds are not paired. With the same seeds both sides are correlated where the change draws the same
random numbers, and the true variance of the difference is smaller than the one above: the limit is
then wider than needed, never too narrow. Pairing would need the spread of the differences, which
is the candidate's own (see above); it would call a drop of 1e-6 a regression where rounding on
another processor moves every seed the same way; and it would change the limit by a jump when a
harmless change draws random numbers in another order. Scores that are equal to the last bit, seed
by seed, pass before any statistics.

Replay is for who wants just that: candidates of the pinned seeds, on the machine of the baseline,
by code that draws the same numbers. Each of n_b seeds is pinned twice, and half the mean square of
the differences of both runs is the variance of a rerun, with n_b degrees of freedom; still nothing
is taken from the candidate. Paired by seed, the mean of n_c reruns differs from that of the pinned
pairs by a variance of (1 / n_c + 1 / (2 n_c)) times it. All of the above holds with that noise in
place of the sd, n_b for n_b - 1 and 2 n_c for the n_b of the pinned mean.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, replace

from lpmoe_bench.gate.baseline import DEFAULT_FLOOR, REPLAY_FLOOR, MetricPin, Policy

HUGE_T, MOST_CONFIDENCE = 200.0, 0.99999
MOST_SEEDS = 1000
GOOD_SEEDS = 5


@dataclass(frozen=True)
class Reference:
    """A metric's baseline. sd: of the mean score of one new seed, None where only one is known.

    floored: whether the rows an image raised it above the sd of the seeds.
    """

    mean: float
    sd: float | None
    seeds: int
    floored: bool = False

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the sd."""
        return self.seeds - 1

    @property
    def least(self) -> float:
        """The floor where the policy gives none."""
        return DEFAULT_FLOOR

    def own_variance(self, seeds: int) -> float:
        """Return the variance of the pinned mean that so many new seeds meet, in squares of sd."""
        return 1 / self.seeds

    def error(self, seeds: int) -> float:
        """Return the sd of the difference of both means, in units of sd."""
        return math.sqrt(1 / seeds + self.own_variance(seeds))


@dataclass(frozen=True)
class ReplayReference(Reference):
    """A metric whose seeds were run twice. sd: of one more run of a seed; mean: of both runs, over
    the seeds that the candidate has too."""

    replay: bool = True

    @property
    def freedom(self) -> int:
        return self.seeds

    @property
    def least(self) -> float:
        return REPLAY_FLOOR

    def own_variance(self, seeds: int) -> float:
        return 1 / (2 * seeds)


def reference_of(pin: MetricPin, images: int) -> Reference:
    """Return what a pinned metric says of a new seed; the model is in the head of this file."""
    if pin.reruns is not None:
        pairs = zip(pin.scores, pin.reruns, strict=True)
        # The difference of two runs has twice the variance of one, hence half the mean square.
        noise = math.sqrt(math.fsum((a - b) ** 2 for a, b in pairs) / (2 * len(pin.scores)))
        mean = math.fsum(pin.replayed) / len(pin.scores)
        return ReplayReference(mean, noise, len(pin.scores))
    if pin.sd is None:
        return Reference(pin.mean, None, 1)
    # The spread of a few seeds may be small by luck; below what the rows allow it cannot lie.
    nested = math.sqrt((pin.rest_variance or 0.0) / max(1, images))
    return Reference(pin.mean, max(pin.sd, nested), len(pin.scores), nested > pin.sd)


def learnt(
    reference: Reference, seeds: int, level: float, confidence: float | None = None
) -> float | None:
    """Return the drop of the mean of new seeds that chance exceeds with probability `level`.

    With a confidence, in that share of baselines; see the head of this file. None where no spread
    is known.
    """
    found = predicted(reference, seeds, level)
    bounded = tolerated(reference, seeds, level, confidence)
    return found if found is None or bounded is None else max(found, bounded)


def predicted(reference: Reference, seeds: int, level: float) -> float | None:
    """Return the prediction limit: exceeded with probability `level` on average over baselines."""
    from scipy import special

    if reference.sd is None:
        return None
    # One side: only a drop is asked about. Student's t, as the sd itself is an estimate.
    quantile = float(special.stdtrit(reference.freedom, 1 - level))
    return quantile * reference.sd * reference.error(seeds)


def tolerated(
    reference: Reference, seeds: int, level: float, confidence: float | None
) -> float | None:
    """Return the tolerance limit: content 1 - level in a share `confidence` of baselines."""
    from scipy import special

    if reference.sd is None or confidence is None:
        return None
    own = math.sqrt(reference.own_variance(seeds))
    # z sqrt(n_b / n_c) of the head of this file, own being 1 / sqrt(n_b).
    shift = float(special.ndtri(1 - level)) / (own * math.sqrt(seeds))
    return float(special.nctdtrit(reference.freedom, shift, confidence)) * own * reference.sd


def of_each(policy: Policy, family: int) -> Policy:
    """Return the policy for each of so many scores: what 1 - confidence leaves is shared evenly."""
    if policy.confidence is None or family < 2:
        return policy
    # Beyond it the inverse of the noncentral t may not end; it takes more than a hundred scores.
    confidence = min(1 - (1 - policy.confidence) / family, MOST_CONFIDENCE)
    return policy.model_copy(update={"confidence": confidence})


def tolerance(reference: Reference, seeds: int, level: float, policy: Policy) -> float | None:
    """Return the drop that is still none: what is learnt, within floor and cap.

    None where one seed says nothing and the policy gives no limit of its own.
    """
    found = learnt(reference, seeds, level, policy.confidence)
    if found is None:
        return policy.floor if policy.cap is None else policy.cap
    # First the floor, then the cap: the cap holds whatever chance would explain.
    floored = max(found, floor_of(policy, reference))
    return floored if policy.cap is None else min(floored, policy.cap)


def floor_of(policy: Policy, reference: Reference) -> float:
    """Return the drop up to which nothing is a regression."""
    return reference.least if policy.floor is None else policy.floor


def p_value(reference: Reference, drop: float, seeds: int, policy: Policy) -> float | None:
    """Return the level at which this drop would just be a regression; 1 below the floor.

    Without a confidence, the chance of at least this drop in a clean candidate. None where no
    spread is known. A drop below the floor is never a finding, so that it must not count as one in
    Holm's steps either.
    """
    if reference.sd is None:
        return None
    if drop <= floor_of(policy, reference):
        return 1.0
    p = chance(reference, drop, seeds)
    # The limit is the larger of two, so the level at which it is met is the larger of two as well.
    return (
        p
        if policy.confidence is None
        else max(p, content(reference, drop, seeds, policy.confidence))
    )


def chance(reference: Reference, drop: float, seeds: int) -> float:
    """Return the chance of at least this drop without a change, on average over baselines.

    `drop` is above 0, and the reference has an sd.
    """
    from scipy import special

    if not reference.sd:  # seeds that never differed: any drop is beyond chance
        return 0.0
    return float(special.stdtr(reference.freedom, -drop / (reference.sd * reference.error(seeds))))


def content(reference: Reference, drop: float, seeds: int, confidence: float) -> float:
    """Return the share of clean candidates that fall by more in all but the worst baselines.

    It is at most that in a share `confidence` of baselines: the level at which `tolerated` returns
    this drop.
    """
    from scipy import special

    if not reference.sd:
        return 0.0
    own = math.sqrt(reference.own_variance(seeds))
    t = drop / (reference.sd * own)
    free = reference.freedom
    # The exact inverse never ends for a huge t, beside which the normal part of it is nothing.
    least = 2 * float(special.gammaincinv(free / 2, 1 - confidence)) / free  # of chi2 / freedom
    huge = t > HUGE_T
    shift = t * math.sqrt(least) if huge else float(special.nctdtrinc(free, confidence, t))
    return float(special.ndtr(-shift * own * math.sqrt(seeds)))


def seeds_to_settle(
    reference: Reference, drop: float, level: float, confidence: float | None = None
) -> tuple[int, bool] | None:
    """Return how many seeds would make this drop a regression, should it stay as it is.

    The second value tells whether the baseline needs as many: without, candidate seeds do. None
    where even MOST_SEEDS would not, or where the spread is not known.
    """
    if reference.sd is None or drop <= 0:
        return None

    def fewest(numbers: range, both: bool) -> int | None:
        def found(seeds: int) -> bool:
            known = replace(reference, seeds=seeds) if both else reference
            limit = learnt(known, seeds, level, confidence)
            return limit is not None and limit < drop

        # The limit falls with more seeds, so "found" turns from False to True once.
        place = bisect_left(numbers, True, key=found)
        return numbers[place] if place < len(numbers) else None

    # With more candidate seeds the limit falls, but no further than the pinned mean is known; a
    # replay has no other seeds than the pinned ones. Then both sides need more, n each, which also
    # makes the quantile smaller.
    most = reference.seeds if isinstance(reference, ReplayReference) else MOST_SEEDS
    if seeds := fewest(range(1, most + 1), both=False):
        return seeds, False
    seeds = fewest(range(reference.seeds + 1, MOST_SEEDS + 1), both=True)
    return None if seeds is None else (seeds, True)
