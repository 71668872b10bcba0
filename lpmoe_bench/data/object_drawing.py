"""Pictures of objects: boxes with class and score, instances, panoptic maps, what was found.

All functions return a new RGB picture, uint8 (h, w, 3). Lines are as wide as the image is large, so
that they are still seen where the picture is shrunk.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from lpmoe_bench.data.label_rules import MOST_CLASSES, class_colour
from lpmoe_bench.metrics.runs import pixels_of_runs

Colour = tuple[int, int, int]  # RGB of 0 to 255

LEAST_SCORE = 0.5  # of detections that pictures show, where nothing else is asked for
MATCHED: Colour = (0, 158, 115)  # Okabe and Ito's green: apart from blue and orange for every eye
CROWD: Colour = (150, 150, 150)
BORDER: Colour = (255, 255, 255)
TINT = 0.5  # of an object's colour over the image
FAINT = 0.3  # of its colour inside an outline, where outlines say what it is
FEW = 12  # objects, of which each has its words; of more those whose words are no larger than it
FONT = cv2.FONT_HERSHEY_SIMPLEX


class Shapes(NamedTuple):
    """Objects to draw. boxes: float (N, 4), x0 y0 x1 y1 in pixels, half-open. masks: runs of each,
    None where there are boxes alone."""

    boxes: np.ndarray
    masks: Sequence[np.ndarray] | None = None

    def only(self, places: np.ndarray) -> Shapes:
        """Return some of them, by their places or by bool (N,)."""
        places = np.arange(len(self.boxes))[places]
        masks = None if self.masks is None else [self.masks[place] for place in places]
        return Shapes(self.boxes[places], masks)


# Colours.


def object_colours(
    classes: np.ndarray, numbers: np.ndarray, of_class: Sequence[Colour]
) -> list[Colour]:
    """Return a colour for each object: a shade of that of its class, or where there is one class
    any, so that neighbours differ most.

    Args:
        classes: int (N,).
        numbers: int (N,), which object of its class it is; the same number has the same colour in
            every picture.
        of_class: the colour of each class.
    """
    pairs = zip(classes.tolist(), numbers.tolist(), strict=True)
    if len(of_class) == 1:
        return [class_colour(number % MOST_CLASSES) for _, number in pairs]
    return [_shade(of_class[own], number) for own, number in pairs]


def _shade(colour: Colour, number: int) -> Colour:
    """Return a shade of a colour: the first is the colour itself, later ones differ from another in
    brightness, saturation and a little in hue."""
    if not number:
        return colour
    hue, saturation, value = colorsys.rgb_to_hsv(*(part / 255 for part in colour))
    # Steps of the plastic number's powers fill the cube evenly, however many there are.
    turn, pale, dark = (number * step % 1 for step in (0.819173, 0.671044, 0.549700))
    shade = (
        hue + 0.1 * (turn - 0.5),
        saturation * (0.65 + 0.35 * pale),
        value * (0.6 + 0.4 * dark),
    )
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(shade[0] % 1, *shade[1:]))
    return red, green, blue


def numbers_of(classes: np.ndarray) -> np.ndarray:
    """Return of each object, int (N,), which one of its class it is, from 0 in their order."""
    numbers = np.zeros(len(classes), np.int64)
    for own in np.unique(classes):
        places = np.flatnonzero(classes == own)
        numbers[places] = np.arange(len(places))
    return numbers


# Objects over an image.


def draw_objects(
    image: np.ndarray, shapes: Shapes, colours: Sequence[Colour], words: Sequence[str] = ()
) -> np.ndarray:
    """Draw objects over an image, the last on top: masks tinted and outlined, else boxes.

    Args:
        image: RGB (h, w, 3), uint8.
        shapes: of its objects.
        colours: of each object.
        words: of each object, such as its class; with them each has its box too.
    """
    picture, line = image.copy(), line_width(image.shape)
    for place, colour in enumerate(colours):
        _paint(picture, shapes, place, colour, TINT if shapes.masks is not None else 0.0, line)
        if words and shapes.masks is not None:
            _rectangle(picture, shapes.boxes[place], colour, max(1, line // 2))
    taken: list[tuple[int, int, int, int]] = []
    for place in range(len(words) - 1, -1, -1):  # those on top have the first choice of a place
        box = shapes.boxes[place]
        _write_words(picture, words[place], box, colours[place], taken, len(words) <= FEW)
    return picture


def line_width(shape: Sequence[int]) -> int:
    """Return the width of lines, in pixels, on an image of (h, w)."""
    return max(1, round(max(shape[:2]) / 200))


def _paint(
    picture: np.ndarray, shapes: Shapes, place: int, colour: Colour, tint: float, line: int
) -> None:
    """Draw an object into a picture: its mask, or else its box, outlined and filled by `tint`."""
    left, top, right, bottom = _corners(shapes.boxes[place], picture.shape)
    if shapes.masks is None:
        _fill(picture[top:bottom, left:right], None, colour, tint)
        _rectangle(picture, shapes.boxes[place], colour, line)
        return
    pixels = pixels_of_runs(shapes.masks[place], *picture.shape[:2])
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    _fill(picture[part], pixels[part], colour, tint)
    outlines, _ = cv2.findContours(
        pixels[part].astype(np.uint8),
        cv2.RETR_CCOMP,
        cv2.CHAIN_APPROX_NONE,
        offset=(int(columns[0]), int(rows[0])),
    )
    cv2.drawContours(picture, outlines, -1, colour, line)


def _fill(part: np.ndarray, pixels: np.ndarray | None, colour: Colour, tint: float) -> None:
    """Tint a part of a picture, or those pixels of it, bool (h, w), where it lies."""
    if tint and part.size:
        where = np.ones(part.shape[:2], bool) if pixels is None else pixels
        part[where] = (part[where] * (1 - tint) + np.array(colour) * tint + 0.5).astype(np.uint8)


def _corners(box: np.ndarray, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Return a box in whole pixels inside an image, half-open and at least one pixel wide."""
    high, wide = shape[:2]
    left, top = int(np.clip(round(box[0]), 0, wide - 1)), int(np.clip(round(box[1]), 0, high - 1))
    right, bottom = int(np.clip(round(box[2]), 0, wide)), int(np.clip(round(box[3]), 0, high))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _rectangle(picture: np.ndarray, box: np.ndarray, colour: Colour, line: int) -> None:
    left, top, right, bottom = _corners(box, picture.shape)
    cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), colour, line)


def _write_words(
    picture: np.ndarray,
    words: str,
    box: np.ndarray,
    colour: Colour,
    taken: list[tuple[int, int, int, int]],
    few: bool,
) -> None:
    """Write words above a box, or inside it at its top, where no others stand."""
    high, wide = picture.shape[:2]
    words = words.encode("ascii", "replace").decode()  # the font has no other letters
    scale = float(np.clip(max(high, wide) / 1000, 0.4, 2.0))
    weight = max(1, round(scale * 1.2))
    (across, above), below = cv2.getTextSize(words, FONT, scale, weight)
    across, down = across + 4, above + below + 2
    left, top, right, bottom = _corners(box, picture.shape)
    if not few and across * down > (right - left) * (bottom - top):
        return
    left = max(0, min(left, wide - across))
    for start in (top - down, top, bottom):
        start = max(0, min(start, high - down))
        place = (left, start, left + across, start + down)
        if not any(_overlap(place, other) for other in taken):
            break
    else:
        return
    taken.append(place)
    cv2.rectangle(picture, place[:2], (place[2] - 1, place[3] - 1), colour, -1)
    bright = np.dot(colour, (0.299, 0.587, 0.114)) > 140
    at = (left + 2, start + above + 1)
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(picture, words, at, FONT, scale, ink, weight, cv2.LINE_AA)


def _overlap(one: Sequence[int], other: Sequence[int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


# Panoptic maps.


def draw_segments(
    image: np.ndarray, segments: np.ndarray, colours: Sequence[Colour], tint: float = TINT
) -> np.ndarray:
    """Tint an image by the segments of its pixels, with a border between any two.

    Args:
        image: RGB (h, w, 3), uint8.
        segments: int (h, w), from 1; pixels of 0 stay as they are.
        colours: of the segments 1 to n.
        tint: 1 for the colours alone.
    """
    table = np.array([(0, 0, 0), *colours], np.float32)
    share = np.where(segments > 0, tint, 0).astype(np.float32)[..., None]
    picture = (image * (1 - share) + table[segments] * share + 0.5).astype(np.uint8)
    picture[_borders(segments, line_width(image.shape))] = BORDER
    return picture


def _borders(segments: np.ndarray, line: int) -> np.ndarray:
    """Return the pixels, bool (h, w), between segments: a line of so many."""
    edge = np.zeros(segments.shape, np.uint8)
    edge[:, 1:] |= segments[:, 1:] != segments[:, :-1]
    edge[1:] |= segments[1:] != segments[:-1]
    return cv2.dilate(edge, np.ones((line, line), np.uint8)) > 0 if line > 1 else edge > 0


# What was found, missed and invented.


def draw_outcomes(shape: Sequence[int], outcomes: Sequence[tuple[Colour, Shapes]]) -> np.ndarray:
    """Draw objects on white, each kind of outcome in a colour; later ones lie on top.

    Args:
        shape: (h, w) of the picture.
        outcomes: a colour, and the objects that are drawn in it.
    """
    picture = np.full((*shape[:2], 3), 255, np.uint8)
    line = line_width(shape)
    for colour, shapes in outcomes:
        for place in range(len(shapes.boxes)):
            _paint(picture, shapes, place, colour, FAINT, line)
    return picture


def draw_segment_outcomes(
    segments: np.ndarray,
    colours: Sequence[Colour | None],
    truth: np.ndarray,
    missed: np.ndarray,
    colour: Colour,
) -> np.ndarray:
    """Draw the segments of a map on white, each in the colour of its outcome, and those of the
    truth that it misses; where both lie, in stripes.

    Args:
        segments: int (h, w), of the map, from 1.
        colours: of its segments 1 to n; None for those that count for nothing.
        truth: int (h, w), from 1.
        missed: bool (n,), which segments of the truth are missed.
        colour: of these.
    """
    table = np.array([(255, 255, 255), *(CROWD if one is None else one for one in colours)])
    picture = table[segments].astype(np.uint8)
    lost = np.concatenate([[False], missed])[truth]
    line = line_width(segments.shape)
    rows, columns = np.indices(segments.shape, sparse=True)
    stripe = (rows + columns) // (5 * line) % 2 == 0
    picture[lost & (stripe | (segments == 0))] = colour
    for one in (segments, np.where(lost, truth, 0)):
        picture[_borders(one, line)] = BORDER
    return picture


def places_shown(scores: np.ndarray, least: float | None = None) -> np.ndarray:
    """Return the places of detections that a picture shows, the best last, so that it lies on top.

    Args:
        scores: float (N,).
        least: of a score that is shown; None for the usual one.
    """
    least = LEAST_SCORE if least is None else least
    order = np.argsort(scores, kind="stable")
    return order[scores[order] >= least]
