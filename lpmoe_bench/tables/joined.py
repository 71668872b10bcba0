"""Tables joined: test sets side by side where rows share all else, or one below the other."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.records.context import Context, caption, data_text, settings_caption
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables import rows as table_rows
from lpmoe_bench.tables.parts import (
    ABSENT,
    AGAINST,
    EMPTY,
    Cell,
    Column,
    Group,
    Row,
    ShortNote,
    Span,
    require,
)

# What tables one below the other share: all of a context but the task, its data, protocol and loss.
BUDGET = ("backbone", "backbone_weights", "decoder", "decoder_options", "decoder_weights", "size")
BUDGET += ("epochs", "steps", "batch", "limit_train")


def widen(groups: Sequence[Group], rename: Mapping[str, str]) -> list[Group]:
    """Join the groups of each task that differ in the test set alone; others stay as they are."""
    alike: dict[Context, list[list[Group]]] = {}
    for group in groups:
        # No test set may stand twice, for one name may hold two contents; shared rows come first.
        tables = alike.setdefault(replace(group.context, test_set="", test_digest=""), [])
        name, rows = group.context.test_set, {row.key for row in group.rows}
        free = [one for one in tables if all(part.context.test_set != name for part in one)]
        shared = [one for one in free if any(r.key in rows for part in one for r in part.rows)]
        if shared or free:
            (shared or free)[0].append(group)
        else:
            tables.append([group])
    joined = [parts for tables in alike.values() for parts in tables]
    return [_of_records(parts, rename) if parts[1:] else parts[0] for parts in joined]


def _of_records(parts: Sequence[Group], rename: Mapping[str, str]) -> Group:
    """Join tables of records: rows are labelled and ordered anew, for more stand together."""
    tests = [part.context.test_set for part in parts]
    records = [record for part in parts for row in part.rows for record in row.records]
    words = caption(parts[0].context, table_rows.first_run(records), tests)
    wide = join_sets(parts, tests, words)
    own = [row for row in wide.rows if row.origin is None]
    labels = table_rows.row_labels([row.records[0] for row in own], rename)
    own = [replace(row, label=label) for row, label in zip(own, labels, strict=True)]
    own.sort(key=lambda row: (table_rows.trainable(row.records[0]), row.label))
    rows = (*own, *(row for row in wide.rows if row.origin is not None))
    return replace(wide, rows=rows, footer=(*wide.footer, *_gaps(own, parts)))


def join_sets(parts: Sequence[Group], titles: Sequence[str], words: str) -> Group:
    """Put tables side by side under a head each; columns that are no scores stand once.

    A row of one table is that of another where their keys agree; its cells are empty in tables
    that lack it.
    """
    left: dict[str, Column] = {}  # before the scores
    right: dict[str, Column] = {}  # behind them
    scores: list[Column] = []
    cells: dict[tuple[str, ...], dict[tuple[str, str], Cell]] = {}
    rows: dict[tuple[str, ...], Row] = {}
    for title, part in zip(titles, parts, strict=True):
        side, columns = left, []
        for column in part.columns:
            columns.append(replace(column, head=title) if column.is_score else column)
            if column.is_score:
                side = right
                scores.append(columns[-1])
            else:
                side.setdefault(column.key, column)
        for row in part.rows:
            rows[row.key] = max(rows.get(row.key, row), row, key=lambda one: len(one.records))
            found = cells.setdefault(row.key, {})
            for column, cell in zip(columns, row.cells, strict=True):
                if cell.values:
                    found.setdefault((column.head, column.key), cell)
    behind = [column for key, column in right.items() if key not in left]
    columns = (*left.values(), *scores, *behind)
    return Group(
        replace(parts[0].context, test_set=", ".join(titles), test_digest=""),
        columns,
        tuple(
            replace(row, cells=tuple(cells[key].get((c.head, c.key), EMPTY) for c in columns))
            for key, row in rows.items()
        ),
        words,
        table_rows.each_once(parts, titles, lambda part: part.footer),
        tuple(parts),
        tuple(dict.fromkeys(line for part in parts for line in part.sources)),
    )


def _gaps(rows: Sequence[Row], parts: Sequence[Group]) -> Iterable[str]:
    """Say where a row lacks a test set, images of it, or some of its seeds."""
    for part in parts:
        test = part.context.test_set
        own = {row.key: row.records for row in part.rows}
        here = [(row, own[row.key]) for row in rows if row.key in own]
        if absent := [row.label for row in rows if row.key not in own]:
            yield ShortNote(f"No record of {test}: {', '.join(absent)}.")
        for row, records in here:
            if table_rows.is_partial(records[0], test):
                counts = records[0].counts[test]
                words = f"{row.label} has {counts['images']} of {counts['expected']} images"
                yield ShortNote(f"{words} of {test}.")
        for row, records in here:
            n, most = len(records), len(row.records)
            if n < most:
                yield ShortNote(f"{row.label} has {n} of its {most} seeds on {test}.")


def stack(groups: Sequence[Group]) -> list[Group]:
    """Put tables of one backbone and budget one below the other, a band of rows each.

    A column is that of another table where keys agree, in percent where any protocol has it so. A
    row has no number, and no mark of a missing one, where its own table has no such column. Ranks
    are within a band.
    """
    alike: dict[Context, list[Group]] = {}
    for group in groups:
        alike.setdefault(_budget(group.context), []).append(group)
    return [_stacked(parts) if parts[1:] else parts[0] for parts in alike.values()]


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
    require("metric of these test sets", wanted, known, metrics=True)
    return {
        context: [key for key in wanted if key in own] or None for context, own in present.items()
    }


def _budget(context: Context) -> Context:
    """Return the context less what belongs to a task and its data."""
    return Context("", "", **{name: getattr(context, name) for name in BUDGET})


def _stacked(parts: Sequence[Group]) -> Group:
    contexts, columns = [part.context for part in parts], _union(parts)
    titles = [f"{context.task}: {context.test_set}" for context in contexts]
    firsts = [table_rows.first_run([r for row in p.rows for r in row.records]) for p in parts]
    tasks = ", ".join(dict.fromkeys(context.task for context in contexts))
    # A test set is named with its task where two tasks have one of that name.
    tests = Counter(context.test_set for context in contexts)
    names = [c.test_set + f" ({c.task})" * (tests[c.test_set] > 1) for c in contexts]
    data = dict.fromkeys(map(data_text, contexts, firsts))
    budget = _budget(contexts[0])
    rows = []
    for part in parts:
        keys = [column.key for column in part.columns]
        for row in part.rows:
            cells = dict(zip(keys, row.cells, strict=True))
            rows.append(replace(row, cells=tuple(cells.get(c.key, ABSENT) for c in columns)))
    return Group(
        replace(budget, task=tasks, test_set=", ".join(titles)),
        tuple(columns),
        tuple(rows),
        f"{len(parts)} test sets of {tasks}. {settings_caption(budget, firsts[0])}",
        (*data, *table_rows.each_once(parts, names, lambda part: part.footer)),
        tuple(parts),
        tuple(dict.fromkeys(line for part in parts for line in part.sources)),
        tuple(Span(title, len(part.rows)) for title, part in zip(titles, parts, strict=True)),
    )


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
