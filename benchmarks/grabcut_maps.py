"""Maps of a method that learns nothing, GrabCut from a centred box, as plain folders for `score`.

    python benchmarks/grabcut_maps.py OUT [--task cod] [--data-root DIR]
    lpmoe-bench score OUT --task cod --name GrabCut

GrabCut: Rother, Kolmogorov & Blake, SIGGRAPH 2004, by OpenCV: five rounds on the image at 256
pixels of its long side, from a box that leaves a tenth free on every side. Maps are binary, at the
image's own size.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from lpmoe_bench.data.images import read_image
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.data.tasks import resolve
from lpmoe_bench.environment import default_cache
from lpmoe_bench.files import write_atomically

SIDE, MARGIN, ROUNDS = 256, 0.1, 5


def grabcut(image: np.ndarray) -> np.ndarray:
    """Return the map of an image, uint8 (h, w, 3), as uint8 (h, w) of 0 and 255."""
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)[..., ::-1]
    left, top = round(MARGIN * size[0]), round(MARGIN * size[1])
    box = (left, top, size[0] - 2 * left, size[1] - 2 * top)
    labels = np.zeros(small.shape[:2], np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # its colour clusters start at random
    cv2.grabCut(small.copy(), labels, box, *models, ROUNDS, cv2.GC_INIT_WITH_RECT)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8) * 255
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", default="cod")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("LPMOE_BENCH_DATA"))
    args = parser.parse_args()
    registry = load_registry()
    root = Path(args.data_root) if args.data_root else None
    data = resolve(registry.task(args.task), registry, root, None, root is None, default_cache())
    for split in data.tests:
        place = args.out / split.label.replace("/", "-")
        console = Console(stderr=True)
        for pair in track(split.pairs, split.label, console=console, transient=True):
            found = cv2.imencode(".png", grabcut(read_image(pair.image)))[1]
            write_atomically(place / f"{pair.name}.png", found.tobytes())
    print(args.out)


if __name__ == "__main__":
    main()
