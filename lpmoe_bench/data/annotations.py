"""Annotations in other files than images: COCO and labelme JSON, NumPy and MATLAB arrays."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from lpmoe_bench.data.arrays import read_arrays
from lpmoe_bench.errors import DataError
from lpmoe_bench.files import sha256_file
from lpmoe_bench.metrics.runs import pixels_of_runs, runs_of_pixels, unpack_runs

ARRAYS = (".npy", ".mat")
ANNOTATIONS = (".json", *ARRAYS)  # what a mask may be beside an image file
MOST_PIXELS = 1 << 28  # of a mask: a small file can claim gigabytes
FARTHEST = 1e5  # pixels: a corner beyond is no corner of an image

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One object of an image.

    label: name of its category. polygons: outlines (n, 2) of x, y in pixels, whose union it is.
    runs: else the lengths of runs of background and object in turn, column by column. box: left,
    top, width, height in pixels, where the file gives one. crowd: a group that is not told apart.
    """

    label: str
    polygons: tuple[np.ndarray, ...] = ()
    runs: np.ndarray | None = None
    box: tuple[float, float, float, float] | None = None
    crowd: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """What a file says of one image of height x width pixels."""

    height: int
    width: int
    shapes: tuple[Shape, ...]

    def mask(self, categories: Collection[str] = ()) -> np.ndarray:
        """Return the union of all objects, or of those of some categories, bool (height, width)."""
        union = np.zeros((self.height, self.width), bool)
        for shape in self.shapes:
            if not categories or shape.label in categories:
                union |= draw(shape, self.height, self.width)
        return union

    @property
    def checksum(self) -> str:
        """64 hex digits of size and objects, whatever else the file holds."""
        digest = hashlib.sha256(f"{self.height} {self.width}".encode())
        for one in self.shapes:
            runs = None if one.runs is None else one.runs.tolist()
            outlines = [polygon.tolist() for polygon in one.polygons]
            digest.update(json.dumps([one.label, outlines, runs, one.crowd]).encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Annotations:
    """A whole COCO file. images: by file name; categories: {id: name}, ids as they are, with gaps;
    index: {name: number}, the numbers without gaps."""

    images: Mapping[str, Annotation]
    categories: Mapping[int, str]

    @property
    def index(self) -> dict[str, int]:
        names = dict.fromkeys(self.categories[key] for key in sorted(self.categories))
        return {name: number for number, name in enumerate(names)}


class OfOneImage(Protocol):
    """What a file says of one image among others, with a checksum of this alone."""

    @property
    def checksum(self) -> str: ...


@dataclass(frozen=True, slots=True, eq=False)
class MaskParts:
    """A mask that is not one image file: several whose union it is, a variable of a MATLAB file, or
    what one file says of this image among others (annotation; objects, where each object counts).
    layers: each file is a class of its own, and later ones lie on top."""

    files: tuple[Path, ...]
    variable: str = ""
    annotation: Annotation | None = None
    layers: bool = False
    objects: OfOneImage | None = None

    def __str__(self) -> str:
        more = len(self.files) - 1
        return f"{self.files[0]}" + (f" and {more} more" if more else "")

    @property
    def suffix(self) -> str:
        return self.files[0].suffix

    @property
    def parent(self) -> Path:
        return self.files[0].parent

    def resolve(self) -> Path:
        return self.files[0].resolve()

    @property
    def kind(self) -> str:
        """What is read of the files, beside their bytes."""
        if self.objects is not None:
            return "objects"
        return self.variable or ("coco" if self.annotation else "layers" if self.layers else "")


Mask = Path | MaskParts


def mask_files(mask: Mask) -> tuple[Path, ...]:
    """Return the files that make up a mask."""
    return mask.files if isinstance(mask, MaskParts) else (mask,)


def mask_checksum(mask: Mask) -> str:
    """Return 64 hex digits of what a mask is made of; raises OSError."""
    if isinstance(mask, Path):
        return sha256_file(mask)
    if mask.annotation is not None:
        return mask.annotation.checksum
    if mask.objects is not None:
        # The first file speaks of other images too; whatever follows is of this one alone.
        parts = [mask.objects.checksum, *map(sha256_file, mask.files[1:])]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    checksums = [sha256_file(file) for file in mask.files]
    # Sorted: a union does not depend on the order in which a folder lists its files.
    parts = [mask.variable, *(checksums if mask.layers else sorted(checksums))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# COCO and labelme: outlines and runs of objects.


def read_coco(path: Path) -> Annotations:
    """Read a COCO detection or instance file: polygons, runs (plain and compressed) and crowds.

    Source: the data format of https://cocodataset.org/#format-data. Raises DataError for a file
    that is none, or names images or categories that it does not hold.
    """
    content = read_json(path)
    try:
        categories = {int(one["id"]): str(one["name"]) for one in content.get("categories", [])}
        shapes: dict[Any, list[Shape]] = defaultdict(list)
        sizes: dict[Any, tuple[str, int, int]] = {}
        for one in content["images"]:
            size = (int(one["height"]), int(one["width"]))
            check_size(path, *size)
            sizes[one["id"]] = (str(one["file_name"]), *size)
        for one in content["annotations"]:
            if one["image_id"] not in sizes:
                raise DataError(f"{path} has an annotation of image {one['image_id']}, not in it")
            category = int(one.get("category_id", 0))
            if categories and category not in categories:
                raise DataError(f"{path} has an annotation of category {category}, not in it")
            size = sizes[one["image_id"]][1:]
            shapes[one["image_id"]].append(
                _coco_shape(one, categories.get(category, str(category)), size)
            )
    except MALFORMED as error:
        raise DataError(
            f"{path} is no COCO file that is read ({type(error).__name__}: {str(error)[:80]}); it "
            f"needs images and annotations with polygons or runs"
        ) from None
    images: dict[str, Annotation] = {}
    for key, (file, height, width) in sizes.items():
        name, one = file.replace("\\", "/"), Annotation(height, width, tuple(shapes[key]))
        if images.setdefault(name, one) is not one:
            raise DataError(f"{path} lists the image {name} twice")
    return Annotations(images, categories)


def is_coco(path: Path) -> bool:
    """Whether a JSON file is of COCO's form; raises DataError where it is no JSON."""
    content = read_json(path)
    return isinstance(content.get("images"), list) and "annotations" in content


def _coco_shape(one: Mapping[str, Any], label: str, size: Sequence[int]) -> Shape:
    box = one.get("bbox")
    about: dict[str, Any] = {"label": label, "crowd": bool(one.get("iscrowd", 0))}
    if box:
        left, top, width, height = map(float, box)
        about["box"] = (left, top, width, height)
    return replace(read_outline(one["segmentation"], size), **about)


def read_outline(outline: Any, size: Sequence[int]) -> Shape:
    """Return the shape that COCO's "segmentation" of an object is, in an image of (h, w) `size`.

    Raises ValueError, KeyError or TypeError where it is none.
    """
    if isinstance(outline, list):
        return Shape("", polygons=tuple(_polygon(flat) for flat in outline))
    if [int(side) for side in outline["size"]] != list(size):
        raise ValueError(f"runs of size {outline['size']} in an image of {list(size)}")
    counts = outline["counts"]
    runs = np.asarray(unpack_runs(counts) if isinstance(counts, str) else counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or int(runs.sum()) != size[0] * size[1]:
        raise ValueError("runs that do not add up to the pixels of the image")
    return Shape("", runs=runs)


def _polygon(flat: Any) -> np.ndarray:
    points = np.asarray(flat, np.float64).reshape(-1, 2)
    if len(points) < 3 or not (np.abs(points) < FARTHEST).all():  # false for NaN as well
        raise ValueError(f"an outline of {len(points)} corners, or of corners far outside")
    return points


def read_labelme(path: Path) -> Annotation:
    """Read the shapes of one image: polygons, rectangles, circles and masks of labelme.

    Source: the files that https://github.com/wkentaro/labelme writes. Raises DataError for other
    files, and for lines and points, which have no area.
    """
    content = read_json(path)
    try:
        height, width = int(content["imageHeight"]), int(content["imageWidth"])
        check_size(path, height, width)
        shapes = [_labelme_shape(path, one, height, width) for one in content["shapes"]]
    except MALFORMED as error:
        raise DataError(
            f"{path} is no labelme file that is read ({type(error).__name__}: {str(error)[:80]}); "
            f"it needs imageHeight, imageWidth and shapes"
        ) from None
    return Annotation(height, width, tuple(shapes))


def _labelme_shape(path: Path, one: Mapping[str, Any], height: int, width: int) -> Shape:
    kind, label = one.get("shape_type", "polygon"), str(one.get("label", ""))
    points = np.asarray(one["points"], np.float64).reshape(-1, 2)
    if kind == "polygon":
        return Shape(label, (_polygon(points.ravel()),))
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        corners = [left, top, right, top, right, bottom, left, bottom]
        return Shape(label, (_polygon(corners),))
    if kind == "circle":
        centre, edge = points
        angles = np.linspace(0, 2 * np.pi, 256, endpoint=False)
        ring = centre + np.hypot(*(edge - centre)) * np.stack([np.cos(angles), np.sin(angles)], 1)
        return Shape(label, (_polygon(ring.ravel()),))
    if kind == "mask":
        data = np.frombuffer(base64.b64decode(one["mask"], validate=True), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        if pixels is None:
            raise ValueError("a mask that is no image")
        left, top = (round(value) for value in points[0])
        whole = np.zeros((height, width), bool)
        # A view, smaller than the mask where that reaches
        # beyond the image: writing into it is enough.
        part = whole[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        part |= pixels[: part.shape[0], : part.shape[1]] > 0
        return Shape(label, runs=runs_of_pixels(whole))
    raise DataError(f"{path} holds a shape '{kind}', which has no area; draw it as a polygon")


def draw(shape: Shape, height: int, width: int) -> np.ndarray:
    """Return the pixels of an object, bool (height, width), as COCO's own tools count them."""
    if shape.runs is not None:
        return pixels_of_runs(shape.runs, height, width)
    union = np.zeros((height, width), bool)
    for polygon in shape.polygons:
        union |= _filled(polygon, height, width)
    return union


def _filled(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fill an outline by the rule of COCO's mask API, which scores of objects depend on.

    The outline is walked along in fifths of a pixel. Where the walk crosses the middle of a column,
    the pixels below change between background and object.
    """
    corners = np.trunc(5 * polygon + 0.5).astype(np.int64)
    ends = np.roll(corners, -1, axis=0)
    walk = np.concatenate([_steps(*edge) for edge in zip(corners, ends, strict=True)])
    before, after = walk[:-1], walk[1:]
    left = np.minimum(before[:, 0], after[:, 0])
    column = left // 5
    # Fifths 0 to 4 make a column, so its middle lies between the fifths 2 and 3.
    crossing = (before[:, 0] != after[:, 0]) & (left % 5 == 2) & (column >= 0) & (column < width)
    top = np.minimum(before[:, 1], after[:, 1])[crossing]
    row = np.ceil(np.clip((top + 0.5) / 5 - 0.5, 0, height)).astype(np.int64)
    # Pixels are numbered down the columns. An odd number of crossings so far means object.
    changes = np.bincount(column[crossing] * height + row, minlength=height * width + 1)
    return (np.cumsum(changes[:-1]) % 2 == 1).reshape(width, height).T


def _steps(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the whole numbers (n, 2) on the way between two corners, both included."""
    length = np.abs(end - start)
    axis = 0 if length[0] >= length[1] else 1
    count = int(length[axis])
    if not count:
        return start[None]
    # Walked from the smaller end, so that an edge has the same points in both directions.
    low, high = (start, end) if start[axis] < end[axis] else (end, start)
    way = np.arange(count + 1)
    other = np.trunc(low[1 - axis] + (high[1 - axis] - low[1 - axis]) / count * way + 0.5)
    points = np.empty((count + 1, 2), np.int64)
    points[:, axis], points[:, 1 - axis] = low[axis] + way, other
    return points if low is start else points[::-1]


# Arrays: NumPy without pickles, MATLAB up to version 7.


def read_array(path: Path, variable: str = "", categories: Collection[str] = ()) -> np.ndarray:
    """Return the mask that a file holds as an array, uint8 or uint16 (h, w), with its own values.

    A JSON file is read as labelme's. Truth values become 0 and 255, as do floats between 0 and 1.
    variable: of a MATLAB file that holds several, such as `groundTruth.Segmentation`. categories:
    of a labelme file, that are object. Raises DataError for other arrays and for files that cannot
    be read.
    """
    if path.suffix.lower() == ".json":
        return read_labelme(path).mask(categories).astype(np.uint8) * 255
    array = _plane(path, variable)
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    low, high = array.min(), array.max()
    if not _is_integral(array):
        if not (low >= 0 and high <= 1):  # false for NaN as well
            raise DataError(
                f"mask {path} holds numbers with fractions from {low} to {high}; save whole "
                f"numbers, or shares between 0 and 1"
            )
        return (array * 255 + 0.5).astype(np.uint8)
    return _whole_numbers(path, array)


def read_indices(path: Path, variable: str = "") -> np.ndarray:
    """Return the whole numbers that a file holds as an array, uint8 or uint16 (h, w): truth values
    are 0 and 1.

    variable: of a MATLAB file that holds several. Raises DataError for other arrays.
    """
    array = _plane(path, variable)
    if not _is_integral(array):
        raise DataError(
            f"label map {path} holds numbers with fractions from {array.min()} to {array.max()}; "
            f"save the values of its classes as whole numbers"
        )
    return _whole_numbers(path, array)


def _plane(path: Path, variable: str) -> np.ndarray:
    """Return the one table of numbers (h, w) of a file."""
    array = _table(path, variable)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array.squeeze(0 if array.shape[0] == 1 else 2)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "buif":
        raise DataError(
            f"mask {path} holds {array.dtype} values of shape {array.shape}; a mask is a table of "
            f"numbers, (height, width)"
        )
    check_size(path, *array.shape)
    return array


def _is_integral(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or np.array_equal(array, np.trunc(array))


def _whole_numbers(path: Path, array: np.ndarray) -> np.ndarray:
    low, high = array.min(), array.max()
    if low < 0 or high > 65535:
        raise DataError(f"mask {path} holds values from {low} to {high}; 0 to 65535 are read")
    return array.astype(np.uint8 if high <= 255 else np.uint16)


def _table(path: Path, variable: str) -> np.ndarray:
    """Return the one table of a file, or that of a name."""
    found = {n: array for n, array in read_arrays(path, _bytes(path)).items() if n in ("", variable)
             or (not variable and array.ndim > 1 and min(array.shape) > 1)}  # fmt: skip
    if len(found) != 1:
        names = ", ".join(sorted(found)) or "no table of numbers"
        asked = f" and no {variable}" if variable else ""
        raise DataError(
            f"{path} holds {names}{asked}; name the variable of the mask in the set's entry, such "
            f"as `variable: groundTruth.Segmentation`"
        )
    return next(iter(found.values()))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of annotations; raises DataError where it has none."""
    try:
        content = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no sound JSON ({str(error)[:80]})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no annotations; COCO and labelme files are read")
    return content


def check_size(path: Path, height: int, width: int) -> None:
    """Raise DataError for an image of no pixels, or of so many that they must be a mistake."""
    if height < 1 or width < 1 or height * width > MOST_PIXELS:
        raise DataError(
            f"{path} speaks of an image of {width} x {height} pixels; up to {MOST_PIXELS} in all "
            f"are read"
        )
