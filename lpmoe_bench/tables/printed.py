"""Published tables alone, as their sources print them: methods down, test sets across."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.records.context import Context
from lpmoe_bench.tables.columns import Column
from lpmoe_bench.tables.figures import (
    COUNTED,
    conditions,
    count,
    figure,
    flag_lines,
    level_legend,
    metric_of,
    published_row,
)
from lpmoe_bench.tables.ledger import LEVELS, Ledger, PublishedRow, PublishedTable
from lpmoe_bench.tables.parts import Group
from lpmoe_bench.tables.wide import join

_PARAMETERS = {"method": "Method (M)", "with_decoder": "Trains (M)", "total": "Total (M)"}


def printed_tables(
    ledger: Ledger,
    source: str | None = None,
    task: str | None = None,
    methods: Sequence[str] | None = None,
    test_set: str | None = None,
) -> list[Group]:
    """Return published tables, chosen by name, task, zoo names of methods, and test set.

    Without a source: all tables that have a test set of the task, or of any task here. Raises
    UsageError where the choice leaves nothing.
    """
    tables = [ledger.table(source)] if source else list(ledger.tables.values())
    groups = []
    for table in tables:
        names = [name for name in table.sets if _is_wanted(ledger, name, source, task, test_set)]
        keys = [key for name in names for key in table.of_set(name)]
        rows = [row for row in table.rows if methods is None or row.method in methods]
        rows = [row for row in rows if any(key in row.values for key in keys)]
        if rows:
            groups.append(_printed(ledger, table, names, rows))
    if not groups:
        raise UsageError(
            "no published figure has this source, task, method and test set together; "
            f"ask for less. Published tables: {', '.join(sorted(ledger.tables))}"
        )
    return groups


def _is_wanted(
    ledger: Ledger, name: str, source: str | None, task: str | None, test_set: str | None
) -> bool:
    one = ledger.sets[name]
    if test_set is not None and test_set not in (name, one.title, *one.same, *one.near):
        return False
    return one.task == task if task else bool(source or one.task)


def _printed(
    ledger: Ledger, table: PublishedTable, names: Sequence[str], rows: Sequence[PublishedRow]
) -> Group:
    parts = [_part(ledger, table, name, rows) for name in names]
    words = f"Published: {table.title}. {table.source} ({LEVELS[table.level]})."
    wide = join(parts, [ledger.sets[name].title for name in names], words)
    lines = [conditions(table), *_meanings(table, names)]
    for name in names:
        note = ledger.sets[name].note
        lines += [f"{ledger.sets[name].title}: {note}."] if note else []
    keys = [key for name in names for key in table.of_set(name)]
    lines += flag_lines(((table, row, key) for key in keys for row in rows), ledger)
    return replace(wide, footer=(*lines, *level_legend(wide.rows)))


def _part(ledger: Ledger, table: PublishedTable, name: str, rows: Sequence[PublishedRow]) -> Group:
    keys = table.of_set(name)
    counts = list(_count_columns(table, rows))
    columns = (*counts, *(_column(table, key) for key in keys))
    made = [
        published_row(
            table,
            row,
            [count(table, row, c.key) for c in counts] + [figure(table, row, k) for k in keys],
        )
        for row in rows
    ]
    context = Context(ledger.sets[name].task or "", ledger.sets[name].title)
    return Group(context, columns, tuple(made), "", ())


def _count_columns(table: PublishedTable, rows: Sequence[PublishedRow]) -> Iterator[Column]:
    if table.parameters and any(row.parameters_millions for row in rows):
        label = _PARAMETERS[table.parameters]
        yield Column(COUNTED[table.parameters], label, label, 2, lambda *_: None, 1e-6)
    if any(row.share_percent for row in rows):
        yield Column("share_of_published", "Share (%)", r"Share (\%)", 2, lambda *_: None, 100)


def _column(table: PublishedTable, key: str) -> Column:
    metric = metric_of(table, key)
    scale = 100.0 if metric.unit == "percent" else 1.0
    latex = metric.label.replace("%", r"\%")
    return Column(
        *(metric.metric, metric.label, latex, metric.decimals, lambda *_: None, scale),
        *(metric.higher_is_better, True),
    )


def _meanings(table: PublishedTable, names: Sequence[str]) -> Iterator[str]:
    """Say what a source's letters mean here, where a metric here is defined alike."""
    found = [metric_of(table, key) for name in names for key in table.of_set(name)]
    words = dict.fromkeys(
        f"{metric.label} is {metric.metric}" + (" in %" if metric.unit == "percent" else "")
        for metric in found
        if metric.metric in METRICS
    )
    if words:
        yield f"{', '.join(words)}."
