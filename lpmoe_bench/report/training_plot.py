"""Plots of training, a small one a row: seeds thin, their mean bold, other rows faint behind."""

from __future__ import annotations

from collections.abc import Sequence

from lpmoe_bench.report.axis import Scale, linear, number, ticks
from lpmoe_bench.report.drawing import FRONT, SOFT, Dot, Drawing, Line, Mark, Words
from lpmoe_bench.report.frame import draw_levels
from lpmoe_bench.report.labels import Box
from lpmoe_bench.report.training import Curve, Lesson, Trained

WIDTH, HEIGHT = 250.0, 150.0
AREA = Box(40, 22, WIDTH - 10, HEIGHT - 24)
FAINT, SEED = "#d5dae0", "#7fb2e0"
MOST_BEHIND = 30  # curves of other rows; more would only blacken the ground


def draw_training(lesson: Lesson, kind: str, label: str) -> list[tuple[Trained, Drawing]]:
    """Draw `loss` or `validation` of each row that has it, all on the same scales."""
    having = [one for one in lesson.trained if any(getattr(one, kind))]
    points = [point for one in having for curve in getattr(one, kind) for point in curve]
    if not points:
        return []
    x = linear([0.0, max(step for step, _ in points)], AREA.left, AREA.right, 0.03)
    y = linear(_usual([value for _, value in points]), AREA.bottom - 2, AREA.top)
    means = [one.mean(kind) for one in having]
    return [
        (one, _draw(one, kind, label, (x, y), [m for m in means if m is not mean]))
        for one, mean in zip(having, means, strict=True)
    ]


def _draw(
    one: Trained, kind: str, label: str, scales: tuple[Scale, Scale], others: Sequence[Curve]
) -> Drawing:
    x, y = scales
    name = one.entry.label
    drawing = Drawing(WIDTH, HEIGHT, f"{label} of {name} in training, by step")
    draw_levels(drawing, AREA, y, label, 3)
    for value, text in ticks(x, 3):
        drawing.shapes.append(Words(x.at(value), AREA.bottom + 14, text, 10, "middle", SOFT))
    drawing.shapes.append(Words(AREA.right, HEIGHT - 4, "step", 9.5, "end", SOFT))
    for other in others[:MOST_BEHIND]:
        if len(other) > 1:
            drawing.shapes.append(Line(_path(other, x, y), FAINT))
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
