"""Scores of single images: where methods disagree, and how scores go with the object's size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.errors import BenchError
from lpmoe_bench.metrics.facts import Metric
from lpmoe_bench.records.store import ROWS, read_rows
from lpmoe_bench.report.contents import ReportRow, ReportTable
from lpmoe_bench.scoring.views import image_metric, image_value

EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)  # of the bins: shares of the image


@dataclass(frozen=True)
class ImageScores:
    """A row's scores by image; by_seed: the same of each of its records, in their order."""

    row: ReportRow
    mean: dict[str, float]
    by_seed: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class TableScores:
    """Images of a test set: scores of the rows that have them, and each image's foreground share.

    metric: may be an image's own where the table's score is of the whole set. missing: a sentence
    for each row without such scores.
    """

    metric: Metric
    rows: tuple[ImageScores, ...]
    shares: dict[str, float]
    missing: tuple[str, ...]

    def shown(self, value: float) -> str:
        """Write a score with the metric's decimals."""
        return f"{value:.{self.metric.decimals}f}"


def read_table_scores(table: ReportTable) -> TableScores | None:
    """Read the image scores of a table's rows; None for a score that no image has."""
    try:
        metric = image_metric(table.score.key)
    except BenchError:
        return None
    shares: dict[str, float] = {}
    rows, missing = [], []
    for row in table.rows:
        try:
            by_seed = [_read(one.folder / ROWS, table.test, metric, shares) for one in row.stored]
        except BenchError as error:
            missing.append(f"{row.label}: {error}")
            continue
        means = _means(by_seed)
        if means:
            rows.append(ImageScores(row, means, tuple(by_seed)))
        else:
            missing.append(f"{row.label}: no image has a value of {metric.label}")
    return TableScores(metric, tuple(rows), shares, tuple(missing))


def _read(path: Path, test: str, metric: Metric, shares: dict[str, float]) -> dict[str, float]:
    values = {}
    for row in read_rows(path):
        if row.get("dataset") != test or not row.get("image"):
            continue
        value, share = image_value(row, metric.key), row.get("foreground_share")
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
    spreads = {}
    for image in common:
        values = [row.mean[image] for row in scores.rows]
        spreads[image] = max(values) - min(values)
    chosen = sorted(common, key=lambda image: (-spreads[image], image))[:count]
    return [
        Disputed(image, spreads[image], scores.shares.get(image), _ranked(scores, image))
        for image in chosen
    ]


def _ranked(scores: TableScores, image: str) -> tuple[tuple[ImageScores, float], ...]:
    pairs = ((row, row.mean[image]) for row in scores.rows)
    falling = scores.metric.higher_is_better
    return tuple(sorted(pairs, key=lambda pair: pair[1], reverse=falling))


@dataclass(frozen=True)
class Sizes:
    """Means and counts of each row in each bin of foreground shares, empty bins left out.

    counts: of images by bin, of all rows together. rows: (row, means, counts), a mean of None where
    the row has no image of a bin.
    """

    bins: tuple[str, ...]
    counts: tuple[int, ...]
    rows: tuple[tuple[ReportRow, tuple[float | None, ...], tuple[int, ...]], ...]


def by_size(scores: TableScores) -> Sizes:
    """Bin a table's images by foreground share; a share on an edge belongs to the bin below."""
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
        rows.append((row.row, means, tuple(len(v) for v in inside.values())))
    counts = [list(bin_of.values()).count(number) for number in used]
    return Sizes(tuple(map(_label, used)), tuple(counts), tuple(rows))


def _bin(share: float) -> int:
    return next((n for n, edge in enumerate(EDGES[1:]) if share <= edge), len(EDGES) - 2)


def _label(number: int) -> str:
    low, high = (f"{100 * edge:g}" for edge in EDGES[number : number + 2])
    if number == 0:
        return f"to {high} %"
    return f"above {low} %" if number == len(EDGES) - 2 else f"{low}-{high} %"
