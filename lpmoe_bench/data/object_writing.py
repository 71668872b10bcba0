"""Objects written in COCO's forms: JSON of boxes and masks, and panoptic JSON with its maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np

from lpmoe_bench.data.label_rules import VOID
from lpmoe_bench.data.objects import Objects, pixels_of
from lpmoe_bench.metrics.runs import pack_runs

Item = tuple[str, Objects]  # the file name of an image, and what is in it


def coco_json(items: Iterable[Item], classes: Sequence[str]) -> dict[str, Any]:
    """Return COCO's detection or instance JSON, masks as compressed runs; ids count from 1."""
    images, annotations = [], []
    for number, (file, found) in enumerate(items, 1):
        height, width = found.shape
        images.append({"id": number, "file_name": file, "height": height, "width": width})
        for place in range(len(found.classes)):
            left, top, right, bottom = found.boxes[place].tolist()
            one = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": int(found.classes[place]) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": float(found.areas[place]),
                "iscrowd": int(found.crowd[place]),
            }
            if found.masks is not None:
                counts = pack_runs(found.masks[place].tolist())
                one["segmentation"] = {"size": [height, width], "counts": counts}
            annotations.append(one)
    categories = [{"id": k, "name": name} for k, name in enumerate(classes, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def panoptic_json(
    items: Iterable[Item], classes: Sequence[str], things: Sequence[str]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return COCO's panoptic JSON, and the PNG of each image by the name of its file."""
    images, annotations, maps = [], [], {}
    for number, (file, found) in enumerate(items, 1):
        height, width = found.shape
        name = file.rpartition(".")[0] + ".png"
        images.append({"id": number, "file_name": file, "height": height, "width": width})
        assert found.labels is not None, "panoptic objects"
        stuff = [own for own in np.unique(found.labels).tolist() if own != VOID]
        owners = np.array([*stuff, *found.classes.tolist()], np.int64)
        ids = np.zeros((height, width), np.int64)
        numbers = segment_numbers(owners)
        for own, segment in zip(stuff, numbers, strict=False):
            ids[found.labels == own] = segment
        for place, segment in enumerate(numbers[len(stuff) :]):
            ids[pixels_of(found, place)] = segment
        crowds = [False] * len(stuff) + found.crowd.tolist()
        listed = [
            {"id": int(segment), "category_id": int(own) + 1, "iscrowd": int(crowd)}
            for segment, own, crowd in zip(numbers, owners, crowds, strict=True)
        ]
        annotations.append({"image_id": number, "file_name": name, "segments_info": listed})
        maps[name] = numbers_png(ids)
    categories = [
        {"id": k, "name": name, "isthing": int(name in things)} for k, name in enumerate(classes, 1)
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return content, maps


def segment_numbers(classes: np.ndarray) -> np.ndarray:
    """Return a number for each segment: the first of class k has 1000 (k + 1), and so on."""
    seen: dict[int, int] = {}
    numbers = []
    for own in classes.tolist():
        numbers.append(1000 * (own + 1) + seen.get(own, 0))
        seen[own] = seen.get(own, 0) + 1
    return np.array(numbers, np.int64)


def numbers_png(numbers: np.ndarray) -> bytes:
    """Return numbers below 2^24, (h, w), as the bytes of a PNG in colours: R + 256 G + 65536 B."""
    blue, green, red = ((numbers >> shift & 255).astype(np.uint8) for shift in (16, 8, 0))
    return cv2.imencode(".png", np.dstack([blue, green, red]))[1].tobytes()
