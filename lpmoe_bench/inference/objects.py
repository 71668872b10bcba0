"""Objects at an image's own size: boxes, masks as runs and panoptic segments, of what heads find.

Masks are made a few at a time and turned into runs at once, so that an image of hundreds of objects
is never held as hundreds of masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lpmoe_bench.data.targets import Found, Layered, Segmented
from lpmoe_bench.metrics.objects import Detections
from lpmoe_bench.metrics.panoptic import Panoptic
from lpmoe_bench.metrics.runs import runs_of_pixels

TOGETHER = 8  # maps that are brought to an image's own size at once
HALF = 0.5  # of a mask's probability: from here on a pixel is object


class PanopticRules(NamedTuple):
    """When what was found becomes a segment.

    least_score: of its class. least_share: of its mask that nothing else has. least_stuff: share of
    the image that a class of stuff has to cover.
    """

    least_score: float
    least_share: float
    least_stuff: float = 0.0


# MODEL.MASK_FORMER.TEST of the configurations that Mask2Former, arXiv 2112.01527, came with.
MASK2FORMER = PanopticRules(least_score=0.8, least_share=0.8)
# MODEL.PANOPTIC_FPN.COMBINE of detectron2. Departs from it: its least stuff is 4096 pixels, which
# are taken as that share of COCO's usual 640 x 480.
PANOPTIC_FPN = PanopticRules(least_score=0.5, least_share=0.5, least_stuff=4096 / (640 * 480))


class Frame(NamedTuple):
    """Where an image lies in what a model saw, (h, w) each.

    canvas: what it saw. inner: the image in it, at the left and top. native: the image's own size.
    """

    canvas: tuple[int, int]
    inner: tuple[int, int]
    native: tuple[int, int]

    @classmethod
    def of(cls, canvas: Sequence[int], inner: Sequence[int], native: Sequence[int]) -> Frame:
        """Return the frame of three sizes, each (h, w)."""
        pairs = ((int(sides[0]), int(sides[1])) for sides in (canvas, inner, native))
        return cls(*pairs)


def settle_objects(
    found: Found, canvas: Sequence[int], inner: Sequence[int], native: Sequence[int], most: int
) -> Detections:
    """Return the objects of an image at its own size, best first, masks as runs.

    What lies outside the image, or has no pixel of a mask of queries, is left out.

    Args:
        found: on the CPU.
        canvas: (h, w) of what the model saw.
        inner: (h, w) of the image in it, at the left and top.
        native: (h, w) of the image itself.
        most: how many are kept, the best.
    """
    frame = Frame.of(canvas, inner, native)
    best = found.scores.argsort(descending=True, stable=True)
    boxes = _scaled(found.boxes[best].double().numpy(), frame)
    limit = np.array([frame.native[1], frame.native[0]] * 2)
    cut = boxes.clip(0, limit)
    kept = np.flatnonzero((cut[:, 2:] > cut[:, :2]).all(axis=1))
    masks: list[np.ndarray] | None = None
    if found.masks is not None and found.framed:
        kept = kept[:most]
        own = found.masks[best[kept]].float()
        pairs = zip(own, boxes[kept], strict=True)
        masks = [_runs_inside(*_pasted(*one, frame.native), frame.native) for one in pairs]
    elif found.masks is not None:
        cut, kept, masks = _of_maps(found.masks, best, frame, most)
    kept = kept[:most]
    chosen = best[kept]
    return Detections(cut[kept], found.classes[chosen].numpy(), found.scores[chosen].numpy(), masks)


def _scaled(boxes: np.ndarray, frame: Frame) -> np.ndarray:
    """Bring boxes of the canvas to the image's own pixels; what lies on the padding goes beyond."""
    high, wide = (own / within for own, within in zip(frame.native, frame.inner, strict=True))
    return boxes * np.array([wide, high, wide, high])


def _pasted(mask: Tensor, box: np.ndarray, native: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """Return the pixels of a mask (m, m) that fills a box, read bilinearly at pixel centres, within
    that box, and the column and row where they begin."""
    high, wide = native
    left, top = (max(0, int(np.floor(edge))) for edge in box[:2])
    right, bottom = min(wide, int(np.ceil(box[2]))), min(high, int(np.ceil(box[3])))
    if left >= right or top >= bottom:  # it lies on the padding
        return np.zeros((0, 0), bool), 0, 0
    columns, rows = np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5
    across = torch.from_numpy((columns - box[0]) / (box[2] - box[0])).float()
    down = torch.from_numpy((rows - box[1]) / (box[3] - box[1])).float()
    read = _read_at(mask[None], down, across, "zeros")[0]
    return (read >= HALF).numpy(), left, top


def _of_maps(
    masks: Tensor, best: Tensor, frame: Frame, most: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return boxes of all masks, logits over the canvas, the places of those that have a pixel, and
    the runs of these; masks are taken in the order of `best` until `most` are had."""
    boxes, kept, runs = np.zeros((len(best), 4)), [], []
    for start in range(0, len(best), TOGETHER):
        chosen = best[start : start + TOGETHER]
        for place, pixels in enumerate(_at_native(masks[chosen], frame) > 0, start):
            rows = np.flatnonzero(pixels.any(1).numpy())
            columns = np.flatnonzero(pixels.any(0).numpy())
            if not len(rows):
                continue
            left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            crop = pixels[top:bottom, left:right].numpy()
            boxes[place] = left, top, right, bottom
            runs.append(_runs_inside(crop, int(left), int(top), frame.native))
            kept.append(place)
        if len(kept) >= most:
            break
    return boxes, np.array(kept[:most], np.int64), runs[:most]


def _at_native(maps: Tensor, frame: Frame) -> Tensor:
    """Read maps (N, h', w') over the canvas bilinearly at the pixel centres of the image."""
    down, across = (
        (torch.arange(own) + 0.5) / own * (within / whole)
        for own, within, whole in zip(frame.native, frame.inner, frame.canvas, strict=True)
    )
    return _read_at(maps.float(), down, across, "border")


def _read_at(maps: Tensor, down: Tensor, across: Tensor, outside: str) -> Tensor:
    """Read maps (N, h, w) at rows and columns, in shares of their height and width."""
    rows, columns = torch.meshgrid(2 * down - 1, 2 * across - 1, indexing="ij")
    grid = torch.stack([columns, rows], dim=-1)[None]
    return F.grid_sample(maps[None], grid, padding_mode=outside, align_corners=False)[0]


def _runs_inside(crop: np.ndarray, left: int, top: int, native: tuple[int, int]) -> np.ndarray:
    """Return the runs of an image whose only object pixels are in a part of it, bool (h, w)."""
    high, wide = native
    # Runs go down the columns: those beside the part are background, whole.
    columns = np.zeros((high, crop.shape[1]), bool)
    columns[top : top + crop.shape[0]] = crop
    if not columns.any():
        return np.array([high * wide], np.int64)
    runs, after = runs_of_pixels(columns), high * (wide - left - crop.shape[1])
    runs[0] += high * left
    if len(runs) % 2:  # it ends with background
        runs[-1] += after
        return runs
    return np.append(runs, after) if after else runs


# Panoptic maps: each pixel has one segment at most.


def settle_panoptic(
    found: Segmented | Layered,
    canvas: Sequence[int],
    inner: Sequence[int],
    native: Sequence[int],
    things: Sequence[bool],
) -> Panoptic:
    """Return the segments of an image at its own size, as the head's released code merges them.

    Args:
        found: of the head, on the CPU.
        canvas: (h, w) of what the model saw.
        inner: (h, w) of the image in it, at the left and top.
        native: (h, w) of the image itself.
        things: of each class, whether it is a thing.
    """
    frame = Frame.of(canvas, inner, native)
    if isinstance(found, Layered):
        return _merged_layers(found, frame, things, PANOPTIC_FPN)
    return _merged_queries(found, frame, things, MASK2FORMER)


def _merged_queries(
    found: Segmented, frame: Frame, things: Sequence[bool], rules: PanopticRules
) -> Panoptic:
    """Merge queries as Mask2Former does.

    Those that are sure of their class compete for each pixel by the product of the probabilities of
    class and mask. One that keeps too small a share of its own mask is dropped; its pixels stay
    without a segment. Stuff of one class is one segment.
    """
    scores, classes = (t.numpy() for t in found.scores.float().max(dim=1))
    sure = np.flatnonzero(scores > rules.least_score)
    own, inside, sizes = _contest(found.masks, scores, sure, frame)
    won = np.bincount(own.ravel(), minlength=len(sure) + 1)[1:]
    seen = np.bincount(own[inside], minlength=len(sure) + 1)[1:]
    numbers, found_classes = np.zeros(len(sure) + 1, np.int32), []
    stuff: dict[int, int] = {}
    for place, query in enumerate(sure):
        kind = int(classes[query])
        if not seen[place] or won[place] < rules.least_share * sizes[place]:
            continue
        if things[kind] or kind not in stuff:
            found_classes.append(kind)
            stuff[kind] = len(found_classes)
        numbers[place + 1] = stuff[kind]
    return Panoptic(np.where(inside, numbers[own], 0), np.array(found_classes, np.int64))


def _contest(
    masks: Tensor, scores: np.ndarray, sure: np.ndarray, frame: Frame
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return who wins each pixel, counted from 1, whether it lies in the winner's own mask, and
    how many pixels each mask has."""
    best = np.zeros(frame.native, np.float32)
    own, inside = np.zeros(frame.native, np.int64), np.zeros(frame.native, bool)
    sizes = np.zeros(len(sure), np.int64)
    for place, probability in enumerate(_probabilities(masks, sure, frame)):
        mine = probability >= HALF
        sizes[place] = mine.sum()
        weighed = probability * scores[sure[place]]
        ahead = weighed > best
        best[ahead], own[ahead], inside[ahead] = weighed[ahead], place + 1, mine[ahead]
    return own, inside, sizes


def _probabilities(masks: Tensor, chosen: np.ndarray, frame: Frame) -> Iterator[np.ndarray]:
    for start in range(0, len(chosen), TOGETHER):
        few = masks[torch.from_numpy(chosen[start : start + TOGETHER])]
        yield from _at_native(few, frame).sigmoid().numpy()


def _merged_layers(
    found: Layered, frame: Frame, things: Sequence[bool], rules: PanopticRules
) -> Panoptic:
    """Merge objects and stuff as Panoptic FPN does.

    Objects lie above one another in the order of their scores, and one too much of which is hidden
    is dropped; above stuff they always lie. Stuff that covers too little is dropped.
    """
    ids, classes = np.zeros(frame.native, np.int32), []
    boxes = _scaled(found.boxes.double().numpy(), frame)
    for place in found.scores.argsort(descending=True, stable=True).tolist():
        kind = int(found.classes[place])
        if found.scores[place] < rules.least_score:
            break
        if not things[kind]:
            continue
        mask, left, top = _pasted(found.masks[place].float(), boxes[place], frame.native)
        under = ids[top : top + mask.shape[0], left : left + mask.shape[1]]
        free = mask & (under == 0)
        if free.any() and mask.sum() - free.sum() <= (1 - rules.least_share) * mask.sum():
            classes.append(kind)
            under[free] = len(classes)
    labels = _best_of(found.stuff, [*np.flatnonzero(~np.array(things, bool)), len(things)], frame)
    for kind in np.unique(labels[ids == 0]).tolist():
        own = (labels == kind) & (ids == 0)
        if kind < len(things) and own.sum() >= rules.least_stuff * own.size:
            classes.append(kind)
            ids[own] = len(classes)
    return Panoptic(ids, np.array(classes, np.int64))


def _best_of(logits: Tensor, chosen: Sequence[int], frame: Frame) -> np.ndarray:
    """Return which of the chosen maps (K, h', w') is largest at each pixel of the image."""
    best = np.full(frame.native, -np.inf, np.float32)
    labels = np.zeros(frame.native, np.int64)
    for start in range(0, len(chosen), TOGETHER):
        few = chosen[start : start + TOGETHER]
        for kind, read in zip(few, _at_native(logits[list(few)], frame).numpy(), strict=True):
            ahead = read > best
            best[ahead], labels[ahead] = read[ahead], kind
    return labels
