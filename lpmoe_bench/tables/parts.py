"""What a table is made of: columns, cells, rows, groups, and the text of a cell."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.facts import refuse_ambiguous
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import Context
from lpmoe_bench.records.model import Record
from method_zoo.errors import unknown

if TYPE_CHECKING:
    from lpmoe_bench.analysis.significance import Comparison

# What each column of a table shows: its value in a record, unit, precision, direction.


AGAINST = "_against"  # ends the key of a column of verdicts, behind that of its score


@dataclass(frozen=True)
class Column:
    """One column. `value` takes a record and a test set; what is printed is value x scale.

    Only scores have a direction, get marks, and show their spread over seeds.
    """

    key: str
    label: str
    latex: str
    decimals: int
    value: Callable[[Record, str], float | None]
    scale: float = 1.0
    higher_is_better: bool | None = None
    is_score: bool = False


def _parameter(name: str) -> Callable[[Record, str], float | None]:
    return lambda record, _: getattr(record.parameters, name, None)


def _cost(name: str) -> Callable[[Record, str], float | None]:
    return lambda record, _: getattr(record.costs, name, None)


PARAMETERS = (
    Column("method_parameters", "Method (M)", "Method (M)", 3, _parameter("method"), 1e-6),
    Column("decoder_parameters", "Decoder (M)", "Decoder (M)", 3, _parameter("decoder"), 1e-6),
    Column(
        "share_of_backbone", "Share (%)", r"Share (\%)", 2, _parameter("share_of_backbone"), 100
    ),
)
_COUNTS = (
    ("trainable_parameters", "Trains (M)", "trainable", 3, 1e-6),
    ("frozen_parameters", "Frozen (M)", "frozen", 3, 1e-6),
    ("total_parameters", "Total (M)", "total", 3, 1e-6),
    ("share_of_total", "Share of total (%)", "share_of_total", 2, 100.0),
    ("share_of_published", "Share as papers (%)", "share_of_published", 2, 100.0),
)
_COSTS = (
    ("train_images_per_second", "Train images/s", 1, 1.0),
    ("inference_images_per_second", "Test images/s", 1, 1.0),
    ("train_seconds", "Training (min)", 1, 1 / 60),
    ("peak_memory_bytes", "Peak memory (GiB)", 2, 2.0**-30),
    ("state_bytes", "State (MiB)", 2, 2.0**-20),
    ("forward_flops", "Forward (GFLOPs)", 1, 1e-9),
    ("training_flops", "Training (GFLOPs)", 1, 1e-9),
)
COSTS = {
    key: Column(key, label, label.replace("%", r"\%"), decimals, _parameter(name), scale)
    for key, label, name, decimals, scale in _COUNTS
} | {
    key: Column(key, label, label, decimals, _cost(key), scale)
    for key, label, decimals, scale in _COSTS
}


def cost_columns(keys: Sequence[str]) -> list[Column]:
    """Return the cost columns of these keys, all for `all`; raises UsageError for an unknown one.

    Costs are parameters beyond the usual ones, FLOPs, images/s, time and memory.
    """
    if list(keys) == ["all"]:
        return list(COSTS.values())
    for key in keys:
        if key not in COSTS:
            raise UsageError(unknown("column", key, COSTS))
    return [COSTS[key] for key in keys]


def metric_columns(
    records: Sequence[Record], test: str, wanted: Sequence[str] | None
) -> list[Column]:
    """Return the columns of the wanted metrics: by default the protocol's headline, or `all`.

    Raises UsageError for a metric that no record of this test set has.
    """
    present = list(dict.fromkeys(key for record in records for key in record.scores[test]))
    protocol = PROTOCOLS.get(records[0].protocol.name)
    if wanted is None:
        keys = [key for key in protocol.headline if key in present] if protocol else present
    elif list(wanted) == ["all"]:
        keys = present
    else:
        keys = list(wanted)
    for key in keys:
        if key not in present:
            refuse_ambiguous(key)
            raise UsageError(unknown(f"metric of {test}", key, present))
    percent = protocol.percent if protocol else ()
    return [_metric_column(key, key in percent) for key in keys]


def _metric_column(key: str, percent: bool) -> Column:
    def value(record: Record, test: str) -> float | None:
        return record.scores[test].get(key)

    metric = known_metrics().get(key)
    if metric is None:  # a record of a newer program: shown, but nobody knows its direction
        return Column(key, key, key.replace("_", r"\_"), 3, value, is_score=True)
    label, latex, better = metric.label, metric.latex, metric.higher_is_better
    if percent:
        return Column(key, f"{label} (%)", rf"{latex} (\%)", 2, value, 100.0, better, True)
    return Column(key, label, latex, metric.decimals, value, 1.0, better, is_score=True)


# What a table is made of: cells, rows, columns under a common head, groups.


class CellCounts(NamedTuple):
    """How many cells of sweeps were declared, finished and failed for good."""

    declared: int
    finished: int
    failed: int


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


@dataclass(frozen=True)
class Span:
    """So many columns side by side under one head, which is a test set; empty: under none."""

    title: str
    columns: int


@dataclass(frozen=True)
class Band:
    """So many rows one below the other under one title, which is a task and its test set."""

    title: str
    rows: int


@dataclass(frozen=True)
class Group:
    """One table: comparable rows under one caption, with what must be known below them.

    `sources` are the lines on published rows. `spans` cover all columns where test sets stand side
    by side, `bands` all rows where they stand one below the other; `parts` are then the tables, one
    a test set, that were joined.
    """

    context: Context
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str
    footer: tuple[str, ...]
    spans: tuple[Span, ...] = ()
    parts: tuple[Group, ...] = ()
    sources: tuple[str, ...] = ()
    bands: tuple[Band, ...] = ()

    @property
    def below(self) -> tuple[str, ...]:
        """All lines below the table."""
        return (*self.footer, *self.sources)


@dataclass(frozen=True)
class Table:
    """All groups that the records make, and a sentence for each thing worth saying about them."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...]


# What stands in a cell, in words that every format shares.


def cell_text(row: Row, cell: Cell, column: Column, between: str = " ± ", star: str = "*") -> str:
    """Return a cell's number with its spread, difference or verdict; `between` joins the ±.

    A published figure keeps the digits of its source; `star` follows one that is in doubt.
    """
    if cell.absent:
        return ""
    if cell.verdict is not None:
        mean = cell.verdict.spread.mean * column.scale
        return f"{cell.verdict.verdict} ({mean:+.{column.decimals}f})"
    if cell.mean is None:
        return "n/a" if column.is_score and row.origin is None else "-"
    digits, spread_digits = _digits(cell, column)
    text = f"{cell.mean * column.scale:.{digits}f}"
    if column.is_score and cell.sd is not None:
        text += f"{between}{cell.sd * column.scale:.{spread_digits}f}"
    if cell.printed and cell.printed.flag:
        text += star
    if cell.difference is not None:
        text += f" ({cell.difference * column.scale:+.{column.decimals}f})"
    elif cell.printed and cell.printed.versus == "barred":
        text += " (-)"
    return text


def _digits(cell: Cell, column: Column) -> tuple[int, int]:
    if cell.printed is None:
        return column.decimals, column.decimals
    shift = round(math.log10(column.scale))
    return max(0, cell.printed.digits - shift), max(0, cell.printed.spread_digits - shift)


def head_text(name: str, column: Column, up: str = "↑", down: str = "↓") -> str:
    """Return a column's head with the arrow of its direction, if it has one."""
    if column.higher_is_better is None:
        return name
    return f"{name} {up if column.higher_is_better else down}"


def span_of(group: Group) -> list[str]:
    """Return the head above each column, a test set or nothing."""
    return [span.title for span in group.spans for _ in range(span.columns)]


def bands_of(group: Group) -> dict[int, str]:
    """Return the title above a row, by the row's number; none where rows are not in bands."""
    starts = itertools.accumulate((band.rows for band in group.bands), initial=0)
    return {start: band.title for start, band in zip(starts, group.bands, strict=False)}


def has_seeds(group: Group) -> bool:
    """Whether a column must count seeds: where any row has several."""
    return any(len(row.records) > 1 for row in group.rows)


def is_mixed(group: Group) -> bool:
    """Whether own and published rows stand together."""
    return len({row.origin is None for row in group.rows}) > 1
