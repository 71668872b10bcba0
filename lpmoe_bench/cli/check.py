"""The `check` commands: pin, check, explain and update the baseline of the gate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.console import Terminal
from lpmoe_bench.errors import NotComparableError, UsageError
from lpmoe_bench.files import write_atomically

if TYPE_CHECKING:
    from lpmoe_bench.gate.baseline import Baseline
    from lpmoe_bench.gate.pin import GateCell
    from lpmoe_bench.records.store import FoundRecords

app = options.App(
    no_args_is_help=True,
    help="The gate: candidate records against a pinned baseline.",
    epilog="Exit codes of check: 0 pass or improved, 10 regressed, 5 not comparable, "
    "11 inconclusive with --strict, 3 a baseline that cannot be read.",
)

BaselineFile = Annotated[Path, typer.Option("--baseline", help="The file of pinned cells.")]
PINNED = Path("results/baseline.json")


@dataclass(frozen=True)
class LimitOptions:
    """What a policy says in place of the baseline's own."""

    level: Annotated[
        float | None,
        typer.Option(
            help="Chance of a false alarm in a call, on average over baselines; the baseline's, "
            "else 0.05."
        ),
    ] = None
    confidence: Annotated[
        float | None,
        typer.Option(help="Share of baselines for each of which the level holds, such as 0.9."),
    ] = None
    floor: Annotated[
        float | None,
        typer.Option(help="A drop up to this is never a regression; 0.001, in a replay 0."),
    ] = None
    cap: Annotated[float | None, typer.Option(help="A drop beyond this always is one.")] = None


@dataclass(frozen=True)
class SpeedLimitOptions(LimitOptions):
    """With the limit of what speed may be lost."""

    speed_tolerance: Annotated[
        float | None,
        typer.Option(help="Share of images/s that may be lost on the same hardware; 1: any."),
    ] = None


@app.command("pin")
def check_pin_command(
    *,
    roots: options.Roots = None,
    kept: options.RecordFilter,
    baseline: BaselineFile = PINNED,
    metrics: options.Metrics = None,
    reason: Annotated[str, typer.Option(help="Kept in the baseline's history.")] = "first pin",
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Each seed is there run twice: judge candidates of these seeds one by one, "
            "against the noise of a rerun.",
        ),
    ] = False,
    limits: SpeedLimitOptions,
    out: options.Output,
) -> None:
    """Write a baseline from records: scores of every seed, spread, parameters, FLOPs, speed.

    Says the smallest drops that it will find, and how often it is wrong.
    """
    from lpmoe_bench.environment import no_collection
    from lpmoe_bench.gate import explain, pin
    from lpmoe_bench.gate.baseline import Policy, write_baseline

    if baseline.exists():
        raise UsageError(
            f"{baseline} exists; change it by check update --reason TEXT, or name another file"
        )
    # Wrong limits are refused before records are read, which takes longer.
    policy = Policy().changed(**vars(limits))
    with no_collection():
        cells = _cells(kept.find(roots), roots, out.terminal, replay)
        made = pin.pin_cells(cells, policy, reason, options.names(metrics) or None)
        write_baseline(baseline, made)
    plan = explain.plan_baseline(made)
    for warning in plan.warnings:
        out.terminal.note(warning)
    for cell, pinned in zip(cells, made.cells, strict=True):
        if pinned.speed is None and pin.tells_speed(cell):
            out.terminal.note(f"{cell.name}: no speed is pinned, its seeds ran on unlike hardware")
    named = {cell.name: [str(seed) for seed in cell.seeds] for cell in cells}
    said = {"baseline": str(baseline), "cells": named, "drops": plan.drops, "strict": plan.strict}
    out.print(said, "\n".join([*plan.cells, *plan.call, str(baseline)]))


@app.command("check")
def check_command(
    *,
    roots: options.Roots = None,
    kept: options.RecordFilter,
    baseline: BaselineFile = PINNED,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write Markdown; else to $GITHUB_STEP_SUMMARY if set.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Inconclusive is exit code 11; fails many clean changes, see check explain.",
        ),
    ] = False,
    limits: SpeedLimitOptions,
    out: options.Output,
) -> None:
    """Judge candidate records: pass, improved, inconclusive, not comparable or regressed."""
    import lpmoe_bench
    from lpmoe_bench.environment import no_collection
    from lpmoe_bench.gate import outputs
    from lpmoe_bench.gate.baseline import read_baseline

    # The same filters for both sides: else pins of other methods would be missing candidates.
    with no_collection():
        pinned = _narrowed(read_baseline(baseline), kept)
        outcome = lpmoe_bench.check(roots, pinned, records=kept.find(roots), **vars(limits))
    if junit is not None:
        write_atomically(junit, outputs.to_junit(outcome, strict))
    outputs.write_summary(outcome, summary)
    if out.json:
        out.print(outcome.as_json(strict), "")
    else:
        outputs.show_outcome(replace(outcome, notes=()) if out.quiet else outcome, out.console)
    # Last, once every file is written: a pipeline that fails wants them most.
    raise typer.Exit(outcome.exit_code(strict))


@app.command("explain")
def check_explain_command(
    *,
    roots: options.Roots = None,
    kept: options.RecordFilter,
    baseline: BaselineFile = PINNED,
    cell: Annotated[str, typer.Option(help="A part of the cell's name; needed for several.")] = "",
    metric: Annotated[str, typer.Option(help="Its metric; else the first one pinned.")] = "",
    limits: LimitOptions,
    out: options.Output,
) -> None:
    """Say in sentences where the limit of one score comes from, and what would settle it."""
    from lpmoe_bench.gate import explain, judge
    from lpmoe_bench.gate.baseline import read_baseline

    pinned = read_baseline(baseline)
    chosen, key = explain.choose_pin(pinned, cell, metric)
    policy = pinned.policy.changed(**vars(limits))
    found = kept.find(roots)
    try:
        cells = _cells(found, roots, out.terminal)
    except NotComparableError:  # without candidates there is still a limit to explain
        cells = []
    outcome = judge.judge_cells(pinned, cells, policy) if cells else None
    said = explain.explain_limit(pinned, chosen, key, policy, outcome, cells)
    out.print(said, "\n".join(said))


@app.command("update")
def check_update_command(
    *,
    roots: options.Roots = None,
    kept: options.RecordFilter,
    baseline: BaselineFile = PINNED,
    reason: Annotated[str, typer.Option(help="Why; kept in the history. Without: a preview.")] = "",
    metrics: options.Metrics = None,
    limits: SpeedLimitOptions,
    out: options.Output,
) -> None:
    """Show what new records change in the baseline and, with a reason, pin them."""
    from lpmoe_bench.gate import pin
    from lpmoe_bench.gate.baseline import read_baseline, write_baseline

    pinned = read_baseline(baseline)
    policy = pinned.policy.changed(**vars(limits))
    cells = _cells(kept.find(roots), roots, out.terminal, pinned.replay)
    pins, changes = pin.update_pins(pinned, cells, policy, options.names(metrics) or None)
    # A baseline that moves without a reason would forgive every regression.
    writes = bool(changes and reason.strip())
    if writes:
        updated = pin.with_history(pinned, pins, policy, cells, reason.strip(), changes)
        write_baseline(baseline, updated)
    if out.json:
        found = {"baseline": str(baseline), "changes": changes, "written": writes}
        return out.print(found, "")
    for change in changes:
        print(change)
    if not changes:
        print(f"{baseline} stays as it is: these records change nothing")
    elif writes:
        print(baseline)
    else:
        print(
            f"{baseline} was not written, this is a preview: say why it should change with "
            f"--reason TEXT, which is kept in its history"
        )
    return None


def _cells(
    found: FoundRecords, roots: list[Path] | None, terminal: Terminal, replay: bool = False
) -> list[GateCell]:
    from lpmoe_bench.gate.pin import gather_cells
    from lpmoe_bench.records.store import default_roots

    for note in found.notes:
        terminal.note(note)
    where = ", ".join(str(root) for root in roots or default_roots())
    return gather_cells(found, where, replay)


def _narrowed(baseline: Baseline, kept: options.RecordFilter) -> Baseline:
    """Return the pins that filters leave; raises UsageError where they leave none."""
    left = baseline.narrowed(*kept.parsed())
    if baseline.cells and not left.cells:
        names = ", ".join(pin.name for pin in baseline.cells[:5])
        raise UsageError(f"no pinned cell is left by these filters; pinned are {names}")
    return left
