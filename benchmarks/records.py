"""CPU time of what reads records, at ten times as many records each step: is it linear?

Records are those of one published run written again with other settings and seeds, five seeds a
setting, in a temporary folder: each has its own learning rate, fingerprint and rows an image. Each
command runs in a process of its own, so that its start and imports count too.

    python benchmarks/records.py [--json] [--counts 10 100 1000] [--commands table check]

Prints CPU seconds, and how many times those of the count before: ten times the records should take
no more than ten times as long.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "results/records/cod/lora/dinov2_small_imgfocus/41d3b80aaace-s0"
SEEDS = 5
# What a sweep of so many cells, all of them run before, asks of these records: how long its cells
# will take, and at the end of each one how long the others still do.
FORECAST = """
from pathlib import Path
from lpmoe_bench.records.store import find_records
from lpmoe_bench.sweep.plan import SweepCell
from lpmoe_bench.sweep.runner import TimeLeft, estimate_cells
records = find_records([Path("runs")]).records
cells = [
    SweepCell(name=f"lr{r.fingerprint[:12]}-s{r.seed}", task=r.task, method=r.method.name,
              seed=r.seed, fingerprint=r.fingerprint, folder=Path("runs"), settings=r.config,
              train_images=1000, test_images=100)
    for r in records
]
estimates = estimate_cells(cells, records)
assert all(one.seconds for one in estimates.values())
"""
TIME_LEFT = """
left = TimeLeft(estimates)
for cell in cells:
    left.end(cell.name, 60.0)
    left.seconds()
"""
# What each command is asked, in the folder that holds `runs`; what begins with a line break is
# Python for a process of its own.
COMMANDS = {
    "table": "table runs --format csv -o table.csv",
    "table against": "table runs --format csv -o table.csv --against lr0",
    "report": "report runs --no-images -o page",
    "compare": "compare 000000000000 000000000001 --records runs --json",
    "pin": "check pin runs --baseline pin.json",
    "check": "check check runs --baseline pin.json --json",
    "forecast": FORECAST,
    "time left": FORECAST + TIME_LEFT,
}


def write_records(folder: Path, count: int) -> None:
    """Write so many records: five seeds of each setting, every score a little different."""
    content = json.loads((RUN / "run.json").read_text(encoding="utf-8"))
    with open(RUN / "per_image.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    # A few rows of each test set: what a command reads of them grows with records, not with images.
    place, kept = header.index("dataset"), []
    for test in content["scores"]:
        kept += [row for row in rows if row[place] == test][:10]
    for number in range(count):
        setting, seed = divmod(number, SEEDS)
        changed = json.loads(json.dumps(content))
        changed |= {"fingerprint": f"{setting:012d}" + content["fingerprint"][12:], "seed": seed}
        changed["config"] |= {"seed": seed}
        changed["config"]["train"] |= {"lr": 1e-3 * (1 + setting)}
        if setting == 0:
            changed["method"] |= {"title": "lr0"}  # the row that --against means
        factor = 1 - 1e-5 * ((setting * 7 + seed * 3) % 100)
        for key in ("train_images_per_second", "inference_images_per_second", "peak_memory_bytes"):
            value = changed["costs"][key]  # what is measured differs each time, what is counted not
            changed["costs"][key] = type(value)(value * (1 + 1e-4 * ((number * 37) % 1000)))
        lines = [",".join(header)]
        for test, scores in changed["scores"].items():
            own = [dict(zip(header, row, strict=True)) for row in kept if row[place] == test]
            for key in scores.keys() & set(header):  # the mean of its rows, as a record has it
                for row in own:
                    row[key] = row[key] and repr(float(row[key]) * factor)
                scores[key] = fmean(float(row[key]) for row in own if row[key])
            lines += [",".join(row.values()) for row in own]
        for one in changed["counts"].values():
            one |= {"images": 10, "scored": 10, "expected": 10}
        target = folder / "cod" / "lora" / f"{setting:012d}-s{seed}"
        target.mkdir(parents=True)
        (target / "per_image.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (target / "run.json").write_text(json.dumps(changed), encoding="utf-8")


def cpu_seconds(folder: Path, command: str) -> float:
    """Run a command line, or Python, in a folder; return the CPU seconds of its process."""
    asked = ["-m", "lpmoe_bench", *command.split(), "--quiet"]
    program = [sys.executable, *(["-c", command] if command[0] == "\n" else asked)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(program, cwd=folder, capture_output=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 10):  # 10: the gate found a regression
        raise SystemExit(f"{command}: {done.stderr.decode()[-400:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(counts: list[int], names: list[str]) -> Iterator[dict[str, float | str]]:
    for count in counts:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_records(folder / "runs", count)
            for name in names:
                seconds = cpu_seconds(folder, COMMANDS[name])
                yield {"records": count, "command": name, "seconds": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", nargs="+", type=int, default=[10, 100, 1000, 10000])
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found, before = [], dict[str, float]()
    for line in measured(asked.counts, asked.commands):
        name, seconds = str(line["command"]), float(line["seconds"])
        line["ratio"] = round(seconds / before[name], 1) if before.get(name) else ""
        before[name] = seconds
        found.append(line)
        if not asked.json:
            print(*(f"{value:>14}" for value in line.values()), flush=True)
    if asked.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
