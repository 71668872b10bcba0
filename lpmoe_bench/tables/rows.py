"""The rows of one table: a method's seeds together, its cells, the marks of the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lpmoe_bench.errors import UsageError
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.columns import Column
from lpmoe_bench.tables.guests import is_partial, with_coverage
from lpmoe_bench.tables.parts import Cell, Group, Row
from lpmoe_bench.tables.words import row_labels
from method_zoo.errors import unknown


def make_rows(records: Sequence[Record], columns: Sequence[Column], test: str) -> list[Row]:
    """Return one row for each method and fingerprint, in the order of trainable parameters."""
    runs: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda record: record.seed or 0):
        runs.setdefault((record.method.name, record.fingerprint), []).append(record)
    ordered = sorted(runs.values(), key=lambda seeds: (trainable(seeds[0]), seeds[0].method.title))
    labels = row_labels([seeds[0] for seeds in ordered])
    firsts = [(label, seeds[0]) for label, seeds in zip(labels, ordered, strict=True)]
    labels = [with_coverage(label, first, test) for label, first in firsts]
    rows = [
        Row(label, tuple(seeds), tuple(make_cell(seeds, column, test) for column in columns))
        for label, seeds in zip(labels, ordered, strict=True)
    ]
    return sorted(rows, key=lambda row: (trainable(row.records[0]), row.label))


def trainable(record: Record) -> float:
    """Return how many parameters train; infinity where nobody says."""
    return record.parameters.trainable if record.parameters else math.inf


def newest(records: list[Record]) -> list[Record]:
    """Keep one record of each fingerprint and seed: the newest."""
    newest: dict[tuple[str, str, int | None], Record] = {}
    for record in sorted(records, key=lambda record: record.created):
        newest[record.method.name, record.fingerprint, record.seed] = record
    return list(newest.values())


def make_cell(seeds: Sequence[Record], column: Column, test: str) -> Cell:
    """Return the cell of a row's records; empty where any of them lacks the value."""
    values = [column.value(record, test) for record in seeds]
    usable = [value for value in values if value is not None and math.isfinite(value)]
    return Cell(tuple(usable) if len(usable) == len(values) else ())


def mark_best(rows: list[Row], columns: Sequence[Column], test: str) -> tuple[Row, ...]:
    """Mark the best and the second of each score, with ties at the precision that is printed.

    Rows that lack images of the test set take no part.
    """
    marks: list[list[Cell]] = [list(row.cells) for row in rows]
    for index, column in enumerate(columns):
        if column.higher_is_better is None:
            continue
        shown = {
            number: round(cell.mean * column.scale, column.decimals)
            for number, cell in enumerate(row.cells[index] for row in rows)
            if cell.mean is not None
            and not any(is_partial(record, test) for record in rows[number].records)
        }
        places = sorted(set(shown.values()), reverse=column.higher_is_better)[:2]
        for number, value in shown.items():
            if len(shown) > 1 and value in places:
                mark = "best" if value == places[0] else "second"
                marks[number][index] = replace(marks[number][index], mark=mark)
    return tuple(replace(row, cells=tuple(cells)) for row, cells in zip(rows, marks, strict=True))


def sort_each(groups: Sequence[Group], key: str | None) -> list[Group]:
    """Order rows by one column, the best first, or the largest where none is better.

    Published rows stay below, in the same order, and groups without the column as they are. Raises
    UsageError where no group has it.
    """
    if key is None:
        return list(groups)
    known = dict.fromkeys(column.key for group in groups for column in group.columns)
    if key not in known:
        raise UsageError(unknown("column to sort by", key, known))
    return [_sorted(group, key) for group in groups]


def _sorted(group: Group, key: str) -> Group:
    """Order the rows by one column, where the group has it."""
    keys = [column.key for column in group.columns]
    if key not in keys:
        return group
    index = keys.index(key)
    sign = 1 if group.columns[index].higher_is_better is False else -1

    def place(row: Row) -> tuple[bool, bool, float, str]:
        value = row.cells[index].mean
        return row.origin is not None, value is None, sign * (value or 0.0), row.label

    return replace(group, rows=tuple(sorted(group.rows, key=place)))
