"""The search for images that show the same: equal pixels, then close hashes that are confirmed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from lpmoe_bench.audit.features import FeatureLikeness, Question
from lpmoe_bench.audit.gather import Image
from lpmoe_bench.audit.likeness import Prepared, likeness, prepare
from lpmoe_bench.audit.neighbours import Close, close_pairs
from lpmoe_bench.audit.signatures import Signatures
from lpmoe_bench.datasets.verify import Bars

# Correlation of fine structure, measured on nine real sets: copies that were cropped, shrunk,
# re-encoded or mirrored have 0.9 and more (small smooth dermoscopy images down to 0.65); the most
# alike of unlike pairs had 0.73 among coffee leaves, 0.76 mirrored and 0.79 among blurred frames of
# two endoscopies. Features alone do not tell these apart: two leaves had 0.98.
SURE = 0.8
# Mean cosine of patches and their best partners. Copies and frames of one scene have 0.91 and
# more; mirrored look-alikes have 0.76 to 0.96.
LEAST_FEATURES = 0.9
# Crops of 5 % move a corner by at most 0.053 sides. What was moved further is another framing.
MOST_SHIFT = 0.06
KEPT = 4096  # thumbnails that are held prepared: an image has several candidates; 150 MB
AT_ONCE = 1024  # pairs that wait for a thread


@dataclass(frozen=True)
class Match:
    """Two images that show the same, by index, first < second. likeness: of their fine structure;
    shift: see Alike; features: likeness in the backbone's, None where it was not asked."""

    first: int
    second: int
    exact: bool
    mirrored: bool = False
    likeness: float = 1.0
    shift: float = 0.0
    features: float | None = None


def find_matches(
    images: Sequence[Image], found: Signatures, bars: Bars, features: FeatureLikeness | None
) -> tuple[list[Match], int]:
    """Return the images that show the same, and how many pairs had close hashes.

    With `features` a backbone confirms near duplicates, but for those of one known group, of which
    that is expected; without, the pixels alone.
    """
    exact = list(_exact(images, found.pixels))
    best: dict[tuple[int, int], Match] = {}
    prepared, candidates, threads = _prepared(found), 0, min(8, os.cpu_count() or 1)
    with bars.bar("comparing", len(images)) as bar, ThreadPoolExecutor(threads) as pool:
        for close in close_pairs(found.hashes, bar.update):
            candidates += len(close.first)
            for match in _alike(found, close, prepared, pool):
                pair = (match.first, match.second)
                better = pair not in best or match.likeness > best[pair].likeness
                if match.likeness >= SURE and better:
                    best[pair] = match
    near = [best[pair] for pair in sorted(best)]
    return exact + (
        near if features is None else _confirmed(images, near, bars, features)
    ), candidates


def _exact(images: Sequence[Image], pixels: np.ndarray) -> Iterator[Match]:
    """Yield images of equal pixels: each with the first of its own splits, and with the first of
    every other splits, so that many equal ones do not make as many pairs as their square."""
    equal: dict[bytes, list[int]] = {}
    for index, digest in enumerate(pixels):
        equal.setdefault(digest.tobytes(), []).append(index)
    for members in equal.values():
        first: dict[tuple[str, ...], int] = {}
        for index in members:
            first.setdefault(images[index].splits, index)
        pairs = {(min(k, other), max(k, other)) for k in members for other in first.values()}
        yield from (Match(one, other, True) for one, other in sorted(pairs) if one != other)


def _prepared(found: Signatures) -> Callable[[int, bool], Prepared]:
    """Return what gives the thumbnail of an image, mirrored or not, as likeness wants it."""

    @lru_cache(KEPT)
    def prepared(index: int, mirrored: bool) -> Prepared:
        thumbnail = found.thumbnails[index]
        return prepare(np.ascontiguousarray(thumbnail[:, ::-1]) if mirrored else thumbnail)

    return prepared


def _alike(
    found: Signatures,
    close: Close,
    prepared: Callable[[int, bool], Prepared],
    pool: ThreadPoolExecutor,
) -> Iterator[Match]:
    """Yield how alike close pairs are, in order; equal ones are more than alike and left out."""

    def compare(pair: tuple[int, int]) -> Match:
        one, other = pair
        alike = likeness(prepared(one, False), prepared(other, close.mirrored))
        return Match(one, other, False, close.mirrored, alike.correlation, alike.shift)

    differ = (found.pixels[close.first] != found.pixels[close.second]).any(axis=1)
    pairs = list(zip(close.first[differ].tolist(), close.second[differ].tolist(), strict=True))
    for start in range(0, len(pairs), AT_ONCE):
        yield from pool.map(compare, pairs[start : start + AT_ONCE])


def _confirmed(
    images: Sequence[Image], near: list[Match], bars: Bars, features: FeatureLikeness
) -> list[Match]:
    """Ask the backbone about those that no known group explains."""
    kept = [m for m in near if _one_group(images, m)]
    asked = [m for m in near if not _one_group(images, m)]
    if not asked:
        return kept
    questions = [Question(images[m.first].path, images[m.second].path, m.mirrored) for m in asked]
    with bars.bar("confirming in the backbone's features", len(asked)) as bar:
        values = features.compare(questions, bar.update)
    kept += [
        replace(match, features=value)
        for match, value in zip(asked, values, strict=True)
        if value >= LEAST_FEATURES
    ]
    return sorted(kept, key=lambda match: (match.first, match.second))


def _one_group(images: Sequence[Image], match: Match) -> bool:
    one, other = images[match.first].group, images[match.second].group
    return bool(one) and one == other
