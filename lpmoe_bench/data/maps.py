"""A file that holds anybody's map, read in its own precision, with what is unusual about it."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lpmoe_bench.data.arrays import read_arrays
from lpmoe_bench.data.decoding import checked_header, decode, read_file, turn
from lpmoe_bench.data.headers import JPEG
from lpmoe_bench.data.matching import SUFFIXES
from lpmoe_bench.data.pixels import GREY_TOLERANCE, colour_codes, over_black
from lpmoe_bench.errors import DataError

MAP_SUFFIXES = (*SUFFIXES, ".pgm", ".npy", ".npz", ".mat")
PGM = (b"P2", b"P5")
LUMINANCE = np.array([0.114, 0.587, 0.299])  # of blue, green, red; ITU-R BT.601, as OpenCV has it


def inspect_map(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a map as its file holds it.

    Args:
        path: of an image, or of an array as .npy, .npz or .mat.

    Returns:
        The map (h, w), uint8 on 0..255, uint16 on 0..65535 or float64 in [0, 1], turned as EXIF
        says, as masks are; and what was unusual about its file: "16 bits"; "floats"; of "three
        channels" that are equal one is kept; a map "in two colours" is 255 where it has the lighter
        one, other "colours" become their luminance; "transparent" parts are shown over black;
        "jpeg" values are not those that were saved.

    Raises:
        DataError: the file cannot be read, or nobody can tell the range of its values.
    """
    data = read_file(path)
    kinds = ["jpeg"] if data.startswith(JPEG) else []
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz", ".mat"):
        pixels = _checked_array(path, _only(path, read_arrays(path, data)))
    elif data.startswith(PGM):
        pixels = _grey_map(path, data)
    else:
        header = checked_header(path, data)
        pixels = decode(path, data, cv2.IMREAD_UNCHANGED, checked=True)
        if header.kind != "tiff":  # which OpenCV has turned already
            pixels = turn(pixels, header.orientation)
    if pixels.dtype == np.uint16:
        kinds.append("16 bits")
        if 0 < int(pixels.max()) <= 255:
            raise DataError(
                f"map {path} has 16 bits but no value above 255, so that it may mean 8 or 16; "
                f"save it with 8 bits, or with 65535 for 1"
            )
    elif pixels.dtype in (np.float16, np.float32, np.float64):
        kinds.append("floats")
        pixels = pixels.astype(np.float64)
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # false for NaN as well
            raise DataError(
                f"map {path} holds floats outside of 0 to 1, or NaN; save probabilities"
            )
    elif pixels.dtype != np.uint8:
        raise DataError(f"map {path} holds {pixels.dtype} values; save it with 8 bits, 0 to 255")
    if pixels.ndim == 3:
        pixels, kind = _one_channel(pixels)
        kinds += kind
    return np.ascontiguousarray(pixels), tuple(kinds)


def full_scale(pixels: np.ndarray) -> int:
    """Return the value that means 1: of uint8, of uint16 or of floats."""
    return {"uint8": 255, "uint16": 65535}.get(pixels.dtype.name, 1)


def seen_in_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Return a map as uint8 (h, w), rounded half up: to be looked at, not to be scored."""
    if pixels.dtype == np.uint8:
        return pixels
    return (pixels * (255 / full_scale(pixels)) + 0.5).astype(np.uint8)


# Channels to one.


def _one_channel(pixels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Reduce (h, w, 3) or, with an alpha channel, (h, w, 4) to (h, w)."""
    kinds, full = [], full_scale(pixels)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:]
        if alpha.min() < full:
            kinds.append("transparent")
            if pixels.dtype == np.uint8:
                pixels = over_black(pixels)
            else:  # products of 16 bits are no longer of 16 bits
                pixels, full = pixels[..., :3] * (alpha / full) / full, 1
    pixels = pixels[..., :3]
    low, high = pixels.min(axis=2), pixels.max(axis=2)
    if np.array_equal(low, high):
        return high, [*kinds, "three channels"]
    if pixels.dtype == np.uint8:
        grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_BGR2GRAY)
    else:
        grey = pixels @ LUMINANCE / full
    if (high - low).max() <= GREY_TOLERANCE * full / 255:  # colour noise of JPEG
        return grey, [*kinds, "three channels"]
    # A map painted in two colours is a binary one: luminance would make grey levels of the paint.
    codes = colour_codes(pixels) if pixels.dtype == np.uint8 else grey
    if len(np.unique(codes)) == 2 and (darker := grey.min()) < grey.max():
        return (grey > darker).astype(np.uint8) * 255, [*kinds, "in two colours"]
    return grey, [*kinds, "colours"]


# Portable grey maps, whose header says what the largest value means.


def _grey_map(path: Path, data: bytes) -> np.ndarray:
    """Return a PGM as uint8, uint16, or floats where its largest value is another."""
    space = rb"(?:\s|#[^\n]*\n)+"  # OpenCV leaves the declared range out of account
    head = re.match(rb"P([25])" + space + rb"(\d{1,9})" + space + rb"(\d{1,9})" + space
                    + rb"(\d{1,5})\s", data)  # fmt: skip
    if head is None:
        raise DataError(f"{path} cannot be decoded: it is damaged or not an image file")
    width, height, top = (int(head[k]) for k in (2, 3, 4))
    body, count = data[head.end() :], width * height
    size = 1 if top < 256 else 2
    if head[1] == b"5":
        there = min(count, len(body) // size)
        values = np.frombuffer(body, f">u{size}" if size > 1 else np.uint8, there)
    else:
        numbers = re.sub(rb"#[^\n]*", b"", body).split()[:count]
        if not all(number.isdigit() and len(number) < 6 for number in numbers):
            raise DataError(f"{path} cannot be decoded: it is damaged or not an image file")
        values = np.array(numbers, np.int64)
    if not 0 < count == values.size:
        raise DataError(f"{path} is truncated: its end is missing; copy or download it again")
    if not 0 < top < 65536 or int(values.max()) > top:
        raise DataError(f"{path} holds values above {top}, the largest that it declares; save anew")
    pixels = values.reshape(height, width)
    whole = {255: np.uint8, 65535: np.uint16}.get(top)
    return pixels.astype(whole) if whole else pixels / float(top)


# Arrays of NumPy and MATLAB.


def _checked_array(path: Path, array: np.ndarray) -> np.ndarray:
    """Return an array as pixels (h, w), or blue, green and red (h, w, 3); raises DataError."""
    shape = array.shape
    if array.ndim == 3 and 1 in (shape[0], shape[2]):
        array = array[0] if shape[0] == 1 else array[..., 0]
    if array.ndim == 3 and shape[2] in (3, 4):
        array = np.concatenate([array[..., 2::-1], array[..., 3:]], axis=2)
    elif array.ndim != 2 or not array.size:
        raise DataError(
            f"map {path} holds an array of shape {shape}; a map is (height, width), one a file"
        )
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "iuf":
        raise DataError(f"map {path} holds {array.dtype} values; save numbers")
    if array.dtype.kind in "iu" and array.dtype not in (np.uint8, np.uint16):
        if not (array.min() >= 0 and array.max() <= 65535):
            raise DataError(f"map {path} holds whole numbers outside of 0 to 65535; save 0 to 255")
        return array.astype(np.uint8 if array.max() <= 255 else np.uint16)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="))


def _only(path: Path, arrays: dict[str, Any]) -> np.ndarray:
    """Return the one array that may be a map; raises DataError where there are none or several."""
    fitting = {
        name: array
        for name, array in arrays.items()
        if not name or (array.ndim in (2, 3) and array.size > 1 and array.dtype.kind in "biuf")
    }
    if len(fitting) != 1:
        names = ", ".join(sorted(fitting)[:10]) or "none"
        raise DataError(
            f"{path} holds {len(fitting)} arrays that may be a map ({names}); save one a file"
        )
    return next(iter(fitting.values()))
