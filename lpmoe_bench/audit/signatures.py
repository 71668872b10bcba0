"""Signatures of images: checksum of the pixels, two perceptual hashes, a small grey thumbnail."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lpmoe_bench.errors import ResourceError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.images import read_image

SIDE = 64  # of a thumbnail: enough for texture, and 50,000 of them are 200 MB
Report = Callable[[int, int], None]


class Signatures(NamedTuple):
    """What is kept of n images. pixels: (n, 32) bytes, SHA-256 of what is decoded, EXIF applied;
    hashes: (n, 2, 2), of the image and of its mirror image, 64 bits of a cosine transform and 64 of
    differences between neighbours; thumbnails: (n, SIDE, SIDE) grey levels."""

    pixels: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray


def signatures(
    paths: Sequence[Path],
    contents: Sequence[str],
    cache: Path | None = None,
    report: Report | None = None,
) -> Signatures:
    """Read images, or take what is kept of files with these checksums under `cache`.

    `report` is told (images read, all images). Raises DataError for an image that cannot be read.
    """
    file = None if cache is None else cache / f"{_key(contents)}.npz"
    known = None if file is None else _load(file, len(paths))
    if known is not None:
        return known
    rows = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, row in enumerate(pool.map(_read, paths), start=1):
            rows.append(row)
            if report is not None:
                report(done, len(paths))
    found = Signatures(*(np.stack(part) for part in zip(*rows, strict=True)))
    if file is not None:
        _keep(file, found)
    return found


def _key(contents: Sequence[str]) -> str:
    text = "\n".join(("signatures 1", *contents))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = read_image(path)
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
    wanted = ((count, 32, np.uint8), (count, 2, 2, np.uint64), (count, SIDE, SIDE, np.uint8))
    sound = all((*a.shape, a.dtype) == w for a, w in zip(found, wanted, strict=True))
    return found if sound else None


def _keep(file: Path, found: Signatures) -> None:
    data = io.BytesIO()
    np.savez(data, **found._asdict())
    try:
        write_atomically(file, data.getvalue())
    except ResourceError:
        return  # a full or read-only disk: the next time is slower, that is all
