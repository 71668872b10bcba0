"""Runs on objects: discs and boxes on ground, their labels, and tiny runs of each kind of task."""

import json
from pathlib import Path

import cv2
import numpy as np
import object_sets as sets
from tiny_runs import BACKBONE

QUICK = [
    *("--method", "lora", "--backbone", BACKBONE, "--weights", "random:3"),
    *("--size", "64x96", "--set", "train.batch=4", "--set", "train.epochs=2"),
]
HEADS = {
    "detection": ["--set", "decoder.width=32", "--set", "decoder.hidden=32"],
    "instance": ["--set", "decoder.width=32", "--set", "decoder.hidden=32"],
    "panoptic": [
        *("--set", "decoder.width=32", "--set", "decoder.queries=6"),
        *("--set", "decoder.layers=1", "--set", "decoder.points=64"),
    ],
}
ENTRY = """
tasks:
  {kind}_task: {{title: T, kind: {kind}, train: [{kind}_set/train], test: [{kind}_set/test]}}
datasets:
  {kind}_set:
    title: S
    task: {kind}_task
    folder: {folder}
    labels: {{format: {form}, files: {{train: {train}, test: {test}}}}}
"""


def disc_and_box(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Draw a disc and a box of their own colours on ground: image, labels, centre of the disc."""
    labels = np.zeros((60, 80), np.uint8)
    x, y = int(random.integers(15, 30)), int(random.integers(15, 45))
    cv2.circle(labels, (x, y), 10, 1, -1)
    cv2.rectangle(labels, (45, y - 10), (70, y + 10), 2, -1)
    image = random.integers(0, 100, (60, 80, 3)).astype(np.uint8)
    image[labels == 1, 0] += 120
    image[labels == 2, 2] += 120
    return image, labels, (x, y)


def draw(folder: Path, split: str, count: int, seed: int) -> None:
    """Write images with a disc and a box on ground, and their labels in COCO's two forms."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "maps").mkdir(exist_ok=True)
    images, objects, segments = [], [], []
    for k in range(1, count + 1):
        image, labels, (x, y) = disc_and_box(random)
        name = f"{split}{k:02}"
        cv2.imwrite(str(folder / "images" / f"{name}.png"), image)
        ids = np.dstack([0 * labels, 0 * labels, labels + 10])
        cv2.imwrite(str(folder / "maps" / f"{name}.png"), ids)
        images.append({"id": k, "file_name": f"{name}.png", "height": 60, "width": 80})
        for own, box in ((1, (x - 10, y - 10, x + 11, y + 11)), (2, (45, y - 10, 71, y + 11))):
            x0, y0, x1, y1 = box
            outline = sets.runs(box, shape=(60, 80)) if own == 2 else [
                [float(v) for at in cv2.ellipse2Poly((x, y), (10, 10), 0, 0, 360, 20) for v in at]
            ]  # fmt: skip
            objects.append(
                {"id": len(objects) + 1, "image_id": k, "category_id": own, "iscrowd": 0,
                 "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": outline}
            )  # fmt: skip
        info = [{"id": 10 + own, "category_id": own} for own in range(3)]
        segments.append({"image_id": k, "file_name": f"{name}.png", "segments_info": info})
    kinds = [{"id": k, "name": name, "isthing": k and 1} for k, name in enumerate(NAMES)]
    said = {"images": images, "categories": kinds[1:], "annotations": objects}
    (folder / f"{split}.json").write_text(json.dumps(said))
    said = {"images": images, "categories": kinds, "annotations": segments}
    (folder / f"{split}_panoptic.json").write_text(json.dumps(said))


NAMES = ["ground", "disc", "box"]


def entry(folder: Path, kind: str, **more: str) -> Path:
    """Write a list of data sets with one of a kind of task, and return it."""
    form, ends = ("coco_panoptic", "_panoptic") if kind == "panoptic" else ("coco", "")
    files = {split: f"{split}{ends}.json" for split in ("train", "test")} | more
    if ends:
        files = {split: f"[{name}, maps]" for split, name in files.items()}
    place = folder / f"{kind}{len(more)}.yaml"
    place.write_text(ENTRY.format(kind=kind, folder=folder, form=form, **files))
    return place


def asked(data: Path, runs: Path, kind: str, *more: str, **files: str) -> list[str]:
    """The arguments of a run of a kind of task."""
    sets_of = str(entry(data, kind, **files))
    named = ["--task", f"{kind}_task", "--datasets", sets_of, "--runs", str(runs)]
    return ["run", *QUICK, *named, *HEADS[kind], *more]
