"""What a table is made of: cells, rows, columns under a common head, groups."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from lpmoe_bench.records.context import Context
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.columns import Column

if TYPE_CHECKING:
    from lpmoe_bench.analysis.significance import Comparison


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
