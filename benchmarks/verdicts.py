"""Do verdicts keep their promises? Simulated where the true differences are known.

Scores of methods are drawn as effects of seeds, images and the rest, or resampled from published
records, and judged by the code that `table` and `compare` use. Sds are those of a difference of two
methods; five methods are compared with one reference. Figures are in per cent, with the error of
the simulation behind ±. "old" is the method before this one, on the same draws: degrees of freedom
by Satterthwaite, Holm for better and worse alone.

    python benchmarks/verdicts.py [--json] [--trials 1000] [--seed 0] [--parts verdicts groups]

Ends with 1 where a figure is beyond its bound by more than three errors. All parts take about ten
minutes of CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from lpmoe_bench.analysis.groups import Grouping, GroupSource
from lpmoe_bench.analysis.over_sets import answer_over_sets
from lpmoe_bench.analysis.pairing import PairedRows, Rules, judge_paired, pair_samples
from lpmoe_bench.analysis.planning import seeds_needed
from lpmoe_bench.analysis.samples import Samples, SeedRows
from lpmoe_bench.analysis.significance import LEVEL, Comparison, Spread, holm
from lpmoe_bench.metrics.facts import Margin, Margins
from lpmoe_bench.records.store import find_records

ROOT = Path(__file__).resolve().parents[1]
METRIC, HEADLINES = "s_measure", {"cod": "s_measure", "polyp": "dice_mean256"}
METHODS = 6
GAINS = (0.01, 0.02, 0.03)


class Rate(NamedTuple):
    """A share and the standard error that so many trials leave."""

    value: float
    error: float

    @classmethod
    def of(cls, hits: Sequence[float]) -> Rate:
        return cls(float(np.mean(hits)), float(np.std(hits) / math.sqrt(len(hits))))

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ±{100 * self.error:.1f}"


class Tally(defaultdict[str, list[float]]):
    """Hits of many trials by what they count."""

    def __init__(self) -> None:
        super().__init__(list)

    def add(self, **hits: float) -> None:
        for name, hit in hits.items():
            self[name.replace("_", " ")].append(hit)

    def rates(self) -> dict[str, Rate]:
        return {name: Rate.of(hits) for name, hits in self.items()}


@dataclass(frozen=True)
class World:
    """How scores vary; sds are those of a difference of two methods.

    shape: of the images' effects. sizes: of groups of images, whose effects and rest have `alike`
    as their intra-class correlation; none where images are independent.
    """

    seeds: int
    images: int
    seed_sd: float = 0.01
    image_sd: float = 0.05
    rest_sd: float = 0.05
    shape: str = "normal"
    sizes: tuple[int, ...] = ()
    alike: float = 0.0

    def draw(self, rng: np.random.Generator, methods: int = METHODS) -> np.ndarray:
        """Return scores of methods that are equal in truth, (methods, seeds, images)."""
        found = self.seed_sd * rng.standard_normal((methods, self.seeds, 1))
        found = found + self.image_sd * self._over_images(rng, (methods, 1), self.shape)
        found += self.rest_sd * self._over_images(rng, (methods, self.seeds), "normal")
        found[0] *= -1  # or the skewness of two methods would cancel in their difference
        return found / math.sqrt(2)

    def _over_images(
        self, rng: np.random.Generator, lead: tuple[int, ...], shape: str
    ) -> np.ndarray:
        alone = _unit_effects(rng, shape, (*lead, self.images))
        if not self.sizes:
            return alone
        common = _unit_effects(rng, shape, (*lead, len(self.sizes)))
        common = np.repeat(common, self.sizes, axis=-1)
        return math.sqrt(self.alike) * common + math.sqrt(1 - self.alike) * alone

    @property
    def grouping(self) -> Grouping:
        places = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return Grouping("group", {str(i): f"g{place}" for i, place in enumerate(places)})


def _unit_effects(rng: np.random.Generator, shape: str, size: tuple[int, ...]) -> np.ndarray:
    """Return effects of mean 0 and variance 1."""
    if shape == "t of 3":
        return rng.standard_t(3, size) / math.sqrt(3)
    if shape == "skewed":
        return rng.exponential(size=size) - 1
    return rng.standard_normal(size)


def against_first(values: np.ndarray, grouping: Grouping | None = None) -> list[PairedRows]:
    """Return the rows of all methods but the first, paired with it."""
    seeds, images = list(range(values.shape[1])), [str(i) for i in range(values.shape[2])]
    sides = [Samples(seeds, images, own, []) for own in values]
    if grouping:
        sides = [side.grouped(grouping.of) for side in sides]
    return [pair_samples(one, sides[0], seeds, "test", METRIC, grouping) for one in sides[1:]]


def judge(pairs: Sequence[PairedRows], margin: float = 0.0, looks: int = 1) -> list[Comparison]:
    return judge_paired(pairs, Rules(Margins(Margin(margin)), looks=looks))


# The method before: what the new one is measured against.


def old_freedom(spread: Spread) -> float:
    """Satterthwaite's degrees of freedom of the variance of a mean."""
    a, b, c = spread.squares
    counts = (spread.seeds - 1, spread.units - 1, (spread.seeds - 1) * (spread.units - 1))
    parts = (a, b, c) if a + b - c > max(a, b) else (a, 0, 0) if a > b else (0, b, 0)
    return (a + b - c if parts[2] else max(a, b)) ** 2 / sum(
        part**2 / count for part, count in zip(parts, counts, strict=True)
    )


def old_p(spread: Spread, beyond: float = 0.0) -> float:
    """Return the two-sided p of a mean's distance from 0, or of its distance to `beyond`."""
    distance = (abs(spread.mean) - beyond) / math.sqrt(spread.variance)
    return 2 * float(special.stdtr(old_freedom(spread), -abs(distance)))


def old_finds(spreads: Sequence[Spread]) -> list[bool]:
    return [p < 1 - LEVEL for p in holm([old_p(spread) for spread in spreads])]


def old_equal(spread: Spread, margin: float) -> bool:
    return abs(spread.mean) < margin and old_p(spread, margin) < 1 - LEVEL


# The parts: each yields rows of settings and rates.

Row = dict[str, Any]


def differs(result: Comparison) -> bool:
    return result.verdict in ("better", "worse")


def covers(result: Comparison, truth: float = 0.0) -> bool:
    return result.low <= truth <= result.high


def shifted(pair: PairedRows, gain: float) -> PairedRows:
    """Return a pair whose true difference is larger by so much."""
    return replace(pair, spread=replace(pair.spread, mean=pair.spread.mean + gain))


def judge_equal(
    draws: Iterable[Sequence[PairedRows]], few: int, gains: Sequence[float]
) -> dict[str, Rate]:
    """Judge families of methods that are equal in truth; in the first few, the first method is then
    made better by each gain."""
    tally, power = Tally(), Tally()
    for number, pairs in enumerate(draws):
        results, spreads = judge(pairs), [pair.spread for pair in pairs]
        tally.add(
            false_verdict=any(map(differs, results)),
            old_false=any(old_finds(spreads)),
            single_line=sum(not covers(one) for one in results) / len(results),
            old_single=sum(old_p(one) < 1 - LEVEL for one in spreads) / len(spreads),
        )
        for gain in gains if number < few else ():
            first = shifted(pairs[0], gain)
            found = judge([first, *pairs[1:]])[0].verdict == "better"
            old = old_finds([first.spread, *spreads[1:]])[0] and first.spread.mean > 0
            power[f"finds +{gain:g}"].append(found)
            power[f"old +{gain:g}"].append(old)
    return tally.rates() | power.rates()


def verdicts(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    settings = [
        (World(seeds, images, image_sd=sd, rest_sd=sd), "normal")
        for sd in (0.03, 0.1)
        for images in (60, 250, 1000)
        for seeds in (2, 3, 5, 10)
        if seeds > 2 or images == 250
    ]
    settings += [
        (World(seeds, images, image_sd=0.1, rest_sd=0.1, shape=shape), shape)
        for shape in ("t of 3", "skewed")
        for images in (60, 250)
        for seeds in (3, 5)
    ]
    for world, shape in settings:
        facts = {"seeds": world.seeds, "images": world.images, "effects": shape}
        facts["image sd / seed sd"] = f"{world.image_sd / world.seed_sd:.0f}"
        draws = (against_first(world.draw(rng)) for _ in range(trials))
        yield facts | judge_equal(draws, trials // 6, GAINS)


def group_sizes(count: int, images: int, equal: bool) -> tuple[int, ...]:
    """Return sizes of groups: all alike, or the k-th a k-th of the largest."""
    shares = np.ones(count) if equal else 1 / np.arange(1, count + 1)
    sizes = np.maximum(1, np.floor(images * shares / shares.sum())).astype(int)
    sizes[0] += images - sizes.sum()
    return tuple(sizes.tolist())


def groups(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    for alike in (0.1, 0.3):
        for equal in (True, False):
            for count, seeds in ((5, 3), (5, 10), (8, 3), (8, 10), (15, 3), (30, 3), (30, 10)):
                sizes = group_sizes(count, 20 * count, equal)
                world = World(seeds, sum(sizes), seed_sd=0.003, sizes=sizes, alike=alike)
                grouping, tally = world.grouping, Tally()
                for _ in range(trials):
                    values = world.draw(rng, 2)
                    (result,) = judge(against_first(values, grouping))
                    pairs = against_first(values)
                    tally.add(
                        covered=covers(result),
                        as_images=covers(judge(pairs)[0]),
                        old_covered=old_p(pairs[0].spread) >= 1 - LEVEL,
                    )
                    tally["width"].append((result.high - result.low) / 2)
                width = float(np.median(tally.pop("width")))
                told = "equal" if equal else f"{sizes[0]} to {sizes[-1]}"
                facts = {"groups": count, "sizes": told, "seeds": seeds, "alike": alike}
                yield facts | tally.rates() | {"half width": f"{width:.4f}"}


def equal(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    margin = 0.005
    for family in (1, 6, 24):
        for seeds, images, sd in ((3, 250, 0.02), (3, 1000, 0.02), (10, 60, 0.01)):
            world, tally = World(seeds, images, 0.002, sd, sd), Tally()
            for _ in range(trials * 6 // (family + 5)):
                # Pairs of their own, as of other metrics: what they share would help Holm.
                values = world.draw(rng, 2 * family).reshape(family, 2, seeds, images)
                values[:, 1] += margin
                pairs = [against_first(own)[0] for own in values]
                spreads = [pair.spread for pair in pairs]
                tally.add(
                    any_equal=any(one.verdict == "equal" for one in judge(pairs, margin)),
                    old_any=any(old_equal(one, margin) for one in spreads),
                )
                equal_pairs = [shifted(pair, -margin) for pair in pairs]
                tally["found where 0"].append(judge(equal_pairs, margin)[0].verdict == "equal")
            yield {"family": family, "seeds": seeds, "images": images} | tally.rates()


def looks(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    """Look after every seed from 3 to 10, on the same images."""
    counts = range(3, 11)
    for images, sd in ((60, 0.1), (250, 0.1), (250, 0.03), (1000, 0.03)):
        world, tally = World(counts[-1], images, image_sd=sd, rest_sd=sd), Tally()
        for _ in range(trials // 2):
            values, found = world.draw(rng, 2), defaultdict[str, bool](bool)
            for look, seeds in enumerate(counts, 1):
                pairs = against_first(values[:, :seeds])
                (alone,) = judge(pairs)
                found["once"] |= differs(alone)
                found["planned"] |= differs(judge(pairs, looks=len(counts))[0])
                found["so far"] |= look * alone.p < 1 - LEVEL
                found["last alone"] = differs(alone)
                found["old"] |= old_p(pairs[0].spread) < 1 - LEVEL
            tally.add(
                without_looks=found["once"],
                with_looks_8=found["planned"],
                looks_so_far=found["so far"],
                tenth_seed_alone=found["last alone"],
                old=found["old"],
            )
        facts = {"images": images, "image sd / seed sd": f"{sd / world.seed_sd:.0f}"}
        yield facts | tally.rates()


def advice(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    """Follow "about N more seeds" where three were inconclusive: add them on the same images; or
    draw a study of its own in which the measured difference is the true one."""
    margin, most = 0.005, 300  # more seeds than that nobody runs
    for truth in (0.0, 0.005, 0.01, 0.02):
        world, tally, asked = World(most, 250), Tally(), []
        for _ in range(trials // 2):
            values = world.draw(rng, 2)
            values[1] += truth
            (pair,) = against_first(values[:, :3])
            (result,) = judge([pair], margin)
            tally.add(inconclusive=result.verdict == "inconclusive")
            if result.verdict != "inconclusive":
                continue
            needed = seeds_needed(result)
            tally.add(advised=needed is not None and needed <= most)
            if needed is None or needed > most:
                continue
            asked.append(needed)
            study = replace(world, seeds=needed).draw(rng, 2)
            study[1] += pair.spread.mean
            tally.add(
                settled=_is_settled(values[:, :needed], margin),
                settled_where_true=_is_settled(study, margin),
            )
        facts = {"true difference": f"{truth:g}"}
        yield facts | tally.rates() | {"median advice": f"{np.median(asked):.0f}"}


def _is_settled(values: np.ndarray, margin: float) -> bool:
    return judge(against_first(values), margin)[0].verdict != "inconclusive"


def over(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    """One answer over test sets, for methods that are equal on the mean of all such sets."""
    for between in (0.0, 0.01):
        for common in (0.0, 1.0):
            for sets in (2, 3, 5):
                world, tally = World(3, 100, seed_sd=0.0), Tally()
                for _ in range(trials // 3):
                    alike = rng.standard_normal((2, 3, 1))
                    pairs = []
                    for place in range(sets):
                        own = rng.standard_normal((2, 3, 1))
                        seeds = math.sqrt(common) * alike + math.sqrt(1 - common) * own
                        values = world.draw(rng, 2) + 0.01 / math.sqrt(2) * seeds
                        values[1] += between * rng.standard_normal()
                        pairs.append(replace(against_first(values)[0], test=str(place)))
                    found = answer_over_sets(pairs, 0.005, True)
                    tally.add(
                        covered=found.low <= 0 <= found.high,
                        surely_better=found.better > LEVEL,
                        surely_worse=found.better < 1 - LEVEL,
                    )
                facts = {"test sets": sets, "sd between sets": between}
                yield facts | {"seeds' effects": "common" if common else "own"} | tally.rates()


class Residuals(NamedTuple):
    """What is left of published scores where each method's mean is taken off: effects of seeds
    (methods, seeds, 1), images (methods, 1, images), the rest, and the place of each image's
    group."""

    test: str
    of_seeds: np.ndarray
    of_images: np.ndarray
    rest: np.ndarray
    places: np.ndarray
    what: str

    def draw(self, rng: np.random.Generator, seeds: int) -> list[PairedRows]:
        """Return methods that are equal in truth, on seeds and images drawn anew.

        Three seeds are too few to draw from with replacement, since a ninth of the draws would be
        three times the same: new seeds are normal mixtures of them, which keeps what methods have
        in common. Images, or groups, are drawn with replacement, all methods together; what is
        left of each comes from any of its seeds, with any sign.
        """
        own = self.of_seeds.shape[1]
        mixtures = rng.standard_normal((own, seeds)) / math.sqrt(own - 1)
        units = np.unique(self.places)
        drawn = rng.choice(units, len(units))
        members = [np.flatnonzero(self.places == unit) for unit in drawn]
        chosen = np.concatenate(members)
        unit = np.repeat(np.arange(len(units)), [len(one) for one in members])
        source = rng.integers(own, size=(seeds, len(units)))[:, unit]
        sign = rng.choice((-1, 1), size=(seeds, len(units)))[:, unit]
        rest = self.rest[:, source, chosen] * sign * math.sqrt(own / (own - 1))
        values = np.einsum("mki,ks->msi", self.of_seeds, mixtures) + self.of_images[..., chosen]
        grouping = Grouping(self.what, {str(i): f"g{place}" for i, place in enumerate(unit)})
        return against_first(values + rest, grouping if self.what else None)


def residuals() -> Iterator[Residuals]:
    """Yield those of the published methods of three seeds on each test set."""
    rows: dict[tuple[str, str], list] = defaultdict(list)
    for stored in find_records([ROOT / "results/records"]).stored:
        if stored.record.task in HEADLINES and not stored.record.superseded_by:
            for test in stored.record.scores:
                rows[test, stored.record.fingerprint].append(stored)
    by_test: dict[str, list[SeedRows]] = defaultdict(list)
    for (test, _), stored in rows.items():
        if len(stored) == 3:
            by_test[test].append(SeedRows(stored, test))
    for test, methods in by_test.items():
        metric = HEADLINES[methods[0].stored[0].record.task]
        found = GroupSource().of(*methods)
        sides = [one.samples(metric) for one in methods]
        values = np.stack([side.values for side in sides])
        values = values - values.mean(axis=(1, 2), keepdims=True)
        seeds, images = values.mean(axis=2, keepdims=True), values.mean(axis=1, keepdims=True)
        names = [found.of[image] if found else image for image in sides[0].images]
        places = np.unique(names, return_inverse=True)[1]
        what = found.what if found and found.count < len(names) else ""
        yield Residuals(test, seeds, images, values - seeds - images, places, what)


def real(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    """Published residuals drawn again, with methods made equal, or different by the margin."""
    margin = 0.03
    for source in residuals():
        for seeds in (3, 5):
            units = len(np.unique(source.places))
            facts = {"test set": source.test, "images": len(source.places)}
            facts |= {"units": f"{units} {source.what}s" if source.what else "images"}
            facts |= {"methods": len(source.rest), "seeds": seeds}
            draws = [source.draw(rng, seeds) for _ in range(trials)]
            tally = Tally()
            for pairs in draws:
                apart = [shifted(pair, margin) for pair in pairs]
                tally.add(any_equal=any(one.verdict == "equal" for one in judge(apart, margin)))
            yield facts | tally.rates() | judge_equal(draws, trials // 6, GAINS[1:])


def collapse(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    """One seed in ten falls by .1: of both methods, which are then equal, or of the first alone."""
    fall, chance = 0.1, 0.1
    for seeds in (3, 5, 10):
        world, tally = World(seeds, 250, seed_sd=0.005), Tally()
        for _ in range(trials):
            values = world.draw(rng, 2)
            fallen = fall * (rng.random((2, seeds, 1)) < chance)
            (both,) = judge(against_first(values - fallen))
            fallen[0] = 0
            (alone,) = judge(against_first(values - fallen), margin=0.005)
            tally.add(
                false_verdict=differs(both),
                covered_alone=covers(alone, -fall * chance),
                none_fell=not fallen.any(),
            )
        yield {"seeds": seeds} | tally.rates()


@dataclass(frozen=True)
class Part:
    """A table: what makes its rows, what a reader must know, and bounds of its columns."""

    rows: Callable[[np.random.Generator, int], Iterator[Row]]
    words: str
    at_most: Mapping[str, float]
    at_least: Mapping[str, float]

    def excess(self, row: Row) -> list[str]:
        """Return the columns that are beyond their bound by more than three errors."""
        rates = {name: rate for name, rate in row.items() if isinstance(rate, Rate)}
        return [
            name
            for name, rate in rates.items()
            if rate.value - 3 * rate.error > self.at_most.get(name, 1)
            or rate.value + 3 * rate.error < self.at_least.get(name, 0)
        ]


WORST = 0.06
EQUAL = {"false verdict": WORST, "single line": WORST}
PARTS = {
    "verdicts": Part(
        verdicts,
        "Six methods equal in truth, five lines: any false verdict (old too), single lines whose "
        "95 % interval leaves out the truth, power after Holm where one method is better. Two "
        "seeds give no verdict. Seed sd .01, rest as large as the images'.",
        EQUAL,
        {},
    ),
    "groups": Part(
        groups,
        "Groups of images that vary together, 20 images each on the mean, sizes equal or as "
        "1, 1/2, 1/3: how often the 95 % interval has the truth, with groups, with images taken "
        "as independent, and by the old method. Image and rest sd .05, seed sd .003.",
        {},
        {"covered": 0.93},
    ),
    "equal": Part(
        equal,
        "All methods differ by just the margin, .005: any called equal. Found: one line where "
        "the true difference is 0. Seed sd .002.",
        {"any equal": WORST},
        {},
    ),
    "looks": Part(
        looks,
        "Equal methods, looked at after every seed from 3 to 10: any false verdict.",
        {"with looks 8": WORST, "tenth seed alone": WORST},
        {},
    ),
    "advice": Part(
        advice,
        "Three seeds, 250 images: where inconclusive, how often the seeds of the advice settle "
        "it, added on the same images, and in a new study whose true difference is the measured "
        "one.",
        {},
        {},
    ),
    "over": Part(
        over,
        "One answer over test sets of 100 images, three seeds, methods equal on the mean of such "
        "sets: how often the interval has it, and how often a chance above 95 % stands.",
        {"surely better": WORST, "surely worse": WORST},
        {"covered": 0.93},
    ),
    "real": Part(
        real,
        "Residuals of the published records, drawn again, where images have groups as these: as "
        "in verdicts, old by groups too; any called equal of those that differ by a margin of .03.",
        EQUAL | {"any equal": WORST},
        {},
    ),
    "collapse": Part(
        collapse,
        "One seed in ten falls by .1, of both methods or of the first alone, whose mean then is "
        ".01 lower: no method on means can bound what seeds do that were not seen.",
        {},
        {},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000, help="of a setting, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    asked = parser.parse_args()
    found: dict[str, list[Row]] = {}
    beyond = []
    for name in asked.parts:
        part, found[name] = PARTS[name], []
        if not asked.json:
            print(f"\n{name}: {part.words}")
        for row in part.rows(np.random.default_rng(asked.seed), asked.trials):
            if not (asked.json or found[name]):
                print(*(f"{head:>{_width(head)}}" for head in row))
            found[name].append(row)
            wrong = part.excess(row)
            beyond += [f"{name}: {column}" for column in wrong]
            if not asked.json:
                cells = [f"{value!s:>{_width(head)}}" for head, value in row.items()]
                told = f"  beyond the bound: {', '.join(wrong)}" if wrong else ""
                print(*cells, told, flush=True)
    if asked.json:
        print(json.dumps({"seed": asked.seed, "trials": asked.trials, "parts": found}, indent=1))
    sys.exit(1 if beyond else 0)


def _width(head: str) -> int:
    return max(10, len(head))


if __name__ == "__main__":
    main()
