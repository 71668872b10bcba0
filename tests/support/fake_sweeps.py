"""Sweeps of fake cells, planned by hand: quick enough to kill and restart many times.

As a program it runs the sweep that is planned in a folder: fake_sweeps.py RUNS JOBS PROGRAM...,
where JOBS is a number, with ,warm behind it for cells that are forked, or the address of a Ray
cluster with ,shared ,streamed or ,look behind it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from lpmoe_bench.console import Terminal
from lpmoe_bench.errors import BenchError
from lpmoe_bench.records.model import run_folder
from lpmoe_bench.sweep import plan
from lpmoe_bench.sweep.execute import SweepMode, run_planned
from lpmoe_bench.sweep.local import LocalEngine
from lpmoe_bench.sweep.state import CellState, cell_state
from lpmoe_bench.sweep.warm import WarmProcess, can_adopt

FAKE = (sys.executable, str(Path(__file__).with_name("fake_cell.py")))


def fake_cell(label: str = "", method: str = "lora", seed: int = 0, **more) -> plan.SweepCell:
    fingerprint = f"{method:0<64}"
    settings = {"task": "cod", "method": method, "backbone": "small", "seed": seed, "label": label}
    train, runtime = {"batch": 8}, {"devices": 1, "checkpointing": False, "micro_batch": None}
    return plan.SweepCell(
        name=f"cod-{method}-s{seed}",
        task="cod",
        method=method,
        seed=seed,
        fingerprint=fingerprint,
        folder=run_folder("cod", method, "small", fingerprint, seed),
        settings=settings | {"train": train, "runtime": runtime},
        **more,
    )


def fake_sweep(*cells: plan.SweepCell) -> plan.Sweep:
    return plan.Sweep(
        id=plan.sweep_id(list(cells), plan.DataPlaces()),
        created="2026-01-02T03:04:05+00:00",
        version="0",
        places=plan.DataPlaces(),
        cells=list(cells),
    )


def run_fake(
    sweep: plan.Sweep,
    runs: Path,
    jobs: int = 1,
    retry: bool = False,
    rerun_changed: bool = False,
    program=FAKE,
) -> None:
    """Run a sweep in this process, silently."""
    engine = LocalEngine([{} for _ in range(jobs)], program)
    how = SweepMode(retry=retry, rerun_changed=rerun_changed)
    run_planned(sweep, runs, False, how, False, Terminal(quiet=True), {}, engine)


def states(sweep: plan.Sweep, runs: Path) -> dict[str, CellState]:
    folder = plan.sweep_folder(runs, sweep)
    return {cell.name: cell_state(runs, folder, cell, {}) for cell in sweep.cells}


def ray_engine(sweep: plan.Sweep, runs: Path, where: str, program=FAKE):
    """An engine on a cluster; `where` is its address and how results come back."""
    from lpmoe_bench.sweep.ray_engine import RayEngine

    address, how = where.split(",")
    shared = {"shared": True, "streamed": False, "look": None}[how]
    folder = plan.write_sweep(runs, sweep)
    engine = RayEngine(sweep, folder, None, address, shared, lambda text: None)
    engine.program = tuple(program)
    return engine


def run_as_program(runs: Path, jobs: str, program: Sequence[str]) -> None:
    sweep = plan.read_sweeps(runs)[0][1]
    number, _, how = jobs.partition(",")
    if number.isdecimal():
        warm = WarmProcess(program, {}) if how == "warm" and can_adopt() else None
        engine = LocalEngine([{} for _ in range(int(number))], program, warm)
    else:
        engine = ray_engine(sweep, runs, jobs, program)
    run_planned(sweep, runs, False, SweepMode(), False, Terminal(), {}, engine)


if __name__ == "__main__":
    try:
        run_as_program(Path(sys.argv[1]), sys.argv[2], sys.argv[3:] or FAKE)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
