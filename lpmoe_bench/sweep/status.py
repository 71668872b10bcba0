"""The `sweep status` command: how all sweeps of a folder stand, from any shell at any time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lpmoe_bench.errors import UsageError
from lpmoe_bench.sweep.plan import SWEEPS, read_sweeps
from lpmoe_bench.sweep.state import published, state_of
from lpmoe_bench.sweep.summary import show_status


def status_command(runs: Path, done: Sequence[Path], as_json: bool) -> None:
    """Print how sweeps stand; nothing is changed. Raises UsageError where there is none."""
    sweeps = read_sweeps(runs)
    if not sweeps:
        raise UsageError(f"{runs / SWEEPS} holds no sweep; name the folder of runs with --runs")
    elsewhere = published(done)
    show_status(
        [
            (folder, sweep, [state_of(runs, folder, cell, elsewhere) for cell in sweep.cells])
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
            states[cell.fingerprint, cell.seed] = state_of(runs, folder, cell, known).state
    found = list(states.values())
    return len(found), found.count("done"), found.count("failed")
