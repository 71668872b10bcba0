"""The images on which the rows of a table disagree most: the largest spread of their scores."""

from __future__ import annotations

from dataclasses import dataclass

from lpmoe_bench.report.image_scores import ChapterScores, ImageScores


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
