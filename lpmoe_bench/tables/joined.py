"""Tables joined: test sets side by side where rows share all else, or one below the other."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.records.context import Context, caption, data_text, settings_caption
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables import parts
from lpmoe_bench.tables import rows as table_rows

# What tables one below the other share: all of a context but the task, its data, protocol and loss.
BUDGET = ("backbone", "backbone_weights", "decoder", "decoder_options", "decoder_weights", "size")
BUDGET += ("epochs", "steps", "batch", "limit_train")


def widen(groups: Sequence[parts.Group], rename: Mapping[str, str]) -> list[parts.Group]:
    """Join the groups of each task that differ in the test set alone; others stay as they are."""
    return [
        _of_records(singles, rename) if singles[1:] else singles[0] for singles in of_tasks(groups)
    ]


def of_tasks(groups: Sequence[parts.Group]) -> list[list[parts.Group]]:
    """Return the groups that differ in the test set alone, those of each task together."""
    alike: dict[Context, list[list[parts.Group]]] = {}
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
    return [singles for tables in alike.values() for singles in tables]


def _of_records(singles: Sequence[parts.Group], rename: Mapping[str, str]) -> parts.Group:
    """Join tables of records: rows are labelled and ordered anew, for more stand together."""
    tests = [part.context.test_set for part in singles]
    records = [record for part in singles for row in part.rows for record in row.records]
    groups = {part.context.test_set: part.image_groups for part in singles}
    words = caption(singles[0].context, table_rows.first_run(records), groups)
    wide = join_sets(singles, tests, words)
    own = [row for row in wide.rows if row.origin is None]
    labels = table_rows.row_labels([row.records[0] for row in own], rename)
    own = [replace(row, label=label) for row, label in zip(own, labels, strict=True)]
    named = [(row.label, row.records) for row in own]
    wide = replace(wide, caption=wide.caption + table_rows.precision_words(named))
    own.sort(key=lambda row: (table_rows.trainable(row.records[0]), row.label))
    rows = (*own, *(row for row in wide.rows if row.origin is not None))
    return replace(wide, rows=rows, footer=(*wide.footer, *_gaps(own, singles)))


def join_sets(singles: Sequence[parts.Group], titles: Sequence[str], words: str) -> parts.Group:
    """Put tables side by side under a head each; columns that are no scores stand once.

    A row of one table is that of another where their keys agree; its cells are empty in tables
    that lack it.
    """
    left: dict[str, parts.Column] = {}  # before the scores
    right: dict[str, parts.Column] = {}  # behind them
    scores: list[parts.Column] = []
    cells: dict[tuple[str, ...], dict[tuple[str, str], parts.Cell]] = {}
    rows: dict[tuple[str, ...], parts.Row] = {}
    for title, part in zip(titles, singles, strict=True):
        side, columns = left, []
        for column in part.columns:
            columns.append(replace(column, head=title) if column.is_score else column)
            if column.is_score:
                side = right
                scores.append(columns[-1])
            else:
                side.setdefault(column.key, column)
        for row in part.rows:
            # The row with the most seeds speaks for all, of equal ones the first.
            rows[row.key] = max(rows.get(row.key, row), row, key=lambda one: len(one.records))
            found = cells.setdefault(row.key, {})
            for column, cell in zip(columns, row.cells, strict=True):
                if cell.values:
                    # Columns that are no score are equal in all tables,
                    # so the first one that has a value will do.
                    found.setdefault((column.head, column.key), cell)
    behind = [column for key, column in right.items() if key not in left]
    columns = (*left.values(), *scores, *behind)
    return parts.Group(
        replace(singles[0].context, test_set=", ".join(titles), test_digest=""),
        columns,
        tuple(
            replace(row, cells=tuple(cells[key].get((c.head, c.key), parts.EMPTY) for c in columns))
            for key, row in rows.items()
        ),
        words,
        table_rows.each_once(singles, titles, lambda part: part.footer),
        tuple(singles),
        tuple(dict.fromkeys(line for part in singles for line in part.sources)),
    )


def _gaps(rows: Sequence[parts.Row], singles: Sequence[parts.Group]) -> Iterable[str]:
    """Say where a row lacks a test set, images of it, or some of its seeds."""
    for part in singles:
        test = part.context.test_set
        own = {row.key: row.records for row in part.rows}
        here = [(row, own[row.key]) for row in rows if row.key in own]
        if absent := [row.label for row in rows if row.key not in own]:
            yield parts.ShortNote(f"No record of {test}: {', '.join(absent)}.")
        for row, records in here:
            if table_rows.is_partial(records[0], test):
                counts = records[0].counts[test]
                words = f"{row.label} has {counts['images']} of {counts['expected']} images"
                yield parts.ShortNote(f"{words} of {test}.")
        for row, records in here:
            n, most = len(records), len(row.records)
            if n < most:
                yield parts.ShortNote(f"{row.label} has {n} of its {most} seeds on {test}.")


def stack(groups: Sequence[parts.Group]) -> list[parts.Group]:
    """Put tables of one backbone and budget one below the other, a band of rows each.

    A column is that of another table where keys agree, in percent where any protocol has it so. A
    row has no number, and no mark of a missing one, where its own table has no such column. Ranks
    are within a band.
    """
    alike: dict[Context, list[parts.Group]] = {}
    for group in groups:
        alike.setdefault(_budget(group.context), []).append(group)
    return [_stacked(singles) if singles[1:] else singles[0] for singles in alike.values()]


def metrics_each(
    records: Mapping[Context, Sequence[Record]], wanted: Sequence[str] | None
) -> dict[Context, Sequence[str] | None]:
    """Return the wanted metrics that each table has; None, its protocol's, where it has none.

    Raises UsageError for a metric that no table has.
    """
    if wanted is None or list(wanted) in (["all"], [parts.CLASSES]):
        return dict.fromkeys(records, wanted)
    present = {
        context: {key for record in kept for key in record.scores[context.test_set]}
        for context, kept in records.items()
    }
    known = sorted(set().union(*present.values()))
    parts.require("metric of these test sets", wanted, known, metrics=True)
    return {
        context: [key for key in wanted if key in own] or None for context, own in present.items()
    }


def _budget(context: Context) -> Context:
    """Return the context less what belongs to a task and its data."""
    return Context("", "", **{name: getattr(context, name) for name in BUDGET})


def _stacked(singles: Sequence[parts.Group]) -> parts.Group:
    contexts, columns = [part.context for part in singles], _union(singles)
    titles = [f"{context.task}: {context.test_set}" for context in contexts]
    firsts = [table_rows.first_run([r for row in p.rows for r in row.records]) for p in singles]
    tasks = ", ".join(dict.fromkeys(context.task for context in contexts))
    # A test set is named with its task where two tasks have one of that name.
    tests = Counter(context.test_set for context in contexts)
    names = [c.test_set + f" ({c.task})" * (tests[c.test_set] > 1) for c in contexts]
    groups = [part.image_groups for part in singles]
    data = dict.fromkeys(map(data_text, contexts, firsts, groups))
    budget = _budget(contexts[0])
    rows = []
    for part in singles:
        keys = [column.key for column in part.columns]
        for row in part.rows:
            cells = dict(zip(keys, row.cells, strict=True))
            rows.append(replace(row, cells=tuple(cells.get(c.key, parts.ABSENT) for c in columns)))
    return parts.Group(
        replace(budget, task=tasks, test_set=", ".join(titles)),
        tuple(columns),
        tuple(rows),
        f"{len(singles)} test sets of {tasks}. {settings_caption(budget, firsts[0])}",
        (*data, *table_rows.each_once(singles, names, lambda part: part.footer)),
        tuple(singles),
        tuple(dict.fromkeys(line for part in singles for line in part.sources)),
        tuple(
            parts.Span(title, len(part.rows)) for title, part in zip(titles, singles, strict=True)
        ),
    )


def _union(singles: Sequence[parts.Group]) -> list[parts.Column]:
    """Return the columns of all singles: those before the scores, the scores, those behind.

    Scores are in one order whatever the protocols' own is, each with its verdicts behind it.
    """
    scores = {column.key for part in singles for column in part.columns if column.is_score}
    known = [key for key in known_metrics() if key in scores]
    places: dict[str, tuple[tuple[int, int, bool], parts.Column]] = {}
    for part in singles:
        side = 0
        for column in part.columns:
            of, judges = column.key.removesuffix(parts.AGAINST), column.key.endswith(parts.AGAINST)
            side = 1 if of in scores else 2 if side else 0
            order = known.index(of) if of in known else len(known) * (side == 1)
            place, other = places.get(column.key, ((side, order, judges), column))
            places[column.key] = place, max(other, column, key=lambda one: one.scale)
    return [column for _, column in sorted(places.values(), key=lambda one: one[0])]
