"""Verdicts in a table: every row against one reference row, by the primary metric."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lpmoe_bench.analysis.comparison import judge_paired, pair_rows
from lpmoe_bench.analysis.significance import Comparison, SeedRows
from lpmoe_bench.errors import DataError, NotComparableError, UsageError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.store import StoredRecord
from lpmoe_bench.tables import parts
from lpmoe_bench.tables.joined import stack
from method_zoo.errors import unknown

Place = tuple[tuple[str, ...], str]  # the key of a row, and a test set


def with_verdicts(
    table: parts.Table, stored: Sequence[StoredRecord], against: str, margin: float
) -> parts.Table:
    """Add to every group a column behind each primary metric: row less reference, and a verdict.

    Args:
        table: tables of records.
        stored: the records of the table with their folders.
        against: the method, title or label of a row.
        margin: differences within it are equal; in units of the score.

    Returns:
        The table with verdicts; Holm's correction runs over all comparisons of one group.

    Raises:
        UsageError: no group has the row, or one has several of that name.
    """
    if any(group.bands for group in table.groups):  # each test set is judged by itself
        single = tuple(part for group in table.groups for part in group.parts or (group,))
        judged = with_verdicts(replace(table, groups=single), stored, against, margin)
        return replace(judged, groups=tuple(stack(judged.groups)))
    folders = {id(one.record): one for one in stored}
    references = [_reference(group, against) for group in table.groups]
    if not any(references):
        own = [row for group in table.groups for row in group.rows if row.records]
        known = dict.fromkeys(n for row in own for n in (row.records[0].method.name, row.label))
        raise UsageError(unknown("row to compare with", against, known))
    groups, absent = [], {}
    for group, row in zip(table.groups, references, strict=True):
        if row is None:
            absent[group.context.test_set] = None
        groups.append(group if row is None else _with_columns(group, row, folders, margin))
    notes = [f"no row {against} on {test}, so no verdicts there" for test in absent]
    return replace(table, groups=tuple(groups), notes=(*table.notes, *notes))


def _reference(group: parts.Group, against: str) -> parts.Row | None:
    """Return the row that a name means; raises UsageError where several are it."""
    own = [row for row in group.rows if row.records]
    found = [row for row in own if row.label == against]
    found = found or [row for row in own if against in row.names]
    if len(found) > 1:
        labels = ", ".join(row.label for row in found)
        raise UsageError(f"{against} means several rows ({labels}); name one by its label")
    return found[0] if found else None


def _with_columns(
    group: parts.Group, reference: parts.Row, folders: Mapping[int, StoredRecord], margin: float
) -> parts.Group:
    stored: dict[Place, list[StoredRecord]] = {}  # of a wide table, those of its parts
    for part in group.parts or (group,):
        for row in part.rows:
            found = [folders[id(record)] for record in row.records]
            stored.setdefault((row.key, part.context.test_set), []).extend(found)
    # Rows of the reference are read once, those of others are kept no longer than their turn.
    against = {k: SeedRows(v, k[1]) for k, v in stored.items() if k[0] == reference.key}
    pairs, ups, maps, reasons = {}, [], {}, []
    for row in group.rows:
        for index, test in _primaries(group):
            if row is reference or not row.records or not row.cells[index].values:
                continue
            column = group.columns[index]
            try:
                if (reference.key, test) not in against:
                    raise NotComparableError(f"{reference.label} has no record of it")
                own = SeedRows(stored[row.key, test], test)
                pair = pair_rows(own, against[reference.key, test], column.key)
            except (NotComparableError, DataError) as error:
                reasons.append(f"{row.label} is not judged on {test}: {error}.")
                continue
            pairs[row.key, test] = pair
            ups.append(bool(column.higher_is_better))
            maps |= {} if pair.seeds else {row.label: None}
    results = judge_paired([*pairs.values()], ups, margin)
    if maps:
        reasons.append(
            f"Without seeds on both sides these very maps are compared, over images alone: "
            f"{', '.join(maps)}."
        )
    words = (
        f"Verdicts are of row less {reference.label}, paired over seeds and images: better or "
        f"worse where p is below 0.05 after Holm over {len(pairs)} comparisons, equal where "
        f"the 95 % interval lies within ±{margin:g}."
    )
    verdicts = dict(zip(pairs, results, strict=True))
    wide, *single = (_shown(one, reference.label, verdicts) for one in (group, *group.parts))
    lines = map(parts.ShortNote, (words, *reasons))
    return replace(wide, footer=(*group.footer, *lines), parts=tuple(single))


def _primaries(group: parts.Group) -> list[tuple[int, str]]:
    """Return (column, test set) of each primary metric that is shown, or of the first score."""
    known = PROTOCOLS.get(group.context.protocol)
    scores = [column.key for column in group.columns if column.is_score and column.key in METRICS]
    primary = known.primary if known and known.primary in scores else next(iter(scores), "")
    return [
        (index, column.head or group.context.test_set)
        for index, column in enumerate(group.columns)
        if column.is_score and column.key == primary
    ]


def _shown(group: parts.Group, reference: str, found: Mapping[Place, Comparison]) -> parts.Group:
    """Add a column of verdicts behind each primary metric."""
    for place, test in reversed(_primaries(group)):  # places to the left stay what they are
        of = group.columns[place]
        key, head = f"{of.key}{parts.AGAINST}", f"vs {reference}"
        new = parts.Column(key, head, of.decimals, parts.empty_value, of.scale, head=of.head)
        cells = [parts.Cell((), verdict=found.get((row.key, test))) for row in group.rows]
        group = group.inserted(place + 1, new, cells)
    return group
