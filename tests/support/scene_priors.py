"""What colour alone or the image's middle alone would score: the priors a drawn set must defeat."""

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from lpmoe_bench.data.scenes.drawing import Array

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
