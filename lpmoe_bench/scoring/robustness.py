"""Whether scores hold: the same maps under every protocol, and by PySODMetrics."""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from lpmoe_bench.console import OnProgress
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.classes import CONFUSION, MOST_CLASSES, VOID, read_confusions
from lpmoe_bench.metrics.engine import PairScores, score_pair
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.protocols import EMPTY_MASKS, Protocol, ScoringRules
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.scoring.work import Variant

# The same maps under every protocol, and where the choice of one turns the order of methods.


@dataclass(frozen=True)
class VariantScores:
    """One way to a score: the metric, every protocol that gives these very values, and values by
    method. turns: pairs of methods whose order differs from that of the family's first line."""

    family: str
    metric: str
    protocols: tuple[str, ...]
    values: Mapping[str, float]
    turns: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "family"}


def variants_of(protocol: ScoringRules) -> list[Variant]:
    """Return every other way to score maps of a protocol's kind."""
    return [Variant(one) for one in protocol.ways()]


def compare_variants(
    variants: Sequence[Variant], results: Mapping[str, Sequence[ScoreResult | None]]
) -> list[VariantScores]:
    """Return a line for each different way to each metric, families together.

    results: {method: its result by each of the variants}, which start with the protocol that
    counts. Ways that give all methods the same values share a line; a changed rule of that protocol
    is named only where it changes a value. A way that some method has no score by is left out.
    """
    first = variants[0].protocol
    base = first.name
    lines: dict[tuple[str, tuple[float, ...]], VariantScores] = {}
    for index, variant in enumerate(variants):
        found = {method: each[index] for method, each in results.items()}
        name = variant.protocol.name
        for metric in variant.protocol.metrics:
            values = {m: r.scores[metric] for m, r in found.items() if r is not None}
            usable = {m: v for m, v in values.items() if v is not None}
            if len(usable) == len(found):
                # Ways that give all methods the same numbers have one key, and so one line.
                key = (metric, tuple(usable.values()))
                line = lines.get(key, VariantScores(first.family(metric), metric, (), usable))
                if not (name.startswith(f"{base} (") and base in line.protocols):
                    lines[key] = replace(line, protocols=(*line.protocols, name))
    families: dict[str, list[VariantScores]] = defaultdict(list)
    for line in lines.values():
        families[line.family].append(line)
    return [
        replace(line, turns=_turns(family[0], line))
        for family in families.values()
        for line in family
    ]


def _turns(first: VariantScores, line: VariantScores) -> tuple[tuple[str, str], ...]:
    """Return the pairs (ahead by the first line, ahead by this one)."""
    facts = known_metrics()
    old, new = (1 if facts[one.metric].higher_is_better else -1 for one in (first, line))
    turned = []
    for a, b in combinations(line.values, 2):
        before = old * (first.values[a] - first.values[b])
        after = new * (line.values[a] - line.values[b])
        # A tie on either side gives 0 and turns nothing.
        if before * after < 0:
            turned.append((a, b) if before > 0 else (b, a))
    return tuple(turned)


def turn_sentences(lines: Sequence[VariantScores]) -> list[str]:
    """Say where the order of two methods turns, a sentence for each family and pair."""
    facts, said = known_metrics(), []
    first = {line.family: line for line in reversed(lines)}
    turned: dict[tuple[str, str, str], list[VariantScores]] = defaultdict(list)
    for line in lines:
        for pair in line.turns:
            turned[line.family, *pair].append(line)
    for (kind, ahead, behind), others in turned.items():
        start = first[kind]
        ways = "; ".join(f"{facts[o.metric].label} of {', '.join(o.protocols)}" for o in others)
        said.append(
            f"{ahead} is ahead of {behind} by {facts[start.metric].label} of "
            f"{', '.join(start.protocols)}, but behind by {ways}"
        )
    return said


# Images without an object by each convention, side by side.


class EmptyLine(NamedTuple):
    """A metric by one convention for empty masks: values by method, and their order, best first."""

    metric: str
    convention: str
    values: Mapping[str, float]
    order: tuple[str, ...]


def compare_empty(
    variants: Sequence[Variant], results: Mapping[str, Sequence[ScoreResult | None]]
) -> list[EmptyLine]:
    """Return a line for each metric and convention; none where no mask is empty.

    results: as `compare_variants` takes them, one for each of the variants.
    """
    base = replace(variants[0].protocol, extra=())
    firsts = [each[0] for each in results.values()]
    if not any(first and first.counts.get("empty_masks") for first in firsts):
        return []
    ways = {
        one.protocol.empty_masks: index
        for index, one in enumerate(variants)
        if replace(one.protocol, name=base.name, empty_masks=base.empty_masks, extra=()) == base
    }
    facts, lines = known_metrics(), []
    for metric in (key for key in base.metrics if get_metric(key).by_convention):
        for policy, words in EMPTY_MASKS.items():
            found = {method: each[ways[policy]] for method, each in results.items()}
            values = {m: r.scores[metric] for m, r in found.items() if r is not None}
            known = {m: v for m, v in values.items() if v is not None}
            if len(known) == len(found):
                sign = -1 if facts[metric].higher_is_better else 1
                order = tuple(sorted(known, key=lambda m, k=known, s=sign: s * k[m]))
                lines.append(EmptyLine(metric, words, known, order))
    return lines


def empty_sentences(lines: Sequence[EmptyLine]) -> list[str]:
    """Say for each metric whether the ranking turns with the convention for empty masks."""
    said, by_metric = [], defaultdict[str, list[EmptyLine]](list)
    for line in lines:
        by_metric[line.metric].append(line)
    facts = known_metrics()
    for metric, ways in by_metric.items():
        orders: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for line in ways:
            # Methods of equal value are in no order: a tie turns nothing.
            if len(set(line.values.values())) == len(line.values):
                orders[line.order].append(line.convention)
        label = facts[metric].label
        if len(orders) > 1:
            turns = "; ".join(f"{' > '.join(o)} {', '.join(w)}" for o, w in orders.items())
            said.append(f"the ranking by {label} turns with the empty masks: {turns}")
    if lines and not said and len(lines[0].values) > 1:
        said = ["the ranking is the same by every convention for empty masks"]
    return said


# Scores of a few images computed again by PySODMetrics, with the largest difference.

Load = Callable[[str], tuple[np.ndarray, np.ndarray]]
COUNTS = ("tp", "fp", "fn", "tn")


class Verification(NamedTuple):
    """What was compared.

    images: names, sorted. differences: the largest of each metric over the images; for metrics of
    the data set's counts that of the images' counts, in pixels, as `counts`. skipped: {metric or
    metric of an image: why it was not compared}. how: what was done with the images.
    """

    images: tuple[str, ...]
    differences: dict[str, float]
    skipped: dict[str, str]
    how: str = "scored again by PySODMetrics"

    @property
    def largest(self) -> float:
        """The largest difference of any metric; 0 where nothing was compared."""
        return max(self.differences.values(), default=0.0)


def verify_scores(
    rows: Sequence[Mapping[str, Any]],
    load: Load,
    protocol: Protocol,
    count: int,
    seed: int = 0,
    on_progress: OnProgress = lambda done, total: None,
) -> Verification:
    """Score `count` randomly drawn images again by PySODMetrics and compare with their rows.

    `rows` are `ScoreResult.rows`; all images are taken where there are fewer, and none that the
    protocol leaves out. `load` reads a name's map and mask, (h, w) of one size, from their files:
    the map in the file's own precision. Curves, of which a row holds one level, are compared at all
    256 levels. `on_progress` is told after each image. Raises UsageError for a count below 1.
    """
    if count < 1:
        raise UsageError(f"{count} images cannot be verified; ask for 1 or more")
    from lpmoe_bench.metrics.reference import reference_scores

    usable = {row["image"]: row for row in rows if _scored(row, protocol)}
    names = sorted(random.Random(seed).sample(sorted(usable), min(count, len(usable))))
    # Compared are only rules that both have: where PySODMetrics has another one, a difference would
    # say nothing about this program.
    skipped = _without_counterpart(protocol)
    kept = replace(protocol, metrics=tuple(k for k in protocol.metrics if k not in skipped))
    worst: dict[str, float] = {}
    for done, name in enumerate(names, start=1):
        pred, mask = load(name)
        theirs = reference_scores(pred, mask, kept)
        found = _differences(usable[name], score_pair(pred, mask, kept), theirs)
        if "s_unstable" in usable[name]["flags"].split(";") and "s_measure" in found:
            del found["s_measure"]
            skipped[f"s_measure of {name}"] = "it rests on rounding in PySODMetrics"
        worst |= {key: max(value, worst.get(key, 0.0)) for key, value in found.items()}
        on_progress(done, len(names))
    return Verification(tuple(names), worst, skipped)


def verify_confusions(
    rows: Sequence[Mapping[str, Any]],
    load: Load,
    count: int,
    seed: int = 0,
    on_progress: OnProgress = lambda done, total: None,
) -> Verification:
    """Count the classes of `count` randomly drawn images again, and compare with their rows.

    Each pair of classes is counted by itself, pixel against pixel, where scoring counts them all at
    once. rows, load: as `verify_scores` takes them, of label maps. Raises UsageError for a count
    below 1.
    """
    if count < 1:
        raise UsageError(f"{count} images cannot be verified; ask for 1 or more")
    usable = {row["image"]: row for row in rows if row[CONFUSION]}
    names = sorted(random.Random(seed).sample(sorted(usable), min(count, len(usable))))
    worst = 0
    for done, name in enumerate(names, start=1):
        pred, truth = load(name)
        _, entries = read_confusions([usable[name][CONFUSION]], MOST_CLASSES)
        told = {(t, p): n for t, p, n in entries.tolist()}
        void = any(t == VOID for t, _ in told)  # of a protocol by which it counts
        for t in np.unique(truth).tolist():
            for p in np.unique(pred).tolist():
                here = np.count_nonzero((truth == t) & (pred == p)) if t != VOID or void else 0
                worst = max(worst, abs(here - told.pop((t, p), 0)))
        worst = max([worst, *told.values()])
        on_progress(done, len(names))
    how = "counted again, each pair of classes by itself"
    return Verification(tuple(names), {"pixels of a pair": float(worst)} if names else {}, {}, how)


def _scored(row: Mapping[str, Any], protocol: Protocol) -> bool:
    keys = {*protocol.metrics, *COUNTS} & row.keys()
    empty = "empty_mask" in row["flags"].split(";")
    # What an empty mask counts by convention has no counterpart in PySODMetrics.
    usual = not empty or protocol.empty_masks == "score"
    return usual and any(row[key] is not None for key in keys)


def _without_counterpart(protocol: Protocol) -> dict[str, str]:
    """Return the metrics that PySODMetrics does not compute as the protocol says, and why."""
    if protocol.thresholds == "256 levels, at least":
        return {}
    over = [k for k in protocol.metrics if k.endswith(("_mean", "_max", "_mean256", "_mean_pr"))]
    if protocol.thresholds.endswith("E above"):
        over += [key for key in protocol.metrics if key == "e_adaptive"]
    return dict.fromkeys(over, "PySODMetrics has not MATLAB's thresholds")


def _differences(row: Mapping[str, Any], ours: PairScores, theirs: PairScores) -> dict[str, float]:
    found = {}
    for key, value in theirs.values.items():
        own = row[key] if np.ndim(value) == 0 and get_metric(key).per_image else ours.values[key]
        found[key] = float(np.max(np.abs(np.asarray(own) - np.asarray(value))))
    if all(row.get(key) is not None for key in COUNTS):
        pairs = zip(COUNTS, theirs.counts, strict=True)
        found["counts"] = float(max(abs(row[key] - value) for key, value in pairs))
    return found
