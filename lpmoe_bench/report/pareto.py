"""The Pareto front: rows that no other one beats in both its score and its cost, and its plot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.report import plots
from lpmoe_bench.report.contents import ReportContents, ReportRow, ReportTable
from lpmoe_bench.tables.parts import COSTS, PARAMETERS, Column
from lpmoe_bench.tables.rows import counted, is_partial
from method_zoo.errors import unknown

COLUMNS = {column.key: column for column in PARAMETERS} | COSTS
# The costs that a report draws, with the label of their axis, in the unit of its column.
PLOTTED = {
    "trainable_parameters": "trainable parameters (M), decoder included",
    "method_parameters": "parameters of the method alone (M)",
    "inference_images_per_second": "test images/s",
    "train_images_per_second": "training images/s",
    "peak_memory_bytes": "peak memory of training (GiB)",
    "training_flops": "GFLOPs of a training image",
}
SHORT = {  # of `--x`
    "parameters": "trainable_parameters",
    "images_per_second": "inference_images_per_second",
    "memory": "peak_memory_bytes",
}
COUNTED = ("parameters", "flops", "state_bytes", "share_")  # the same on every machine
NAMED, LONGEST = 14, 34  # names in a plot; letters of a name


@dataclass
class ParetoPoint:
    """A row in the plane of cost and score, both as they are written; sd is 0 for one seed."""

    row: ReportRow
    x: float
    y: float
    sd: float
    on_front: bool = False


@dataclass(frozen=True)
class ParetoPlane:
    """The rows of a table that have a cost, the front marked; absent: labels of those without."""

    table: ReportTable
    cost: Column
    points: Sequence[ParetoPoint]
    absent: Sequence[str]

    @property
    def front(self) -> list[ParetoPoint]:
        """The points of the front, by cost."""
        return sorted((point for point in self.points if point.on_front), key=lambda p: p.x)

    @property
    def label(self) -> str:
        """The words of the cost's axis."""
        return PLOTTED.get(self.cost.key, self.cost.label)

    @property
    def less_is_better(self) -> bool:
        """Whether a lower cost is better: of all but speeds."""
        return not self.cost.key.endswith("images_per_second")

    @property
    def is_measured(self) -> bool:
        """Whether the cost depends on the machine."""
        return not any(part in self.cost.key for part in COUNTED)


def find_cost(name: str) -> Column:
    """Return the column of a cost by its key or short name; raises UsageError for an unknown."""
    key = SHORT.get(name, name)
    if key not in COLUMNS:
        raise UsageError(unknown("cost for --x", name, [*SHORT, *COLUMNS]))
    return COLUMNS[key]


def pareto_plane(table: ReportTable, cost: Column) -> ParetoPlane:
    """Place a table's rows; rows that lack images of the test set are never on the front."""
    plane = ParetoPlane(table, cost, points := [], absent := [])
    scale = table.score.scale
    place = next((n for n, one in enumerate(table.group.columns) if one.key == cost.key), None)
    for row in table.rows:
        # Read again where the cell is empty, for it is so too where only one seed lacks the cost.
        known = row.row.cells[place].values if place is not None else ()
        values = () if known else [cost.value(record, table.test) for record in row.row.records]
        known = known or [v for v in values if v is not None and math.isfinite(v)]
        if row.score.mean is None or not known:
            absent.append(row.label)
            continue
        x, y = cost.scale * math.fsum(known) / len(known), row.score.mean * scale
        points.append(ParetoPoint(row, x, y, (row.score.sd or 0.0) * scale))
    if table.score.higher_is_better is None:
        return plane

    def signed(point: ParetoPoint) -> tuple[float, float]:
        up = table.score.higher_is_better
        return point.x if plane.less_is_better else -point.x, -point.y if up else point.y

    # One pass, the cheapest first: each point of the front is better than all before it. One that
    # equals the last of them in both is beaten by none either.
    best = -math.inf, math.inf
    for point in sorted(points, key=signed):
        is_best = signed(point)[1] < best[1] or signed(point) == best
        if is_best and not any(is_partial(one, table.test) for one in point.row.row.records):
            point.on_front, best = True, signed(point)
    return plane


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
    column, suffix = find_cost(cost), plots.file_format("--pareto", path)
    plane = pareto_plane(contents.only_table("plot"), column)
    if not plane.points:
        raise DataError(f"no record of {plane.table.test} has both a score and {cost}")
    plots.need_plots()
    with plots.plot_style():
        plot = draw_pareto(plane)
        write_atomically(path, plots.rendered(plot.figure, suffix))
    notes = [f"no room for the names of {', '.join(plot.unnamed)}"] if plot.unnamed else []
    return notes + ([f"no {cost} for {', '.join(plane.absent)}"] if plane.absent else [])


def draw_pareto(plane: ParetoPlane, legend: bool = True, most: int | None = None) -> plots.Plot:
    """Draw rows by cost and score: the front in blue, what another row beats hollow and grey.

    Bars span the standard deviation over seeds. At least one row. most: where there are more rows,
    only so many are drawn, of those beside the front the best, and none is named; None for all.
    """
    table = plane.table
    ranks = {id(row): rank for rank, row in enumerate(table.ranked() if most else ())}
    points = sorted(plane.points, key=lambda p: (not p.on_front, ranks.get(id(p.row), 0)))
    crowded = bool(most) and len(points) > most
    if most and crowded:
        points = points[: max(most, len(plane.front))]
    axes = plots.new_axes(4.7, 3.4, 0.5, 0.48, 0.12, 0.5 if legend else 0.28)
    heading = plots.shorten(f"{table.score.directed_label}  {table.test}", 60)
    axes.set_title(heading, pad=20 if legend else 6)
    axes.set_xlabel(f"{plane.label} {'↓' if plane.less_is_better else '↑'}")
    xs, ys, sds = np.array([(point.x, point.y, point.sd) for point in points]).T
    edges = [plots.FRONT if point.on_front else plots.BEATEN for point in points]
    fills = [plots.FRONT if point.on_front else "white" for point in points]
    axes.margins(0.08)
    if plane.cost.key.endswith("_parameters"):
        _count_powers(axes, xs)
    axes.vlines(xs, ys - sds, ys + sds, colors=edges, linewidth=0.9, gid="mark-each-bar")
    dots = {"s": 30, "edgecolors": edges, "facecolors": fills, "zorder": 2.5, "clip_on": False}
    axes.scatter(xs, ys, gid="mark-each-dot", **dots)
    if len(plane.front) > 1:
        style = "steps-post" if plane.less_is_better else "steps-pre"
        line = {"drawstyle": style, "linewidth": 1.2, "linestyle": (0, (4, 2)), "zorder": 1.8}
        corners = [(point.x, point.y) for point in plane.front]
        axes.plot(*zip(*corners, strict=True), color=plots.FRONT, **line)
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # names are not to move them
    if legend:
        axes.scatter([], [], s=25, color=plots.FRONT, label="on the Pareto front")
        hollow = {"facecolors": "white", "edgecolors": plots.BEATEN}
        axes.scatter([], [], s=25, label="beaten by another", **hollow)
        if sds.any():
            axes.scatter([], [], s=50, marker="|", color=plots.BEATEN, label="± sd over seeds")
        place = {"loc": "lower left", "bbox_to_anchor": (-0.02, 0.98), "ncols": 3}
        axes.legend(**place, handletextpad=0.2, columnspacing=1.2)
    marks = {f"mark-{n}-": (p.row.name, _words(plane, p)) for n, p in enumerate(points)}
    title = f"{table.score.label} on {table.test} against {plane.label}"
    return plots.Plot(axes.figure, title, marks, () if crowded else _name_points(axes, points))


def _count_powers(axes: Any, xs: np.ndarray) -> None:
    """Set an axis over powers of ten, for counts of parameters differ by these.

    Zero has no logarithm: for a cost of nothing the axis is linear below the least other one, and
    says so.
    """
    from matplotlib.ticker import LogLocator

    positive = xs[xs > 0]
    if not len(positive):
        return
    factor = max((positive.max() / positive.min()) ** 0.1, 1.3)
    low, high = positive.min() / factor, positive.max() * factor
    # Fewer ticks a power where there are many powers, or their labels would touch.
    steps = (1.0,) if high / low > 1000 else (1.0, 3.0) if high / low > 30 else (1.0, 2.0, 5.0)
    ticks = LogLocator(subs=steps, numticks=30).tick_values(low, high)
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(positive) == len(xs):
        axes.set(xscale="log", xlim=(low, high))
    else:
        # The linear part takes about an eighth of the width, however many powers follow it.
        axes.set_xscale("symlog", linthresh=low, linscale=0.12 * math.log10(high / low))
        axes.set_xlim(-0.4 * low, high)
        ticks = [0.0, *ticks]
        across = {"transform": axes.get_xaxis_transform(), "color": plots.SOFT}
        axes.text(low * 0.6, 0, "//", ha="center", va="center", **across)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _name_points(axes: Any, points: Sequence[ParetoPoint]) -> tuple[str, ...]:
    """Write names beside points, first ones first, and return those that found no room."""
    from adjustText import adjust_text
    from matplotlib.transforms import Bbox

    named, texts = points[:NAMED], []
    at = axes.transData.transform([(point.x, point.y) for point in points])
    to_data = axes.transData.inverted().transform
    for number, (point, (x, y)) in enumerate(zip(named, at, strict=False)):
        look = {"fontsize": 7.5, "va": "center", "gid": f"mark-{number}-name"}
        bold = {"fontweight": "bold"} if point.on_front else {"color": "#4b5563"}
        text = axes.text(0, 0, plots.shorten(point.row.label, LONGEST), **look, **bold)
        width = text.get_window_extent().width
        # At first to the right of its point, or to the left where the plot ends.
        x += 6 if x + 7 + width < axes.bbox.x1 else -6 - width
        text.set_position(to_data((x, y)))
        texts.append(text)
    # What no name may cover, as boxes: points as they are drawn, and their bars.
    boxes = [Bbox([to_data((x - 4, y - 4)), to_data((x + 4, y + 4))]) for x, y in at]
    boxes += [Bbox([(p.x, p.y - p.sd), (p.x, p.y + p.sd)]) for p in points if p.sd]
    to = {"target_x": [p.x for p in named], "target_y": [p.y for p in named]}
    free = {"avoid_self": False, "prevent_crossings": False, "force_explode": (0, 0)}
    axes.set_axis_off()  # the axis has no part in it, but would be drawn for it
    # A limit of time, which is the default, would make another plot on another machine.
    adjust_text(texts, objects=boxes, ax=axes, iter_lim=15, **to, **free)
    axes.set_axis_on()
    kept, gone = [], []
    for number, text in enumerate(texts):
        box = text.get_window_extent()
        covered = (box.padded(1).contains(*place) for place in at)
        if any(map(box.overlaps, kept)) or any(covered):
            text.set_visible(False)
            gone.append(named[number].row.label)
            continue
        kept.append(box)
        x, y = at[number]
        near = np.clip(x, box.x0, box.x1), np.clip(y, box.y0, box.y1)
        if math.dist(near, (x, y)) > 7:  # a line leads from a far name to its point
            line = {"color": "#9aa3ad", "linewidth": 0.6, "zorder": 1.5}
            axes.plot(*to_data([(x, y), near]).T, gid=f"mark-{number}-line", **line)
    return (*gone, *(point.row.label for point in points[NAMED:]))


def _words(plane: ParetoPlane, point: ParetoPoint) -> str:
    decimals, seeds = plane.table.score.decimals, len(point.row.stored)
    spread = f" ± {point.sd:.{decimals}f}" if seeds > 1 else ""
    return (
        f"{point.row.label}: {plane.table.score.label} {point.y:.{decimals}f}{spread} "
        f"({counted(seeds, 'seed')}), {point.x:.{plane.cost.decimals}f} {plane.label}"
        f"{', on the front' if point.on_front else ''}"
    )
