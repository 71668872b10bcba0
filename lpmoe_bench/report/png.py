"""A drawing as PNG, by matplotlib."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from lpmoe_bench.errors import UsageError
from lpmoe_bench.report.drawing import Again, Dot, Drawing, Line, Mark, Shape, Words

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
