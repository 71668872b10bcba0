"""The rows of a table: a method's seeds together, their labels, cells, marks and order."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lpmoe_bench.config.settings import LAST
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.context import Context, decoder_text, flat, own_settings, plain, test_facts
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.parts import EMPTY, Cell, CellCounts, Column, Group, Row, ShortNote, require
from method_zoo.options import list_methods
from method_zoo.plugins import SINGULAR

MOST_FAILED = 8  # cells that a line names
NamedRows = Sequence[tuple[str, Sequence[Record]]]


def place_map_rows(by_context: Mapping[Context, Sequence[Record]]) -> dict[Context, list[Record]]:
    """Put records of scored maps beside all runs on the same test set under the same protocol.

    How maps were made is not known, so that nothing else can agree; test set and protocol are equal
    by their digests. Where there is no such run they keep a table of their own.
    """

    def data(context: Context) -> tuple[str, ...]:
        return context.task, context.test_set, context.test_digest, context.protocol_hash

    maps = {c for c, records in by_context.items() if all(r.kind == "score" for r in records)}
    placed = {c: list(records) for c, records in by_context.items() if c not in maps}
    runs: dict[tuple[str, ...], list[Context]] = {}
    for context in placed:
        runs.setdefault(data(context), []).append(context)
    for context in maps:
        for place in runs.get(data(context), [context]):
            placed.setdefault(place, []).extend(by_context[context])
    return placed


def is_partial(record: Record, test: str) -> bool:
    """Whether a record lacks images of the test set."""
    counts = record.counts.get(test, {})
    return counts.get("images", 0) < counts.get("expected", 0)


def first_run(records: Sequence[Record]) -> Record:
    """Return the record whose facts a caption says: a run's where there is one."""
    return next((record for record in records if record.kind != "score"), records[0])


def trainable(record: Record) -> float:
    """Return how many parameters train; infinity where nobody says."""
    return record.parameters.trainable if record.parameters else math.inf


def newest(records: list[Record]) -> list[Record]:
    """Keep one record of each fingerprint and seed: the newest."""
    newest: dict[tuple[str, str, int | None], Record] = {}
    # A later record takes the place of an earlier one, which `footer` counts.
    for record in sorted(records, key=lambda record: record.created):
        key = record.method.name, record.fingerprint, record.seed
        if (old := newest.get(key)) and old.created == record.created:
            both = old.scores.keys() & record.scores.keys()
            if any(old.scores[test] != record.scores[test] for test in both):
                raise DataError(
                    f"two records of {record.id} were both made {record.created}, with other "
                    f"scores, so none is the newest; remove the copy that was changed"
                )
        newest[key] = record
    return list(newest.values())


def make_rows(
    records: Sequence[Record], columns: Sequence[Column], test: str, rename: Mapping[str, str]
) -> list[Row]:
    """Return one row for each method and fingerprint, in the order of trainable parameters."""
    runs: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda record: record.seed or 0):
        runs.setdefault((record.method.name, record.fingerprint), []).append(record)
    # Where some images are missing, the label says so.
    labels = row_labels([seeds[0] for seeds in runs.values()], rename)
    rows = []
    for label, seeds in zip(labels, runs.values(), strict=True):
        if is_partial(seeds[0], test):
            counts = seeds[0].counts[test]
            label = f"{label} ({counts['images']}/{counts['expected']} images)"
        if len(codes := seeds_by_code(seeds)) > 1:
            label = f"{label} (seeds of {len(codes)} codes)"
        rows.append(Row(label, tuple(seeds), tuple(make_cell(seeds, c, test) for c in columns)))
    # By size and then by name: no score decides where a method stands.
    return sorted(rows, key=lambda row: (trainable(row.records[0]), row.label))


def seeds_by_code(seeds: Iterable[Record]) -> dict[str, list[str]]:
    """Return {digest of the code of method, decoder and loss: seeds}, of records that know it."""
    found: dict[str, list[str]] = {}
    for record in seeds:
        if record.code is not None:
            found.setdefault(record.code.digest, []).append(str(record.seed))
    return found


def make_cell(seeds: Sequence[Record], column: Column, test: str) -> Cell:
    """Return the cell of a row's records; empty where any of them lacks the value."""
    values = [column.value(record, test) for record in seeds]
    usable = tuple(value for value in values if value is not None and math.isfinite(value))
    # A mean over some of the seeds only would stand beside means over all of them.
    return Cell(usable) if len(usable) == len(values) else EMPTY


def row_labels(records: Sequence[Record], rename: Mapping[str, str]) -> list[str]:
    """Return one label a record: its method's title, with what differs where titles are equal.

    Where decoders differ, which only a table that mixes them has, a row names another than most's.
    `rename` has other titles by the method's name or title, and other labels.
    """
    alike: dict[str, list[int]] = {}
    for place, method in enumerate(record.method for record in records):
        new = {rename[name] for name in (method.name, method.title) if rename.get(name)}
        if len(new) > 1:
            raise UsageError(
                f"{method.name} and {method.title} are one method, and --rename has the texts "
                f"{' and '.join(map(repr, sorted(new)))} for it; give one"
            )
        title = next(iter(new), method.title)
        alike.setdefault(title, []).append(place)
    usual, labels = usual_decoder(records), [""] * len(records)
    for title, places in alike.items():
        told = _differences([records[place] for place in places]) if places[1:] else [[]]
        for place, words in zip(places, told, strict=True):
            label = f"{title} ({', '.join(words)})" if words else title
            decoder = decoder_text(records[place])
            label += f" (decoder {decoder})" if decoder not in ("", usual) else ""
            label += " (imported)" if records[place].imported else ""
            labels[place] = rename.get(label, label)
    return labels


def usual_decoder(records: Sequence[Record]) -> str:
    """Return the decoder that most records have, the first of equals by name."""
    counted = Counter(sorted(filter(None, map(decoder_text, records))))
    return counted.most_common(1)[0][0] if counted else ""


def _differences(alike: Sequence[Record]) -> list[list[str]]:
    """Return for each record the settings in which they differ; else its fingerprint."""
    words: list[list[str]] = [[] for _ in alike]
    for settings in ([flat(r.method.options) for r in alike], [own_settings(r) for r in alike]):
        for key in varying(settings):
            for told, own in zip(words, settings, strict=True):
                told += [f"{key.removeprefix('train.')}={plain(own[key])}"] if key in own else []
    # Runs may differ in data or weights alone, of which no setting tells.
    twice = Counter(map(tuple, words))
    for told, record in zip(words, alike, strict=True):
        if twice[tuple(told)] > 1:
            told.append(record.fingerprint[:8])
    return words


def varying(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys under which not all have the same value."""
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({repr(one.get(key)) for one in settings}) > 1]


def plugin_notes(records: Sequence[Record]) -> list[str]:
    """Say which methods, decoders and losses are plug-ins, and where runs had several sources."""
    origins: dict[str, dict[str, None]] = {}
    for record in records:
        for one in record.plugins:
            what = f"{SINGULAR[one.kind]} {one.name}"
            origins.setdefault(what, {})[one.origin] = None
    return [
        f"{what} is a plug-in: {next(iter(found))}"
        if len(found) == 1
        else f"{what} is a plug-in, and its records were made by several sources: "
        f"{', '.join(sorted(found))}"
        for what, found in sorted(origins.items())
    ]


def mark_best(rows: Sequence[Row], columns: Sequence[Column], test: str) -> tuple[Row, ...]:
    """Mark the best and the second of each score, with ties at the precision that is printed.

    Where all are alike none is marked. Rows that lack images of the test set take no part, and none
    of one seed where any has several: luck with one seed must not stand above a mean.
    """
    least = 2 if any(len(row.records) > 1 for row in rows) else 1
    cells = [list(row.cells) for row in rows]
    ranked = [
        own
        for row, own in zip(rows, cells, strict=True)
        if len(row.records) >= least and not any(is_partial(r, test) for r in row.records)
    ]
    for index, column in enumerate(columns):
        if column.higher_is_better is None:
            continue
        # What prints alike is equal: a bold 0.750 beside a plain one would be no reader's best.
        shown = [
            (round(mean * column.scale, column.decimals), own)
            for own in ranked
            if (mean := own[index].mean) is not None
        ]
        best = sorted({value for value, _ in shown}, reverse=column.higher_is_better)
        for value, own in shown if len(best) > 1 else ():
            if value in best[:2]:
                mark = "best" if value == best[0] else "second"
                own[index] = replace(own[index], mark=mark)
    return tuple(replace(row, cells=tuple(own)) for row, own in zip(rows, cells, strict=True))


def arrange(groups: Sequence[Group], sort: str | None, order: Sequence[str]) -> list[Group]:
    """Order rows by one column, the best first, or the largest where none is better.

    Published rows stay below, in the same order, and groups without the column as they are. Rows
    that `order` names come first, as it has them. Raises UsageError where no group has them.
    """
    keys = {column.key for group in groups for column in group.columns}
    names = {name for group in groups for row in group.rows for name in row.names}
    require("column to sort by", [sort] if sort else [], keys)
    require("row to put first", order, names | {*list_methods()})
    return [replace(group, rows=tuple(_ordered(group, sort, order))) for group in groups]


def _ordered(group: Group, sort: str | None, order: Sequence[str]) -> list[Row]:
    keys = [column.key for column in group.columns]
    index = keys.index(sort) if sort in keys else None
    places = {name: place for place, name in reversed([*enumerate(order)])}

    def key(row: Row) -> tuple[bool, int, bool, float, str]:
        place = min(places.get(name, len(order)) for name in row.names)
        if index is None:
            return row.origin is not None, place, False, 0.0, ""
        sign = 1 if group.columns[index].higher_is_better is False else -1
        value = row.cells[index].mean
        return row.origin is not None, place, value is None, sign * (value or 0.0), row.label

    return sorted(group.rows, key=key) if order or index is not None else list(group.rows)


def precision_words(rows: NamedRows) -> str:
    """Say in a caption which rows hold maps scored in more than 8 bits; empty for none."""
    names = {"uint16": "16 bits", "float": "floats"}
    wide = [f"{label} ({names[own[0].maps]})" for label, own in rows if own[0].maps in names]
    return f" Maps scored in their own precision: {', '.join(wide)}." if wide else ""


# The lines below a table.


def footer(context: Context, rows: NamedRows, dropped: int, costs: bool, sd: bool) -> Iterator[str]:
    """Yield the lines below a table: protocol, weights, records and whatever is unusual.

    `dropped` counts the records that newer ones replace; `costs` and `sd` say what is shown.
    """
    records = [record for _, seeds in rows for record in seeds]
    yield f"Protocol {context.protocol} v{context.protocol_version} ({context.protocol_hash[:8]})."
    if context.backbone:
        words = f"Weights of {context.backbone}: {(context.backbone_weights or 'unknown')[:8]}"
        notes = "; ".join(
            dict.fromkeys(r.backbone.note for r in records if r.backbone and r.backbone.note)
        )
        yield words + (f" ({notes})." if notes else ".")
    yield ShortNote(_counted(rows, records, sd))
    if len({decoder_text(record) for record in records if record.decoder}) > 1:
        yield ShortNote(f"Decoder {usual_decoder(records)} where a row names none.")
    # Settings that differ between rows, such as learning rates from presets.
    runs = [(label, own_settings(own[0])) for label, own in rows if own[0].kind != "score"]
    for key in varying([settings for _, settings in runs]):
        by_value: dict[str, list[str]] = {}
        for label, own in runs:
            by_value.setdefault(plain(own.get(key)), []).append(label)
        values = "; ".join(f"{value} for {', '.join(names)}" for value, names in by_value.items())
        yield f"{key.removeprefix('train.')}: {values}."
    budgets = [(label, own[0].config.get("train") or {}) for label, own in rows]
    unpicked = [label for label, budget in budgets if budget.get("select") == LAST]
    if unpicked:
        names = ", ".join(unpicked)
        yield f"Trained on all images, the last state kept, nothing picked on validation: {names}."
    first, test = first_run(records), context.test_set
    counts, facts = first.counts.get(test, {}), test_facts(first, test)
    if left_out := counts.get("images", 0) - counts.get("scored", counts.get("images", 0)):
        which = "without a labelled pixel" if counts.get("all_void") else "with an empty mask"
        yield f"{left_out} images {which} are left out, as the protocol says."
    if facts and facts.generated:
        yield ShortNote("Generated images: these numbers are comparable with no published ones.")
    if (opened := max(record.test_opened for record in records)) > 1:
        yield f"The test images were opened up to {opened} times for one record."
    if dirty := sum(bool(record.environment.git_dirty) for record in records):
        yield f"Made by code that differs from its commit: {counted(dirty, 'record')}."
    for label, own in rows:
        if len(codes := seeds_by_code(own)) > 1:
            parts = [f"seed {', '.join(seeds)} by {digest[:8]}" for digest, seeds in codes.items()]
            yield (
                f"The seeds of {label} were made by different code of method, decoder or loss, so "
                f"that their spread is not of seeds alone: {'; '.join(parts)}."
            )
    if dropped:
        gone = counted(dropped, "record")
        yield f"Left out, for the newest of one fingerprint and seed wins: {gone}."
    if costs:
        devices = sorted({f"{r.environment.device} ({r.environment.cpu})" for r in records})
        yield f"Measured on {' and '.join(devices)}."
    if maps := ", ".join(label for label, own in rows if own[0].kind == "score"):
        yield ShortNote(f"Maps from a folder, how they were made is not recorded: {maps}.")
    if names := ", ".join(label for label, own in rows if own[0].imported):
        yield ShortNote(f"Imported from an author's checkpoint, not trained here: {names}.")
    if any(is_partial(record, test) for record in records):
        line = "Rows that lack images of the test set take no part in bold and underline."
        yield ShortNote(line)


def _counted(rows: NamedRows, records: Sequence[Record], sd: bool) -> str:
    seeds = sorted({record.seed for record in records if record.seed is not None})
    words = counted(len(records), "record")
    if seeds:
        words += f", seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    words += "."
    several = sum(len(own) > 1 for _, own in rows)
    if several:
        words += f" Mean{' ± standard deviation' if sd else ''} over n seeds."
    if several == 1 < len(rows):
        return words + " None is marked as best, for one row alone has several seeds."
    among = " among rows of several seeds" if 0 < several < len(rows) else ""
    return words + (f" Best bold, second underlined{among}." if len(rows) > 1 else "")


def counted_cells(cells: CellCounts) -> ShortNote:
    """Say how much of the sweeps is there, and which cells failed: a part is not the whole."""
    words = f"{cells.finished}/{cells.declared} cells of the sweeps here"
    if cells.failed:
        names = list(cells.failed)[:MOST_FAILED]
        more = len(cells.failed) - len(names)
        names += [f"{more} more"] if more else []
        words += f", {len(cells.failed)} failed: {', '.join(names)}"
    return ShortNote(words + ".")


def counted(count: int, word: str) -> str:
    """Return a number with its word: 1 record, 2 records."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def each_once(
    parts: Sequence[Group], titles: Sequence[str], lines: Callable[[Group], Sequence[str]]
) -> tuple[str, ...]:
    """Return the lines of joined tables, each once, its test sets before it if it is not of all."""
    found: dict[str, list[str]] = {}
    for title, part in zip(titles, parts, strict=True):
        for line in dict.fromkeys(lines(part)):
            found.setdefault(line, []).append(title)
    return tuple(
        type(line)(line if len(of) == len(parts) else f"{', '.join(of)}: {line}")
        for line, of in found.items()
    )
