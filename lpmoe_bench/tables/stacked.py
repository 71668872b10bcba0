"""Stacked tables: test sets of any tasks one below the other, under the scores of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.record_model import Record
from lpmoe_bench.tables.columns import AGAINST, Column
from lpmoe_bench.tables.context import Context, data_words, settings_words
from lpmoe_bench.tables.guests import host
from lpmoe_bench.tables.parts import Band, Cell, Group, Row
from lpmoe_bench.tables.rows import sort_rows
from lpmoe_bench.tables.wide import said_of
from method_zoo._errors import unknown


def stack(groups: Sequence[Group]) -> list[Group]:
    """Join tables of one backbone and budget, a band of rows each; others stay apart.

    A column is that of another table where key and unit agree. A row has no number, and no mark of
    a missing one, where its test set's protocol has no such score. Ranks are within a band.
    """
    alike: dict[Context, list[Group]] = {}
    for group in groups:
        alike.setdefault(_budget(group.context), []).append(group)
    return [_stacked(parts) if len(parts) > 1 else parts[0] for parts in alike.values()]


def sort_each(groups: Sequence[Group], key: str | None) -> list[Group]:
    """Order the rows of every group that has the column; raises UsageError where none has it."""
    having = [group for group in groups if key in [column.key for column in group.columns]]
    if key is not None and not having:
        known = dict.fromkeys(column.key for group in groups for column in group.columns)
        raise UsageError(unknown("column to sort by", key, known))
    return [sort_rows(group, key) if group in having else group for group in groups]


def _budget(context: Context) -> Context:
    """Return the context less what belongs to a task and its data."""
    return replace(
        context,
        task="",
        test_set="",
        test_digest="",
        train_set=None,
        train_digest=None,
        protocol="",
        protocol_version=0,
        protocol_hash="",
        loss=None,
    )


def _stacked(parts: Sequence[Group]) -> Group:
    budget = _budget(parts[0].context)
    titles = [f"{part.context.task}: {part.context.test_set}" for part in parts]
    columns = _union(parts)
    tasks = list(dict.fromkeys(part.context.task for part in parts))
    words = f"{len(parts)} test sets of {', '.join(tasks)}. "
    footer = (*_data_lines(parts), *said_of(parts, [part.context.test_set for part in parts]))
    return Group(
        replace(budget, task=", ".join(tasks), test_set=", ".join(titles)),
        tuple(columns),
        tuple(_aligned(row, part.columns, columns) for part in parts for row in part.rows),
        words + settings_words(budget, _first(parts[0])),
        footer,
        parts=tuple(parts),
        sources=tuple(dict.fromkeys(line for part in parts for line in part.sources)),
        bands=tuple(Band(t, len(part.rows)) for t, part in zip(titles, parts, strict=True)),
    )


def _first(part: Group) -> Record:
    return host([record for row in part.rows for record in row.records])


def _data_lines(parts: Sequence[Group]) -> Iterable[str]:
    return dict.fromkeys(data_words(part.context, _first(part)) for part in parts)


def _union(parts: Sequence[Group]) -> list[Column]:
    """Return the columns of all parts: those before the scores, the scores, those behind.

    Scores are in one order whatever the protocols' own is, each with its verdicts behind it.
    """
    scores = {column.key for part in parts for column in part.columns if column.is_score}
    known = [key for key in known_metrics() if key in scores]
    places: dict[tuple[str, str], tuple[tuple[int, int, bool], Column]] = {}
    for part in parts:
        side = 0
        for column in part.columns:
            of, judges = column.key.removesuffix(AGAINST), column.key.endswith(AGAINST)
            side = 1 if of in scores else 2 if side else 0
            order = known.index(of) if of in known else len(known) * (side == 1)
            places.setdefault(_same(column), ((side, order, judges), column))
    return [column for _, column in sorted(places.values(), key=lambda one: one[0])]


def _same(column: Column) -> tuple[str, str]:
    return column.key, column.label  # the label says the unit


def _aligned(row: Row, own: Sequence[Column], columns: Sequence[Column]) -> Row:
    cells = dict(zip(map(_same, own), row.cells, strict=True))
    absent = Cell((), absent=True)
    return replace(row, cells=tuple(cells.get(_same(column), absent) for column in columns))
