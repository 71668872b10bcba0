"""The frame of a plot: grid lines, ticks and the names of both axes."""

from __future__ import annotations

from lpmoe_bench.report.axis import Scale, ticks
from lpmoe_bench.report.drawing import GRID, SOFT, Drawing, Line, Words
from lpmoe_bench.report.labels import Box


def draw_frame(
    drawing: Drawing, area: Box, x: Scale, y: Scale, across: str, up: str, count: int = 5
) -> None:
    """Draw the axes of an area; `across` stands below it, `up` at its top left."""
    draw_levels(drawing, area, y, up, count)
    for value, text in ticks(x):
        at = x.at(value)
        drawing.shapes.append(Line(((at, area.top), (at, area.bottom)), GRID))
        drawing.shapes.append(Words(at, area.bottom + 15, text, 10.5, "middle", SOFT))
    if x.zero is not None:  # the axis is broken between 0 and what follows
        middle = (x.zero + x.start) / 2
        for left in (middle - 4, middle + 1):
            slash = ((left, area.bottom + 4), (left + 4, area.bottom - 4))
            drawing.shapes.append(Line(slash, SOFT, 1.2))
    middle = (area.left + area.right) / 2
    drawing.shapes.append(Words(middle, area.bottom + 32, across, 11.5, "middle"))


def draw_levels(drawing: Drawing, area: Box, y: Scale, up: str, count: int = 5) -> None:
    """Draw the upright axis alone, with its lines across the area."""
    for value, text in ticks(y, count):
        at = y.at(value)
        drawing.shapes.append(Line(((area.left, at), (area.right, at)), GRID))
        drawing.shapes.append(Words(area.left - 6, at + 3.5, text, 10.5, "end", SOFT))
    ground = ((area.left, area.bottom), (area.right, area.bottom))
    drawing.shapes.append(Line(ground, SOFT))
    drawing.shapes.append(Words(area.left - 30, area.top - 9, up, 11.5, bold=True))
