"""Sentences on where one limit comes from: spread, quantile, floor, cap, Holm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lpmoe_bench.errors import UsageError
from lpmoe_bench.gate import limits
from lpmoe_bench.gate.baseline import Baseline, CellPin, MetricPin, Policy
from lpmoe_bench.gate.judge import JudgedLine, Judgement, Outcome
from lpmoe_bench.gate.pin import GateCell, differences
from lpmoe_bench.metrics.facts import METRICS


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
    pin: CellPin, metric: str, policy: Policy, outcome: Outcome | None, cells: Sequence[GateCell]
) -> list[str]:
    """Explain one limit; with an outcome also the verdict, else for as many seeds as are pinned."""
    lines = [one for one in outcome.lines if one.cell == pin.name] if outcome else []
    line = next((one for one in lines if (one.kind, one.name) == ("quality", metric)), None)
    judgement = line.judgement if line else None
    found, label = pin.metrics[metric], METRICS[metric].label if metric in METRICS else metric
    seeds = judgement.seeds if judgement else len(pin.seeds)
    level = judgement.level if judgement else policy.level / len(pin.metrics)
    family = judgement.family if judgement else len(pin.metrics)
    said = [f"{label} on {pin.name}.", *_spread(pin, found)]
    said += _limit(pin, metric, policy, seeds, level, family)
    if line and judgement:
        said += _verdict(line, judgement, policy)
        said += _same_seeds(pin, found, cells, metric)
    elif line:
        said.append(f"The verdict is {line.verdict}: {line.reason}.")
    elif lines:  # of the whole cell, which nothing could be compared with
        said.append(f"The cell is {lines[0].verdict}: {lines[0].reason}.")
    else:
        said.append("No candidate is there; the limit is the one that such a candidate would meet.")
    return said


def _spread(pin: CellPin, found: MetricPin) -> Iterator[str]:
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
    pin: CellPin, metric: str, policy: Policy, seeds: int, level: float, family: int
) -> Iterator[str]:
    reference = limits.reference_of(pin.metrics[metric], pin.images)
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
        found = limits.learnt(reference, seeds, level) or 0.0
        # The drop is t x sd x sqrt(1/n_c + 1/n_b): t is what is left of it without the last two.
        scale = reference.sd * math.sqrt(1 / seeds + 1 / reference.seeds)
        quantile = found / scale if scale else 0.0
        if family > 1:
            yield (
                f"Holm's procedure judges it at the level {level:.3g}, since {family} scores share "
                f"the {policy.level:g} of one call."
            )
        yield (
            f"Chance alone makes the mean of {seeds} new seeds worse than that of the baseline by "
            f"more than t x sd x sqrt(1/{seeds} + 1/{reference.seeds}) = {quantile:.2f} x "
            f"{reference.sd:.4f} x {math.sqrt(1 / seeds + 1 / reference.seeds):.3f} = {found:.4f} "
            f"with a probability of {level:.3g}."
        )
        if found < limits.floor_of(policy):
            yield f"That is less than the floor, {limits.floor_of(policy):g}, which counts instead."
        if policy.cap is not None and found > policy.cap:
            yield f"That is more than the cap, {policy.cap:g}, which counts instead."
    assert allowed is not None  # with a spread there is a limit
    up = METRICS[metric].higher_is_better if metric in METRICS else True
    limit = reference.mean - allowed if up else reference.mean + allowed
    yield f"So the limit is {limit:.4f}: a score {'below' if up else 'above'} it is a regression."


def _verdict(line: JudgedLine, judgement: Judgement, policy: Policy) -> Iterator[str]:
    seeds = f"{judgement.seeds} seeds" if judgement.seeds > 1 else "one seed"
    p = "" if judgement.p is None else f" (one-sided p {judgement.p:.3g})"
    drop = "no drop"
    if judgement.drop:
        change = judgement.drop
        drop = f"a drop of {change:.4f}" if change > 0 else f"better by {-change:.4f}"
    yield f"The candidate scores {line.candidate:.4f} over {seeds}, {drop}{p}: {line.verdict}."
    if line.reason:
        yield f"{line.reason[:1].upper()}{line.reason[1:]}."
    needed = limits.seeds_needed(judgement.reference, judgement.drop, judgement.level)
    if line.verdict == "pass" and needed and judgement.drop > limits.floor_of(policy):
        side = "both sides" if needed[1] else "the candidate"
        yield f"Were that drop real, about {needed[0]} seeds of {side} would show it."


def _same_seeds(
    pin: CellPin, found: MetricPin, cells: Sequence[GateCell], metric: str
) -> Iterator[str]:
    """Show the seeds that both sides have, one by one: for reading, they decide nothing."""
    cell = next((c for c in cells if not differences(pin.identity, c.identity)), None)
    if cell is None:
        return
    before = dict(zip(pin.seeds, found.scores, strict=True))
    after = {
        seed: one.record.scores[cell.test_set].get(metric)
        for seed, one in zip(cell.seeds, cell.stored, strict=True)
    }
    pairs = [(s, before[s], v) for s, v in after.items() if s in before and v is not None]
    if pairs:
        each = ", ".join(f"seed {s} {v - old:+.2g}" for s, old, v in pairs)
        yield f"Seed by seed, which decides nothing (see docs/gate.md): {each}."
