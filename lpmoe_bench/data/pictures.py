"""Pictures of predictions: image, mask and every method's map side by side; overlays."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

CELL = 176  # pixels
GAP = 6
TITLE = 24
BAND = 2**20  # pixels tinted at once
INK = (40, 40, 40)
TINT = np.array([255, 64, 32], np.float32)


def grid(titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Lay pictures out, one row an image, under column titles; returns RGB uint8 (h, w, 3).

    Every picture is RGB (h, w, 3) or grey (h, w) uint8 and is fitted into a square cell.
    """
    width = len(titles) * (CELL + GAP) + GAP
    sheet = np.full((TITLE + len(rows) * (CELL + GAP) + GAP, width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        _write(sheet, title, GAP + column * (CELL + GAP))
        for line, row in enumerate(rows):
            top, left = TITLE + line * (CELL + GAP), GAP + column * (CELL + GAP)
            sheet[top : top + CELL, left : left + CELL] = _fit(row[column])
    return sheet


def overlay(image: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Tint an RGB image (h, w, 3) by a map (h, w), both uint8, and draw the map's outline."""
    tinted = np.empty_like(image)
    rows = max(1, BAND // image.shape[1])
    for top in range(0, len(image), rows):  # bands, for floats of a large image would be many
        part = slice(top, top + rows)
        share = pred[part, :, None].astype(np.float32) / 255 * 0.5
        tinted[part] = image[part] * (1 - share) + TINT * share
    binary = (pred > 127).astype(np.uint8)
    outlines, _ = cv2.findContours(binary, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(2, round(max(pred.shape) / 400))
    return cv2.drawContours(tinted, outlines, -1, TINT.tolist(), thickness)


def _fit(picture: np.ndarray) -> np.ndarray:
    """Scale into a cell, keeping the shape, on white."""
    if picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    height, width = picture.shape[:2]
    scale = CELL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    cell = np.full((CELL, CELL, 3), 255, np.uint8)
    top, left = (CELL - size[1]) // 2, (CELL - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell


def _write(sheet: np.ndarray, text: str, left: int) -> None:
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45
    while cv2.getTextSize(text, font, scale, 1)[0][0] > CELL:
        scale -= 0.02
    width = cv2.getTextSize(text, font, scale, 1)[0][0]
    place = (left + (CELL - width) // 2, TITLE - 7)
    cv2.putText(sheet, text, place, font, scale, INK, 1, cv2.LINE_AA)
