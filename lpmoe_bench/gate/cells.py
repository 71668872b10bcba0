"""Candidate records grouped into cells: one method with its settings on one test set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lpmoe_bench.errors import NotComparableError, UsageError
from lpmoe_bench.records.context import context_of, own_settings
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import Found, StoredRecord

DIGITS = 12  # of a digest, in sentences


@dataclass(frozen=True)
class Cell:
    """Records that differ in nothing but the seed; `stored` in the order of `seeds`.

    A seed is a number, or for maps of no known seed the first digits of their digest.
    """

    name: str
    test_set: str
    identity: Mapping[str, Any]
    seeds: tuple[int | str, ...]
    stored: tuple[StoredRecord, ...]

    @property
    def family(self) -> tuple[str, ...]:
        return family_of(self.identity)


def gather(found: Found, where: str) -> list[Cell]:
    """Group the records of a search, by name; those that are superseded take no part.

    Raises NotComparableError where there is none, UsageError where one seed of one cell is there
    twice with different scores, since nobody knows which of the two is meant.
    """
    groups: dict[tuple[str, str], list[StoredRecord]] = {}
    for stored in found.stored:
        if stored.record.superseded_by:
            continue
        for test in stored.record.scores:
            key = json.dumps(identity_of(stored.record, test), sort_keys=True, default=str)
            groups.setdefault((key, test), []).append(stored)
    if not groups:
        raise NotComparableError(
            f"no record is found under {where}, so there is nothing to judge; run the cell first, "
            f"or name the folder of its records"
        )
    cells = [_cell(stored, test) for (_, test), stored in groups.items()]
    return sorted(cells, key=lambda cell: cell.name)


def identity_of(record: Record, test: str) -> dict[str, Any]:
    """Return all that must agree between baseline and candidate, by name, in order of names.

    Maps from elsewhere have another digest whenever they change, so it identifies a seed of them
    and not the cell.
    """
    facts: dict[str, Any] = {"kind": record.kind, "method": record.method.name}
    facts |= asdict(context_of(record, test))
    facts |= {f"options.{key}": value for key, value in record.method.options.items()}
    facts |= {f"setting {key}": value for key, value in own_settings(record).items()}
    facts |= {"fingerprint": "" if record.kind == "score" else record.fingerprint}
    return dict(sorted(json.loads(json.dumps(facts, default=str)).items()))


def family_of(identity: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what says that two cells of different settings are meant to be the same one."""
    names = ("kind", "task", "method", "backbone", "test_set")
    return tuple(str(identity.get(name)) for name in names)


def differences(pinned: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Say what differs between two identities; the fingerprint only where nothing else does."""
    names = [n for n in sorted({*pinned, *found}) if pinned.get(n) != found.get(n)]
    told = [n for n in names if n != "fingerprint"] or names
    return [f"{n.replace('_', ' ')} {_word(pinned, n)} against {_word(found, n)}" for n in told]


def images_of(record: Record, test: str) -> int:
    """Return how many images of a test set were scored."""
    counts = record.counts.get(test, {})
    return counts.get("scored", counts.get("images", 0))


def _cell(stored: Sequence[StoredRecord], test: str) -> Cell:
    seeds: dict[int | str, StoredRecord] = {}
    for one in sorted(stored, key=lambda one: (one.record.seed or 0, one.record.fingerprint)):
        seed = _seed(one.record)
        if seed in seeds:
            _check_copy(seeds[seed], one, seed)
        else:
            seeds[seed] = one
    first = stored[0].record
    return Cell(
        _name(first, test), test, identity_of(first, test), tuple(seeds), tuple(seeds.values())
    )


def _check_copy(a: StoredRecord, b: StoredRecord, seed: int | str) -> None:
    if a.record.scores != b.record.scores:
        raise UsageError(
            f"seed {seed} of {a.record.id} is there twice with different scores, in {a.folder} and "
            f"in {b.folder}; name the folder that is meant, or a fresh one"
        )


def _seed(record: Record) -> int | str:
    return record.fingerprint[:DIGITS] if record.seed is None else record.seed


def _name(record: Record, test: str) -> str:
    parts = [record.task, record.method.name, *([record.backbone.name] if record.backbone else [])]
    if record.kind != "score":
        parts.append(record.fingerprint[:DIGITS])
    kind = f"{record.kind}: " if record.kind == "evaluation" else ""
    return f"{kind}{'/'.join(parts)} on {test} by {record.protocol.name}"


def _word(identity: Mapping[str, Any], name: str) -> str:
    value = identity.get(name)
    text = "nothing" if value is None or value == "" else str(value)
    return text[:DIGITS] if len(text) in (40, 64) else text


def newest(cells: Sequence[Cell]) -> Record:
    """Return the newest record of all, which dates a pin: the clock would change its bytes."""
    return max(_records(cells), key=lambda record: (record.created, record.id))


def _records(cells: Sequence[Cell]) -> Iterator[Record]:
    return (stored.record for cell in cells for stored in cell.stored)
