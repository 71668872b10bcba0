"""Readers of objects: from a label file to boxes, classes and masks at the size of the canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lpmoe_bench.data.label_rules import VOID
from lpmoe_bench.data.objects import Objects, read_objects, resized_masks
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.pixels import THRESHOLD
from lpmoe_bench.data.readers import Sides
from lpmoe_bench.data.targets import Target
from lpmoe_bench.errors import DataError

Part = tuple[slice, slice]  # rows and columns
OF_NOISE = 8  # objects of an image of noise; COCO's images have 7.3 on average


class BoxReader:
    """Objects with their boxes alone; what readers of objects share.

    An object that a view or a squashed mask has lost is no longer trained on, see `Target.trained`;
    scores take the objects as they were read.
    """

    masks = False

    def check(self, label: str, pairs: Sequence[Pair]) -> None:
        """Raise DataError where the labels of a split, known by a label, lack what is trained."""
        return

    def read(self, pair: Pair, threshold: int = THRESHOLD) -> Objects:
        """Return the objects of a pair at its own size; raises DataError. threshold: of masks."""
        return read_objects(pair.mask, pair.rules, pair.image, self.masks)

    def shape(self, truth: Objects) -> tuple[int, ...]:
        """Return (h, w) of what was read."""
        return truth.shape

    def target(self, truth: Objects, sides: Sides) -> Target:
        """Squash what was read to a target of (h, w) `sides`: boxes exactly, masks to the nearest
        pixel."""
        (h, w), (high, wide) = truth.shape, sides
        boxes = truth.boxes * np.array([wide / w, high / h] * 2)
        return Target(
            sides,
            _within(torch.from_numpy(boxes).float(), 0, 0, wide, high),
            torch.from_numpy(truth.classes).long(),
            torch.from_numpy(truth.crowd),
            torch.from_numpy(resized_masks(truth, sides)) if self.masks else None,
            self._labels(truth, sides),
        )

    def _labels(self, truth: Objects, sides: Sides) -> Tensor | None:
        """Return the map of stuff at `sides`, None where there is none."""
        return None

    def padded(self, target: Target, sides: Sides) -> Target:
        """Add what lies outside at the right and below."""
        h, w = target.size
        room = (0, sides[1] - w, 0, sides[0] - h)
        masks, labels = target.masks, target.labels
        return target._replace(
            size=sides,
            masks=None if masks is None else F.pad(masks, room, value=False),
            labels=None if labels is None else F.pad(labels, room, value=VOID),
            inner=(h, w),
        )

    def mirrored(self, target: Target) -> Target:
        """Swap left and right. What was padded then lies at the left, so that the target knows no
        image inside its canvas any more."""
        x0, y0, x1, y1 = target.boxes.unbind(1)
        wide = target.size[1]
        return target._replace(
            boxes=torch.stack([wide - x1, y0, wide - x0, y1], 1),
            masks=None if target.masks is None else target.masks.flip(-1),
            labels=None if target.labels is None else target.labels.flip(-1),
            inner=None,
        )

    def view(self, target: Target, sides: Sides, take: Part, put: Part) -> Target:
        """Resize a target to `sides`, take a part of it, and put that on an empty one of its size.

        Objects of which nothing is left are left out. The box of one that is cut is cut with it,
        and drawn in to what is left of its mask.
        """
        (h, w), (high, wide) = target.size, sides
        factors = torch.tensor([wide / w, high / h] * 2, dtype=torch.float32)
        move = torch.tensor([_shift(take[1], put[1]), _shift(take[0], put[0])] * 2)
        moved = target.boxes * factors + move
        boxes = _within(moved, put[1].start, put[0].start, put[1].stop, put[0].stop)
        masks = None if target.masks is None else _viewed(target.masks, sides, take, put, False)
        labels = target.labels
        if labels is not None:
            labels = _viewed(labels[None].to(torch.uint8), sides, take, put, VOID)[0].long()
        if masks is not None and len(masks):
            cut = (boxes != moved).any(1)
            boxes = torch.where(cut[:, None], _drawn_in(boxes, masks), boxes)
        found = target._replace(boxes=boxes, masks=masks, labels=labels, inner=None)
        return found.only((boxes[:, 2:] > boxes[:, :2]).all(1))

    def batch(self, targets: Sequence[Target]) -> list[Target]:
        """Put targets together: a list, for each holds as many objects as it does."""
        return list(targets)

    def of_noise(self, noise: Tensor, classes: int) -> list[Target]:
        """Return a target with a few rectangles for each image of noise, (B, h, w) in [0, 1): to
        time a training with."""
        return [self._of_noise(one, classes) for one in noise]

    def _of_noise(self, noise: Tensor, classes: int) -> Target:
        h, w = noise.shape
        left, top, wide, high, kind = noise.flatten()[: 5 * OF_NOISE].reshape(5, OF_NOISE)
        # From a tenth to a half of each side, and all of it inside.
        x0, y0 = left * w / 2, top * h / 2
        x1, y1 = x0 + (0.1 + 0.4 * wide) * w, y0 + (0.1 + 0.4 * high) * h
        x, y = torch.arange(w).to(noise) + 0.5, torch.arange(h).to(noise) + 0.5
        across = (x >= x0[:, None]) & (x < x1[:, None])
        down = (y >= y0[:, None]) & (y < y1[:, None])
        masks = down[:, :, None] & across[:, None]
        return Target(
            (h, w),
            torch.stack([x0, y0, x1, y1], 1),
            (kind * classes).long(),
            torch.zeros_like(kind, dtype=torch.bool),
            masks if self.masks else None,
            self._stuff_of_noise(noise, masks, classes),
        )

    def _stuff_of_noise(self, noise: Tensor, masks: Tensor, classes: int) -> Tensor | None:
        """Return the map of stuff around objects, None where there is none."""
        return None


class InstanceReader(BoxReader):
    """Objects with boxes and masks."""

    masks = True

    def check(self, label: str, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            said: Any = getattr(pair.mask, "objects", None)
            if said is not None and not said.has_masks:
                raise DataError(
                    f"{label} has boxes without masks (such as in {pair.name}), which a task of "
                    f"kind detection trains on; or give each object its outline"
                )


class PanopticReader(InstanceReader):
    """Things with masks, and the map of stuff."""

    def check(self, label: str, pairs: Sequence[Pair]) -> None:
        rules = pairs[0].rules.labels if pairs else None
        if rules is not None and rules.format not in ("coco_panoptic",):
            raise DataError(
                f"{label} has labels of format {rules.format}, which tell nothing of stuff; a "
                f"panoptic task needs format coco_panoptic"
            )

    def _labels(self, truth: Objects, sides: Sides) -> Tensor | None:
        assert truth.labels is not None, "panoptic truth"
        labels = cv2.resize(truth.labels, sides[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        return torch.from_numpy(labels).long()

    def _stuff_of_noise(self, noise: Tensor, masks: Tensor, classes: int) -> Tensor:
        # Few kinds of stuff in stripes: noise of all classes would be more segments than any image.
        stripes = torch.arange(noise.shape[0], device=noise.device) * 4 // noise.shape[0]
        labels = (stripes * classes // 4)[:, None].expand(noise.shape).clone()
        return labels.masked_fill(masks.any(0), VOID)


def _shift(take: slice, put: slice) -> float:
    return float(put.start - take.start)


def _within(boxes: Tensor, left: float, top: float, right: float, bottom: float) -> Tensor:
    """Return boxes (N, 4) cut at the edges of an area."""
    x, y = boxes[:, 0::2].clamp(left, right), boxes[:, 1::2].clamp(top, bottom)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def _viewed(maps: Tensor, sides: Sides, take: Part, put: Part, blank: int) -> Tensor:
    """Return maps (N, h, w), bool or uint8, resized, cut and put on blank ones of their size."""
    canvas = torch.full_like(maps, blank)
    if len(maps):
        large = F.interpolate(maps[:, None].to(torch.uint8), sides, mode="nearest-exact")[:, 0]
        canvas[(..., *put)] = large[(..., *take)].to(maps.dtype)
    return canvas


def _drawn_in(boxes: Tensor, masks: Tensor) -> Tensor:
    """Return boxes (N, 4) cut at the edges of their masks (N, h, w); no size for empty ones."""
    spans = []
    for axis in (1, 2):  # rows and columns that a mask has pixels in
        there = masks.any(dim=3 - axis)
        first = there.int().argmax(1)
        last = there.shape[1] - there.flip(1).int().argmax(1)
        spans.append((first, torch.where(there.any(1), last, first)))
    (top, bottom), (left, right) = spans
    own = torch.stack([left, top, right, bottom], 1).to(boxes)
    low = torch.maximum(boxes[:, :2], own[:, :2])
    return torch.cat([low, torch.minimum(boxes[:, 2:], own[:, 2:])], 1)
