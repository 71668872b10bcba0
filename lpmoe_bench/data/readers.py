"""Readers: from a pair's label file to what a model is trained on, one class a kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lpmoe_bench.data.label_rules import VOID
from lpmoe_bench.data.labels import Labels, read_labels
from lpmoe_bench.data.pairs import Pair, pair_truth
from lpmoe_bench.data.pixels import THRESHOLD, Truth

IGNORED = -1.0  # of a mask's tensor, where a pixel counts for nothing
Sides = tuple[int, int]  # height and width, in pixels


class MapReader:
    """What masks and maps of labels share: a value a pixel, in a tensor whose last axes are (h, w).

    outside: the value of what lies beyond the image, where it was padded. blank: of what an
    enlarged or shrunk view leaves free. like: an empty tensor of a target's type and axes.
    """

    outside: float
    blank: float
    like: Tensor

    def read(self, pair: Pair, threshold: int = THRESHOLD) -> Any:
        """Return what the label file of a pair says, at its own size; raises DataError.

        threshold: an undeclared value of a binary mask above it, of 255, is object.
        """
        raise NotImplementedError

    def check(self, label: str, pairs: Sequence[Pair]) -> None:
        """Raise DataError where the labels of a split, known by a label, lack what is trained."""
        return

    def shape(self, truth: Any) -> tuple[int, ...]:
        """Return (h, w) of what was read."""
        raise NotImplementedError

    def target(self, truth: Any, sides: Sides) -> Tensor:
        """Squash what was read to a target of (h, w) `sides`, each pixel the nearest one."""
        raise NotImplementedError

    def padded(self, target: Tensor, sides: Sides) -> Tensor:
        """Add what lies outside at the right and below."""
        h, w = target.shape[-2:]
        room = (0, sides[1] - w, 0, sides[0] - h)
        return F.pad(target, room, value=self.outside)

    def mirrored(self, target: Tensor) -> Tensor:
        """Swap left and right."""
        return target.flip(-1)

    def view(self, target: Tensor, sides: Sides, take: Any, put: Any) -> Tensor:
        """Resize a target to `sides`, take a part of it, and put that on a blank one of its size.

        take, put: indices of the last two axes.
        """
        flat = target.reshape(1, 1, *target.shape[-2:])
        large = F.interpolate(flat.float(), sides, mode="nearest-exact").to(target.dtype)
        canvas = torch.full_like(target, self.blank)
        canvas[(..., *put)] = large[0, 0][take]
        return canvas

    def batch(self, targets: Sequence[Tensor]) -> Tensor:
        """Put targets of one size together."""
        return torch.stack(list(targets))

    def of_noise(self, noise: Tensor, classes: int) -> Tensor:
        """Return targets (B, ..., h, w) of noise (B, h, w) in [0, 1), to time a training with."""
        raise NotImplementedError


class MaskReader(MapReader):
    """Binary masks: float32 (1, h, w) of 0 and 1, and -1 where a pixel is ignored."""

    outside = IGNORED
    blank = 0.0  # no object
    like = torch.empty(1, 0, 0)

    def read(self, pair: Pair, threshold: int = THRESHOLD) -> Truth:
        return pair_truth(pair, threshold)

    def shape(self, truth: Truth) -> tuple[int, ...]:
        return truth.mask.shape

    def target(self, truth: Truth, sides: Sides) -> Tensor:
        mask = torch.from_numpy(_nearest(truth.mask, sides) > 0).float()[None]
        if truth.ignored is not None:
            ignored = _nearest(truth.ignored.view(np.uint8), sides)
            mask[torch.from_numpy(ignored > 0)[None]] = IGNORED
        return mask

    def of_noise(self, noise: Tensor, classes: int) -> Tensor:
        return (noise[:, None] > 0.5).float()


class LabelReader(MapReader):
    """Maps of classes: int64 (h, w), counted from 0, 255 where a pixel is void."""

    outside = blank = VOID
    like = torch.empty(0, 0, dtype=torch.int64)

    def read(self, pair: Pair, threshold: int = THRESHOLD) -> Labels:
        return read_labels(pair)

    def shape(self, truth: Labels) -> tuple[int, ...]:
        return truth.labels.shape

    def target(self, truth: Labels, sides: Sides) -> Tensor:
        return torch.from_numpy(_nearest(truth.labels, sides)).long()

    def of_noise(self, noise: Tensor, classes: int) -> Tensor:
        return (noise * classes).long()


def _nearest(values: np.ndarray, sides: Sides) -> np.ndarray:
    # The exact variant samples pixel centres, so that a mirrored mask gives a mirrored result, and
    # it never mixes two classes into a third.
    return cv2.resize(values, sides[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
