"""A file that holds anybody's map, read as 8 bits, with what is unusual about the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from lpmoe_bench.errors import DataError
from lpmoe_bench.images import GREY_TOLERANCE, JPEG, decode, over_black, read_whole


def inspect_map(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a map as uint8 (h, w) on 0..255, and what was unusual about its file.

    "16 bits" and "floats" are rounded to 8 bits, half up; of "three channels" that are equal one
    is kept; a map "in two colours" is 255 where it has the lighter one, other "colours" become
    their luminance; "transparent" parts are shown over black; "jpeg" values are not those that were
    saved. Raises DataError for unreadable files and for values whose range nobody can tell.
    """
    data = read_whole(path)
    pixels = decode(path, data, cv2.IMREAD_UNCHANGED)
    kinds = ["jpeg"] if data.startswith(JPEG) else []
    if pixels.dtype == np.uint16:
        kinds.append("16 bits")
        pixels = _from_16_bits(path, pixels)
    elif pixels.dtype in (np.float32, np.float64):
        kinds.append("floats")
        pixels = _from_floats(path, pixels)
    elif pixels.dtype != np.uint8:
        raise DataError(f"map {path} holds {pixels.dtype} values; save it with 8 bits, 0 to 255")
    if pixels.ndim == 3:
        pixels, kind = _map_channel(pixels)
        kinds += kind
    return np.ascontiguousarray(pixels), tuple(kinds)


def _from_16_bits(path: Path, pixels: np.ndarray) -> np.ndarray:
    if 0 < int(pixels.max()) <= 255:
        raise DataError(
            f"map {path} has 16 bits but no value above 255, so that it may mean 8 or 16; "
            f"save it with 8 bits, or with 65535 for 1"
        )
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257


def _from_floats(path: Path, pixels: np.ndarray) -> np.ndarray:
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # false for NaN as well
        raise DataError(f"map {path} holds floats outside of 0 to 1, or NaN; save probabilities")
    return (pixels * 255 + 0.5).astype(np.uint8)


def _map_channel(pixels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Reduce (h, w, 3) or, with an alpha channel, (h, w, 4) to (h, w)."""
    kinds = []
    if pixels.shape[2] == 4:
        if int(pixels[..., 3].min()) < 255:
            kinds.append("transparent")
        pixels = over_black(pixels)
    low, high = pixels.min(axis=2), pixels.max(axis=2)
    if np.array_equal(low, high):
        return high, [*kinds, "three channels"]
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_BGR2GRAY)
    if int((high - low).max()) <= GREY_TOLERANCE:  # colour noise of JPEG
        return grey, [*kinds, "three channels"]
    code = pixels.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    if len(np.unique(code)) == 2 and (darker := int(grey.min())) < int(grey.max()):
        return (grey > darker).astype(np.uint8) * 255, [*kinds, "in two colours"]
    return grey, [*kinds, "colours"]
