"""Objects on the page: precision against recall, precision by size, quality of panoptic classes.

All is made of the rows of single images, so that no image of a data set has to be here.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from lpmoe_bench.errors import BenchError, DataError
from lpmoe_bench.metrics import hits
from lpmoe_bench.metrics.facts import METRICS, Precision
from lpmoe_bench.metrics.objects import ObjectProtocol, Part
from lpmoe_bench.metrics.panoptic import PanopticProtocol, SegmentCounts
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.store import StoredRecord, image_rows
from lpmoe_bench.report import plots
from lpmoe_bench.report.contents import ReportRow, ReportTable
from lpmoe_bench.scoring.views import COLOURS, DASHES
from lpmoe_bench.tables.rows import counted

SHOWN_IOUS = ((0, ".50"), (5, ".75"))  # places in `hits.IOUS`, and their texts
SIZES = ("small", "medium", "large")  # the ranges 1 to 3 of `hits.AREAS`
OTHERS = "#c3c9d1"
RATIOS = (("pq", "PQ", "o"), ("sq", "SQ", "|"), ("rq", "RQ", "x"))
LEFT, RIGHT = 0.45, 1.9  # inches beside axes: their labels, and the legend


class Panel(NamedTuple):
    """A part of a table's section. figures: drawn plots, each with what is to be known of it.
    lines: sentences about what cannot be drawn."""

    title: str
    figures: Sequence[tuple[Markup, str]]
    lines: Sequence[str]


class FoundRow(NamedTuple):
    """What a row has found of boxes or masks: for each seed the `ImageHits` of its images."""

    row: ReportRow
    seeds: Sequence[Any]

    def curve(self, classes: int, iou: int) -> np.ndarray:
        """Return precision at 101 recalls, mean over classes with an object, then over seeds."""
        of_seeds = [hits.precision_curves(seed, classes, iou) for seed in self.seeds]
        return np.mean([hits.class_mean(one.T) for one in of_seeds], axis=0)


# Detections: curves, and scores by size.


def object_panels(table: ReportTable) -> list[Panel]:
    """Return the panels of a table of detections; none under a protocol without classes."""
    protocol = PROTOCOLS.get(table.group.context.protocol)
    if not isinstance(protocol, ObjectProtocol) or not protocol.of_class:
        return []
    curves: list[tuple[Markup, str]] = []
    sizes: list[tuple[Markup, str]] = []
    missing: dict[str, None] = {}
    for part in protocol.parts:
        found, said = found_rows(table, part)
        missing |= dict.fromkeys(said)
        if not found:
            continue
        key = f"{table.anchor}-{part}"
        plot = draw_curves(table, part, found)
        curves.append((plots.to_svg(plot, f"{key}-curves"), _about_curves(part, found)))
        plot = draw_object_sizes(table, part, found)
        sizes.append((plots.to_svg(plot, f"{key}-sizes"), _about_sizes(part)))
    lines = [f"Left out: {'; '.join(missing)}."] if missing else []
    return [
        Panel("Precision against recall", curves, lines),
        Panel("Average precision by the size of objects", sizes, lines),
    ]


def found_rows(table: ReportTable, part: Part) -> tuple[list[FoundRow], list[str]]:
    """Read what the best rows of a table have found, and say which cannot be read."""
    found, missing = [], []
    for row in table.best:
        try:
            seeds = [_of_record(one, table.test, _key(part)) for one in row.stored]
        except BenchError as error:
            missing.append(f"{row.label}: {error}")
            continue
        found.append(FoundRow(row, seeds))
    return found, missing


def _of_record(one: StoredRecord, test: str, key: str) -> np.ndarray:
    """Return the parts of a record's images that have to do with a score; raises DataError."""
    rule, rows = one.record.row_score(key), image_rows(one.folder, test)
    if rule is None or rows is None:
        what = "rows of single images" if rows is None else "classes or no rules of today"
        raise DataError(f"{one.folder} has no {what}")
    try:
        return rule.read([rows.texts(name) for name in rule.columns]).of_image
    except ValueError as error:
        raise DataError(f"{rows.path} is no table of numbers ({error})") from None


def _key(part: Part, area: int = 0) -> str:
    """Return the metric of average precision over all overlaps and classes, in a range of area."""
    wanted = Precision(part, area)
    return next(k for k, one in METRICS.items() if one.of_objects == wanted and "/" not in k)


def _classes_of(row: ReportRow) -> Sequence[str]:
    labels = row.stored[0].record.labels
    return labels.classes if labels else ()


def draw_curves(table: ReportTable, part: Part, found: Sequence[FoundRow]) -> plots.Plot:
    """Draw precision against recall at two overlaps; the best rows in colour."""
    figure, (left, right) = _two_axes(7.4, 3.0)
    plot = plots.Plot(figure, f"Precision against recall of {part} on {table.test}")
    classes = len(_classes_of(found[0].row))
    for number, one, mark, style in _styled(table, found):
        words = []
        for axes, (iou, text) in zip((left, right), SHOWN_IOUS, strict=True):
            curve = one.curve(classes, iou)
            shown = _legend_text(one.row, number) if axes is right else "_"
            axes.plot(hits.RECALLS, curve, gid=f"{mark}{iou}", label=shown, **style)
            words.append(f"AP at an overlap of {text} {100 * curve.mean():.1f}")
        plot.marks[mark] = (one.row.name, f"{one.row.label}: {', '.join(words)}")
    for axes, (_, text) in zip((left, right), SHOWN_IOUS, strict=True):
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall")
        axes.set_title(f"precision of {part}, IoU {text}")
    _place_legend(right, len(found))
    return plot


def _about_curves(part: Part, found: Sequence[FoundRow]) -> str:
    seeds = {len(one.seeds) for one in found}
    over = "" if seeds == {1} else " and over seeds"
    classes = len(_classes_of(found[0].row))
    mean = f", mean over {classes} classes as far as they have objects{over}" * (classes > 1)
    mean = mean or ", mean over seeds" * bool(over)
    return (
        f"Of {part}: the best precision at each of 101 recalls or a higher one{mean}. The mean "
        f"of a curve is its average precision."
    )


def draw_object_sizes(table: ReportTable, part: Part, found: Sequence[FoundRow]) -> plots.Plot:
    """Draw the average precision of small, medium and large objects, a dot a row; the best in
    colour. A range without an object says so in words."""
    counts = hits.count_objects(found[0].seeds[0])[1:].tolist()
    axes = plots.new_axes(7.4, 2.7, LEFT, 0.5, RIGHT, 0.28)
    plot = plots.Plot(axes.figure, f"Average precision of {part} by size on {table.test}")
    axes.set_title(f"AP of {part} (%) ↑")
    axes.set_xticks(
        range(3), [f"{s}\n{counted(n, 'object')}" for s, n in zip(SIZES, counts, strict=True)]
    )
    columns = {column.key: place for place, column in enumerate(table.group.columns)}
    places = [columns.get(_key(part, area)) for area in (1, 2, 3)]
    shown = min(len(found), len(COLOURS))
    for number, one, mark, style in _styled(table, found):
        coloured, words = number < len(COLOURS), []
        across = 0.6 * ((number + 0.5) / shown - 0.5) if coloured else 0.36
        for x, place in enumerate(places):
            mean = None if place is None else one.row.row.cells[place].mean
            if mean is None:
                continue
            label = _legend_text(one.row, number) if not words else "_"
            dot = {"s": 26 if coloured else 10, "color": style["color"], "zorder": 2.5}
            axes.scatter([x + across], [100 * mean], gid=f"{mark}{x}", label=label, **dot)
            words.append(f"{SIZES[x]} {100 * mean:.1f}")
        if words:
            plot.marks[mark] = (one.row.name, f"{one.row.label}: {', '.join(words)}")
    for x, count in enumerate(counts):
        if not count:
            axes.text(x, 0.5, "no object\nof this size", transform=axes.get_xaxis_transform(),
                      ha="center", va="center", color=plots.SOFT)  # fmt: skip
    axes.set_xlim(-0.5, 2.5)
    axes.set_ylim(0, max(10.0, axes.get_ylim()[1]))
    _place_legend(axes, len(found))
    return plot


def _about_sizes(part: Part) -> str:
    return (
        f"Of {part}, mean over overlaps, classes and seeds, in percent. Small: up to 32 x 32 "
        f"pixels of area, medium: up to 96 x 96. Crowds are not counted."
    )


# Segments: quality by class.


class ClassQuality(NamedTuple):
    """Of a row and each class: its name, segments of the truth, and PQ, SQ and RQ as fractions,
    mean over seeds, NaN where a class is nowhere."""

    row: ReportRow
    classes: Sequence[str]
    segments: np.ndarray
    ratios: dict[str, np.ndarray]


def segment_panels(table: ReportTable) -> list[Panel]:
    """Return the panel of a table of panoptic maps: quality of each class of its best row."""
    protocol = PROTOCOLS.get(table.group.context.protocol)
    if not isinstance(protocol, PanopticProtocol):
        return []
    title = "Panoptic quality of each class"
    row = table.ranked()[0]
    try:
        found = read_quality(row, table.test)
    except BenchError as error:
        return [Panel(title, [], [f"No picture: {error}."])]
    left_out = [n for n, pq in zip(found.classes, found.ratios["pq"], strict=True) if np.isnan(pq)]
    drawn = draw_quality(found, table.test)
    about = (
        f"{row.label}, the best row, {counted(len(row.stored), 'seed')}. SQ: the mean IoU of "
        f"matched segments; RQ: how many are matched; PQ: their product. In brackets: segments of "
        f"the truth."
    )
    lines = [f"Without a segment in truth or maps, so without a score: {', '.join(left_out)}."]
    return [
        Panel(
            title, [(plots.to_svg(drawn, f"{table.anchor}-quality"), about)], lines * bool(left_out)
        )
    ]


def read_quality(row: ReportRow, test: str) -> ClassQuality:
    """Read the quality of each class of a row; raises DataError where its rows cannot be read."""
    of_seeds = [SegmentCounts(_of_record(one, test, "pq").sum(axis=0)) for one in row.stored]
    ratios = {stem: np.array([one.of_class(stem) for one in of_seeds]) for stem, *_ in RATIOS}
    means = {stem: hits.class_mean(values.T) for stem, values in ratios.items()}
    _, matched, _, missed = of_seeds[0].sums.sum(axis=0)
    return ClassQuality(row, _classes_of(row), (matched + missed).astype(int), means)


def draw_quality(found: ClassQuality, test: str) -> plots.Plot:
    """Draw PQ, SQ and RQ of each class that has them as dots, the best PQ on top; many in two
    columns."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = np.flatnonzero(~np.isnan(found.ratios["pq"]))
    order = known[np.argsort(-found.ratios["pq"][known], kind="stable")]
    halves = [part for part in np.array_split(order, 1 + (len(order) > 20)) if len(part)]
    rows = max(map(len, halves), default=1)
    width, height, names = 7.4, 0.6 + 0.16 * rows, 1.5
    figure = Figure(figsize=(width, height), dpi=72)
    FigureCanvasAgg(figure)
    each = width / max(1, len(halves))
    for column, part in enumerate(halves):
        left, wide = column * each + names, each - names - 0.15
        axes = figure.add_axes((left / width, 0.3 / height, wide / width, 0.16 * rows / height))
        for stem, label, marker in RATIOS:
            values = 100 * found.ratios[stem][part]
            colour = plots.FRONT if stem == "pq" else plots.BEATEN
            axes.scatter(values, range(len(part)), marker=marker, s=16, color=colour, label=label,
                         linewidths=1, zorder=2.5)  # fmt: skip
        labels = [f"{plots.shorten(found.classes[int(k)], 18)} ({found.segments[k]})" for k in part]
        axes.set_yticks(range(len(part)), labels, fontsize=7)
        axes.set(xlim=(-2, 102), ylim=(rows - 0.4, -0.6), xlabel="%")
        if not column:
            place = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "borderpad": 0}
            axes.legend(ncols=3, handletextpad=0.2, columnspacing=1, **place)
    return plots.Plot(figure, f"Panoptic quality of each class on {test}")


# What the plots share.


def _two_axes(width: float, height: float) -> tuple[Any, list[Any]]:
    """Return a figure with two axes side by side, and room for a legend on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=72)
    FigureCanvasAgg(figure)
    wide = (width - 2 * LEFT - RIGHT) / 2
    return figure, [
        figure.add_axes((left / width, 0.42 / height, wide / width, (height - 0.7) / height))
        for left in (LEFT, 2 * LEFT + wide)
    ]


def _styled(
    table: ReportTable, found: Sequence[FoundRow]
) -> Iterator[tuple[int, FoundRow, str, dict[str, Any]]]:
    """Yield the rank of each row, the row, the start of its ids and its looks; the best last, so
    that they lie on top."""
    ranks = {id(row): rank for rank, row in enumerate(table.ranked())}
    ranked = sorted(found, key=lambda one: ranks[id(one.row)])
    for number, one in reversed([*enumerate(ranked)]):
        coloured = number < len(COLOURS)
        style = {
            "color": COLOURS[number] if coloured else OTHERS,
            "linestyle": DASHES[number % len(DASHES)],
            "linewidth": 1.5 if coloured else 0.8,
        }
        yield number, one, f"mark-{number}-", style


def _legend_text(row: ReportRow, number: int) -> str:
    """Return the text of a row in a legend; "_" keeps one out of it."""
    return f" {plots.shorten(row.label, 26)}" if number < len(COLOURS) else "_"


def _place_legend(axes: Any, rows: int) -> None:
    others = rows - len(COLOURS)
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.02), "alignment": "left"}
    axes.legend(**place, reverse=True, title=f"grey: {others} others" if others > 0 else None)
