"""Rows of scored maps: in the tables of the runs that they compare with, or in one of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lpmoe_bench.records.context import Context
from lpmoe_bench.records.model import Record


def seat(by_context: Mapping[Context, Sequence[Record]]) -> dict[Context, list[Record]]:
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


def guest_lines(rows: Iterable[tuple[str, Sequence[Record]]], test: str) -> list[str]:
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
