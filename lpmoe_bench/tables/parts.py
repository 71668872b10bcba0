"""What a table is made of: columns, cells, rows, and the tables of what may be compared."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, NamedTuple

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.facts import CLASS_STEMS, refuse_ambiguous
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import Context
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.style import TableStyle
from method_zoo.errors import unknown

if TYPE_CHECKING:
    from lpmoe_bench.analysis.significance import Comparison

AGAINST = "_against"  # ends the key of a column of verdicts, behind that of its score
PLAIN = TableStyle()
CLASSES = "classes"  # of metrics: the IoU of each class, or what its protocol has first


def require(kind: str, names: Iterable[str], known: Iterable[str], metrics: bool = False) -> None:
    """Raise UsageError for a name that is not known; of `metrics` also where it means several."""
    for name in names:
        if name not in known:
            if metrics:
                refuse_ambiguous(name)
            raise UsageError.unknown(kind, name, known)


@dataclass(frozen=True)
class Column:
    """One column. `value` takes a record and a test set; what is printed is value x scale.

    Only scores have a direction, get marks, and show their spread over seeds. latex: the label in
    mathematics, where it has one. head: the test set that the column stands under where several
    stand side by side.
    """

    key: str
    label: str
    decimals: int
    value: Callable[[Record, str], float | None]
    scale: float = 1.0
    higher_is_better: bool | None = None
    is_score: bool = False
    latex: str = ""
    head: str = ""

    @property
    def directed_label(self) -> str:
        """Return the label with the arrow of its direction, if it has one."""
        arrow = {None: "", True: " ↑", False: " ↓"}[self.higher_is_better]
        return self.label + arrow


def empty_value(record: Record, test: str) -> None:
    """Stand for the value of a column that no record fills."""


def _fact(
    key: str, label: str, decimals: int, scale: float, name: str = "", of: str = "parameters"
) -> Column:
    """Return the column of what a record says of its parameters or costs."""
    return Column(
        key, label, decimals, lambda r, _: getattr(getattr(r, of), name or key, None), scale
    )


# What papers print of cost, in every table here; all other costs stand where they are asked for.
PARAMETERS = (
    _fact("method_parameters", "Method (M)", 3, 1e-6, "method"),
    _fact("decoder_parameters", "Decoder (M)", 3, 1e-6, "decoder"),
    _fact("share_of_backbone", "Share (%)", 2, 100),
)
_COSTS = (
    _fact("trainable_parameters", "Trains (M)", 3, 1e-6, "trainable"),
    _fact("frozen_parameters", "Frozen (M)", 3, 1e-6, "frozen"),
    _fact("total_parameters", "Total (M)", 3, 1e-6, "total"),
    _fact("share_of_total", "Share of total (%)", 2, 100.0),
    _fact("share_of_published", "Share as papers (%)", 2, 100.0),
    _fact("train_images_per_second", "Train images/s", 1, 1.0, of="costs"),
    _fact("inference_images_per_second", "Test images/s", 1, 1.0, of="costs"),
    _fact("train_seconds", "Training (min)", 1, 1 / 60, of="costs"),
    _fact("peak_memory_bytes", "Peak memory (GiB)", 2, 2.0**-30, of="costs"),
    _fact("state_bytes", "State (MiB)", 2, 2.0**-20, of="costs"),
    _fact("forward_flops", "Forward (GFLOPs)", 1, 1e-9, of="costs"),
    _fact("training_flops", "Training (GFLOPs)", 1, 1e-9, of="costs"),
)
COSTS = {column.key: column for column in _COSTS}


def _false_alarms(record: Record, test: str) -> float | None:
    counts = record.counts.get(test, {})
    alarms, empty = counts.get("empty_false_alarms"), counts.get("empty_masks")
    return alarms / empty if alarms is not None and empty else None


# Of images that most protocols leave out: no score of theirs says it.
FALSE_ALARMS = Column(
    *("empty_false_alarms", "False alarms on empty masks", 3, _false_alarms),
    higher_is_better=False,
    is_score=True,
)
SEEDS = "n"  # the column that counts seeds, which formats make


def exact_columns(keys: Sequence[str], more: Sequence[str] = ()) -> list[str] | None:
    """Return the keys where they name all columns of a table, None where they only add costs.

    Args:
        keys: what was asked for: costs alone are added to the usual columns.
        more: keys of columns that this table has besides.

    Raises:
        UsageError: a key that no column has.
    """
    if list(keys) == ["all"] or all(key in COSTS for key in keys):
        return None
    known = {*(column.key for column in PARAMETERS), SEEDS, *COSTS, *more, *known_metrics()}
    for key in keys:
        if key not in known and key not in known_metrics():  # which has those of any class
            refuse_ambiguous(key)
            near = get_close_matches(key.casefold(), known_metrics())
            usual = known.difference(known_metrics()).union(near)
            words = f"{unknown('column', key, usual)}, and metrics: lpmoe-bench list metrics"
            raise UsageError(words)
    return list(keys)


def metric_columns(
    records: Sequence[Record], test: str, wanted: Sequence[str] | None, style: TableStyle = PLAIN
) -> list[Column]:
    """Return the columns of the wanted metrics: by default the protocol's headline, or `all`.

    Of `CLASSES` the score that ranks and one column a class, under the class's name; the headline
    of what has none. Raises UsageError for a metric that no record of this test set has.
    """
    present = list(dict.fromkeys(key for record in records for key in record.scores[test]))
    if any(FALSE_ALARMS.value(record, test) is not None for record in records):
        present.append(FALSE_ALARMS.key)
    headline, in_percent = _shown_by(records[0])
    of_class = [
        key for key in present if key.startswith(f"{class_stem(records[0].protocol.name)}/")
    ]
    by_class = of_class and list(wanted or ()) == [CLASSES]
    if by_class:
        keys = [*(key for key in headline if key == _primary(records[0])), *of_class]
    elif wanted is None or list(wanted) == [CLASSES]:
        keys = [key for key in headline if key in present] or present
    elif list(wanted) == ["all"]:
        keys = present
    else:
        keys = list(wanted)
    require(f"metric of {test}", keys, present, metrics=True)
    columns = [_metric_column(key, in_percent(key), style.percent) for key in keys]
    if by_class:
        columns = [_named_alone(column) if column.key in of_class else column for column in columns]
    if style.digits is not None:
        columns = [replace(column, decimals=style.digits) for column in columns]
    return columns


def _named_alone(column: Column) -> Column:
    """Return the column of a class under the class's name alone, as tables of classes have it."""
    name = column.key.partition("/")[2]
    return replace(column, label=name, latex="")


def names_class(column: Column) -> bool:
    """Whether a column stands under the name of a class alone."""
    return "/" in column.key and column.label == column.key.partition("/")[2]


def class_score(column: Column) -> str:
    """Return the label of the score that stands under the name of a class, such as IoU."""
    name = column.key.partition("/")[2]
    return known_metrics()[column.key].label.removesuffix(f" {name}")


def _primary(record: Record) -> str:
    protocol = PROTOCOLS.get(record.protocol.name)
    return protocol.primary if protocol else ""


def class_stem(protocol_name: str) -> str:
    """Return which score of a class stands in tables of classes: the first of the protocol's."""
    protocol = PROTOCOLS.get(protocol_name)
    return (*(protocol.of_class if protocol else ()), CLASS_STEMS[0])[0]


def _shown_by(record: Record) -> tuple[Sequence[str], Callable[[str], bool]]:
    """Return the headline of a record's protocol, and what says which metrics are in percent."""
    if protocol := PROTOCOLS.get(record.protocol.name):
        return protocol.headline, protocol.prints_percent
    own = record.config.get("protocol_columns")  # of a protocol of the user's
    lists = [own.get(key) if isinstance(own, dict) else [] for key in ("headline", "percent")]
    headline, percent = (one if isinstance(one, list) else [] for one in lists)
    return headline, percent.__contains__


def _metric_column(key: str, percent: bool, asked: bool) -> Column:
    """Return the column of a metric; in percent where its protocol, or who asked, has it so."""

    def value(record: Record, test: str) -> float | None:
        return record.scores[test].get(key)

    metric = known_metrics().get(key)
    if key == FALSE_ALARMS.key:
        return FALSE_ALARMS
    if metric is None:  # a record of a newer program: shown, but nobody knows its direction
        return Column(key, key, 3, value, is_score=True)
    label, latex, better = metric.label, metric.latex, metric.higher_is_better
    if percent or (asked and not metric.unit):
        digits = 2 if percent else max(0, metric.decimals - 2)
        more = latex and rf"{latex} (\%)"
        return Column(key, f"{label} (%)", digits, value, 100.0, better, True, more)
    return Column(key, label, metric.decimals, value, 1.0, better, True, latex)


class CellCounts(NamedTuple):
    """How many cells of sweeps were declared and finished, and the names of those given up."""

    declared: int
    finished: int
    failed: Sequence[str]


class ShortNote(str):
    """A line below a table that stays where notes are short; other lines are plain texts."""

    __slots__ = ()


@dataclass(frozen=True)
class Printed:
    """How a source prints a figure: its ±, and the digits behind the point of value and ±.

    Digits are those of the value that the cell holds, a fraction where the source has percent.
    versus: whether a record of the same method stands in the table, and may be compared with it.
    """

    digits: int
    spread: float | None = None
    spread_digits: int = 0
    flag: str = ""
    versus: Literal["", "barred", "compared"] = ""


# A cell keeps its values in full: rounding is for who prints it, and CSV never rounds.
@dataclass(frozen=True)
class Cell:
    """The values of one number over the seeds of a row; empty when any seed lacks it.

    difference: of a published figure, the mean of the record beside it less the figure.
    verdict: of a cell that compares its row with another. absent: the column is none of its row's.
    """

    values: tuple[float, ...]
    mark: Literal["", "best", "second"] = ""
    printed: Printed | None = None
    difference: float | None = None
    verdict: Comparison | None = None
    absent: bool = False

    @property
    def mean(self) -> float | None:
        return math.fsum(self.values) / len(self.values) if self.values else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds, with n - 1; None for a single seed; a source's own ±."""
        if self.printed:
            return self.printed.spread
        return statistics.stdev(self.values) if len(self.values) > 1 else None


EMPTY, ABSENT = Cell(()), Cell((), absent=True)


@dataclass(frozen=True)
class Origin:
    """Where a published row comes from: the name of its table, and what must be said of it."""

    table: str
    source: str
    level: str
    conditions: str
    method: str = ""  # its name in the zoo


@dataclass(frozen=True)
class Row:
    """One method with one set of options; `records` are its seeds, in their order.

    A published row has an origin and no records.
    """

    label: str
    records: tuple[Record, ...]
    cells: tuple[Cell, ...]
    origin: Origin | None = None

    @property
    def method(self) -> str:
        """The name of its method; empty for a published one that the zoo does not have."""
        return self.origin.method if self.origin else self.records[0].method.name

    @property
    def key(self) -> tuple[str, ...]:
        """Return what makes a row of one test set that of another."""
        if self.origin is not None:
            return "published", self.origin.table, self.label
        # The fingerprint stands for all settings, so that rows of one method stay apart.
        first = self.records[0]
        if first.kind == "score":  # the fingerprint of maps is that of one test set's
            return "score", first.method.name, self.label.partition(" (")[0]
        return first.kind, first.method.name, first.fingerprint

    @property
    def names(self) -> tuple[str, ...]:
        """Return what the row may be called by: its label, and its method's name and title."""
        if self.origin is not None:
            return (self.label,)
        return self.label, self.records[0].method.name, self.records[0].method.title


class Span(NamedTuple):
    """So many columns or rows under one title: a test set, or a task with it; empty: under none."""

    title: str
    count: int


@dataclass(frozen=True)
class Group:
    """One table: comparable rows under one caption, with what must be known below them.

    `sources` are the lines on published rows. `bands` cover all rows where test sets stand one
    below the other; `parts` are the tables, one a test set, that were joined. `image_groups`: what
    of a test set's images vary together, such as 5 sequences; empty where none are known to.
    """

    context: Context
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str
    footer: tuple[str, ...]
    parts: tuple[Group, ...] = ()
    sources: tuple[str, ...] = ()
    bands: tuple[Span, ...] = ()
    image_groups: str = ""

    @property
    def below(self) -> tuple[str, ...]:
        """Return all lines below the table."""
        return (*self.footer, *self.sources)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return the heads above the columns; none where no test sets stand side by side."""
        runs = itertools.groupby(self.columns, key=lambda column: column.head)
        spans = tuple(Span(title, len(list(run))) for title, run in runs)
        return spans if any(span.title for span in spans) else ()

    @property
    def is_mixed(self) -> bool:
        """Whether own and published rows stand together."""
        return len({row.origin is None for row in self.rows}) > 1

    def inserted(self, place: int, column: Column, cells: Sequence[Cell]) -> Group:
        """Return the table with one more column at a place, and a cell of it for each row."""
        rows = tuple(
            replace(row, cells=(*row.cells[:place], cell, *row.cells[place:]))
            for row, cell in zip(self.rows, cells, strict=True)
        )
        columns = (*self.columns[:place], column, *self.columns[place:])
        return replace(self, columns=columns, rows=rows)


@dataclass(frozen=True)
class Table:
    """All groups that the records make, a sentence for each thing worth saying, and the look."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    style: TableStyle = field(default=PLAIN)
