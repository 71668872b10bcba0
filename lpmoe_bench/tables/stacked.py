"""Stacked tables: test sets of any tasks one below the other, under the scores of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.facts import refuse_ambiguous
from lpmoe_bench.records.context import Context, data_words, settings_words
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.columns import AGAINST, Column
from lpmoe_bench.tables.guests import host
from lpmoe_bench.tables.parts import Band, Cell, Group, Row
from lpmoe_bench.tables.wide import said_of
from method_zoo.errors import unknown

# What stacked tables share: all of a context but the task, its data, protocol and loss.
BUDGET = ("backbone", "backbone_weights", "decoder", "decoder_options", "decoder_weights", "size")
BUDGET += ("epochs", "steps", "batch", "limit_train")


def stack(groups: Sequence[Group]) -> list[Group]:
    """Join tables of one backbone and budget, a band of rows each; others stay apart.

    A column is that of another table where keys agree, in percent where any protocol has it so. A
    row has no number, and no mark of a missing one, where its own table has no such column. Ranks
    are within a band.
    """
    alike: dict[Context, list[Group]] = {}
    for group in groups:
        alike.setdefault(_budget(group.context), []).append(group)
    return [_stacked(parts) if len(parts) > 1 else parts[0] for parts in alike.values()]


def metrics_each(
    records: Mapping[Context, Sequence[Record]], wanted: Sequence[str] | None
) -> dict[Context, Sequence[str] | None]:
    """Return the wanted metrics that each table has; None, its protocol's, where it has none.

    Raises UsageError for a metric that no table has.
    """
    if wanted is None or list(wanted) == ["all"]:
        return dict.fromkeys(records, wanted)
    present = {
        context: {key for record in kept for key in record.scores[context.test_set]}
        for context, kept in records.items()
    }
    known = sorted(set().union(*present.values()))
    for key in wanted:
        if key not in known:
            refuse_ambiguous(key)
            raise UsageError(unknown("metric of these test sets", key, known))
    return {
        context: [key for key in wanted if key in own] or None for context, own in present.items()
    }


def _budget(context: Context) -> Context:
    """Return the context less what belongs to a task and its data."""
    return Context("", "", **{name: getattr(context, name) for name in BUDGET})


def _stacked(parts: Sequence[Group]) -> Group:
    budget = _budget(parts[0].context)
    titles = [f"{part.context.task}: {part.context.test_set}" for part in parts]
    columns = _union(parts)
    tasks = list(dict.fromkeys(part.context.task for part in parts))
    words = f"{len(parts)} test sets of {', '.join(tasks)}. "
    footer = (*_data_lines(parts), *said_of(parts, _names(parts)))
    return Group(
        replace(budget, task=", ".join(tasks), test_set=", ".join(titles)),
        tuple(columns),
        tuple(_aligned(row, part.columns, columns) for part in parts for row in part.rows),
        words + settings_words(budget, _host_of(parts[0])),
        footer,
        parts=tuple(parts),
        sources=tuple(dict.fromkeys(line for part in parts for line in part.sources)),
        bands=tuple(Band(t, len(part.rows)) for t, part in zip(titles, parts, strict=True)),
    )


def _host_of(part: Group) -> Record:
    return host([record for row in part.rows for record in row.records])


def _names(parts: Sequence[Group]) -> list[str]:
    """Return the test sets, with their task where two tasks have one of that name."""
    counted = Counter(part.context.test_set for part in parts)
    found = [(part.context.test_set, part.context.task) for part in parts]
    return [f"{test} ({task})" if counted[test] > 1 else test for test, task in found]


def _data_lines(parts: Sequence[Group]) -> Iterable[str]:
    return dict.fromkeys(data_words(part.context, _host_of(part)) for part in parts)


def _union(parts: Sequence[Group]) -> list[Column]:
    """Return the columns of all parts: those before the scores, the scores, those behind.

    Scores are in one order whatever the protocols' own is, each with its verdicts behind it.
    """
    scores = {column.key for part in parts for column in part.columns if column.is_score}
    known = [key for key in known_metrics() if key in scores]
    places: dict[str, tuple[tuple[int, int, bool], Column]] = {}
    for part in parts:
        side = 0
        for column in part.columns:
            of, judges = column.key.removesuffix(AGAINST), column.key.endswith(AGAINST)
            side = 1 if of in scores else 2 if side else 0
            order = known.index(of) if of in known else len(known) * (side == 1)
            place, other = places.get(column.key, ((side, order, judges), column))
            places[column.key] = place, max(other, column, key=lambda one: one.scale)
    return [column for _, column in sorted(places.values(), key=lambda one: one[0])]


def _aligned(row: Row, own: Sequence[Column], columns: Sequence[Column]) -> Row:
    cells = dict(zip([column.key for column in own], row.cells, strict=True))
    absent = Cell((), absent=True)
    return replace(row, cells=tuple(cells.get(column.key, absent) for column in columns))
