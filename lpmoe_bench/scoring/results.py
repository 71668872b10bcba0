"""Files of results: objects and segments that any program found, read as scorers take them.

A file of COCO's form of results lists the detections of all images; a folder has a file for each
image, as a run writes them, or instance or panoptic maps of others.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lpmoe_bench.data.annotations import MALFORMED, Mask, MaskParts, Shape, mask_files, read_outline
from lpmoe_bench.data.label_rules import LabelRules
from lpmoe_bench.data.matching import same_name, shown
from lpmoe_bench.data.object_files import FileIds, ids_of_file
from lpmoe_bench.data.objects import (
    box_of_runs,
    read_instances,
    read_segment_numbers,
    runs_of_outline,
)
from lpmoe_bench.data.pixels import PixelRules
from lpmoe_bench.data.test_sets import TestSet
from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.objects import Detections
from lpmoe_bench.metrics.panoptic import Panoptic

NONE = (math.nan,) * 4
COCO = ("coco", "coco_panoptic")  # formats of truth whose file numbers its images and classes


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """The detections of one image as a file says them.

    classes: (N,) int64, from 0. boxes: (N, 4) float64, x0 y0 x1 y1, NaN where the file has none.
    scores: (N,) float64. outlines: the file's own word of each mask, None where it has none.
    """

    classes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    outlines: tuple[Any, ...]

    @property
    def checksum(self) -> str:
        """64 hex digits of all of it."""
        said = (self.classes.tolist(), self.boxes.tolist(), self.scores.tolist(), self.outlines)
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def settled(self, shape: tuple[int, int], masks: bool) -> Detections:
        """Return them in an image of (h, w) `shape`, with masks as runs where these are wanted.

        Raises DataError for what has no box, no mask that is wanted, or one of another size.
        """
        boxes: np.ndarray = self.boxes.copy()
        drawn: list[np.ndarray] = []
        lacking = np.asarray(np.isnan(boxes).any(axis=1))
        for place, outline in enumerate(self.outlines):
            if outline is None and masks:
                raise DataError("holds a detection without a mask, which the protocol scores")
            if outline is None or not (masks or lacking[place]):
                continue
            try:
                runs = runs_of_outline(_shape(outline, shape), *shape)
            except MALFORMED as error:
                raise DataError(f"holds a mask of {error}") from None
            drawn.append(runs)
            if lacking[place]:
                boxes[place] = box_of_runs(runs, shape[0])
        if np.isnan(boxes).any():
            raise DataError("holds a detection with neither a box nor a mask")
        return Detections(boxes, self.classes, self.scores, drawn if masks else None)


def _shape(outline: Any, shape: tuple[int, int]) -> Shape:
    if isinstance(outline, Mapping) and "size" not in outline:
        outline = {**outline, "size": list(shape)}  # as a run writes it beside the image's name
    return read_outline(outline, shape)


# One file for all images.


def read_results(path: Path, test: TestSet) -> tuple[dict[str, Mask], list[str]]:
    """Read a file of COCO's form of results.

    Each entry has `image_id` (or `file_name`), `category_id` (or `category`, a name), `score`, and
    `bbox`, `segmentation` or both. Ids are those of the truth's file, where that has any; else
    images and classes go by their names. A file wins over an id beside it.

    Args:
        path: of the file.
        test: what it is scored against.

    Returns:
        What it says of each image of the set, and the images that it speaks of and the set lacks.

    Raises:
        DataError: the file is broken, or an entry is none.
    """
    entries = _entries(path)
    known = ids_of_set(test)
    by_file = {same_name(Path(name).name): name for name in test.masks}
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    strangers: list[str] = []
    for place, entry in enumerate(entries):
        name = _image_of(path, place, entry, known, test.masks, by_file)
        if name is None:
            strangers.append(str(entry.get("image_id", entry.get("file_name"))))
        else:
            found[name].append(entry)
    number = _numbers(test.rules.labels, known)
    masks: dict[str, Mask] = {
        name: MaskParts((path,), objects=_detections(path, found.get(name, ()), number))
        for name in test.masks
    }
    return masks, list(dict.fromkeys(strangers))


def ids_of_set(test: TestSet) -> FileIds | None:
    """Return the ids that the file of a set's truth has; None where it has none."""
    labels, first = test.rules.labels, next(iter(test.masks.values()))
    if labels is None or labels.format not in COCO or not isinstance(first, MaskParts):
        return None
    return ids_of_file(first.files[0], test.masks, labels)


def _entries(path: Path) -> list[Mapping[str, Any]]:
    content = load_json(path)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise DataError(
            f"{path} holds no results; it needs a list of detections, each with image_id, "
            f"category_id, score, and bbox or segmentation"
        )
    return content


@lru_cache(maxsize=2)
def _parsed(path: Path, stamp: tuple[int, int]) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no sound JSON ({str(error)[:80]})") from None


def load_json(path: Path) -> Any:
    """Return the content of a JSON file; raises DataError."""
    try:
        about = path.stat()
        return _parsed(path, (about.st_size, about.st_mtime_ns))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def _image_of(
    path: Path,
    place: int,
    entry: Mapping[str, Any],
    known: FileIds | None,
    masks: Mapping[str, Mask],
    by_file: Mapping[str, str],
) -> str | None:
    """Return the name of an entry's image, None where the set lacks it."""
    # The file first: who counts the images on their own gives them other ids than the truth has.
    # That of a panoptic map may have any name, so that an id is looked at after all.
    by_id = known is not None and "image_id" in entry
    for said in (entry.get("file_name"), None if by_id else entry.get("image_id")):
        if said is not None:
            name = same_name(Path(str(said)).with_suffix("").as_posix())
            name = name if name in masks else by_file.get(Path(name).name)
            if name is not None:
                return name
    if not {"file_name", "image_id"} & entry.keys():
        raise DataError(f"{path}: entry {place + 1} names no image; give it an image_id")
    return known.images.get(entry["image_id"]) if known is not None and by_id else None


def _numbers(labels: LabelRules | None, known: FileIds | None) -> dict[Any, int]:
    """Return the class of each category, by its id and by its name."""
    classes = labels.classes if labels else ()
    found: dict[Any, int] = {name: place for place, name in enumerate(classes)}
    return found | (dict(known.classes) if known else {})


def _detections(
    path: Path, entries: Iterable[Mapping[str, Any]], number: Mapping[Any, int]
) -> ImageDetections:
    """Return the detections of one image; raises DataError."""
    classes, boxes, scores, outlines = [], [], [], []
    for entry in entries:
        category = entry.get("category", entry.get("category_id"))
        if category not in number:
            raise DataError(
                f"{path} has a detection of category {category}, and the truth has "
                f"{shown([str(key) for key in number])}; give it one of these"
            )
        box, outline, score = entry.get("bbox"), entry.get("segmentation"), entry.get("score")
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise DataError(
                f"{path} has a detection whose score is {score}; average precision ranks by it, "
                f"so that each needs a number"
            )
        classes.append(number[category])
        boxes.append(NONE if not box else _box(path, box))
        scores.append(float(score))
        outlines.append(outline or None)
    return ImageDetections(
        np.array(classes, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(scores, np.float64),
        tuple(outlines),
    )


def _box(path: Path, box: Sequence[Any]) -> tuple[float, ...]:
    try:
        left, top, width, height = (float(one) for one in box)
    except (TypeError, ValueError):
        raise DataError(f"{path} has a box {box}; it is left, top, width, height") from None
    if not all(map(math.isfinite, (left, top, width, height))) or width < 0 or height < 0:
        raise DataError(f"{path} has a box {box}; width and height are finite, 0 or more")
    return (left, top, left + width, top + height)


# A file for each image.


def read_found(
    mask: Mask, rules: PixelRules, shape: tuple[int, int], masks: bool
) -> tuple[Detections, list[str]]:
    """Return what was found in one image, and what is unusual about its file.

    Args:
        mask: of `read_results`, or the file of one image: JSON as a run writes it, or a map with a
            number for each object, as the truth would have it.
        rules: of the truth.
        shape: (h, w) of the image.
        masks: whether masks are scored.

    Raises:
        DataError: it cannot be read, or is of another size.
    """
    if isinstance(mask, MaskParts) and isinstance(mask.objects, ImageDetections):
        said = mask.objects
    elif mask.suffix.lower() == ".json":
        path = mask_files(mask)[0]
        said = _detections(path, _entries(path), _numbers(rules.labels, None))
    else:
        objects = read_instances(mask_files(mask)[0], rules)
        if objects.shape != shape:
            raise DataError(
                f"instance map {mask} is {objects.shape[1]} x {objects.shape[0]} pixels, and its "
                f"image {shape[1]} x {shape[0]}"
            )
        scores = np.ones(len(objects.classes))
        runs = objects.masks if masks else None
        return Detections(objects.boxes, objects.classes, scores, runs), ["no scores"]
    try:
        return said.settled(shape, masks), []
    except DataError as error:
        raise DataError(f"{mask} {error}") from None


# Panoptic maps, with a list of their segments or with numbers that tell the class.

PER_CLASS = 1000  # segments of one class, in numbers that a run writes


@dataclass(frozen=True)
class SegmentList:
    """The class of each segment of one image, by its number."""

    classes: Mapping[int, int]

    @property
    def checksum(self) -> str:
        """64 hex digits of all of it."""
        return hashlib.sha256(json.dumps(sorted(self.classes.items())).encode()).hexdigest()


def read_lists(path: Path, test: TestSet) -> dict[str, SegmentList]:
    """Return, by image, what COCO's panoptic JSON of results says of its segments.

    Raises DataError where the file is broken or speaks of other classes.
    """
    known, found = ids_of_set(test), {}
    by_file = {same_name(Path(name).name): name for name in test.masks}
    number = _numbers(test.rules.labels, known)
    for place, entry in enumerate(_entries(path)):
        name = _image_of(path, place, entry, known, test.masks, by_file)
        listed = entry.get("segments_info")
        if not isinstance(listed, list):
            raise DataError(f"{path}: entry {place + 1} has no segments_info")
        if name is not None:
            found[name] = SegmentList(dict(_classes_of(path, listed, number)))
    return found


def _classes_of(
    path: Path, listed: Sequence[Any], number: Mapping[Any, int]
) -> Iterator[tuple[int, int]]:
    for one in listed:
        category = one.get("category", one.get("category_id"))
        if category not in number:
            raise DataError(
                f"{path} has a segment of category {category}, and the truth has "
                f"{shown([str(key) for key in number])}; give it one of these"
            )
        yield int(one["id"]), number[category]


def read_panoptic_map(mask: Mask, classes: int) -> tuple[Panoptic, list[str]]:
    """Return the segments of a panoptic map, and what is unusual about it.

    Args:
        mask: a PNG whose colours are numbers of segments, R + 256 G + 65536 B, 0 for none; or one
            with its list. Without a list, number // 1000 - 1 is the class, as a run writes it.
        classes: how many there are.

    Raises:
        DataError: it cannot be read, or holds a number whose class is not told.
    """
    path, listed = mask_files(mask)[-1], None
    if isinstance(mask, MaskParts) and isinstance(mask.objects, SegmentList):
        listed = mask.objects.classes
    numbers = read_segment_numbers(path)
    values, places = np.unique(numbers, return_inverse=True)
    if listed is None:
        listed = {int(v): int(v) // PER_CLASS - 1 for v in values if v}
    own: list[int] = []
    rank = np.zeros(len(values), np.int64)
    for place, value in enumerate(values.tolist()):
        if not value:
            continue
        if value not in listed or not 0 <= listed[value] < classes:
            raise DataError(
                f"panoptic map {path} holds segment {value}, whose class is not told; list it in "
                f"the JSON beside the folder, or number it 1000 x (class from 1) + its place"
            )
        own.append(listed[value])
        rank[place] = len(own)
    absent = sorted(set(listed) - set(values.tolist()))
    segments = rank[places].reshape(numbers.shape)
    return Panoptic(segments, np.array(own, np.int64)), ["listed alone"] * bool(absent)
