"""Images seen in windows that overlap, whose responses are blended where they do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch

from lpmoe_bench.console import OnProgress
from lpmoe_bench.data.readers import Sides
from lpmoe_bench.errors import UsageError

if TYPE_CHECKING:
    from lpmoe_bench.inference.predictor import Predictor

# Windows along one side of an image: where they start, and weights that sum to one.

OVERLAP = 4  # neighbouring windows share at least this part of one: a quarter
SHRINK = 2  # `auto` shrinks an image at most so many times
MODES = "auto, never, always or a number of pixels"


class Window(NamedTuple):
    """The pixels start .. start + len(weights) of a side, and how much each counts there."""

    start: int
    weights: np.ndarray


def window_of(tile: str, sides: Sides) -> Sides | None:
    """Return the largest part, (h, w) in pixels, that a model of image sides is shown at once.

    None for `never`: any image is shown whole. `auto` is twice the sides: an image within it is
    shrunk at most twofold, and windows of a larger one are shrunk just as much. `always` is the
    sides: nothing is shrunk. Raises UsageError for other words, and for fewer than 32 pixels.
    """
    if tile == "never":
        return None
    if tile in ("auto", "always"):
        factor = SHRINK if tile == "auto" else 1
        return (sides[0] * factor, sides[1] * factor)
    if not tile.isascii() or not tile.isdigit() or int(tile) < 32:
        raise UsageError(f"--tile is '{tile}'; it is {MODES}, at least 32")
    return (int(tile), int(tile))


def windows(length: int, side: int | None) -> list[Window]:
    """Divide a side of an image into windows of `side` pixels, or one where that is enough.

    They are spaced evenly, from one end to the other. Each weighs least at its ends, as half a wave
    of a sine, squared; at every pixel the weights of all windows sum to one.
    """
    if side is None or length <= side:
        return [Window(0, np.ones(length, np.float32))]
    # As few windows as overlap by a quarter or more. The weights fall to nearly zero at the ends of
    # a window, where it sees least of what is around, so that no seam shows.
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


# The response to an image of any size: seen whole, or in windows that are blended.


def response_map(
    predictor: Predictor,
    image: np.ndarray,
    window: Sides | None = None,
    report: OnProgress | None = None,
) -> np.ndarray:
    """Return the response (K, h, w), float32, of a model to an RGB image (h, w, 3), uint8 or
    float32 in [0, 1]: the probability of object, or a logit for each class.

    An image beyond a window of (h, w) pixels is cut into overlapping ones; each is seen as an image
    of its own, fitted to the model's size, and its response, at the window's own size, is blended
    with its neighbours'. Memory: a batch of windows, and four bytes for each class and pixel.
    `report` is told (windows seen, all windows).
    """
    height, width = image.shape[:2]
    places = places_in((height, width), window)
    total: np.ndarray | None = None
    done = 0
    for batch in batched(places, predictor.batch):
        crops = [predictor.tensor(image[part_of(*place)]) for place in batch]
        for place, response in zip(batch, predictor.responses(torch.stack(crops)), strict=True):
            if total is None:  # now the number of classes is known
                total = np.zeros((len(response), height, width), np.float32)
            rows, columns = (part.weights for part in place)
            resized = predictor.at_size(response, (len(rows), len(columns)))
            total[:, *part_of(*place)] += resized * rows[:, None] * columns
        done += len(batch)
        if report is not None:
            report(done, len(places))
    assert total is not None
    return total


def places_in(shape: Sides, window: Sides | None) -> list[tuple[Window, Window]]:
    """Return the windows, down and across, of an image of a shape (h, w)."""
    down, across = window or (None, None)
    return list(itertools.product(windows(shape[0], down), windows(shape[1], across)))


def part_of(down: Window, across: Window) -> tuple[slice, slice]:
    """Return the rows and columns of an array that a window covers."""
    return (
        slice(down.start, down.start + len(down.weights)),
        slice(across.start, across.start + len(across.weights)),
    )


Item = TypeVar("Item")


def batched(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `count`, the last of which may be shorter."""
    left = iter(items)
    while batch := list(itertools.islice(left, count)):
        yield batch
