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

    only: settings that records must have, as the words of their values, such as train.limit_train.
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
        return self.row.label

    @property
    def name(self) -> str:
        """What a filter finds it by."""
        return f"{self.label} {self.row.records[0].method.name}"


@dataclass(frozen=True)
class ReportTable:
    """One table and its rows; `score` is the column that plots show, `anchor` its name in links."""

    anchor: str
    group: Group
    entries: tuple[ReportRow, ...]
    score: Column

    @property
    def test(self) -> str:
        return self.group.context.test_set

    def mean(self, entry: ReportRow) -> float | None:
        """Return the mean score of a row over its seeds, as a fraction."""
        return entry.row.cells[self.group.columns.index(self.score)].mean

    def sd(self, entry: ReportRow) -> float | None:
        return entry.row.cells[self.group.columns.index(self.score)].sd

    def shown(self, value: float | None, sign: str = "") -> str:
        """Write a score as the table does."""
        if value is None:
            return "n/a"
        return f"{value * self.score.scale:{sign}.{self.score.decimals}f}"

    @property
    def arrow(self) -> str:
        return {True: " ↑", False: " ↓", None: ""}[self.score.higher_is_better]


@dataclass(frozen=True)
class ReportContents:
    """All chapters, the records in them, and a sentence for each thing worth saying."""

    chapters: tuple[ReportTable, ...]
    stored: tuple[StoredRecord, ...]
    notes: tuple[str, ...]

    @property
    def records(self) -> list[Record]:
        return [one.record for one in self.stored]


def gather_contents(found: Found, choice: Selection) -> ReportContents:
    """Arrange found records as tables; raises DataError where there is none, UsageError where the
    choice leaves none."""
    stored = keep_only(found.stored, choice.only)
    table = build_table(
        [one.record for one in stored],
        task=choice.task,
        test_set=choice.test_set,
        metrics=["all"],
        columns=tuple(COSTS),
        across=choice.across,
    )
    places = {id(one.record): one for one in stored}
    chapters = []
    for number, group in enumerate(table.groups, start=1):
        entries = tuple(
            ReportRow(row, tuple(places[id(record)] for record in row.records))
            for row in group.rows
        )
        chapters.append(
            ReportTable(f"table-{number}", group, entries, _score(group, choice.metric))
        )
    used = {id(one) for chapter in chapters for entry in chapter.entries for one in entry.stored}
    kept = tuple(one for one in stored if id(one) in used)
    return ReportContents(tuple(chapters), kept, (*found.notes, *table.notes))


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
