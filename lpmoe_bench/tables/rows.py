"""The rows of a table: a method's seeds together, their labels, their cells and marks."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lpmoe_bench.errors import UsageError
from lpmoe_bench.records.context import Context, decoder_text, flat, own_settings, plain, test_facts
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.parts import Cell, Column, Group, Row
from method_zoo.errors import unknown

# Rows of scored maps: in the tables of the runs that they compare with, or in one of their own.


def place_map_rows(by_context: Mapping[Context, Sequence[Record]]) -> dict[Context, list[Record]]:
    """Put records of scored maps beside all runs on the same test set under the same protocol.

    How maps were made is not known, so that nothing else can agree; test set and protocol are equal
    by their digests. Where there is no such run they keep a table of their own.
    """
    own = {c: list(records) for c, records in by_context.items()}
    guests = {c for c, records in own.items() if all(r.kind == "score" for r in records)}
    seated = {c: records for c, records in own.items() if c not in guests}
    hosts = list(seated)
    for guest in guests:
        places = [host for host in hosts if _key(host) == _key(guest)]
        for place in places or [guest]:
            seated.setdefault(place, []).extend(own[guest])
    return seated


def _key(context: Context) -> tuple[str, ...]:
    return context.task, context.test_set, context.test_digest, context.protocol_hash


def is_partial(record: Record, test: str) -> bool:
    """Whether a record lacks images of the test set."""
    counts = record.counts.get(test, {})
    return counts.get("images", 0) < counts.get("expected", 0)


def with_coverage(label: str, record: Record, test: str) -> str:
    """Add to a row's label how many images of the test set there are, where some are missing."""
    if not is_partial(record, test):
        return label
    counts = record.counts[test]
    return f"{label} ({counts['images']}/{counts['expected']} images)"


def host(records: Sequence[Record]) -> Record:
    """Return the record that speaks for a table: a run's where there is one."""
    return next((record for record in records if record.kind != "score"), records[0])


def map_row_notes(rows: Iterable[tuple[str, Sequence[Record]]], test: str) -> list[str]:
    """Return what must be said below a table with scored maps."""
    rows = list(rows)
    maps = [label for label, records in rows if records[0].kind == "score"]
    partial = any(is_partial(record, test) for _, records in rows for record in records)
    lines = []
    if maps:
        lines.append(f"Maps from a folder, how they were made is not recorded: {', '.join(maps)}.")
    if partial:
        lines.append("Rows that lack images of the test set take no part in bold and underline.")
    return lines


# The words of a table: labels that tell its rows apart, and the lines below it.


NamedRows = Sequence[tuple[str, list[Record]]]


def row_labels(records: Sequence[Record]) -> list[str]:
    """Return one label a record: its method's title, with what differs where titles are equal.

    Where decoders differ, which only a table that mixes them has, a row names another than most's.
    """
    usual = _usual_decoder(records)
    labels = [_label(record, records) for record in records]
    return [
        f"{label} (decoder {own})" if (own := decoder_text(record)) not in ("", usual) else label
        for label, record in zip(labels, records, strict=True)
    ]


def _usual_decoder(records: Sequence[Record]) -> str:
    """Return the decoder that most records have, the first of equals by name."""
    counted = Counter(sorted(filter(None, map(decoder_text, records))))
    return counted.most_common(1)[0][0] if counted else ""


def _label(record: Record, records: Sequence[Record]) -> str:
    title = record.method.title
    alike = [other for other in records if other.method.title == title]
    if len(alike) == 1:
        return title
    words = _words(record, alike)
    if any(other is not record and _words(other, alike) == words for other in alike):
        words.append(record.fingerprint[:8])
    return f"{title} ({', '.join(words)})"


def _words(record: Record, alike: Sequence[Record]) -> list[str]:
    options = _differing(record, alike, lambda r: flat(r.method.options))
    return options + _differing(record, alike, own_settings)


def _differing(
    record: Record, alike: Sequence[Record], settings: Callable[[Record], dict[str, Any]]
) -> list[str]:
    own, all_settings = settings(record), [settings(other) for other in alike]
    return [
        f"{key.removeprefix('train.')}={plain(own.get(key))}"
        for key in _varying(all_settings)
        if key in own
    ]


def _varying(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({repr(one.get(key)) for one in settings}) > 1]


def footer(context: Context, rows: NamedRows, dropped: int, speeds: bool) -> list[str]:
    """Return the lines below a table: protocol, weights, records and whatever is unusual."""
    records = [record for _, seeds in rows for record in seeds]
    lines = [*_made_by(context, records), _counted(rows, records)]
    if len({decoder_text(record) for record in records if record.decoder}) > 1:
        lines.append(f"Decoder {_usual_decoder(records)} where a row names none.")
    lines += _settings(rows)
    lines += _unusual(context, records)
    if dropped:
        gone = counted(dropped, "record")
        lines.append(f"Left out, for the newest of one fingerprint and seed wins: {gone}.")
    if speeds:
        devices = sorted({f"{r.environment.device} ({r.environment.cpu})" for r in records})
        lines.append(f"Measured on {' and '.join(devices)}.")
    return lines


def counted_cells(declared: int, finished: int, failed: int) -> str:
    """Say how much of the sweeps is there: nobody may take a part for the whole."""
    words = f"{finished}/{declared} cells of the sweeps here"
    return words + (f", {failed} failed." if failed else ".")


def _made_by(context: Context, records: Sequence[Record]) -> Iterable[str]:
    name, version = context.protocol, context.protocol_version
    yield f"Protocol {name} v{version} ({context.protocol_hash[:8]})."
    if context.backbone:
        words = f"Weights of {context.backbone}: {(context.backbone_weights or 'unknown')[:8]}"
        notes = list(dict.fromkeys(r.backbone.note for r in records if r.backbone))
        yield words + (f" ({'; '.join(filter(None, notes))})." if any(notes) else ".")


def _counted(rows: NamedRows, records: Sequence[Record]) -> str:
    seeds = sorted({record.seed for record in records if record.seed is not None})
    words = counted(len(records), "record")
    if seeds:
        words += f", seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    words += "."
    if any(len(seeds_of) > 1 for _, seeds_of in rows):
        words += " Mean ± standard deviation over n seeds."
    return words + (" Best bold, second underlined." if len(rows) > 1 else "")


def counted(count: int, word: str) -> str:
    """Return a number with its word: 1 record, 2 records."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def _settings(rows: NamedRows) -> list[str]:
    """Say which recipe settings differ between rows, such as learning rates from presets."""
    rows = [(label, records) for label, records in rows if records[0].kind != "score"]
    settings = [own_settings(records[0]) for _, records in rows]
    lines = []
    for key in _varying(settings):
        by_value: dict[str, list[str]] = {}
        for (label, _), own in zip(rows, settings, strict=True):
            by_value.setdefault(plain(own.get(key)), []).append(label)
        values = "; ".join(f"{value} for {', '.join(names)}" for value, names in by_value.items())
        lines.append(f"{key.removeprefix('train.')}: {values}.")
    return lines


def _unusual(context: Context, records: Sequence[Record]) -> Iterable[str]:
    counts = host(records).counts.get(context.test_set, {})
    left_out = counts.get("images", 0) - counts.get("scored", counts.get("images", 0))
    if left_out:
        yield f"{left_out} images with an empty mask are left out, as the protocol says."
    facts = test_facts(host(records), context.test_set)
    if facts and facts.generated:
        yield "Generated images: these numbers are comparable with no published ones."
    opened = max(record.test_opened for record in records)
    if opened > 1:
        yield f"The test images were opened up to {opened} times for one record."
    dirty = Counter(record.environment.git_dirty for record in records)[True]
    if dirty:
        yield f"Made by code that differs from its commit: {counted(dirty, 'record')}."


# The rows of one table: a method's seeds together, its cells, the marks of the best.


def make_rows(records: Sequence[Record], columns: Sequence[Column], test: str) -> list[Row]:
    """Return one row for each method and fingerprint, in the order of trainable parameters."""
    runs: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda record: record.seed or 0):
        runs.setdefault((record.method.name, record.fingerprint), []).append(record)
    ordered = sorted(runs.values(), key=lambda seeds: (trainable(seeds[0]), seeds[0].method.title))
    labels = row_labels([seeds[0] for seeds in ordered])
    firsts = [(label, seeds[0]) for label, seeds in zip(labels, ordered, strict=True)]
    labels = [with_coverage(label, first, test) for label, first in firsts]
    rows = [
        Row(label, tuple(seeds), tuple(make_cell(seeds, column, test) for column in columns))
        for label, seeds in zip(labels, ordered, strict=True)
    ]
    return sorted(rows, key=lambda row: (trainable(row.records[0]), row.label))


def trainable(record: Record) -> float:
    """Return how many parameters train; infinity where nobody says."""
    return record.parameters.trainable if record.parameters else math.inf


def newest(records: list[Record]) -> list[Record]:
    """Keep one record of each fingerprint and seed: the newest."""
    newest: dict[tuple[str, str, int | None], Record] = {}
    for record in sorted(records, key=lambda record: record.created):
        newest[record.method.name, record.fingerprint, record.seed] = record
    return list(newest.values())


def make_cell(seeds: Sequence[Record], column: Column, test: str) -> Cell:
    """Return the cell of a row's records; empty where any of them lacks the value."""
    values = [column.value(record, test) for record in seeds]
    usable = [value for value in values if value is not None and math.isfinite(value)]
    return Cell(tuple(usable) if len(usable) == len(values) else ())


def mark_best(rows: list[Row], columns: Sequence[Column], test: str) -> tuple[Row, ...]:
    """Mark the best and the second of each score, with ties at the precision that is printed.

    Rows that lack images of the test set take no part.
    """
    marks: list[list[Cell]] = [list(row.cells) for row in rows]
    for index, column in enumerate(columns):
        if column.higher_is_better is None:
            continue
        shown = {
            number: round(cell.mean * column.scale, column.decimals)
            for number, cell in enumerate(row.cells[index] for row in rows)
            if cell.mean is not None
            and not any(is_partial(record, test) for record in rows[number].records)
        }
        places = sorted(set(shown.values()), reverse=column.higher_is_better)[:2]
        for number, value in shown.items():
            if len(shown) > 1 and value in places:
                mark = "best" if value == places[0] else "second"
                marks[number][index] = replace(marks[number][index], mark=mark)
    return tuple(replace(row, cells=tuple(cells)) for row, cells in zip(rows, marks, strict=True))


def sort_each(groups: Sequence[Group], key: str | None) -> list[Group]:
    """Order rows by one column, the best first, or the largest where none is better.

    Published rows stay below, in the same order, and groups without the column as they are. Raises
    UsageError where no group has it.
    """
    if key is None:
        return list(groups)
    known = dict.fromkeys(column.key for group in groups for column in group.columns)
    if key not in known:
        raise UsageError(unknown("column to sort by", key, known))
    return [_sorted(group, key) for group in groups]


def _sorted(group: Group, key: str) -> Group:
    """Order the rows by one column, where the group has it."""
    keys = [column.key for column in group.columns]
    if key not in keys:
        return group
    index = keys.index(key)
    sign = 1 if group.columns[index].higher_is_better is False else -1

    def place(row: Row) -> tuple[bool, bool, float, str]:
        value = row.cells[index].mean
        return row.origin is not None, value is None, sign * (value or 0.0), row.label

    return replace(group, rows=tuple(sorted(group.rows, key=place)))
