"""Scores of single images: of each row of a table, the mean over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lpmoe_bench.errors import BenchError
from lpmoe_bench.records.store import ROWS, read_rows
from lpmoe_bench.report.contents import Chapter, Entry
from lpmoe_bench.scoring.views import image_metric, image_value


@dataclass(frozen=True)
class ImageScores:
    """A row's scores by image; by_seed: the same of each of its records, in their order."""

    entry: Entry
    mean: dict[str, float]
    by_seed: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class ChapterScores:
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


def read_chapter(chapter: Chapter) -> ChapterScores | None:
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
    return ChapterScores(
        metric.key, metric.label, metric.decimals, better, tuple(rows), shares, tuple(missing)
    )


def _read(chapter: Chapter, path, key: str, shares: dict[str, float]) -> dict[str, float]:
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


def most_disputed(scores: ChapterScores, count: int) -> list[Disputed]:
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
