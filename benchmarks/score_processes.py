"""CPU time of a process that scores a folder of maps by PySODMetrics, divided by that of `score`.

Each is a process as a user starts it, imports included: `pysod_loop.py`, and `lpmoe-bench score
--jobs 1`, both on one thread. They score the same PNG pairs of 352 x 352 by the same metrics,
checked equal, in turns; a warm-up compiles kernels and byte code. CPU time is that of the process
and of its children, user and system. "a pair" is the difference between the most and the fewest
pairs over their number, "fixed" what is left at the fewest.

    python benchmarks/score_processes.py [--json] [--counts 3,50,200,800] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from in_turns import Times, median, multiple, ratio
from rich.console import Console
from rich.progress import track
from rich.table import Table
from score import write_files

from lpmoe_bench.environment import collect_environment
from lpmoe_bench.records.store import find_records

SHAPE = (352, 352)
FEW, FEW_ROUNDS = 100, 5  # so many pairs or fewer are cheap to repeat
LOOP = Path(__file__).with_name("pysod_loop.py")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def started(command: list[str]) -> tuple[float, str]:
    """Run a command; return the CPU seconds of it and its children, and what it printed."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=os.environ | ONE_THREAD)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode:
            last = err.read().strip().splitlines()[-1:]
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {last}")
        return usage.ru_utime + usage.ru_stime, out.read()


def by_loop(masks: Path, maps: Path) -> tuple[float, dict[str, float]]:
    taken, out = started([sys.executable, str(LOOP), str(masks), str(maps)])
    return taken, json.loads(out)


def by_score(masks: Path, maps: Path) -> tuple[float, dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="score-runs-") as runs:
        command = [sys.executable, "-m", "lpmoe_bench", "score", str(maps), "--gt", str(masks)]
        command += ["--protocol", "cod", "--runs", runs, "--jobs", "1", "--quiet"]
        taken, _ = started(command)
        (stored,) = find_records([Path(runs)]).stored
    return taken, dict(next(iter(stored.record.scores.values())))


def measure(counts: list[int], rounds: int) -> dict[str, Any]:
    """Return rows of each count, and fixed and per-pair CPU seconds of both."""
    ways = {"PySODMetrics": by_loop, "score": by_score}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="score-") as folder:
        for count in track(counts, "measuring", console=Console(stderr=True), transient=True):
            root = Path(folder) / str(count)
            (maps,) = write_files(root, SHAPE, count, 1)
            times: Times = {name: [] for name in ways}
            difference = 0.0
            for turn in range((max(rounds, FEW_ROUNDS) if count <= FEW else rounds) + (not rows)):
                found = {name: way(root / "masks", maps) for name, way in ways.items()}
                theirs, ours = (scores for _, scores in found.values())
                difference = max(abs(ours[key] - theirs[key]) for key in theirs)
                if turn or rows:  # the very first compiles
                    for name, (taken, _) in found.items():
                        times[name].append(taken)
            if not difference < 1e-6:
                raise SystemExit(f"scores differ by {difference:.1e} over {count} pairs")
            row = {"pairs": count, "seconds": median(times), "difference": difference}
            rows.append(row | {"ratio": ratio(times, "PySODMetrics", "score")})
    few, many = rows[0], rows[-1]
    costs = {}
    for name in ways:
        more = many["seconds"][name] - few["seconds"][name]
        pair = more / (many["pairs"] - few["pairs"])
        costs[name] = {"fixed": few["seconds"][name] - few["pairs"] * pair, "pair": pair}
    return {"rows": rows, "costs": costs}


def table(found: dict[str, Any]) -> Table:
    out = Table(title="A process that scores maps of 352 x 352, CPU time: PySODMetrics / score")
    for name in ("pairs", "PySODMetrics s", "score s", "x", "largest difference"):
        out.add_column(name, justify="right")
    for row in found["rows"]:
        times = (f"{row['seconds'][name]:.2f}" for name in ("PySODMetrics", "score"))
        ratio = f"[bold]{row['ratio']:.2f}[/]"
        out.add_row(str(row["pairs"]), *times, ratio, f"{row['difference']:.1e}")
    for what, scale, unit in (("fixed", 1, "s"), ("pair", 1000, "ms")):
        both = [found["costs"][name][what] * scale for name in ("PySODMetrics", "score")]
        out.add_row(
            f"{what}, {unit}", *(f"{value:.2f}" for value in both), f"{both[0] / both[1]:.2f}"
        )
    return out


def numbers(text: str) -> list[int]:
    found = sorted(multiple(1)(part) for part in text.split(","))
    if len(set(found)) < 2:
        raise argparse.ArgumentTypeError("name at least two different numbers of pairs")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=numbers, default=[3, 50, 200, 800], help="of pairs")
    parser.add_argument("--rounds", type=multiple(1), default=3, help="turns; the median counts")
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    found = measure(args.counts, args.rounds)
    if args.json:
        here = {"threads": 1, "cpu": collect_environment("cpu").cpu, "rounds": args.rounds}
        print(json.dumps(here | found, indent=1))
    else:
        Console().print(table(found))


if __name__ == "__main__":
    main()
