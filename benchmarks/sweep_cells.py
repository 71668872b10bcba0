"""CPU time that a sweep itself takes a cell, as cells and workers on one folder grow.

Each worker is a process that runs the same planned sweep in the same folder, as several machines
do on a shared disk. The work of a cell is replaced by writing its record, so that what is measured
is the sweep alone: planning on disk, claims, attempts, and what others have done meanwhile. CPU
time is that of all workers, user and system; it should not grow with cells nor with workers.

    python benchmarks/sweep_cells.py [--json] [--counts 100x1,1000x1,1000x10,10000x100]

COUNTxWORKERS, in the order given. "again" is one more worker on the finished folder.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lpmoe_bench.console import Terminal
from lpmoe_bench.records.model import run_folder
from lpmoe_bench.sweep import plan, runner
from lpmoe_bench.sweep.execute import SweepMode, run_planned
from lpmoe_bench.sweep.local import CellJob, Ended

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "results/records/cod/lora/dinov2_small_imgfocus/41d3b80aaace-s0/run.json"
SEEDS = 5


class Nothing:
    """An engine whose cells are done as soon as they are started."""

    jobs = 1

    def __init__(self) -> None:
        self.content = json.loads(RUN.read_text(encoding="utf-8"))
        self.done: list[tuple[CellJob, Ended, float]] = []

    def free(self) -> bool:
        return not self.done

    def start(self, job: CellJob) -> None:
        folder = job.runs / job.cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        record = self.content | {"fingerprint": job.cell.fingerprint, "seed": job.cell.seed}
        (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
        self.done.append((job, Ended(0), 1.0))

    def ended(self) -> list[tuple[CellJob, Ended, float]]:
        ended, self.done = self.done, []
        return ended

    def stop(self) -> None:
        """Nothing runs."""

    close = stop


def planned(count: int) -> plan.Sweep:
    """Return a sweep of so many cells: five seeds of each setting, seed by seed."""
    config = json.loads(RUN.read_text(encoding="utf-8"))["config"]
    cells = []
    for seed in range(SEEDS):
        for setting in range(-(-count // SEEDS)):
            method, fingerprint = f"lora{setting}", f"{setting:064d}"
            folder = run_folder("cod", method, "small", f"{setting:012d}", seed)
            cell = plan.SweepCell(
                name=f"cod-{method}-s{seed}",
                task="cod",
                method=method,
                seed=seed,
                fingerprint=fingerprint,
                folder=folder,
                settings=config | {"seed": seed},
            )
            cells.append(cell)
    places = plan.DataPlaces()
    cells = cells[:count]
    return plan.Sweep(
        id=plan.sweep_id(cells, places), created="", version="", places=places, cells=cells
    )


def work(sweep: plan.Sweep, runs: Path) -> None:
    """Run the sweep as one worker does; cells that do nothing are not waited for."""
    runner.POLL_SECONDS = 0.01
    with contextlib.redirect_stdout(io.StringIO()):
        run_planned(sweep, runs, True, SweepMode(), False, Terminal(quiet=True), {}, Nothing())


def processes(sweep: plan.Sweep, runs: Path, workers: int) -> tuple[float, float]:
    """Return CPU and wall seconds of so many workers at once."""
    start, before = time.perf_counter(), _cpu()
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=work, args=(sweep, runs)) for _ in range(workers)]
    for process in started:
        process.start()
    for process in started:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a worker ended with {process.exitcode}")
    return _cpu() - before, time.perf_counter() - start


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(counts: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Return a row for each (cells, workers)."""
    rows = []
    for count, workers in counts:
        sweep = planned(count)
        with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
            runs = Path(folder)
            cpu, wall = processes(sweep, runs, workers)
            done = sum(1 for _ in runs.glob("cod/*/*/*/run.json"))
            attempts = sum(1 for _ in runs.glob("sweeps/*/attempts/*/*.json"))
            if (done, attempts) != (count, count):  # each cell once, whoever ran it
                raise SystemExit(f"{done} records and {attempts} attempts of {count} cells")
            again, _ = processes(sweep, runs, 1)
        row = {"cells": count, "workers": workers, "cpu_seconds": cpu, "wall_seconds": wall}
        rows.append(row | {"again_seconds": again})
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(title="A sweep of cells that do nothing")
    for name in ("cells", "workers", "CPU s", "wall s", "CPU ms a cell", "CPU s again"):
        out.add_column(name, justify="right")
    for row in rows:
        each = f"{1000 * row['cpu_seconds'] / row['cells']:.1f}"
        times = (f"{row[name]:.1f}" for name in ("cpu_seconds", "wall_seconds"))
        again = f"{row['again_seconds']:.1f}"
        out.add_row(str(row["cells"]), str(row["workers"]), *times, each, again)
    return out


def pairs(text: str) -> list[tuple[int, int]]:
    found = [part.split("x") for part in text.split(",")]
    if not all(len(one) == 2 and all(n.isdecimal() and int(n) for n in one) for one in found):
        raise argparse.ArgumentTypeError(f"{text!r} is no list such as 100x1,1000x10")
    return [(int(count), int(workers)) for count, workers in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    usual = pairs("100x1,1000x1,1000x10,10000x100")
    parser.add_argument("--counts", type=pairs, default=usual, help="CELLSxWORKERS, commas")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = measure(asked.counts)
    if asked.json:
        print(json.dumps(rows, indent=1))
    else:
        Console(width=max(100, int(os.environ.get("COLUMNS", "0")))).print(table(rows))


if __name__ == "__main__":
    main()
