"""Label maps: files to the class of each pixel, one sentence where one is unknown, and pictures.

A map is uint8 (h, w): the index of a class in the order of its rules, from 0, and VOID where a
pixel counts for nothing. What a file's values, colours or layers mean is declared, never guessed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lpmoe_bench.data.annotations import ARRAYS, Mask, MaskParts, mask_files, read_indices
from lpmoe_bench.data.headers import Header
from lpmoe_bench.data.images import check_same_size, image_size, mask_pixels, read_truth, to_nearest
from lpmoe_bench.data.label_rules import VOID, LabelRules, class_colours, label_rules, shown_few
from lpmoe_bench.data.pixels import PixelRules, check_kind, colour_codes
from lpmoe_bench.errors import DataError

if TYPE_CHECKING:
    from lpmoe_bench.data.pairs import Pair

__all__ = [
    "VOID", "LabelRules", "Labels", "UnknownLabelsError", "class_colours", "count_classes",
    "label_rules", "legend", "overlay_labels", "paint_labels", "palette_png", "read_label_map",
    "read_labels", "told_unknown",
]  # fmt: skip

UNKNOWN = 254  # in a map that is being read, which holds indices of 0 to 253
LOSSY = {"jpeg": "JPEG", "webp": "WebP", "": "AVIF or HEIC"}  # kinds of headers
VOID_FLAG = "ignored pixels"


@dataclass(frozen=True, slots=True)
class Labels:
    """What a label map says: labels, uint8 (h, w), indices of classes and VOID; flags: what was
    unusual about its files, "ignored pixels" and "void" (nothing else) among them."""

    labels: np.ndarray
    flags: tuple[str, ...] = ()


class UnknownLabelsError(DataError):
    """Values or colours of a map that are neither a class nor ignored; values: as a person writes
    them, the smallest first."""

    # With a default: a loader's process hands errors on by their text alone.
    def __init__(self, text: str, values: Sequence[str] = ()):
        super().__init__(text)
        self.values = tuple(values)


def read_labels(pair: Pair) -> Labels:
    """Return the label map of a pair, upright as its image; raises DataError as read_label_map."""
    return read_label_map(pair.mask, pair.rules, pair.image)


def read_label_map(mask: Mask, rules: PixelRules, image: Path | None = None) -> Labels:
    """Return what a label map says.

    Args:
        mask: a file, a part of one, or the layers of one image.
        rules: what is declared; `rules.labels` names the classes.
        image: the file of its image, where that is known: its size and rotation count.

    Raises:
        DataError: a file cannot be read, does not keep values exactly, or is of another size than
            the layer before; EXIF turns one of image and map alone; there is no list of classes.
        UnknownLabelsError: a value or colour is neither a class nor ignored.
    """
    declared = rules.labels
    if declared is None or not declared.classes:
        raise DataError(
            f"no classes are declared of the label map {mask}; write `labels: {{classes: [...]}}` "
            f"in the set's entry, or --classes FILE beside your own folders"
        )
    if declared.format == "layers":
        labels, flags = _of_layers(mask, rules, image)
    else:
        labels, flags = _of_file(mask, declared, rules, image), ()
    if rules.resize_masks and image is not None:
        labels = to_nearest(labels, image_size(image))
    void = labels == VOID
    flags += (VOID_FLAG,) * bool(void.any()) + ("void",) * bool(void.all())
    return Labels(labels, flags)


def count_classes(labels: np.ndarray, count: int) -> tuple[int, ...]:
    """Return the pixels of each of `count` classes in a map, and last those that are VOID."""
    found = np.bincount(labels.ravel(), minlength=VOID + 1)
    return (*found[:count].tolist(), int(found[VOID]))


# One file whose values or colours are classes.


def _of_file(mask: Mask, declared: LabelRules, rules: PixelRules, image: Path | None) -> np.ndarray:
    files, variable = mask_files(mask), mask.variable if isinstance(mask, MaskParts) else ""
    path = files[0]
    if len(files) > 1 or (isinstance(mask, MaskParts) and mask.annotation):
        raise DataError(
            f"{mask} is not one label map of an image; a map is one file, or declare "
            f"`format: layers` with a folder for each class"
        )
    if path.suffix.lower() in ARRAYS:
        pixels = read_indices(path, variable)
    elif path.suffix.lower() == ".json":
        raise DataError(f"{path} holds outlines of objects; a label map is an image, such as PNG")
    else:
        header, pixels = mask_pixels(path, rules, image, declared.format == "index")
        pixels = _exact(path, header, pixels)
    if declared.format == "colour":
        return _of_colours(path, pixels, declared)
    return _of_indices(path, pixels, declared)


def _exact(path: Path, header: Header, pixels: np.ndarray) -> np.ndarray:
    """Return pixels as they were saved; raises DataError where a file does not keep them."""
    if header.kind in LOSSY:
        raise DataError(
            f"label map {path} is a {LOSSY[header.kind]} file, which does not keep values; save it "
            f"as PNG from its source, for what was lost cannot be told"
        )
    check_kind(path, pixels)
    if header.bits < 8 and header.kind == "tiff":
        raise DataError(f"label map {path} has {header.bits} bits a pixel; save it with 8")
    if header.bits < 8 and pixels.max() >= 1 << header.bits:
        # Decoders spread 1, 2 and 4 bits over 0 to 255; the values of the file are wanted.
        pixels = pixels // (255 // ((1 << header.bits) - 1))
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        if pixels[..., 3].min() < np.iinfo(pixels.dtype).max:
            raise DataError(
                f"label map {path} has transparent pixels, whose class nobody can tell; save it "
                f"without transparency"
            )
        pixels = pixels[..., :3]
    return pixels


def _of_indices(path: Path, pixels: np.ndarray, declared: LabelRules) -> np.ndarray:
    if pixels.ndim == 3:
        if not (pixels == pixels[..., :1]).all():
            raise DataError(
                f"label map {path} is in colours, but labels are declared by values; declare "
                f"`format: colour` with the colour of each class, such as background: '#000000', "
                f"or write it behind each name in --classes FILE beside your own folders"
            )
        pixels = np.ascontiguousarray(pixels[..., 0])
    table = _table(declared)
    labels = cv2.LUT(pixels, table[:256]) if pixels.dtype == np.uint8 else table[pixels]
    if (labels == UNKNOWN).any():
        values = np.unique(pixels[labels == UNKNOWN]).tolist()
        raise _unknown(path, [str(value) for value in values], declared)
    return labels


@lru_cache(maxsize=64)
def _table(declared: LabelRules) -> np.ndarray:
    """Return the class of each value of 0 to 65535, uint8."""
    table = np.full(2**16, UNKNOWN, np.uint8)
    for index, values in enumerate(declared.of_class):
        table[[int(value) for value in values]] = index
    # Last, though nothing is overwritten: a value that is a class and ignored was refused before.
    table[[int(value) for value in declared.ignore]] = VOID
    return table


def _of_colours(path: Path, pixels: np.ndarray, declared: LabelRules) -> np.ndarray:
    if pixels.dtype != np.uint8:
        raise DataError(f"label map {path} has {pixels.dtype} colours; save it with 8 bits")
    codes = colour_codes(pixels if pixels.ndim == 3 else np.dstack([pixels] * 3))
    known, classes = _colour_table(declared)
    # By search and not by a table: there are 2^24 colours and a map holds few of them.
    places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    labels = np.where(known[places] == codes, classes[places], np.uint8(UNKNOWN))
    if (labels == UNKNOWN).any():
        colours = np.unique(codes[labels == UNKNOWN]).tolist()
        raise _unknown(path, [f"#{colour:06x}" for colour in colours], declared)
    return labels


@lru_cache(maxsize=64)
def _colour_table(declared: LabelRules) -> tuple[np.ndarray, np.ndarray]:
    """Return all colours as numbers, sorted, and the class of each."""
    of_class = [*enumerate(declared.of_class), (VOID, declared.ignore)]
    pairs = [(int(str(colour)[1:], 16), k) for k, colours in of_class for colour in colours]
    codes, classes = zip(*sorted(pairs), strict=True)
    return np.array(codes, np.uint32), np.array(classes, np.uint8)


def _unknown(path: Path, values: Sequence[str], declared: LabelRules) -> UnknownLabelsError:
    """Return the error for values or colours that mean nothing."""
    held, mend = told_unknown(values, declared)
    return UnknownLabelsError(f"label map {path} holds the {held}; {mend}", values)


def told_unknown(values: Sequence[str], declared: LabelRules) -> tuple[str, str]:
    """Say of values or colours of label maps that they mean nothing.

    Args:
        values: as a person writes them.
        declared: the classes.

    Returns:
        What a sentence says of them, and what can be done.
    """
    what = "colours" if declared.format == "colour" else "values"
    what, verb = (what, "are") if len(values) > 1 else (what[:-1], "is")
    count = len(declared.classes)
    known = [value for values in declared.of_class for value in values]
    span = shown_few(known)
    if declared.format == "index" and not declared.values:
        span = f"{declared.first} to {declared.first + count - 1}"
    left = "are" if len(declared.ignore) > 1 else "is"
    ignored = f", and {shown_few(declared.ignore)} {left} ignored" if declared.ignore else ""
    shown = f'"{values[0]}"' if declared.format == "colour" else values[0]
    greys = all(value[1:3] == value[3:5] == value[5:] for value in values)
    taken = (
        "; where maps hold values, and colours are those of pictures, say `first: 0` (--first 0)"
    )
    return (
        f"{what} {shown_few(values)}, which {verb} none of the {count} classes ({span}{ignored})",
        f"correct `classes` or `first`, or write `ignore: [{shown}]` (--ignore {values[0]} beside "
        f"your own folders) for what counts for nothing"
        + taken
        * (declared.format == "colour" and greys),
    )


# Layers: binary masks of one image, a class each.


def _of_layers(
    mask: Mask, rules: PixelRules, image: Path | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    assert rules.labels is not None
    files = mask_files(mask)
    if len(files) != len(rules.labels.folders):
        raise DataError(
            f"{mask} is {len(files)} of the {len(rules.labels.folders)} layers of an image; give "
            f"each of {shown_few(rules.labels.folders)} a mask of that name"
        )
    binary = replace(rules, labels=None, resize_masks=False)
    truths = [read_truth(file, rules=binary, image=image) for file in files]
    check_same_size(files, [truth.mask.shape for truth in truths])
    labels = np.zeros(truths[0].mask.shape, np.uint8)
    for index, truth in enumerate(truths, start=1):
        if truth.ignored is not None:
            labels[truth.ignored] = VOID
        labels[truth.mask > 0] = index
    unusual = dict.fromkeys(flag for truth in truths for flag in truth.flags)
    # A layer without its object is a class that is not in the image, which is nothing unusual.
    return labels, tuple(flag for flag in unusual if flag not in ("empty", VOID_FLAG))


# Pictures: a map in the colours of its classes, over its image, and which colour is which class.

TINT = 0.55  # of a class's colour over the image
DIM = 0.35  # of an image that is left where a pixel is VOID
LINE, SWATCH, EDGE = 22, 14, 8  # pixels of a legend
INK, PAPER = (40, 40, 40), 255


def paint_labels(labels: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Return a map as RGB (h, w, 3) uint8 in the colours of its classes; VOID is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    return table[labels]


def palette_png(labels: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> bytes:
    """Return a map as the bytes of a PNG whose values are the indices of classes, shown in their
    colours by any program; VOID is 255 and black."""
    from PIL import Image  # here, for OpenCV writes no palettes

    image = Image.fromarray(labels)
    image.putpalette(b"".join(map(bytes, colours)).ljust(3 * 256, b"\0"))
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def overlay_labels(
    image: np.ndarray, labels: np.ndarray, colours: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """Tint an RGB image (h, w, 3) by the classes of its pixels; where they are VOID it is dark."""
    painted = paint_labels(labels, colours)
    tinted = cv2.addWeighted(image, 1 - TINT, painted, TINT, 0)
    void = labels == VOID
    tinted[void] = (image[void] * DIM).astype(np.uint8)
    return tinted


def legend(
    names: Sequence[str], colours: Sequence[tuple[int, int, int]], width: int, void: bool = True
) -> np.ndarray:
    """Return which colour is which class, RGB (h, width, 3), in as many columns as there is room.

    void: show how pixels that count for nothing look.
    """
    shown = [*zip(names, colours, strict=True)] + ([("void", (0, 0, 0))] if void else [])
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45
    widest = max(cv2.getTextSize(name, font, scale, 1)[0][0] for name, _ in shown)
    column = min(width, SWATCH + 3 * EDGE + widest)
    columns = max(1, width // column)
    rows = -(-len(shown) // columns)
    picture = np.full((rows * LINE + EDGE, width, 3), PAPER, np.uint8)
    for place, (name, colour) in enumerate(shown):
        left, top = place // rows * column + EDGE, place % rows * LINE + EDGE
        picture[top : top + SWATCH, left : left + SWATCH] = colour
        at = (left + SWATCH + EDGE, top + SWATCH - 2)
        cv2.putText(picture, name, at, font, scale, INK, 1, cv2.LINE_AA)
    return picture
