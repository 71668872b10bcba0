"""The words of a table: labels that tell its rows apart, and the lines below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lpmoe_bench.records.context import (
    Context,
    decoder_words,
    flat,
    own_settings,
    plain,
    test_facts,
)
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.guests import host

NamedRows = Sequence[tuple[str, list[Record]]]


def row_labels(records: Sequence[Record]) -> list[str]:
    """Return one label a record: its method's title, with what differs where titles are equal.

    Where decoders differ, which only a table that mixes them has, a row names another than most's.
    """
    usual = _usual_decoder(records)
    labels = [_label(record, records) for record in records]
    return [
        f"{label} (decoder {own})" if (own := decoder_words(record)) not in ("", usual) else label
        for label, record in zip(labels, records, strict=True)
    ]


def _usual_decoder(records: Sequence[Record]) -> str:
    """Return the decoder that most records have, the first of equals by name."""
    counted = Counter(sorted(filter(None, map(decoder_words, records))))
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
    if len({decoder_words(record) for record in records if record.decoder}) > 1:
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
