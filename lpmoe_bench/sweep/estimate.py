"""How long cells will take, by the records of runs that are finished."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

from lpmoe_bench.records.model import Record
from lpmoe_bench.sweep.model import Cell

SAME, LIKE, UNKNOWN = "same settings", "same method", "unknown"


class Estimate(NamedTuple):
    """Seconds of training and scoring, None where nothing tells; `basis` is what tells it."""

    seconds: float | None
    basis: str


def estimate(cell: Cell, records: Iterable[Record]) -> Estimate:
    """Estimate one cell: by runs of its very settings, else by the speed of its method's.

    Runs of the same method count where backbone and size are the same; the time to start and to
    compute metrics is not in a record and not in the estimate.
    """
    same, like = [], []
    for record in records:
        if record.kind != "run" or record.method.name != cell.method:
            continue
        seconds = _seconds(cell, record)
        if seconds is None:
            continue
        if record.fingerprint == cell.fingerprint:
            same.append(seconds)
        elif all(record.config.get(key) == cell.settings.get(key) for key in ("backbone", "size")):
            like.append(seconds)
    if same:
        return Estimate(fmean(same), SAME)
    return Estimate(fmean(like), LIKE) if like else Estimate(None, UNKNOWN)


def _seconds(cell: Cell, record: Record) -> float | None:
    """Return what a cell takes: the time of a record of the same settings, else at its speed."""
    costs = record.costs
    if record.fingerprint == cell.fingerprint and costs.train_seconds:
        seconds = costs.train_seconds
    elif costs.train_images_per_second:
        seconds = cell.train_images / costs.train_images_per_second
    else:
        return None
    if costs.inference_images_per_second:
        seconds += cell.test_images / costs.inference_images_per_second
    return seconds


def total_words(estimates: Mapping[str, Estimate], jobs: int) -> str:
    """Say how long cells take together, and what the figure rests on."""
    if not estimates:
        return "nothing is left to run"
    known = [one.seconds for one in estimates.values() if one.seconds is not None]
    counts = {b: sum(one.basis == b for one in estimates.values()) for b in (SAME, LIKE)}
    if not known:
        return f"time unknown: no record of these methods to go by ({len(estimates)} cells)"
    basis = ", ".join(f"{n} by records of the {b}" for b, n in counts.items() if n)
    at_once = f", {jobs} at a time" if jobs > 1 else ""
    words = f"about {duration(sum(known) / jobs)} for {len(known)} cells{at_once} ({basis})"
    missing = len(estimates) - len(known)
    return f"{words}; {missing} cells unknown" if missing else words


def duration(seconds: float) -> str:
    """Write seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"
