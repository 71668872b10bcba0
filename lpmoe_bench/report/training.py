"""Training curves: loss and validation score by step, of each seed and their mean."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lpmoe_bench.errors import BenchError
from lpmoe_bench.records.store import CURVE, StoredRecord, read_rows
from lpmoe_bench.report.contents import ReportRow, ReportTable
from lpmoe_bench.report.drawing import (
    FRONT,
    SOFT,
    Again,
    Box,
    Dot,
    Drawing,
    Line,
    Mark,
    Scale,
    Words,
    draw_levels,
    linear,
    tick_text,
    ticks,
)

MOST_POINTS = 120  # of a curve; more are averaged

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Trained:
    """A row's curves: (step, value) of each seed, and their mean over the steps all seeds have."""

    entry: ReportRow
    loss: tuple[Curve, ...]
    validation: tuple[Curve, ...]

    def mean(self, kind: str) -> Curve:
        curves: tuple[Curve, ...] = getattr(self, kind)
        return mean_of_seeds([curve for curve in curves if curve])


@dataclass(frozen=True)
class TrainingCurves:
    """Rows that trained alike, whatever they were tested on; missing: labels without curves."""

    chapters: tuple[ReportTable, ...]
    trained: tuple[Trained, ...]
    missing: tuple[str, ...]


def read_training(chapters: Sequence[ReportTable]) -> list[TrainingCurves]:
    """Read the curves of all runs once, though their tables may be several: one a test set."""
    by_runs: dict[frozenset[int], list[ReportTable]] = {}
    for chapter in chapters:
        stored = frozenset(id(one) for e in chapter.entries for one in e.stored if _is_run(one))
        if stored:
            by_runs.setdefault(stored, []).append(chapter)
    return [_lesson(alike) for alike in by_runs.values()]


def _lesson(chapters: list[ReportTable]) -> TrainingCurves:
    trained, missing = [], []
    for entry in chapters[0].entries:
        if not _is_run(entry.stored[0]):
            continue
        rows = [_rows(one) for one in entry.stored]
        curves = Trained(
            entry,
            tuple(seed_curve(part, "loss") for part in rows),
            tuple(seed_curve(part, "validation") for part in rows),
        )
        if any(curves.loss) or any(curves.validation):
            trained.append(curves)
        else:
            missing.append(entry.label)
    return TrainingCurves(tuple(chapters), tuple(trained), tuple(missing))


def _is_run(stored: StoredRecord) -> bool:
    return stored.record.kind == "run"


def _rows(stored: StoredRecord) -> list[dict[str, Any]]:
    try:
        return read_rows(stored.folder / CURVE)
    except BenchError:  # said as one of the missing
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


# Plots of training, a small one a row: seeds thin, their mean bold, other rows faint behind.


WIDTH, HEIGHT = 250.0, 150.0
AREA = Box(40, 22, WIDTH - 10, HEIGHT - 24)
FAINT, SEED = "#d5dae0", "#7fb2e0"
MOST_BEHIND = 40  # curves of all rows; more would only blacken the ground


@dataclass(frozen=True)
class Panels:
    """Small plots of rows on the same scales; `behind` are the means of all, which each shows."""

    name: str
    behind: tuple[Line, ...]
    drawings: tuple[tuple[Trained, Drawing], ...]


def draw_training(lesson: TrainingCurves, kind: str, label: str, name: str) -> Panels | None:
    """Draw `loss` or `validation` of each row that has it; `name` is that of the shared lines."""
    having = [one for one in lesson.trained if any(getattr(one, kind))]
    points = [point for one in having for curve in getattr(one, kind) for point in curve]
    if not points:
        return None
    x = linear([0.0, max(step for step, _ in points)], AREA.left, AREA.right, 0.03)
    y = linear(_usual([value for _, value in points]), AREA.bottom - 2, AREA.top)
    means = [mean for one in having if len(mean := one.mean(kind)) > 1]
    behind = tuple(Line(_path(mean, x, y), FAINT) for mean in means[:MOST_BEHIND])
    drawn = tuple((one, _draw(one, kind, label, (x, y), name)) for one in having)
    return Panels(name, behind, drawn)


def _draw(one: Trained, kind: str, label: str, scales: tuple[Scale, Scale], behind: str) -> Drawing:
    x, y = scales
    name = one.entry.label
    drawing = Drawing(WIDTH, HEIGHT, f"{label} of {name} in training, by step")
    draw_levels(drawing, AREA, y, label, 3)
    for value, text in ticks(x, 3):
        drawing.shapes.append(Words(x.at(value), AREA.bottom + 14, text, 10, "middle", SOFT))
    drawing.shapes.append(Words(AREA.right, HEIGHT - 4, "step", 9.5, "end", SOFT))
    drawing.shapes.append(Again(behind))
    curves = [curve for curve in getattr(one, kind) if curve]
    mean = one.mean(kind)
    if len(curves) > 1:
        drawing.shapes += [Line(_path(curve, x, y), SEED) for curve in curves]
    shapes: list[Line | Dot | Words] = []
    if mean:
        shapes.append(Line(_path(mean, x, y), FRONT, 2.2))
        if len(mean) <= 12:  # validation scores: a few
            shapes += [Dot(px, py, 2.2, FRONT, FRONT) for px, py in _path(mean, x, y)]
    last = f", {label} {tick_text(mean[-1][1])} at step {mean[-1][0]:.0f}" if mean else ""
    drawing.shapes.append(Mark(tuple(shapes), f"{name}: {len(curves)} seed(s){last}", ""))
    return drawing


def _path(curve: Curve, x: Scale, y: Scale) -> tuple[tuple[float, float], ...]:
    """Return the pixels of a curve; values above the usual ones end at the edge."""
    top, bottom = min(y.start, y.end), max(y.start, y.end)
    return tuple((x.at(step), min(max(y.at(value), top), bottom)) for step, value in curve)


def _usual(values: Sequence[float]) -> list[float]:
    """Return the values less the highest half percent, where one jump would flatten the rest."""
    ordered = sorted(values)
    return ordered[: max(2, round(len(ordered) * 0.995))]
