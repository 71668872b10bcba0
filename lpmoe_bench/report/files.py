"""A drawing as SVG or PNG."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from lpmoe_bench.errors import UsageError
from lpmoe_bench.report.drawing import Again, Dot, Drawing, Line, Mark, Shape, Words
from lpmoe_bench.report.page import Markup, join_markup, tag

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
