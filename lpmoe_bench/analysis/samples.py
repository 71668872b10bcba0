"""Scores of several seeds as one matrix: a row a seed, a column an image or a group of images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.row_scores import Parts, RowScore
from lpmoe_bench.records.store import RECORD, ROWS, ImageRows, StoredRecord, image_rows

TOLERANCE = 1e-6  # between a score and the mean of its rows


class Samples(NamedTuple):
    """One metric on one test set: values, (seeds, units), whose row means are the scores.

    A unit is an image, or a group of images that vary together, such as a video. Metrics that only
    a data set has come as jackknife pseudo-values of each unit where the rows tell them, see
    `metrics.row_scores`; else, and where one unit alone tells of a class, `images` is empty and
    `values` has one column, the score. groups: the units where they are
    no images; sizes: how many images each has.
    """

    seeds: list[int]
    images: list[str]
    values: np.ndarray
    groups: list[str]
    sizes: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds, n - 1; None for a single one."""
        return float(self.values.mean(axis=1).std(ddof=1)) if len(self.seeds) > 1 else None

    def of(self, seeds: Sequence[int]) -> Samples:
        """Return the values of these seeds, in their order."""
        if list(seeds) == self.seeds:
            return self
        places = [self.seeds.index(seed) for seed in seeds]
        return self._replace(seeds=list(seeds), values=self.values[places])

    def grouped(self, groups: Mapping[str, str]) -> Samples:
        """Return groups of images as the columns, one share of the score each.

        Args:
            groups: {image: group}; an image without a group stands alone.
        """
        names, places = _units(self.images, groups)
        values = _group_shares(self.values, places, len(names))
        return self._replace(values=values, groups=names, sizes=_sizes(places))


class SeedRows:
    """A method's seeds on one test set; their rows are read once for all metrics."""

    def __init__(self, stored: Sequence[StoredRecord], test: str):
        self.stored = sorted(stored, key=lambda one: one.record.seed or 0)
        self.test = test

    @cached_property
    def rows(self) -> list[ImageRows | None]:
        """The rows of each seed, None where a record has none."""
        return [image_rows(one.folder, self.test) for one in self.stored]

    def of(self, seeds: Sequence[int]) -> SeedRows:
        """Return the rows of these seeds; of all where there are none."""
        if not seeds or all(one.record.seed in seeds for one in self.stored):
            return self
        return SeedRows([one for one in self.stored if one.record.seed in seeds], self.test)

    def samples(self, metric: str, groups: Mapping[str, str] | None = None) -> Samples:
        """Return one metric of all seeds.

        Args:
            metric: its key.
            groups: {image: group} of images that vary together; one without a group stands alone.

        Returns:
            Values whose columns are images, or groups where some are given.

        Raises:
            DataError: a record lacks the metric, contradicts its rows, or has rows of other images.
        """
        # Of one protocol and of the same classes, so that one rule reads the rows of all.
        rule = self.stored[0].record.row_score(metric)
        found = [self._of_seed(k, metric, rule) for k in range(len(self.stored))]
        # By name, so that columns of two methods are the same images in the same order.
        images = sorted(found[0])
        for one, values in zip(self.stored, found, strict=True):
            if values.keys() != found[0].keys():
                for folder, own in zip((x.folder for x in self.stored), found, strict=True):
                    if "" in own:
                        raise DataError(
                            f"{folder} has no {metric} of single images of {self.test}: its "
                            f"{ROWS} is missing, or lacks it; restore the file or run again"
                        )
                raise DataError(
                    f"{one.folder} has rows of {len(values)} scored images of {self.test}, "
                    f"{self.stored[0].folder} of {len(images)}, or of others; score both on the "
                    f"same set"
                )
        seeds = [one.record.seed or 0 for one in self.stored]
        rows = [[own[image] for image in images] for own in found]
        if images == [""]:
            return Samples(seeds, [], np.array(rows, dtype=np.float64), [])
        scores = [float(one.record.scores[self.test][metric] or 0.0) for one in self.stored]
        if rule is not None:
            names, places = _units(images, groups or {})
            parts = [np.array(own) for own in rows]
            values = [
                _pseudo_values(rule, own, places, len(names), score)
                for own, score in zip(parts, scores, strict=True)
            ]
            if not np.isfinite(values).all():  # without some unit there is no such score
                return Samples(seeds, [], np.array(scores)[:, None], [])
            own = (names, _sizes(places)) if groups else ([], ())
            return Samples(seeds, images, np.array(values), *own)
        by_image = Samples(seeds, images, np.array(rows, dtype=np.float64), [])
        return by_image.grouped(groups) if groups else by_image

    def _of_seed(self, place: int, metric: str, rule: RowScore | None) -> dict[str, Any]:
        """Return {image: value}, or {image: its part} of a score that `rule` makes of rows, or
        {"": score} where no image has a share in the score."""
        folder, record = self.stored[place]
        score = record.scores.get(self.test, {}).get(metric)
        if score is None:
            raise DataError(f"{folder} has no {metric} on {self.test}; compare another metric")
        rows = self.rows[place]
        if rows is None:
            return {"": score}
        pairs = zip(rows.images, rows.numbers(metric), strict=True)
        if found := {name: value for name, value in pairs if value is not None}:
            self._check(place, metric, score, math.fsum(found.values()) / len(found))
            return found
        if rule is None:
            return {"": score}
        parts = _read(rows, rule)
        if len(parts.of_image) < 2:
            return {"": score}
        if rule.exact:
            self._check(place, metric, score, rule.of_all(parts.of_image))
        names = np.array(rows.images, object)[parts.counted].tolist()
        return dict(zip(names, parts.of_image, strict=True))

    def _check(self, place: int, metric: str, score: float, of_rows: float) -> None:
        """Raise DataError where a record's score is another than its rows give."""
        if not abs(of_rows - score) <= TOLERANCE * max(1.0, abs(score)):
            raise DataError(
                f"{self.stored[place].folder} contradicts itself: {metric} on {self.test} is "
                f"{score:.6f} in {RECORD} and {of_rows:.6f} in {ROWS}; restore both files, or run "
                f"again"
            )


def _read(rows: ImageRows, rule: RowScore) -> Parts:
    """Return the parts of a test set's images; raises DataError for a cell that is none."""
    try:
        return rule.read([rows.texts(name) for name in rule.columns])
    except ValueError as error:
        raise DataError(f"{rows.path} is no table of numbers ({error})") from None


def _units(images: Sequence[str], groups: Mapping[str, str]) -> tuple[list[str], np.ndarray]:
    """Return the names of units, and for each image the place of its own."""
    own = [(groups.get(image, ""), "" if groups.get(image) else image) for image in images]
    places = {unit: place for place, unit in enumerate(dict.fromkeys(own))}
    names = [group or image for group, image in places]
    return names, np.array([places[unit] for unit in own])


def _sizes(places: np.ndarray) -> tuple[int, ...]:
    return tuple(np.bincount(places).tolist())


def _group_shares(values: np.ndarray, places: np.ndarray, units: int) -> np.ndarray:
    """Return the shares of units in means over images, (seeds, units), whose mean they keep.

    A group of n images counts n times, which is the linearised mean of a sample of clusters
    (Cochran, Sampling techniques, 1977, chapter 9A): mean + n units / images (group's mean - mean).
    """
    if units == len(places):
        return values
    # (images, units), 1 where an image is of a unit: values @ member are the sums of each unit.
    member = np.zeros((len(places), units))
    member[np.arange(len(places)), places] = 1
    sizes, mean = member.sum(axis=0), values.mean(axis=1, keepdims=True)
    return mean + (values @ member - mean * sizes) * units / len(places)


def _pseudo_values(
    rule: RowScore, parts: np.ndarray, places: np.ndarray, units: int, score: float
) -> np.ndarray:
    """Return n * whole - (n - 1) * without unit i, for each i, shifted to have the score as mean:
    shares of a score that is no mean over images."""
    shares = units * rule.of_all(parts) - (units - 1) * rule.leave_out(parts, places, units)
    return shares + (score - float(np.mean(shares)))


def samples(stored: Sequence[StoredRecord], test: str, metric: str) -> Samples:
    """Read one metric of several seeds of one method; raises DataError where images differ."""
    return SeedRows(stored, test).samples(metric)
