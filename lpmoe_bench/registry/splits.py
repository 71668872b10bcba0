"""A split: its pairs, a digest of their content, and the check that all can be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lpmoe_bench.errors import DataError
from lpmoe_bench.images import inspect_mask, read_image, read_mask
from lpmoe_bench.registry.manifest import Facts, Manifest
from lpmoe_bench.registry.pairs import Pair, check_sizes, shown

Report = Callable[[int, int], None]
Item = TypeVar("Item")
Value = TypeVar("Value")
UNUSUAL = {  # what check_pairs says about flags of inspect_mask
    "grey levels": "hold grey levels; values above 128 count as object",
    "values 0 and 1": "hold only 0 and 1; 1 counts as object",
    "two colours": "are painted in two colours; the lighter one counts as object",
    "empty": "are empty",
}


@dataclass(frozen=True)
class Split:
    """The pairs of one split. digest: 64 hex digits of their content, whatever their order and
    place. note: what must be said beside its name. generated: drawn by this program."""

    dataset: str
    name: str
    pairs: tuple[Pair, ...]
    digest: str
    note: str = ""
    generated: bool = False

    @property
    def label(self) -> str:
        return f"{self.dataset}/{self.name}"

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "label": self.label,
            "digest": self.digest,
            "images": len(self.pairs),
            "note": self.note,
            "generated": self.generated,
        }


def make_split(like: Split, name: str, pairs: Sequence[Pair], cache: Path | None = None) -> Split:
    """Return a split of these pairs, with their digest; the rest is taken from another split.

    `cache` is a folder that keeps what was read of files, so that the next time is quick.
    """
    digest = digest_of(contents(like, pairs, cache))
    return replace(like, name=name, pairs=tuple(pairs), digest=digest)


def image_checksums(split: Split, cache: Path | None = None) -> dict[str, str]:
    """Return {checksum of the image: name} of a split, whatever masks its images have."""
    found = contents(split, split.pairs, cache)
    return {facts.content.partition("\0")[0]: pair.name for pair, facts in found}


def digest_of(found: Iterable[tuple[Pair, Facts]]) -> str:
    """Return 64 hex digits of the names of pairs and of what their files hold."""
    return _hash(f"{pair.name}\0{facts.content}\n" for pair, facts in found)


def checksum_of(found: Iterable[tuple[Pair, Facts]]) -> str:
    """Return 64 hex digits of what the files of pairs hold, whatever their names and dates."""
    return _hash(f"{facts.content}\n" for _, facts in found)


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def contents(
    like: Split, pairs: Sequence[Pair], cache: Path | None
) -> Iterator[tuple[Pair, Facts]]:
    """Yield each pair with the checksums of its files."""
    manifest, content = _manifest(like, pairs, cache)

    def read(wanting: list[tuple[Pair, Facts | None]]) -> Iterator[Facts]:
        return (Facts(value) for _, value in _each(content, [pair for pair, _ in wanting]))

    return manifest.each(pairs, lambda facts: bool(facts.content), read)


def _manifest(
    like: Split, pairs: Sequence[Pair], cache: Path | None
) -> tuple[Manifest, Callable[[Pair], str]]:
    content = _hash_pixels if like.generated else _hash_files
    return Manifest.of(cache, pairs, content.__name__), content


def check_pairs(split: Split, report: Report | None = None, cache: Path | None = None) -> list[str]:
    """Decode every image and mask once, so that a broken file is known before training starts.

    Returns one note for each unusual kind of mask. Raises DataError for all broken files at once:
    all are counted, ten are shown. `report` is told (pairs checked, all pairs). `cache` is as in
    make_split: pairs found sound before are not decoded again while their files are the same.
    """
    broken: list[str] = []
    unusual: dict[str, list[str]] = {flag: [] for flag in UNUSUAL}
    for done, (pair, facts) in enumerate(checked(split, broken, cache), start=1):
        for flag in facts.flags or ():
            unusual[flag].append(pair.name)
        if report is not None:
            report(done, len(split.pairs))
    if broken:
        raise DataError(
            f"{len(broken)} problems in the {len(split.pairs)} pairs of {split.label}: "
            f"{shown(broken, '; ')}"
        )
    return [
        f"{len(names)} of {len(split.pairs)} masks of {split.label} {UNUSUAL[flag]} "
        f"(such as {names[0]})"
        for flag, names in unusual.items()
        if names
    ]


def checked(
    split: Split, broken: list[str], cache: Path | None = None, afresh: bool = False
) -> Iterator[tuple[Pair, Facts]]:
    """Yield every pair with its facts, in order; what is wrong is added to `broken`.

    `afresh` reads every file, whatever is known of it; sound pairs have their content then.
    """
    manifest, content = _manifest(split, split.pairs, cache)

    def decode(item: tuple[Pair, Facts | None]) -> tuple[list[str], Facts]:
        pair, known = item
        problems, shape, flags = inspect_pair(pair)
        if problems or (manifest.file is None and not afresh):
            return problems, Facts("", shape, flags)
        known_content = known.content if known and not afresh else content(pair)
        return problems, Facts(known_content, shape, flags)

    def read(wanting: list[tuple[Pair, Facts | None]]) -> Iterator[Facts]:
        for _, (problems, facts) in _each(decode, wanting):
            broken.extend(problems)
            yield facts

    return manifest.each(split.pairs, lambda facts: not afresh and facts.flags is not None, read)


def inspect_pair(pair: Pair) -> tuple[list[str], tuple[int, int], tuple[str, ...]]:
    """Return the problems of a pair, the (h, w) of its image and the flags of its mask."""
    problems: list[str] = []
    shapes, flags = [], ()
    try:
        shapes.append(read_image(pair.image).shape)
    except DataError as error:
        problems.append(str(error))
    try:
        mask, flags = inspect_mask(pair.mask)
        shapes.append(mask.shape)
    except DataError as error:
        problems.append(str(error))
    try:
        if not problems:
            check_sizes(pair, *shapes)
    except DataError as error:
        problems.append(str(error))
    return problems, shapes[0][:2] if shapes else (0, 0), flags


def _hash_files(pair: Pair) -> str:
    """Hash the bytes of both files."""
    try:
        parts = (hashlib.sha256(path.read_bytes()) for path in (pair.image, pair.mask))
        return "\0".join(part.hexdigest() for part in parts)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from None


def _hash_pixels(pair: Pair) -> str:
    """Hash decoded pixels: PNG encoders differ between machines."""
    arrays = (read_image(pair.image), read_mask(pair.mask))
    parts = (hashlib.sha256(str(a.shape).encode() + a.tobytes()) for a in arrays)
    return "\0".join(part.hexdigest() for part in parts)


def _each(function: Callable[[Item], Value], items: Sequence[Item]) -> Iterator[tuple[Item, Value]]:
    """Yield (item, result) in order, computed by threads; an error or Ctrl-C drops the rest."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from zip(items, pool.map(function, items), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
