"""Figures for papers: images x methods, with masks, maps, overlays and errors in two colours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from lpmoe_bench.config.kinds import get_kind, kind_of_files
from lpmoe_bench.data import tasks
from lpmoe_bench.data.annotations import Mask
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules
from lpmoe_bench.data.test_sets import TestSet, find_files, folder_set, task_sets
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.metrics import facts, protocols
from lpmoe_bench.records.store import ADAPTER_FILE, ROWS, FoundRecords, StoredRecord
from lpmoe_bench.report import contents, images, pictures, plots
from lpmoe_bench.scoring import plan, views
from lpmoe_bench.tables.rows import row_labels
from method_zoo.errors import unknown

if TYPE_CHECKING:
    from lpmoe_bench.inference.predictor import Predictor

ORDERS = ("disagreement", "worst", "even")  # of rows; else names of images
SHOWN = ("maps", "overlays", "errors")
FORMATS = (".pdf", ".png", ".svg")
CROP = r"(?:(.*)=)?(\d{1,6}),(\d{1,6}),0*([1-9]\d{0,5}),0*([1-9]\d{0,5})"
WIDEST = 60  # inches of a page
MOST_METHODS = 12  # columns that a page holds
GAP, TITLE, LEGEND, SCORE = 0.04, 0.2, 0.22, 0.14  # inches
Box = tuple[int, int, int, int]
Line = tuple[list[list[np.ndarray]], list[str]]  # pictures one below the other, words; by column

# What a figure is made of: the test set and its maps, from records, runs and folders of maps.


@dataclass(frozen=True)
class FigureRequest:
    """Whose maps of which images a figure shows.

    found: records and runs, by which maps are found or predicted. folders: of maps, or files of
    results of objects, by the name of their method. load: the model of a run's folder, for runs
    whose maps are not kept. choice: which records, by which score, and which test set. images,
    masks: a user's own folders, whose pixels mean what `rules` says. embedded: the set drawn in
    code of the task. threshold: the least score of detections that are shown.
    """

    source: images.SetSource
    found: FoundRecords
    folders: Mapping[str, Path]
    load: Callable[[Path], Predictor]
    choice: contents.Selection = field(default_factory=contents.Selection)
    images: Path | None = None
    masks: Path | None = None
    embedded: bool = False
    protocol: str | None = None
    rules: PixelRules = UNDECLARED
    threshold: float | None = None


@dataclass
class MapSource:
    """One method's maps of a test set: files by image, or a trained run that predicts them.

    stored: its record, if it has one. values: scores by image, those of the record at first.
    """

    title: str
    files: Mapping[str, Mask] = field(default_factory=dict)
    stored: StoredRecord | None = None
    values: dict[str, float] = field(default_factory=dict)
    predictor: Predictor | None = None

    def can_predict(self) -> bool:
        """Whether the record is a run whose trained weights are beside it."""
        return self.stored is not None and (self.stored.folder / ADAPTER_FILE).exists()

    def has(self, name: str) -> bool:
        """Whether it has, or can make, the map of an image."""
        return name in self.files or self.can_predict()


@dataclass
class FigureData:
    """The test set, its maps by method, and how they are compared; notes: what to know of them."""

    test: TestSet
    metric: facts.Metric
    pictures: pictures.MapPictures
    load: Callable[[Path], Predictor]
    sources: list[MapSource] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def score(self, pred: Any, truth: Any) -> float:
        """Return the score of a map; NaN where it has none."""
        value = self.pictures.score(self.metric, pred, truth)
        return float("nan") if value is None else value

    def map(self, source: MapSource, name: str, image: np.ndarray | None, truth: Any) -> Any:
        """Return a method's map at the size of the truth, from its file or from the run's model."""
        if name in source.files:
            return self.pictures.read_map(source.files[name], truth, source.stored)
        if image is None or source.stored is None:
            raise DataError(
                f"{source.title} has no map of {name}, and there is no image to predict"
            )
        if source.predictor is None:
            source.predictor = self.load(source.stored.folder)
            self.notes.append(f"maps of {source.title} were predicted now by the trained run")
        return source.predictor.prediction(image, source.predictor.window)


def gather_figure(request: FigureRequest) -> FigureData:
    """Find images, masks and maps of a figure.

    Raises:
        UsageError: several tables or tasks, no test set is named, or too many methods.
        DataError: images or maps are not found.
    """
    stored, protocol = request.found.stored, None
    rows: dict[str, list[StoredRecord]] | None = None
    if request.masks is None and request.images is not None:
        raise UsageError("--images names a folder of images; name that of their masks with --gt")
    if request.masks is not None:
        rules, named = plan.object_truth(
            request.masks, request.rules, request.protocol, request.folders.values()
        )
        test = folder_set(request.masks, request.images, request.source.cache, rules)
        request = replace(request, rules=rules, protocol=named)
    elif request.embedded:
        test = _drawn(request)
    elif stored:
        table = contents.gather_contents(request.found, request.choice).only_table("figure")
        test = images.find_test_set(request.source, table.stored, table.test)
        protocol = table.group.context.protocol
        rows = {row.label: list(row.stored) for row in table.rows}
    else:
        test = _of_task(request)
    # Maps of another test set have a fingerprint of their own, which would stand in the title.
    shown = [one for one in stored if _may_show(one, test)]
    rows = _by_label(shown or stored) if rows is None else rows
    if len(rows) + len(request.folders) > MOST_METHODS:
        raise UsageError(
            f"{len(rows) + len(request.folders)} methods are more than the {MOST_METHODS} that a "
            f"page holds; choose some with --method"
        )
    of_records = stored[0].record.protocol.name if stored else test.protocol
    usual = kind_of_files(test.rules.form).protocol
    counting = protocols.get_protocol(request.protocol or protocol or of_records or usual)
    metric = views.image_metric(request.choice.metric or counting.primary)
    shown_as = pictures.pictures_of(test, counting.kind, counting)
    shown_as = shown_as if request.threshold is None else shown_as.above(request.threshold)
    data = FigureData(test, metric, shown_as, request.load)
    found = {title: _of_records(data, title, own) for title, own in rows.items()}
    data.sources += [one for one in found.values() if one]
    data.sources += [_of_folder(data, *named) for named in request.folders.items()]
    if without := [title for title, one in found.items() if one is None]:
        data.notes.append(f"no maps are kept of {', '.join(without)}, and no trained weights")
        lost = (one for title in without for one in rows[title])
        if gone := images.gone_places(lost, test.label, maps=True):
            data.notes[-1] += f" ({gone})"
    if not data.sources:
        raise DataError(
            f"no maps of {data.test.label} are found: {data.notes[-1] if data.notes else 'none'}; "
            f"keep them with --save-predictions or runtime.save_predictions=true, or name folders "
            f"of maps as NAME=FOLDER"
        )
    return data


def _may_show(one: StoredRecord, test: TestSet) -> bool:
    """Whether a record is of a run, which predicts any image, or of maps of this test set."""
    digests = {facts.digest for facts in one.record.data.tests}
    return one.record.kind != "score" or test.split.digest in digests


def _by_label(stored: Sequence[StoredRecord]) -> dict[str, list[StoredRecord]]:
    """Return the records of each method and fingerprint by the label that a table gives them."""
    groups: dict[tuple[str, str], list[StoredRecord]] = {}
    for one in stored:
        groups.setdefault((one.record.method.name, one.record.fingerprint), []).append(one)
    labels = row_labels([seeds[0].record for seeds in groups.values()], {})
    return dict(zip(labels, groups.values(), strict=True))


def _drawn(request: FigureRequest) -> TestSet:
    """Return the set drawn in code of the one task; raises UsageError where there are several."""
    source, names = request.source, sorted({one.task for one in request.found.records})
    if request.choice.task is None and len(names) > 1:
        raise UsageError(
            f"these runs are of several tasks, {' and '.join(names)}; draw each task's on their own"
        )
    task = source.registry.task(request.choice.task or "".join(names))
    drawn = tasks.resolve(task, source.registry, None, None, True, source.cache)
    return TestSet.of(drawn.tests[0], task.protocol)


def _of_task(request: FigureRequest) -> TestSet:
    """Return the one test set of a task that is found; raises UsageError where there are more."""
    source, choice = request.source, request.choice
    if choice.task is None:
        raise UsageError("name the images with --images and --gt, a --task, or folders of records")
    task, where = source.registry.task(choice.task), (source.registry, source.root)
    found, _ = task_sets(task, *where, choice.test_set, False, source.cache, lambda *_: None)
    if len(found) > 1:
        labels = ", ".join(test.label for test in found)
        raise UsageError(f"task {task.name} has several test sets ({labels}); use --test-set")
    return found[0]


def _of_records(data: FigureData, title: str, stored: Sequence[StoredRecord]) -> MapSource | None:
    """Return the maps of a method: kept ones, or the run that predicts them; None for neither."""
    digest = data.test.split.digest
    sources = []
    for one in stored:
        labels = [facts.label for facts in one.record.data.tests if facts.digest == digest]
        kept = images.find_maps([one], labels[0], data.test.masks, {}) if labels else None
        files = data.pictures.attached(kept.files, kept.place) if kept else {}
        source = MapSource(title, files, one)
        same = one.record.protocol.hash == data.pictures.protocol.hash
        if labels and same and (one.folder / ROWS).exists():
            values = images.read_values(one, labels[0], data.metric)["value"]
            source.values = values.dropna().to_dict()
        if kept:
            return source
        sources.append(source)
    return next((source for source in sources if source.can_predict()), None)


def _of_folder(data: FigureData, title: str, folder: Path) -> MapSource:
    """Return the maps of a folder, or of its sub-folder that is named after the test set; or what
    a file of results says."""
    kind = get_kind(data.pictures.protocol.kind)
    for place in images.inside(folder, data.test.label):
        if files := images.maps_in(place, data.test.masks, kind):
            return MapSource(title, data.pictures.attached(files, place))
    find_files(folder, kind.job.suffixes)  # where it holds none at all, this says so
    raise DataError(
        f"no file in {folder} has the name of an image of {data.test.label}, such as "
        f"{next(iter(data.test.masks))}"
    )


# How it is drawn.


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


def parse_crops(texts: Sequence[str]) -> tuple[dict[str, Box], bool]:
    """Read X,Y,W,H of all images, NAME=X,Y,W,H of one, and `object`; raises UsageError."""
    crops: dict[str, Box] = {}
    for text in texts:
        found = re.fullmatch(CROP, text, re.ASCII)
        if found:
            x, y, width, height = map(int, found.groups()[1:])
            crops[found[1] or ""] = (x, y, width, height)
        elif text != "object":
            raise UsageError(
                f"--crop got '{text}'; write object, X,Y,WIDTH,HEIGHT in pixels, or "
                f"NAME=X,Y,WIDTH,HEIGHT for one image; width and height are at least 1"
            )
    return crops, "object" in texts


def draw_figure(
    data: FigureData, rows: str, count: int, look: FigureLook, outputs: Sequence[Path]
) -> list[str]:
    """Draw images x methods and write them; adds to the notes of `data`.

    Args:
        data: images, masks and maps, of which each method is a column.
        rows: `disagreement`, `worst`, `even`, or names of images with commas.
        count: of rows, where they are not named.
        look: what is shown of each map, and how large.
        outputs: files, .pdf, .png or .svg.

    Returns:
        The names of the images that are shown.

    Raises:
        UsageError: an unknown image, ending or thing to show, or matplotlib is missing.
        DataError: no image has a map of every method, or a file cannot be read.
    """
    plots.need_plots()
    for path in outputs:
        if path.suffix.lower() not in FORMATS:
            raise UsageError(f"{path} ends with none of {', '.join(FORMATS)}; name one of them")
    if not look.show:
        raise UsageError(f"--show names nothing; name some of {', '.join(SHOWN)}")
    if not 1 <= look.width <= WIDEST:  # nor what is no number
        raise UsageError(f"--width got {look.width:g}; it is 1 to {WIDEST} inches")
    for name in filter(None, look.crops):
        if name not in data.test.masks:
            raise UsageError(unknown(f"image of {data.test.label}", name, data.test.masks))
    for one in look.show:
        if one not in SHOWN:
            raise UsageError(unknown("thing to show of a map", one, SHOWN))
    names = _choose(data, rows, count)
    if unused := [name for name in look.crops if name and name not in names]:
        data.notes.append(f"--crop of {', '.join(unused)} is of no row that is shown")
    if look.crop_object and not data.pictures.has_object:
        raise UsageError(
            "--crop object is of binary masks; write X,Y,WIDTH,HEIGHT for label maps and objects"
        )
    present: set[int] = set()
    lines = [_line(data, name, look, present) for name in names]
    titles = [data.pictures.truth_title, *(source.title for source in data.sources)]
    titles = ["image"] * (len(lines[0][0]) > len(titles)) + titles
    with plots.plot_style():
        figure = _lay_out(titles, lines, look, data.pictures.swatches(present, look.show))
        for path in outputs:
            write_atomically(path, plots.rendered(figure, path.suffix.lower()))
    return names


def _choose(data: FigureData, rows: str, count: int) -> list[str]:
    """Return the names of the images to show."""
    sources = data.sources
    if rows not in ORDERS:
        names = [name.strip() for name in rows.split(",") if name.strip()]
        if not names:
            raise UsageError(f"--rows names no image; name some, or one of {', '.join(ORDERS)}")
        for name in names:
            if name not in data.test.masks:
                raise UsageError(unknown(f"image of {data.test.label}", name, data.test.masks))
            if missing := [one.title for one in sources if not one.has(name)]:
                raise DataError(f"{', '.join(missing)} has no map of {name}; name another image")
        return names
    names = [name for name in sorted(data.test.masks) if all(one.has(name) for one in sources)]
    if not names:
        raise DataError(f"no image of {data.test.label} has a map of every method")
    if rows == "even":
        # Spread over all names, for neighbours are often frames of one sequence.
        return names[:: max(1, len(names) // count)][:count]
    for source in sources:
        # Maps that no record scored are scored now; the values of a record are taken as they are.
        for name in [] if source.values else names:
            image, truth = data.pictures.read(name)
            source.values[name] = data.score(data.map(source, name, image, truth), truth)
    values = pd.DataFrame([one.values for one in sources], columns=names).T.dropna()
    if values.empty:
        raise DataError(
            f"no image of {data.test.label} has a value of {data.metric.key} by every method; name "
            f"another with --metric, or say --rows even"
        )
    order = values.mean(axis=1) * (1 if data.metric.higher_is_better else -1)
    if rows == "disagreement" and len(sources) > 1:
        # Less than nothing, so that the largest spread comes first in rising order.
        order = values.min(axis=1) - values.max(axis=1)
    return list(order.sort_values(kind="stable").index[:count])


def _line(data: FigureData, name: str, look: FigureLook, present: set[int]) -> Line:
    """Return the pictures of an image, and add the values of its truth and maps to `present`."""
    shows = data.pictures
    image, truth = shows.read(name)
    part = _part(name, truth, shows.size(truth), look)
    present.update(shows.present(truth, part))
    ground = np.full((*shows.size(truth), 3), 255, np.uint8) if image is None else image
    cells = [[one[part]] for one in (image, shows.shown(truth, truth)) if one is not None]
    words = [""] * len(cells)
    for source in data.sources:
        pred = data.map(source, name, image, truth)
        present.update(shows.present(pred, part))
        value, known = data.score(pred, truth), source.values.get(name)
        if known is not None and source.stored and abs(known - value) > images.ALIKE:
            data.notes.append(
                f"the map of {source.title} for {name} is not the one that was scored: "
                f"{data.metric.label} {value:.3f}, the record has {known:.3f}"
            )
        score = f"{shows.label(data.metric)} {value:.{data.metric.decimals}f}"
        words.append(score if look.scores and not np.isnan(value) else "")
        shown = {"maps": shows.shown(pred, truth), "errors": shows.errors(pred, truth)}
        shown["overlays"] = shows.over(ground, pred, truth)
        cells.append([shown[kind][part] for kind in look.show])
    return cells, words


def _part(name: str, truth: Any, size: Sequence[int], look: FigureLook) -> pictures.Part:
    """Return the rows and columns of an image that are shown."""
    height, width = size
    box = look.crops.get(name) or look.crops.get("")
    if box is None and look.crop_object and truth.any():
        ys, xs = np.nonzero(truth)
        # With a fifth around it, where most of what is too much or missing lies.
        pad = max(np.ptp(xs), np.ptp(ys)) // 5 + 4
        box = (xs.min() - pad, ys.min() - pad, np.ptp(xs) + 2 * pad, np.ptp(ys) + 2 * pad)
    x, y, w, h = (int(number) for number in box or (0, 0, width, height))
    part = slice(max(0, y), min(height, y + h)), slice(max(0, x), min(width, x + w))
    if part[0].start >= part[0].stop or part[1].start >= part[1].stop:
        raise UsageError(
            f"--crop {x},{y},{w},{h} lies outside of {name}, which is {width} x {height} pixels"
        )
    return part


def _lay_out(
    titles: Sequence[str],
    lines: Sequence[Line],
    look: FigureLook,
    swatches: Mapping[str, pictures.Colour],
) -> Any:
    """Return a figure: a column a title, rows as high as their images want, and the colours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    each, cell = len(look.show), (look.width - GAP * (len(titles) - 1)) / len(titles)
    heights = [cell * cells[0][0].shape[0] / cells[0][0].shape[1] for cells, _ in lines]
    below = SCORE * look.scores
    # As many columns as the longest name leaves room for, at a letter's width of 0.06 inches.
    longest = 0.35 + 0.06 * max(map(len, swatches), default=0)
    columns = max(1, min(len(swatches), int(look.width / longest)))
    legend = LEGEND * (lined := -(-len(swatches) // columns)) - 0.06 * max(0, lined - 1)
    total = TITLE + sum((height + GAP) * each + below for height in heights) + legend
    figure = Figure(figsize=(look.width, total))
    FigureCanvasAgg(figure)
    lefts = [column * (cell + GAP) / look.width for column in range(len(titles))]
    middles = [left + cell / 2 / look.width for left in lefts]
    middle: dict[str, Any] = {"ha": "center", "va": "baseline"}
    for x, title in zip(middles, titles, strict=True):
        text = figure.text(x, 1 - (TITLE - 0.05) / total, plots.shorten(title, 60), **middle)
        room = cell * figure.dpi / text.get_window_extent().width
        if room < 1:  # smaller where it is long, and cut where that is not enough
            text.set_fontsize(max(6.0, 8.0 * room))
            text.set_text(plots.shorten(title, max(4, int(len(title) * room * 8 / 6))))
    top = TITLE
    for line, height in zip(lines, heights, strict=True):
        bottom = top + (height + GAP) * each - GAP
        for left, x, cells, words in zip(lefts, middles, *line, strict=True):
            for row, pixels in enumerate(cells, start=1):
                low = 1 - (top + row * (height + GAP) - GAP) / total
                axes = figure.add_axes((left, low, cell / look.width, height / total))
                axes.set_axis_off()
                grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.ndim == 2 else {}
                # The axes have the shape of the image already; to fit it again would leave gaps.
                axes.imshow(pixels, aspect="auto", interpolation="antialiased", **grey)
            figure.text(x, 1 - (bottom + 0.11) / total, words, fontsize=6.5, **middle)
        top = bottom + GAP + below
    if legend:
        patches = [
            Patch(color=(red / 255, green / 255, blue / 255), label=text)
            for text, (red, green, blue) in swatches.items()
        ]
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, -0.02 / total), "ncols": columns}
        figure.legend(handles=patches, **place, labelcolor=plots.SOFT, handlelength=1)
    return figure
