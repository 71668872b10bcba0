"""Tables of records: one for each context, a row for each method, a cell for each number."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.records.context import ACROSS, Context, caption, context_of, shared, splits
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables import joined, parts, rows
from lpmoe_bench.tables.published_figures import load_published
from lpmoe_bench.tables.published_rows import add_published, printed_tables
from lpmoe_bench.tables.style import TableStyle
from method_zoo.options import list_methods

# Speeds measured side by side, for records whose runs had to share a machine with other work.


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MethodSpeed(_Part):
    """One method: trainable parameters, CPU seconds of a training step and of the frozen backbone's
    forward pass on the same batch, bytes that training took beyond the start of the process."""

    method: str
    parameters: int
    peak_bytes: int
    step_seconds: float = Field(gt=0)
    forward_seconds: float = Field(gt=0)
    time_ratio: float = Field(gt=0)


class Speeds(_Part):
    """What `benchmarks/methods.py --json` prints: all methods on one thread, in turns."""

    torch: str
    threads: int
    cpu: str = ""
    backbone: str
    size: int
    batch: int
    rows: list[MethodSpeed]

    def columns(self) -> list[parts.Column]:
        """Return the columns of measured speeds, empty where a record was not measured.

        A row is of a method on one backbone at one size, with as many parameters: other options
        that change the work change these too.
        """
        rows = {(row.method, row.parameters): row for row in reversed(self.rows)}

        def of(record: Record) -> MethodSpeed | None:
            if record.backbone is None or record.parameters is None:
                return None
            if (record.backbone.name, record.config.get("size")) != (self.backbone, self.size):
                return None
            return rows.get((record.method.name, record.parameters.method))

        def rate(record: Record, _: str) -> float | None:
            return self.batch / found.step_seconds if (found := of(record)) else None

        def ratio(record: Record, _: str) -> float | None:
            return found.time_ratio if (found := of(record)) else None

        latex = r"$\times$ forward"
        return [
            parts.Column("measured_train_images_per_second", "Train images/s", 2, rate),
            parts.Column("step_over_forward", "x forward", 2, ratio, latex=latex),
        ]

    @property
    def line(self) -> str:
        """Return the line below a table."""
        cores = "one core" if self.threads == 1 else f"{self.threads} cores"
        place = f" of {self.cpu}" if self.cpu else ""
        return (
            f"Images/s of training and x forward (a step's time over that of the frozen backbone's "
            f"forward pass): CPU time on {cores}{place}, all methods in turns, {self.size} px, "
            f"batch {self.batch}."
        )


def read_speeds(path: Path) -> Speeds:
    """Read a file that `benchmarks/methods.py --json` wrote; raises DataError in one sentence."""
    try:
        return Speeds.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        text = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg'].lower()}"
        words = f"is not what benchmarks/methods.py --json prints: {text}"
        raise DataError(f"--speeds {path} {words}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--speeds {path} could not be read ({error})") from None


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
    cells: parts.CellCounts | None = None,
    speeds: Speeds | None = None,
    style: TableStyle = parts.PLAIN,
    image_groups: Mapping[tuple[str, str], str] | None = None,
) -> parts.Table:
    """Arrange records into tables that compare only what is comparable.

    Args:
        records: what the tables are made of.
        task, methods, test_set: which records; all by default.
        metrics: keys, `all`, or `classes` for each class, instead of the protocol's headline.
        columns: costs to add, or `all`; exactly these columns where other columns are among them.
        sort: the column that orders rows, the best first; else their trainable parameters do.
        across: what may differ within a table: only `decoder`, which then stands in the row.
        group: one of GROUPINGS.
        published: add published figures below own rows, or show them alone where the task has no
            record.
        source: one published table, alone.
        cells: the cells of the sweeps that made the records.
        speeds: measured apart; they get columns of their own.
        style: columns, where none are given, and how everything looks.
        image_groups: what of a test set's images vary together, by its label and digest, as
            `groups.group_texts` says it.

    Returns:
        The tables, in the order of what they have in common, and notes on them.

    Raises:
        DataError: there is no record, or two of one second have other scores.
        UsageError: a name is unknown, or the choice leaves no record.
    """
    parts.require("thing a table may mix", across, ACROSS)
    parts.require("grouping", [group], GROUPINGS)
    records, style = list(records), style.changed(columns=list(columns))
    is_any = any(_is_meant(one, task, methods or None, test_set) for one in records)
    if source or (published and not is_any):
        printed = printed_tables(load_published(), style, source, task, methods, test_set)
        made = rows.arrange(printed, sort, style.order)
        return _checked(parts.Table(tuple(made), (), style))
    wanted = methods
    if published and methods:  # without those that only published tables know
        known = {record.method.name for record in records}
        there = {row.method for table in load_published().tables.values() for row in table.rows}
        wanted = [name for name in methods if name in known or name not in there]
    chosen, notes = _choose(records, task, wanted, test_set)
    by_context: dict[Context, list[Record]] = {}
    for record in chosen:
        for test in record.scores:
            if test_set in (None, test):
                context = shared(context_of(record, test), across)
                by_context.setdefault(context, []).append(record)
    # Everything below works within one context: what differs in it never shares a table.
    by_context = rows.place_map_rows(by_context)
    contexts = sorted(by_context, key=lambda context: context.order)
    measured = speeds.columns() if speeds else []
    costs = [parts.COSTS[key] for key in style.columns if key in parts.COSTS]
    costs = [*parts.COSTS.values()] if style.columns == ["all"] else costs
    exact = parts.exact_columns(style.columns, [column.key for column in measured])
    if exact and metrics is None:
        fixed = {column.key for column in (*parts.PARAMETERS, *parts.COSTS.values(), *measured)}
        metrics = [key for key in exact if key not in fixed | {parts.SEEDS}]
    wanted_of = dict.fromkeys(contexts, metrics)
    if group == "all":
        wanted_of = joined.metrics_each(by_context, metrics)
    said = [rows.counted_cells(cells)] if cells is not None else []
    said += [speeds.line] if speeds else []
    numbers: dict[str, int] = {}
    groups = []
    for context in contexts:
        kept = rows.newest(by_context[context])
        scores = parts.metric_columns(kept, context.test_set, wanted_of[context], style)
        shown = [*parts.PARAMETERS, *scores, *costs, *measured]
        if exact:
            shown = [column for key in exact for column in shown if column.key == key]
        together = (image_groups or {}).get((context.test_set, context.test_digest), "")
        one = _group(context, kept, shown, style, len(by_context[context]) - len(kept), together)
        if published:
            one = add_published(one, load_published(), numbers, style, methods)
        groups.append(replace(one, footer=(*one.footer, *said)))
    # Bands of a stacked table keep the order of their own rows, so rows are sorted before.
    groups = joined.widen(groups, style.rename) if group == "task" else groups
    groups = rows.arrange(groups, sort, style.order)
    groups = joined.stack(groups) if group == "all" else groups
    return _checked(
        parts.Table(tuple(groups), (*notes, *rows.plugin_notes(chosen), *splits(contexts)), style)
    )


def _is_meant(
    record: Record, task: str | None, methods: Sequence[str] | None, test: str | None
) -> bool:
    return (
        task in (None, record.task)
        and (methods is None or record.method.name in methods)
        and any(test in (None, one) for one in record.scores)
    )


def _choose(
    records: list[Record], task: str | None, methods: Sequence[str] | None, test_set: str | None
) -> tuple[list[Record], list[str]]:
    """Return the records that are meant, and what to know about the others."""
    if not records:
        raise DataError("there is no record to show; make one with lpmoe-bench run")
    for kind, asked, known in (
        ("task", [task], {record.task for record in records}),
        ("test set", [test_set], {test for record in records for test in record.scores}),
        ("method", methods or (), {record.method.name for record in records}),
    ):
        parts.require(f"{kind} among these records", filter(None, asked), known)
    current = [record for record in records if not record.superseded_by]
    chosen = [record for record in current if _is_meant(record, task, methods, test_set)]
    if not chosen:
        raise UsageError("no record has this task, method and test set together; ask for less")
    gone = len(records) - len(current)
    return chosen, [f"{gone} superseded records are left out"] if gone else []


def _group(
    context: Context,
    records: list[Record],
    columns: Sequence[parts.Column],
    style: TableStyle,
    dropped: int,
    image_groups: str,
) -> parts.Group:
    test = context.test_set
    made = rows.make_rows(records, columns, test, style.rename)
    costs = any(column.key in parts.COSTS for column in columns)
    named = [(row.label, row.records) for row in made]
    below = [*rows.footer(context, named, dropped, costs, style.sd != "none")]
    below += [
        parts.ShortNote(f"{column.label} is missing for {row.label}")
        for row in made
        for column, cell in zip(columns, row.cells, strict=True)
        if column.is_score and not cell.values
    ]
    if own := [column for column in columns if parts.names_class(column)]:
        unit = " in percent" * any(column.scale != 1 for column in own)
        score = parts.class_score(own[0])
        below.append(parts.ShortNote(f"Under the name of a class stands its {score}{unit}."))
    marked = rows.mark_best(made, columns, test)
    words = caption(context, rows.first_run(records), {context.test_set: image_groups})
    words += rows.precision_words(named)
    return parts.Group(
        context, tuple(columns), marked, words, tuple(below), image_groups=image_groups
    )


def _checked(table: parts.Table) -> parts.Table:
    """Return the table; raises UsageError for a new name of nothing, or one caption of several."""
    style = table.style
    # A style file may serve several tables: what any table may have is no misspelt name.
    known = {*list_methods(), *known_metrics(), *parts.COSTS, *(c.key for c in parts.PARAMETERS)}
    for group in table.groups:
        known |= {name for row in group.rows for name in row.names}
        known |= {column.key for column in group.columns}
        known |= {part.context.test_set for part in group.parts or (group,)}
    # A label has its new name by now.
    old = [name for name, text in style.rename.items() if text not in known]
    parts.require("thing to rename", old, known)
    if style.caption and len(table.groups) > 1:
        raise UsageError(
            f"--caption is for one table, and these records make {len(table.groups)}; choose by "
            f"--task, --test-set or --only, or join them by --group"
        )
    return table
