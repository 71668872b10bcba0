"""Scores of several seeds as one matrix, a row a seed and a column an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.facts import METRICS, OF_COUNTS
from lpmoe_bench.records.store import ROWS, StoredRecord, read_rows

COUNTS = ("tp", "fp", "fn", "tn")


class Samples(NamedTuple):
    """One metric on one test set: values, (seeds, images), whose row means are the scores.

    Metrics that only a data set has come as jackknife pseudo-values of each image where the rows
    carry pixel counts; else `images` is empty and `values` has one column, the score.
    """

    seeds: list[int]
    images: list[str]
    values: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds, n - 1; None for a single one."""
        return float(self.values.mean(axis=1).std(ddof=1)) if len(self.seeds) > 1 else None


def samples(stored: Sequence[StoredRecord], test: str, metric: str) -> Samples:
    """Read one metric of several seeds of one method; raises DataError where images differ."""
    ordered = sorted(stored, key=lambda one: one.record.seed or 0)
    seeds = [one.record.seed or 0 for one in ordered]
    found = [_of_record(one, test, metric) for one in ordered]
    images = sorted(found[0])
    for one, values in zip(ordered, found, strict=True):
        if sorted(values) != images:
            raise DataError(
                f"{one.folder} has rows of {len(values)} scored images of {test}, "
                f"{ordered[0].folder} of {len(images)}, or of others; score both on the same set"
            )
    matrix = np.array([[values[image] for image in images] for values in found], dtype=np.float64)
    return Samples(seeds, [] if images == [""] else images, matrix)


def _of_record(stored: StoredRecord, test: str, metric: str) -> dict[str, float]:
    """Return {image: value}, or {"": score} where no image has a share in the score."""
    score = stored.record.scores.get(test, {}).get(metric)
    if score is None:
        raise DataError(f"{stored.folder} has no {metric} on {test}; compare another metric")
    fact = METRICS.get(metric)
    rows: list[dict[str, Any]] = []
    if (stored.folder / ROWS).exists():
        rows = [row for row in read_rows(stored.folder / ROWS) if row["dataset"] == test]
    scored = [row for row in rows if row.get(metric) is not None]
    if scored:
        return {row["image"]: row[metric] for row in scored}
    counted = [row for row in rows if all(row.get(key) is not None for key in COUNTS)]
    if fact and not fact.per_image and len(counted) > 1:
        values = _pseudo_values(counted, metric)
        if values is not None:
            shift = score - float(np.mean(values))
            names = [row["image"] for row in counted]
            return dict(zip(names, (values + shift).tolist(), strict=True))
    return {"": score}


def _pseudo_values(rows: Sequence[dict[str, Any]], metric: str) -> np.ndarray | None:
    """Return n * whole - (n - 1) * without image i, for each i: shares of a ratio of counts."""
    from lpmoe_bench.metrics.formulas import Counts

    if metric not in OF_COUNTS:
        return None
    table = np.array([[row[key] for key in COUNTS] for row in rows], dtype=np.float64)
    total, n = table.sum(axis=0), len(rows)
    whole = OF_COUNTS[metric](Counts(*total.tolist()))
    without = OF_COUNTS[metric](Counts(*(total - table).T))
    return n * whole - (n - 1) * np.asarray(without)
