"""A split: its pairs, a digest of their content, and the check that all can be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from lpmoe_bench.errors import DataError
from lpmoe_bench.images import inspect_mask, read_image, read_mask
from lpmoe_bench.pairs import Pair, check_sizes, shown

Report = Callable[[int, int], None]
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


def make_split(like: Split, name: str, pairs: Sequence[Pair]) -> Split:
    """Return a split of these pairs, with their digest; the rest is taken from another split."""
    digest = _digest(pairs, _hash_pixels if like.generated else _hash_files)
    return replace(like, name=name, pairs=tuple(pairs), digest=digest)


def check_pairs(split: Split, report: Report | None = None) -> list[str]:
    """Decode every image and mask once, so that a broken file is known before training starts.

    Returns one note for each unusual kind of mask. Raises DataError for all broken files at once:
    all are counted, ten are shown. `report` is told (pairs checked, all pairs).
    """
    broken: list[str] = []
    unusual: dict[str, list[str]] = {flag: [] for flag in UNUSUAL}
    for done, (pair, result) in enumerate(_each(_check, split.pairs), start=1):
        broken += result[0]
        for flag in result[1]:
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


def _check(pair: Pair) -> tuple[list[str], tuple[str, ...]]:
    """Return the problems of a pair and the flags of its mask."""
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
    return problems, flags


def _digest(pairs: Sequence[Pair], content: Callable[[Pair], str]) -> str:
    lines = sorted(f"{pair.name}\0{value}\n" for pair, value in _each(content, pairs))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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


def _each(function: Callable[[Pair], Any], pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Any]]:
    """Yield (pair, result) in order, computed by threads; an error or Ctrl-C drops the rest."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from zip(pairs, pool.map(function, pairs), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
