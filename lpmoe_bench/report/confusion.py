"""Classes: the score of each by row; of label maps, which class the best row takes for which."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpmoe_bench.errors import DataError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.metrics.classes import CONFUSION, ClassProtocol, confusion_matrix, read_confusions
from lpmoe_bench.metrics.facts import is_of_class
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.store import StoredRecord, image_rows
from lpmoe_bench.report import plots
from lpmoe_bench.report.contents import ReportContents, ReportRow, ReportTable
from lpmoe_bench.tables.parts import Column, class_stem
from lpmoe_bench.tables.rows import counted

NUMBERED = 14  # classes, up to which each cell has its number
MOST_NAMED = 60  # classes, beyond which names would overlap
PAGE = 7.0  # inches, as wide as a page shows it
CELL, LONGEST = 0.42, 22  # inches of a cell with its number; letters of a class


class Confusion(NamedTuple):
    """What a row takes for what: shares (K, K), of the pixels of the class of a line those that the
    row gives the class of a column, in percent; NaN in lines of classes without a pixel."""

    row: ReportRow
    classes: Sequence[str]
    shares: np.ndarray


def is_class_column(column: Column) -> bool:
    """Whether a column is of a single class."""
    return is_of_class(column.key)


def class_columns(table: ReportTable) -> list[tuple[int, str]]:
    """Return (place, class) of the columns that hold the first score that each class has, such as
    its IoU or its average precision."""
    wanted, found = class_stem(table.group.context.protocol), []
    for place, column in enumerate(table.group.columns):
        stem, _, name = column.key.partition("/")
        if name and stem == wanted:
            found.append((place, name))
    return found


def read_confusion(table: ReportTable) -> Confusion | None:
    """Return the confusion of the best row, over all its seeds; None of a table without classes, or
    whose records are of no label maps.

    Raises DataError where its rows cannot be read.
    """
    protocol = PROTOCOLS.get(table.group.context.protocol)
    if not class_columns(table) or not isinstance(protocol, ClassProtocol):
        return None
    row = table.ranked()[0]
    found = [_of_record(one, table.test) for one in row.stored]
    labels = row.stored[0].record.labels
    assert labels is not None
    pixels = np.sum(found, axis=0)
    whole = pixels.sum(axis=1, keepdims=True)
    shares = np.where(whole > 0, 100 * pixels / np.maximum(whole, 1), np.nan)
    return Confusion(row, labels.classes, shares)


def _of_record(one: StoredRecord, test: str) -> np.ndarray:
    rows, labels = image_rows(one.folder, test), one.record.labels
    if rows is None or labels is None:
        raise DataError(f"{one.folder} has no rows of single images, so nobody knows its confusion")
    classes = len(labels.classes)
    try:
        _, entries = read_confusions(rows.texts(CONFUSION), classes)
    except ValueError as error:
        raise DataError(f"{rows.path} is no table of numbers ({error})") from None
    return confusion_matrix(entries, classes)[:classes]  # without the line of void


def draw_confusion(found: Confusion, test: str, least: float = 0.0) -> plots.Plot:
    """Draw the shares as a square of cells: the truth downwards, what is called across.

    Args:
        found: the shares.
        test: the test set.
        least: width in inches, at least: of few classes the rest stays empty.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(found.classes)
    side = count * CELL if count <= NUMBERED else min(7.5, NUMBERED * CELL + 0.05 * count)
    names = [plots.shorten(name, LONGEST) for name in found.classes]
    margin = 0.3 + 0.065 * max(map(len, names)) * (count <= MOST_NAMED)
    width, height = max(least, margin + side + 0.75), margin + side + 0.1
    figure = Figure(figsize=(width, height), dpi=72)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((margin / width, 0.1 / height, side / width, side / height))
    shown = axes.imshow(found.shares, cmap="Blues", vmin=0, vmax=100, interpolation="none")
    axes.set(xlabel="called", ylabel="truth", xticks=[], yticks=[])
    if count <= MOST_NAMED:
        size = 8 if count <= NUMBERED else max(4.0, 72 * side / count * 0.8)
        axes.set_xticks(range(count), names, rotation=90, fontsize=min(8, size))
        axes.set_yticks(range(count), names, fontsize=min(8, size))
    else:
        axes.set(xticks=range(0, count, 10), yticks=range(0, count, 10))
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.xaxis.set_label_position("top")
    axes.grid(visible=False)
    for truth, called in np.ndindex(count, count) if count <= NUMBERED else ():
        share = found.shares[truth, called]
        text = "-" if np.isnan(share) else f"{share:.0f}"
        colour = "white" if share > 60 else "#1f2328" if share >= 0.5 else "#8c959f"
        axes.text(called, truth, text, ha="center", va="center", fontsize=7, color=colour)
    bar = figure.add_axes(
        ((margin + side + 0.15) / width, 0.1 / height, 0.12 / width, side / height)
    )
    figure.colorbar(shown, cax=bar).set_label("% of the class's pixels", fontsize=8)
    bar.tick_params(labelsize=7)
    return plots.Plot(figure, f"Classes on {test} that {found.row.label} takes for each other")


def class_facts(table: ReportTable) -> dict[str, Any] | None:
    """Return what the page shows of classes; None of a table without them, or with a single one.

    columns: (place, class) of each; what: the label of their score; unit: of it, in words; drawn:
    the picture of the best row, words: whose it is; reason: why there is none.
    """
    columns = class_columns(table)
    if len(columns) < 2:
        return None
    percent = any(table.group.columns[place].scale != 1 for place, _ in columns)
    facts: dict[str, Any] = {"columns": columns, "drawn": "", "reason": ""}
    place, name = columns[0]
    # The label of a class is that of its score and its name: "IoU sky (%)".
    facts["what"] = table.group.columns[place].label.removesuffix(" (%)").removesuffix(name).strip()
    facts["unit"] = " in percent" * percent
    try:
        found = read_confusion(table)
    except DataError as error:
        return facts | {"reason": f"No picture of the confusion: {error}."}
    if found is None:  # a confusion is of label maps
        return facts
    plot = draw_confusion(found, table.test, PAGE)
    drawn = plots.to_svg(plot, f"{table.anchor}-confusion")
    words = f"{found.row.label}, the best row, {counted(len(found.row.stored), 'seed')}"
    return facts | {"drawn": drawn, "words": words}


def write_confusion(contents: ReportContents, path: Path) -> None:
    """Write the picture of the one table's best row alone.

    Raises UsageError for several tables or another ending, DataError for a table without classes.
    """
    suffix = plots.file_format("--confusion", path)
    table = contents.only_table("plot")
    found = read_confusion(table)
    if found is None:
        raise DataError(
            f"the records of {table.test} have no classes: a confusion is of label maps"
        )
    with plots.plot_style():
        figure = draw_confusion(found, table.test).figure
        write_atomically(path, plots.rendered(figure, suffix))
