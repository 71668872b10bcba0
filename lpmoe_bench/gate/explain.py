"""What a baseline promises: drops that it finds, false alarms, where each limit comes from.

The smallest drop found is the limit of a score, at the level of Holm's first step over all scores
of a call, and the t quantile of the power times the error of the difference: a candidate whose
scores truly lie so far below falls past the limit in that share of cases, over baselines and
candidates alike. Holm's later steps only make it likelier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from lpmoe_bench.errors import UsageError
from lpmoe_bench.gate import limits
from lpmoe_bench.gate.baseline import Baseline, CellPin, MetricPin, Policy
from lpmoe_bench.gate.judge import JudgedLine, Judgement, Outcome
from lpmoe_bench.gate.limits import GOOD_SEEDS, Reference, ReplayReference
from lpmoe_bench.gate.pin import GateCell, differences
from lpmoe_bench.metrics.facts import METRICS

POWER = 0.8
# A drop that nobody needs a gate for: of a score, and of an error as a share of itself.
USELESS, USELESS_ERROR = 0.1, 0.5
FEW = 3  # two seeds tell so little of their spread that the limit is ten to thirty of it


class PlannedScore(NamedTuple):
    """One score of a call. seeds: of the candidate, by default as many as are pinned."""

    cell: CellPin
    metric: str
    reference: Reference
    seeds: int


def planned_scores(baseline: Baseline) -> list[PlannedScore]:
    """Return all scores that a call on the whole baseline judges."""
    return [
        PlannedScore(cell, key, limits.reference_of(metric, cell.images), len(cell.seeds))
        for cell in baseline.cells
        for key, metric in cell.metrics.items()
    ]


def count_family(scores: Sequence[PlannedScore]) -> int:
    """Return how many scores share level and confidence: those with a known spread, at least 1."""
    return max(1, sum(one.reference.sd is not None for one in scores))


def smallest_drop(
    reference: Reference, seeds: int, level: float, policy: Policy, power: float = POWER
) -> float | None:
    """Return the smallest true drop that is found with this power; None without a spread."""
    from scipy import special

    allowed = limits.tolerance(reference, seeds, level, policy)
    if allowed is None or reference.sd is None:
        return None
    luck = float(special.stdtrit(reference.freedom, power))
    return allowed + luck * reference.sd * reference.error(seeds)


def strict_share(scores: Sequence[PlannedScore], policy: Policy) -> tuple[float, float] | None:
    """Return how many clean changes end a call as regressed or inconclusive, from least to most.

    The least where all scores move as one, the most where they are independent; on average over
    baselines. None where a score has no spread to tell it from.
    """
    family, shares = count_family(scores), []
    level, policy = policy.level / family, limits.of_each(policy, family)
    for _, _, reference, seeds in scores:
        allowed = limits.tolerance(reference, seeds, level, policy)
        if allowed is None or reference.sd is None:
            return None
        doubted = min(allowed, max(limits.floor_of(policy, reference), allowed / 2))
        shares.append(limits.chance(reference, doubted, seeds))
    return max(shares), 1 - math.prod(1 - share for share in shares)


# The same in sentences, for `check pin` and `check explain`.


class BaselinePlan(NamedTuple):
    """What `check pin` says of a baseline.

    drops: the smallest found of each metric of each cell, None where none is. strict: as
    `strict_share`. cells: a line for each. call: sentences on a call over all of them. warnings:
    where a gate is of no use.
    """

    drops: dict[str, dict[str, float | None]]
    strict: tuple[float, float] | None
    cells: list[str]
    call: list[str]
    warnings: list[str]


def plan_baseline(baseline: Baseline) -> BaselinePlan:
    """Work out what a pinned baseline will find, by its own policy."""
    scores, policy = planned_scores(baseline), baseline.policy
    family = count_family(scores)
    level, each = policy.level / family, limits.of_each(policy, family)
    drops: dict[str, dict[str, float | None]] = {}
    wide: dict[str, list[PlannedScore]] = {}
    for one in scores:
        drop = smallest_drop(one.reference, one.seeds, level, each)
        drops.setdefault(one.cell.name, {})[one.metric] = drop
        few = one.reference.seeds < FEW and not one.cell.replay
        if drop is None or few or drop > _useful(one):
            wide.setdefault(one.cell.name, []).append(one)
    share = strict_share(scores, policy)
    call = [
        f"Drops found: in {100 * POWER:g} of 100 candidates that truly lost so much, with as many "
        f"seeds, at the level {level:.3g} of Holm's first step.",
        *say_level(policy),
        say_strict(share),
        *(REPLAY if baseline.replay else ()),
    ]
    cells = [_cell_line(cell, drops[cell.name]) for cell in baseline.cells]
    said = [
        warning
        for cell in baseline.cells
        if (warning := _warning(wide.get(cell.name, []), drops[cell.name], level, each))
    ]
    return BaselinePlan(drops, share, cells, call, said)


REPLAY = (
    "In a replay candidates have pinned seeds alone, each judged against itself and the noise of "
    "a rerun.",
    "The floor is 0 there unless --floor gives one: of a metric that reruns leave as it is to the "
    "last bit, any drop is a regression.",
)


def say_level(policy: Policy) -> Iterator[str]:
    """Say what the level promises, and of what."""
    yield (
        f"The level {policy.level:g} is the chance of a false alarm in a call, on average over "
        f"baselines and clean changes."
    )
    if policy.confidence is None:
        yield (
            "This one baseline may alarm more often, for it is one draw; --confidence 0.9 gives "
            "limits that hold for nine baselines in ten."
        )
    else:
        yield f"It holds in {100 * policy.confidence:g} of 100 single baselines as well."
    if policy.cap is not None:
        yield f"Neither holds where the cap, {policy.cap:g}, is less than what seeds teach."


def say_strict(share: tuple[float, float] | None) -> str:
    """Say how many clean changes fail by `--strict`, which takes a doubt for a failure."""
    if share is None:
        return (
            "--strict fails every change that moves a score of one seed, unless floor and cap say "
            "what it may lose."
        )
    least, most = (f"{100 * value:.0f}" for value in share)
    scores = f" if scores move as one, {most} % if they are independent" if most != least else ""
    return f"--strict fails {least} % of clean changes{scores}; it fails those in doubt too."


def drop_text(drop: float | None) -> str:
    """Return a drop with the digits that it deserves."""
    if drop is None:
        return "unknown"
    if drop == 0:
        return "any"
    return f"{drop:.3f}" if drop >= 0.01 else f"{drop:.2g}"


def _cell_line(cell: CellPin, drops: dict[str, float | None]) -> str:
    count = len(cell.seeds)
    seeds = f"{count} seed{'s' if count > 1 else ''}{', each run twice' if cell.replay else ''}"
    found = ", ".join(f"{_label(key)} {drop_text(drop)}" for key, drop in drops.items())
    return f"{cell.name}: {seeds}; drops found: {found}"


def _warning(
    wide: Sequence[PlannedScore], drops: dict[str, float | None], level: float, policy: Policy
) -> str:
    """Say that a cell's limits are of little use, and what would help; empty where they are."""
    if not wide:
        return ""
    cell, count = wide[0].cell, len(wide[0].cell.seeds)
    replay = "" if cell.replay else ", or run each twice and pin with --replay"
    if wide[0].reference.sd is None:
        return f"{cell.name}: one seed tells no spread, so no limit is learnt; pin 5 seeds{replay}"
    found = ", ".join(f"{_label(one.metric)} {drop_text(drops[one.metric])}" for one in wide)
    said = f"{cell.name}: limits from {count} seeds are wide, drops are found from {found} on"
    if count >= GOOD_SEEDS:
        return f"{said}; pin more seeds, or fewer scores by --metrics{replay}"
    better = ", ".join(
        f"{_label(one.metric)} {drop_text(smallest_drop(known, GOOD_SEEDS, level, policy))}"
        for one in wide
        for known in [replace(one.reference, seeds=GOOD_SEEDS)]
    )
    return f"{said}; pin {GOOD_SEEDS} seeds, which by this spread find {better}{replay}"


def _useful(one: PlannedScore) -> float:
    up = METRICS[one.metric].higher_is_better if one.metric in METRICS else True
    return USELESS if up else USELESS_ERROR * one.reference.mean


def _label(metric: str) -> str:
    return METRICS[metric].label if metric in METRICS else metric


# Sentences on where one limit comes from: spread, quantile, floor, cap, Holm.

NINE_IN_TEN = 0.9  # a confidence to tell how bad baselines may be where none is asked for


def choose_pin(baseline: Baseline, cell: str, metric: str) -> tuple[CellPin, str]:
    """Return the pin and the metric that two texts mean; a part of a cell's name is enough.

    Raises UsageError where none, or more than one, is meant.
    """
    names = [pin.name for pin in baseline.cells]
    fitting = [pin for pin in baseline.cells if cell in pin.name]
    fitting = [pin for pin in fitting if pin.name == cell] or fitting
    if not fitting:
        raise UsageError.unknown("cell of the baseline", cell, names)
    if len(fitting) > 1:
        raise UsageError(
            f"--cell {cell or 'is not given, which'} means {len(fitting)} cells, such as "
            f"'{fitting[0].name}' and '{fitting[1].name}'; say more of the name"
        )
    key = metric or next(iter(fitting[0].metrics))
    if key not in fitting[0].metrics:
        raise UsageError.unknown(f"metric of {fitting[0].name}", key, fitting[0].metrics)
    return fitting[0], key


def explain_limit(
    baseline: Baseline,
    pin: CellPin,
    metric: str,
    policy: Policy,
    outcome: Outcome | None,
    cells: Sequence[GateCell],
) -> list[str]:
    """Explain one limit; with an outcome also the verdict, else for as many seeds as are pinned."""
    lines = [one for one in outcome.lines if one.cell == pin.name] if outcome else []
    line = next((one for one in lines if (one.kind, one.name) == ("quality", metric)), None)
    judgement = line.judgement if line else None
    found, label = pin.metrics[metric], METRICS[metric].label if metric in METRICS else metric
    planned = planned_scores(baseline)
    reference = limits.reference_of(found, pin.images)
    if judgement:
        reference, seeds = judgement.reference, judgement.seeds
        level, family = judgement.level, judgement.family
    else:
        seeds, family = len(pin.seeds), count_family(planned)
        level = policy.level / family
    each = limits.of_each(policy, family)
    said = [f"{label} on {pin.name}.", *_spread(pin, found, reference)]
    said += _limit(metric, reference, each, seeds, level, family)
    if line and judgement:
        said += _verdict(line, judgement, each)
        said += _same_seeds(pin, found, cells, metric)
    elif line:
        said.append(f"The verdict is {line.verdict}: {line.reason}.")
    elif lines:  # of the whole cell, which nothing could be compared with
        said.append(f"The cell is {lines[0].verdict}: {lines[0].reason}.")
    else:
        said.append("No candidate is there; the limit is the one that such a candidate would meet.")
    return [*said, *_promise(planned, policy, outcome)]


def _promise(
    planned: Sequence[PlannedScore], policy: Policy, outcome: Outcome | None
) -> Iterator[str]:
    """Say what level and --strict promise of a whole call, with the candidate's seeds."""
    of_call = {
        (line.cell, line.name): line.judgement.seeds
        for line in (outcome.lines if outcome else ())
        if line.judgement
    }
    scores = [
        one._replace(seeds=of_call.get((one.cell.name, one.metric), one.seeds)) for one in planned
    ]
    yield from say_level(policy)
    yield say_strict(strict_share(scores, policy))


def _spread(pin: CellPin, found: MetricPin, reference: Reference) -> Iterator[str]:
    if isinstance(reference, ReplayReference):
        noise = "scores the same to the last bit"
        if reference.sd:
            noise = f"varies by an sd of {_digits(reference.sd)}"
        yield (
            f"The baseline has {len(pin.seeds)} seeds, each run twice; one more run of a seed "
            f"{noise}, with {reference.freedom} degrees of freedom."
        )
        yield f"The pinned mean over the seeds to be judged is {reference.mean:.4f}."
        return
    if found.sd is None:
        yield f"The baseline has one seed, {found.mean:.4f}: how far seeds differ is not known."
        return
    yield (
        f"The baseline has {len(pin.seeds)} seeds with a mean of {found.mean:.4f} and an sd of "
        f"{found.sd:.4f}."
    )
    if found.rest_variance is None:
        return
    nested = math.sqrt(found.rest_variance / max(1, pin.images))
    raised = "so it is raised to that" if nested > found.sd else "so it stands"
    yield (
        f"The rows of {pin.images} images, nested within the seeds, allow no sd below "
        f"{nested:.4f}, {raised}."
    )


def _limit(
    metric: str, reference: Reference, policy: Policy, seeds: int, level: float, family: int
) -> Iterator[str]:
    allowed = limits.tolerance(reference, seeds, level, policy)
    if reference.sd is None:
        if allowed is None:
            yield (
                f"Without floor or cap there is no limit, and every verdict but a rerun that is "
                f"the same to the last bit is inconclusive; pin {limits.GOOD_SEEDS} seeds, or "
                f"give one."
            )
            return
    else:
        yield from _learnt(reference, policy, seeds, level, family)
    assert allowed is not None  # with a spread there is a limit
    up = METRICS[metric].higher_is_better if metric in METRICS else True
    limit = reference.mean - allowed if up else reference.mean + allowed
    yield f"So the limit is {limit:.4f}: a score {'below' if up else 'above'} it is a regression."


def _learnt(
    reference: Reference, policy: Policy, seeds: int, level: float, family: int
) -> Iterator[str]:
    """Say how the limit of a score with a spread comes about: prediction, tolerance, floor, cap."""
    found = limits.predicted(reference, seeds, level) or 0.0
    # The drop is t x sd x sqrt(1/n_c + 1/n_b): t is what is left of it without the last two.
    sd, error = reference.sd or 0.0, reference.error(seeds)
    if family > 1:
        yield (
            f"Holm's procedure judges it at the level {level:.3g}, since {family} scores share "
            f"the {policy.level:g} of one call."
        )
    replay = isinstance(reference, ReplayReference)
    if sd:
        pinned = 2 * seeds if replay else reference.seeds
        kind = "reruns" if replay else "new seeds"
        yield (
            f"Chance alone makes the mean of {seeds} {kind} worse than that of the baseline by "
            f"more than t x sd x sqrt(1/{seeds} + 1/{pinned}) = {found / (sd * error):.2f} x "
            f"{_digits(sd)} x {error:.3f} = {_digits(found)} with a probability of {level:.3g}, on "
            f"average over baselines."
        )
    else:
        yield f"{'Reruns' if replay else 'Seeds'} never differed, so chance explains no drop."
    worst = limits.content(reference, found, seeds, NINE_IN_TEN)
    bounded = limits.tolerated(reference, seeds, level, policy.confidence)
    if sd and bounded is not None:
        outcome = "which counts instead" if bounded > found else "less than that, which stands"
        shared = f", the share of each of {family} scores" if family > 1 else ""
        yield (
            f"For no more than that in {100 * (policy.confidence or 0):.4g} of 100 single baselines"
            f"{shared}, it is {_digits(bounded)} by a noncentral t, {outcome}."
        )
    elif worst > 1.1 * level:
        yield f"In one such baseline of ten it is more than {worst:.2g}."
    found, floor = max(found, bounded or 0.0), limits.floor_of(policy, reference)
    if found < floor:
        yield f"That is less than the floor, {floor:g}, which counts instead."
    if policy.cap is not None and max(found, floor) > policy.cap:
        yield f"That is more than the cap, {policy.cap:g}, which counts instead."


def _digits(value: float) -> str:
    """Return a spread or a drop: four decimals, or two digits where that would be nothing."""
    return f"{value:.4f}" if value >= 0.0001 or value == 0 else f"{value:.2g}"


def _verdict(line: JudgedLine, judgement: Judgement, policy: Policy) -> Iterator[str]:
    seeds = f"{judgement.seeds} seeds" if judgement.seeds > 1 else "one seed"
    p = "" if judgement.p is None else f" (one-sided p {judgement.p:.3g})"
    drop = "no drop"
    if judgement.drop:
        change = judgement.drop
        drop = f"a drop of {_digits(change)}" if change > 0 else f"better by {_digits(-change)}"
    yield f"The candidate scores {line.candidate:.4f} over {seeds}, {drop}{p}: {line.verdict}."
    if line.reason:
        yield f"{line.reason[:1].upper()}{line.reason[1:]}."
    reference, found = judgement.reference, judgement.drop
    needed = limits.seeds_to_settle(reference, found, judgement.level, policy.confidence)
    if line.verdict == "pass" and needed and found > limits.floor_of(policy, reference):
        side = "both sides" if needed[1] else "the candidate"
        yield f"Were that drop real, about {needed[0]} seeds of {side} would show it."


def _same_seeds(
    pin: CellPin, found: MetricPin, cells: Sequence[GateCell], metric: str
) -> Iterator[str]:
    """Show the seeds that both sides have, one by one: for reading, but in a replay."""
    cell = next((c for c in cells if not differences(pin.identity, c.identity)), None)
    if cell is None:
        return
    scores = found.scores if found.reruns is None else found.replayed
    before = dict(zip(pin.seeds, scores, strict=True))
    after = {
        seed: one.record.scores[cell.test_set].get(metric)
        for seed, one in zip(cell.seeds, cell.stored, strict=True)
    }
    pairs = [(s, before[s], v) for s, v in after.items() if s in before and v is not None]
    if pairs:
        each = ", ".join(f"seed {s} {v - old:+.2g}" for s, old, v in pairs)
        how = ", which decides nothing (see docs/gate.md)" if found.reruns is None else ""
        yield f"Seed by seed{how}: {each}."
