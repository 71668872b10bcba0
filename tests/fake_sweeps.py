"""Sweeps of fake cells, planned by hand: quick enough to kill and restart many times.

As a program it runs the sweep that is planned in a folder: fake_sweeps.py RUNS JOBS PROGRAM...
"""

import sys
from pathlib import Path

from lpmoe_bench.console import Terminal
from lpmoe_bench.record import run_folder
from lpmoe_bench.sweep.command import How, run_planned
from lpmoe_bench.sweep.local import LocalEngine
from lpmoe_bench.sweep.model import Cell, Places, Sweep, sweep_id
from lpmoe_bench.sweep.state import CellState, state_of
from lpmoe_bench.sweep.store import read_sweeps, sweep_folder

FAKE = (sys.executable, str(Path(__file__).with_name("fake_cell.py")))


def fake_cell(label: str = "", method: str = "lora", seed: int = 0, **more) -> Cell:
    fingerprint = f"{method:0<64}"
    settings = {"task": "cod", "method": method, "backbone": "small", "seed": seed, "label": label}
    train, runtime = {"batch": 8}, {"devices": 1, "checkpointing": False, "micro_batch": None}
    return Cell(
        name=f"cod-{method}-s{seed}",
        task="cod",
        method=method,
        seed=seed,
        fingerprint=fingerprint,
        folder=run_folder("cod", method, "small", fingerprint, seed),
        settings=settings | {"train": train, "runtime": runtime},
        **more,
    )


def fake_sweep(*cells: Cell) -> Sweep:
    return Sweep(
        id=sweep_id(list(cells), Places()),
        created="2026-01-02T03:04:05+00:00",
        version="0",
        places=Places(),
        cells=list(cells),
    )


def run_fake(sweep: Sweep, runs: Path, jobs: int = 1, retry: bool = False, program=FAKE) -> None:
    """Run a sweep in this process, silently."""
    engine = LocalEngine([{} for _ in range(jobs)], program)
    how = How(retry=retry)
    run_planned(sweep, runs, False, how, False, Terminal(quiet=True), {}, engine)


def states(sweep: Sweep, runs: Path) -> dict[str, CellState]:
    folder = sweep_folder(runs, sweep)
    return {cell.name: state_of(runs, folder, cell, {}) for cell in sweep.cells}


if __name__ == "__main__":
    from lpmoe_bench.errors import BenchError

    runs, jobs, program = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    try:
        run_fake(read_sweeps(runs)[0][1], runs, jobs, program=program or FAKE)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
