"""Boundary IoU and Hausdorff distance: how well the outline of a map follows the mask's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

BAND = 0.02  # of the diagonal; Cheng et al., CVPR 2021


def boundary_iou(called: np.ndarray, mask: np.ndarray) -> float | None:
    """IoU of the inner boundary bands of two masks, bool (h, w); None where both are empty."""
    width = max(1, round(BAND * float(np.hypot(*mask.shape))))
    bands = [_band(part, width) for part in (called, mask)]
    union = np.count_nonzero(bands[0] | bands[1])
    return float(np.count_nonzero(bands[0] & bands[1]) / union) if union else None


def _band(part: np.ndarray, width: int) -> np.ndarray:
    """Return the pixels of a mask from which its outside, or the image's, is `width` away."""
    # A frame of background: OpenCV takes what lies outside of the image for object.
    framed = np.pad(part.astype(np.uint8), 1)
    inner = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=width)
    return part & (inner[1:-1, 1:-1] == 0)


def hausdorff95(called: np.ndarray, mask: np.ndarray) -> float | None:
    """95th percentile of the distances between the outlines of two masks, bool (h, w), in pixels.

    From each outline to the other, both ways pooled, as in MedPy. None for an empty mask; the
    image's diagonal where only the map is empty.
    """
    if not mask.any():
        return None
    if not called.any():
        return float(np.hypot(*mask.shape))
    lines = [part & ~np.asarray(binary_erosion(part), bool) for part in (called, mask)]
    away = [np.asarray(distance_transform_edt(~line)) for line in lines]
    return float(np.percentile(np.concatenate([away[1][lines[0]], away[0][lines[1]]]), 95))


def _boundary(p: np.ndarray, g: np.ndarray, _: Any) -> dict[str, float | None]:
    return {"boundary_iou": boundary_iou(p > 0.5, g)}


def _hausdorff(p: np.ndarray, g: np.ndarray, _: Any) -> dict[str, float | None]:
    return {"hd95": hausdorff95(p > 0.5, g)}


Group = Callable[[np.ndarray, np.ndarray, Any], dict[str, float | None]]
# By metric, what computes it from map, mask and image, perhaps together with others.
GROUPS: dict[str, Group] = {"boundary_iou": _boundary, "hd95": _hausdorff}
