"""Objects and detections drawn in code, and pycocotools' and panopticapi's scores of them."""

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from lpmoe_bench.metrics.objects import Detections, ObjectProtocol, ObjectScorer


class Truth(NamedTuple):
    """The objects of one image, as readers give them; labels: the stuff of a panoptic image."""

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    masks: Any
    shape: tuple[int, int]
    labels: Any = None


def real_file(name: str) -> Path:
    """A file of the real sets; skips the test where they are not."""
    path = Path(os.environ.get("LPMOE_BENCH_DATA", "."), name)
    if not path.is_file():
        pytest.skip(f"LPMOE_BENCH_DATA names no folder with {name}")
    return path


Pair = tuple[Detections, Truth]


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Half-open boxes of masks that are not empty."""
    found = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        found.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return np.array(found, float).reshape(-1, 4)


def draw_images(
    seed: int,
    images: int = 6,
    classes: int = 3,
    size: int = 160,
    most: int = 8,
    whole=True,
    crowds=0.2,
    extra: int = 4,
    scores: int = 5,
) -> list[Pair]:
    """Objects and what a poor detector finds: shifted, missed, relabelled, twice, and from nowhere.

    whole: boxes of whole pixels, so that overlaps tie. crowds: share of the objects. extra:
    detections from nowhere, up to so many. scores: how many different ones there are. Every fourth
    image has no object, every fifth no detection. Masks are boxes with a corner cut off.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(images):
        count = 0 if number % 4 == 3 else int(rng.integers(1, most))
        boxes = _boxes(rng, count, size)
        kinds = rng.integers(0, classes, count)
        moved = boxes[rng.random(count) < 0.85]
        shift = rng.integers(-3, 4, moved.shape) * (rng.random(len(moved)) < 0.7)[:, None]
        twice = moved[rng.random(len(moved)) < 0.4]
        nowhere = _boxes(rng, 0 if number % 5 == 4 else int(rng.integers(0, extra + 1)), size)
        found = np.concatenate([moved + shift, twice, nowhere])
        found = found[: 0 if number % 5 == 4 else None]
        if not whole:
            boxes, found = boxes + rng.random(boxes.shape), found + rng.random(found.shape)
        found = np.clip(found, 0, size)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + (0.5 if not whole else 1))
        found, boxes = np.clip(found, 0, size), np.clip(boxes, 0, size)
        right = np.resize(kinds, len(found)) if count else np.zeros(len(found), int)
        wrong = rng.random(len(found)) < 0.4
        called = np.where(wrong, rng.integers(0, classes, len(found)), right)
        sure = (rng.integers(1, scores + 1, len(found)) / (scores + 1)).astype(np.float32)
        true_masks = [_mask(box, size) for box in boxes]
        areas = np.array([mask.sum() for mask in true_masks], float)
        truth = Truth(boxes, kinds, rng.random(count) < crowds, areas, true_masks, (size, size))
        pairs.append((Detections(found, called, sure, [_mask(b, size) for b in found]), truth))
    return pairs


def _boxes(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    sides = np.minimum(rng.choice([6, 20, 32, 50, 96, 120], (count, 2)), size - 8)
    start = rng.integers(0, size - sides - 4)
    return np.concatenate([start, start + sides], axis=1).astype(float)


def _mask(box: np.ndarray, size: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    left, top, right, bottom = np.ceil(box - 0.5).astype(int)
    mask[top:bottom, left:right] = True
    mask[top : top + (bottom - top) // 3, left : left + (right - left) // 3] = False
    return mask


def scorer_of(protocol: ObjectProtocol, pairs: Sequence[Pair], classes: int) -> ObjectScorer:
    """A scorer that has seen these images."""
    scorer = ObjectScorer(protocol, [f"c{number}" for number in range(classes)])
    for number, (pred, truth) in enumerate(pairs):
        scorer.add(f"i{number:04}", pred, truth, "set")
    return scorer


# pycocotools.


def coco_precision(
    pairs: Sequence[Pair], classes: int, part: str = "boxes", most: int = 100
) -> np.ndarray:
    """The precisions of pycocotools: by overlap, recall, class and area; -1 where it has none."""
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def encoded(mask: Any) -> Any:
        return coco_mask.encode(np.asfortranarray(mask, np.uint8))

    def one(box: Any, mask: Any) -> dict[str, Any]:
        # With a box beside the mask pycocotools would take the box's area.
        left, top, right, bottom = map(float, box)
        own = {"bbox": [left, top, right - left, bottom - top]}
        return own if part == "boxes" else {"segmentation": encoded(mask)}

    objects, found = [], []
    for image, (pred, truth) in enumerate(pairs, 1):
        for k in range(len(truth.classes)):
            mask = None if part == "boxes" else truth.masks[k]
            own = {
                "id": len(objects) + 1,
                "image_id": image,
                "category_id": int(truth.classes[k]) + 1,
                "iscrowd": int(truth.crowd[k]),
                "area": float(truth.areas[k]),
            }
            objects.append(own | one(truth.boxes[k], mask))
        for k in range(len(pred.classes)):
            mask = None if part == "boxes" else pred.masks[k]  # type: ignore[index]
            own = {
                "image_id": image,
                "category_id": int(pred.classes[k]) + 1,
                "score": float(pred.scores[k]),
            }
            found.append(own | one(pred.boxes[k], mask))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": n + 1, "height": 1, "width": 1} for n in range(len(pairs))],
            "categories": [{"id": n + 1, "name": str(n)} for n in range(classes)],
            "annotations": objects,
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "bbox" if part == "boxes" else "segm")
        judge.params.maxDets = [1, 10, most]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][..., -1]


def coco_scores(
    pairs: Sequence[Pair], classes: int, part: str = "boxes", most: int = 100
) -> dict[str, float | None]:
    """The scores of pycocotools under the names that ours have; None where it says -1."""
    precision = coco_precision(pairs, classes, part, most)

    def mean(values: np.ndarray) -> float | None:
        return float(values[values > -1].mean()) if (values > -1).any() else None

    before = "box_" if part == "boxes" else "mask_"
    wanted = {
        f"{before}ap": mean(precision[..., 0]),
        f"{before}ap50": mean(precision[0, ..., 0]),
        f"{before}ap75": mean(precision[5, ..., 0]),
        f"{before}ap_small": mean(precision[..., 1]),
        f"{before}ap_medium": mean(precision[..., 2]),
        f"{before}ap_large": mean(precision[..., 3]),
    }
    for number in range(classes):
        wanted[f"{before}ap/c{number}"] = mean(precision[:, :, number, 0])
    return wanted
