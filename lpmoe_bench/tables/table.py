"""Tables of records: one for each context, a row for each method, a cell for each number."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.context import ACROSS, Context, caption, context_of, shared, splits
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.ledger import load_ledger
from lpmoe_bench.tables.parts import (
    PARAMETERS,
    Cell,
    CellCounts,
    Column,
    Group,
    Row,
    Span,
    Table,
    cost_columns,
    metric_columns,
)
from lpmoe_bench.tables.published import add_published, printed_tables
from lpmoe_bench.tables.rows import (
    counted_cells,
    footer,
    host,
    make_rows,
    map_row_notes,
    mark_best,
    newest,
    place_map_rows,
    sort_each,
)
from lpmoe_bench.tables.wide import metrics_each, stack, widen
from method_zoo.errors import unknown

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

    def of(self, record: Record) -> MethodSpeed | None:
        """Return the row of a record's method on its backbone at its size, with as many parameters:
        other options that change the work change these too."""
        if record.backbone is None or record.parameters is None:
            return None
        if (record.backbone.name, record.config.get("size")) != (self.backbone, self.size):
            return None
        wanted = (record.method.name, record.parameters.method)
        return next((row for row in self.rows if (row.method, row.parameters) == wanted), None)

    @property
    def words(self) -> str:
        """The line below a table."""
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
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--speeds {path} could not be read ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"--speeds {path} is not what benchmarks/methods.py --json prints: {place}: "
            f"{first['msg'].lower()}"
        ) from None


def speed_columns(speeds: Speeds) -> list[Column]:
    """Return the columns of measured speeds, empty where a record was not measured."""

    def rate(record: Record, _: str) -> float | None:
        found = speeds.of(record)
        return speeds.batch / found.step_seconds if found else None

    def ratio(record: Record, _: str) -> float | None:
        found = speeds.of(record)
        return found.time_ratio if found else None

    return [
        Column("measured_train_images_per_second", "Train images/s", "Train images/s", 2, rate),
        Column("step_over_forward", "x forward", r"$\times$ forward", 2, ratio),
    ]


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
    by_context = place_map_rows(_by_context(chosen, test_set, across))
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
    below += map_row_notes(named, context.test_set)
    marked = mark_best(rows, columns, context.test_set)
    return Group(context, columns, marked, caption(context, host(kept)), (*below, *missing))
