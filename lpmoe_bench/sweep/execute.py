"""A sweep from its plan to its end: show what is there, run what is missing, say what became."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpmoe_bench.console import Terminal, stop_requested
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.errors import FailedCellsError, InterruptedRun, UsageError
from lpmoe_bench.files import hold_lock
from lpmoe_bench.records.provenance import changed_code, is_other_code
from lpmoe_bench.records.store import folders_of_records, set_aside
from lpmoe_bench.sweep import plan, runner
from lpmoe_bench.sweep.local import PROGRAM, LocalEngine, devices_of, last_line, shares, tail
from lpmoe_bench.sweep.state import (
    DETERMINISTIC,
    MOST_ATTEMPTS,
    CellState,
    Journal,
    Published,
    cell_states,
    published,
)
from lpmoe_bench.sweep.warm import WarmProcess, can_adopt, prepare_cells

# A sweep in words: its plan and its result, as lines for people or JSON for machines.

ORDER = ("done", "running", "partial", "waiting", "failed")
SHOWN = {"partial": "partly done"}


def show_plan(
    sweep: plan.Sweep,
    folder: Path,
    states: Sequence[CellState],
    estimates: Mapping[str, runner.Estimate],
    jobs: int,
    as_json: bool,
) -> None:
    """Print what would run, what is done, and how long the rest may take."""
    if as_json:
        cells = [state.as_json() for state in states]
        for cell in cells:
            if cell["name"] in estimates:
                cell["estimate"] = estimates[cell["name"]]._asdict()
        _print_json(sweep, folder, cells)
        return
    width = max(len(state.cell.name) for state in states)
    for state in states:
        name, one = state.cell.name, estimates.get(state.cell.name)
        time = ""
        if one is not None:
            seconds = one.seconds
            time = "time unknown" if seconds is None else f"about {runner.duration(seconds)}"
        state_ = SHOWN.get(state.state, state.state)
        line = f"{name:<{width}}  {state.cell.fingerprint[:12]}  {state_:<11}  {time}"
        print(f"{line.rstrip()}{_failed_words(state)}")
    print(f"sweep {sweep.id}: {counts(states)}")
    for sentence in other_code(states):
        print(sentence)
    print(f"left: {runner.total_words(estimates, jobs)}")


def show_result(
    sweep: plan.Sweep, folder: Path, states: Sequence[CellState], as_json: bool, terminal: Terminal
) -> None:
    """Print how every cell stands after a sweep."""
    if as_json:
        _print_json(sweep, folder, [state.as_json() for state in states])
        return
    if others := in_state(states, "running", "partial", "waiting"):
        names = ", ".join(state.cell.name for state in others[:5])
        terminal.note(
            f"{len(others)} cells are left to other processes that work on them ({names}); the "
            f"same command looks again, `lpmoe-bench sweep status` tells how they stand"
        )
    print(f"sweep {sweep.id}: {counts(states)}")


def show_status(
    found: Sequence[tuple[Path, plan.Sweep, Sequence[CellState]]], as_json: bool
) -> None:
    """Print every sweep: counts, and a line for each cell that runs, has failed or is half done."""
    if as_json:
        found_json = [
            {"id": sweep.id, "folder": str(folder), "created": sweep.created}
            | {"cells": [state.as_json() for state in states]}
            for folder, sweep, states in found
        ]
        print(json.dumps(found_json, indent=2, ensure_ascii=False))
        return
    for folder, sweep, states in found:
        print(f"sweep {sweep.id}, planned {sweep.created}: {counts(states)}")
        print(f"  {folder}")
        for sentence in other_code(states):
            print(f"  {sentence}")
        for state in states:
            if state.state == "running":
                print(f"  running      {runner.name_of(state.cell)}: {_now(state.log)}")
            elif state.state == "partial":
                print(f"  partly done  {runner.name_of(state.cell)}{_failed_words(state)}")
            elif state.state == "failed" or (state.failures and state.state == "waiting"):
                print(f"  {state.state:<11}  {runner.name_of(state.cell)}{_failed_words(state)}")


def counts(states: Sequence[CellState]) -> str:
    """Count cells by how they stand."""
    found = Counter(state.state for state in states)
    parts = [f"{found[name]} {SHOWN.get(name, name)}" for name in ORDER if found[name]]
    return f"{len(states)} cells: {', '.join(parts)}"


def in_state(states: Sequence[CellState], *kinds: str) -> list[CellState]:
    """Return the cells that stand in one of these ways."""
    return [state for state in states if state.state in kinds]


def other_code(states: Sequence[CellState]) -> list[str]:
    """Say which finished cells were made by other code than this.

    By the digest of what method, decoder and loss are made of; by commit where a record of an
    earlier version has no such digest.
    """
    here, done = collect_environment(""), in_state(states, "done")
    sentences = []
    if changed := [state for state in done if _is_changed(state)]:
        names = "; ".join(_changes(state) for state in changed[:MOST_NAMED])
        more = f" and {len(changed) - MOST_NAMED} more" if changed[MOST_NAMED:] else ""
        sentences.append(
            f"{len(changed)} of {len(done)} finished cells were made by other code of method, "
            f"decoder or loss and are kept: {names}{more}; --rerun-changed runs them again"
        )
    made_by = [s.record.environment for s in done if s.record is not None and s.record.code is None]
    others = [e for e in made_by if (e.version, e.git_sha) != (here.version, here.git_sha)]
    if others:
        shas = sorted({(one.git_sha or "no commit")[:12] for one in others})
        sentences.append(
            f"{len(others)} of {len(done)} finished cells were made by other code "
            f"({', '.join(shas)}); this is {(here.git_sha or f'version {here.version}')[:12]}"
        )
    return sentences


MOST_NAMED = 5  # cells in a sentence


def _is_changed(state: CellState) -> bool:
    return state.state == "done" and state.record is not None and is_other_code(state.record)


def _changes(state: CellState) -> str:
    assert state.record is not None
    found = changed_code(state.record)
    return f"{state.cell.name} ({', '.join(found)})"


def _now(log: Path | None) -> str:
    """Return the last words of a cell at work; its log opens with the command, which are none."""
    line = last_line(tail(log)) if log else ""
    return "starting" if not line or line.startswith("# ") else line


def _failed_words(state: CellState) -> str:
    if not state.failures or state.state == "done":
        return ""
    log = f"; log: {state.log}" if state.log else ""
    last, tries = state.failures[-1], f"{len(state.failures)} of {MOST_ATTEMPTS} attempts failed"
    tries = "another try would end the same" if last.exit_code in DETERMINISTIC else tries
    return f"  ({tries}: {last.reason}{log})"


def _print_json(sweep: plan.Sweep, folder: Path, cells: list[dict[str, Any]]) -> None:
    found = {"id": sweep.id, "folder": str(folder), "cells": cells}
    print(json.dumps(found, indent=2, ensure_ascii=False))


def print_status(runs: Path, done: Sequence[Path], as_json: bool) -> None:
    """Print how sweeps stand; nothing is changed. Raises UsageError where there is none."""
    sweeps = plan.read_sweeps(runs)
    if not sweeps:
        raise UsageError(
            f"{runs / plan.SWEEPS} holds no sweep; name the folder of runs with --runs"
        )
    elsewhere = published(done)
    show_status([(f, sweep, _states(runs, f, sweep, elsewhere)) for f, sweep in sweeps], as_json)


def cell_counts(runs: Path, elsewhere: Iterable[Path] = ()) -> tuple[int, int, list[str]]:
    """Return how many cells the sweeps of a folder declare and have finished, and which failed.

    A cell that several sweeps declare counts once; one whose record is elsewhere is finished.
    """
    known = published(elsewhere)
    states: dict[tuple[str, int], CellState] = {}
    for folder, sweep in plan.read_sweeps(runs):
        for state in cell_states(runs, folder, sweep.cells, known):
            states[state.cell.fingerprint, state.cell.seed] = state
    found = list(states.values())
    failed = [runner.name_of(one.cell) for one in found if one.state == "failed"]
    return len(found), sum(one.state == "done" for one in found), failed


ENGINES = ("local", "ray")


@dataclass(frozen=True)
class SweepMode:
    """How a sweep is to be run. shared: whether workers of Ray see this folder of runs, None: ask
    them; retry: failed cells get new tries; rerun_changed: so do finished ones of other code; done:
    roots of records that count as done too."""

    engine: str = "local"
    jobs: int | None = None
    address: str | None = None
    shared: bool | None = None
    retry: bool = False
    rerun_changed: bool = False
    done: Sequence[Path] = ()


def run_sweep(
    request: plan.SweepRequest, how: SweepMode, dry_run: bool, as_json: bool, terminal: Terminal
) -> None:
    """Plan and run; raises FailedCellsError when cells failed, and the errors of the plan."""
    if how.engine not in ENGINES:
        raise UsageError.unknown("engine", how.engine, ENGINES)
    for name, value in (("--address", how.address), ("--shared/--streamed", how.shared)):
        if value is not None and how.engine != "ray":
            raise UsageError(f"{name} is for --engine ray; the local engine needs none")
    try:
        elsewhere = published(how.done)
        sweep = plan.plan_sweep(request, terminal)
        if not dry_run:
            run_planned(sweep, request.runs, request.offline, how, as_json, terminal, elsewhere)
            return
        folder = plan.sweep_folder(request.runs, sweep)
        states = _states(request.runs, folder, sweep, elsewhere)
        if how.rerun_changed:
            states = [
                CellState(state.cell, "waiting", []) if _is_changed(state) else state
                for state in states
            ]
        estimates = _estimates(request.runs, states, elsewhere)
        show_plan(sweep, folder, states, estimates, _jobs(how, sweep), as_json)
    except KeyboardInterrupt:  # before cells run, or a second one while they save
        raise InterruptedRun("interrupted; the same command goes on where it was") from None


def run_planned(
    sweep: plan.Sweep,
    runs: Path,
    offline: bool,
    how: SweepMode,
    as_json: bool,
    terminal: Terminal,
    elsewhere: Published,
    engine: runner.Engine | None = None,
) -> None:
    """Run what is left of a planned sweep, on the engine that is asked for or given."""
    folder = plan.write_sweep(runs, sweep)
    journal = Journal(folder)  # before anything is read: of what is finished later it tells
    states = _states(runs, folder, sweep, elsewhere)
    if how.rerun_changed:
        changed = [state for state in states if _is_changed(state)]
        elsewhere = _reopen(runs, folder, changed, elsewhere)
        states = _anew(runs, folder, states, changed, elsewhere)
    if how.retry:
        # Attempts stay on disk as evidence; one that says "reset" makes those before it not count.
        reset = plan.Attempt(ended=plan.now(), outcome="reset")
        tried = [state for state in states if state.attempts and state.state != "done"]
        for state in tried:
            plan.write_attempt(folder, state.cell, reset)
        states = _anew(runs, folder, states, tried, elsewhere)
    _announce(sweep, folder, states, terminal)
    done, failed = (len(in_state(states, kind)) for kind in ("done", "failed"))
    to_do = [state.cell for state in in_state(states, "running", "partial", "waiting")]
    if to_do:
        engine = engine or _engine(how, sweep, folder, terminal, to_do, runs, offline)
        estimates = _estimates(runs, states, elsewhere)
        with terminal.bar("cells", len(states)) as bar, stop_requested() as stopped:
            progress = runner.SweepProgress(
                terminal, bar, len(states), done, failed, estimates, engine.jobs
            )
            run = runner.SweepRun(sweep, folder, runs, engine, progress, stopped, journal, offline)
            run.to_do.extend(to_do)
            runner.run_cells(run)
        # Read off the disk again: other processes may have finished cells meanwhile.
        seen = {s.cell.name for s in states if s.done_in == runs / s.cell.folder}
        finished = () if as_json else run.finished | seen
        states = cell_states(runs, folder, sweep.cells, elsewhere, finished)
    _finish(sweep, folder, states, as_json, terminal)


def _reopen(
    runs: Path, folder: Path, changed: Sequence[CellState], elsewhere: Published
) -> Published:
    """Let finished cells wait again; what they made stays under other names.

    Returns the records of other roots that still count as done.
    """
    gone = set()
    for state in changed:
        cell, place = state.cell, runs / state.cell.folder
        if state.done_in != place:
            gone.add((cell.fingerprint, cell.seed))
        elif (lock := hold_lock(place / ".lock")) is not None:  # else somebody works on it already
            with lock:
                set_aside(place)
        if state.attempts:
            reset = plan.Attempt(ended=plan.now(), outcome="reset")
            plan.write_attempt(folder, cell, reset)
    return {key: one for key, one in elsewhere.items() if key not in gone}


def _states(runs: Path, folder: Path, sweep: plan.Sweep, elsewhere: Published) -> list[CellState]:
    return cell_states(runs, folder, sweep.cells, elsewhere)


def _anew(
    runs: Path,
    folder: Path,
    states: Sequence[CellState],
    touched: Sequence[CellState],
    elsewhere: Published,
) -> list[CellState]:
    """Return how cells stand after some of them were touched; the others are not read again."""
    found = cell_states(runs, folder, [state.cell for state in touched], elsewhere)
    by_name = {state.cell.name: state for state in found}
    return [by_name.get(state.cell.name, state) for state in states]


def _estimates(
    runs: Path, states: Sequence[CellState], elsewhere: Published
) -> dict[str, runner.Estimate]:
    """Estimate the cells that are left, by all records that are known."""
    records = [one.record for one in elsewhere.values()]
    if runs.is_dir():
        own = [one for one in states if one.done_in == runs / one.cell.folder]
        read = {one.done_in: one.record for one in own if one.record is not None}
        others = [folder for folder in folders_of_records(runs) if folder not in read]
        of_runs = {(r.fingerprint, r.seed or 0): r for r in read.values()}
        of_runs |= {key: one.record for key, one in published(others).items()}
        records += of_runs.values()
    left = [state.cell for state in in_state(states, "running", "partial", "waiting")]
    return runner.estimate_cells(left, records)


def _jobs(how: SweepMode, sweep: plan.Sweep) -> int:
    """Return how many cells would run at a time; one where only the cluster could tell."""
    if how.engine == "ray":
        return how.jobs or 1
    return len(shares(sweep.cells, how.jobs)[0])


def _engine(
    how: SweepMode,
    sweep: plan.Sweep,
    folder: Path,
    terminal: Terminal,
    to_do: Sequence[plan.SweepCell],
    runs: Path,
    offline: bool,
) -> runner.Engine:
    if how.engine == "ray":
        from lpmoe_bench.sweep.ray_engine import RayEngine

        return RayEngine(sweep, folder, how.jobs, how.address, how.shared, terminal.say)
    made, notes = shares(sweep.cells, how.jobs)
    for note in notes:
        terminal.note(note)
    return LocalEngine(made, warm=_warm(made, sweep.places, to_do, folder, runs, offline))


def _warm(
    made: Sequence[Mapping[str, str]],
    places: plan.DataPlaces,
    to_do: Sequence[plan.SweepCell],
    folder: Path,
    runs: Path,
    offline: bool,
) -> WarmProcess | None:
    """Return what forks the cells; None where each has to start by itself.

    That is on a GPU, which no forked process may use, and where cells are processes themselves.
    For one cell it is not worth it.
    """
    on_gpus = any("CUDA_VISIBLE_DEVICES" in share for share in made)
    if on_gpus or devices_of(to_do)[0] > 1 or len(to_do) < 2 or not can_adopt():
        return None
    more = {
        "runs": str(runs),
        "data_root": str(places.data_root) if places.data_root else None,
        "datasets": [str(path) for path in places.datasets],
        "embedded": places.embedded,
        "offline": offline,
    }
    # All jobs have the same share of the processor, and so the same environment.
    return WarmProcess(PROGRAM, made[0], prepare_cells(to_do, folder, more))


def _announce(
    sweep: plan.Sweep, folder: Path, states: Sequence[CellState], terminal: Terminal
) -> None:
    done, failed = in_state(states, "done"), in_state(states, "failed")
    terminal.say(f"sweep {sweep.id}: {len(states)} cells, {len(done)} done; plan in {folder}")
    for sentence in other_code(states):
        terminal.note(sentence)
    if failed:
        terminal.note(
            f"{len(failed)} cells failed three times, or as any try would, and are not tried "
            f"again; --retry tries them"
        )


def _finish(
    sweep: plan.Sweep, folder: Path, states: Sequence[CellState], as_json: bool, terminal: Terminal
) -> None:
    show_result(sweep, folder, states, as_json, terminal)
    if failed := in_state(states, "failed"):
        first = failed[0]
        raise FailedCellsError(
            f"{len(failed)} of {len(states)} cells failed, the first {first.cell.name}: "
            f"{first.failures[-1].reason}; logs are in {folder / 'attempts'}; once the reason is "
            f"gone, the same command with --retry tries them again"
        )
