"""Image and mask files to arrays, as a person sees them, and arrays side by side as pictures."""

import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lpmoe_bench.data import pixels as rule
from lpmoe_bench.data.annotations import ANNOTATIONS, Mask, MaskParts, read_array
from lpmoe_bench.data.decoding import checked_header, decode, read_file, turn
from lpmoe_bench.data.headers import TIFF, Header, read_header
from lpmoe_bench.data.pixels import THRESHOLD, UNDECLARED, PixelRules, Truth, over_black
from lpmoe_bench.errors import DataError
from lpmoe_bench.files import check_regular

# Image and mask files to arrays: as a person sees them, or one sentence naming the file.

HEAD_BYTES = 1 << 18  # of a file, enough for what stands before its pixels


class ImageValues(NamedTuple):
    """What an image file holds. kind: of its values, such as uint16; low, high: the least and the
    greatest; told: whether a tag or a rule says what is black and white."""

    kind: str
    low: float
    high: float
    told: bool


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Upright pixels, RGB (h, w, 3): uint8 as they are seen, or deeper values with their limits."""

    pixels: np.ndarray
    limits: tuple[float, float] | None
    seen: ImageValues | None = None


def read_image(path: Path, rules: PixelRules = UNDECLARED, tags: bool = True) -> np.ndarray:
    """Return an image as uint8 RGB, (h, w, 3).

    Grey and palette images become RGB, 16-bit values are scaled to 8, CMYK is converted, a
    rotation noted in EXIF is applied, transparent parts are shown over black.

    Args:
        path: of the file.
        rules: what is declared of its values.
        tags: whether a tag of the file may say which value is white.

    Raises:
        DataError: the file cannot be read whole, holds values of other kinds, transparency that
            cannot be read, or bands of which nobody can tell which are colours.
    """
    loaded = _load(path, rules, tags)
    if loaded.limits is not None:
        return (rule.within(path, loaded.pixels, loaded.limits) * 255 + 0.5).astype(np.uint8)
    if loaded.pixels.dtype == np.uint16:
        return (loaded.pixels >> 8).astype(np.uint8)
    return loaded.pixels


def read_pixels(path: Path, rules: PixelRules = UNDECLARED, side: int | None = None) -> np.ndarray:
    """Return an image as RGB (h, w, 3): uint8, or float32 in [0, 1] where its values are deeper.

    Args:
        path: of the file.
        rules: what is declared of its values.
        side: a JPEG may be decoded at half, a quarter or an eighth of its size, as long as no side
            of it is shorter than this many pixels.

    Raises:
        DataError: as `read_image`.
    """
    loaded = _load(path, rules, side=side)
    if loaded.pixels.dtype == np.uint8 and loaded.limits is None:
        return loaded.pixels
    return rule.within(path, loaded.pixels, loaded.limits or (0.0, 65535.0))


def inspect_image(
    path: Path, rules: PixelRules = UNDECLARED
) -> tuple[tuple[int, int], ImageValues]:
    """Return the (h, w) of an image and what its file holds; raises DataError as `read_image`."""
    loaded = _load(path, rules)
    height, width = loaded.pixels.shape[:2]
    if loaded.limits is not None:
        rule.within(path, loaded.pixels, loaded.limits)  # values that are no numbers are refused
    return (height, width), loaded.seen or _seen(loaded.pixels, loaded.limits is not None)


def check_deep(paths: Iterable[Path], rules: PixelRules = UNDECLARED) -> None:
    """Raise DataError where images of 16 bits hold values of fewer; files that cannot be read, and
    those of 8 bits, are passed over."""
    highest: dict[str, int] = {}
    for path in paths:
        with suppress(DataError):
            if read_header(_head(path)).bits > 8:
                _, seen = inspect_image(path, rules)
                if seen.kind == "uint16" and not seen.told:
                    highest[str(path)] = int(seen.high)
    rule.check_range(highest, "these")


def _seen(pixels: np.ndarray, told: bool) -> ImageValues:
    low, high = (
        (float(pixels.min()), float(pixels.max()))
        if pixels.dtype != np.uint8
        else cv2.minMaxLoc(np.ascontiguousarray(pixels).reshape(len(pixels), -1))[:2]
    )
    return ImageValues(str(pixels.dtype), low, high, told)


def _load(path: Path, rules: PixelRules, tags: bool = True, side: int | None = None) -> _Loaded:
    data = read_file(path)
    header = checked_header(path, data)
    limits = rule.limits_of(path, header, rules)
    if rules.range is None and not tags:
        limits = None
    if rules.bands:
        bands = turn(_all_bands(path, data, header), header.orientation)
        pixels = rule.take_bands(path, bands, rules)
        if limits is None:
            _check_depth(path, pixels)
        return _Loaded(pixels, limits)
    rule.check_bands(path, header, rules)
    if header.kind == "jpeg":
        flags = cv2.IMREAD_COLOR if side is None else _reduced(header, side)
        # The decoder puts red first itself, at no cost; turning it around later takes a fifth more.
        return _Loaded(
            decode(path, data, flags - cv2.IMREAD_COLOR_BGR + cv2.IMREAD_COLOR_RGB, checked=True),
            limits,
        )
    # Decoded twice where needed: as it is, to see values that 8 bits would hide, then as OpenCV
    # shows it, which applies EXIF and converts palettes.
    pixels = decode(path, data, cv2.IMREAD_UNCHANGED)
    if limits is None:
        _check_depth(path, pixels)
    if pixels.ndim == 2 and _second_channel(header):
        raise DataError(
            f"{path} is grey and transparent in a way that is not read; save it as RGBA, or "
            f"without transparency"
        )
    upright = turn(pixels, header.orientation if header.kind != "tiff" else 1)  # TIFF is already
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        seen = _seen(pixels[..., :3], limits is not None)
        return _Loaded(_rgb(_shown_over_black(path, data, header, upright, limits)), None, seen)
    if pixels.dtype != np.uint8:
        upright = upright if upright.ndim == 3 else np.dstack([upright] * 3)
        return _Loaded(_rgb(upright), limits)
    if pixels.ndim == 3 and header.kind == "png":  # no need to decode again
        return _Loaded(_rgb(upright), limits)
    return _Loaded(_rgb(decode(path, data, cv2.IMREAD_COLOR)), limits)


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """Return (h, w, 3) with red first, where OpenCV has blue first."""
    if pixels.dtype in (np.uint8, np.uint16, np.float32):
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(pixels[..., ::-1])


def _reduced(header: Header, side: int) -> int:
    """Return the flag of OpenCV that decodes a JPEG smallest, but no side below `side`."""
    least = min(header.width, header.height)
    factors = {
        8: cv2.IMREAD_REDUCED_COLOR_8,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        2: cv2.IMREAD_REDUCED_COLOR_2,
    }
    return next((f for factor, f in factors.items() if least // factor >= side), cv2.IMREAD_COLOR)


def _all_bands(path: Path, data: bytes, header: Header) -> np.ndarray:
    """Return all bands of a file as they are stored, (h, w, n), before EXIF is applied."""
    if header.kind != "tiff":
        pixels = decode(path, data, cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 3:  # OpenCV has blue first
            pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
        return pixels
    import tifffile

    try:
        page = tifffile.TiffFile(io.BytesIO(data)).pages.first
        pixels = page.asarray()
    except Exception as error:  # of many kinds, for what is damaged or compressed in another way
        raise DataError(f"{path} cannot be decoded ({str(error)[:200]})") from None
    if header.channels > 1 and pixels.ndim == 3 and pixels.shape[0] == header.channels:
        planar = getattr(page, "planarconfig", 1) == 2
        pixels = np.moveaxis(pixels, 0, -1) if planar else pixels
    if pixels.ndim not in (2, 3):
        raise DataError(f"{path} holds {pixels.ndim} axes; an image has rows, columns and bands")
    return pixels


def _check_depth(path: Path, pixels: np.ndarray) -> None:
    """Refuse values of which 8 bits would make nonsense, or black."""
    rule.check_kind(path, pixels)
    colours = pixels if pixels.ndim == 2 else pixels[..., :3]
    if pixels.dtype == np.uint16 and 0 < int(colours.max()) <= 255:
        raise DataError(
            f"{path} has 16 bits but no value above 255, which is black; save it with 8 bits, or "
            + rule.declare("say what is white", range=[0, 255])
        )


def _second_channel(header: Header) -> bool:
    """Whether a grey file has a transparency that OpenCV drops: tRNS of PNG, a channel of TIFF."""
    if header.kind == "png":
        return header.hidden and not header.palette
    return header.kind == "tiff" and header.extra is not None


def _shown_over_black(
    path: Path, data: bytes, header: Header, pixels: np.ndarray, limits: tuple[float, float] | None
) -> np.ndarray:
    """Return BGR of a file with an alpha channel, whose upright pixels were read as they are."""
    if pixels.dtype == np.uint8 and header.kind == "tiff":
        return decode(path, data, cv2.IMREAD_COLOR)  # libtiff has multiplied by alpha already
    if limits is not None:
        colours = (rule.within(path, pixels[..., :3], limits) * 255 + 0.5).astype(np.uint8)
        pixels = np.dstack([colours, (pixels[..., 3] >> 8).astype(np.uint8)])
    elif pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return over_black(pixels)


def read_mask(mask: Mask, threshold: int = THRESHOLD, rules: PixelRules = UNDECLARED) -> np.ndarray:
    """Return a mask as uint8 of 0 and 255, (h, w); see read_truth."""
    return read_truth(mask, threshold, rules).mask


def inspect_mask(mask: Mask, threshold: int = THRESHOLD) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a mask as uint8 of 0 and 255, (h, w), and what was unusual; see read_truth."""
    found = read_truth(mask, threshold)
    return found.mask, found.flags


def read_truth(
    mask: Mask,
    threshold: int = THRESHOLD,
    rules: PixelRules = UNDECLARED,
    image: Path | None = None,
    look: bool = False,
) -> Truth:
    """Return what a mask says: object, background and, where declared, ignored pixels.

    Undeclared values above the threshold are object ("grey levels" when there are others than 0
    and 255); a file of nothing but 0 and 1 is scaled ("values 0 and 1"); of two colours the lighter
    one is object ("two colours"); a mask without any object is "empty". Several files are their
    union.

    Args:
        mask: a file, or several, or a part of one.
        threshold: of undeclared values: what lies above it, of 255, is object.
        rules: what is declared of its values.
        image: the file of its image, where that is known: its size and rotation count.
        look: say which values it holds too.

    Raises:
        DataError: a file cannot be read; nobody can tell what is object; or EXIF turns one of
            image and mask alone, and it is not declared that this is meant.
    """
    if rules.labels is not None:
        raise DataError(
            f"{mask} is a map of {len(rules.labels.classes)} classes, and a binary mask is wanted "
            f"here; use a task of binary masks"
        )
    if not isinstance(mask, MaskParts):
        truth = _of_file(mask, threshold, rules, image, look)
    elif mask.annotation is not None:
        drawn = mask.annotation.mask(rules.category).astype(np.uint8) * 255
        truth = Truth(drawn, None, () if drawn.any() else ("empty",), (0, 255) if look else ())
    else:
        truth = _union(
            [_of_file(file, threshold, rules, image, look, mask.variable) for file in mask.files],
            mask,
        )
    if rules.resize_masks and image is not None:
        return _resized(truth, image_size(image))
    return truth


def _of_file(
    path: Path,
    threshold: int,
    rules: PixelRules,
    image: Path | None,
    look: bool,
    variable: str = "",
) -> Truth:
    if path.suffix.lower() in ANNOTATIONS:
        header, pixels = Header(), read_array(path, variable, rules.category)
        pixels = turn(pixels, _orientation(path, header, pixels, rules, image))
    else:
        header, pixels = mask_pixels(path, rules, image, rule.wants_indices(rules))
    truth = rule.tell_object(path, pixels, header, rules, threshold)
    return replace(truth, levels=rule.levels_of(pixels)) if look else truth


def mask_pixels(
    path: Path, rules: PixelRules, image: Path | None, indices: bool
) -> tuple[Header, np.ndarray]:
    """Return the header and the upright pixels of an image file that is a mask or a label map.

    Args:
        path: of the file.
        rules: what is declared of its values.
        image: the file of its image, where that is known: its rotation counts.
        indices: return the values of a file with a palette, and not their colours.

    Raises:
        DataError: the file cannot be read, or EXIF turns one of image and mask alone, and it is not
            declared that this is meant.
    """
    data = read_file(path)
    header = checked_header(path, data)
    if header.palette and indices:
        pixels = _indices(path, data)
    else:
        pixels = decode(path, data, cv2.IMREAD_UNCHANGED, checked=True)
        if header.kind == "tiff" and header.orientation > 1:
            # OpenCV has turned it, and whether it should be is to be told first.
            pixels = turn(pixels, INVERSE[header.orientation])
    return header, turn(pixels, _orientation(path, header, pixels, rules, image))


def _union(parts: Sequence[Truth], mask: MaskParts) -> Truth:
    """Return what several files of one image say: object where any of them says so."""
    check_same_size(mask.files, [part.mask.shape for part in parts])
    union = np.maximum.reduce([part.mask for part in parts])
    flags = dict.fromkeys(flag for part in parts for flag in part.flags)
    if union.any():
        flags.pop("empty", None)
    blank = [part.ignored for part in parts if part.ignored is not None]
    # What one file leaves open and another calls object is object.
    ignored = np.logical_or.reduce(blank) & (union == 0) if blank else None
    levels = tuple(sorted({level for part in parts for level in part.levels}))
    return Truth(union, ignored, tuple(flags), levels)


def check_same_size(files: Sequence[Path], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise DataError where the masks of one image, (h, w), differ in size."""
    for file, shape in zip(files, shapes, strict=True):
        if shape != shapes[0]:
            raise DataError(
                f"{file} is {shape[1]} x {shape[0]} pixels but {files[0]}, another mask of "
                f"the same image, is {shapes[0][1]} x {shapes[0][0]}"
            )


# Quarter turns undo each other; mirror images and half a turn undo themselves.
INVERSE = {orientation: orientation for orientation in range(1, 9)} | {6: 8, 8: 6}


def _orientation(
    path: Path, header: Header, pixels: np.ndarray, rules: PixelRules, image: Path | None
) -> int:
    """Return how a mask is to be turned: as its own EXIF says, else as declared, else not."""
    if image is None or rules.exif == "image":
        return 1 if rules.exif == "image" else header.orientation
    seen = read_header(_head(image))
    if seen.orientation == header.orientation or (rules.exif == "both" and header.orientation > 1):
        return header.orientation
    if rules.exif == "both":
        return seen.orientation
    # One side alone is turned. Where only one reading gives both the same size, it is meant.
    upright = (seen.height, seen.width) if seen.orientation > 4 else (seen.width, seen.height)
    stored = (pixels.shape[1], pixels.shape[0])
    if header.orientation == 1 and upright == stored != (seen.width, seen.height):
        return 1
    one, other = (image, path) if seen.orientation > 1 else (path, image)
    raise DataError(
        f"EXIF turns {one} (orientation {max(seen.orientation, header.orientation)}) but not "
        f"{other}; declare `exif: image` where the mask {path.name} is upright as it is stored, or "
        f"`exif: both` where it is to be turned too (--exif beside your own folders)"
    )


def _head(path: Path) -> bytes:
    try:
        check_regular(path)
        with open(path, "rb") as file:
            data = file.read(HEAD_BYTES)
            # A TIFF may say all of it at its end.
            return data + file.read() if data.startswith(TIFF) else data
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def image_size(image: Path) -> tuple[int, int]:
    """Return width and height of an image as it is seen."""
    header = read_header(_head(image))
    size = (header.width, header.height)
    if not all(size):
        size = read_image(image).shape[1::-1]
        return size[0], size[1]
    return size if header.orientation <= 4 else (header.height, header.width)


def _resized(truth: Truth, size: tuple[int, int]) -> Truth:
    """Stretch a mask to (width, height), to the nearest pixel."""
    if truth.mask.shape[::-1] == size:
        return truth
    parts = [truth.mask] + ([] if truth.ignored is None else [truth.ignored.view(np.uint8)])
    mask, *ignored = (to_nearest(part, size) for part in parts)
    return replace(truth, mask=mask, ignored=ignored[0].view(np.bool_) if ignored else None)


def to_nearest(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 (h, w) to (width, height), each pixel to the nearest one of before."""
    # The exact variant samples pixel centres, so that a mirrored mask gives a mirrored result.
    return cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST_EXACT)


def _indices(path: Path, data: bytes) -> np.ndarray:
    """Return the palette indices of a file, (h, w), which OpenCV replaces by their colours."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as file:
            if file.mode in ("P", "L", "1"):
                return np.asarray(file if file.mode != "1" else file.convert("L")).copy()
    except Exception as error:  # of many kinds
        raise DataError(f"{path} cannot be decoded ({str(error)[:200]})") from None
    return decode(path, data, cv2.IMREAD_UNCHANGED)


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
