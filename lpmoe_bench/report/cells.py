"""Small pictures inside the page: an image, its mask, a map and the map's errors, as data."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np

from lpmoe_bench.data.images import inspect_map
from lpmoe_bench.data.pairs import Pair, read_pair
from lpmoe_bench.report.markup import Markup, tag
from lpmoe_bench.scoring.views import error_picture
from lpmoe_bench.scoring.work import fit

SIDE = 160  # pixels, of the longer side
JPEG_QUALITY = 82


def picture(pixels: np.ndarray, words: str) -> Markup:
    """Return an image element that holds its picture: RGB (h, w, 3) or grey (h, w), uint8.

    words: what is seen, for those who do not see it.
    """
    small = _shrink(pixels)
    if small.ndim == 3:
        small = small[..., ::-1]
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        kind, data = "jpeg", cv2.imencode(".jpg", np.ascontiguousarray(small), options)[1]
    else:
        kind, data = "png", cv2.imencode(".png", small, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    text = base64.b64encode(data.tobytes()).decode()
    source = f"data:image/{kind};base64,{text}"
    height, width = small.shape[:2]
    return tag("img", src=source, alt=words, width=width, height=height)


def read_views(pair: Pair, threshold: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image, RGB (h, w, 3), and its mask, (h, w), uint8; raises DataError."""
    return read_pair(pair, threshold)


def map_views(path: Path, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a map (h, w) at its mask's size and its errors, RGB (h, w, 3); raises DataError."""
    pred = fit(inspect_map(path)[0], (mask.shape[0], mask.shape[1]))
    return pred, error_picture(pred, mask)


def _shrink(pixels: np.ndarray) -> np.ndarray:
    scale = SIDE / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
