"""Published figures: beside own records with a difference where allowed, or alone."""

import itertools
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
COUNTED = {  # what a source counts -> the column that counts the same, and its label
    "method": ("method_parameters", "Method (M)"),
    "with_decoder": ("trainable_parameters", "Trains (M)"),
    "total": ("total_parameters", "Total (M)"),
}
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
        origin = parts.Origin(
            table.name, table.source, table.level, table.conditions, row.method or ""
        )
        return parts.Row(label, (), tuple(self._cell(row, column) for column in columns), origin)

    def _cell(self, row: figures.PublishedRow, column: parts.Column) -> parts.Cell:
        """Return a figure or a count; empty where the source has none, or counts something else."""
        key, counted = self.columns.get(column.key, ""), COUNTED.get(self.table.parameters, ("",))
        if column.is_score and key in row.values:
            metric, pm = self.table.metric(key), row.pm.get(key)
            more = 2 if metric.unit == "percent" else 0
            digits, of_pm = metric.decimals + more, metric.pm_decimals + more
            printed = parts.Printed(digits, pm, of_pm, row.flags.get(key, ""))
            return parts.Cell((row.values[key],), printed=printed)
        if not column.is_score and row.parameters_millions and column.key == counted[0]:
            text, factor, digits = row.parameters_millions, 1e6, -6
        elif not column.is_score and row.share_percent and column.key == "share_of_published":
            text, factor, digits = row.share_percent, 0.01, 2
        else:
            return parts.EMPTY
        printed = parts.Printed(len(text.partition(".")[2]) + digits)
        return parts.Cell((float(text) * factor,), printed=printed)


def _below(sources: Sequence[tuple[_Source, Sequence[figures.PublishedRow]]]) -> Iterator[str]:
    """Yield what is to be known of sets, and of figures that have a star."""
    yield from dict.fromkeys(f"{s.set.title}: {s.set.note}." for s, _ in sources if s.set.note)
    doubtful: dict[str, list[str]] = {}
    for source, rows in sources:
        for key, row in itertools.product(source.columns.values(), rows):
            if words := row.flags.get(key):
                of = f"{source.set.title} {source.table.metric(key).label}"
                doubtful.setdefault(words, []).append(f"{source.table.row_name(row)}, {of}")
    for words, named in doubtful.items():
        yield parts.ShortNote(f"* {'; '.join(named)}: {words}.")


def _legend(made: Iterable[parts.Row]) -> Iterator[str]:
    """Explain the mark where a row has it."""
    levels = dict.fromkeys(row.origin.level for row in made if row.origin)
    unsure = [f"{one}: {figures.LEVELS[one]}" for one in levels if one not in figures.REFERENCES]
    if unsure:
        yield parts.ShortNote(f"{MARK} No reference ({'; '.join(unsure)}).")


def why_not_comparable(
    context: Context, own: Sequence[parts.Row], source: _Source, row: figures.PublishedRow, key: str
) -> str:
    """Return why a figure has no difference to the own rows of its method; empty if it has one.

    A difference needs a reference, the same test set, complete and at original size, and a
    protocol of ours under which the metric is defined as the source defines it. Weights that no
    paper used are never compared with papers.
    """
    table, images, test = source.table, source.set, context.test_set
    if table.level not in figures.REFERENCES:
        return f"figures that are {table.level} are no reference"
    if table.not_comparable:
        return table.not_comparable
    if key in row.flags:
        return "the figure itself is in doubt (*)"
    if test not in images.same:
        return f"{test} holds other images than {images.title}"
    if images.images is None:
        return f"how many images {images.title} has is not said"
    for record in (record for one in own for record in one.records):
        facts = test_facts(record, test)
        if facts is None or facts.generated:
            return f"the images of {test} are generated or not known"
        if facts.images != images.images:
            return f"{test} has {facts.images} of the {images.images} images of {images.title}"
        if is_partial(record, test):
            return f"maps are missing for images of {test}"
        # A copy in another size is known by its note alone.
        if "resized" in facts.note or "local split" in facts.note:
            return f"{test} is not {images.title} as published: {facts.note}"
    metric, protocol = table.metric(key), PROTOCOLS.get(context.protocol)
    if context.protocol not in metric.protocols:
        usable = ", ".join(metric.protocols) or "none"
        return (
            f"{metric.label} is not defined alike under protocol {context.protocol} "
            f"(it is under: {usable})"
        )
    if protocol is None or protocol.hash != context.protocol_hash:
        return f"protocol {context.protocol} ({context.protocol_hash[:8]}) is not today's"
    if len(own) > 1:
        return f"several own rows are this method ({', '.join(one.label for one in own)})"
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
    # What a figure is compared with: an own row of the same method. It is found by what a published
    # row may be: a name in the zoo, or a title.
    own: dict[str, list[parts.Row]] = {}
    for one in group.rows:
        for name in dict.fromkeys((one.method, one.records[0].method.title.casefold())):
            own.setdefault(name, []).append(one)
    reasons: dict[str, dict[int, None]] = {}
    rows = []
    for source, row in found:
        number = numbers.setdefault(source.table.name, len(numbers) + 1)
        label = f"{source.table.row_name(row)} [{number}]"
        made = source.row(row, group.columns, style.rename.get(label, label))
        alike = (own.get(name, ()) for name in (row.method or "", row.title.casefold()))
        same = [*{id(one): one for rows_ in alike for one in rows_}.values()]
        cells = list(made.cells)
        for place, column in enumerate(group.columns if same else ()):
            cell, mean = cells[place], same[0].cells[place].mean
            key = source.columns.get(column.key) if column.is_score else None
            if key is None or cell.printed is None or mean is None:
                continue
            why = why_not_comparable(group.context, same, source, row, key)
            printed = replace(cell.printed, versus="barred" if why else "compared")
            difference = None if why else mean - cell.values[0]
            cells[place] = replace(cell, printed=printed, difference=difference)
            if why:
                reasons.setdefault(why, {})[number] = None
        rows.append(replace(made, cells=tuple(cells)))
    lines = [
        parts.ShortNote(
            f"[{numbers[table.name]}] {table.source} ({figures.LEVELS[table.level]}). "
            f"{table.conditions}"
        )
        for table in {source.table.name: source.table for source, _ in found}.values()
    ]
    versus = {cell.printed.versus for row in rows for cell in row.cells if cell.printed}
    if "compared" in versus:
        line = "In parentheses: mean of the own row of that method less the published figure."
        lines.append(parts.ShortNote(line))
    if "barred" in versus:
        line = "A dash in parentheses: there is an own row, but no difference is allowed."
        lines.append(parts.ShortNote(line))
    for why, of in reasons.items():
        names = ", ".join(f"[{number}]" for number in of)
        lines.append(parts.ShortNote(f"No difference to {names}: {why}."))
    lines += [*_legend(rows), *_below([(source, [row]) for source, row in found])]
    return replace(group, rows=(*group.rows, *rows), sources=tuple(lines))


def _with_trainable(group: parts.Group) -> parts.Group:
    """Add the column of all that trains, which is what many sources print, before the scores."""
    column, test = parts.COSTS["trainable_parameters"], group.context.test_set
    if column in group.columns:
        return group
    place = next(i for i, one in enumerate(group.columns) if one.is_score)
    return group.inserted(place, column, [make_cell(r.records, column, test) for r in group.rows])


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
        columns = {name: table.of_set(name) for name in table.sets if is_wanted(name)}
        keys = [key for of_set in columns.values() for key in of_set]
        rows = [row for row in table.rows if methods is None or row.method in methods]
        rows = [row for row in rows if any(key in row.values for key in keys)]
        if rows:
            sets = [(known.sets[name], of_set) for name, of_set in columns.items()]
            groups.append(_printed(table, sets, rows, style))
    if not groups:
        raise UsageError(
            "no published figure has this source, task, method and test set together; "
            f"ask for less. Published tables: {', '.join(sorted(known.tables))}"
        )
    return groups


def _printed(
    table: figures.PublishedTable,
    sets: Sequence[tuple[figures.PublishedSet, Sequence[str]]],
    rows: Sequence[figures.PublishedRow],
    style: TableStyle,
) -> parts.Group:
    """Return a source's rows on these sets, each with its columns."""
    counts = []
    if table.parameters and any(row.parameters_millions for row in rows):
        key, label = COUNTED[table.parameters]
        counts.append(parts.Column(key, label, 2, parts.empty_value, 1e-6))
    if any(row.share_percent for row in rows):
        share = "share_of_published", "Share (%)"
        counts.append(parts.Column(*share, 2, parts.empty_value, 100))
    sources, groups = [], []
    labels = [style.rename.get(label, label) for label in map(table.row_name, rows)]
    for images, keys in sets:
        scores = [_score_column(table.metric(key), style) for key in keys]
        one = _Source(table, images, dict(zip([c.key for c in scores], keys, strict=True)))
        columns = (*counts, *scores)
        made = tuple(one.row(r, columns, name) for r, name in zip(rows, labels, strict=True))
        groups.append(parts.Group(Context(images.task or "", images.title), columns, made, "", ()))
        sources.append(one)
    words = f"Published: {table.title}. {table.source} ({figures.LEVELS[table.level]})."
    wide = join_sets(groups, [images.title for images, _ in sets], words)
    # What a source's letters mean here, where a metric here is defined alike.
    shown = [table.metric(key) for _, keys in sets for key in keys]
    meanings = dict.fromkeys(
        f"{metric.label} is {metric.metric}" + (" in %" if metric.unit == "percent" else "")
        for metric in shown
        if metric.metric in METRICS
    )
    lines = [table.conditions, *([f"{', '.join(meanings)}."] if meanings else [])]
    lines += [*_below([(one, rows) for one in sources]), *_legend(wide.rows)]
    return replace(wide, footer=tuple(lines))


def _score_column(metric: figures.PublishedMetric, style: TableStyle) -> parts.Column:
    percent = metric.unit == "percent" or (style.percent and metric.unit == "fraction")
    digits = metric.decimals if style.digits is None else style.digits
    return parts.Column(
        metric.metric,
        metric.label,
        digits,
        parts.empty_value,
        100.0 if percent else 1.0,
        metric.higher_is_better,
        is_score=True,
        latex=metric.label.replace("%", r"\%"),
    )
