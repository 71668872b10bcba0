"""Image and mask files to arrays, as a person sees them, and arrays side by side as pictures."""

import stat
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lpmoe_bench.data.annotations import ANNOTATIONS, Mask, MaskParts, read_array
from lpmoe_bench.data.photos import photo_kind, read_photo
from lpmoe_bench.errors import DataError

# Image and mask files to arrays: as a person sees them, or one sentence naming the file.

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*")
MOST_PIXELS = 1 << 28  # of a PNG: a hundred kilobytes can claim gigabytes
EXIF = (b"Exif\0\0", b"eXIf", b"EXIF")  # in JPEG, PNG and WebP
EXTRA_SAMPLES = 338  # the tag of a TIFF with an alpha channel
THRESHOLD = 128  # a mask value above it is object, as in the field's evaluation code
GREY_TOLERANCE = 8  # channels this close are one grey: colour noise of JPEG


def read_image(path: Path) -> np.ndarray:
    """Return an image as uint8 RGB, (h, w, 3); raises DataError when it cannot be read whole.

    Grey and palette images become RGB, 16-bit values are scaled to 8, CMYK is converted, a
    rotation noted in EXIF is applied, transparent parts are shown over black. Values of other
    kinds, and transparency that cannot be read, are refused.
    """
    # Decoded twice where needed: as it is, to see values that 8 bits would hide, then as OpenCV
    # shows it, which applies EXIF and converts CMYK and palettes. JPEG has 8 bits in any case.
    data = read_file(path)
    if not data.startswith(JPEG):
        pixels = decode(path, data, cv2.IMREAD_UNCHANGED)
        _check_values(path, data, pixels)
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            return cv2.cvtColor(_shown_over_black(path, data, pixels), cv2.COLOR_BGR2RGB)
        plain = pixels.dtype == np.uint8 and pixels.ndim == 3 and b"eXIf" not in data
        if plain and data.startswith(PNG):  # no need to decode again
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return cv2.cvtColor(decode(path, data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _check_values(path: Path, data: bytes, pixels: np.ndarray) -> None:
    """Refuse images of which 8 bits would make nonsense, or black."""
    _check_kind(path, pixels)
    colours = pixels if pixels.ndim == 2 else pixels[..., :3]
    if pixels.dtype == np.uint16 and 0 < int(colours.max()) <= 255:
        raise DataError(
            f"{path} has 16 bits but no value above 255, which is black; save it with 8 bits"
        )
    if pixels.ndim == 2 and _second_channel(data):
        raise DataError(
            f"{path} is grey and transparent in a way that is not read; save it as RGBA, or "
            f"without transparency"
        )


def _second_channel(data: bytes) -> bool:
    """Whether a grey file has a transparency that OpenCV drops: tRNS of PNG, a channel of TIFF."""
    if data.startswith(PNG):
        return b"tRNS" in data[: data.find(b"IDAT")]
    if not data.startswith(TIFF):
        return False
    # The first directory of a TIFF: its place is in bytes 4 to 7; there, the number of entries in
    # two bytes, then entries of twelve bytes, each of which begins with its tag.
    order = "little" if data.startswith(b"II") else "big"
    start = int.from_bytes(data[4:8], order)
    end = start + 2 + 12 * int.from_bytes(data[start : start + 2], order)
    tags = (int.from_bytes(data[k : k + 2], order) for k in range(start + 2, end, 12))
    return EXTRA_SAMPLES in tags


def read_mask(path: Mask, threshold: int = THRESHOLD) -> np.ndarray:
    """Return a mask as uint8 of 0 and 255, (h, w); see inspect_mask."""
    return inspect_mask(path, threshold)[0]


def inspect_mask(path: Mask, threshold: int = THRESHOLD) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a mask as uint8 of 0 and 255, (h, w), and what was unusual about the file.

    Values above the threshold are object ("grey levels" when there are others than 0 and 255); a
    file of nothing but 0 and 1 is scaled ("values 0 and 1"); of two colours the lighter one is
    object ("two colours"); a mask without any object is "empty". Raises DataError for unreadable
    files, more colours, and masks of which nothing would be left above the threshold. A rotation
    noted in EXIF is applied, as it is to images. Several files are their union.
    """
    if isinstance(path, MaskParts):
        return _inspect_parts(path, threshold)
    return _inspect_pixels(path, _mask_pixels(path), threshold)


def _inspect_parts(mask: MaskParts, threshold: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the union of the parts of a mask, and what was unusual about any of them."""
    if mask.annotation is not None:
        union = mask.annotation.mask().astype(np.uint8) * 255
        return union, () if union.any() else ("empty",)
    union, flags = np.zeros((0, 0), np.uint8), {}
    for file in mask.files:
        part, unusual = _inspect_pixels(file, _mask_pixels(file, mask.variable), threshold)
        if union.size and part.shape != union.shape:
            raise DataError(
                f"{file} is {part.shape[1]} x {part.shape[0]} pixels but {mask.files[0]}, another "
                f"mask of the same image, is {union.shape[1]} x {union.shape[0]}"
            )
        union = np.maximum(union, part) if union.size else part
        flags |= dict.fromkeys(unusual)
    if union.any():
        flags.pop("empty", None)
    return union, tuple(flags)


def _mask_pixels(path: Path, variable: str = "") -> np.ndarray:
    """Return the values of a mask file as they are, of at most three channels."""
    if path.suffix.lower() in ANNOTATIONS:
        return read_array(path, variable)
    return as_turned(path, read_file(path))


def _inspect_pixels(
    path: Path, pixels: np.ndarray, threshold: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    pixels = _to_8_bits(path, pixels, keep_small=True)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = over_black(pixels)
    grey, coloured = _one_channel(path, pixels)
    # Values of 2 to the threshold may be classes, or grey levels of a faint mask: nobody can tell
    # which of them mean object, and a mask without any would score in silence.
    top, flags = int(grey.max()), []
    if 1 < top <= threshold:
        raise DataError(
            f"mask {path} holds values from 0 to {top} only, and only values above {threshold} "
            f"count as object; save it with 0 and 255"
        )
    mask = (grey > (0 if top == 1 else threshold)).astype(np.uint8) * 255
    if coloured:
        flags.append("two colours")
    elif top == 1:
        flags.append("values 0 and 1")
    elif not np.array_equal(mask, grey):
        flags.append("grey levels")
    if not mask.any():
        flags.append("empty")
    return mask, tuple(flags)


def read_file(path: Path) -> bytes:
    """Return the bytes of an image file; raises DataError when it is missing, empty or cut off."""
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # reading it would wait for ever
            raise DataError(f"{path} cannot be read (it is a pipe)")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    if not data:
        raise DataError(f"{path} is empty (0 bytes); copy or download it again")
    # OpenCV decodes what there is of a file that was cut off, so its end is looked for here. What
    # follows the end is nobody's business: some programs write their own there.
    if (data.startswith(JPEG) and not _jpeg_ends(data)) or (
        data.startswith(PNG) and b"\0\0\0\0IEND" not in data
    ):
        raise DataError(f"{path} is truncated: its end is missing; copy or download it again")
    return data


def _jpeg_ends(data: bytes) -> bool:
    """Whether an end marker follows the first scan; one inside an EXIF preview does not count."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # up to the scan
        filler = data[at + 1 : at + 2] == b"\xff"
        at += 1 if filler else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) >= 0


def decode(path: Path, data: bytes, flags: int) -> np.ndarray:
    """Return the pixels of a file's bytes as cv2 reads them; raises DataError naming the file."""
    if data.startswith(PNG):
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        if width * height > MOST_PIXELS:
            raise DataError(
                f"{path} says it is {width} x {height} pixels; {MOST_PIXELS} in all are allowed"
            )
    if photo_kind(data):
        return read_photo(path, data, MOST_PIXELS)
    try:
        # From memory: cv2.imread does not open names that are not ASCII on every system.
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        large = "more pixels than are read, 2**30" if "MAX_IMAGE" in error.err else error.err
        raise DataError(f"{path} cannot be decoded ({large})") from None
    if pixels is None:
        raise DataError(f"{path} cannot be decoded: it is damaged or not an image file")
    return pixels


def as_turned(path: Path, data: bytes) -> np.ndarray:
    """Return the pixels of the bytes of a mask or map as they are, but turned as EXIF says.

    Raises DataError, also for a file that is transparent and turned.
    """
    pixels = decode(path, data, cv2.IMREAD_UNCHANGED)
    if data.startswith(TIFF) or not any(mark in data for mark in EXIF):
        return pixels  # TIFF is turned already
    # OpenCV turns only what it does not read unchanged, and drops the alpha channel then.
    seen = decode(path, data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return seen
    _refuse_turned(path, seen, pixels)
    return pixels


def _refuse_turned(path: Path, seen: np.ndarray, pixels: np.ndarray) -> None:
    """Raise DataError where a transparent file, as seen, is not what its pixels are."""
    if not np.array_equal(seen, pixels[..., :3]):
        raise DataError(
            f"{path} is transparent and has a rotation noted in EXIF, which is not read for such "
            f"files; save it turned, or without transparency"
        )


def _to_8_bits(path: Path, pixels: np.ndarray, keep_small: bool = False) -> np.ndarray:
    """Scale 16-bit values to 8; `keep_small` leaves those alone that fit into 8 bits anyway."""
    if pixels.dtype == np.uint8:
        return pixels
    _check_kind(path, pixels)
    if keep_small and pixels.max() <= 255:
        return pixels.astype(np.uint8)
    return (pixels >> 8).astype(np.uint8)


def _check_kind(path: Path, pixels: np.ndarray) -> None:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path} holds {pixels.dtype} values; 8 or 16 bits a channel are read: convert it"
        )


def _shown_over_black(path: Path, data: bytes, pixels: np.ndarray) -> np.ndarray:
    """Return BGR of a file with an alpha channel, whose pixels were read as they are."""
    if pixels.dtype == np.uint8 and data.startswith(TIFF):
        return decode(path, data, cv2.IMREAD_COLOR)  # libtiff has multiplied by alpha already
    pixels = _to_8_bits(path, pixels)
    if any(mark in data for mark in EXIF):
        _refuse_turned(path, decode(path, data, cv2.IMREAD_COLOR), pixels)
    return over_black(pixels)


def over_black(pixels: np.ndarray) -> np.ndarray:
    """Turn uint8 (h, w, 4) with an alpha channel into (h, w, 3), shown over black."""
    alpha = pixels[..., 3:].astype(np.uint16)
    return ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8)


def _one_channel(path: Path, pixels: np.ndarray) -> tuple[np.ndarray, bool]:
    """Reduce a mask to (h, w), and tell whether it was painted in two colours."""
    if pixels.ndim == 2:
        return pixels, False
    low, high = pixels.min(axis=2), pixels.max(axis=2)
    if int((high - low).max()) <= GREY_TOLERANCE:
        return high, False
    code = colour_codes(pixels)
    colours = np.unique(code)
    if len(colours) != 2:
        raise DataError(
            f"mask {path} holds {len(colours)} colours; a mask has two values, object and "
            f"background: save it with 0 and 255"
        )
    sums = [int(pixels[code == colour][0].sum()) for colour in colours]
    return (code == colours[int(np.argmax(sums))]).astype(np.uint8) * 255, True


def colour_codes(pixels: np.ndarray) -> np.ndarray:
    """Return one number for each colour, (h, w): numbers are compared faster than triples."""
    return pixels.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)


# Pictures of predictions: image, mask and every method's map side by side; overlays.

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
            sheet[top : top + CELL, left : left + CELL] = in_cell(row[column])
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


def in_cell(picture: np.ndarray) -> np.ndarray:
    """Scale an RGB or grey picture into a square cell of RGB, keeping its shape, on white."""
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
    while (width := cv2.getTextSize(text, font, scale, 1)[0][0]) > CELL:
        scale -= 0.02
    place = (left + (CELL - width) // 2, TITLE - 7)
    cv2.putText(sheet, text, place, font, scale, INK, 1, cv2.LINE_AA)
