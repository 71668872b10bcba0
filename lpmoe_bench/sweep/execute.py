"""A sweep from its plan to its end: show what is there, run what is missing, say what became."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.console import Terminal, stop_requested
from lpmoe_bench.errors import FailedCellsError, InterruptedRun, UsageError
from lpmoe_bench.sweep.local import LocalEngine, shares
from lpmoe_bench.sweep.plan import (
    SWEEPS,
    Attempt,
    Sweep,
    SweepRequest,
    now,
    plan_sweep,
    read_sweeps,
    sweep_folder,
    write_attempt,
    write_sweep,
)
from lpmoe_bench.sweep.runner import Engine, Estimate, SweepProgress, SweepRun, estimate, run_cells
from lpmoe_bench.sweep.state import CellState, Published, cell_state, published
from lpmoe_bench.sweep.summary import other_code, show_plan, show_result, show_status
from method_zoo.errors import unknown


def print_status(runs: Path, done: Sequence[Path], as_json: bool) -> None:
    """Print how sweeps stand; nothing is changed. Raises UsageError where there is none."""
    sweeps = read_sweeps(runs)
    if not sweeps:
        raise UsageError(f"{runs / SWEEPS} holds no sweep; name the folder of runs with --runs")
    elsewhere = published(done)
    show_status(
        [
            (folder, sweep, [cell_state(runs, folder, cell, elsewhere) for cell in sweep.cells])
            for folder, sweep in sweeps
        ],
        as_json,
    )


def cell_counts(runs: Path, elsewhere: Iterable[Path] = ()) -> tuple[int, int, int]:
    """Return how many cells the sweeps of a folder declare, have finished and have given up.

    A cell that several sweeps declare counts once; one whose record is elsewhere is finished.
    """
    known = published(elsewhere)
    states: dict[tuple[str, int], str] = {}
    for folder, sweep in read_sweeps(runs):
        for cell in sweep.cells:
            states[cell.fingerprint, cell.seed] = cell_state(runs, folder, cell, known).state
    found = list(states.values())
    return len(found), found.count("done"), found.count("failed")


ENGINES = ("local", "ray")


@dataclass(frozen=True)
class SweepMode:
    """How a sweep is to be run. shared: whether workers of Ray see this folder of runs, None: ask
    them; done: roots of records that count as done too."""

    engine: str = "local"
    jobs: int | None = None
    address: str | None = None
    shared: bool | None = None
    retry: bool = False
    done: Sequence[Path] = ()


def run_sweep(
    request: SweepRequest, how: SweepMode, dry_run: bool, as_json: bool, terminal: Terminal
) -> None:
    """Plan and run; raises FailedCellsError when cells failed, and the errors of the plan."""
    if how.engine not in ENGINES:
        raise UsageError(unknown("engine", how.engine, ENGINES))
    for name, value in (("--address", how.address), ("--shared/--streamed", how.shared)):
        if value is not None and how.engine != "ray":
            raise UsageError(f"{name} is for --engine ray; the local engine needs none")
    try:
        _sweep(request, how, dry_run, as_json, terminal)
    except KeyboardInterrupt:  # before cells run, or a second one while they save
        raise InterruptedRun("interrupted; the same command goes on where it was") from None


def _sweep(
    request: SweepRequest, how: SweepMode, dry_run: bool, as_json: bool, terminal: Terminal
) -> None:
    elsewhere = published(how.done)
    sweep = plan_sweep(request, terminal)
    if dry_run:
        folder = sweep_folder(request.runs, sweep)
        states = _states(request.runs, folder, sweep, elsewhere)
        estimates = _estimates(request.runs, states, elsewhere)
        show_plan(sweep, folder, states, estimates, _jobs(how, sweep), as_json)
        return
    run_planned(sweep, request.runs, request.offline, how, as_json, terminal, elsewhere)


def run_planned(
    sweep: Sweep,
    runs: Path,
    offline: bool,
    how: SweepMode,
    as_json: bool,
    terminal: Terminal,
    elsewhere: Published,
    engine: Engine | None = None,
) -> None:
    """Run what is left of a planned sweep, on the engine that is asked for or given."""
    folder = write_sweep(runs, sweep)
    states = _states(runs, folder, sweep, elsewhere)
    if how.retry:
        for state in states:
            if state.attempts and state.state != "done":
                write_attempt(folder, state.cell, Attempt(ended=now(), outcome="reset"))
        states = _states(runs, folder, sweep, elsewhere)
    _announce(sweep, folder, states, terminal)
    done, failed = (sum(s.state == name for s in states) for name in ("done", "failed"))
    to_do = [state.cell for state in states if state.state not in ("done", "failed")]
    if to_do:
        engine = engine or _engine(how, sweep, folder, terminal)
        estimates = _estimates(runs, states, elsewhere)
        with terminal.bar("cells", len(states)) as bar, stop_requested() as stopped:
            progress = SweepProgress(
                terminal, bar, len(states), done, failed, estimates, engine.jobs
            )
            run = SweepRun(sweep, folder, runs, engine, progress, stopped, offline)
            run.to_do.extend(to_do)
            run_cells(run)
        states = _states(runs, folder, sweep, elsewhere)
    _finish(sweep, folder, states, as_json, terminal)


def _states(runs: Path, folder: Path, sweep: Sweep, elsewhere: Published) -> list[CellState]:
    return [cell_state(runs, folder, cell, elsewhere) for cell in sweep.cells]


def _estimates(
    runs: Path, states: Sequence[CellState], elsewhere: Published
) -> dict[str, Estimate]:
    """Estimate the cells that are left, by all records that are known."""
    records = [one.record for one in elsewhere.values()]
    if runs.is_dir():
        records += [one.record for one in published([runs]).values()]
    left = [state.cell for state in states if state.state not in ("done", "failed")]
    return {cell.name: estimate(cell, records) for cell in left}


def _jobs(how: SweepMode, sweep: Sweep) -> int:
    """Return how many cells would run at a time; one where only the cluster could tell."""
    if how.engine == "ray":
        return how.jobs or 1
    return len(shares(sweep.cells, how.jobs)[0])


def _engine(how: SweepMode, sweep: Sweep, folder: Path, terminal: Terminal) -> Engine:
    if how.engine == "ray":
        from lpmoe_bench.sweep.ray_engine import RayEngine

        return RayEngine(sweep, folder, how.jobs, how.address, how.shared, terminal.say)
    made, notes = shares(sweep.cells, how.jobs)
    for note in notes:
        terminal.note(note)
    return LocalEngine(made)


def _announce(sweep: Sweep, folder: Path, states: Sequence[CellState], terminal: Terminal) -> None:
    done = [state for state in states if state.state == "done"]
    failed = [state for state in states if state.state == "failed"]
    terminal.say(f"sweep {sweep.id}: {len(states)} cells, {len(done)} done; plan in {folder}")
    for words in other_code(done):
        terminal.note(words)
    if failed:
        terminal.note(
            f"{len(failed)} cells failed three times and are not tried again; --retry tries them"
        )


def _finish(
    sweep: Sweep, folder: Path, states: Sequence[CellState], as_json: bool, terminal: Terminal
) -> None:
    show_result(sweep, folder, states, as_json, terminal)
    failed = [state for state in states if state.state == "failed"]
    if failed:
        first = failed[0]
        raise FailedCellsError(
            f"{len(failed)} of {len(states)} cells failed, the first {first.cell.name}: "
            f"{first.failures[-1].reason}; logs are in {folder / 'attempts'}; once the reason is "
            f"gone, the same command with --retry tries them again"
        )
