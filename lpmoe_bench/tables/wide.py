"""Test sets side by side for rows that share everything else, or one below the other."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.facts import refuse_ambiguous
from lpmoe_bench.records.context import Context, caption, data_text, settings_caption
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.parts import AGAINST, Band, Cell, Column, Group, Row, Span
from lpmoe_bench.tables.rows import host, is_partial, row_labels, trainable
from method_zoo.errors import unknown

# Wide tables: test sets side by side, for rows that share everything else.


Key = tuple[str, ...]


def widen(groups: Sequence[Group]) -> list[Group]:
    """Join the groups of each task that differ in the test set alone; others stay as they are."""
    alike: dict[Context, list[Group]] = {}
    for group in groups:
        key = replace(group.context, test_set="", test_digest="")
        alike.setdefault(key, []).append(group)
    bundles = [bundle for same in alike.values() for bundle in _bundles(same)]
    return [_own(parts) if len(parts) > 1 else parts[0] for parts in bundles]


def _bundles(groups: Sequence[Group]) -> list[list[Group]]:
    """Part groups so that no test set stands twice: one name may hold two contents.

    Groups that share rows stay together.
    """
    bundles: list[list[Group]] = []
    for group in groups:
        rows, name = {row_key(row) for row in group.rows}, group.context.test_set
        free = [one for one in bundles if all(part.context.test_set != name for part in one)]
        kin = [one for one in free if any(row_key(r) in rows for part in one for r in part.rows)]
        if kin or free:
            (kin or free)[0].append(group)
        else:
            bundles.append([group])
    return bundles


def _own(parts: Sequence[Group]) -> Group:
    """Join tables of records: rows are labelled and ordered anew, for more stand together."""
    tests = [part.context.test_set for part in parts]
    records = [record for part in parts for row in part.rows for record in row.records]
    words = caption(parts[0].context, host(records), tests)
    wide = join_groups(parts, tests, words)
    own = [row for row in wide.rows if row.origin is None]
    labels = row_labels([row.records[0] for row in own])
    own = [replace(row, label=label) for row, label in zip(own, labels, strict=True)]
    own.sort(key=lambda row: (trainable(row.records[0]), row.label))
    rows = (*own, *(row for row in wide.rows if row.origin is not None))
    return replace(wide, rows=rows, footer=(*wide.footer, *_gaps(own, parts)))


def join_groups(parts: Sequence[Group], titles: Sequence[str], words: str) -> Group:
    """Put tables side by side under a head each; columns that are no scores stand once.

    A row of one table is that of another where method and fingerprint agree, or source and label;
    its cells are empty in tables that lack it.
    """
    left, right = _shared(parts)
    scores = [[column for column in part.columns if column.is_score] for part in parts]
    keys = list(dict.fromkeys(row_key(row) for part in parts for row in part.rows))
    by_key = [{row_key(row): row for row in part.rows} for part in parts]
    rows = []
    for key in keys:
        found = [rows_of.get(key) for rows_of in by_key]
        most = max(filter(None, found), key=lambda row: len(row.records))
        cells = [_first(parts, found, column) for column in left]
        for part, row, columns in zip(parts, found, scores, strict=True):
            cells += [_cell(part, row, column) for column in columns]
        cells += [_first(parts, found, column) for column in right]
        rows.append(replace(most, cells=tuple(cells)))
    spans = [Span(t, len(columns)) for t, columns in zip(titles, scores, strict=True)]
    first = parts[0].context
    return Group(
        replace(first, test_set=", ".join(titles), test_digest=""),
        (*left, *(column for columns in scores for column in columns), *right),
        tuple(rows),
        words,
        said_of(parts, titles),
        tuple(span for span in (Span("", len(left)), *spans, Span("", len(right))) if span.columns),
        tuple(parts),
        tuple(dict.fromkeys(line for part in parts for line in part.sources)),
    )


def row_key(row: Row) -> Key:
    """Return what makes a row of one test set that of another: see `join`."""
    if row.origin is not None:
        return "published", row.origin.table, row.label
    first = row.records[0]
    if first.kind == "score":  # the fingerprint of maps is that of one test set's
        return "score", first.method.name, row.label.partition(" (")[0]
    return first.kind, first.method.name, first.fingerprint


def _shared(parts: Sequence[Group]) -> tuple[list[Column], list[Column]]:
    """Return the columns that are no scores, those before the scores and those behind."""
    left: dict[str, Column] = {}
    right: dict[str, Column] = {}
    for part in parts:
        side = left
        for column in part.columns:
            if column.is_score:
                side = right
            else:
                side.setdefault(column.key, column)
    return list(left.values()), [c for key, c in right.items() if key not in left]


def _first(parts: Sequence[Group], rows: Sequence[Row | None], column: Column) -> Cell:
    cells = (_cell(part, row, column) for part, row in zip(parts, rows, strict=True))
    return next((cell for cell in cells if cell.values), Cell(()))


def _cell(part: Group, row: Row | None, column: Column) -> Cell:
    keys = [one.key for one in part.columns]
    if row is None or column.key not in keys:
        return Cell(())
    return row.cells[keys.index(column.key)]


def said_of(parts: Sequence[Group], titles: Sequence[str]) -> tuple[str, ...]:
    """Return each line below the parts once, the test sets before it where it is not of all."""
    found: dict[str, list[str]] = {}
    for title, part in zip(titles, parts, strict=True):
        for line in dict.fromkeys(part.footer):
            found.setdefault(line, []).append(title)
    return tuple(
        line if len(of) == len(parts) else f"{', '.join(of)}: {line}" for line, of in found.items()
    )


def _gaps(rows: Sequence[Row], parts: Sequence[Group]) -> Iterable[str]:
    """Say where a row lacks a test set, images of it, or some of its seeds."""
    for part in parts:
        test = part.context.test_set
        by_key = {row_key(row): row for row in part.rows}
        absent = [row.label for row in rows if row_key(row) not in by_key]
        if absent:
            yield f"No record of {test}: {', '.join(absent)}."
        yield from _each(rows, by_key, test, _coverage)
        yield from _each(rows, by_key, test, _fewer)


def _each(
    rows: Sequence[Row], by_key: dict[Key, Row], test: str, say: Callable[[Row, Row, str], str]
) -> Iterable[str]:
    pairs = [(row, by_key[row_key(row)]) for row in rows if row_key(row) in by_key]
    return filter(None, (say(row, own, test) for row, own in pairs))


def _coverage(row: Row, own: Row, test: str) -> str:
    first = own.records[0]
    if not is_partial(first, test):
        return ""
    counts = first.counts[test]
    return f"{row.label} has {counts['images']} of {counts['expected']} images of {test}."


def _fewer(row: Row, own: Row, test: str) -> str:
    n, most = len(own.records), len(row.records)
    return f"{row.label} has {n} of its {most} seeds on {test}." if n < most else ""


# Stacked tables: test sets of any tasks one below the other, under the scores of all of them.


# What stacked tables share: all of a context but the task, its data, protocol and loss.
BUDGET = ("backbone", "backbone_weights", "decoder", "decoder_options", "decoder_weights", "size")
BUDGET += ("epochs", "steps", "batch", "limit_train")


def stack(groups: Sequence[Group]) -> list[Group]:
    """Join tables of one backbone and budget, a band of rows each; others stay apart.

    A column is that of another table where keys agree, in percent where any protocol has it so. A
    row has no number, and no mark of a missing one, where its own table has no such column. Ranks
    are within a band.
    """
    alike: dict[Context, list[Group]] = {}
    for group in groups:
        alike.setdefault(_budget(group.context), []).append(group)
    return [_stacked(parts) if len(parts) > 1 else parts[0] for parts in alike.values()]


def metrics_each(
    records: Mapping[Context, Sequence[Record]], wanted: Sequence[str] | None
) -> dict[Context, Sequence[str] | None]:
    """Return the wanted metrics that each table has; None, its protocol's, where it has none.

    Raises UsageError for a metric that no table has.
    """
    if wanted is None or list(wanted) == ["all"]:
        return dict.fromkeys(records, wanted)
    present = {
        context: {key for record in kept for key in record.scores[context.test_set]}
        for context, kept in records.items()
    }
    known = sorted(set().union(*present.values()))
    for key in wanted:
        if key not in known:
            refuse_ambiguous(key)
            raise UsageError(unknown("metric of these test sets", key, known))
    return {
        context: [key for key in wanted if key in own] or None for context, own in present.items()
    }


def _budget(context: Context) -> Context:
    """Return the context less what belongs to a task and its data."""
    return Context("", "", **{name: getattr(context, name) for name in BUDGET})


def _stacked(parts: Sequence[Group]) -> Group:
    budget = _budget(parts[0].context)
    titles = [f"{part.context.task}: {part.context.test_set}" for part in parts]
    columns = _union(parts)
    tasks = list(dict.fromkeys(part.context.task for part in parts))
    words = f"{len(parts)} test sets of {', '.join(tasks)}. "
    footer = (*_data_lines(parts), *said_of(parts, _names(parts)))
    return Group(
        replace(budget, task=", ".join(tasks), test_set=", ".join(titles)),
        tuple(columns),
        tuple(_aligned(row, part.columns, columns) for part in parts for row in part.rows),
        words + settings_caption(budget, _host_of(parts[0])),
        footer,
        parts=tuple(parts),
        sources=tuple(dict.fromkeys(line for part in parts for line in part.sources)),
        bands=tuple(Band(t, len(part.rows)) for t, part in zip(titles, parts, strict=True)),
    )


def _host_of(part: Group) -> Record:
    return host([record for row in part.rows for record in row.records])


def _names(parts: Sequence[Group]) -> list[str]:
    """Return the test sets, with their task where two tasks have one of that name."""
    counted = Counter(part.context.test_set for part in parts)
    found = [(part.context.test_set, part.context.task) for part in parts]
    return [f"{test} ({task})" if counted[test] > 1 else test for test, task in found]


def _data_lines(parts: Sequence[Group]) -> Iterable[str]:
    return dict.fromkeys(data_text(part.context, _host_of(part)) for part in parts)


def _union(parts: Sequence[Group]) -> list[Column]:
    """Return the columns of all parts: those before the scores, the scores, those behind.

    Scores are in one order whatever the protocols' own is, each with its verdicts behind it.
    """
    scores = {column.key for part in parts for column in part.columns if column.is_score}
    known = [key for key in known_metrics() if key in scores]
    places: dict[str, tuple[tuple[int, int, bool], Column]] = {}
    for part in parts:
        side = 0
        for column in part.columns:
            of, judges = column.key.removesuffix(AGAINST), column.key.endswith(AGAINST)
            side = 1 if of in scores else 2 if side else 0
            order = known.index(of) if of in known else len(known) * (side == 1)
            place, other = places.get(column.key, ((side, order, judges), column))
            places[column.key] = place, max(other, column, key=lambda one: one.scale)
    return [column for _, column in sorted(places.values(), key=lambda one: one[0])]


def _aligned(row: Row, own: Sequence[Column], columns: Sequence[Column]) -> Row:
    cells = dict(zip([column.key for column in own], row.cells, strict=True))
    absent = Cell((), absent=True)
    return replace(row, cells=tuple(cells.get(column.key, absent) for column in columns))
