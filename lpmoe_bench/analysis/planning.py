"""What seeds and images can show: the smallest difference that they resolve, and what is missing.

A comparison resolves a difference when it would call it better or worse with a power of 80 %: four
times out of five. Variances are those of the records at hand, known as well as few seeds tell them,
so that plans are rough (Miller, Adding error bars to evals, 2024, has the same sum for one source).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

from lpmoe_bench.analysis.significance import (
    FEWEST_GROUPS,
    FEWEST_SEEDS,
    LEVEL,
    Comparison,
    Spread,
    Uncertainty,
)

POWER = 0.8
MOST_SEEDS = 1000


def resolved(
    spread: Spread, level: float, seeds: int | None = None, units: int | None = None
) -> float | None:
    """Return the smallest difference that is found with 80 % power, in units of the score.

    Args:
        spread: how the difference of two methods varies.
        level: at which one test is made, two-sided; of Holm's first step, 0.05 by the family.
        seeds, units: so many in place of those measured; variances stay.

    Returns:
        The difference; None where there are too few seeds, or groups, for any verdict.
    """
    seeds, units = seeds or spread.seeds, units or spread.units
    found = _limits(spread, seeds, units, level)
    return None if found is None else found[0] + found[1]


def _limits(spread: Spread, seeds: int, units: int, level: float) -> tuple[float, float] | None:
    """Return beyond which difference one test finds it, and what 80 % power needs on top."""
    too_few = units * spread.evenness < FEWEST_GROUPS if spread.groups else False
    if 1 < seeds < FEWEST_SEEDS or too_few:
        return None
    squares = _expected(spread, seeds, units)
    # As in significance: what is found must be planned with the same variance.
    variance = max(squares[0] + squares[1] - squares[2], squares[0], squares[1]) / (seeds * units)
    reach = NormalDist().inv_cdf(POWER) * variance**0.5
    return Uncertainty(squares, seeds, units, spread.evenness).half_width(1 - level), reach


def _expected(spread: Spread, seeds: int, units: int) -> tuple[float, float, float]:
    """Return the mean squares that so many seeds and units are expected to have."""
    rest = spread.rest_variance
    if spread.units == 1 or spread.seeds == 1:  # one source: nothing of the others is known
        a, b, _ = spread.squares
        return a, b, 0.0
    # A mean square is expected to be the rest plus its own variance, times the other side's count.
    return rest + units * spread.seed_variance, rest + seeds * spread.image_variance, rest


def seeds_needed(result: Comparison) -> int | None:
    """Return how many seeds would settle an inconclusive comparison with 80 % power.

    It is settled where the difference, should it stay as it is, would be found at the level of
    Holm's next step, or lie within the margin. None where no number of seeds would, or one seed
    tells nothing of others.
    """
    spread = result.spread
    if spread.seeds < 2:
        return None
    gap, level = abs(spread.mean), result.level

    def settles(seeds: int) -> bool:
        found = _limits(spread, seeds, spread.units, level)
        if found is not None and found[0] + found[1] <= gap:
            return True
        inner = _limits(spread, seeds, spread.units, 2 * level)  # two tests of one side each
        return inner is not None and inner[0] + inner[1] <= result.margin - gap

    return _first(settles, max(spread.seeds + 1, FEWEST_SEEDS), MOST_SEEDS)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the least number that something holds for, which then holds for all larger ones."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def settling(result: Comparison, name: str = "A", models: bool = False) -> str:
    """Say what would settle an inconclusive comparison; empty where it is settled.

    Args:
        result: the comparison.
        name: that of the first of the two.
        models: whether the models themselves are judged, as maps of no known seed are.
    """
    if result.verdict != "inconclusive":
        return ""
    if result.spread.is_one_group:
        return "one group holds nearly all images, and tells of no other; test on more groups"
    if models:
        return "no seed is known, so that none can be added; more test images may settle it"
    if result.spread.seeds < 2:
        words, known = "one seed says nothing of others", result.of_models
        return (
            words if known == "inconclusive" else f"{words}; this very model of {name} is {known}"
        )
    needed = seeds_needed(result)
    if needed is None:
        return "more seeds alone would not settle it; more test images may"
    more = needed - result.spread.seeds
    plural = "seed" if more == 1 else "seeds"
    return f"about {more} more {plural} would settle it with 80 % power, {needed} in all"


def resolved_text(
    results: Sequence[Comparison], shown: Callable[[float], str], looks: int = 1
) -> str:
    """Say which differences are found, each in its family; empty if none is.

    Args:
        results: of one family or of several.
        shown: writes a difference, in units of the score.
        looks: how often the question is asked.
    """
    limits = [resolved(one.spread, (1 - LEVEL) / one.family / looks) for one in results]
    found = [limit for limit in limits if limit is not None]
    if not found or not max(found):
        return ""
    low, high = shown(min(found)), shown(max(found))
    span = low if low == high else f"{low} to {high}"
    return f"Differences from {span} on are found here with 80 % power."
