"""A plot of score against cost: the front in blue, rows that another beats hollow and grey."""

from __future__ import annotations

from itertools import pairwise

from lpmoe_bench.report.axis import linear, logarithmic, number
from lpmoe_bench.report.drawing import FRONT, INK, OTHER, Drawing, Line, Mark, Words, shorten
from lpmoe_bench.report.drawing import Dot as Circle
from lpmoe_bench.report.frame import draw_frame
from lpmoe_bench.report.labels import SIZE, Box, Label, place
from lpmoe_bench.report.pareto import Dot, Plane

WIDTH, HEIGHT = 560.0, 400.0
AREA = Box(52, 34, WIDTH - 14, HEIGHT - 44)
LONGEST = 200.0  # pixels of a name


def draw_pareto(plane: Plane) -> tuple[Drawing, list[str]]:
    """Draw rows by cost and score, and return the names that found no room beside their points.

    Bars span the standard deviation over seeds. At least one row.
    """
    chapter, cost = plane.chapter, plane.cost
    xs = [dot.x for dot in plane.dots]
    ys = [dot.y + sign * (dot.sd or 0) for dot in plane.dots for sign in (-1, 1)]
    spaced = logarithmic if cost.log else linear
    x, y = spaced(xs, AREA.left + 6, AREA.right - 6), linear(ys, AREA.bottom - 6, AREA.top + 6)
    up = shorten(f"{chapter.score.label}{chapter.arrow}  {chapter.test}", 11.5, 220)
    title = f"{chapter.score.label} on {chapter.test} against {cost.label}"
    drawing = Drawing(WIDTH, HEIGHT, title)
    draw_frame(drawing, AREA, x, y, cost.label + (" ↓" if cost.less_is_better else " ↑"), up)
    _legend(drawing, any(dot.sd is not None for dot in plane.dots))
    ordered = sorted(plane.dots, key=lambda dot: (not dot.on_front, -dot.y))
    places = [(x.at(dot.x), y.at(dot.y)) for dot in ordered]
    _draw_front(drawing, plane, [p for p, dot in zip(places, ordered, strict=True) if dot.on_front])
    names = [shorten(dot.entry.label, SIZE, LONGEST) for dot in ordered]
    blocked = [Box(px - 6, py - 6, px + 6, py + 6) for px, py in places]
    half = [abs(y.at(dot.y) - y.at(dot.y + (dot.sd or 0))) for dot in ordered]
    blocked += [
        Box(px - 2, py - h, px + 2, py + h) for (px, py), h in zip(places, half, strict=True)
    ]
    named = [(px, py, name) for (px, py), name in zip(places, names, strict=True)]
    labels = place(named, AREA, blocked)
    rows = list(zip(ordered, places, half, names, labels, strict=True))
    for dot, at, reach, name, label in reversed(rows):
        drawing.shapes.append(_mark(plane, dot, at, reach, name, label))
    return drawing, [dot.entry.label for dot, *_, label in rows if label is None]


def _draw_front(drawing: Drawing, plane: Plane, places: list[tuple[float, float]]) -> None:
    """Draw the steps between the points of the front."""
    places = sorted(places)
    points = places[:1]
    for before, after in pairwise(places):
        # Costs between two points buy the score of the cheaper one.
        corner = (after[0], before[1]) if plane.cost.less_is_better else (before[0], after[1])
        points += [corner, after]
    if len(points) > 1:
        drawing.shapes.append(Line(tuple(points), FRONT, 1.6, "5 3"))


def _mark(
    plane: Plane, dot: Dot, at: tuple[float, float], reach: float, name: str, label: Label | None
) -> Mark:
    x, y = at
    colour = FRONT if dot.on_front else OTHER
    shapes: list[Line | Circle | Words] = []
    if reach:
        shapes.append(Line(((x, y - reach), (x, y + reach)), colour, 1.2))
        ends = [((x - 3, y + s * reach), (x + 3, y + s * reach)) for s in (-1, 1)]
        shapes += [Line(end, colour, 1.2) for end in ends]
    if label and label.lead:
        shapes.append(Line(((x, y), label.lead), "#9aa3ad", 0.8))
    shapes.append(Circle(x, y, 4.5, colour if dot.on_front else "#ffffff", colour))
    if label:
        ink = INK if dot.on_front else "#4b5563"
        shapes.append(Words(label.x, label.y, name, SIZE, label.anchor, ink, dot.on_front, True))
    return Mark(tuple(shapes), _title(plane, dot), dot.entry.name)


def _title(plane: Plane, dot: Dot) -> str:
    chapter, decimals = plane.chapter, plane.chapter.score.decimals
    spread = "" if dot.sd is None else f" ± {dot.sd:.{decimals}f}"
    seeds = len(dot.entry.stored)
    return (
        f"{dot.entry.label}: {chapter.score.label} {dot.y:.{decimals}f}{spread} "
        f"({seeds} seed{'s' * (seeds != 1)}), {number(dot.x)} {plane.cost.label}"
        f"{', on the front' if dot.on_front else ''}"
    )


def _legend(drawing: Drawing, bars: bool) -> None:
    y = AREA.top - 13
    words = [("on the Pareto front", FRONT, FRONT), ("beaten by another", "#ffffff", OTHER)]
    x = AREA.right - 262
    for text, fill, edge in words:
        drawing.shapes += [Circle(x, y, 4.5, fill, edge), Words(x + 9, y + 4, text, 10.5)]
        x += 142
    if bars:
        drawing.shapes.append(
            Words(AREA.right, HEIGHT - 5, "bars: ± sd over seeds", 9.5, "end", OTHER)
        )
