"""What a plot is drawn with, lines, words, axes and labels, and the drawing as SVG or PNG."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from lpmoe_bench.errors import UsageError
from lpmoe_bench.report.page import Markup, join_markup, tag

# What a plot is drawn with: lines, dots and words in pixels, axes, labels without overlap.


# What a plot is made of: lines, dots and words in pixels, whatever file they end up in.


INK, SOFT, GRID = "#1f2328", "#57606a", "#e4e7eb"
FRONT, OTHER = "#0a5cad", "#6b7280"
# Okabe and Ito's colours, darkened where they are faint on white, without yellow.
COLOURS = ("#0072B2", "#D55E00", "#008562", "#B3488A", "#2A8FCB", "#A66F00", "#1f2328")
DASHES = ("", "7 3", "2 3", "9 3 2 3")

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]
WIDE = 1.12  # system typefaces differ: an estimate on the safe side


@dataclass(frozen=True)
class Line:
    """A line through points. dash: lengths of strokes and gaps."""

    points: tuple[Point, ...]
    colour: str = INK
    width: float = 1.0
    dash: str = ""


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    radius: float
    fill: str
    edge: str


@dataclass(frozen=True)
class Words:
    """Text whose baseline starts, has its middle or ends at a point."""

    x: float
    y: float
    text: str
    size: float = 11
    anchor: Anchor = "start"
    colour: str = INK
    bold: bool = False
    halo: bool = False  # a white edge, for words that lie over lines


@dataclass(frozen=True)
class Mark:
    """Shapes of one method: `title` shows where the pointer rests, `name` is what filters read."""

    shapes: tuple[Line | Dot | Words, ...]
    title: str
    name: str


@dataclass(frozen=True)
class Again:
    """Shapes that stand in the page once under this name, and are shown here too."""

    name: str


Shape = Line | Dot | Words | Mark | Again


@dataclass
class Drawing:
    """Shapes on white, in the order they are drawn; `title` says in words what is seen."""

    width: float
    height: float
    title: str
    shapes: list[Shape] = field(default_factory=list)


def text_width(text: str, size: float) -> float:
    """Estimate the width of words in a plain typeface, in pixels."""
    return sum(_width(sign) for sign in text) * size * WIDE


def shorten(text: str, size: float, width: float) -> str:
    """Cut the end off a text that is wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _width(sign: str) -> float:
    if unicodedata.east_asian_width(sign) in "WF":
        return 1.0
    if sign in "ijl.,:;'|!()[] ":
        return 0.32
    if sign in "mwMW%@":
        return 0.86
    return 0.68 if sign.isupper() else 0.56


# Scales: where a value lies on an axis, and which values are written beside it.


UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Scale:
    """An axis from `start` to `end`, in pixels. zero: where 0 lies on a logarithmic axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    zero: float | None = None

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        if self.log:
            if value <= 0:
                return self.start if self.zero is None else self.zero
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def linear(values: Sequence[float], start: float, end: float, room: float = 0.06) -> Scale:
    """Return a scale that holds the values with some room at both ends."""
    low, high = min(values), max(values)
    pad = (high - low) * room or abs(high) * 0.05 or 1.0
    return Scale(low - pad, high + pad, start, end)


def logarithmic(values: Sequence[float], start: float, end: float, gap: float = 46) -> Scale:
    """Return a logarithmic scale; values of 0 get a place of their own, `gap` pixels before it."""
    positive = [value for value in values if value > 0] or [1.0]
    spread = max(positive) / min(positive)
    factor = max(spread**0.07, 1.25)
    low, high = min(positive) / factor, max(positive) * factor
    if len(positive) == len(values):
        return Scale(low, high, start, end, True)
    return Scale(low, high, start + gap, end, True, start + gap / 3)


def ticks(scale: Scale, count: int = 5) -> list[tuple[float, str]]:
    """Return values along an axis and how they are written, about `count` of them."""
    values = _log_ticks(scale) if scale.log else _round_ticks(scale, count)
    named = [(value, tick_text(value, values)) for value in values]
    return named if scale.zero is None else [(0.0, "0"), *named]


def tick_text(value: float, among: Sequence[float] = ()) -> str:
    """Write a value shortly: 0.05, 12, 3k, 1.5M, with as many digits as `among` needs."""
    size = max((abs(one) for one in (*among, value)), default=0) if among else abs(value)
    if size >= 1e4 or (size >= 1e3 and not among):
        factor, unit = next((pair for pair in UNITS if abs(value) >= pair[0]), (1.0, ""))
        return f"{value / factor:.3g}{unit}"
    steps = [b - a for a, b in pairwise(among) if b > a]
    if not steps:
        return f"{value:.3g}"
    return f"{value:.{next(d for d in range(9) if _is_whole(min(steps) * 10**d))}f}"


def _is_whole(value: float) -> bool:
    return value > 0.5 and abs(value - round(value)) < 1e-6 * value


def _round_ticks(scale: Scale, count: int) -> list[float]:
    rough = (scale.high - scale.low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (1, 2, 2.5, 5, 10) if step * power >= rough - 1e-12) * power
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(scale: Scale) -> list[float]:
    decades = math.log10(scale.high / scale.low)
    steps = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
    powers = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    found = [step * 10.0**power for power in powers for step in steps]
    inside = [value for value in found if scale.low <= value <= scale.high]
    return inside if len(inside) > 1 else _round_ticks(scale, 4)  # one value shows no scale


# Names beside points, placed so that none lies over another, a point or the edge.


SIZE = 11
HEIGHT = 12.0  # of a line of words
NEAR, FAR = (
    (9.0, 15.0, 24.0, 36.0, 50.0),
    12.0,
)  # distances tried; beyond FAR a line leads to the point


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


class Label(NamedTuple):
    """Where the words start, have their middle or end, and the end of the leading line, if any."""

    x: float
    y: float
    anchor: Anchor
    lead: tuple[float, float] | None


def place(
    points: Sequence[tuple[float, float, str]], area: Box, blocked: Sequence[Box]
) -> list[Label | None]:
    """Return a place for the name of each point, the first ones first; None where none is free.

    points: x, y and name. blocked: what no name may cover, such as the points themselves.
    """
    taken, found = list(blocked), []
    for x, y, name in points:
        width = text_width(name, SIZE)
        label = None
        for distance in NEAR:
            for box, anchor, end in _around(x, y, width, distance):
                inside = box.left >= area.left and box.right <= area.right
                inside = inside and box.top >= area.top and box.bottom <= area.bottom
                if inside and not any(box.meets(other) for other in taken):
                    at = {"start": box.left, "end": box.right}.get(anchor, x)
                    lead = end if distance > FAR else None
                    label = Label(at, box.bottom - 2.5, anchor, lead)
                    taken.append(box)
                    break
            if label:
                break
        found.append(label)
    return found


def _around(
    x: float, y: float, width: float, distance: float
) -> Iterator[tuple[Box, Anchor, tuple[float, float]]]:
    """Yield boxes of a name around a point, the usual places first, and the side towards it.

    Words are anchored on that side: their width is an estimate.
    """
    half, slant = HEIGHT / 2, distance * 0.75
    sides: tuple[tuple[Anchor, float, float], ...] = (
        ("start", distance, 0),
        ("end", -distance, 0),
        ("middle", 0, -distance - half + 2),
        ("middle", 0, distance + half - 2),
        ("start", slant, -slant),
        ("start", slant, slant),
        ("end", -slant, -slant),
        ("end", -slant, slant),
    )
    for anchor, right, down in sides:
        at = x + right
        left = {"start": at, "end": at - width}.get(anchor, at - width / 2)
        top = y + down - half
        near = top + HEIGHT if down < -half else top if down > half else y + down
        yield Box(left, top, left + width, top + HEIGHT), anchor, (at, near)


# The frame of a plot: grid lines, ticks and the names of both axes.


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


# A drawing as SVG or PNG.


# A drawing as SVG: inside a page, or as a file of its own.


FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"


def to_svg(drawing: Drawing) -> Markup:
    """Return the drawing as an element of a page, which scales with its place."""
    return _svg(drawing, drawing.shapes)


def to_svg_file(drawing: Drawing) -> str:
    """Return the drawing as a file: with its own size, typeface and white ground."""
    ground = _closed("rect", width="100%", height="100%", fill="#ffffff")
    sizes = {"width": _short(drawing.width), "height": _short(drawing.height)}
    shown = _svg(drawing, drawing.shapes, ground, xmlns="http://www.w3.org/2000/svg", **sizes)
    return shown + "\n"


def to_shared(name: str, shapes: Sequence[Shape]) -> Markup:
    """Return an element that is not seen, whose shapes drawings of the page show `Again`."""
    group = tag("g", [_shape(shape) for shape in shapes], id=name)
    return tag(
        "svg", tag("defs", group), width="0", height="0", aria_hidden="true", class_="shared"
    )


def _svg(
    drawing: Drawing, shapes: list[Shape], ground: Markup | None = None, **more: str
) -> Markup:
    return tag(
        "svg",
        tag("title", drawing.title),
        ground,
        [_shape(shape) for shape in shapes],
        viewBox=f"0 0 {_short(drawing.width)} {_short(drawing.height)}",
        role="img",
        font_family=FONT,
        **more,
    )


def _shape(shape: Shape) -> Markup:
    if isinstance(shape, Mark):
        inner = join_markup([_shape(one) for one in shape.shapes])
        return tag("g", tag("title", shape.title), inner, class_="mark", data_name=shape.name)
    if isinstance(shape, Line):
        return _line(shape)
    if isinstance(shape, Dot):
        return _closed(
            "circle",
            cx=_short(shape.x),
            cy=_short(shape.y),
            r=_short(shape.radius),
            fill=shape.fill,
            stroke=shape.edge,
            stroke_width="1.5",
        )
    if isinstance(shape, Again):
        return _closed("use", href=f"#{shape.name}")
    return _words(shape)


def _line(line: Line) -> Markup:
    steps = "L".join(f"{_short(x)} {_short(y)}" for x, y in line.points)
    return _closed(
        "path",
        d=f"M{steps}",
        fill="none",
        stroke=line.colour,
        stroke_width=_short(line.width),
        stroke_dasharray=line.dash or None,
        stroke_linejoin="round",
    )


def _words(words: Words) -> Markup:
    halo = {"stroke": "#ffffff", "stroke_width": "3", "paint_order": "stroke"} if words.halo else {}
    return tag(
        "text",
        words.text,
        x=_short(words.x),
        y=_short(words.y),
        font_size=_short(words.size),
        text_anchor=None if words.anchor == "start" else words.anchor,
        font_weight="600" if words.bold else None,
        fill=words.colour,
        **halo,
    )


def _closed(name: str, **attributes: str | None) -> Markup:
    """Return an element without content, closed as XML wants it."""
    return Markup(tag(name, **attributes)[:-1] + "/>")


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


# A drawing as PNG, by matplotlib.


INSTALL = "pip install 'lpmoe-bench[plot]'"
DPI = 192  # two pixels of the file for one of the drawing
POINTS = 72 / 96  # of print, in a pixel of the drawing
ANCHORS = {"start": "left", "middle": "center", "end": "right"}


def to_png(drawing: Drawing) -> bytes:
    """Return the bytes of a PNG, twice as large as the drawing, for screens of today.

    Raises UsageError with the line that installs it where matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            f"a PNG needs matplotlib; install it with {INSTALL}, or name a file .svg"
        ) from None
    figure = Figure(figsize=(drawing.width / 96, drawing.height / 96), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, drawing.width), ylim=(drawing.height, 0))
    axes.set_axis_off()
    for order, shape in enumerate(drawing.shapes):
        _draw(axes, shape, order)
    data = BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def _draw(axes: Any, shape: Shape, order: int) -> None:
    if isinstance(shape, Mark):
        for one in shape.shapes:
            _draw(axes, one, order)
    elif isinstance(shape, Line):
        dash = tuple(float(length) * POINTS for length in shape.dash.split())
        axes.plot(
            *zip(*shape.points, strict=True),
            color=shape.colour,
            linewidth=shape.width * POINTS,
            linestyle=(0, dash) if dash else "-",
            zorder=order,
        )
    elif isinstance(shape, Dot):
        axes.plot(
            [shape.x],
            [shape.y],
            "o",
            markersize=2 * shape.radius * POINTS,
            markerfacecolor=shape.fill,
            markeredgecolor=shape.edge,
            markeredgewidth=1.5 * POINTS,
            zorder=order,
        )
    elif not isinstance(shape, Again):  # which only a page has
        _write(axes, shape, order)


def _write(axes: Any, words: Words, order: int) -> None:
    from matplotlib.patheffects import withStroke

    axes.text(
        words.x,
        words.y,
        words.text.replace("$", r"\$"),
        fontsize=words.size * POINTS,
        ha=ANCHORS[words.anchor],
        va="baseline",
        color=words.colour,
        fontweight="bold" if words.bold else "normal",
        path_effects=[withStroke(linewidth=3 * POINTS, foreground="white")] if words.halo else [],
        zorder=order,
    )
