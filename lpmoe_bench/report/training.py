"""Training curves: loss and validation score by step, of each seed and their mean."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lpmoe_bench.errors import BenchError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.records.store import CURVE, StoredRecord, read_rows
from lpmoe_bench.report.contents import ReportRow, ReportTable

MOST_POINTS = 120  # of a curve; more are averaged

Curve = list[tuple[float, float]]
Kind = Literal["loss", "validation"]


@dataclass(frozen=True)
class Trained:
    """A row's curves: (step, value) of each seed."""

    row: ReportRow
    loss: tuple[Curve, ...]
    validation: tuple[Curve, ...]

    def curves(self, kind: Kind) -> list[Curve]:
        """Return the curves of the seeds that have one."""
        return [curve for curve in getattr(self, kind) if curve]


@dataclass(frozen=True)
class TrainingCurves:
    """Rows that trained alike, whatever they were tested on; missing: labels without curves."""

    tables: tuple[ReportTable, ...]
    trained: tuple[Trained, ...]
    missing: tuple[str, ...]

    @property
    def selected_by(self) -> str:
        """The label of the score that validation is about, where all runs agree."""
        names = {
            record.config.get("train", {}).get("select")
            for one in self.trained
            for record in one.row.row.records
        }
        key = names.pop() if len(names) == 1 else None
        return METRICS[key].label if key in METRICS else "score"


def read_training(tables: Sequence[ReportTable]) -> list[TrainingCurves]:
    """Read the curves of all runs once, though their tables may be several: one a test set."""
    by_runs: dict[frozenset[int], list[ReportTable]] = {}
    for table in tables:
        stored = frozenset(id(one) for row in table.rows for one in row.stored if _is_run(one))
        if stored:
            by_runs.setdefault(stored, []).append(table)
    return [_read(alike) for alike in by_runs.values()]


def _read(tables: list[ReportTable]) -> TrainingCurves:
    trained, missing = [], []
    for row in tables[0].rows:
        if not _is_run(row.stored[0]):
            continue
        parts = [_rows(one) for one in row.stored]
        curves = Trained(
            row,
            tuple(seed_curve(part, "loss") for part in parts),
            tuple(seed_curve(part, "validation") for part in parts),
        )
        if any(curves.loss) or any(curves.validation):
            trained.append(curves)
        else:
            missing.append(row.label)
    return TrainingCurves(tuple(tables), tuple(trained), tuple(missing))


def _is_run(stored: StoredRecord) -> bool:
    return stored.record.kind == "run"


def _rows(stored: StoredRecord) -> list[dict[str, Any]]:
    try:
        return read_rows(stored.folder / CURVE)
    except BenchError:  # told as one of the missing
        return []


def seed_curve(rows: Iterable[dict[str, Any]], key: str) -> Curve:
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


def mean_of_seeds(curves: Sequence[Curve]) -> Curve:
    """Return the mean at each step that all curves have."""
    if not curves:
        return []
    by_step = [dict(one) for one in curves]
    common = sorted(set.intersection(*(set(one) for one in by_step)))
    return [(step, math.fsum(one[step] for one in by_step) / len(by_step)) for step in common]
