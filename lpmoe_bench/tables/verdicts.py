"""Verdicts in a table: every row against one reference row, by the primary metric."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lpmoe_bench.analysis.groups import Grouping, few_groups
from lpmoe_bench.analysis.pairing import PairedRows, Rules, judge_paired, pair_rows
from lpmoe_bench.analysis.planning import resolved_text
from lpmoe_bench.analysis.samples import SeedRows
from lpmoe_bench.analysis.significance import FEWEST_SEEDS, Comparison, Spread
from lpmoe_bench.errors import DataError, NotComparableError, UsageError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import SAME_TRAINING_IMAGES, all_training_images
from lpmoe_bench.records.store import StoredRecord
from lpmoe_bench.tables import parts
from lpmoe_bench.tables.joined import of_tasks, stack
from method_zoo.errors import unknown

Place = tuple[tuple[str, ...], str]  # the key of a row, and a test set


@dataclass
class Pairs:
    """The rows of one table less its reference. maps: rows of maps of no known seed;
    reasons: why others are not compared."""

    found: dict[Place, PairedRows] = field(default_factory=dict)
    maps: dict[str, None] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def with_verdicts(
    table: parts.Table, stored: Sequence[StoredRecord], against: str, rules: Rules
) -> parts.Table:
    """Add to every group a column behind each primary metric: row less reference, and a verdict.

    Args:
        table: tables of records.
        stored: the records of the table with their folders.
        against: the method, title or label of a row.
        rules: how differences are judged.

    Returns:
        The table with verdicts.

    Raises:
        UsageError: no group has the row, or one has several of that name.
    """
    stacked = any(group.bands for group in table.groups)  # test sets one below the other
    groups = [part for group in table.groups for part in (stacked and group.parts) or (group,)]
    folders = {id(one.record): one for one in stored}
    references = find_references(groups, against)
    pairs = [
        Pairs() if row is None else pair_group(group, row, folders, rules)
        for group, row in zip(groups, references, strict=True)
    ]
    rules.groups.require_use()
    judged = _judged(groups, pairs, stacked, rules)
    absent, made = {}, []
    for group, row, one, results in zip(groups, references, pairs, judged, strict=True):
        if row is None:
            absent[group.context.test_set] = None
            made.append(group)
        else:
            found = dict(zip(one.found, results, strict=True))
            made.append(_with_columns(group, row, one, found, rules))
    notes = [f"no row {against} on {test}, so no verdicts there" for test in absent]
    made = stack(made) if stacked else made
    return replace(table, groups=tuple(made), notes=(*table.notes, *notes))


def _judged(
    groups: Sequence[parts.Group], pairs: Sequence[Pairs], stacked: bool, rules: Rules
) -> list[list[Comparison]]:
    """Judge those together that may be one family: a table of several test sets, or tables that
    differ in the test set alone, as `compare` and `report` do."""
    places = {id(group): place for place, group in enumerate(groups)}
    sets = [[places[id(one)] for one in singles] for singles in of_tasks(groups)]
    found: dict[int, list[Comparison]] = {}
    for own in [range(len(groups))] if stacked else sets:
        together = iter(judge_paired([p for k in own for p in pairs[k].found.values()], rules))
        found |= {k: [next(together) for _ in pairs[k].found] for k in own}
    return [found[place] for place in range(len(groups))]


def find_references(groups: Sequence[parts.Group], against: str) -> list[parts.Row | None]:
    """Return the row of each table that a name means, None where a table has none of it.

    Args:
        groups: the tables.
        against: the method, title or label of a row.

    Raises:
        UsageError: no table has the row, or one has several of that name.
    """
    found = [_reference(group, against) for group in groups]
    if not any(found):
        own = [row for group in groups for row in group.rows if row.records]
        known = dict.fromkeys(n for row in own for n in (row.records[0].method.name, row.label))
        raise UsageError(unknown("row to compare with", against, known))
    return found


def _reference(group: parts.Group, against: str) -> parts.Row | None:
    own = [row for row in group.rows if row.records]
    found = [row for row in own if row.label == against]
    found = found or [row for row in own if against in row.names]
    if len(found) > 1:
        labels = ", ".join(row.label for row in found)
        raise UsageError(f"{against} means several rows ({labels}); name one by its label")
    return found[0] if found else None


def pair_group(
    group: parts.Group,
    reference: parts.Row,
    folders: Mapping[int, StoredRecord],
    rules: Rules,
    metric: str = "",
) -> Pairs:
    """Pair the rows of a table with its reference, for `judge_paired`.

    Args:
        group: the table.
        reference: one of its rows.
        folders: {id of a record: it and its folder}.
        rules: which tell the groups of images.
        metric: the score that is compared; by default the primary one.
    """
    stored: dict[Place, list[StoredRecord]] = {}  # of a wide table, those of its parts
    for part in group.parts or (group,):
        for row in part.rows:
            found = [folders[id(record)] for record in row.records]
            stored.setdefault((row.key, part.context.test_set), []).extend(found)
    # Rows of the reference are read once, those of others are kept no longer than their turn.
    against = {k: SeedRows(v, k[1]) for k, v in stored.items() if k[0] == reference.key}
    made = Pairs()
    for row in group.rows:
        for index, test in _primaries(group, metric):
            if row is reference or not row.records or not row.cells[index].values:
                continue
            try:
                if (reference.key, test) not in against:
                    raise NotComparableError(f"{reference.label} has no record of it")
                own, other = SeedRows(stored[row.key, test], test), against[reference.key, test]
                pair = pair_rows(own, other, group.columns[index].key, rules.groups)
            except (NotComparableError, DataError) as error:
                made.reasons.append(f"{row.label} is not judged on {test}: {error}.")
                continue
            made.found[row.key, test] = pair
            made.maps |= {} if pair.seeds else {row.label: None}
    return made


def _with_columns(
    group: parts.Group,
    reference: parts.Row,
    pairs: Pairs,
    verdicts: Mapping[Place, Comparison],
    rules: Rules,
) -> parts.Group:
    lines = [*verdict_lines(group, reference, pairs, [*verdicts.values()], rules), *pairs.reasons]
    wide, *single = (_shown(one, reference.label, verdicts) for one in (group, *group.parts))
    footer = (*group.footer, *map(parts.ShortNote, lines))
    return replace(wide, footer=footer, parts=tuple(single))


def verdict_lines(
    group: parts.Group,
    reference: parts.Row,
    pairs: Pairs,
    results: Sequence[Comparison],
    rules: Rules,
) -> Iterator[str]:
    """Yield the lines on how rows were judged, and what seeds and images can show.

    Args:
        group: the table.
        reference: the row that others are compared with.
        pairs: the others, less it.
        results: what was found of each; none, no line.
        rules: how they were judged.
    """
    if not results:
        return
    counts = sorted({result.family for result in results})
    family = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    what, where = (
        ("method", "on a test set") if rules.family == "set" else ("comparison", "judged together")
    )
    family += f" {what}{'' if counts == [1] else 's'} {where}"
    looks = f" and {rules.looks} looks" if rules.looks > 1 else ""
    metric = next(iter(pairs.found.values())).metric
    column, margin = _column(group, metric), rules.margins.of(metric)
    shown = margin if margin.relative else f"{margin.value * column.scale:g}"
    yield (
        f"Verdicts are of row less {reference.label}, paired over seeds and images: better or "
        f"worse where p is below 0.05 after Holm over {family}{looks}, equal where two one-sided "
        f"tests, after Holm too, put it within ±{shown}"
        f"{' of the reference' * margin.relative}."
    )
    # Runs of one seed get no verdict, whatever the difference.
    several = zip(results, pairs.found.values(), strict=True)
    results = [result for result, pair in several if len(pair.seeds) != 1]
    if text := resolved_text(
        results, lambda x: f"{x * column.scale:.{column.decimals}f}", rules.looks
    ):
        yield text
    if any(1 < result.spread.seeds < FEWEST_SEEDS for result in results):
        yield f"Two seeds give intervals and no verdict: that takes {FEWEST_SEEDS}."
    runs = [record for row in group.rows for record in row.records if record.kind != "score"]
    if any(pair.seeds[1:] for pair in pairs.found.values()) and all(map(all_training_images, runs)):
        yield f"{SAME_TRAINING_IMAGES[0].upper()}{SAME_TRAINING_IMAGES[1:]}."
    grouped: dict[str, tuple[Spread, Grouping]] = {}
    for (_, test), pair in pairs.found.items():
        if pair.groups:
            grouped[test] = pair.spread, pair.groups
    for test, (spread, found) in grouped.items():
        few = few_groups(found, spread.effective_units)
        yield f"{found.text} of {test} vary in place of its {spread.images} images{few}."
    if pairs.maps:
        yield (
            f"Maps of no known seed are compared as they are, over images and the other's seeds: "
            f"{', '.join(pairs.maps)}."
        )


def _column(group: parts.Group, metric: str) -> parts.Column:
    return next(column for column in group.columns if column.key == metric)


def _primaries(group: parts.Group, metric: str = "") -> list[tuple[int, str]]:
    """Return (column, test set) of a metric: by default the primary one that is shown, or the first
    score."""
    known = PROTOCOLS.get(group.context.protocol)
    scores = [column.key for column in group.columns if column.is_score and column.key in METRICS]
    primary = known.primary if known and known.primary in scores else next(iter(scores), "")
    return [
        (index, column.head or group.context.test_set)
        for index, column in enumerate(group.columns)
        if column.is_score and column.key == (metric or primary)
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
