"""The `check` commands: pin, check, explain and update the baseline of the gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpmoe_bench.cli.options import Json, NoColor, Quiet
from lpmoe_bench.errors import UsageError

if TYPE_CHECKING:
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.gate.cells import Cell
    from lpmoe_bench.records.store import Found

app = typer.Typer(
    no_args_is_help=True,
    help="The gate: candidate records against a pinned baseline.",
    epilog="Exit codes of check: 0 pass or improved, 10 regressed, 5 not comparable, "
    "11 inconclusive with --strict, 3 a baseline that cannot be read.",
)

Roots = Annotated[
    list[Path] | None, typer.Argument(metavar="[ROOTS]...", help="Folders of records; else runs.")
]
BaselineFile = Annotated[Path, typer.Option("--baseline", help="The file of pinned cells.")]
Level = Annotated[
    float | None, typer.Option(help="Chance of a false alarm in a call; the baseline's, else 0.05.")
]
Floor = Annotated[float | None, typer.Option(help="A drop up to this is never a regression.")]
Cap = Annotated[float | None, typer.Option(help="A drop beyond this always is one.")]
Speed = Annotated[
    float | None,
    typer.Option(help="Share of images/s that may be lost on the same hardware; 1: any."),
]
Metrics = Annotated[str, typer.Option(help="Names with commas; else the headline.")]
PINNED = Path("results/baseline.json")


@app.command()
def pin(
    roots: Roots = None,
    baseline: BaselineFile = PINNED,
    metrics: Metrics = "",
    reason: Annotated[str, typer.Option(help="Kept in the baseline's history.")] = "first pin",
    level: Level = None,
    floor: Floor = None,
    cap: Cap = None,
    speed_tolerance: Speed = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Write a baseline from records: scores of every seed, spread, parameters, FLOPs, speed."""
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.gate.baseline import Policy, write_baseline
    from lpmoe_bench.gate.pin import pin as make
    from lpmoe_bench.gate.pin import tells_speed

    if baseline.exists():
        raise UsageError(
            f"{baseline} exists; change it by check update --reason TEXT, or name another file"
        )
    terminal = Terminal(quiet, no_color)
    policy = Policy().changed(level=level, floor=floor, cap=cap, speed_tolerance=speed_tolerance)
    cells = _cells(roots, terminal)
    made = make(cells, policy, reason, _names(metrics))
    write_baseline(baseline, made)
    for cell, pinned in zip(cells, made.cells, strict=True):
        seeds = len(cell.seeds)
        print(f"{cell.name}: {seeds} seed{'s' if seeds > 1 else ''}")
        if seeds < 3:
            terminal.note(f"{cell.name}: limits from {seeds} seeds are wide or none; pin 5")
        if pinned.speed is None and tells_speed(cell):
            terminal.note(f"{cell.name}: no speed is pinned, its seeds ran on unlike hardware")
    print(baseline)


@app.command()
def check(
    roots: Roots = None,
    baseline: BaselineFile = PINNED,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write Markdown; else to $GITHUB_STEP_SUMMARY if set.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Inconclusive is exit code 11.")] = False,
    level: Level = None,
    floor: Floor = None,
    cap: Cap = None,
    speed_tolerance: Speed = None,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Judge candidate records: pass, improved, inconclusive, not comparable or regressed."""
    from dataclasses import replace
    from json import dumps

    from rich.console import Console

    from lpmoe_bench.files import write_atomically
    from lpmoe_bench.gate.baseline import read_baseline
    from lpmoe_bench.gate.judge import check as judge
    from lpmoe_bench.gate.outputs import show, to_junit, write_summary
    from lpmoe_bench.records.store import find_records

    pinned = read_baseline(baseline)
    policy = pinned.policy.changed(
        level=level, floor=floor, cap=cap, speed_tolerance=speed_tolerance
    )
    found = find_records(roots or None)
    outcome = judge(pinned, _gather(found, roots), policy)
    outcome = replace(outcome, notes=(*found.notes, *outcome.notes))
    if junit is not None:
        write_atomically(junit, to_junit(outcome, strict))
    write_summary(outcome, summary)
    if json:
        print(dumps(outcome.as_json(strict), indent=2, ensure_ascii=False))
    else:
        show(replace(outcome, notes=()) if quiet else outcome, Console(no_color=no_color))
    raise typer.Exit(outcome.exit_code(strict))


@app.command()
def explain(
    roots: Roots = None,
    baseline: BaselineFile = PINNED,
    cell: Annotated[str, typer.Option(help="A part of the cell's name; needed for several.")] = "",
    metric: Annotated[str, typer.Option(help="Its metric; else the first one pinned.")] = "",
    level: Level = None,
    floor: Floor = None,
    cap: Cap = None,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Say in sentences where the limit of one score comes from, and what would settle it."""
    from json import dumps

    from lpmoe_bench.console import Terminal
    from lpmoe_bench.errors import NotComparableError
    from lpmoe_bench.gate.baseline import read_baseline
    from lpmoe_bench.gate.explain import choose
    from lpmoe_bench.gate.explain import explain as sentences
    from lpmoe_bench.gate.judge import check as judge

    pinned = read_baseline(baseline)
    chosen, key = choose(pinned, cell, metric)
    policy = pinned.policy.changed(level=level, floor=floor, cap=cap)
    try:
        cells = _cells(roots, Terminal(quiet, no_color))
    except NotComparableError:  # without candidates there is still a limit to explain
        cells = []
    outcome = judge(pinned, cells, policy) if cells else None
    said = sentences(chosen, key, policy, outcome, cells)
    print(dumps(said, indent=2, ensure_ascii=False) if json else "\n".join(said))


@app.command()
def update(
    roots: Roots = None,
    baseline: BaselineFile = PINNED,
    reason: Annotated[str, typer.Option(help="Why; kept in the history. Without: a preview.")] = "",
    metrics: Metrics = "",
    level: Level = None,
    floor: Floor = None,
    cap: Cap = None,
    speed_tolerance: Speed = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Show what new records change in the baseline and, with a reason, pin them."""
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.gate.baseline import read_baseline, write_baseline
    from lpmoe_bench.gate.pin import update as make
    from lpmoe_bench.gate.pin import with_history

    pinned = read_baseline(baseline)
    policy = pinned.policy.changed(
        level=level, floor=floor, cap=cap, speed_tolerance=speed_tolerance
    )
    cells = _cells(roots, Terminal(quiet, no_color))
    pins, changes = make(pinned, cells, policy, _names(metrics))
    for change in changes:
        print(change)
    if not changes:
        print(f"{baseline} stays as it is: these records change nothing")
        return
    if not reason.strip():
        raise UsageError(
            f"{baseline} was not written: say why it should change with --reason TEXT, which is "
            f"kept in its history"
        )
    write_baseline(baseline, with_history(pinned, pins, policy, cells, reason.strip(), changes))
    print(baseline)


def _cells(roots: list[Path] | None, terminal: Terminal) -> list[Cell]:
    from lpmoe_bench.records.store import find_records

    found = find_records(roots or None)
    for note in found.notes:
        terminal.note(note)
    return _gather(found, roots)


def _gather(found: Found, roots: list[Path] | None) -> list[Cell]:
    from lpmoe_bench.gate.cells import gather
    from lpmoe_bench.records.store import default_roots

    return gather(found, ", ".join(str(root) for root in roots or default_roots()))


def _names(metrics: str) -> list[str] | None:
    return [name.strip() for name in metrics.split(",") if name.strip()] or None
