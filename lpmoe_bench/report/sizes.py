"""Score against the size of the object: means over images of like foreground share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lpmoe_bench.report.image_scores import ChapterScores, ImageScores

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
