"""What colour alone or the image's middle alone would score: the priors a drawn set must defeat."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from lpmoe_bench.data.scenes import cod, glass, leaf, polyp, road, shadow, skin, sod
from lpmoe_bench.data.scenes.drawing import Array, Shape
from lpmoe_bench.data.scenes.embedded import EmbeddedSet, OnProgress, draw_folder
from lpmoe_bench.errors import UsageError

# Scenes drawn in code as a folder of images, masks and lists, for whoever wants to see them.


# Embedded sets: scenes drawn in code, one file a task.
#
# A seed gives the same pixels on every machine: random numbers are raw PCG64 words, every step
# after them is continuous or in integers, and the rounding to 8 bits comes last.

__all__ = ["COUNTS", "SETS", "EmbeddedSet", "ensure_generated"]

COUNTS = {"train": 160, "test": 64}
TASKS = (cod, sod, polyp, skin, shadow, glass, leaf, road)
SETS = {each.SET.name: each.SET for each in TASKS}


def ensure_generated(
    name: str,
    root: Path,
    report: OnProgress | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    shape: Shape | None = None,
    seed: int = 0,
) -> Path:
    """Return the folder of an embedded set under root, drawing it first where it is not there.

    `report` is told (scenes drawn, all scenes). Raises UsageError for an unknown set and
    ResourceError when it cannot be written.
    """
    if name not in SETS:
        raise UsageError.unknown("embedded set", name, SETS)
    counts = dict(counts or COUNTS)
    sides = "" if shape is None else f"-{shape[0]}x{shape[1]}"
    amounts = "" if counts == COUNTS else "-" + "-".join(f"{k}{n}" for k, n in counts.items())
    folder = root / f"{name}-{SETS[name].version}-s{seed}{sides}{amounts}"
    return draw_folder(folder, SETS[name], counts, report, shape=shape, seed=seed)


TEST_PART = 2 / 7  # as in the embedded sets: 64 of 224
SIZES = (32, 4096)


def generate_folder(
    task: str,
    output: Path,
    count: int = 224,
    size: int = 352,
    seed: int = 0,
    empty: float = 0.0,
    report: OnProgress | None = None,
) -> Path:
    """Draw `count` scenes of a task into the new folder `output` and return it.

    Layout: images/, masks/, train.txt, test.txt (two of seven scenes), SOURCE.txt. `size` is the
    longer side in pixels; `empty` the part of the scenes without any object, for tasks that know
    such images; `report` is told (scenes drawn, all scenes). A scene depends on task, seed, split,
    index and size alone. Raises UsageError for what cannot be drawn or a folder that exists.
    """
    sets = {each.task: each for each in SETS.values()}
    if task not in sets:
        raise UsageError.unknown("task with drawn scenes", task, sets)
    if count < 2:
        raise UsageError(f"--count is {count}; it must be at least 2: one to train, one to test")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UsageError(f"--size is {size}; choose {SIZES[0]} to {SIZES[1]} pixels")
    if seed < 0:
        raise UsageError(f"--seed is {seed}; it must be at least 0")
    if not 0 <= empty <= 1:
        raise UsageError(f"--empty is {empty}; it is a part of all scenes, 0 to 1")
    if empty and sets[task].draw_empty is None:
        able = ", ".join(name for name, each in sets.items() if each.draw_empty)
        raise UsageError(f"--empty is {empty}, but every image of {task} has an object; "
                         f"drop it, or choose {able}")  # fmt: skip
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists already; choose a new folder, or delete it first")
    if output.is_dir():
        output.rmdir()  # empty; the finished folder takes its name
    tests = max(1, round(count * TEST_PART))
    counts = {"train": count - tests, "test": tests}
    return draw_folder(output, sets[task], counts, report, seed=seed, size=size, empty=empty)


SPACES = (cv2.COLOR_RGB2GRAY, cv2.COLOR_RGB2HSV, cv2.COLOR_RGB2LAB)
# R, G, B, their sums and differences: one of each pair of opposite directions.
DIRECTIONS = np.array([d for d in itertools.product((-1, 0, 1), repeat=3) if d > (0, 0, 0)], float)
LEVELS = 64
GRID = 96  # pixels a side, on which ellipses and masks are compared
RADII = np.arange(0.1, 0.8, 0.1)  # of an ellipse, in sides of the image


def best_colour_threshold(images: Sequence[Array], masks: Sequence[Array]) -> float:
    """Mean IoU of the one threshold on one measure of colour that does best on these very images.

    Measures: grey, HSV, Lab, thirteen directions in RGB and the linear discriminant of the pixels,
    each from below and from above. images: uint8 (h, w, 3); masks: (h, w), above 0 is object;
    images without any object are left out.
    """
    pairs = [(i, m > 0) for i, m in zip(images, masks, strict=True) if m.any()]
    directions = np.vstack([DIRECTIONS, _discriminant(pairs)])
    overlaps = [_overlaps(_measures(image, directions), mask) for image, mask in pairs]
    return float(np.mean(overlaps, axis=0).max())


def best_centred_ellipse(masks: Sequence[Array]) -> float:
    """Mean IoU of the one centred ellipse that does best on these very masks."""
    objects = [(mask > 0).astype(np.float32) for mask in masks if mask.any()]
    seen = np.stack([cv2.resize(o, (GRID, GRID), interpolation=cv2.INTER_AREA) for o in objects])
    y, x = (np.mgrid[:GRID, :GRID] + 0.5) / GRID - 0.5
    scores = []
    for a, b in itertools.product(RADII, RADII):
        ellipse = ((x / a) ** 2 + (y / b) ** 2 < 1).astype(np.float32)
        both = (seen * ellipse).sum((1, 2))
        scores.append((both / (seen.sum((1, 2)) + ellipse.sum() - both)).mean())
    return float(max(scores))


def _discriminant(pairs: Sequence[tuple[Array, Array]]) -> Array:
    """The direction in RGB, its largest part 1, that best parts object from background pixels."""
    inside = np.concatenate([image[mask] for image, mask in pairs]).astype(float)
    outside = np.concatenate([image[~mask] for image, mask in pairs]).astype(float)
    spread = np.cov(inside.T) + np.cov(outside.T) + np.eye(3)
    direction = np.linalg.solve(spread, inside.mean(0) - outside.mean(0))
    return direction / max(np.abs(direction).max(), 1e-12)


def _measures(image: Array, directions: Array) -> Array:
    """Each measure of colour of each pixel as a level: int (measures, h * w)."""
    spaces = np.dstack([cv2.cvtColor(image, code) for code in SPACES]).reshape(-1, 7).astype(float)
    low, high = 255 * np.minimum(directions, 0).sum(1), 255 * np.maximum(directions, 0).sum(1)
    along = (image.reshape(-1, 3) @ directions.T - low) / np.maximum(high - low, 1e-12)
    levels = np.hstack([spaces / 256, along]) * LEVELS
    return np.clip(levels.astype(np.int64), 0, LEVELS - 1).T


def _overlaps(measures: Array, mask: Array) -> Array:
    """IoU of one image for each measure, threshold and side of it: (measures, 2 * LEVELS)."""
    chosen, rows = mask.ravel(), []
    for measure in measures:
        every = np.bincount(measure, minlength=LEVELS).cumsum()
        hits = np.bincount(measure[chosen], minlength=LEVELS).cumsum()
        every = np.concatenate([every, every[-1] - every])  # up to a level, then above it
        hits = np.concatenate([hits, hits[-1] - hits])
        rows.append(hits / (every + chosen.sum() - hits))
    return np.array(rows)
