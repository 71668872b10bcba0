"""The plots of a report by matplotlib: score against cost, training curves, score against size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.report.contents import ReportContents, ReportRow, ReportTable
from lpmoe_bench.report.image_scores import Sizes, TableScores
from lpmoe_bench.report.pareto import ParetoPlane, ParetoPoint, find_cost, pareto_plane
from lpmoe_bench.report.svg import clean
from lpmoe_bench.report.training import Kind, TrainingCurves, mean_of_seeds
from lpmoe_bench.scoring.views import COLOURS, DASHES, INSTALL

INK, SOFT, GRID, FAINT = "#1f2328", "#57606a", "#e4e7eb", "#dfe4ea"
FRONT, BEATEN = "#0a5cad", "#6b7280"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "lpmoe-bench",  # else ids, and so the file, are others each time
    "pdf.fonttype": 42,  # TrueType: many conferences take no Type 3
    "pgf.rcfonts": False,  # the fonts of the document
    "font.size": 8,
    "text.color": INK,
}
FORMATS = (".svg", ".pdf", ".png", ".pgf")
_MADE: dict[tuple[float, ...], Any] = {}


def need_plots() -> None:
    """Raise UsageError, with the line that installs them, where the packages of plots are not."""
    try:
        import adjustText
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(
            f"plots need matplotlib and adjustText; install them with: {INSTALL}"
        ) from None
    del adjustText


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw within this as all plots here look; letters that no font has are no warning."""
    from matplotlib import rc_context

    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        try:
            yield
        finally:
            _MADE.clear()


@dataclass
class Plot:
    """A figure of matplotlib, and what is seen in it in words.

    marks: what belongs to a method, by the start of its ids: (the name that filters look at, words
    to be shown where the pointer rests). unnamed: labels that found no room.
    """

    figure: Any
    title: str
    marks: dict[str, tuple[str, str]] = field(default_factory=dict)
    unnamed: tuple[str, ...] = ()


def _axes(width: float, height: float, left: float, bottom: float, right: float, top: float) -> Any:
    """Return empty axes in a figure of their own; all in inches, the last four are margins.

    Axes of one size are used again, for to make them takes as long as to draw in them: a plot is
    to be written before the next one is drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = width, height, left, bottom, right, top
    if size in _MADE:
        axes = _MADE[size]
        legend = [axes.get_legend()] if axes.get_legend() else []
        for artist in [*axes.lines, *axes.collections, *axes.texts, *legend]:
            artist.remove()
        axes.set_xscale("linear")
        return axes
    figure = Figure(figsize=(width, height), dpi=72)
    FigureCanvasAgg(figure)  # measures texts; there is no display, and no state of pyplot
    inside = (width - left - right) / width, (height - bottom - top) / height
    _MADE[size] = figure.add_axes((left / width, bottom / height, *inside))
    _MADE[size].set_axis_off()
    return _MADE[size]


def _frame(
    axes: Any, title: str, across: str, xticks: Any = None, pad: float = 6, count: int = 5
) -> None:
    """Draw grid, ticks, title and the name of the axis across, of axes whose limits are set.

    xticks: (place, text), by default round values. An Axis of matplotlib does all this too, but
    measures every text twice, which is half of the time of a page.
    """
    from matplotlib.transforms import ScaledTranslation

    xticks = _round_ticks(axes.get_xlim(), count) if xticks is None else xticks
    yticks = _round_ticks(axes.get_ylim(), count)
    down, up = axes.get_xaxis_transform(), axes.get_yaxis_transform()
    line = {"colors": GRID, "linewidth": 0.7, "zorder": 0.5}
    axes.vlines([x for x, _ in xticks], 0, 1, transform=down, **line)
    axes.hlines([y for y, _ in yticks], 0, 1, transform=up, **line)
    axes.hlines([0], 0, 1, transform=axes.transAxes, **line | {"colors": SOFT, "zorder": 0.6})

    def moved(x: float, y: float) -> Any:
        return ScaledTranslation(x / 72, y / 72, axes.figure.dpi_scale_trans)

    for x, text in xticks:
        below = {"transform": down + moved(0, -4), "color": SOFT, "linespacing": 1.3}
        axes.text(x, 0, text, ha="center", va="top", **below)
    for y, text in yticks:
        beside = {"transform": up + moved(-4, -2.8), "color": SOFT}
        axes.text(0, y, text, ha="right", va="baseline", **beside)
    lines = 1 + max((text.count("\n") for _, text in xticks), default=0)
    name = {"transform": axes.transAxes + moved(0, -6 - 11 * lines), "parse_math": False}
    axes.text(0.5, 0, across, ha="center", va="top", **name)
    head = {"transform": axes.transAxes + moved(-12, pad), "parse_math": False}
    axes.text(0, 1, title, fontweight="bold", fontsize=8.5, va="baseline", **head)


def _round_ticks(limits: tuple[float, float], count: int) -> list[tuple[float, str]]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(*limits)
    values = [float(v) for v in values if limits[0] <= v <= limits[1]]
    step = min(np.diff(values), default=1.0)
    digits = next((d for d in range(9) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 9)
    return [(v, f"{v:.{digits}f}") for v in values]


def shorten(text: str, most: int) -> str:
    """Cut the end off a text of more than `most` letters; what no file may hold is replaced."""
    text = clean(text)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


# Score against cost.


NAMED, LONGEST = 14, 34  # names in a plot; letters of a name
CROWD = 100  # points, of more of which a name is written only where it has room at once


def draw_pareto(plane: ParetoPlane, legend: bool = True) -> Plot:
    """Draw rows by cost and score: the front in blue, what another row beats hollow and grey.

    Bars span the standard deviation over seeds. At least one row.
    """
    table = plane.table
    axes = _axes(4.7, 3.4, 0.5, 0.48, 0.12, 0.5 if legend else 0.28)
    plot = Plot(axes.figure, f"{table.score.label} on {table.test} against {plane.label}")
    ticks = _limits(axes, plane)
    points = _by_room(axes, plane.points)
    plot.marks = {f"mark-{n}-": (p.row.name, _words(plane, p)) for n, p in enumerate(points)}
    plot.unnamed = _name_points(axes, points)
    heading = shorten(f"{table.heading}  {table.test}", 60)
    across = f"{plane.label} {'↓' if plane.less_is_better else '↑'}"
    _frame(axes, heading, across, ticks, 20 if legend else 6)
    xs, ys, sds = (
        np.array(v) for v in zip(*((p.x, p.y, p.sd or 0.0) for p in points), strict=True)
    )
    front = np.array([point.on_front for point in points])
    edges = np.where(front, FRONT, BEATEN)
    axes.vlines(xs, ys - sds, ys + sds, colors=list(edges), linewidth=0.9, gid="mark-each-bar")
    fills = list(np.where(front, FRONT, "white"))
    dots = {"s": 30, "edgecolors": list(edges), "facecolors": fills, "zorder": 2.5}
    axes.scatter(xs, ys, gid="mark-each-dot", clip_on=False, **dots)
    line = [(point.x, point.y) for point in plane.front]
    if len(line) > 1:
        style = "steps-post" if plane.less_is_better else "steps-pre"
        dashed = {"linewidth": 1.2, "linestyle": (0, (4, 2)), "zorder": 1.8}
        axes.plot(*zip(*line, strict=True), color=FRONT, drawstyle=style, **dashed)
    if legend:
        _pareto_legend(axes, bool(sds.any()))
    return plot


def _limits(axes: Any, plane: ParetoPlane) -> list[tuple[float, str]] | None:
    """Set the scales: all points with some room, and a place of its own for a cost of nothing.

    Returns the ticks of an axis over powers of ten.
    """
    xs = [point.x for point in plane.points]
    ys = [point.y + sign * (point.sd or 0) for point in plane.points for sign in (-1, 1)]
    axes.set_ylim(*_room(ys, 0.08))
    positive = [x for x in xs if x > 0]
    if not plane.is_log or not positive:
        axes.set_xlim(*_room(xs, 0.08))
        return None
    factor = max((max(positive) / min(positive)) ** 0.1, 1.3)
    low, high = min(positive) / factor, max(positive) * factor
    ticks = _log_ticks(low, high)
    if len(positive) == len(xs):
        axes.set_xscale("log")
        axes.set_xlim(low, high)
    else:
        # Zero has no logarithm: the axis is linear below the least other cost, and says so.
        axes.set_xscale("symlog", linthresh=low, linscale=0.12 * math.log10(high / low))
        axes.set_xlim(-0.4 * low, high)
        ticks = [0.0, *ticks]
        across = axes.get_xaxis_transform()
        axes.text(low * 0.6, 0, "//", ha="center", va="center", color=SOFT, transform=across)
    return [(tick, f"{tick:g}") for tick in ticks]


def _by_room(axes: Any, points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """Return the front, then the other points, those first that have most room around them."""
    from scipy.spatial import KDTree

    at = axes.transData.transform([(point.x, point.y) for point in points])
    apart = KDTree(at).query(at, k=2)[0][:, 1]  # from the nearest other point
    order = sorted(range(len(at)), key=lambda n: (not points[n].on_front, -apart[n]))
    return [points[number] for number in order]


def _room(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * share or abs(high) * 0.05 or 1.0
    return low - pad, high + pad


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round values between two, more of them the fewer powers of ten there are."""
    decades = math.log10(high / low)
    steps = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
    if decades < 0.5:
        steps = tuple(k / 10 for k in range(10, 100, 5 if decades > 0.2 else 2))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [
        step * 10.0**power for power in powers for step in steps if low <= step * 10**power <= high
    ]


def _name_points(axes: Any, points: Sequence[ParetoPoint]) -> tuple[str, ...]:
    """Write names beside points, first ones first, and return those that found no room."""
    from adjustText import adjust_text
    from matplotlib.transforms import Bbox

    named = points[:NAMED]
    at = axes.transData.transform([(point.x, point.y) for point in points])
    texts = [
        axes.text(
            point.x,
            point.y,
            shorten(point.row.label, LONGEST),
            gid=f"mark-{number}-name",
            fontsize=7.5,
            fontweight="bold" if point.on_front else "normal",
            color=INK if point.on_front else "#4b5563",
            va="center",
            parse_math=False,
        )
        for number, point in enumerate(named)
    ]
    to_data = axes.transData.inverted().transform
    for text, (x, y) in zip(
        texts, at, strict=False
    ):  # at first beside its point, where it has room
        width = text.get_window_extent().width
        room = x + 7 + width < axes.bbox.x1
        text.set_position(to_data((x + 6 if room else x - 6 - width, y)))
    # What no name may cover, as boxes: points as they are drawn, and their bars.
    boxes = [Bbox([to_data((x - 4, y - 4)), to_data((x + 4, y + 4))]) for x, y in at]
    boxes += [Bbox([(p.x, p.y - p.sd), (p.x, p.y + p.sd)]) for p in points if p.sd]
    # A limit of time, which is the default, would make another plot on another machine.
    to = {"target_x": [p.x for p in named], "target_y": [p.y for p in named]}
    free = {"avoid_self": False, "prevent_crossings": False, "force_explode": (0, 0)}
    if len(points) <= CROWD:
        adjust_text(texts, objects=boxes, ax=axes, iter_lim=15, **to, **free)
    return _drop_overlaps(axes, texts, points) + tuple(p.row.label for p in points[NAMED:])


def _drop_overlaps(axes: Any, texts: list[Any], points: Sequence[ParetoPoint]) -> tuple[str, ...]:
    """Hide names that still lie over others or over points; lead the far ones to their points."""
    places = axes.transData.transform([(point.x, point.y) for point in points])
    kept: list[Any] = []
    gone = []
    for number, text in enumerate(texts):
        box = text.get_window_extent()
        covered = (box.padded(1).contains(*place) for place in places)
        if any(box.overlaps(other) for other in kept) or any(covered):
            text.set_visible(False)
            gone.append(points[number].row.label)
            continue
        kept.append(box)
        x, y = places[number]
        near = np.clip(x, box.x0, box.x1), np.clip(y, box.y0, box.y1)
        if math.dist(near, (x, y)) > 7:
            ends = axes.transData.inverted().transform([(x, y), near])
            leader = {"color": "#9aa3ad", "linewidth": 0.6, "zorder": 1.5}
            axes.plot(*ends.T, gid=f"mark-{number}-line", **leader)
    return tuple(gone)


def _words(plane: ParetoPlane, point: ParetoPoint) -> str:
    decimals, seeds = plane.table.score.decimals, len(point.row.stored)
    spread = "" if point.sd is None else f" ± {point.sd:.{decimals}f}"
    return (
        f"{point.row.label}: {plane.table.score.label} {point.y:.{decimals}f}{spread} "
        f"({seeds} seed{'s' * (seeds != 1)}), {point.x:.{plane.cost.decimals}f} {plane.label}"
        f"{', on the front' if point.on_front else ''}"
    )


def _pareto_legend(axes: Any, bars: bool) -> None:
    """Draw the legend between title and axes: what is full, hollow, and what bars span."""
    from matplotlib.lines import Line2D

    dot = {"marker": "o", "linestyle": "", "markersize": 5}
    entries = [
        Line2D([], [], color=FRONT, label="on the Pareto front", **dot),
        Line2D([], [], color=BEATEN, markerfacecolor="white", label="beaten by another", **dot),
    ]
    if bars:
        style = {"marker": "|", "linestyle": "", "markersize": 7, "color": BEATEN}
        entries.append(Line2D([], [], label="± sd over seeds", **style))
    axes.legend(
        handles=entries,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=3,
        frameon=False,
        fontsize=7.5,
        borderaxespad=0.2,
        borderpad=0,
        handletextpad=0.2,
        columnspacing=1.2,
    )


# Training curves: a small plot a row, all on the same scales.


def draw_training(lesson: TrainingCurves, kind: Kind, label: str) -> tuple[Plot, list[ReportRow]]:
    """Draw `loss` or `validation` of all rows that have it in one figure, to be taken apart.

    What belongs to row k alone has ids that begin with `row-k-`; seeds are thin, their mean is
    bold. The grey band spans the means of all rows. No rows: nothing was drawn.
    """
    having = [one for one in lesson.trained if one.curves(kind)]
    axes = _axes(2.35, 1.5, 0.4, 0.3, 0.08, 0.24)
    plot = Plot(axes.figure, f"{label} in training, by step")
    points = [point for one in having for curve in one.curves(kind) for point in curve]
    if not points:
        return plot, []
    values = sorted(value for _, value in points)
    # The highest half percent may leave the plot: one jump of the loss would flatten the rest.
    axes.set_ylim(*_room(values[: max(2, round(len(values) * 0.995))], 0.06))
    axes.set_xlim(0, max(step for step, _ in points) * 1.03)
    _frame(axes, label, "", count=3)
    axes.text(1, 0.03, "step", ha="right", color=SOFT, transform=axes.transAxes, fontsize=7)
    means = [mean_of_seeds(one.curves(kind)) for one in having]
    steps = sorted({step for mean in means for step, _ in mean})
    if len(having) > 1 and len(steps) > 1:
        pairs = [tuple(zip(*mean, strict=True)) for mean in means if mean]
        lines = [np.interp(steps, xs, ys, left=np.nan, right=np.nan) for xs, ys in pairs]
        low, high = np.nanmin(lines, axis=0), np.nanmax(lines, axis=0)
        axes.fill_between(steps, low, high, color=FAINT, linewidth=0)
    for number, (one, mean) in enumerate(zip(having, means, strict=True)):
        curves, row = one.curves(kind), f"row-{number}-"
        for seed, curve in enumerate(curves if len(curves) > 1 else []):
            axes.plot(*zip(*curve, strict=True), color="#7fb2e0", lw=0.7, gid=f"{row}seed{seed}")
        last = ""
        if mean:
            dots = {"marker": "o", "markersize": 2.6} if len(mean) <= 12 else {}
            axes.plot(*zip(*mean, strict=True), color=FRONT, lw=1.5, gid=f"{row}mean", **dots)
            last = f", {label} {mean[-1][1]:.3g} at step {mean[-1][0]:.0f}"
        title = f"{one.row.label}: {len(curves)} seed{'s' * (len(curves) != 1)}{last}"
        plot.marks[row] = (one.row.name, title)
    return plot, [one.row for one in having]


# Score against the size of the object.


FEW = 5  # images, below which a mean is drawn hollow


def draw_sizes(table: ReportTable, scores: TableScores, sizes: Sizes) -> Plot:
    """Draw means by bin of foreground share; the best rows in colour, as many as there are."""
    metric = scores.metric
    axes = _axes(7.4, 3.0, 0.45, 0.68, 1.9, 0.28)
    plot = Plot(axes.figure, f"{metric.label} on {table.test} by foreground share")
    places = range(len(sizes.bins))
    axes.set_xlim(-0.5, len(sizes.bins) - 0.5)
    axes.set_ylim(*_room([m for _, means, _ in sizes.rows for m in means if m is not None], 0.06))
    below = f"foreground share of the image, number of images (hollow: fewer than {FEW})"
    labels = [f"{name}\nn = {n}" for name, n in zip(sizes.bins, sizes.counts, strict=True)]
    _frame(axes, f"{metric.label} {metric.arrow}", below, list(zip(places, labels, strict=True)))
    of_row = {id(row): (means, inside) for row, means, inside in sizes.rows}
    ranked = [row for row in table.ranked() if id(row) in of_row]
    for number in reversed(range(len(ranked))):
        row, mark = ranked[number], f"mark-{number}-"
        means, inside = of_row[id(row)]
        found = [(x, m, n) for x, m, n in zip(places, means, inside, strict=True) if m is not None]
        if not found:
            continue
        xs, ys, ns = zip(*found, strict=True)
        coloured = number < len(COLOURS)
        colour = COLOURS[number] if coloured else "#c3c9d1"
        line = {"linewidth": 1.5 if coloured else 0.8, "linestyle": DASHES[number % len(DASHES)]}
        shown = shorten(row.label, 26) if coloured else "_"
        shown = f" {shown}" if shown.startswith("_") and coloured else shown  # "_": in no legend
        axes.plot(xs, ys, color=colour, gid=f"{mark}line", label=shown, **line)
        if coloured:
            fills = [colour if n >= FEW else "white" for n in ns]
            dots = {"s": 15, "edgecolors": colour, "facecolors": fills, "zorder": 2.5}
            axes.scatter(xs, ys, gid=f"{mark}dots", **dots)
        each = ", ".join(f"{sizes.bins[x]} {scores.shown(m)} (n = {n})" for x, m, n in found)
        plot.marks[mark] = (row.name, f"{row.label}: {each}")
    others = len(ranked) - len(COLOURS)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        labels[::-1],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.02),
        frameon=False,
        handlelength=2.6,
        title=f"grey: {others} others" if others > 0 else None,
        alignment="left",
    )
    for text in axes.get_legend().get_texts():
        text.set_parse_math(False)
    return plot


# One plot of score against cost as a file, for a paper or a README.


def write_pareto(contents: ReportContents, cost: str, path: Path) -> list[str]:
    """Write the plot of the one table that was chosen, and return what its reader should know.

    Args:
        contents: the chosen records, which make one table.
        cost: what the axis across shows: the key of a cost column, or a short name of `--x`.
        path: the file; its ending is one of FORMATS. PGF goes into LaTeX by `\\input`.

    Raises:
        UsageError: an unknown cost or ending, several tables, or a package or LaTeX is missing.
        DataError: no row has the cost.
    """
    column = find_cost(cost)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(
            f"--pareto {path} ends with none of {', '.join(FORMATS)}; name one of them"
        )
    plane = pareto_plane(contents.only_table("plot"), column)
    if not plane.points:
        raise DataError(f"no record of {plane.table.test} has both a score and {cost}")
    need_plots()
    with plot_style():
        plot = draw_pareto(plane)
        write_atomically(path, rendered(plot.figure, suffix))
    notes = [f"no room for the names of {', '.join(plot.unnamed)}"] if plot.unnamed else []
    return notes + ([f"no {cost} for {', '.join(plane.absent)}"] if plane.absent else [])


def rendered(figure: Any, suffix: str, dpi: int = 300) -> bytes:
    """Return a figure as the bytes of a file, the same for the same figure: it holds no date.

    Raises UsageError for a .pgf without a LaTeX that measures its texts.
    """
    from matplotlib.backends.backend_pgf import LatexError

    undated = {".svg": {"metadata": {"Date": None}}, ".pdf": {"metadata": {"CreationDate": None}}}
    if suffix == ".pgf":
        _escape(figure)
    data = BytesIO()
    try:
        figure.savefig(data, format=suffix[1:], dpi=dpi, **undated.get(suffix, {}))
    except (FileNotFoundError, LatexError) as error:
        raise UsageError(
            f"a .pgf is made with LaTeX, which is missing or cannot set a name ({error}); name a "
            f"file .pdf instead"
        ) from None
    return data.getvalue()


def _escape(figure: Any) -> None:
    """Write all texts of a figure as LaTeX wants them."""
    import shutil

    from matplotlib import rcParams
    from matplotlib.text import Text

    from lpmoe_bench.tables.latex import latex_text

    systems = ("pdflatex", "xelatex", "lualatex")
    rcParams["pgf.texsystem"] = next(filter(shutil.which, systems), "pdflatex")
    for text in figure.findobj(Text):
        plain = latex_text(text.get_text()).replace("//", "/\\kern-.1em/")
        text.set_text(plain.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$"))
