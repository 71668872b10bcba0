"""Published figures: beside own records with a difference where allowed, or alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import Context, test_facts
from lpmoe_bench.tables.ledger import (
    LEVELS,
    REFERENCES,
    Ledger,
    PublishedMetric,
    PublishedRow,
    PublishedSet,
    PublishedTable,
)
from lpmoe_bench.tables.parts import COSTS, Cell, Column, Group, Origin, Printed, Row
from lpmoe_bench.tables.rows import is_partial, make_cell
from lpmoe_bench.tables.wide import join_groups

# Published figures as cells and words: digits as printed, marks, legends.


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


def published_count(table: PublishedTable, row: PublishedRow, column: str) -> Cell:
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


# What forbids a difference between an own score and a published figure.


LOCAL = "local"  # the note of weights from a file, such as Meta's SAM, which comes in no other way


def why_not_comparable(
    context: Context,
    own: Sequence[Row],
    images: PublishedSet,
    table: PublishedTable,
    row: PublishedRow,
    column: str,
) -> str:
    """Return why a figure has no difference to the own rows of its method; empty if it has one.

    A difference needs a reference, the same test set, complete and at original size, and a
    protocol of ours under which the metric is defined as the source defines it. Weights that no
    paper used are never compared with papers.
    """
    return (
        _of_source(table, row, column)
        or _of_images(context.test_set, own, images)
        or _of_protocol(context, table, column)
        or _of_rows(own)
    )


def _of_source(table: PublishedTable, row: PublishedRow, column: str) -> str:
    if table.level not in REFERENCES:
        return f"figures that are {table.level} are no reference"
    if table.barrier:
        return table.barrier
    return "the figure itself is in doubt (*)" if column in row.flags else ""


def _of_images(test: str, own: Sequence[Row], images: PublishedSet) -> str:
    """Say what is other with the images; a copy in another size is known by its note alone."""
    if test not in images.same:
        return f"{test} holds other images than {images.title}"
    if images.images is None:
        return f"how many images {images.title} has is not said"
    for record in (record for row in own for record in row.records):
        facts = test_facts(record, test)
        if facts is None or facts.generated:
            return f"the images of {test} are generated or not known"
        if facts.images != images.images:
            return f"{test} has {facts.images} of the {images.images} images of {images.title}"
        if is_partial(record, test):
            return f"maps are missing for images of {test}"
        if "resized" in facts.note or "local split" in facts.note:
            return f"{test} is not {images.title} as published: {facts.note}"
    return ""


def _of_protocol(context: Context, table: PublishedTable, column: str) -> str:
    metric = metric_of(table, column)
    known = PROTOCOLS.get(context.protocol)
    if context.protocol not in metric.protocols:
        usable = ", ".join(metric.protocols) or "none"
        return (
            f"{metric.label} is not defined alike under protocol {context.protocol} "
            f"(it is under: {usable})"
        )
    if known is None or known.hash != context.protocol_hash:
        return f"protocol {context.protocol} ({context.protocol_hash[:8]}) is not today's"
    return ""


def _of_rows(own: Sequence[Row]) -> str:
    if len(own) > 1:
        return f"several own rows are this method ({', '.join(row.label for row in own)})"
    backbone = own[0].records[0].backbone
    if backbone and backbone.note not in ("", LOCAL):
        return f"weights of {backbone.name} are of no paper ({backbone.note})"
    return ""


# Published figures beside own records: rows below them, with a difference where it is allowed.


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
        cell = (
            figure(one.table, one.row, key)
            if key
            else published_count(one.table, one.row, column.key)
        )
        mean = own[0].cells[index].mean if own else None
        if key and cell.values and mean is not None:
            why = why_not_comparable(
                group.context, own, ledger.sets[one.set], one.table, one.row, key
            )
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


# Published tables alone, as their sources print them: methods down, test sets across.


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
    wide = join_groups(parts, [ledger.sets[name].title for name in names], words)
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
            [published_count(table, row, c.key) for c in counts]
            + [figure(table, row, k) for k in keys],
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
