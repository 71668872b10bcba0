"""Sweeps of tiny runs: a data set of drawn discs by name, and how tests start sweeps on it."""

import json
import subprocess
import sys
from pathlib import Path

from guard import REGISTRY
from tiny_runs import QUICK, draw_data, environment


def draw_sets(root: Path) -> Path:
    """Draw 24 pairs to train and 6 to test, and return the file that names them."""
    draw_data(root)
    (root / "own.yaml").write_text(REGISTRY)
    return root / "own.yaml"


def sweep(datasets: Path, runs: Path, *more: str) -> list[str]:
    """The command line of a sweep; what `more` names of methods, tasks, seeds is alone."""
    usual = {"--task": "tiny", "--method": "lora", "--seeds": "0"}
    return [
        *(sys.executable, "-m", "lpmoe_bench", "sweep", "--datasets", str(datasets)),
        *(word for name in usual if name not in more for word in (name, usual[name])),
        *("--runs", str(runs)),
        *(*QUICK, *more),
    ]


def finish(command: list[str], **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, env=environment() | more)


def start(command: list[str], log: Path) -> subprocess.Popen:
    with open(log, "w") as stderr:
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=stderr, env=environment()
        )


def records(runs: Path) -> dict[str, dict]:
    """The content of every finished run below a folder, by its own folder's name."""
    found = runs.glob("*/*/*/*/run.json")
    return {str(path.parent.relative_to(runs)): json.loads(path.read_text()) for path in found}
