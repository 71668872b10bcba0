"""Scorer: scores of a data set from its pairs, with one row for each image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics import engine
from lpmoe_bench.metrics.base import MASK_FLAGS, ScoreResult
from lpmoe_bench.metrics.engine import PairScores
from lpmoe_bench.metrics.extra import EXTRA, extra_key
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.formulas import sum_counts
from lpmoe_bench.metrics.maps import PreparedMask
from lpmoe_bench.metrics.protocols import Mode, Protocol, mode_of

PLURAL = ("empty_mask", "full_mask", "constant_pred", "single_pixel")  # so named where counted


class Scorer:
    """Collects the pairs of one data set, in any order; the result does not depend on it.

    Nor does it depend on how the pairs are divided among several scorers that are merged at the
    end, such as one a process: a scorer pickles, and keeps scores and curves but no map.

    Args:
        protocol: the rules.
        mode: by default the one that the protocol's thresholds ask for.
        extra: keys of metrics to score as well: extra ones, or those of other protocols.
        curves: keep the mean curves.

    Raises:
        UsageError: An extra metric is unknown.
    """

    def __init__(
        self,
        protocol: Protocol,
        mode: Mode | None = None,
        extra: Sequence[str] = (),
        curves: bool = False,
    ):
        self.mode = mode or mode_of(protocol)
        keys = tuple(dict.fromkeys((*protocol.extra, *map(extra_key, extra))))
        # What other protocols print is scored as this one's own, behind them.
        more = tuple(key for key in keys if key in METRICS and key not in protocol.metrics)
        self.protocol = replace(protocol, metrics=(*protocol.metrics, *more))
        self.extra = tuple(key for key in keys if key in EXTRA)
        self.curves = curves
        self.dataset = ""
        self._pairs: dict[str, PairScores] = {}

    def add(
        self,
        name: str,
        pred: np.ndarray,
        mask: np.ndarray | PreparedMask,
        dataset: str = "",
        image: np.ndarray | None = None,
    ) -> None:
        """Score one image.

        Args:
            name: of the image, once in a data set.
            pred: the map (h, w) of the mask's size: uint8 on 0 to 255, uint16 on 0 to 65535, or
                float in [0, 1].
            mask: uint8 (h, w) on 0 to 255, or prepared, to be shared by the maps of several
                methods.
            dataset: the same for all images of a scorer.
            image: RGB uint8 (h, w, 3), which some extra metrics need.

        Raises:
            DataError: The pair cannot be scored, or the name was seen before; the image is named.
        """
        if name in self._pairs:
            raise DataError(f"image {name} was scored twice; names in a data set must differ")
        assert not self._pairs or dataset == self.dataset, "one Scorer scores one data set"
        try:
            pair = engine.score_pair(
                pred, mask, self.protocol, self.mode, self.extra, self.curves, image
            )
        except DataError as error:
            raise DataError(f"image {name} cannot be scored: {error}") from None
        bad = [key for key, value in pair.values.items() if not _is_finite(value)]
        if bad and self.mode.empty_quadrant != "nan":
            raise DataError(f"image {name} has no finite {', '.join(bad)}; look at its mask")
        self.dataset = dataset
        self._pairs[name] = pair

    def merge(self, other: Scorer) -> None:
        """Take over the pairs of another scorer of the same data set and the same settings.

        Args:
            other: the scorer, which stays as it is.

        Raises:
            DataError: Both have scored an image, which is named.
        """
        assert self._settings == other._settings, "scorers must agree"
        twice = sorted(self._pairs.keys() & other._pairs.keys())
        if twice:
            raise DataError(f"image {twice[0]} was scored twice; names in a data set must differ")
        assert not (self._pairs and other._pairs) or self.dataset == other.dataset
        self.dataset = self.dataset or other.dataset
        self._pairs |= other._pairs

    @property
    def _settings(self) -> tuple[Any, ...]:
        return self.protocol, self.mode, self.extra, self.curves

    def result(self) -> ScoreResult:
        """Return the scores of all pairs so far.

        Raises:
            DataError: No image counts.
        """
        # By name, so that rows and sums do not depend on which process scored what.
        pairs = dict(sorted(self._pairs.items()))
        scored = {name: pair for name, pair in pairs.items() if self._counts(pair)}
        if not scored:
            found = "no image was scored"
            if pairs:
                found = (
                    f"all {len(pairs)} masks are empty, which protocol {self.protocol.name} skips"
                )
            raise DataError(f"{self.dataset or 'the data set'} has no score: {found}")
        settled = dict(zip(scored, self._settle(list(scored.values())), strict=True))
        rows = [self._row(name, pair, settled.get(name)) for name, pair in pairs.items()]
        of_set = engine.dataset_scores(list(scored.values()), self.protocol)
        scores: dict[str, float | None] = {
            # What the counts or curves of the whole set give wins over a mean of images.
            key: of_set[key] if key in of_set else _mean([row[key] for row in settled.values()])
            for key in self.protocol.metrics
        }
        counts = _count(pairs, scored)
        for key in self.extra:
            values = [pair.extra[key] for pair in scored.values()]
            defined = [value for value in values if value is not None]
            scores[key] = _mean(defined) if defined else None
            counts[f"{key}_undefined"] = len(values) - len(defined)
        pixels = sum_counts([pair.counts for pair in scored.values()])
        curves = [pair.curves for pair in scored.values() if pair.curves is not None]
        return ScoreResult(
            scores, rows, counts, pixels, engine.mean_curves(curves) if curves else None
        )

    def _counts(self, pair: PairScores) -> bool:
        return self.protocol.counts_mask("empty_mask" not in pair.flags)

    def _settle(self, pairs: Sequence[PairScores]) -> list[dict[str, float]]:
        """Replace curves by their values at the level where the mean curve is highest."""
        curves = {key for key, value in pairs[0].values.items() if np.ndim(value) == 1}
        # One level for all images: a maximum of each image would choose a threshold by the mask.
        means = {key: engine.mean_curve([pair.values[key] for pair in pairs]) for key in curves}
        levels = {key: int(np.argmax(mean)) for key, mean in means.items()}
        return [
            {
                key: float(np.asarray(value)[levels[key]]) if key in curves else float(value)
                for key, value in pair.values.items()
                if np.ndim(value) < 2
            }
            for pair in pairs
        ]

    def _row(self, name: str, pair: PairScores, settled: dict | None) -> dict[str, Any]:
        values: dict[str, Any] = dict.fromkeys(self.protocol.metrics) | (settled or {})
        if any(
            METRICS[key].of_counts for key in self.protocol.metrics
        ):  # of which the data set's scores can be made again
            values |= pair.counts._asdict()
        values |= dict.fromkeys(self.extra) | pair.extra
        facts = {"foreground_share": pair.foreground_share, "flags": ";".join(pair.flags)}
        return {"dataset": self.dataset, "image": name, **values, **facts}


def _is_finite(value: float | np.ndarray) -> bool:
    if isinstance(value, float):  # as most are, and numpy is slow for one number
        return math.isfinite(value)
    return bool(np.isfinite(value).all())


def _mean(values: Sequence[float]) -> float:
    # fsum rounds once, so the order of the images cannot move a bit.
    return math.fsum(values) / len(values)


def _count(pairs: dict[str, PairScores], scored: dict[str, PairScores]) -> dict[str, int]:
    flags = Counter(flag for pair in pairs.values() for flag in pair.flags)
    found = {f"{flag}s" if flag in PLURAL else flag: flags[flag] for flag in MASK_FLAGS}
    if not found["ignored_pixels"]:  # said where there are some: most sets know no such thing
        del found["ignored_pixels"]
    counts = {"images": len(pairs), "scored": len(scored)} | found
    # Empty masks are there or not: only where they are, maps can be wrong about them.
    if empty := [pair for pair in pairs.values() if "empty_mask" in pair.flags]:
        counts["empty_false_alarms"] = sum(pair.counts.tp + pair.counts.fp > 0 for pair in empty)
    return counts
