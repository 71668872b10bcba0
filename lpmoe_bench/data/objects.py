"""Objects: what a label file says of one image, and the boxes and masks that this means.

Boxes are x0 y0 x1 y1 in pixels, half-open: an object of 2 x 2 pixels at the corner is 0 0 2 2.
Masks are runs (see `lpmoe_bench.metrics.runs`), so that an image of hundreds of objects is small.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lpmoe_bench.data.annotations import Mask, MaskParts, Shape, draw, mask_files, read_indices
from lpmoe_bench.data.images import check_same_size, mask_pixels
from lpmoe_bench.data.label_rules import VOID, LabelRules, shown_few
from lpmoe_bench.data.pixels import PixelRules
from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.runs import areas_of, pixels_of_runs, runs_of_pixels

SLACK = 1.0  # pixels by which a box may reach beyond its image: rounding of its file


@dataclass(frozen=True, slots=True, eq=False)
class ImageObjects:
    """What a file says of the objects of one image of height x width pixels, as it says it.

    classes: (N,) int64, from 0. boxes: (N, 4) float64, NaN where the file has none. crowd: (N,)
    bool. areas: (N,) float64, pixels, NaN where the file has none. outlines: the shape of each
    object, None of one that has a box alone. segments: the number of each object in the image's
    panoptic map, whose objects have their shapes there; things: which of them are such.
    """

    height: int
    width: int
    classes: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    outlines: tuple[Shape | None, ...] = ()
    segments: np.ndarray | None = None
    things: np.ndarray | None = None

    @property
    def has_masks(self) -> bool:
        """Whether each object has a shape beside its box."""
        return self.segments is not None or all(one is not None for one in self.outlines)

    @property
    def checksum(self) -> str:
        """64 hex digits of all of it, wherever its file lies and whatever else is in it."""
        digest = hashlib.sha256(f"{self.height} {self.width}".encode())
        columns = (self.classes, self.boxes, self.crowd, self.areas, self.segments, self.things)
        for column in columns:
            digest.update(b"-" if column is None else _bytes(column))
        for one in self.outlines:
            parts = () if one is None else one.polygons if one.runs is None else (one.runs,)
            # The number of parts and their form too: else two outlines might read as one.
            digest.update(f"{len(parts)}{'' if one is None else one.runs is None}".encode())
            for part in parts:
                digest.update(_bytes(part))
        return digest.hexdigest()


def _bytes(column: np.ndarray) -> bytes:
    kind = "<f8" if column.dtype.kind == "f" else "<i8"
    return str(column.shape).encode() + np.ascontiguousarray(column, kind).tobytes()


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image at its own size, as scorers take them.

    shape: (h, w). boxes: (N, 4) float64, as the file has them, or else around the mask. classes:
    (N,) int64. crowd: (N,) bool. areas: (N,) float64, pixels, as the file has them. masks: runs of
    each, None where there are boxes alone. labels: of panoptic truth, uint8 (h, w), the class of
    pixels of stuff, VOID elsewhere; the objects are the things then.
    """

    shape: tuple[int, int]
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    masks: list[np.ndarray] | None = None
    labels: np.ndarray | None = None

    @cached_property
    def oddities(self) -> tuple[int, int, int]:
        """How many boxes reach beyond the image, have no area, or stand twice."""
        h, w = self.shape
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        outside = (low < -SLACK).any(1) | (high > np.array([w, h]) + SLACK).any(1)
        flat = (high <= low).any(1)
        seen: set[tuple[Any, ...]] = set()
        for place in range(len(self.classes)):
            mask = b"" if self.masks is None else self.masks[place].tobytes()
            seen.add((int(self.classes[place]), *self.boxes[place].tolist(), mask))
        return int(outside.sum()), int(flat.sum()), len(self.classes) - len(seen)


def read_objects(
    mask: Mask, rules: PixelRules, image: Path | None = None, masks: bool = True
) -> Objects:
    """Return the objects of one image.

    Args:
        mask: what a file says of the image, or an instance map, or masks of one object each.
        rules: what is declared; `rules.labels` names the classes.
        image: the file of its image, where that is known: its rotation counts.
        masks: False where boxes will do: shapes are not drawn then.

    Raises:
        DataError: a file cannot be read, or a panoptic map holds other segments than are listed, or
            an instance map holds values that mean no class.
    """
    declared = rules.labels
    assert declared is not None, "the labels of objects are declared"
    said = mask.objects if isinstance(mask, MaskParts) else None
    if said is None:
        return _of_maps(mask, declared, rules, image)
    assert isinstance(said, ImageObjects)
    if said.segments is not None:
        assert isinstance(mask, MaskParts)
        return _of_panoptic(mask.files[-1], said)
    shape = (said.height, said.width)
    lacking = np.isnan(said.boxes).any(1) | np.isnan(said.areas)
    drawn: list[np.ndarray] | None = None
    if said.has_masks and (masks or lacking.any()):
        drawn = [runs_of_outline(one, *shape) for one in said.outlines if one is not None]
    boxes, areas = said.boxes.copy(), said.areas.copy()
    if lacking.any():
        without = np.isnan(boxes).any(1)
        for place in np.flatnonzero(without):
            assert drawn is not None, "the reader of the file has looked"
            boxes[place] = box_of_runs(drawn[place], shape[0])
        own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        own = own if drawn is None else areas_of(drawn)
        areas = np.where(np.isnan(areas), own, areas)
    return Objects(shape, boxes, said.classes, said.crowd, areas, drawn if masks else None)


def runs_of_outline(shape: Shape, height: int, width: int) -> np.ndarray:
    """Return the runs of a shape in an image of height x width pixels."""
    return shape.runs if shape.runs is not None else runs_of_pixels(draw(shape, height, width))


def box_of_runs(runs: np.ndarray, height: int) -> np.ndarray:
    """Return the box around a mask, float64 (4,), zeros where it has no pixel.

    Args:
        runs: of background and object in turn, column by column.
        height: of the image, pixels.
    """
    ends = np.cumsum(runs)
    starts, lasts = ends[:-1:2][: len(runs) // 2], ends[1::2]
    # Runs of length 0, which some files have, are no stretch of object.
    starts, lasts = starts[lasts > starts], lasts[lasts > starts]
    if not len(starts):
        return np.zeros(4)
    columns, final = starts // height, (lasts - 1) // height
    # A stretch that goes on into the next column has that one's top and this one's bottom.
    across = final > columns
    top = 0 if across.any() else int((starts % height).min())
    bottom = height if across.any() else int(((lasts - 1) % height).max()) + 1
    return np.array([columns.min(), top, final.max() + 1, bottom], np.float64)


def pixels_of(objects: Objects, place: int) -> np.ndarray:
    """Return the mask of one object, bool (h, w)."""
    assert objects.masks is not None
    return pixels_of_runs(objects.masks[place], *objects.shape)


# Panoptic maps: a PNG whose colours are the numbers of segments.


def _of_panoptic(path: Path, said: ImageObjects) -> Objects:
    assert said.segments is not None
    assert said.things is not None
    ids = read_segment_numbers(path)
    if ids.shape != (said.height, said.width):
        raise DataError(
            f"panoptic map {path} is {ids.shape[1]} x {ids.shape[0]} pixels, and its list says "
            f"{said.width} x {said.height}"
        )
    order = np.argsort(said.segments)
    known = said.segments[order]
    # Where each pixel's number stands among the listed ones; it is listed if it really is there.
    places = np.minimum(np.searchsorted(known, ids), max(0, len(known) - 1))
    listed = known[places] == ids if len(known) else np.zeros(ids.shape, bool)
    if (unknown := np.unique(ids[~listed & (ids != 0)]).tolist()) != []:
        raise DataError(
            f"panoptic map {path} holds segments {shown_few(unknown)} that its list does not have; "
            f"the two must belong together"
        )
    # The place of each pixel's segment in the list, from 1; 0 where it is void.
    place_of = np.where(listed, order[places] + 1, 0) if len(known) else np.zeros(ids.shape, int)
    there = np.bincount(place_of.ravel(), minlength=len(known) + 1)[1:]
    if not there.all():
        missing = said.segments[np.flatnonzero(there == 0)[0]]
        raise DataError(
            f"panoptic map {path} has no pixel of segment {missing}, which its list has; the two "
            f"must belong together"
        )
    # Place 0 is void; things are void in the map of stuff, as they have masks of their own.
    of_class = np.concatenate([[VOID], np.where(said.things, VOID, said.classes)])
    things = np.flatnonzero(said.things)
    masks = [runs_of_pixels(place_of == place + 1) for place in things]
    boxes = [box_of_runs(runs, said.height) for runs in masks]
    return Objects(
        (said.height, said.width),
        np.array(boxes, np.float64).reshape(-1, 4),
        said.classes[things],
        said.crowd[things],
        areas_of(masks),
        masks,
        of_class[place_of].astype(np.uint8),
    )


def read_segment_numbers(path: Path) -> np.ndarray:
    """Return the number of each pixel's segment, int64 (h, w): R + 256 G + 65536 B of its colour.

    Source: the panoptic format of https://cocodataset.org/#format-data.
    """
    header, pixels = mask_pixels(path, PixelRules(), None, False)
    if header.kind not in ("png", "tiff") or pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise DataError(f"panoptic map {path} is no PNG in 8-bit colours, which are its numbers")
    b, g, r = (pixels[..., channel].astype(np.int64) for channel in range(3))
    return r + 256 * g + 65536 * b


# Instance maps: one image whose values are objects, or a file for each object.


def read_instances(path: Path, rules: PixelRules) -> Objects:
    """Return the objects of an instance map of anybody; raises DataError.

    rules: of the truth, whose classes it has. A set without a divisor has one class.
    """
    assert rules.labels is not None
    if len(rules.labels.classes) > 1 and not rules.labels.divisor:
        raise DataError(
            f"instance map {path} tells objects apart and not their classes, of which there are "
            f"{len(rules.labels.classes)}; give a file of results, in COCO's form"
        )
    return _of_maps(path, rules.labels, rules, None)


def _of_maps(mask: Mask, declared: LabelRules, rules: PixelRules, image: Path | None) -> Objects:
    files = mask_files(mask)
    maps = [_values(file, rules, image) for file in files]
    check_same_size(files, [one.shape for one in maps])
    (height, width), path = maps[0].shape, files[0]
    shape = (int(height), int(width))
    if len(files) > 1:
        masks = [runs_of_pixels(one > 0) for one in maps]
        return _of_masks(shape, masks, np.zeros(len(masks), np.int64), np.zeros(len(masks), bool))
    values = np.unique(maps[0])
    masks, classes, crowd = [], [], []
    for value in values[values > 0].tolist():
        own, group = _class_of(value, declared, path)
        if own is None:
            continue
        masks.append(runs_of_pixels(maps[0] == value))
        classes.append(own)
        crowd.append(group)
    return _of_masks(shape, masks, np.array(classes, np.int64), np.array(crowd, bool))


def _values(path: Path, rules: PixelRules, image: Path | None) -> np.ndarray:
    """Return the values of an instance map, (h, w)."""
    if path.suffix.lower() in (".npy", ".mat"):
        return read_indices(path)
    header, pixels = mask_pixels(path, rules, image, True)
    if header.kind in ("jpeg", "webp", ""):
        raise DataError(
            f"instance map {path} is in a format that does not keep values; save it as PNG from "
            f"its source, for what was lost cannot be told"
        )
    if pixels.ndim == 3:
        if not (pixels[..., :3] == pixels[..., :1]).all():
            raise DataError(
                f"instance map {path} is in colours; save one number for each object in a PNG of "
                f"one channel with 8 or 16 bits"
            )
        pixels = np.ascontiguousarray(pixels[..., 0])
    return pixels


def _class_of(value: int, declared: LabelRules, path: Path) -> tuple[int | None, bool]:
    """Return the class of a value of an instance map, None for one that is no object, and whether
    it is a group that is not told apart."""
    if not declared.divisor:
        return 0, False
    number, group = value // declared.divisor, False
    if not number:  # the number of a class alone, as Cityscapes has groups and stuff
        number, group = value, True
    for index, values in enumerate(declared.of_class):
        if number in values:
            return index, group
    if group or number in declared.ignore:
        return None, False
    raise DataError(
        f"instance map {path} holds {value}, whose class {number} is none of "
        f"{shown_few([v for values in declared.of_class for v in values])}; add it to `classes`, "
        f"or write `ignore: [{number}]` for what is no object"
    )


def _of_masks(
    shape: tuple[int, int], masks: Sequence[np.ndarray], classes: np.ndarray, crowd: np.ndarray
) -> Objects:
    boxes = [box_of_runs(runs, shape[0]) for runs in masks]
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    return Objects(shape, boxes, classes, crowd, areas_of(masks), list(masks))


# Objects at another size.


def resized_masks(objects: Objects, sides: tuple[int, int]) -> np.ndarray:
    """Return the masks squashed to (h, w) `sides`, bool (N, h, w), each pixel the nearest one."""
    assert objects.masks is not None
    found = np.zeros((len(objects.masks), *sides), bool)
    for place in range(len(found)):
        pixels = pixels_of(objects, place).astype(np.uint8)
        # The exact variant samples pixel centres, so that a mirrored mask gives a mirrored result.
        found[place] = cv2.resize(pixels, sides[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return found
