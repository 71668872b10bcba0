"""Which rows of a table differ for sure: every pair compared over seeds and images, with Holm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lpmoe_bench.analysis.samples import Samples, samples
from lpmoe_bench.analysis.significance import Comparison, Spread, compare, spread_of
from lpmoe_bench.errors import BenchError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.report.material import Chapter, Entry
from lpmoe_bench.tables.rows import counted

MOST_ROWS = 24  # a matrix of more cannot be read
MARGIN = 0.005  # as `compare` has it


@dataclass(frozen=True)
class Verdicts:
    """Comparisons of rows by their places in `entries`: (a, b), a < b, for A - B.

    notes: what a reader must know, such as rows that could not be compared.
    """

    entries: tuple[Entry, ...]
    pairs: dict[tuple[int, int], Comparison]
    notes: tuple[str, ...]


def judge(chapter: Chapter, margin: float = MARGIN) -> Verdicts:
    """Compare every pair of rows that share two seeds or more, corrected over all these pairs."""
    notes: list[str] = []
    metric = METRICS.get(chapter.score.key)
    known = [entry for entry in chapter.entries if chapter.mean(entry) is not None]
    sign = -1 if chapter.score.higher_is_better else 1
    ranked = sorted(known, key=lambda entry: sign * (chapter.mean(entry) or 0.0))
    several = [entry for entry in ranked if len(entry.stored) > 1]
    if metric is None or len(several) < 2:
        return Verdicts((), {}, ())
    if singles := len(chapter.entries) - len(several):
        notes.append(f"{counted(singles, 'row')} of one seed or none: not compared")
    if len(several) > MOST_ROWS:
        notes.append(f"Only the {MOST_ROWS} best of {len(several)} rows are compared")
    usable = _read(chapter, several[:MOST_ROWS], notes)
    spreads = _spreads([found for _, found in usable], notes, [e.label for e, _ in usable])
    results = compare(
        list(spreads.values()), margin, higher_is_better=[metric.higher_is_better] * len(spreads)
    )
    if any(spread.seeds == 2 for spread in spreads.values()):
        notes.append("Of two seeds, intervals are wide and cover a little less than they promise")
    entries = tuple(entry for entry, _ in usable)
    return Verdicts(entries, dict(zip(spreads, results, strict=True)), tuple(notes))


def _read(
    chapter: Chapter, entries: Sequence[Entry], notes: list[str]
) -> list[tuple[Entry, Samples]]:
    usable = []
    for entry in entries:
        try:
            usable.append((entry, samples(entry.stored, chapter.test, chapter.score.key)))
        except (BenchError, KeyError) as error:
            notes.append(f"{entry.label} is not compared: {error}")
    return usable


def _spreads(
    found: Sequence[Samples], notes: list[str], labels: Sequence[str]
) -> dict[tuple[int, int], Spread]:
    spreads = {}
    for a, b in combinations(range(len(found)), 2):
        seeds = sorted(set(found[a].seeds) & set(found[b].seeds))
        if len(seeds) < 2:
            notes.append(
                f"{labels[a]} and {labels[b]} share {counted(len(seeds), 'seed')}: not compared"
            )
        elif found[a].images != found[b].images:
            notes.append(f"{labels[a]} and {labels[b]} have rows of other images: not compared")
        else:
            spreads[a, b] = spread_of(_of(found[a], seeds) - _of(found[b], seeds))
    return spreads


def _of(found: Samples, seeds: Sequence[int]) -> np.ndarray:
    """Return the values of these seeds, (seeds, images)."""
    return found.values[[found.seeds.index(seed) for seed in seeds]]
