"""The images that methods disagree on most: as pictures where they can be had, else as a list."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from lpmoe_bench.data.images import THRESHOLD
from lpmoe_bench.data.test_sets import TestSet
from lpmoe_bench.errors import BenchError
from lpmoe_bench.metrics.engine import quick_score
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS, Protocol
from lpmoe_bench.records.context import test_facts
from lpmoe_bench.records.store import StoredRecord
from lpmoe_bench.report import maps
from lpmoe_bench.report.contents import ReportTable
from lpmoe_bench.report.image_scores import Disputed, ImageScores, TableScores, most_disputed
from lpmoe_bench.scoring.views import error_picture

SIDE = 160  # pixels, of the longer side of a picture in the page
JPEG_QUALITY = 82
ALIKE = 0.02  # of a map made again on another machine
MOST_METHODS = 8  # of an image's maps
MOST_LABELS = 8  # of methods without maps


@dataclass
class PictureSources:
    """What pictures are made from. source: None for no pictures. maps: folders that a user named.

    count: of images. embedded: labels of the data sets whose images stand in the page, filled as
    they are put there.
    """

    source: maps.SetSource | None
    maps: Mapping[str, Path]
    count: int
    embedded: list[str] = field(default_factory=list)


class Picture(NamedTuple):
    """A small picture inside the page, as data; alt: what is seen, for who does not see it."""

    source: str
    alt: str
    width: int
    height: int


class PictureCell(NamedTuple):
    """Pictures one below the other under a title, and words below them; name: for filters."""

    title: str
    pictures: tuple[Picture, ...]
    words: str = ""
    name: str | None = None


class ImageGrid(NamedTuple):
    """An image with its mask and maps; error: why there are none."""

    image: str
    words: str
    cells: tuple[PictureCell, ...]
    error: str = ""


class _Found(NamedTuple):
    """Where the maps of a row were found."""

    scores: ImageScores
    stored: StoredRecord
    files: dict[str, Path]


def dispute_facts(
    table: ReportTable, scores: TableScores | None, sources: PictureSources
) -> dict[str, Any]:
    """Return the images that rows disagree on; `grids` where image, mask and maps are found.

    without: labels of rows whose maps are not kept. reason: why there are no grids.
    """
    disputed = most_disputed(scores, sources.count) if scores else []
    facts: dict[str, Any] = {"scores": scores, "images": disputed, "grids": [], "reason": ""}
    if scores is None or not disputed:
        return facts
    if sources.source is None:
        return facts | {"reason": "Pictures were left out on request (--no-images)."}
    names = [one.image for one in disputed]
    found = [
        _Found(row, *kept)
        for row in scores.rows
        if (kept := maps.find_maps(row.row.stored, table.test, names, sources.maps))
    ]
    having = {id(one.scores) for one in found}
    without = [row.row.label for row in scores.rows if id(row) not in having]
    if without:
        more = len(without) - MOST_LABELS
        listed = ", ".join(without[:MOST_LABELS]) + (f" and {more} more" if more > 0 else "")
        facts |= {"without": listed}
    if not found:
        return facts
    stored = [one for row in table.rows for one in row.stored]
    try:
        test = maps.find_test_set(sources.source, stored, table.test)
    except BenchError as error:
        return facts | {"reason": f"No pictures: {error}."}
    context = table.group.context
    protocol = PROTOCOLS.get(context.protocol)
    protocol = protocol if protocol and protocol.hash == context.protocol_hash else None
    grids = [_grid(scores, d, found, test, protocol) for d in disputed if d.image in test.masks]
    told = test_facts(stored[0].record, table.test)
    if grids and not (told and told.generated):  # scenes drawn in code are nobody's
        sources.embedded.append(table.test)
    return facts | {"grids": grids}


def _grid(
    scores: TableScores,
    one: Disputed,
    found: list[_Found],
    test: TestSet,
    protocol: Protocol | None,
) -> ImageGrid:
    """Return image, mask, and map above errors of the rows that have a map, the best first."""
    share = "" if one.share is None else f", foreground {100 * one.share:.1f} %"
    said = f"spread {scores.shown(one.spread)}{share}"
    try:
        threshold = protocol.mask_threshold if protocol else THRESHOLD
        image, mask = maps.read_image_and_mask(test, one.image, threshold)
    except BenchError as error:
        return ImageGrid(one.image, said, (), str(error))
    cells = [PictureCell("mask", (embedded_picture(mask, f"mask of {one.image}"),))]
    if image is not None:
        cells.insert(0, PictureCell("image", (embedded_picture(image, f"image {one.image}"),)))
    order = {id(row): place for place, (row, _) in enumerate(one.scores)}
    having = [place for place in found if one.image in place.files]
    having.sort(key=lambda place: order[id(place.scores)])
    for place in _spread_out(having):
        cells.append(_map_cell(scores, place, mask, one.image, protocol))
    return ImageGrid(one.image, said, tuple(cells))


def _spread_out(ranked: list[_Found]) -> list[_Found]:
    """Return at most so many rows as a line shows: the best, the worst and some between."""
    if len(ranked) <= MOST_METHODS:
        return ranked
    places = {round(n) for n in np.linspace(0, len(ranked) - 1, MOST_METHODS)}
    return [ranked[place] for place in sorted(places)]


def _map_cell(
    scores: TableScores, found: _Found, mask: np.ndarray, image: str, protocol: Protocol | None
) -> PictureCell:
    row, stored = found.scores.row, found.stored
    try:
        pred = maps.read_map(found.files[image], mask)
    except BenchError as error:
        return PictureCell(row.label, (), str(error), row.name)
    value = found.scores.by_seed[row.stored.index(stored)].get(image)
    said = [] if value is None else [f"{scores.metric.label} {scores.shown(value)}"]
    said += [f"seed {stored.record.seed}"] if len(row.stored) > 1 else []
    both = (
        embedded_picture(pred, f"map of {row.label}"),
        embedded_picture(error_picture(pred, mask), f"errors of {row.label}"),
    )
    doubt = _doubt(scores, value, pred, mask, protocol)
    return PictureCell(row.label, both, ", ".join(said) + doubt, row.name)


def _doubt(
    scores: TableScores,
    value: float | None,
    pred: np.ndarray,
    mask: np.ndarray,
    protocol: Protocol | None,
) -> str:
    """Say that a map is not the one whose score stands below it, such as one made from windows."""
    key = scores.metric.key
    if value is None or protocol is None or key not in METRICS or not scores.metric.per_image:
        return ""
    found = quick_score(key, pred, mask, protocol)
    if abs(found - value) <= ALIKE:
        return ""
    return f"; not the map that was scored, this one has {scores.shown(found)}"


def embedded_picture(pixels: np.ndarray, alt: str) -> Picture:
    """Return a picture as data: RGB (h, w, 3) as JPEG or grey (h, w) as PNG, uint8."""
    small = _shrink(pixels)
    if small.ndim == 3:
        small = small[..., ::-1]
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        kind, data = "jpeg", cv2.imencode(".jpg", np.ascontiguousarray(small), options)[1]
    else:
        kind, data = "png", cv2.imencode(".png", small, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    text = base64.b64encode(data.tobytes()).decode()
    return Picture(f"data:image/{kind};base64,{text}", alt, small.shape[1], small.shape[0])


def _shrink(pixels: np.ndarray) -> np.ndarray:
    scale = SIDE / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
