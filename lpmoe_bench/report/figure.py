"""Figures for papers: images x methods, with masks, maps, overlays and errors in two colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lpmoe_bench.data.images import overlay
from lpmoe_bench.data.test_sets import TestSet
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.metrics.engine import quick_score
from lpmoe_bench.metrics.facts import Metric
from lpmoe_bench.metrics.protocols import Protocol
from lpmoe_bench.records.store import ADAPTER_FILE, ROWS, StoredRecord, read_rows
from lpmoe_bench.report import maps
from lpmoe_bench.report.plots import SOFT, need_plots, plot_style, rendered, shorten
from lpmoe_bench.scoring.views import INVENTED, MISSED, error_picture, image_value
from method_zoo.errors import unknown

if TYPE_CHECKING:
    from lpmoe_bench.inference.predictor import Predictor

ORDERS = ("disagreement", "worst", "even")  # of rows; else names of images
SHOWN = ("maps", "overlays", "errors")
FORMATS = (".pdf", ".png", ".svg")
GAP, TITLE, LEGEND = 0.04, 0.2, 0.22  # inches
Box = tuple[int, int, int, int]


@dataclass
class MapSource:
    """One method's maps of a test set: files by image, or a trained run that predicts them.

    stored: its record, if it has one. values: scores by image, those of the record at first.
    """

    title: str
    files: Mapping[str, Path] = field(default_factory=dict)
    stored: StoredRecord | None = None
    values: dict[str, float] = field(default_factory=dict)
    predictor: Predictor | None = None

    def has(self, name: str) -> bool:
        """Whether it has, or can make, the map of an image."""
        return name in self.files or self.can_predict

    @property
    def can_predict(self) -> bool:
        """Whether the record is a run whose trained weights are beside it."""
        return self.stored is not None and (self.stored.folder / ADAPTER_FILE).exists()


class FigureLook(NamedTuple):
    """How a figure looks: what it shows of each map, its width in inches, parts that are cut out.

    crops: by image, `` for all: x, y, width and height in pixels; object: around the object.
    scores: whether each map's score stands below it.
    """

    show: tuple[str, ...] = ("maps",)
    width: float = 6.9  # of a text of two columns
    crops: Mapping[str, Box] = {}
    crop_object: bool = False
    scores: bool = False
    dpi: int = 300


class Figure(NamedTuple):
    """What was drawn: the images in their order, and what its reader should know."""

    images: list[str]
    notes: list[str]


def parse_crops(texts: Sequence[str]) -> tuple[dict[str, Box], bool]:
    """Read X,Y,W,H of all images, NAME=X,Y,W,H of one, and `object`; raises UsageError."""
    crops: dict[str, Box] = {}
    for text in texts:
        name, _, numbers = text.rpartition("=")
        parts = numbers.split(",")
        if text == "object":
            continue
        if len(parts) != 4 or not all(part.strip().isdigit() for part in parts):
            raise UsageError(
                f"--crop got '{text}'; write object, X,Y,WIDTH,HEIGHT in pixels, or "
                f"NAME=X,Y,WIDTH,HEIGHT for one image"
            )
        x, y, width, height = map(int, parts)
        if not (width and height):
            raise UsageError(f"--crop {text} is empty; width and height are at least 1 pixel")
        crops[name] = (x, y, width, height)
    return crops, "object" in texts


def draw_figure(
    test: TestSet,
    sources: Sequence[MapSource],
    rows: str,
    count: int,
    metric: Metric,
    protocol: Protocol,
    look: FigureLook,
    outputs: Sequence[Path],
    load: Callable[[Path], Predictor],
) -> Figure:
    """Draw images x methods and write them.

    Args:
        test: images and masks.
        sources: of maps, a column each, in their order.
        rows: `disagreement`, `worst`, `even`, or names of images with commas.
        count: of rows, where they are not named.
        metric: by which images are compared.
        protocol: how maps without a record are scored, and what of a mask is object.
        look: what is shown of each map, and how large.
        outputs: files, .pdf, .png or .svg.
        load: the model of a run's folder, for runs whose maps are not kept.

    Returns:
        The images that are shown, and notes.

    Raises:
        UsageError: an unknown image, ending or thing to show, or matplotlib is missing.
        DataError: no image has a map of every method, or a file cannot be read.
    """
    need_plots()
    for path in outputs:
        if path.suffix.lower() not in FORMATS:
            raise UsageError(f"{path} ends with none of {', '.join(FORMATS)}; name one of them")
    for one in look.show:
        if one not in SHOWN:
            raise UsageError(unknown("thing to show of a map", one, SHOWN))
    reader = _Reader(test, metric, protocol, load)
    names = reader.choose(sources, rows, count)
    lines = [reader.line(sources, name, look) for name in names]
    titles = ["image"] * bool(lines[0].image is not None) + ["mask", *(s.title for s in sources)]
    with plot_style():
        figure = _lay_out(titles, lines, look)
        for path in outputs:
            write = rendered(figure, path.suffix.lower(), look.dpi)
            write_atomically(path, write)
    return Figure(names, list(dict.fromkeys(reader.notes)))


class _Line(NamedTuple):
    """What stands in a row of the figure; cells: by method, one below the other."""

    image: np.ndarray | None
    mask: np.ndarray
    cells: list[list[np.ndarray]]
    words: list[str]


@dataclass
class _Reader:
    """Reads, or makes, what is shown of a test set."""

    test: TestSet
    metric: Metric
    protocol: Protocol
    load: Callable[[Path], Predictor]
    notes: list[str] = field(default_factory=list)

    def choose(self, sources: Sequence[MapSource], rows: str, count: int) -> list[str]:
        """Return the names of the images to show."""
        if rows not in ORDERS:
            names = [name.strip() for name in rows.split(",") if name.strip()]
            for name in names:
                if name not in self.test.masks:
                    raise UsageError(unknown(f"image of {self.test.label}", name, self.test.masks))
                if missing := [s.title for s in sources if not s.has(name)]:
                    raise DataError(
                        f"{', '.join(missing)} has no map of {name}; name another image"
                    )
            return names
        names = [n for n in sorted(self.test.masks) if all(one.has(n) for one in sources)]
        if not names:
            raise DataError(f"no image of {self.test.label} has a map of every method")
        if rows == "even":
            return names[:: max(1, len(names) // count)][:count]
        for source in sources:
            for name in names if names[0] not in source.values else []:
                image, mask = self.pair(name)
                source.values[name] = self.score(self.map(source, name, image, mask), mask)
        names = [n for n in names if all(n in one.values for one in sources)]
        sign = -1 if self.metric.higher_is_better else 1

        def key(name: str) -> tuple[float, str]:
            values = [one.values[name] for one in sources]
            if rows == "disagreement" and len(values) > 1:
                return min(values) - max(values), name
            return -sign * math.fsum(values), name

        return sorted(names, key=key)[:count]

    def line(self, sources: Sequence[MapSource], name: str, look: FigureLook) -> _Line:
        """Return a row of the figure."""
        image, mask = self.pair(name)
        cells, words = [], []
        part = _part(name, mask, look)
        for source in sources:
            pred = self.map(source, name, image, mask)
            value = self.score(pred, mask)
            known = source.values.get(name)
            if known is not None and source.stored and abs(known - value) > 0.02:
                self.notes.append(
                    f"the map of {source.title} for {name} is not the one that was scored: "
                    f"{self.metric.label} {value:.3f}, the record has {known:.3f}"
                )
            words.append(f"{self.metric.label} {value:.{self.metric.decimals}f}")
            cells.append([_view(kind, image, mask, pred)[part] for kind in look.show])
        shown = None if image is None else image[part]
        return _Line(shown, mask[part], cells, words if look.scores else [])

    def pair(self, name: str) -> tuple[np.ndarray | None, np.ndarray]:
        return maps.read_image_and_mask(self.test, name, self.protocol.mask_threshold)

    def score(self, pred: np.ndarray, mask: np.ndarray) -> float:
        return quick_score(self.metric.key, pred, mask, self.protocol)

    def map(
        self, source: MapSource, name: str, image: np.ndarray | None, mask: np.ndarray
    ) -> np.ndarray:
        """Return a method's map at the size of the mask, from its file or from the run's model."""
        if name in source.files:
            return maps.read_map(source.files[name], mask)
        from lpmoe_bench.inference.predictor import eight_bits, probability_map

        if image is None or source.stored is None:
            raise DataError(
                f"{source.title} has no map of {name}, and there is no image to predict"
            )
        if source.predictor is None:
            source.predictor = self.load(source.stored.folder)
            self.notes.append(f"maps of {source.title} were predicted now by the trained run")
        return eight_bits(probability_map(source.predictor, image))


def record_values(stored: StoredRecord, test: str, metric: Metric) -> dict[str, float]:
    """Return the scores by image that a record has of a test set; none where it has no rows."""
    path = stored.folder / ROWS
    rows = read_rows(path) if path.exists() else []
    found = ((r["image"], image_value(r, metric.key)) for r in rows if r["dataset"] == test)
    return {name: value for name, value in found if value is not None}


def _view(kind: str, image: np.ndarray | None, mask: np.ndarray, pred: np.ndarray) -> np.ndarray:
    if kind == "errors":
        return error_picture(pred, mask)
    if kind == "overlays":
        ground = np.full((*mask.shape, 3), 255, np.uint8) if image is None else image
        return overlay(ground, pred)
    return pred


def _part(name: str, mask: np.ndarray, look: FigureLook) -> tuple[slice, slice]:
    """Return the rows and columns of an image that are shown."""
    height, width = mask.shape
    box = look.crops.get(name) or look.crops.get("")
    if box is None and look.crop_object and mask.any():
        ys, xs = np.nonzero(mask)
        pad = max(np.ptp(xs), np.ptp(ys)) // 5 + 4
        box = (xs.min() - pad, ys.min() - pad, np.ptp(xs) + 2 * pad, np.ptp(ys) + 2 * pad)
    if box is None:
        return slice(0, height), slice(0, width)
    x, y, w, h = (int(number) for number in box)
    part = slice(max(0, y), min(height, y + h)), slice(max(0, x), min(width, x + w))
    if part[0].start >= part[0].stop or part[1].start >= part[1].stop:
        raise UsageError(
            f"--crop {x},{y},{w},{h} lies outside of {name}, which is {width} x {height} pixels"
        )
    return part


def _lay_out(titles: Sequence[str], lines: Sequence[_Line], look: FigureLook) -> Any:
    """Return a figure: a column a title, rows as high as their images want."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    cell = (look.width - GAP * (len(titles) - 1)) / len(titles)
    below = 0.14 if look.scores else 0.0
    heights = [cell * line.mask.shape[0] / line.mask.shape[1] for line in lines]
    each = len(look.show)
    legend = LEGEND if "errors" in look.show else 0.0
    total = TITLE + sum(h * each + GAP * each + below for h in heights) + legend
    figure = Canvas(figsize=(look.width, total))
    FigureCanvasAgg(figure)
    for column, title in enumerate(titles):
        _write_title(figure, title, column * (cell + GAP) + cell / 2, cell, look.width, total)
    top = TITLE
    for line, height in zip(lines, heights, strict=True):
        for row, column, pixels in _cells(line):
            place = (
                column * (cell + GAP) / look.width,
                1 - (top + (row + 1) * height + row * GAP) / total,
            )
            axes = figure.add_axes((*place, cell / look.width, height / total))
            axes.set_axis_off()
            grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.ndim == 2 else {}
            axes.imshow(pixels, aspect="auto", interpolation="antialiased", **grey)
        first = len(titles) - len(line.cells)
        bottom = top + height * each + GAP * (each - 1)
        for column, text in enumerate(line.words, start=first):
            x = (column * (cell + GAP) + cell / 2) / look.width
            figure.text(x, 1 - (bottom + 0.02) / total, text, ha="center", va="top", fontsize=6.5)
        top = bottom + below + GAP
    if legend:
        _write_legend(figure, total)
    return figure


def _cells(line: _Line) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the row within a line, the column and the pixels of each picture."""
    left = [line.mask] if line.image is None else [line.image, line.mask]
    yield from ((0, column, pixels) for column, pixels in enumerate(left))
    for column, cells in enumerate(line.cells, start=len(left)):
        yield from ((row, column, pixels) for row, pixels in enumerate(cells))


def _write_title(
    figure: Any, title: str, x: float, room: float, width: float, height: float
) -> None:
    """Write a column's title: smaller where it is long, and cut where that is not enough."""
    place = x / width, 1 - (TITLE - 0.05) / height
    text = figure.text(*place, shorten(title, 60), ha="center", va="baseline", parse_math=False)
    size, letters = 8.0, len(title)
    while text.get_window_extent().width > room * figure.dpi and letters > 4:
        if size > 6:
            size -= 0.5
        else:
            letters -= 1
            text.set_text(shorten(title, letters))
        text.set_fontsize(size)


def _write_legend(figure: Any, height: float) -> None:
    """Say what the two colours of errors mean."""
    from matplotlib.patches import Patch

    words = (("false negative", MISSED), ("false positive", INVENTED))
    figure.legend(
        handles=[Patch(color=tuple(colour / 255), label=text) for text, colour in words],
        loc="lower center",
        bbox_to_anchor=(0.5, -0.02 / height),
        ncols=2,
        frameon=False,
        fontsize=7,
        labelcolor=SOFT,
        handlelength=1,
        borderaxespad=0,
    )
