"""Masks as runs: lengths of background and object in turn, column by column, as COCO has them.

Areas and overlaps come from the runs alone, so that no image of hundreds of objects is ever held as
hundreds of masks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def unpack_runs(text: str) -> list[int]:
    """Return the run lengths of COCO's compressed text.

    Each character has five bits of a number, the lowest first, and one that says that more follow;
    from the fourth on, a number is the difference to the one before the last.

    Raises:
        ValueError: a character is none of COCO's.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("runs with a character that is none of COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (bits & 16 and 1) << shift  # the last bit is the sign
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def pack_runs(runs: Sequence[int]) -> str:
    """Return run lengths as COCO's compressed text, which `unpack_runs` reads."""
    text = []
    for place, length in enumerate(runs):
        value, going = length - (runs[place - 2] if place > 2 else 0), True
        while going:
            bits = value & 31
            value >>= 5
            # The number ends where the rest is the sign alone, which the last bit says.
            going = value != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * going))
    return "".join(text)


def runs_of_pixels(mask: np.ndarray) -> np.ndarray:
    """Return the runs of a mask, bool (h, w): int64, of background and object in turn."""
    # COCO goes down the columns, hence the transpose. False in front makes the first run one of
    # background, of length 0 where pixel 0 is object; the value behind closes the last run.
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.size or not mask.T.flat[-1]]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(ends, prepend=0)


def pixels_of_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the mask of runs, bool (height, width)."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def to_runs(mask: Any, height: int, width: int) -> np.ndarray:
    """Return the runs of a mask in whichever form it comes.

    Args:
        mask: pixels (h, w), or run lengths, or COCO's compressed text or bytes of them, or a
            mapping that holds either as "counts", with "size".
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        int64, run lengths that add up to the pixels of the image.

    Raises:
        ValueError: it is none of these, or of an image of another size.
    """
    if isinstance(mask, dict):
        if list(mask.get("size", ())) != [height, width]:
            raise ValueError(f"a mask of size {mask.get('size')} in an image of {[height, width]}")
        mask = mask.get("counts")
    if isinstance(mask, bytes):
        mask = mask.decode("ascii", "replace")
    if isinstance(mask, str):
        mask = unpack_runs(mask)
    found = np.asarray(mask)
    if found.ndim == 2:
        if found.shape != (height, width):
            raise ValueError(f"a mask of {list(found.shape)} in an image of {[height, width]}")
        return runs_of_pixels(found.astype(bool))
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError("a mask that is neither pixels nor runs")
    if (found < 0).any() or int(found.sum()) != height * width:
        raise ValueError("runs that do not add up to the pixels of the image")
    return found.astype(np.int64)


def areas_of(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the object pixels of each mask, float64, given the runs of each."""
    return np.array([runs[1::2].sum() for runs in masks], np.float64)


def overlaps_of(found: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> np.ndarray:
    """Return the pixels that masks share, float64 (D, G).

    Args:
        found: runs of D masks of an image.
        truth: runs of G masks of it.
    """
    shared = np.zeros((len(found), len(truth)))
    starts, ends, whose = _stretches(found)
    for place, runs in enumerate(truth):
        # edges: where each run begins and ends. inside: object pixels before each of these.
        edges = np.concatenate([[0], np.cumsum(runs)])
        inside = np.concatenate([[0], np.cumsum(np.where(np.arange(len(runs)) % 2, runs, 0))])
        # edges[1] is the end of the first background, so nothing before it can be shared.
        near = (ends > edges[1]) & (starts < edges[-1]) if len(runs) > 1 else np.zeros(0, int)
        # How many object pixels of this mask lie before a pixel is linear between its edges.
        pixels = np.interp(ends[near], edges, inside) - np.interp(starts[near], edges, inside)
        shared[:, place] = np.bincount(whose[near], pixels, len(found))
    return shared


def _stretches(masks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first pixel, end and mask number of every stretch of object."""
    ends = [np.cumsum(runs) for runs in masks]
    counts = [len(runs) // 2 for runs in masks]
    none = [np.zeros(0, np.int64)]
    # Runs at odd places are object: they begin where the even run before them ends.
    starts = np.concatenate(none + [own[:-1:2][:n] for own, n in zip(ends, counts, strict=True)])
    lasts = np.concatenate(none + [own[1::2] for own in ends])
    return starts, lasts, np.repeat(np.arange(len(masks)), counts)


def to_pixels(mask: Any, height: int, width: int) -> np.ndarray:
    """Return the pixels of a mask in whichever form it comes, bool (height, width).

    Args:
        mask: see `to_runs`.
        height: of the image, pixels.
        width: of the image, pixels.

    Raises:
        ValueError: it is no mask, or of an image of another size.
    """
    pixels = np.asarray(mask) if not isinstance(mask, dict | str | bytes) else None
    if pixels is not None and pixels.shape == (height, width):
        return pixels.astype(bool)
    return pixels_of_runs(to_runs(mask, height, width), height, width)
