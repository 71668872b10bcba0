"""Published figures as cells and words: digits as printed, marks, legends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lpmoe_bench.tables.ledger import (
    LEVELS,
    REFERENCES,
    Ledger,
    PublishedMetric,
    PublishedRow,
    PublishedTable,
)
from lpmoe_bench.tables.parts import Cell, Origin, Printed, Row

MARK = "‡"
COUNTED = {  # what a source counts -> the column that counts the same
    "method": "method_parameters",
    "with_decoder": "trainable_parameters",
    "total": "total_parameters",
}


def metric_of(table: PublishedTable, column: str) -> PublishedMetric:
    """Return the metric of a column `set.metric`."""
    return table.metrics[column.partition(".")[2]]


def figure(table: PublishedTable, row: PublishedRow, column: str) -> Cell:
    """Return the cell of a figure; empty where the row has none."""
    if column not in row.values:
        return Cell(())
    metric = metric_of(table, column)
    more = 2 if metric.unit == "percent" else 0
    pm, flag = row.pm.get(column), row.flags.get(column, "")
    printed = Printed(metric.decimals + more, pm, metric.pm_decimals + more, flag)
    return Cell((row.values[column],), printed=printed)


def count(table: PublishedTable, row: PublishedRow, column: str) -> Cell:
    """Return the cell of a parameter column, empty where the source counts something else."""
    if row.parameters_millions and column == COUNTED.get(table.parameters):
        text, factor, digits = row.parameters_millions, 1e6, -6
    elif row.share_percent and column == "share_of_published":
        text, factor, digits = row.share_percent, 0.01, 2
    else:
        return Cell(())
    printed = Printed(len(text.partition(".")[2]) + digits)
    return Cell((float(text) * factor,), printed=printed)


def published_row(
    table: PublishedTable, row: PublishedRow, cells: Iterable[Cell], number: int | None = None
) -> Row:
    """Return a row with its label: backbone where rows differ in it, source, mark of the level."""
    label = row_name(table, row) + ("" if number is None else f" [{number}]")
    label += "" if table.level in REFERENCES else f" {MARK} {table.level}"
    origin = Origin(table.name, table.source, table.level, conditions(table), row.method or "")
    return Row(label, (), tuple(cells), origin)


def row_name(table: PublishedTable, row: PublishedRow) -> str:
    """Return the method's title, with the backbone where a table has several."""
    several = len({one.backbone for one in table.rows}) > 1
    return f"{row.title} ({row.backbone})" if several and row.backbone else row.title


def conditions(table: PublishedTable) -> str:
    """Say under which conditions the figures of a table came about."""
    words = (table.backbone, table.protocol, table.barrier and f"not comparable: {table.barrier}")
    text = "; ".join(filter(None, words))
    return f"{text[:1].upper()}{text[1:]}."


def level_legend(rows: Iterable[Row]) -> Iterator[str]:
    """Explain the mark where a row has it."""
    levels = dict.fromkeys(row.origin.level for row in rows if row.origin)
    unsure = [f"{level}: {LEVELS[level]}" for level in levels if level not in REFERENCES]
    if unsure:
        yield f"{MARK} No reference ({'; '.join(unsure)})."


def flag_lines(
    figures: Iterable[tuple[PublishedTable, PublishedRow, str]], ledger: Ledger
) -> Iterator[str]:
    """Say what is wrong or doubtful with figures that have a star; `figures` end in a column."""
    doubtful: dict[str, list[str]] = {}
    for table, row, column in figures:
        if words := row.flags.get(column):
            title = ledger.sets[column.partition(".")[0]].title
            of = f"{row_name(table, row)}, {title} {metric_of(table, column).label}"
            doubtful.setdefault(words, []).append(of)
    return (f"* {'; '.join(of)}: {words}." for words, of in doubtful.items())
