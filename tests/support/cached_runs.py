"""Runs with cached features: how tests start them and count what they computed."""

from pathlib import Path

from tiny_runs import arguments, call, only_run

from lpmoe_bench.records.store import read_record

DISK, MEMORY = (["--set", f"runtime.cache_features={mode}"] for mode in ("disk", "memory"))


def finish(data: Path, runs: Path, method: str, *more: str) -> Path:
    done = call(arguments(data, runs, "--method", method, *more))
    assert done.code == 0, done.stderr
    return only_run(runs)


def kept(place: Path) -> list[Path]:
    return sorted(place.rglob("*.safetensors"))


def computed(folder: Path) -> int:
    """How many features a run had to compute, as its record says."""
    (note,) = (n for n in read_record(folder).notes if n.startswith("features of the"))
    return int(note.split("this process computed ")[1].split()[0])
