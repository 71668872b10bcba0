"""A sheet of pictures: image, mask, map and error of some images, each with its score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from lpmoe_bench.data.pictures import CELL, GAP, INK, TITLE, grid

CAPTION = 18  # pixels below each row
MISSED, INVENTED = (
    np.array((0, 90, 181)),
    np.array((220, 100, 0)),
)  # blue and orange: apart for colour-blind eyes


class Views(NamedTuple):
    """What the sheet shows of an image: map and mask uint8 (h, w); image RGB (h, w, 3) or None."""

    pred: np.ndarray
    mask: np.ndarray
    image: np.ndarray | None = None


def sheet(labels: Sequence[str], views: Iterable[Views], title: str = "") -> np.ndarray:
    """Lay out a row of pictures for each label, which stands below it; RGB uint8 (h, w, 3).

    The column of images is there where any image is. At least one label.
    """
    rows, with_image = [], False
    for one in views:
        with_image = with_image or one.image is not None
        rows.append([_shrink(picture) for picture in _pictures(one)])
    titles = ["image"] * with_image + ["mask", "map", "missed: blue, extra: orange"]
    strips = [_strip(title, len(titles))] if title else []
    for index, (label, row) in enumerate(zip(labels, rows, strict=True)):
        part = grid(titles, [row if with_image else row[1:]])
        strips.append(part if index == 0 else part[TITLE:])
        strips.append(_strip(label, len(titles)))
    return np.concatenate(strips)


def error_picture(pred: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Show what a map says too little of (blue) and too much (orange), on white; RGB (h, w, 3).

    pred and mask: uint8 (h, w); object above 128 in the mask, as most protocols have it.
    """
    true = mask > 128
    share = np.where(true, 255 - pred, pred)[..., None].astype(np.float32) / 255
    colour = np.where(true[..., None], MISSED, INVENTED).astype(np.float32)
    return (255 * (1 - share) + colour * share + 0.5).astype(np.uint8)


def _pictures(views: Views) -> list[np.ndarray]:
    blank = np.full((1, 1), 255, np.uint8)
    image = blank if views.image is None else views.image
    return [image, views.mask, views.pred, error_picture(views.pred, views.mask)]


def _shrink(picture: np.ndarray) -> np.ndarray:
    """Scale a large picture down to a cell, so that many fit into memory."""
    scale = CELL / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _strip(text: str, columns: int) -> np.ndarray:
    """Return a line of text as wide as the sheet; a name too long is cut in its middle."""
    strip = np.full((CAPTION, columns * (CELL + GAP) + GAP, 3), 255, np.uint8)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    text = text.encode("ascii", "replace").decode()  # the font has no other letters
    keep = len(text)
    while cv2.getTextSize(shown := _cut(text, keep), font, scale, 1)[0][0] > strip.shape[1] - 12:
        keep -= 1
    cv2.putText(strip, shown, (GAP, CAPTION - 5), font, scale, INK, 1, cv2.LINE_AA)
    return strip


def _cut(text: str, keep: int) -> str:
    if len(text) <= keep:
        return text
    head = max(1, keep // 2 - 2)
    return f"{text[:head]}...{text[len(text) - max(1, keep - head - 3) :]}"
