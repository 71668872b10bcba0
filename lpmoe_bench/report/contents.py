"""What a report is made of: tables of comparable records, each row with its records' folders."""

from dataclasses import dataclass
from functools import cached_property

from lpmoe_bench.analysis.groups import GroupSource, group_texts
from lpmoe_bench.environment import no_collection
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import keep_only
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import FoundRecords, StoredRecord
from lpmoe_bench.tables.parts import COSTS, Cell, Column, Group, Row
from lpmoe_bench.tables.table import build_table
from method_zoo.errors import unknown

# Rows of which images and curves are read: no eye tells more lines of a plot apart, and a page of
# a sweep would open tens of thousands of files for them.
MOST_ROWS = 40


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
    """A row of a table, the score that plots show, and its seeds with their folders, in order."""

    row: Row
    score: Cell
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
    def stored(self) -> list[StoredRecord]:
        """The records of all rows with their folders."""
        return [one for row in self.rows for one in row.stored]

    @cached_property
    def best(self) -> tuple[ReportRow, ...]:
        """The rows of the MOST_ROWS best scores, in the order of the table."""
        kept = {id(row) for row in self.ranked()[:MOST_ROWS]}
        return tuple(row for row in self.rows if id(row) in kept)

    def ranked(self) -> list[ReportRow]:
        """Return the rows, the best score first and those without a score last."""
        sign = -1 if self.score.higher_is_better else 1
        return sorted(
            self.rows, key=lambda row: (row.score.mean is None, sign * (row.score.mean or 0.0))
        )

    def shown(self, value: float, sign: str = "") -> str:
        """Write a score as the table does; `sign` is + where its sign must be seen."""
        return f"{value * self.score.scale:{sign}.{self.score.decimals}f}"


@dataclass(frozen=True)
class ReportContents:
    """All tables, the records in them, and a sentence for each thing worth saying."""

    tables: tuple[ReportTable, ...]
    records: tuple[Record, ...]
    notes: tuple[str, ...]

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


# Thousands of cells are made, for which all records would be searched again and again.
@no_collection()
def gather_contents(
    found: FoundRecords, choice: Selection, groups: GroupSource | None = None
) -> ReportContents:
    """Arrange found records as tables, whose captions count the groups of images; raises DataError
    where there is none, UsageError where the choice leaves none."""
    stored = keep_only(found.stored, choice.only)
    made = build_table(
        [one.record for one in stored],
        task=choice.task,
        test_set=choice.test_set,
        # The page decides which are shown at first, and --metric may name any of them.
        metrics=["all"],
        columns=tuple(COSTS),
        across=choice.across,
        image_groups=group_texts(stored, groups or GroupSource()),
    )
    # By identity, since records that are equal may lie in two folders.
    places = {id(one.record): one for one in stored}
    tables = []
    for number, group in enumerate(made.groups, start=1):
        score = _score(group, choice.metric)
        place = group.columns.index(score)
        rows = (
            ReportRow(row, row.cells[place], tuple(places[id(record)] for record in row.records))
            for row in group.rows
        )
        tables.append(ReportTable(f"table-{number}", group, tuple(rows), score))
    used = {id(one.record) for table in tables for one in table.stored}
    records = tuple(one.record for one in stored if id(one.record) in used)
    return ReportContents(tuple(tables), records, (*found.notes, *made.notes))


def _score(group: Group, wanted: str | None) -> Column:
    scores = {column.key: column for column in group.columns if column.is_score}
    if wanted is not None:
        if wanted not in scores:
            raise UsageError(unknown(f"metric of {group.context.test_set}", wanted, scores))
        return scores[wanted]
    if not scores:
        raise UsageError(f"the records of {group.context.test_set} hold no score at all")
    protocol = PROTOCOLS.get(group.context.protocol)
    primary = scores.get(protocol.primary) if protocol else None
    return primary or next(iter(scores.values()))
