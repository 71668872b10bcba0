"""Targets: what one image holds, as heads of objects are trained with it, and what they find."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEAST_SIDE = 1.0  # pixels: a smaller box has no width to regress, and its loss would be no number


class Target(NamedTuple):
    """What one image holds, at the size of the canvas that a model sees. Classes count from 0.

    size: (h, w) of the canvas. boxes: (N, 4) float32, x0 y0 x1 y1 in pixels, half-open. classes:
    (N,) int64. crowd: (N,) bool, a group that is not told apart: no head is trained on it. masks:
    (N, h, w) bool, None where there are boxes alone. labels: (h, w) int64, of panoptic targets
    alone, the class of a pixel of stuff, 255 elsewhere; masks and classes are then the things.
    inner: (h, w) of the image inside a canvas that was padded at the right and below; None where
    the image fills it.
    """

    size: tuple[int, int]
    boxes: Tensor
    classes: Tensor
    crowd: Tensor
    masks: Tensor | None = None
    labels: Tensor | None = None
    inner: tuple[int, int] | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Target:
        """Return the target on another device."""
        moved = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in self._asdict().items()
            if isinstance(value, Tensor)
        }
        return self._replace(**moved)

    def only(self, kept: Tensor) -> Target:
        """Return the target with some of its objects; kept: bool (N,)."""
        return self._replace(
            boxes=self.boxes[kept],
            classes=self.classes[kept],
            crowd=self.crowd[kept],
            masks=None if self.masks is None else self.masks[kept],
        )

    def trained(self) -> Target:
        """Return the target with the objects that a head can learn: no crowds, no boxes with a side
        of one pixel or less, no masks without a pixel."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        kept = ~self.crowd & (sides > LEAST_SIDE).all(1)
        if self.masks is not None:
            kept &= self.masks.flatten(1).any(1)
        return self.only(kept)


class Found(NamedTuple):
    """Objects found in one image, at the canvas size, best first.

    boxes: (N, 4) float32. classes: (N,) int64. scores: (N,) float32. masks: None where there are
    boxes alone; else probabilities (N, m, m) inside the boxes where `framed`, or logits
    (N, h', w') over the whole canvas.
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor
    masks: Tensor | None = None
    framed: bool = False


class Segmented(NamedTuple):
    """What a panoptic head says of one image: scores (Q, K), the probabilities of each class for Q
    segments, less that of "nothing", and masks (Q, h', w'), logits over the canvas."""

    scores: Tensor
    masks: Tensor


class Layered(NamedTuple):
    """What a panoptic head says of one image in two layers, for settling at the image's own size.

    boxes, classes, scores, masks: objects, as `Found` has them, with masks inside their boxes.
    stuff: (K + 1, h', w'), logits over the canvas of each class and of "an object", the last; those
    of classes that are things mean nothing.
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor
    masks: Tensor
    stuff: Tensor
