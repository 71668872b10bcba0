"""Published figures: beside own records with a difference where allowed, or alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import Context, test_facts
from lpmoe_bench.tables import parts
from lpmoe_bench.tables import published_figures as figures
from lpmoe_bench.tables.joined import join_sets
from lpmoe_bench.tables.rows import is_partial, make_cell
from lpmoe_bench.tables.style import TableStyle

MARK = "‡"
COUNTED = {  # what a source counts -> the column that counts the same
    "method": "method_parameters",
    "with_decoder": "trainable_parameters",
    "total": "total_parameters",
}
COUNT_LABELS = {"method": "Method (M)", "with_decoder": "Trains (M)", "total": "Total (M)"}
LOCAL = "local"  # the note of weights from a file, such as Meta's SAM, which comes in no other way


@dataclass(frozen=True)
class _Source:
    """A published table, the test set of it that is shown, and {column here: column there}."""

    table: figures.PublishedTable
    set: figures.PublishedSet
    columns: Mapping[str, str]

    def row(
        self, row: figures.PublishedRow, columns: Iterable[parts.Column], label: str
    ) -> parts.Row:
        """Return a row of figures and counts, with its label and the mark of its level."""
        table = self.table
        label += "" if table.level in figures.REFERENCES else f" {MARK} {table.level}"
        conditions = _conditions(table)
        origin = parts.Origin(table.name, table.source, table.level, conditions, row.method or "")
        cells = tuple(
            self._figure(row, self.columns[column.key])
            if column.is_score and column.key in self.columns
            else self._count(row, column.key)
            for column in columns
        )
        return parts.Row(label, (), cells, origin)

    def _figure(self, row: figures.PublishedRow, key: str) -> parts.Cell:
        if key not in row.values:
            return parts.EMPTY
        metric = self.table.metric(key)
        more = 2 if metric.unit == "percent" else 0
        pm, flag = row.pm.get(key), row.flags.get(key, "")
        printed = parts.Printed(metric.decimals + more, pm, metric.pm_decimals + more, flag)
        return parts.Cell((row.values[key],), printed=printed)

    def _count(self, row: figures.PublishedRow, key: str) -> parts.Cell:
        """Return the cell of a parameter column, empty where the source counts something else."""
        if row.parameters_millions and key == COUNTED.get(self.table.parameters):
            text, factor, digits = row.parameters_millions, 1e6, -6
        elif row.share_percent and key == "share_of_published":
            text, factor, digits = row.share_percent, 0.01, 2
        else:
            return parts.EMPTY
        printed = parts.Printed(len(text.partition(".")[2]) + digits)
        return parts.Cell((float(text) * factor,), printed=printed)


def _conditions(table: figures.PublishedTable) -> str:
    """Say under which conditions the figures of a table came about."""
    never = table.not_comparable and f"not comparable: {table.not_comparable}"
    text = "; ".join(filter(None, (table.backbone, table.protocol, never)))
    return f"{text[:1].upper()}{text[1:]}."


def _legend(rows: Iterable[parts.Row]) -> Iterator[str]:
    """Explain the mark where a row has it."""
    levels = dict.fromkeys(row.origin.level for row in rows if row.origin)
    unsure = [f"{one}: {figures.LEVELS[one]}" for one in levels if one not in figures.REFERENCES]
    if unsure:
        yield parts.ShortNote(f"{MARK} No reference ({'; '.join(unsure)}).")


def _flags(shown: Iterable[tuple[_Source, figures.PublishedRow, str]]) -> list[str]:
    """Say what is wrong or doubtful with figures that have a star; each is named by its column."""
    doubtful: dict[str, list[str]] = {}
    for one, row, key in shown:
        if words := row.flags.get(key):
            label = one.table.metric(key).label
            of = f"{one.table.row_name(row)}, {one.set.title} {label}"
            doubtful.setdefault(words, []).append(of)
    return [parts.ShortNote(f"* {'; '.join(of)}: {words}.") for words, of in doubtful.items()]


# What forbids a difference between an own score and a published figure.


def why_not_comparable(
    context: Context, own: Sequence[parts.Row], source: _Source, row: figures.PublishedRow, key: str
) -> str:
    """Return why a figure has no difference to the own rows of its method; empty if it has one.

    A difference needs a reference, the same test set, complete and at original size, and a
    protocol of ours under which the metric is defined as the source defines it. Weights that no
    paper used are never compared with papers.
    """
    table = source.table
    if table.level not in figures.REFERENCES:
        return f"figures that are {table.level} are no reference"
    if table.not_comparable:
        return table.not_comparable
    if key in row.flags:
        return "the figure itself is in doubt (*)"
    return (
        _of_images(context.test_set, own, source.set)
        or _of_protocol(context, table.metric(key))
        or _of_rows(own)
    )


def _of_images(test: str, own: Sequence[parts.Row], images: figures.PublishedSet) -> str:
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


def _of_protocol(context: Context, metric: figures.PublishedMetric) -> str:
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


def _of_rows(own: Sequence[parts.Row]) -> str:
    if len(own) > 1:
        return f"several own rows are this method ({', '.join(row.label for row in own)})"
    backbone = own[0].records[0].backbone
    if backbone and backbone.note not in ("", LOCAL):
        return f"weights of {backbone.name} are of no paper ({backbone.note})"
    return ""


# Published figures beside own records: rows below them, with a difference where it is allowed.


def add_published(
    group: parts.Group,
    known: figures.PublishedFigures,
    numbers: dict[str, int],
    style: TableStyle,
    methods: Sequence[str] | None = None,
) -> parts.Group:
    """Add the published figures of a table's test set as rows below its own.

    A figure has a difference, own mean less published, where nothing forbids it. `numbers` counts
    the sources over all tables of one print; `methods` choose rows as above.
    """
    keys, found = {column.key for column in group.columns if column.is_score}, []
    for table, name in known.beside(group.context.test_set):
        columns = {table.metric(key).metric: key for key in table.of_set(name)}
        columns = {key: there for key, there in columns.items() if key in keys}
        source = _Source(table, known.sets[name], columns)
        for row in table.rows:
            chosen = methods is None or row.method in methods
            if chosen and any(key in row.values for key in columns.values()):
                found.append((source, row))
    if not found:
        line = f"No published figure fits {group.context.test_set}."
        return replace(group, sources=(line,))
    if any(one.table.parameters == "with_decoder" for one, _ in found):
        group = group if parts.exact_columns(style.columns) else _with_trainable(group)
    own: dict[
        str, list[parts.Row]
    ] = {}  # by what a published row may be: a name in the zoo, or a title
    for one in group.rows:
        method = one.records[0].method
        for name in dict.fromkeys((method.name, method.title.casefold())):
            own.setdefault(name, []).append(one)
    reasons: dict[str, list[int]] = {}
    rows = []
    for source, row in found:
        number = numbers.setdefault(source.table.name, len(numbers) + 1)
        label = f"{source.table.row_name(row)} [{number}]"
        made = source.row(row, group.columns, style.rename.get(label, label))
        same = {id(one): one for name in (row.method or "", row.title.casefold())
                for one in own.get(name, ())}  # fmt: skip
        why = reasons if same else {}
        rows.append(_against(group, made, [*same.values()], source, row, why, number))
    lines = [*_sources(found, numbers), *_differences(rows, reasons)]
    notes = dict.fromkeys(f"{s.set.title}: {s.set.note}." for s, _ in found if s.set.note)
    starred = ((s, row, key) for s, row in found for key in s.columns.values())
    lines += [*notes, *_flags(starred)]
    return replace(group, rows=(*group.rows, *rows), sources=tuple(lines))


def _with_trainable(group: parts.Group) -> parts.Group:
    """Add the column of all that trains, which is what many sources print, before the scores."""
    column, test = parts.COSTS["trainable_parameters"], group.context.test_set
    if column in group.columns:
        return group
    place = next(i for i, one in enumerate(group.columns) if one.is_score)
    return group.inserted(place, column, [make_cell(r.records, column, test) for r in group.rows])


def _against(
    group: parts.Group,
    made: parts.Row,
    own: Sequence[parts.Row],
    source: _Source,
    row: figures.PublishedRow,
    reasons: dict[str, list[int]],
    number: int,
) -> parts.Row:
    """Return a published row with its differences to the own rows of its method."""
    cells = list(made.cells)
    for index, column in enumerate(group.columns if own else ()):
        cell, mean = cells[index], own[0].cells[index].mean
        key = source.columns.get(column.key) if column.is_score else None
        if key is None or cell.printed is None or mean is None:
            continue
        why = why_not_comparable(group.context, own, source, row, key)
        if why:
            reasons.setdefault(why, []).append(number)
            cells[index] = replace(cell, printed=replace(cell.printed, versus="barred"))
        else:
            printed = replace(cell.printed, versus="compared")
            cells[index] = replace(cell, printed=printed, difference=mean - cell.values[0])
    return replace(made, cells=tuple(cells))


def _sources(
    found: Iterable[tuple[_Source, figures.PublishedRow]], numbers: Mapping[str, int]
) -> Iterator[str]:
    for table in {source.table.name: source.table for source, _ in found}.values():
        words = f"{table.source} ({figures.LEVELS[table.level]}). {_conditions(table)}"
        yield parts.ShortNote(f"[{numbers[table.name]}] {words}")


def _differences(rows: Sequence[parts.Row], reasons: Mapping[str, list[int]]) -> Iterator[str]:
    versus = {cell.printed.versus for row in rows for cell in row.cells if cell.printed}
    if "compared" in versus:
        line = "In parentheses: mean of the own row of that method less the published figure."
        yield parts.ShortNote(line)
    if "barred" in versus:
        line = "A dash in parentheses: there is an own row, but no difference is allowed."
        yield parts.ShortNote(line)
    for why, numbers in reasons.items():
        names = ", ".join(f"[{number}]" for number in dict.fromkeys(numbers))
        yield parts.ShortNote(f"No difference to {names}: {why}.")
    yield from _legend(rows)


# Published tables alone, as their sources print them: methods down, test sets across.


def printed_tables(
    known: figures.PublishedFigures,
    style: TableStyle,
    source: str | None = None,
    task: str | None = None,
    methods: Sequence[str] | None = None,
    test_set: str | None = None,
) -> list[parts.Group]:
    """Return published tables, chosen by name, task, zoo names of methods, and test set.

    Without a source: all tables that have a test set of the task, or of any task here. Raises
    UsageError where the choice leaves nothing.
    """

    def is_wanted(name: str) -> bool:
        one = known.sets[name]
        if test_set is not None and test_set not in (name, one.title, *one.same, *one.near):
            return False
        return one.task == task if task else bool(source or one.task)

    groups = []
    for table in [known.table(source)] if source else known.tables.values():
        names = [name for name in table.sets if is_wanted(name)]
        keys = [key for name in names for key in table.of_set(name)]
        rows = [row for row in table.rows if methods is None or row.method in methods]
        rows = [row for row in rows if any(key in row.values for key in keys)]
        if rows:
            sources = [
                _Source(table, known.sets[name], {key: key for key in table.of_set(name)})
                for name in names
            ]
            groups.append(_printed(table, sources, rows, style))
    if not groups:
        raise UsageError(
            "no published figure has this source, task, method and test set together; "
            f"ask for less. Published tables: {', '.join(sorted(known.tables))}"
        )
    return groups


def _printed(
    table: figures.PublishedTable,
    sources: Sequence[_Source],
    rows: Sequence[figures.PublishedRow],
    style: TableStyle,
) -> parts.Group:
    def part(one: _Source) -> parts.Group:
        scores = [_score_column(table, key, style) for key in one.columns]
        of_scores = replace(
            one, columns=dict(zip([c.key for c in scores], one.columns, strict=True))
        )
        columns = (*_count_columns(table, rows), *scores)
        made = []
        for row in rows:
            label = table.row_name(row)
            made.append(of_scores.row(row, columns, style.rename.get(label, label)))
        return parts.Group(Context(one.set.task or "", one.set.title), columns, tuple(made), "", ())

    words = f"Published: {table.title}. {table.source} ({figures.LEVELS[table.level]})."
    wide = join_sets([*map(part, sources)], [one.set.title for one in sources], words)
    starred = [(one, row, key) for one in sources for key in one.columns for row in rows]
    notes = [f"{one.set.title}: {one.set.note}." for one in sources if one.set.note]
    lines = [_conditions(table), *_meanings(table, sources), *notes, *_flags(starred)]
    return replace(wide, footer=(*lines, *_legend(wide.rows)))


def _count_columns(
    table: figures.PublishedTable, rows: Sequence[figures.PublishedRow]
) -> Iterator[parts.Column]:
    if table.parameters and any(row.parameters_millions for row in rows):
        label = COUNT_LABELS[table.parameters]
        yield parts.Column(COUNTED[table.parameters], label, 2, parts.empty_value, 1e-6)
    if any(row.share_percent for row in rows):
        yield parts.Column("share_of_published", "Share (%)", 2, parts.empty_value, 100)


def _score_column(table: figures.PublishedTable, key: str, style: TableStyle) -> parts.Column:
    metric = table.metric(key)
    percent = metric.unit == "percent" or (style.percent and metric.unit == "fraction")
    digits = metric.decimals if style.digits is None else style.digits
    return parts.Column(
        *(metric.metric, metric.label, digits, parts.empty_value, 100.0 if percent else 1.0),
        *(metric.higher_is_better, True, metric.label.replace("%", r"\%")),
    )


def _meanings(table: figures.PublishedTable, sources: Sequence[_Source]) -> Iterator[str]:
    """Say what a source's letters mean here, where a metric here is defined alike."""
    found = [table.metric(key) for one in sources for key in one.columns]
    words = dict.fromkeys(
        f"{metric.label} is {metric.metric}" + (" in %" if metric.unit == "percent" else "")
        for metric in found
        if metric.metric in METRICS
    )
    if words:
        yield f"{', '.join(words)}."
