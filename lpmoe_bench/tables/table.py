"""Tables of records: one for each context, a row for each method, a cell for each number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.context import ACROSS, Context, caption, context_of, shared, splits
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.columns import PARAMETERS, Column, cost_columns, metric_columns
from lpmoe_bench.tables.guests import guest_lines, host, seat
from lpmoe_bench.tables.ledger import load_ledger
from lpmoe_bench.tables.parts import Cell, CellCounts, Group, Row, Span, Table
from lpmoe_bench.tables.printed import printed_tables
from lpmoe_bench.tables.published import add_published
from lpmoe_bench.tables.rows import make_rows, mark_best, newest, sort_each
from lpmoe_bench.tables.speeds import Speeds, speed_columns
from lpmoe_bench.tables.stacked import metrics_each, stack
from lpmoe_bench.tables.wide import widen
from lpmoe_bench.tables.words import counted_cells, footer
from method_zoo.errors import unknown

__all__ = ["GROUPINGS", "Cell", "CellCounts", "Group", "Row", "Span", "Table", "build_table"]

# What shares a table: rows of one test set, of one task with its test sets side by side, or of all
# tasks with their test sets one below the other.
GROUPINGS = ("test_set", "task", "all")


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
    group: str = "test_set",
    published: bool = False,
    source: str | None = None,
    cells: CellCounts | None = None,
    speeds: Speeds | None = None,
) -> Table:
    """Arrange records into tables that compare only what is comparable.

    `task`, `methods` and `test_set` choose records; `metrics` are keys or `all` instead of the
    protocol's headline; `columns` are costs, such as train_images_per_second, or `all`. Rows are in
    the order of their trainable parameters, or of the column `sort`, the best first. `across` names
    what may differ within a table: only `decoder`, which then stands in the row. `group` is one of
    GROUPINGS. `published` adds the figures of the ledger below own rows, or shows them alone where
    the task has no record; `source` is one table of it, alone. `cells` counts the cells of the
    sweeps that made the records. `speeds` were measured apart, and get columns of their own.
    Raises DataError where there is no record and UsageError where the choice leaves none.
    """
    for kind, name, known in (
        *(("thing a table may mix", name, ACROSS) for name in across),
        ("grouping", group, GROUPINGS),
    ):
        if name not in known:
            raise UsageError(unknown(kind, name, known))
    records = list(records)
    alone = published and not any(_is_of(one, task, test_set, methods) for one in records)
    if source or alone:
        printed = printed_tables(load_ledger(), source, task, methods, test_set)
        return Table(tuple(sort_each(printed, sort)), ())
    wanted = _recorded(records, methods) if published else methods
    chosen, notes = _choose(records, task, wanted, test_set)
    by_context = seat(_by_context(chosen, test_set, across))
    contexts = sorted(by_context, key=lambda context: context.order)
    costs = cost_columns(columns)
    measured = speed_columns(speeds) if speeds else []
    wanted_of = dict.fromkeys(contexts, metrics)
    if group == "all":
        wanted_of = metrics_each(by_context, metrics)
    groups = [_group(c, by_context[c], wanted_of[c], costs, measured) for c in contexts]
    if published:
        numbers: dict[str, int] = {}
        groups = [add_published(one, load_ledger(), numbers, methods) for one in groups]
    said = [counted_cells(*cells)] if cells is not None else []
    said += [speeds.words] if speeds else []
    groups = [replace(one, footer=(*one.footer, *said)) for one in groups]
    return Table(tuple(_arranged(groups, group, sort)), (*notes, *splits(contexts)))


def _arranged(groups: Sequence[Group], grouping: str, sort: str | None) -> Sequence[Group]:
    """Return the tables of test sets sorted, joined as one of GROUPINGS says."""
    if grouping == "all":
        return stack(sort_each(groups, sort))
    return sort_each(widen(groups) if grouping == "task" else groups, sort)


def _is_of(
    record: Record, task: str | None, test_set: str | None, methods: Sequence[str] | None
) -> bool:
    tests = test_set is None or test_set in record.scores
    return (
        tests
        and task in (None, record.task)
        and record.method.name in (methods or [record.method.name])
    )


def _recorded(records: Sequence[Record], methods: Sequence[str] | None) -> Sequence[str] | None:
    """Return the wanted methods without those that only the ledger knows."""
    known = {record.method.name for record in records}
    rows = [row for table in load_ledger().tables.values() for row in table.rows]
    printed = {row.method for row in rows}
    return methods and [name for name in methods if name in known or name not in printed]


def _by_context(
    records: Iterable[Record], test_set: str | None, across: Sequence[str]
) -> dict[Context, list[Record]]:
    found: dict[Context, list[Record]] = {}
    for record in records:
        for test in record.scores:
            if test_set in (None, test):
                found.setdefault(shared(context_of(record, test), across), []).append(record)
    return found


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
    context: Context,
    records: list[Record],
    metrics: Sequence[str] | None,
    costs: list[Column],
    measured: list[Column],
) -> Group:
    kept = newest(records)
    scores = metric_columns(kept, context.test_set, metrics)
    columns = (*PARAMETERS, *scores, *costs, *measured)
    rows = make_rows(kept, columns, context.test_set)
    missing = [
        f"{column.label} is missing for {row.label}"
        for row in rows
        for column, cell in zip(columns, row.cells, strict=True)
        if column.is_score and not cell.values
    ]
    named = [(row.label, list(row.records)) for row in rows]
    below = footer(context, named, len(records) - len(kept), bool(costs))
    below += guest_lines(named, context.test_set)
    marked = mark_best(rows, columns, context.test_set)
    return Group(context, columns, marked, caption(context, host(kept)), (*below, *missing))
