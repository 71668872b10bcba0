"""Training curves: loss and validation score by step, of each seed and their mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lpmoe_bench.errors import BenchError
from lpmoe_bench.records.store import CURVE, StoredRecord, read_rows
from lpmoe_bench.report.material import Chapter, Entry

MOST_POINTS = 120  # of a curve; more are averaged

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Trained:
    """A row's curves: (step, value) of each seed, and their mean over the steps all seeds have."""

    entry: Entry
    loss: tuple[Curve, ...]
    validation: tuple[Curve, ...]

    def mean(self, kind: str) -> Curve:
        curves: tuple[Curve, ...] = getattr(self, kind)
        return mean_curve([curve for curve in curves if curve])


@dataclass(frozen=True)
class Lesson:
    """Rows that trained alike, whatever they were tested on; missing: labels without curves."""

    chapters: tuple[Chapter, ...]
    trained: tuple[Trained, ...]
    missing: tuple[str, ...]


def read_lessons(chapters: Sequence[Chapter]) -> list[Lesson]:
    """Read the curves of all runs once, though their tables may be several: one a test set."""
    by_runs: dict[frozenset[int], list[Chapter]] = {}
    for chapter in chapters:
        stored = frozenset(id(one) for e in chapter.entries for one in e.stored if _is_run(one))
        if stored:
            by_runs.setdefault(stored, []).append(chapter)
    return [_lesson(alike) for alike in by_runs.values()]


def _lesson(chapters: list[Chapter]) -> Lesson:
    trained, missing = [], []
    for entry in chapters[0].entries:
        if not _is_run(entry.stored[0]):
            continue
        rows = [_rows(one) for one in entry.stored]
        curves = Trained(
            entry,
            tuple(curve(part, "loss") for part in rows),
            tuple(curve(part, "validation") for part in rows),
        )
        if any(curves.loss) or any(curves.validation):
            trained.append(curves)
        else:
            missing.append(entry.label)
    return Lesson(tuple(chapters), tuple(trained), tuple(missing))


def _is_run(stored: StoredRecord) -> bool:
    return stored.record.kind == "run"


def _rows(stored: StoredRecord) -> list[dict[str, Any]]:
    try:
        return read_rows(stored.folder / CURVE)
    except BenchError:  # said as one of the missing
        return []


def curve(rows: Iterable[dict[str, Any]], key: str) -> Curve:
    """Return the steps that have a value; of a long curve the means of equal parts."""
    found = [
        (row["step"], row[key])
        for row in rows
        if row.get("step") is not None and row.get(key) is not None
    ]
    if len(found) <= MOST_POINTS:
        return found
    size = math.ceil(len(found) / MOST_POINTS)
    parts = [found[start : start + size] for start in range(0, len(found), size)]
    return [(part[-1][0], math.fsum(value for _, value in part) / len(part)) for part in parts]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean at each step that all curves have."""
    if not curves:
        return []
    by_step = [dict(one) for one in curves]
    common = sorted(set.intersection(*(set(one) for one in by_step)))
    return [(step, math.fsum(one[step] for one in by_step) / len(by_step)) for step in common]
