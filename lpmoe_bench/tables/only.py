"""Records of certain settings: what `--only train.limit_train=150` keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lpmoe_bench.errors import UsageError
from lpmoe_bench.record import StoredRecord
from lpmoe_bench.record_model import Record
from lpmoe_bench.tables.context import flat
from lpmoe_bench.tables.words__plain import plain
from method_zoo.errors import unknown


def parse_only(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Read NAME=VALUE for each; raises UsageError for another form."""
    pairs = [text.partition("=") for text in texts]
    for name, equals, value in pairs:
        if not (name and equals):
            raise UsageError(
                f"--only got '{name}{equals}{value}'; write it as name=value, such as "
                f"train.limit_train=150"
            )
    return tuple((name, value) for name, _, value in pairs)


def keep_only(
    stored: Sequence[StoredRecord], wanted: Sequence[tuple[str, str]]
) -> list[StoredRecord]:
    """Return the records of all these settings, with maps of unknown making for their test sets.

    Raises UsageError where a setting is unknown or rules out every run.
    """
    if not wanted or not stored:
        return list(stored)
    guests = {id(one) for one in stored if one.record.kind == "score"}
    kept = [one for one in stored if id(one) not in guests]
    known = {name for one in kept for name in _settings(one.record)}
    for key, text in wanted:
        if key not in known:
            raise UsageError(unknown("setting among these records", key, sorted(known)))
        values = {id(one): _settings(one.record).get(key, "") for one in kept}
        kept = [one for one in kept if values[id(one)] == text.lower()]
        if not kept:
            there = ", ".join(sorted(set(values.values()))[:8])
            raise UsageError(f"no record has {key}={text}; there is {there}")
    chosen = {id(one) for one in kept}
    tests = {test for one in kept for test in one.record.scores}
    return [
        one
        for one in stored
        if id(one) in chosen or (id(one) in guests and tests & set(one.record.scores))
    ]


def _settings(record: Record) -> dict[str, str]:
    """Return a record's settings, its seed among them, as `--only` writes them."""
    return {key: plain(value) for key, value in flat(record.config).items()}
