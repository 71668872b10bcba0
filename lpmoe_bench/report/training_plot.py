"""Plots of training, a small one a row: seeds thin, their mean bold, other rows faint behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lpmoe_bench.report.axis import Scale, linear, number, ticks
from lpmoe_bench.report.drawing import FRONT, SOFT, Again, Dot, Drawing, Line, Mark, Words
from lpmoe_bench.report.frame import draw_levels
from lpmoe_bench.report.labels import Box
from lpmoe_bench.report.training import Curve, Lesson, Trained

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


def draw_training(lesson: Lesson, kind: str, label: str, name: str) -> Panels | None:
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
    last = f", {label} {number(mean[-1][1])} at step {mean[-1][0]:.0f}" if mean else ""
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
