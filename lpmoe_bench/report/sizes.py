"""A plot of score against foreground share: a line a row, the best ones in colour."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lpmoe_bench.report.contents import Chapter
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
from lpmoe_bench.report.image_scores import ChapterScores, ImageScores

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


def by_size(scores: ChapterScores) -> Sizes:
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


def draw_sizes(chapter: Chapter, scores: ChapterScores, sizes: Sizes) -> Drawing:
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


def _ranked(chapter: Chapter, sizes: Sizes) -> list[int]:
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
