"""Scorer: scores of a data set from its pairs, with one row for each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lpmoe_bench.errors import DataError

from .protocols import Protocol
from .reference import PairScores, score_pair


@dataclass(frozen=True)
class ScoreResult:
    """Scores of one data set, and where they come from.

    scores: {metric: value}, in the protocol's order. rows: one an image, sorted by name: dataset,
    image, every metric, foreground_share, flags (joined by ;). The rows' metrics average to the
    scores, bit for bit; they are None for images that the protocol leaves out. counts: images,
    scored images, and how many carry each flag.
    """

    scores: dict[str, float]
    rows: list[dict[str, Any]]
    counts: dict[str, int]


class Scorer:
    """Collects the pairs of one data set, in any order; the result does not depend on it."""

    def __init__(self, protocol: Protocol):
        self.protocol = protocol
        self.dataset = ""
        self._pairs: dict[str, PairScores] = {}

    def add(self, name: str, pred: np.ndarray, mask: np.ndarray, dataset: str = "") -> None:
        """Score one image: map and mask as uint8 (h, w) of the mask's own size, 0..255.

        Raises DataError, naming the image, for a pair that cannot be scored or a name seen before.
        """
        if name in self._pairs:
            raise DataError(f"image {name} was scored twice; names in a data set must differ")
        assert not self._pairs or dataset == self.dataset, "one Scorer scores one data set"
        try:
            pair = score_pair(pred, mask, self.protocol)
        except DataError as error:
            raise DataError(f"image {name} cannot be scored: {error}") from None
        bad = [key for key, value in pair.values.items() if not np.isfinite(value).all()]
        if bad:
            raise DataError(f"image {name} has no finite {', '.join(bad)}; look at its mask")
        self.dataset = dataset
        self._pairs[name] = pair

    def result(self) -> ScoreResult:
        """Return the scores of all pairs so far; raises DataError when none counts."""
        pairs = dict(sorted(self._pairs.items()))
        scored = {name: pair for name, pair in pairs.items() if self._counts(pair)}
        if not scored:
            found = "no image was scored"
            if pairs:
                found = (
                    f"all {len(pairs)} masks are empty, which protocol {self.protocol.name} skips"
                )
            raise DataError(f"{self.dataset or 'the data set'} has no score: {found}")
        values = self._settle(list(scored.values()))
        metrics = self.protocol.metrics
        columns = {key: [row[key] for row in values] for key in metrics}
        settled = dict(zip(scored, values, strict=True))
        blank = dict.fromkeys(metrics)
        rows = [self._row(name, pair, settled.get(name, blank)) for name, pair in pairs.items()]
        scores = {key: _mean(column) for key, column in columns.items()}
        return ScoreResult(scores, rows, _count(pairs, scored))

    def _counts(self, pair: PairScores) -> bool:
        return self.protocol.empty_masks == "score" or "empty_mask" not in pair.flags

    def _settle(self, pairs: Sequence[PairScores]) -> list[dict[str, float]]:
        """Replace curves by their values at the level where the mean curve is highest."""
        levels = {
            key: _best_level([pair.values[key] for pair in pairs])
            for key, value in pairs[0].values.items()
            if isinstance(value, np.ndarray)
        }
        return [
            {
                key: float(value[levels[key]]) if isinstance(value, np.ndarray) else value
                for key, value in pair.values.items()
            }
            for pair in pairs
        ]

    def _row(self, name: str, pair: PairScores, values: dict) -> dict[str, Any]:
        facts = {"foreground_share": pair.foreground_share, "flags": ";".join(pair.flags)}
        return {"dataset": self.dataset, "image": name, **values, **facts}


def _best_level(curves: Sequence[Any]) -> int:
    mean = [_mean(column) for column in np.stack(curves).T.tolist()]
    return mean.index(max(mean))


def _mean(values: Sequence[float]) -> float:
    # fsum rounds once, so the order of the images cannot move a bit.
    return math.fsum(values) / len(values)


def _count(pairs: dict[str, PairScores], scored: dict[str, PairScores]) -> dict[str, int]:
    flags = [flag for pair in pairs.values() for flag in pair.flags]
    return {
        "images": len(pairs),
        "scored": len(scored),
        "empty_masks": flags.count("empty_mask"),
        "full_masks": flags.count("full_mask"),
        "constant_preds": flags.count("constant_pred"),
        "s_undefined": flags.count("s_undefined"),
    }
