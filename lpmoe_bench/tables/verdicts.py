"""Verdicts in a table: every row against one reference row, by the primary metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from lpmoe_bench.analysis.comparison import common_seeds, paired
from lpmoe_bench.analysis.significance import Comparison, Spread, compare_paired
from lpmoe_bench.errors import DataError, NotComparableError, UsageError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.store import StoredRecord
from lpmoe_bench.tables.formats import latex_text
from lpmoe_bench.tables.parts import AGAINST, Cell, Column, Group, Row, Span, Table, span_of
from lpmoe_bench.tables.wide import Key, row_key, stack
from method_zoo.errors import unknown

Folders = Mapping[int, StoredRecord]  # by the identity of the record
Item = TypeVar("Item")


@dataclass(frozen=True)
class _Judged:
    """The comparisons of one table with its reference, by row and test set, and what failed."""

    reference: str
    found: Mapping[tuple[Key, str], Comparison]
    reasons: Sequence[str]


def with_verdicts(
    table: Table, stored: Sequence[StoredRecord], against: str, margin: float
) -> Table:
    """Add to every group a column behind each primary metric: row less reference, and a verdict.

    `stored` are the records of the table with their folders; `against` is the method, title or
    label of a row; differences within `margin` are equal. Holm's correction runs over all
    comparisons of one group. Raises UsageError where no group has the row, or one has several.
    """
    if any(group.bands for group in table.groups):  # each test set is judged by itself
        parts = tuple(part for group in table.groups for part in group.parts or (group,))
        judged = with_verdicts(replace(table, groups=parts), stored, against, margin)
        return replace(judged, groups=tuple(stack(judged.groups)))
    folders = {id(one.record): one for one in stored}
    references = [_reference(group, against) for group in table.groups]
    if not any(references):
        rows = [row for group in table.groups for row in group.rows if row.records]
        known = dict.fromkeys(n for row in rows for n in (row.records[0].method.name, row.label))
        raise UsageError(unknown("row to compare with", against, known))
    pairs = list(zip(table.groups, references, strict=True))
    groups = [
        group if row is None else _judged(group, row, folders, margin) for group, row in pairs
    ]
    absent = dict.fromkeys(group.context.test_set for group, row in pairs if row is None)
    notes = [f"no row {against} on {test}, so no verdicts there" for test in absent]
    return replace(table, groups=tuple(groups), notes=(*table.notes, *notes))


def _reference(group: Group, against: str) -> Row | None:
    """Return the row that a name means; raises UsageError where several are it."""
    own = [row for row in group.rows if row.records]
    found = [row for row in own if row.label == against]
    if not found:
        names = [(row, row.records[0].method) for row in own]
        found = [row for row, method in names if against in (method.name, method.title)]
    if len(found) > 1:
        labels = ", ".join(row.label for row in found)
        raise UsageError(f"{against} means several rows ({labels}); name one by its label")
    return found[0] if found else None


def _judged(group: Group, reference: Row, folders: Folders, margin: float) -> Group:
    judged = _judge(group, reference, folders, margin)
    words = (
        f"Verdicts are of row less {reference.label}, paired over seeds and images: better or "
        f"worse where p is below 0.05 after Holm over {len(judged.found)} comparisons, equal where "
        f"the 95 % interval lies within ±{margin:g}."
    )
    shown = _shown(group, judged)
    parts = tuple(_shown(part, judged) for part in group.parts)
    return replace(shown, footer=(*group.footer, words, *judged.reasons), parts=parts)


def _judge(group: Group, reference: Row, folders: Folders, margin: float) -> _Judged:
    pairs, reasons = [], []
    for row in group.rows:
        for index, test in _primaries(group):
            if row is reference or not row.records or not row.cells[index].values:
                continue
            column = group.columns[index]
            try:
                sides = [_stored(group, one, test, folders) for one in (row, reference)]
                seeds, spread = _spread(sides[0], sides[1], test, column.key)
            except (NotComparableError, DataError) as error:
                reasons.append(f"{row.label} is not judged on {test}: {error}.")
                continue
            pairs.append((row, test, column.higher_is_better, bool(seeds), spread))
    ups, spreads = [up for _, _, up, _, _ in pairs], [spread for *_, spread in pairs]
    found = {}
    for (row, test, _, seeded, _), result in zip(
        pairs, compare_paired(spreads, margin, higher_is_better=ups), strict=True
    ):
        # Maps of no known seed: the very models are compared, so that one of each is enough.
        models = replace(result, verdict=result.of_models, seeds_needed=None)
        found[row_key(row), test] = result if seeded else models
    if maps := dict.fromkeys(row.label for row, _, _, seeded, _ in pairs if not seeded):
        reasons.append(
            f"Without seeds on both sides these very maps are compared, over images alone: "
            f"{', '.join(maps)}."
        )
    return _Judged(reference.label, found, reasons)


def _primaries(group: Group) -> list[tuple[int, str]]:
    """Return (column, test set) of each primary metric that is shown, or of the first score."""
    known = PROTOCOLS.get(group.context.protocol)
    scores = [column.key for column in group.columns if column.is_score and column.key in METRICS]
    primary = known.primary if known and known.primary in scores else next(iter(scores), "")
    tests = span_of(group) or [group.context.test_set] * len(group.columns)
    return [
        (index, tests[index])
        for index, column in enumerate(group.columns)
        if column.is_score and column.key == primary
    ]


def _stored(group: Group, row: Row, test: str, folders: Folders) -> list[StoredRecord]:
    """Return a row's records that have the test set: in a wide table, those of its part."""
    parts = [part for part in group.parts if part.context.test_set == test] or [group]
    same = [one for part in parts for one in part.rows if row_key(one) == row_key(row)]
    found = [folders[id(record)] for one in same for record in one.records]
    if not found:
        raise NotComparableError(f"{row.label} has no record of it")
    return found


def _spread(
    a: list[StoredRecord], b: list[StoredRecord], test: str, key: str
) -> tuple[tuple[int, ...], Spread]:
    """Return the seeds in common and how A - B varies; raises NotComparableError or DataError."""
    seeds = common_seeds(a, b)
    if seeds:
        a, b = ([one for one in side if one.record.seed in seeds] for side in (a, b))
    *_, spread = paired(a, b, test, key)
    return seeds, spread


def _shown(group: Group, judged: _Judged) -> Group:
    """Add a column of verdicts behind each primary metric."""
    for place, test in reversed(_primaries(group)):  # places to the left stay what they are
        of = group.columns[place]
        head, latex = f"vs {judged.reference}", f"vs {latex_text(judged.reference)}"
        new = Column(f"{of.key}{AGAINST}", head, latex, of.decimals, lambda *_: None, of.scale)
        rows = [
            replace(row, cells=_insert(row.cells, place, _cell(row, test, judged)))
            for row in group.rows
        ]
        columns, spans = _insert(group.columns, place, new), _grown(group.spans, place)
        group = replace(group, columns=columns, rows=tuple(rows), spans=spans)
    return group


def _cell(row: Row, test: str, judged: _Judged) -> Cell:
    return Cell((), verdict=judged.found.get((row_key(row), test)))


def _insert(items: tuple[Item, ...], place: int, item: Item) -> tuple[Item, ...]:
    return (*items[: place + 1], item, *items[place + 1 :])


def _grown(spans: Sequence[Span], place: int) -> tuple[Span, ...]:
    """Return the spans, the one that holds the column wider by one."""
    grown, start = [], 0
    for span in spans:
        inside = start <= place < start + span.columns
        grown.append(replace(span, columns=span.columns + 1) if inside else span)
        start += span.columns
    return tuple(grown)
