"""Published figures beside own records: rows below them, with a difference where it is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lpmoe_bench.tables.barriers import barrier
from lpmoe_bench.tables.columns import COSTS
from lpmoe_bench.tables.figures import (
    conditions,
    count,
    figure,
    flag_lines,
    level_legend,
    metric_of,
    published_row,
)
from lpmoe_bench.tables.ledger import LEVELS, Ledger, PublishedRow, PublishedTable
from lpmoe_bench.tables.parts import Cell, Group, Row
from lpmoe_bench.tables.rows import make_cell


@dataclass(frozen=True)
class _Found:
    """A published row whose test set and metrics a table has: {own column: its column}."""

    table: PublishedTable
    set: str
    row: PublishedRow
    columns: Mapping[str, str] = field(default_factory=dict)


def add_published(
    group: Group, ledger: Ledger, numbers: dict[str, int], methods: Sequence[str] | None = None
) -> Group:
    """Add the published figures of a table's test set as rows below its own.

    A figure has a difference, own mean less published, where `barrier` finds nothing against it.
    `numbers` counts the sources over all tables of one print; `methods` choose rows as above.
    """
    found = list(_find(group, ledger, methods))
    if not found:
        line = f"No published figure fits {group.context.test_set}."
        return replace(group, sources=(line,))
    if any(one.table.parameters == "with_decoder" for one in found):
        group = _with_trainable(group)
    reasons: dict[str, list[int]] = {}
    rows = []
    for one in found:
        number = numbers.setdefault(one.table.name, len(numbers) + 1)
        rows.append(_row(group, ledger, one, number, reasons))
    lines = [*_sources(found, numbers), *_legend(rows, reasons), *_set_notes(found, ledger)]
    figures = ((one.table, one.row, c) for one in found for c in one.columns.values())
    lines += flag_lines(figures, ledger)
    return replace(group, rows=(*group.rows, *rows), sources=tuple(lines))


def _find(group: Group, ledger: Ledger, methods: Sequence[str] | None) -> Iterator[_Found]:
    own = {column.key for column in group.columns if column.is_score}
    for table, name in ledger.beside(group.context.test_set):
        columns = {metric_of(table, column).metric: column for column in table.of_set(name)}
        columns = {key: column for key, column in columns.items() if key in own}
        for row in table.rows:
            chosen = methods is None or row.method in methods
            if chosen and any(column in row.values for column in columns.values()):
                yield _Found(table, name, row, columns)


def _with_trainable(group: Group) -> Group:
    """Add the column of all that trains, which is what many sources print, before the scores."""
    column = COSTS["trainable_parameters"]
    if column in group.columns:
        return group
    place = next(i for i, one in enumerate(group.columns) if one.is_score)

    def widened(row: Row) -> Row:
        cell = make_cell(row.records, column, group.context.test_set)
        return replace(row, cells=(*row.cells[:place], cell, *row.cells[place:]))

    columns = (*group.columns[:place], column, *group.columns[place:])
    return replace(group, columns=columns, rows=tuple(map(widened, group.rows)))


def _row(
    group: Group, ledger: Ledger, one: _Found, number: int, reasons: dict[str, list[int]]
) -> Row:
    own = [row for row in group.rows if _is_same(row, one.row)]
    cells = []
    for index, column in enumerate(group.columns):
        key = one.columns.get(column.key, "") if column.is_score else ""
        cell = figure(one.table, one.row, key) if key else count(one.table, one.row, column.key)
        mean = own[0].cells[index].mean if own else None
        if key and cell.values and mean is not None:
            why = barrier(group.context, own, ledger.sets[one.set], one.table, one.row, key)
            if why:
                reasons.setdefault(why, []).append(number)
            cell = _against(cell, None if why else mean)
        cells.append(cell)
    return published_row(one.table, one.row, cells, number)


def _is_same(own: Row, row: PublishedRow) -> bool:
    """Whether an own row is that method: by its name in the zoo, or by its title, as for maps."""
    if own.origin is not None:
        return False
    facts = own.records[0].method
    return row.method == facts.name or row.title.casefold() == facts.title.casefold()


def _against(cell: Cell, mean: float | None) -> Cell:
    """Add the difference to an own mean; None says that there may be none."""
    assert cell.printed is not None
    versus = "barred" if mean is None else "compared"
    cell = replace(cell, printed=replace(cell.printed, versus=versus))
    return cell if mean is None else replace(cell, difference=mean - cell.values[0])


def _sources(found: Sequence[_Found], numbers: Mapping[str, int]) -> Iterator[str]:
    for table in {one.table.name: one.table for one in found}.values():
        words = f"{table.source} ({LEVELS[table.level]}). {conditions(table)}"
        yield f"[{numbers[table.name]}] {words}"


def _legend(rows: Iterable[Row], reasons: Mapping[str, list[int]]) -> Iterator[str]:
    rows = list(rows)
    versus = {cell.printed.versus for row in rows for cell in row.cells if cell.printed}
    if "compared" in versus:
        yield "In parentheses: mean of the own row of that method less the published figure."
    if "barred" in versus:
        yield "A dash in parentheses: there is an own row, but no difference is allowed."
    for why, numbers in reasons.items():
        names = ", ".join(f"[{number}]" for number in dict.fromkeys(numbers))
        yield f"No difference to {names}: {why}."
    yield from level_legend(rows)


def _set_notes(found: Sequence[_Found], ledger: Ledger) -> Iterator[str]:
    for name in dict.fromkeys(one.set for one in found):
        if ledger.sets[name].note:
            yield f"{ledger.sets[name].title}: {ledger.sets[name].note}."
