"""Windows along one side of an image: where they start, and weights that sum to one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lpmoe_bench.errors import UsageError

OVERLAP = 4  # neighbouring windows share at least this part of one: a quarter
SHRINK = 2  # `auto` shrinks an image at most so many times
MODES = "auto, never, always or a number of pixels"


class Window(NamedTuple):
    """The pixels start .. start + len(weights) of a side, and how much each counts there."""

    start: int
    weights: np.ndarray


def side_of(tile: str, size: int) -> int | None:
    """Return the longest side, in pixels, that a model of image side `size` is shown at once.

    None for `never`: any image is shown whole. `auto` is twice the size: an image within it is
    shrunk at most twofold, and windows of a larger one are shrunk just as much. `always` is the
    size: nothing is shrunk. Raises UsageError for other words, and for fewer than 32 pixels.
    """
    if tile == "never":
        return None
    if tile in ("auto", "always"):
        return size * (SHRINK if tile == "auto" else 1)
    if not tile.isascii() or not tile.isdigit() or int(tile) < 32:
        raise UsageError(f"--tile is '{tile}'; it is {MODES}, at least 32")
    return int(tile)


def windows(length: int, side: int | None) -> list[Window]:
    """Divide a side of an image into windows of `side` pixels, or one where that is enough.

    They are spaced evenly, from one end to the other. Each weighs least at its ends, as half a wave
    of a sine, squared; at every pixel the weights of all windows sum to one.
    """
    if side is None or length <= side:
        return [Window(0, np.ones(length, np.float32))]
    step = side - side // OVERLAP
    count = math.ceil((length - side) / step) + 1
    starts = [round(k * (length - side) / (count - 1)) for k in range(count)]
    wave = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + side] += wave
    return [
        Window(start, (wave / total[start : start + side]).astype(np.float32)) for start in starts
    ]
