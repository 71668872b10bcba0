"""Small sets of objects on disk: images, and their labels as COCO, VOC and YOLO have them."""

import json
from pathlib import Path

import cv2
import numpy as np

SHAPE = (40, 60)
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
POLYGON = [10.0, 5.0, 30.0, 5.0, 30.0, 25.0, 10.0, 25.0]


def image(path: Path, seed: int = 0, shape=SHAPE) -> Path:
    """Write a PNG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*shape, 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


def runs(*boxes, shape=SHAPE) -> dict:
    """Return the uncompressed runs of a union of boxes x0 y0 x1 y1, as COCO has them."""
    mask = np.zeros(shape, bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    flat = np.concatenate([[False], mask.T.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    return {"size": list(shape), "counts": counts}


def content(annotations=None, **more) -> dict:
    """Return a COCO file of the images a, b and c; c has no object unless one is given."""
    if annotations is None:
        annotations = [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 5, 20, 20], "area": 400,
             "iscrowd": 0, "segmentation": [POLYGON]},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [0, 0, 4, 6], "area": 24,
             "iscrowd": 0, "segmentation": runs((0, 0, 4, 6))},
            {"id": 3, "image_id": 2, "category_id": 3, "bbox": [40, 10, 20, 30], "area": 600,
             "iscrowd": 1, "segmentation": runs((40, 10, 60, 40))},
            {"id": 4, "image_id": 2, "category_id": 7, "bbox": [2, 2, 10, 10], "area": 100,
             "iscrowd": 0, "segmentation": runs((2, 2, 12, 12))},
        ]  # fmt: skip
    images = [
        {"id": k, "file_name": f"{name}.png", "height": SHAPE[0], "width": SHAPE[1]}
        for k, name in enumerate("abc", 1)
    ]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES} | more


def coco_set(folder: Path, said: dict | None = None, name: str = "train.json") -> Path:
    """Write images a, b and c, and a COCO file beside them; return the folder."""
    for seed, stem in enumerate("abc"):
        image(folder / "images" / f"{stem}.png", seed)
    (folder / name).write_text(json.dumps(content() if said is None else said))
    return folder
