"""Tables of records: one for each context, a row for each method, a cell for each number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.record_model import Record
from lpmoe_bench.tables.columns import PARAMETERS, Column, cost_columns, metric_columns
from lpmoe_bench.tables.context import ACROSS, Context, caption, context_of, shared, splits
from lpmoe_bench.tables.guests import guest_lines, host, is_partial, seat, with_coverage
from lpmoe_bench.tables.words import footer, row_labels
from method_zoo._errors import unknown


@dataclass(frozen=True)
class Cell:
    """The values of one number over the seeds of a row; empty when any seed lacks it."""

    values: tuple[float, ...]
    mark: Literal["", "best", "second"] = ""

    @property
    def mean(self) -> float | None:
        return math.fsum(self.values) / len(self.values) if self.values else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds, with n - 1; None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Row:
    """One method with one set of options; `records` are its seeds, in their order."""

    label: str
    records: tuple[Record, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Group:
    """One table: comparable rows under one caption, with what must be known below them."""

    context: Context
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str
    footer: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """All groups that the records make, and a sentence for each thing worth saying about them."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...]


def build_table(
    records: Iterable[Record],
    *,
    task: str | None = None,
    methods: Sequence[str] | None = None,
    test_set: str | None = None,
    metrics: Sequence[str] | None = None,
    columns: Sequence[str] = (),
    sort: str | None = None,
    across: Sequence[str] = (),
) -> Table:
    """Arrange records into tables that compare only what is comparable.

    `task`, `methods` and `test_set` choose records; `metrics` are keys or `all` instead of the
    protocol's headline; `columns` are costs, such as train_images_per_second. Rows are in the order
    of their trainable parameters, or of the column `sort`, the best first. `across` names what may
    differ within a table: only `decoder`, which then stands in the row. Raises DataError where
    there is no record and UsageError where the choice leaves none.
    """
    for name in across:
        if name not in ACROSS:
            raise UsageError(unknown("thing a table may mix", name, ACROSS))
    chosen, notes = _choose(list(records), task, methods, test_set)
    by_context: dict[Context, list[Record]] = {}
    for record in chosen:
        for test in record.scores:
            if test_set in (None, test):
                by_context.setdefault(shared(context_of(record, test), across), []).append(record)
    by_context = seat(by_context)
    contexts = sorted(by_context, key=lambda context: context.order)
    costs = cost_columns(columns)
    groups = tuple(_sorted(_group(c, by_context[c], metrics, costs), sort) for c in contexts)
    return Table(groups, (*notes, *splits(contexts)))


def _choose(
    records: list[Record], task: str | None, methods: Sequence[str] | None, test_set: str | None
) -> tuple[list[Record], list[str]]:
    if not records:
        raise DataError("there is no record to show; make one with lpmoe-bench run")
    known = {
        "task": {record.task for record in records},
        "method": {record.method.name for record in records},
        "test set": {test for record in records for test in record.scores},
    }
    asked = [("task", task), ("test set", test_set), *(("method", name) for name in methods or ())]
    for kind, name in asked:
        if name is not None and name not in known[kind]:
            raise UsageError(unknown(f"{kind} among these records", name, known[kind]))
    current = [record for record in records if not record.superseded_by]
    chosen = [
        record
        for record in current
        if task in (None, record.task)
        and (methods is None or record.method.name in methods)
        and any(test_set in (None, test) for test in record.scores)
    ]
    if not chosen:
        raise UsageError("no record has this task, method and test set together; ask for less")
    gone = len(records) - len(current)
    return chosen, [f"{gone} superseded records are left out"] if gone else []


def _group(
    context: Context, records: list[Record], metrics: Sequence[str] | None, costs: list[Column]
) -> Group:
    kept = _newest(records)
    scores = metric_columns(kept, context.test_set, metrics)
    columns = (*PARAMETERS, *scores, *costs)
    runs: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(kept, key=lambda record: record.seed or 0):
        runs.setdefault((record.method.name, record.fingerprint), []).append(record)
    ordered = sorted(runs.values(), key=lambda seeds: (_trainable(seeds[0]), seeds[0].method.title))
    labels = row_labels([seeds[0] for seeds in ordered])
    firsts = [(label, seeds[0]) for label, seeds in zip(labels, ordered, strict=True)]
    labels = [with_coverage(label, first, context.test_set) for label, first in firsts]
    rows = [
        Row(label, tuple(seeds), tuple(_cell(seeds, column, context) for column in columns))
        for label, seeds in zip(labels, ordered, strict=True)
    ]
    rows.sort(key=lambda row: (_trainable(row.records[0]), row.label))
    missing = [
        f"{column.label} is missing for {row.label}"
        for row in rows
        for column, cell in zip(columns, row.cells, strict=True)
        if column.is_score and not cell.values
    ]
    named = [(row.label, list(row.records)) for row in rows]
    below = footer(context, named, len(records) - len(kept), bool(costs))
    below += guest_lines(named, context.test_set)
    marked = _mark(rows, columns, context.test_set)
    return Group(context, columns, marked, caption(context, host(kept)), (*below, *missing))


def _sorted(group: Group, key: str | None) -> Group:
    """Order the rows by one column, the best first, or the largest where none is better."""
    if key is None:
        return group
    keys = [column.key for column in group.columns]
    if key not in keys:
        raise UsageError(unknown("column to sort by", key, keys))
    index = keys.index(key)
    sign = 1 if group.columns[index].higher_is_better is False else -1
    values = {row.label: row.cells[index].mean for row in group.rows}

    def place(row: Row) -> tuple[bool, float, str]:
        value = values[row.label]
        return value is None, sign * (value or 0.0), row.label

    return replace(group, rows=tuple(sorted(group.rows, key=place)))


def _newest(records: list[Record]) -> list[Record]:
    """Keep one record of each fingerprint and seed: the newest."""
    newest: dict[tuple[str, str, int | None], Record] = {}
    for record in sorted(records, key=lambda record: record.created):
        newest[record.method.name, record.fingerprint, record.seed] = record
    return list(newest.values())


def _trainable(record: Record) -> float:
    return record.parameters.trainable if record.parameters else math.inf


def _cell(seeds: list[Record], column: Column, context: Context) -> Cell:
    values = [column.value(record, context.test_set) for record in seeds]
    usable = [value for value in values if value is not None and math.isfinite(value)]
    return Cell(tuple(usable) if len(usable) == len(values) else ())


def _mark(rows: list[Row], columns: tuple[Column, ...], test: str) -> tuple[Row, ...]:
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
