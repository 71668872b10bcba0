"""The probability map of an image of any size: seen whole, or in windows that are blended."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from lpmoe_bench.data.loader import image_tensor
from lpmoe_bench.evaluate import Predictor
from lpmoe_bench.predict.windows import Window, windows

Report = Callable[[int, int], None]
Item = TypeVar("Item")


def probability_map(
    predictor: Predictor, image: np.ndarray, side: int | None = None, report: Report | None = None
) -> np.ndarray:
    """Return the probabilities (K, h, w), float32, that a model gives an RGB image uint8 (h, w, 3).

    An image with a side longer than `side` pixels is cut into overlapping windows of that side;
    each is seen as an image of its own, squashed to the model's size, and its map, at the window's
    own size, is blended with its neighbours'. Memory: a batch of windows, and four bytes for each
    class and pixel. `report` is told (windows seen, all windows).
    """
    height, width = image.shape[:2]
    places = list(itertools.product(windows(height, side), windows(width, side)))
    total: np.ndarray | None = None
    done = 0
    for batch in _batches(places, predictor.batch):
        crops = [image_tensor(image[_part(*place)], predictor.size) for place in batch]
        for place, pred in zip(batch, predictor.probabilities(torch.stack(crops)), strict=True):
            if total is None:  # now the number of classes is known
                total = np.zeros((len(pred), height, width), np.float32)
            _add(total, place, pred)
        done += len(batch)
        if report is not None:
            report(done, len(places))
    assert total is not None
    return total


def eight_bits(pred: np.ndarray) -> np.ndarray:
    """Return the 8-bit map (h, w) of probabilities (1, h, w), rounded as maps that are scored.

    This is where a task of several classes would choose what it writes.
    """
    return (pred[0] * 255 + 0.5).astype(np.uint8)


def _add(total: np.ndarray, place: tuple[Window, Window], pred: torch.Tensor) -> None:
    down, across = place
    shape = (len(down.weights), len(across.weights))
    resized = F.interpolate(pred[None], shape, mode="bilinear", align_corners=False)[0].numpy()
    total[:, *_part(*place)] += resized * down.weights[:, None] * across.weights


def _part(down: Window, across: Window) -> tuple[slice, slice]:
    """Return the rows and columns of an array that a window covers."""
    return (
        slice(down.start, down.start + len(down.weights)),
        slice(across.start, across.start + len(across.weights)),
    )


def _batches(items: list[Item], count: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), count):
        yield items[start : start + count]
