"""The most disputed images on the page: as pictures where they can be had, else as a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lpmoe_bench.data.images import THRESHOLD
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.errors import BenchError
from lpmoe_bench.metrics.engine import quick_score
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS, Protocol
from lpmoe_bench.records.context import test_facts
from lpmoe_bench.records.store import StoredRecord
from lpmoe_bench.report.cells import map_views, picture, read_views
from lpmoe_bench.report.disagreement import Disputed, most_disputed
from lpmoe_bench.report.image_scores import ChapterScores, ImageScores
from lpmoe_bench.report.images import Source, find_test_images
from lpmoe_bench.report.maps import find_maps
from lpmoe_bench.report.markup import Child, Markup, tag
from lpmoe_bench.report.material import Chapter
from lpmoe_bench.report.tables import Head, Value, sortable

ALIKE = 0.02  # of a map made again on another machine
MOST_METHODS = 8  # of an image's maps
Maps = dict[int, tuple[StoredRecord, dict[str, Path]]]


@dataclass
class Gallery:
    """What pictures are made from. source: None for no pictures. maps: folders that a user named.

    embedded: labels of the data sets whose images stand in the page, filled as they are.
    """

    source: Source | None
    maps: Mapping[str, Path]
    count: int
    embedded: list[str] = field(default_factory=list)


def dispute_section(
    chapter: Chapter, scores: ChapterScores | None, gallery: Gallery
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
    chapter: Chapter, scores: ChapterScores, disputed: list[Disputed], gallery: Gallery
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
    scores: ChapterScores, one: Disputed, maps: Maps, pair: Pair, protocol: Protocol | None
) -> Markup:
    """Return image, mask, and map above errors of the rows that have a map, the best first."""
    try:
        image, mask = read_views(pair, protocol.mask_threshold if protocol else THRESHOLD)
    except BenchError as error:
        return tag("p", str(error), class_="soft")
    cells = [
        _cell("image", picture(image, f"image {one.image}")),
        _cell("mask", picture(mask, f"mask of {one.image}")),
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
    scores: ChapterScores,
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
    both = [picture(pred, f"map of {label}"), picture(errors, f"errors of {label}")]
    return _cell(label, both, words, row.entry.name)


def _doubt(
    scores: ChapterScores,
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


def _list(scores: ChapterScores, disputed: list[Disputed]) -> Markup:
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
