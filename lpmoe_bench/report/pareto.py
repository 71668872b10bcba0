"""A plot of score against cost: the front in blue, rows that another beats hollow and grey."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.records.model import Record
from lpmoe_bench.report.contents import ReportContents, ReportRow, ReportTable
from lpmoe_bench.report.drawing import (
    FRONT,
    INK,
    OTHER,
    SIZE,
    Box,
    Drawing,
    Label,
    Line,
    Mark,
    Words,
    draw_frame,
    linear,
    logarithmic,
    place,
    shorten,
    tick_text,
    to_png,
    to_svg_file,
)
from lpmoe_bench.report.drawing import Dot as Circle
from lpmoe_bench.tables.rows import is_partial
from method_zoo.errors import unknown

# The Pareto front: rows that no other row beats in both its score and its cost.


@dataclass(frozen=True)
class Cost:
    """What an axis shows: value x scale of a record. log: over powers of ten."""

    label: str
    value: Callable[[Record], float | None]
    less_is_better: bool
    log: bool
    scale: float = 1.0
    exact: bool = True  # the same on every machine


def _parameter(name: str) -> Callable[[Record], float | None]:
    return lambda record: getattr(record.parameters, name, None)


def _cost(name: str) -> Callable[[Record], float | None]:
    return lambda record: getattr(record.costs, name, None)


COSTS = {
    "parameters": Cost(
        "trainable parameters, decoder included", _parameter("trainable"), True, True
    ),
    "method_parameters": Cost("parameters of the method alone", _parameter("method"), True, True),
    "images_per_second": Cost(
        "test images/s", _cost("inference_images_per_second"), False, False, exact=False
    ),
    "train_images_per_second": Cost(
        "training images/s", _cost("train_images_per_second"), False, False, exact=False
    ),
    "memory": Cost(
        "peak memory of training (GiB)", _cost("peak_memory_bytes"), True, False, 2.0**-30, False
    ),
    "training_flops": Cost(
        "GFLOPs of a training image", _cost("training_flops"), True, False, 1e-9
    ),
}


@dataclass(frozen=True)
class ParetoPoint:
    """A row in the plane of cost and score, both as they are written; sd is None for one seed."""

    entry: ReportRow
    x: float
    y: float
    sd: float | None
    on_front: bool = False


@dataclass(frozen=True)
class Plane:
    """The rows that have a cost, the front marked; absent: labels of those without."""

    chapter: ReportTable
    cost: Cost
    dots: tuple[ParetoPoint, ...]
    absent: tuple[str, ...]

    @property
    def front(self) -> list[ParetoPoint]:
        return sorted((dot for dot in self.dots if dot.on_front), key=lambda dot: dot.x)


def plane(chapter: ReportTable, cost: Cost) -> Plane:
    """Place a chapter's rows; rows that lack images of the test set are never on the front."""
    found, absent = [], []
    scale = chapter.score.scale
    for entry in chapter.entries:
        x, y, sd = _mean(entry, cost), chapter.mean(entry), chapter.sd(entry)
        if x is None or y is None:
            absent.append(entry.label)
        else:
            found.append(ParetoPoint(entry, x, y * scale, None if sd is None else sd * scale))
    better = chapter.score.higher_is_better
    fair = [d for d in found if not any(is_partial(r, chapter.test) for r in d.entry.row.records)]
    dots = tuple(
        ParetoPoint(
            d.entry,
            d.x,
            d.y,
            d.sd,
            d in fair and better is not None and not _beaten(d, fair, cost, better),
        )
        for d in found
    )
    return Plane(chapter, cost, dots, tuple(absent))


def _beaten(dot: ParetoPoint, others: list[ParetoPoint], cost: Cost, better: bool) -> bool:
    """Whether another is no worse in both and better in one."""
    own = _signed(dot, cost, better)
    rivals = (_signed(other, cost, better) for other in others)
    return any(x >= own[0] and y >= own[1] and (x, y) != own for x, y in rivals)


def _signed(dot: ParetoPoint, cost: Cost, better: bool) -> tuple[float, float]:
    return (-dot.x if cost.less_is_better else dot.x, dot.y if better else -dot.y)


def _mean(entry: ReportRow, cost: Cost) -> float | None:
    values = [cost.value(record) for record in entry.row.records]
    usable = [value for value in values if value is not None and math.isfinite(value)]
    return cost.scale * math.fsum(usable) / len(usable) if usable else None


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
    plane: Plane,
    dot: ParetoPoint,
    at: tuple[float, float],
    reach: float,
    name: str,
    label: Label | None,
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


def _title(plane: Plane, dot: ParetoPoint) -> str:
    chapter, decimals = plane.chapter, plane.chapter.score.decimals
    spread = "" if dot.sd is None else f" ± {dot.sd:.{decimals}f}"
    seeds = len(dot.entry.stored)
    return (
        f"{dot.entry.label}: {chapter.score.label} {dot.y:.{decimals}f}{spread} "
        f"({seeds} seed{'s' * (seeds != 1)}), {tick_text(dot.x)} {plane.cost.label}"
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


# One plot of score against cost as a file, for a paper or a README.


FORMATS = (".svg", ".png")


def write_pareto(material: ReportContents, cost: str, path: Path) -> list[str]:
    """Write the plot of the one table that was chosen, and return what its reader should know.

    Raises UsageError for an unknown cost or ending and for several tables, DataError where no row
    has the cost.
    """
    if cost not in COSTS:
        raise UsageError(unknown("cost for --x", cost, COSTS))
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--pareto {path} is no .svg and no .png; end its name with one of them")
    if len(material.chapters) > 1:
        tests = list(dict.fromkeys(chapter.test for chapter in material.chapters))
        how = "--only, such as --only train.limit_train=150" if len(tests) == 1 else "--test-set"
        raise UsageError(
            f"these records make {len(material.chapters)} tables ({', '.join(tests)}), one plot "
            f"shows one: choose it with {how}"
        )
    made = plane(next(iter(material.chapters)), COSTS[cost])
    if not made.dots:
        raise DataError(f"no record of {made.chapter.test} has both a score and {cost}")
    drawing, unnamed = draw_pareto(made)
    drawn = to_png(drawing) if path.suffix.lower() == ".png" else to_svg_file(drawing)
    write_atomically(path, drawn)
    notes = [f"no room for the names of {', '.join(unnamed)}"] if unnamed else []
    return notes + ([f"no {cost} for {', '.join(made.absent)}"] if made.absent else [])
