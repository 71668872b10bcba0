"""The search for images that show the same: equal pixels, then close hashes that are confirmed."""

import hashlib
import io
import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lpmoe_bench.console import OnProgress, Terminal
from lpmoe_bench.data.audit.groups import Image
from lpmoe_bench.data.images import read_image
from lpmoe_bench.data.splits import in_threads
from lpmoe_bench.errors import ResourceError
from lpmoe_bench.files import write_atomically

# How alike two thumbnails are once one is laid onto the other: correlation of fine structure.

COARSE_SIDE = 32
HOPELESS = 0.4  # correlation at half the size, below which the full size is not tried
MOST_STRETCH = 0.3  # of the affine map: a crop of a quarter; more makes unlike things alike
LEAST_OVERLAP = 0.6
CLIP = 3.0  # medians of the fine structure; without it two equal frames around all would decide
GREY_NOISE = 0.7  # grey levels below which nothing is structure


class Alike(NamedTuple):
    """correlation: -1 to 1; shift: how far, in sides, the corner that moves most was moved."""

    correlation: float
    shift: float


class Prepared(NamedTuple):
    """A thumbnail, float32 (side, side), with its half and its fine structure, both made once."""

    grey: np.ndarray
    half: np.ndarray
    fine: np.ndarray


def prepare(grey: np.ndarray) -> Prepared:
    """Prepare a thumbnail, uint8 (side, side), to be compared with many."""
    half = cv2.resize(grey, (COARSE_SIDE, COARSE_SIDE), interpolation=cv2.INTER_AREA)
    return Prepared(grey.astype(np.float32), half.astype(np.float32), fine(grey))


def likeness(one: Prepared, other: Prepared) -> Alike:
    """Return how alike two thumbnails are where they overlap.

    The second is shifted and stretched onto the first (Evangelidis and Psarakis, "Parametric image
    alignment using enhanced correlation coefficient maximization", PAMI 2008), so that crops count
    as alike. Only what is finer than about two pixels is compared: two leaves, or two views through
    one endoscope, have the same coarse layout.
    """
    as_they_are = Alike(_correlation(one.fine, other.fine), 0.0)
    # Half the size first: it is quick, most pairs end there, and what it finds is a start near
    # enough for the full size to converge to the right place.
    warp = _align(one.half, other.half, np.eye(2, 3, dtype=np.float32), 20)
    if warp is None or _laid(one.half, fine(one.half), other.half, warp) < HOPELESS:
        return as_they_are
    side = len(one.grey)
    # The shift is in pixels and grows with the side; the stretch beside it does not.
    warp[:, 2] *= side / COARSE_SIDE
    finer = _align(one.grey, other.grey, warp, 40)
    if finer is None:
        return as_they_are
    laid = _laid(one.grey, one.fine, other.grey, finer)
    return max(as_they_are, Alike(laid, _shift(finer, side)))


def _shift(warp: np.ndarray, side: int) -> float:
    # An affine map moves some corner furthest of all.
    last = side - 1
    corners = np.array([[0, 0, 1], [last, 0, 1], [0, last, 1], [last, last, 1]])
    return float(np.abs(corners @ warp.T - corners[:, :2]).max()) / side


def fine(grey: np.ndarray) -> np.ndarray:
    """Return what is finer than about two pixels and no noise, strong edges clipped."""
    grey = grey.astype(np.float32)
    band = cv2.GaussianBlur(grey, (0, 0), 0.7) - cv2.GaussianBlur(grey, (0, 0), 2.0)
    most = max(GREY_NOISE, CLIP * float(np.median(np.abs(band))))
    return np.clip(band, -most, most)


def _align(
    one: np.ndarray, other: np.ndarray, start: np.ndarray, iterations: int
) -> np.ndarray | None:
    """Return the affine map that lays the second onto the first; None when there is no sane one."""
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, iterations, 1e-4)
    mask, blur = np.ones(one.shape, np.uint8), 5
    try:
        _, warp = cv2.findTransformECC(
            one, other, start.copy(), cv2.MOTION_AFFINE, until, mask, blur
        )
    except cv2.error:  # it did not converge
        return None
    stretch = np.abs(warp[:, :2] - np.eye(2)).max()
    return np.asarray(warp, np.float32) if stretch <= MOST_STRETCH else None


def _laid(one: np.ndarray, of_one: np.ndarray, other: np.ndarray, warp: np.ndarray) -> float:
    """Return the correlation where both are once the second is laid onto the first; of_one: the
    fine structure of the first."""
    size = one.shape[::-1]
    linear, nearest = (k | cv2.WARP_INVERSE_MAP for k in (cv2.INTER_LINEAR, cv2.INTER_NEAREST))
    moved = cv2.warpAffine(other, warp, size, flags=linear, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones(other.shape, np.uint8), warp, size, flags=nearest)
    # Without its outermost pixels, whose fine structure is made of the replicated border.
    block = np.ones((3, 3), np.uint8)
    both = cv2.erode(inside, block, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    if both.mean() < LEAST_OVERLAP:
        return -1.0
    return _correlation(of_one[both], fine(moved)[both])


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt(np.square(one).sum() * np.square(other).sum()))
    return float((one * other).sum()) / scale if scale > 0 else 0.0


# What is asked of a backbone's features where the pixels of two images leave a doubt.


class Question(NamedTuple):
    """Two image files, the second to be mirrored or not."""

    one: Path
    other: Path
    mirrored: bool


class FeatureLikeness(NamedTuple):
    """What compares images in the features of a backbone.

    sha256: of its weights. compare: takes questions and a report (pairs done, all pairs), and
    returns for each question how alike the two images are, -1 to 1.
    """

    backbone: str
    sha256: str
    compare: Callable[[Sequence[Question], Callable[[int, int], None]], list[float]]


# Signatures of images: checksum of the pixels, two perceptual hashes, a small grey thumbnail.

SIDE = 64  # of a thumbnail: enough for texture, and 50,000 of them are 200 MB


class Signatures(NamedTuple):
    """What is kept of n images. pixels: (n, 32) bytes, SHA-256 of what is decoded, EXIF applied;
    hashes: (n, 2, 2), of the image and of its mirror image, 64 bits of a cosine transform and 64 of
    differences between neighbours; thumbnails: (n, SIDE, SIDE) grey levels."""

    pixels: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray


def signatures(name: str, images: Sequence[Image], cache: Path, terminal: Terminal) -> Signatures:
    """Read the images of a set, or take what is kept under `cache` of files with these checksums.

    Raises DataError for an image that cannot be read.
    """
    text = "\n".join(("signatures 1", *(image.content + image.rules.key for image in images)))
    file = cache / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz"
    rows = []
    with terminal.bar(f"reading {name}", len(images)) as bar:
        known = _load(file, len(images))
        if known is not None:
            return known
        for row in in_threads(_read, images):
            rows.append(row)
            bar.update(len(rows), len(images))
    found = Signatures(*(np.stack(part) for part in zip(*rows, strict=True)))
    data = io.BytesIO()
    np.savez(data, **found._asdict())
    with suppress(ResourceError):  # a full or read-only disk: the next time is slower, that is all
        write_atomically(file, data.getvalue())
    return found


def _read(of: Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = read_image(of.path, of.rules)
    shape = str(image.shape).encode()
    digest = hashlib.sha256(shape + np.ascontiguousarray(image).tobytes()).digest()
    grey = thumbnail(image)
    hashes = np.stack([perceptual_hash(grey), perceptual_hash(grey[:, ::-1])])
    return np.frombuffer(digest, np.uint8), hashes, grey


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Squash an image, uint8 RGB (h, w, 3), to SIDE x SIDE grey levels."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def perceptual_hash(grey: np.ndarray) -> np.ndarray:
    """Return two words of 64 bits of a thumbnail.

    The first has the signs of the 8 x 8 lowest cosine coefficients around their median (Zauner,
    "Implementation and benchmarking of perceptual image hash functions", 2010); the second tells
    where brightness grows from left to right on a grid of 9 x 8 (Krawetz' difference hash). Lone,
    either takes a third more look-alikes for the same share of crops found.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    lowest = cv2.dct(small)[:8, :8].ravel()
    bits = lowest > np.median(lowest)
    bits[0] = False  # the mean brightness
    steps = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    grows = (steps[:, 1:] > steps[:, :-1]).ravel()
    return np.packbits(np.stack([bits, grows]), axis=1).view(np.uint64)[:, 0]


def _load(file: Path, count: int) -> Signatures | None:
    """Return what is kept; None when nothing sound is."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            found = Signatures(kept["pixels"], kept["hashes"], kept["thumbnails"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    kinds = ((count, 32, np.uint8), (count, 2, 2, np.uint64), (count, SIDE, SIDE, np.uint8))
    sound = all((*a.shape, a.dtype) == kind for a, kind in zip(found, kinds, strict=True))
    return found if sound else None


# Images whose hashes are close: all pairs, in blocks of XOR, never one by one.

# Of 128 bits. Measured on nine real sets: crops that take 5 % off a side, anywhere, JPEG of quality
# 30, a third of the size, brighter by a fifth: 98 to 100 % lie within; of unlike pairs, 0 to 2 %.
MOST_BITS = 28
BLOCK = 128  # rows at once: 50 MB for 50,000 images


def close_pairs(
    hashes: np.ndarray, report: OnProgress
) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Yield pairs that differ in at most MOST_BITS, as they are or one of them mirrored.

    hashes: (n, 2, 2) as in Signatures. A block of pairs is (indices, larger indices, whether one is
    mirrored). `report` is told (images compared, all images).
    """
    count = len(hashes)
    plain = np.ascontiguousarray(hashes[:, 0].T)  # (2, n)
    mirror = np.ascontiguousarray(hashes[:, 1].T)
    for start in range(0, count, BLOCK):
        rows = plain[:, start : start + BLOCK, None]
        for other, mirrored in ((plain, False), (mirror, True)):
            # Bits that differ, counted for the two halves of the hash; from `start` on, since
            # earlier rows have met these already.
            bits = np.bitwise_count(rows[0] ^ other[0][None, start:])
            bits += np.bitwise_count(rows[1] ^ other[1][None, start:])
            first, second = np.nonzero(bits <= MOST_BITS)
            once = first < second
            yield first[once] + start, second[once] + start, mirrored
        report(min(start + BLOCK, count), count)


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


class Match(NamedTuple):
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
    images: Sequence[Image], found: Signatures, terminal: Terminal, features: FeatureLikeness | None
) -> tuple[list[Match], int]:
    """Return the images that show the same, and how many pairs had close hashes.

    With `features` a backbone confirms near duplicates, but for those of one known group, of which
    that is expected; without, the pixels alone.
    """

    @lru_cache(KEPT)
    def prepared(index: int, mirrored: bool) -> Prepared:
        grey = found.thumbnails[index]
        return prepare(np.ascontiguousarray(grey[:, ::-1]) if mirrored else grey)

    def compare(pair: tuple[int, int, bool]) -> Match:
        one, other, mirrored = pair
        alike = likeness(prepared(one, False), prepared(other, mirrored))
        return Match(one, other, False, mirrored, alike.correlation, alike.shift)

    best: dict[tuple[int, int], Match] = {}
    candidates, threads = 0, min(8, os.cpu_count() or 1)
    with terminal.bar("comparing", len(images)) as bar, ThreadPoolExecutor(threads) as pool:
        for first, second, mirrored in close_pairs(found.hashes, bar.update):
            candidates += len(first)
            # Equal pixels are more than alike: they are found by their checksums.
            differ = (found.pixels[first] != found.pixels[second]).any(axis=1)
            pairs = zip(first[differ].tolist(), second[differ].tolist(), strict=True)
            waiting = [(one, other, mirrored) for one, other in pairs]
            for start in range(0, len(waiting), AT_ONCE):
                for match in pool.map(compare, waiting[start : start + AT_ONCE]):
                    # A pair may be close both as it is and mirrored: the better way counts.
                    pair = (match.first, match.second)
                    least = best[pair].likeness if pair in best else -1.0
                    if match.likeness >= SURE and match.likeness > least:
                        best[pair] = match
    near = [best[pair] for pair in sorted(best)]
    if features is not None:
        near = _confirmed(images, near, terminal, features)
    return [*_exact(images, found.pixels), *near], candidates


def _exact(images: Sequence[Image], pixels: np.ndarray) -> Iterator[Match]:
    """Yield images of equal pixels: each with the first of its own splits, and with the first of
    every other splits, so that many equal ones do not make as many pairs as their square."""
    equal: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(pixels):
        equal[digest.tobytes()].append(index)
    for members in equal.values():
        first: dict[tuple[str, ...], int] = {}
        for index in members:
            first.setdefault(images[index].splits, index)
        pairs = {(min(k, other), max(k, other)) for k in members for other in first.values()}
        yield from (Match(one, other, True) for one, other in sorted(pairs) if one != other)


def _confirmed(
    images: Sequence[Image], near: list[Match], terminal: Terminal, features: FeatureLikeness
) -> list[Match]:
    """Ask the backbone about those that no known group explains."""
    kept, asked = [], []
    for match in near:
        one, other = images[match.first].group, images[match.second].group
        (kept if one and one == other else asked).append(match)
    if not asked:
        return kept
    questions = [Question(images[m.first].path, images[m.second].path, m.mirrored) for m in asked]
    with terminal.bar("confirming in the backbone's features", len(asked)) as bar:
        values = features.compare(questions, bar.update)
    kept += [
        match._replace(features=value)
        for match, value in zip(asked, values, strict=True)
        if value >= LEAST_FEATURES
    ]
    return sorted(kept, key=lambda match: (match.first, match.second))
