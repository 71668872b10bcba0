"""Manifest cache: what reading a pair's two files told, for as long as the files are the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from lpmoe_bench.errors import ResourceError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.registry.pairs import Pair, uncollected

VERSION = 1
SETTLED_SECONDS = 2.0  # a file that is younger may change again within one tick of its clock
CONTENT = re.compile(r"[0-9a-f]{64}\0[0-9a-f]{64}")


class Facts(NamedTuple):
    """What is known of a pair. content: both checksums, joined by a NUL; shape: (h, w) and flags of
    its mask, both None as long as it was not decoded and found sound."""

    content: str
    shape: tuple[int, int] | None = None
    flags: tuple[str, ...] | None = None


class Manifest:
    """Facts of pairs by name, kept in one file for each folder of images.

    A fact holds while size, dates and inode of both files stay as they were. The file is only a
    cache: it may be deleted, and one that cannot be read or written is done without.
    """

    def __init__(self, file: Path | None):
        self.file = file
        self._rows: dict[str, list[Any]] = {} if file is None else _load(file)
        self._changed = False

    @classmethod
    def of(cls, folder: Path | None, pairs: Iterable[Pair], kind: str) -> Manifest:
        """Open the manifest of these pairs under a folder; without one, nothing is kept."""
        first = next(iter(pairs), None)
        if folder is None or first is None:
            return cls(None)
        places = f"{kind}\0{first.image.parent.resolve()}\0{first.mask.parent.resolve()}"
        return cls(folder / f"{hashlib.sha256(places.encode()).hexdigest()[:24]}.json")

    def each(
        self, pairs: Iterable[Pair], ready: Callable[[Facts], bool], read: _Reader
    ) -> Iterator[tuple[Pair, Facts]]:
        """Yield (pair, facts) in order: known ones where they are `ready`, else those of `read`.

        `read` takes the pairs that must be read, with what is known of them, and yields facts for
        each, in order; those without content are not kept. It may raise DataError, which drops the
        rest; what was read until then is kept.
        """
        pairs = list(pairs)
        with uncollected():
            stamps = [_stamp(one) if self.file is not None else "" for one in pairs]
            known = [self._known(one.name, now) for one, now in zip(pairs, stamps, strict=True)]
        wanting = [k for k, facts in enumerate(known) if facts is None or not ready(facts)]
        fresh = read([(pairs[k], known[k]) for k in wanting])
        todo = set(wanting)
        try:
            for k, pair in enumerate(pairs):
                facts = next(fresh) if k in todo else known[k]
                assert facts is not None
                if k in todo:
                    self._remember(pair.name, stamps[k], facts)
                yield pair, facts
        finally:
            self.save()

    def _known(self, name: str, stamp: str) -> Facts | None:
        row = self._rows.get(name)
        if not stamp or not _is_row(row) or row[0] != stamp:
            return None
        return Facts(row[1], None if row[2] is None else tuple(row[2]), _tuple(row[3]))

    def _remember(self, name: str, stamp: str, facts: Facts) -> None:
        if stamp and facts.content and time.time_ns() - _newest(stamp) > SETTLED_SECONDS * 1e9:
            self._rows[name] = [stamp, *facts]
            self._changed = True

    def save(self) -> None:
        """Write what is new."""
        if self.file is None or not self._changed:
            return
        text = json.dumps({"version": VERSION, "rows": self._rows}, separators=(",", ":"))
        try:
            write_atomically(self.file, text)
            self._changed = False
        except ResourceError:
            self.file = None  # a full or read-only disk: everything still works, but slower


_Reader = Callable[[list[tuple[Pair, Facts | None]]], Iterator[Facts]]


def _stamp(pair: Pair) -> str:
    """Size, dates and inode of both files; empty when one cannot be asked."""
    try:
        one, other = os.stat(pair.image), os.stat(pair.mask)
    except OSError:
        return ""
    return (  # written out: twice as fast as a loop
        f"{one.st_size} {one.st_ino} {one.st_mtime_ns} {one.st_ctime_ns} "
        f"{other.st_size} {other.st_ino} {other.st_mtime_ns} {other.st_ctime_ns}"
    )


def _newest(stamp: str) -> int:
    numbers = stamp.split()
    return max(int(numbers[k]) for k in (2, 3, 6, 7))


def _tuple(value: list[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


@uncollected()
def _load(file: Path) -> dict[str, list[Any]]:
    """Return the rows of a manifest; none when there is no sound one."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, dict) or content.get("version") != VERSION:
        return {}
    return rows  # each is looked at when it is asked for


def _is_row(row: Any) -> TypeGuard[list[Any]]:
    if not isinstance(row, list) or len(row) != 4:
        return False
    stamp, content, shape, flags = row
    return (
        isinstance(stamp, str)
        and isinstance(content, str)
        and CONTENT.fullmatch(content) is not None
        and (shape is None or (isinstance(shape, list) and len(shape) == 2))
        and (flags is None or isinstance(flags, list))
    )
