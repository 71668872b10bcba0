"""The most disputed images on the page: as pictures where they can be had, else as a list."""

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from lpmoe_bench.data.images import THRESHOLD, inspect_map
from lpmoe_bench.data.pairs import Pair, read_pair
from lpmoe_bench.data.registry import Registry
from lpmoe_bench.data.splits import Split
from lpmoe_bench.data.tasks import MANIFESTS, open_split, resolve
from lpmoe_bench.data.test_sets import find_files
from lpmoe_bench.errors import BenchError, DataError, UsageError
from lpmoe_bench.metrics.engine import quick_score
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS, Protocol
from lpmoe_bench.records.context import test_facts
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import StoredRecord
from lpmoe_bench.report.contents import ReportRow, ReportTable
from lpmoe_bench.report.page import Child, Head, Markup, Value, sortable, tag
from lpmoe_bench.report.sizes import Disputed, ImageScores, TableScores, most_disputed
from lpmoe_bench.scoring.plan import match_maps
from lpmoe_bench.scoring.views import error_picture
from lpmoe_bench.scoring.work import fit

# Predicted maps of records: kept beside a run, or in a folder that a user names.


KEPT = "predictions"  # folder of a run that keeps its maps, one folder a test set


def parse_maps(texts: Sequence[str]) -> dict[str, Path]:
    """Read NAME=FOLDER for each; raises UsageError for another form or a folder that is none."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UsageError(
                f"--maps got '{text}'; write it as NAME=FOLDER, such as OtherNet=maps/"
            )
        if not Path(folder).is_dir():
            raise UsageError(f"--maps {name}: {folder} is no folder; name one that holds maps")
        found[name] = Path(folder)
    return found


def find_maps(
    chapter: ReportTable, entry: ReportRow, names: Collection[str], given: Mapping[str, Path]
) -> tuple[StoredRecord, dict[str, Path]] | None:
    """Return the first of a row's records whose maps are found, and these by image; else None."""
    for one in entry.stored:
        folders = [one.folder / KEPT / chapter.test.replace("/", "-")]
        method = one.record.method
        if one.record.kind == "score":
            folders += _given(given.get(method.title) or given.get(method.name), chapter.test)
        for folder in folders:
            if not folder.is_dir():
                continue
            try:
                files = match_maps(names, find_files(folder)).files
            except BenchError:  # an empty folder, or names that nobody can tell apart
                continue
            if files:
                return one, files
    return None


def _given(folder: Path | None, test: str) -> list[Path]:
    """Return where a user's folder may keep the maps of a test set."""
    if folder is None:
        return []
    return [folder / test.replace("/", "-"), folder / test, folder]


# Images and masks of a test set, found again and proven to be those that were scored.


@dataclass(frozen=True)
class TestImages:
    """Where images are looked for: the data root, the registry, the cache of drawn sets."""

    registry: Registry
    root: Path | None
    cache: Path


def find_test_images(source: TestImages, record: Record, test: str) -> dict[str, Pair]:
    """Return the pairs of a record's test set by name.

    Raises DataError, in one sentence, where they are not here or are not those of the record.
    """
    facts = test_facts(record, test)
    if facts is None:
        raise DataError(f"the records do not say what {test} is")
    try:
        split = _open(source, record, test, facts.generated)
    except BenchError as error:
        raise DataError(f"images of {test} could not be opened: {error}") from None
    if split is None:
        where = "in the data root" if source.root else "here: name the data root with --data-root"
        raise DataError(f"the images of {test} are not found {where}")
    if split.digest != facts.digest:
        raise DataError(
            f"the images of {test} that are found are others than those that were scored "
            f"({split.digest[:8]} against {facts.digest[:8]})"
        )
    return {pair.name: pair for pair in split.pairs}


def _open(source: TestImages, record: Record, test: str, generated: bool) -> Split | None:
    if generated:
        task = source.registry.task(record.task)
        drawn = resolve(task, source.registry, None, None, True, source.cache)
        return next((split for split in drawn.tests if split.label == test), None)
    name, _, split = test.partition("/")
    if name not in source.registry.datasets:  # somebody's own folders
        return None
    dataset = source.registry.dataset(name)
    if split not in dataset.split_names:
        return None
    return open_split(dataset, split, source.root, source.cache / MANIFESTS)


# Small pictures inside the page: an image, its mask, a map and the map's errors, as data.


SIDE = 160  # pixels, of the longer side
JPEG_QUALITY = 82


def embedded_picture(pixels: np.ndarray, words: str) -> Markup:
    """Return an image element that holds its picture: RGB (h, w, 3) or grey (h, w), uint8.

    words: what is seen, for those who do not see it.
    """
    small = _shrink(pixels)
    if small.ndim == 3:
        small = small[..., ::-1]
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        kind, data = "jpeg", cv2.imencode(".jpg", np.ascontiguousarray(small), options)[1]
    else:
        kind, data = "png", cv2.imencode(".png", small, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    text = base64.b64encode(data.tobytes()).decode()
    source = f"data:image/{kind};base64,{text}"
    height, width = small.shape[:2]
    return tag("img", src=source, alt=words, width=width, height=height)


def read_views(pair: Pair, threshold: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image, RGB (h, w, 3), and its mask, (h, w), uint8; raises DataError."""
    return read_pair(pair, threshold)


def map_views(path: Path, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a map (h, w) at its mask's size and its errors, RGB (h, w, 3); raises DataError."""
    pred = fit(inspect_map(path)[0], (mask.shape[0], mask.shape[1]))
    return pred, error_picture(pred, mask)


def _shrink(pixels: np.ndarray) -> np.ndarray:
    scale = SIDE / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


ALIKE = 0.02  # of a map made again on another machine
MOST_METHODS = 8  # of an image's maps
Maps = dict[int, tuple[StoredRecord, dict[str, Path]]]


@dataclass
class PictureSources:
    """What pictures are made from. source: None for no pictures. maps: folders that a user named.

    embedded: labels of the data sets whose images stand in the page, filled as they are.
    """

    source: TestImages | None
    maps: Mapping[str, Path]
    count: int
    embedded: list[str] = field(default_factory=list)


def dispute_section(
    chapter: ReportTable, scores: TableScores | None, gallery: PictureSources
) -> list[Child]:
    """Return the images that rows disagree on: pictures where image, mask and maps are found."""
    disputed = most_disputed(scores, gallery.count) if scores else []
    if scores is None or not disputed:
        words = "Two rows with scores of the same images are needed."
        return [tag("p", words, class_="soft")]
    words = f"Largest difference in {scores.label} between two rows, means over seeds."
    pictures, why = _pictures(chapter, scores, disputed, gallery)
    if pictures:
        words = [
            words,
            " Below each map its errors: ",
            tag("span", "missed", class_="missed"),
            " in blue, ",
            tag("span", "too much", class_="invented"),
            " in orange.",
        ]
    return [
        tag("p", words, class_="soft"),
        *pictures,
        tag("p", why, class_="soft") if why else None,
        tag(
            "details",
            tag("summary", "Scores of these images"),
            _list(scores, disputed),
            open=not pictures,
        ),
    ]


def _pictures(
    chapter: ReportTable, scores: TableScores, disputed: list[Disputed], gallery: PictureSources
) -> tuple[list[Markup], Child]:
    """Return a grid for each image, and why there are none or fewer than rows."""
    if gallery.source is None:
        return [], "Pictures were left out on request (--no-images)."
    record = next(
        (r for e in chapter.entries for r in e.row.records if r.kind != "score"),
        chapter.entries[0].row.records[0],
    )
    maps: Maps = {}
    names = [one.image for one in disputed]
    for place, row in enumerate(scores.rows):
        found = find_maps(chapter, row.entry, names, gallery.maps)
        if found:
            maps[place] = found
    wanting = [row.entry.label for place, row in enumerate(scores.rows) if place not in maps]
    why = _how_to(wanting) if wanting else None
    if not maps:
        return [], why
    try:
        pairs = find_test_images(gallery.source, record, chapter.test)
    except BenchError as error:
        return [], f"No pictures: {error}."
    protocol = PROTOCOLS.get(chapter.group.context.protocol)
    if protocol and protocol.hash != chapter.group.context.protocol_hash:
        protocol = None
    grids = [
        _grid(scores, one, maps, pairs[one.image], protocol)
        for one in disputed
        if one.image in pairs
    ]
    facts = test_facts(record, chapter.test)
    if grids and not (facts and facts.generated):  # scenes drawn in code are nobody's
        gallery.embedded.append(chapter.test)
    return grids, why


def _how_to(labels: list[str]) -> list[Child]:
    names = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
    return [
        f"No maps are kept of {names}. A run keeps them with ",
        tag("code", "--set runtime.save_predictions=true"),
        "; for a finished run, ",
        tag("code", "lpmoe-bench predict RUN IMAGES --tile never -o RUN/predictions/SET"),
        " makes them, SET being such as camo-test; those of scored folders are found with ",
        tag("code", "--maps NAME=FOLDER"),
        ".",
    ]


def _grid(
    scores: TableScores, one: Disputed, maps: Maps, pair: Pair, protocol: Protocol | None
) -> Markup:
    """Return image, mask, and map above errors of the rows that have a map, the best first."""
    try:
        image, mask = read_views(pair, protocol.mask_threshold if protocol else THRESHOLD)
    except BenchError as error:
        return tag("p", str(error), class_="soft")
    cells = [
        _cell("image", embedded_picture(image, f"image {one.image}")),
        _cell("mask", embedded_picture(mask, f"mask of {one.image}")),
    ]
    places = {id(row): place for place, row in enumerate(scores.rows)}
    ranked = [row for row, _ in one.scores if places[id(row)] in maps]
    for row in _spread_out([r for r in ranked if one.image in maps[places[id(r)]][1]]):
        stored, files = maps[places[id(row)]]
        cells.append(_map_cell(scores, row, stored, files[one.image], mask, one.image, protocol))
    share = "" if one.share is None else f", foreground {100 * one.share:.1f} %"
    words = [tag("b", one.image), f" spread {one.spread:.{scores.decimals}f}{share}"]
    return tag("figure", tag("figcaption", words), tag("div", cells, class_="cells"), class_="grid")


def _spread_out(ranked: list[ImageScores]) -> list[ImageScores]:
    """Return at most so many rows as a line shows: the best, the worst and some between."""
    if len(ranked) <= MOST_METHODS:
        return ranked
    places = {round(n) for n in np.linspace(0, len(ranked) - 1, MOST_METHODS)}
    return [ranked[place] for place in sorted(places)]


def _map_cell(
    scores: TableScores,
    row: ImageScores,
    stored: StoredRecord,
    path: Path,
    mask: np.ndarray,
    image: str,
    protocol: Protocol | None,
) -> Markup:
    label, seed = row.entry.label, stored.record.seed
    try:
        pred, errors = map_views(path, mask)
    except BenchError as error:
        return _cell(label, tag("span", str(error), class_="soft"), name=row.entry.name)
    value = row.by_seed[row.entry.stored.index(stored)].get(image)
    words = "" if value is None else f"{scores.label} {value:.{scores.decimals}f}"
    words += f"{', ' * bool(words)}seed {seed}" if len(row.entry.stored) > 1 else ""
    words += _doubt(scores, value, pred, mask, protocol)
    both = [
        embedded_picture(pred, f"map of {label}"),
        embedded_picture(errors, f"errors of {label}"),
    ]
    return _cell(label, both, words, row.entry.name)


def _doubt(
    scores: TableScores,
    value: float | None,
    pred: np.ndarray,
    mask: np.ndarray,
    protocol: Protocol | None,
) -> str:
    """Say that a map is not the one whose score stands below it, such as one made from windows."""
    fact = METRICS.get(scores.key)
    if value is None or protocol is None or fact is None or not fact.per_image:
        return ""
    found = quick_score(scores.key, pred, mask, protocol)
    if abs(found - value) <= ALIKE:
        return ""
    return f"; not the map that was scored, this one has {found:.{scores.decimals}f}"


def _cell(title: str, pictures: Child, words: str = "", name: str | None = None) -> Markup:
    head = tag("span", title, class_="title", title=title)
    return tag(
        "div", head, pictures, tag("span", words, class_="soft"), class_="cell", data_name=name
    )


def _list(scores: TableScores, disputed: list[Disputed]) -> Markup:
    first = "down" if scores.higher_is_better else "up"
    heads = [
        Head("Image"),
        Head("Foreground (%)", "down", True),
        Head("Spread", "down", True),
        *(Head(row.entry.label, first, True) for row in scores.rows),
    ]
    rows = []
    for one in disputed:
        of_row = {id(row): value for row, value in one.scores}
        share = None if one.share is None else 100 * one.share
        values = [
            Value(one.image),
            Value("-" if share is None else f"{share:.1f}", share),
            Value(f"{one.spread:.{scores.decimals}f}", one.spread),
        ]
        for row in scores.rows:
            value = of_row[id(row)]
            mark = {one.scores[0][1]: "best", one.scores[-1][1]: "poorest"}.get(value)
            values.append(Value(tag("span", f"{value:.{scores.decimals}f}", class_=mark), value))
        rows.append(({}, values))
    return sortable("Scores of the most disputed images", heads, rows)
