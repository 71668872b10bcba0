"""Scores of several seeds as one matrix, and intervals and verdicts for a paired difference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.facts import METRICS, OF_COUNTS
from lpmoe_bench.records.store import RECORD, ROWS, ImageRows, StoredRecord, image_rows

# Scores of several seeds as one matrix, a row a seed and a column an image.


COUNTS = ("tp", "fp", "fn", "tn")
TOLERANCE = 1e-6  # between a score and the mean of its rows


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

    def of(self, seeds: Sequence[int]) -> Samples:
        """Return the values of these seeds, in their order."""
        if list(seeds) == self.seeds:
            return self
        places = [self.seeds.index(seed) for seed in seeds]
        return self._replace(seeds=list(seeds), values=self.values[places])


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

    def samples(self, metric: str) -> Samples:
        """Return one metric of all seeds; raises DataError where it is missing or images differ."""
        found = [self._of_seed(k, metric) for k in range(len(self.stored))]
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
        table = [[values[image] for image in images] for values in found]
        seeds = [one.record.seed or 0 for one in self.stored]
        names = [] if images == [""] else images
        return Samples(seeds, names, np.array(table, dtype=np.float64))

    def _of_seed(self, place: int, metric: str) -> dict[str, float]:
        """Return {image: value}, or {"": score} where no image has a share in the score."""
        folder, record = self.stored[place]
        score = record.scores.get(self.test, {}).get(metric)
        if score is None:
            raise DataError(f"{folder} has no {metric} on {self.test}; compare another metric")
        rows = self.rows[place]
        if rows is None:
            return {"": score}
        pairs = zip(rows.images, rows.numbers(metric), strict=True)
        if found := {name: value for name, value in pairs if value is not None}:
            mean = math.fsum(found.values()) / len(found)
            if abs(mean - score) > TOLERANCE * max(1.0, abs(score)):
                raise DataError(
                    f"{folder} contradicts itself: {metric} on {self.test} is {score:.6f} in "
                    f"{RECORD} and {mean:.6f} in {ROWS}; restore both files, or run again"
                )
            return found
        fact = METRICS.get(metric)
        if fact and not fact.per_image and metric in OF_COUNTS:
            table = zip(*map(rows.numbers, COUNTS), strict=True)
            pairs = zip(rows.images, table, strict=True)
            counted = {name: row for name, row in pairs if None not in row}
            if len(counted) > 1:
                values = _pseudo_values(np.array([*counted.values()], dtype=np.float64), metric)
                shift = score - float(np.mean(values))
                return dict(zip(counted, (values + shift).tolist(), strict=True))
        return {"": score}


def samples(stored: Sequence[StoredRecord], test: str, metric: str) -> Samples:
    """Read one metric of several seeds of one method; raises DataError where images differ."""
    return SeedRows(stored, test).samples(metric)


def _pseudo_values(table: np.ndarray, metric: str) -> np.ndarray:
    """Return n * whole - (n - 1) * without image i, for each i: shares of a ratio of counts."""
    from lpmoe_bench.metrics.formulas import Counts

    total, n = table.sum(axis=0), len(table)
    whole = OF_COUNTS[metric](Counts(*total.tolist()))
    without = OF_COUNTS[metric](Counts(*(total - table).T))
    return n * whole - (n - 1) * np.asarray(without)


# Intervals and verdicts for a paired difference measured over seeds x images.
#
# The difference d of two methods' scores is read as d[s, i] = mean + seed s + image i + rest, all
# but the mean random: another seed and another sample of images would give other values. Its
# variance comes from the mean squares of this crossed design, its degrees of freedom from
# Satterthwaite (Biometrics Bulletin 2, 1946), so that the few seeds, not the many images, decide
# the t quantile. A percentile bootstrap over three seeds covers only about 86 % where it promises
# 95 %.


Verdict = Literal["better", "worse", "equal", "inconclusive"]
LEVEL, MOST_SEEDS = 0.95, 1000


@dataclass(frozen=True)
class Spread:
    """How a difference varies: its mean, and variances of seeds, images and the rest.

    `variance` is that of the mean, `freedom` its degrees of freedom. With one seed only images
    vary, and nothing is known of other seeds.
    """

    mean: float
    seeds: int
    images: int
    seed_variance: float
    image_variance: float
    rest_variance: float
    variance: float
    freedom: float


@dataclass(frozen=True)
class Comparison:
    """One difference, its interval and what it says; `p` is two-sided, adjusted for the family.

    verdict: of the methods. of_models: of the very models compared, where only images are random;
    it differs with one seed, which leaves the methods inconclusive. seeds_needed: how many seeds
    would settle an inconclusive one, whatever the rest of the family does; None where none would,
    or where it is settled.
    """

    spread: Spread
    low: float
    high: float
    p: float
    verdict: Verdict
    of_models: Verdict
    seeds_needed: int | None


def spread_of(difference: Any) -> Spread:
    """Return the spread of differences, (seeds, images), at least one seed and two images in all.

    A matrix of one column holds one value a seed: then images count as fixed.
    """
    d = np.asarray(difference, dtype=np.float64)
    seeds, images = d.shape
    mean, *squares = _mean_squares(d)
    ms_seed, ms_image, ms_rest = squares
    counts = (seeds - 1, images - 1, (seeds - 1) * (images - 1))
    total, freedom = _total((ms_seed, ms_image, ms_rest), counts)
    return Spread(
        mean,
        seeds,
        images,
        max(0.0, (ms_seed - ms_rest) / images),
        max(0.0, (ms_image - ms_rest) / seeds),
        ms_rest,
        float(total) / d.size,
        float(freedom),
    )


def rest_variance(values: np.ndarray) -> float:
    """Return the `rest_variance` that `spread_of` would, for who needs nothing else of it."""
    return _mean_squares(values)[3]


def _mean_squares(d: np.ndarray) -> tuple[float, float, float, float]:
    """Return the mean of (seeds, images), and the mean squares of seeds, images and the rest."""
    if d.size < 2:
        raise ValueError("one value has no spread")
    seeds, images = d.shape
    mean = math.fsum(d.ravel().tolist()) / d.size
    by_seed, by_image = d.mean(axis=1), d.mean(axis=0)
    rest = d - by_seed[:, None] - by_image[None, :] + mean
    return (
        mean,
        images * _mean_square(by_seed - mean, seeds - 1),
        seeds * _mean_square(by_image - mean, images - 1),
        _mean_square(rest, (seeds - 1) * (images - 1)),
    )


def compare_paired(
    differences: Sequence[Spread],
    margin: float = 0.0,
    level: float = LEVEL,
    higher_is_better: Sequence[bool] | None = None,
    models: bool | Sequence[bool] = False,
) -> list[Comparison]:
    """Judge a family of differences together, with Holm's correction over the family.

    A difference is `equal` when its interval lies within +- margin, `better` or `worse` when its
    adjusted p is below 1 - level, else `inconclusive`. `models`: whether the models themselves are
    judged, as where maps of no known seed are scored, so that one is enough; of all, or of each.
    Intervals are not adjusted.
    Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    directions = higher_is_better or [True] * len(differences)
    adjusted = holm([_p_value(spread) for spread in differences])
    rivals = sum(p >= 1 - level for p in adjusted)  # which Holm still divides the level among
    each = [models] * len(differences) if isinstance(models, bool) else models
    return [
        _judge(spread, p, margin, level, up, of_models, rivals)
        for spread, p, up, of_models in zip(differences, adjusted, directions, each, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's step-down procedure, in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in _ascending(p_values):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def holm_levels(p_values: Sequence[float], level: float) -> list[float]:
    """Return the level at which Holm's procedure judges each of a family, in the order given.

    Of m, the k-th smallest (from 0) is tested at level / (m - k) as long as all before it are
    findings; from the first that is none on, all stand at that one's level. So a p value is a
    finding exactly where it is below its own level here, which is where `holm` puts it below
    `level`.
    """
    found, stopped = [level] * len(p_values), False
    current = level
    for rank, index in _ascending(p_values):
        if not stopped:
            current = level / (len(p_values) - rank)
            stopped = p_values[index] >= current
        found[index] = current
    return found


def _ascending(p_values: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yield the rank and the index of each p value, the smallest first: the steps of Holm."""
    yield from enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index]))


def half_width(spread: Spread, level: float = LEVEL) -> float:
    """Return half the width of the interval at this level, in units of the score."""
    from scipy import special

    return float(special.stdtrit(spread.freedom, (1 + level) / 2)) * math.sqrt(spread.variance)


def settling(result: Comparison, name: str = "A") -> str:
    """Say what would settle an inconclusive comparison; empty where it is settled.

    `name` is that of the first of the two.
    """
    if result.verdict != "inconclusive":
        return ""
    if result.spread.seeds < 2:
        words = "one seed says nothing of others"
        known = result.of_models
        return (
            words if known == "inconclusive" else f"{words}; this very model of {name} is {known}"
        )
    if result.seeds_needed is None:
        return "more seeds alone would not settle it; more test images may"
    more = result.seeds_needed - result.spread.seeds
    plural = "seed" if more == 1 else "seeds"
    return f"about {more} more {plural} would settle it, {result.seeds_needed} in all"


def _judge(
    spread: Spread, p: float, margin: float, level: float, up: bool, models: bool, rivals: int
) -> Comparison:
    half = half_width(spread, level)
    low, high = spread.mean - half, spread.mean + half
    found: Verdict = "inconclusive"
    if margin > 0 and -margin < low and high < margin:
        found = "equal"
    elif p < 1 - level:
        found = "better" if (spread.mean > 0) == up else "worse"
    verdict = found if models or spread.seeds > 1 else "inconclusive"
    asked = verdict == "inconclusive" and not models  # of the very models, no seed tells more
    needed = _seeds_needed(spread, margin, level, max(rivals, 1)) if asked else None
    return Comparison(spread, low, high, p, verdict, found, needed)


def _p_value(spread: Spread) -> float:
    from scipy import special

    if spread.variance == 0:
        return 1.0 if spread.mean == 0 else 0.0
    t = abs(spread.mean) / math.sqrt(spread.variance)
    return float(2 * special.stdtr(spread.freedom, -t))


def _seeds_needed(spread: Spread, margin: float, level: float, rivals: int) -> int | None:
    """Return the fewest seeds whose expected interval leaves 0, or fits the margin.

    It is to leave 0 at the level that Holm asks of the least p among so many that are not settled.
    """
    from scipy import special

    if spread.seeds < 2:
        return None
    seeds = np.arange(spread.seeds + 1, MOST_SEEDS + 1, dtype=np.float64)
    images, rest = spread.images, spread.rest_variance
    ms_seed = rest + images * spread.seed_variance
    ms_image = rest + seeds * spread.image_variance
    total, freedom = _total(
        (np.full_like(seeds, ms_seed), ms_image, np.full_like(seeds, rest)),
        (seeds - 1, images - 1, (seeds - 1) * (images - 1)),
    )
    error = np.sqrt(total / (seeds * images))
    half = special.stdtrit(freedom, (1 + level) / 2) * error
    strict = special.stdtrit(freedom, 1 - (1 - level) / 2 / rivals) * error
    settled = (strict < abs(spread.mean)) | (half < margin - abs(spread.mean))
    return int(seeds[np.argmax(settled)]) if settled.any() else None


def _total(squares: tuple[Any, Any, Any], counts: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    """Return seeds x images times the variance of the mean, and its degrees of freedom."""
    ms_seed, ms_image, ms_rest = squares
    # The first term estimates without bias; it may fall below what seeds or images alone give.
    total = np.maximum(np.maximum(ms_seed + ms_image - ms_rest, ms_seed), ms_image)
    doubt = sum(m**2 / np.maximum(n, 1) for m, n in zip(squares, counts, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(doubt > 0, total**2 / doubt, counts[0] + counts[1])
    return total, np.maximum(freedom, 1.0)


def _mean_square(deviations: np.ndarray, freedom: int) -> float:
    return float(np.sum(deviations**2)) / freedom if freedom else 0.0
