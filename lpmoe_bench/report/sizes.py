"""Scores of single images: where rows disagree, and how scores go with the size of the object."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lpmoe_bench.errors import BenchError
from lpmoe_bench.records.store import ROWS, read_rows
from lpmoe_bench.report.contents import ReportRow, ReportTable
from lpmoe_bench.report.drawing import (
    COLOURS,
    DASHES,
    INK,
    SOFT,
    Box,
    Dot,
    Drawing,
    Line,
    Mark,
    Words,
    draw_levels,
    linear,
    shorten,
)
from lpmoe_bench.scoring.views import image_metric, image_value

# Scores of single images: of each row of a table, the mean over its seeds.


@dataclass(frozen=True)
class ImageScores:
    """A row's scores by image; by_seed: the same of each of its records, in their order."""

    entry: ReportRow
    mean: dict[str, float]
    by_seed: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class TableScores:
    """Images of a test set: scores of the rows that have them, and each image's foreground share.

    key, label: of the score, which may be an image's own where the table's is of the whole set.
    missing: a sentence for each row without such scores.
    """

    key: str
    label: str
    decimals: int
    higher_is_better: bool
    rows: tuple[ImageScores, ...]
    shares: dict[str, float]
    missing: tuple[str, ...]


def read_table_scores(chapter: ReportTable) -> TableScores | None:
    """Read the image scores of a chapter's rows; None for a score that no image has."""
    try:
        metric = image_metric(chapter.score.key)
    except BenchError:
        return None
    shares: dict[str, float] = {}
    rows, missing = [], []
    for entry in chapter.entries:
        try:
            by_seed = [
                _read(chapter, one.folder / ROWS, metric.key, shares) for one in entry.stored
            ]
        except BenchError as error:
            missing.append(f"{entry.label}: {error}")
            continue
        means = _means(by_seed)
        if means:
            rows.append(ImageScores(entry, means, tuple(by_seed)))
        else:
            missing.append(f"{entry.label}: no image has a value of {metric.label}")
    better = metric.higher_is_better
    return TableScores(
        metric.key, metric.label, metric.decimals, better, tuple(rows), shares, tuple(missing)
    )


def _read(chapter: ReportTable, path, key: str, shares: dict[str, float]) -> dict[str, float]:
    values = {}
    for row in read_rows(path):
        if row.get("dataset") != chapter.test or not row.get("image"):
            continue
        value, share = image_value(row, key), row.get("foreground_share")
        if value is not None:
            values[row["image"]] = value
        if share is not None:
            shares[row["image"]] = share
    return values


def _means(by_seed: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return means over seeds of the images that all seeds have."""
    common = set.intersection(*(set(values) for values in by_seed))
    return {
        image: math.fsum(values[image] for values in by_seed) / len(by_seed)
        for image in sorted(common)
    }


# The images on which the rows of a table disagree most: the largest spread of their scores.


@dataclass(frozen=True)
class Disputed:
    """An image and its scores by row, the best first; spread: best less worst."""

    image: str
    spread: float
    share: float | None
    scores: tuple[tuple[ImageScores, float], ...]


def most_disputed(scores: TableScores, count: int) -> list[Disputed]:
    """Return the images of the largest spreads among those that all rows have; two rows or more."""
    if len(scores.rows) < 2:
        return []
    common = set.intersection(*(set(row.mean) for row in scores.rows))
    found = []
    for image in common:
        ranked = sorted(
            ((row, row.mean[image]) for row in scores.rows),
            key=lambda pair: pair[1],
            reverse=scores.higher_is_better,
        )
        spread = abs(ranked[0][1] - ranked[-1][1])
        found.append(Disputed(image, spread, scores.shares.get(image), tuple(ranked)))
    found.sort(key=lambda one: (-one.spread, one.image))
    return found[:count]


# A plot of score against foreground share: a line a row, the best ones in colour.


# Score against the size of the object: means over images of like foreground share.


EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)  # shares of the image


@dataclass(frozen=True)
class Sizes:
    """Means and counts of each row in each bin of foreground shares, empty bins left out.

    rows: (row, means), None where it has no image of a bin. counts: of images by bin, of all rows.
    """

    bins: tuple[str, ...]
    counts: tuple[int, ...]
    rows: tuple[tuple[ImageScores, tuple[float | None, ...], tuple[int, ...]], ...]


def by_size(scores: TableScores) -> Sizes:
    """Bin a chapter's images; a share on an edge belongs to the bin below."""
    scored = {image for row in scores.rows for image in row.mean}
    bin_of = {i: _bin(share) for i, share in scores.shares.items() if i in scored}
    used = sorted(set(bin_of.values()))
    rows = []
    for row in scores.rows:
        inside: dict[int, list[float]] = {number: [] for number in used}
        for image, value in row.mean.items():
            if image in bin_of:
                inside[bin_of[image]].append(value)
        means = tuple(math.fsum(v) / len(v) if v else None for v in inside.values())
        rows.append((row, means, tuple(len(v) for v in inside.values())))
    counts = [list(bin_of.values()).count(number) for number in used]
    return Sizes(tuple(map(_label, used)), tuple(counts), tuple(rows))


def _bin(share: float) -> int:
    return next((n for n, edge in enumerate(EDGES[1:]) if share <= edge), len(EDGES) - 2)


def _label(number: int) -> str:
    low, high = (f"{100 * edge:g}" for edge in EDGES[number : number + 2])
    if number == 0:
        return f"to {high} %"
    return f"above {low} %" if number == len(EDGES) - 2 else f"{low}-{high} %"


WIDTH, HEIGHT = 760.0, 330.0
AREA = Box(52, 34, 560, HEIGHT - 58)
GREY, LINE = "#c3c9d1", 16.0
FEW = 5  # images, below which a mean is drawn hollow
NAMES = WIDTH - AREA.right - 44  # pixels for a name at the right


def draw_sizes(chapter: ReportTable, scores: TableScores, sizes: Sizes) -> Drawing:
    """Draw binned means; of many rows only as many are coloured as there are colours."""
    values = [mean for _, means, _ in sizes.rows for mean in means if mean is not None]
    y = linear(values, AREA.bottom - 6, AREA.top + 6)
    arrow = "↑" if scores.higher_is_better else "↓"
    drawing = Drawing(WIDTH, HEIGHT, f"{scores.label} on {chapter.test} by foreground share")
    draw_levels(drawing, AREA, y, f"{scores.label} {arrow}")
    step = (AREA.right - AREA.left) / len(sizes.bins)
    xs = [AREA.left + step * (number + 0.5) for number in range(len(sizes.bins))]
    for x, label, count in zip(xs, sizes.bins, sizes.counts, strict=True):
        drawing.shapes.append(Words(x, AREA.bottom + 16, label, 10.5, "middle", INK))
        drawing.shapes.append(Words(x, AREA.bottom + 30, f"n = {count}", 10, "middle", SOFT))
    below = (AREA.left + AREA.right) / 2
    text = f"foreground share of the image, number of images (hollow: fewer than {FEW})"
    drawing.shapes.append(Words(below, HEIGHT - 8, text, 11.5, "middle"))
    ranked = _ranked(chapter, sizes)
    for place in reversed(range(len(ranked))):
        row, means, counts = sizes.rows[ranked[place]]
        colour = COLOURS[place] if place < len(COLOURS) else GREY
        points = [(x, y.at(m)) for x, m in zip(xs, means, strict=True) if m is not None]
        shapes = [Line(tuple(points), colour, 2 if colour != GREY else 1, _dash(place))]
        fills = [colour if n >= FEW else "#ffffff" for n in counts if n]
        if colour != GREY:
            shapes += [Dot(*at, 2.8, fill, colour) for at, fill in zip(points, fills, strict=True)]
        words = ", ".join(
            f"{label} {mean:.{scores.decimals}f} (n = {count})"
            for label, mean, count in zip(sizes.bins, means, counts, strict=True)
            if mean is not None
        )
        drawing.shapes.append(Mark(tuple(shapes), f"{row.entry.label}: {words}", row.entry.name))
    _legend(drawing, [sizes.rows[number][0].entry.label for number in ranked])
    return drawing


def _ranked(chapter: ReportTable, sizes: Sizes) -> list[int]:
    """Return the places of the rows, the best score first."""
    sign = -1 if chapter.score.higher_is_better else 1

    def key(number: int) -> tuple[bool, float]:
        mean = chapter.mean(sizes.rows[number][0].entry)
        return mean is None, sign * (mean or 0.0)

    return sorted(range(len(sizes.rows)), key=key)


def _dash(place: int) -> str:
    return DASHES[place % len(DASHES)] if place < len(COLOURS) else ""


def _legend(drawing: Drawing, labels: list[str]) -> None:
    y = AREA.top + 8
    for place, label in enumerate(labels[: len(COLOURS)]):
        left = AREA.right + 10
        line = ((left, y - 4), (left + 26, y - 4))
        drawing.shapes.append(Line(line, COLOURS[place], 2.2, _dash(place)))
        drawing.shapes.append(Words(left + 32, y, shorten(label, 11, NAMES), 11))
        y += LINE
    if len(labels) > len(COLOURS):
        drawing.shapes.append(
            Words(
                AREA.right + 10,
                y + 2,
                f"grey: {len(labels) - len(COLOURS)} others",
                11,
                colour=SOFT,
            )
        )
