"""What a report is made of: tables of comparable records, each row with its records' folders."""

from dataclasses import dataclass

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import keep_only
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import Found, StoredRecord
from lpmoe_bench.tables.parts import COSTS, Column, Group, Row
from lpmoe_bench.tables.table import build_table
from method_zoo.errors import unknown


@dataclass(frozen=True)
class Selection:
    """Which records a report shows, and by which score: by default each protocol's primary one.

    only: settings that records must have, with their values as text, such as train.limit_train.
    """

    task: str | None = None
    test_set: str | None = None
    metric: str | None = None
    across: tuple[str, ...] = ()
    only: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ReportRow:
    """A row of a table, and where its records lie; `stored` are its seeds, in their order."""

    row: Row
    stored: tuple[StoredRecord, ...]

    @property
    def label(self) -> str:
        """The method as the table names it."""
        return self.row.label

    @property
    def name(self) -> str:
        """What the filter of the page finds it by."""
        return f"{self.label} {self.row.records[0].method.name}"


@dataclass(frozen=True)
class ReportTable:
    """One table and its rows; `score` is the column that plots show, `anchor` its name in links."""

    anchor: str
    group: Group
    rows: tuple[ReportRow, ...]
    score: Column

    @property
    def test(self) -> str:
        """The label of the test set."""
        return self.group.context.test_set

    @property
    def heading(self) -> str:
        """The name of the score with the arrow of its direction."""
        return self.score.directed_label

    def mean(self, row: ReportRow) -> float | None:
        """Return the mean score of a row over its seeds, as a fraction."""
        return row.row.cells[self.group.columns.index(self.score)].mean

    def sd(self, row: ReportRow) -> float | None:
        """Return the standard deviation of a row's score over its seeds, as a fraction."""
        return row.row.cells[self.group.columns.index(self.score)].sd

    def ranked(self) -> list[ReportRow]:
        """Return the rows, the best score first and those without a score last."""
        sign = -1 if self.score.higher_is_better else 1
        means = {id(row): self.mean(row) for row in self.rows}
        return sorted(
            self.rows, key=lambda row: (means[id(row)] is None, sign * (means[id(row)] or 0.0))
        )

    def shown(self, value: float, sign: str = "") -> str:
        """Write a score as the table does; `sign` is + where its sign must be seen."""
        return f"{value * self.score.scale:{sign}.{self.score.decimals}f}"


@dataclass(frozen=True)
class ReportContents:
    """All tables, the records in them, and a sentence for each thing worth saying."""

    tables: tuple[ReportTable, ...]
    stored: tuple[StoredRecord, ...]
    notes: tuple[str, ...]

    @property
    def records(self) -> list[Record]:
        """The records alone, in the order of their folders."""
        return [one.record for one in self.stored]

    def only_table(self, what: str) -> ReportTable:
        """Return the one table; raises UsageError, which says how to choose, where there are more.

        what: what shows one table only, such as a plot.
        """
        if len(self.tables) == 1:
            return self.tables[0]
        tests = list(dict.fromkeys(table.test for table in self.tables))
        how = "--only, such as --only train.limit_train=150" if len(tests) == 1 else "--test-set"
        raise UsageError(
            f"these records make {len(self.tables)} tables ({', '.join(tests)}), one {what} "
            f"shows one: choose it with {how}"
        )


def gather_contents(found: Found, choice: Selection) -> ReportContents:
    """Arrange found records as tables; raises DataError where there is none, UsageError where the
    choice leaves none."""
    stored = keep_only(found.stored, choice.only)
    made = build_table(
        [one.record for one in stored],
        task=choice.task,
        test_set=choice.test_set,
        metrics=["all"],
        columns=tuple(COSTS),
        across=choice.across,
    )
    places = {id(one.record): one for one in stored}
    tables = []
    for number, group in enumerate(made.groups, start=1):
        rows = tuple(
            ReportRow(row, tuple(places[id(record)] for record in row.records))
            for row in group.rows
        )
        tables.append(ReportTable(f"table-{number}", group, rows, _score(group, choice.metric)))
    used = {id(one) for table in tables for row in table.rows for one in row.stored}
    kept = tuple(one for one in stored if id(one) in used)
    return ReportContents(tuple(tables), kept, (*found.notes, *made.notes))


def is_headline(group: Group, column: Column) -> bool:
    """Whether a table shows the column unasked."""
    protocol = PROTOCOLS.get(group.context.protocol)
    return not column.is_score or protocol is None or column.key in protocol.headline


def _score(group: Group, wanted: str | None) -> Column:
    scores = {column.key: column for column in group.columns if column.is_score}
    protocol = PROTOCOLS.get(group.context.protocol)
    if wanted is not None:
        if wanted not in scores:
            raise UsageError(unknown(f"metric of {group.context.test_set}", wanted, scores))
        return scores[wanted]
    if not scores:
        raise UsageError(f"the records of {group.context.test_set} hold no score at all")
    primary = scores.get(protocol.primary) if protocol else None
    return primary or next(iter(scores.values()))
