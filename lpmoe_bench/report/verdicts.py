"""Verdicts as a matrix: the row's score less the column's, and whether that is sure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lpmoe_bench.analysis.significance import (
    Comparison,
    Samples,
    Spread,
    compare_paired,
    samples,
    settling,
    spread_of,
)
from lpmoe_bench.errors import BenchError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.report.contents import ReportRow, ReportTable
from lpmoe_bench.report.page import Markup, tag
from lpmoe_bench.tables.rows import counted

# Which rows of a table differ for sure: every pair compared over seeds and images, with Holm.


MOST_ROWS = 24  # a matrix of more cannot be read
MARGIN = 0.005  # as `compare` has it


@dataclass(frozen=True)
class Verdicts:
    """Comparisons of rows by their places in `entries`: (a, b), a < b, for A - B.

    notes: what a reader must know, such as rows that could not be compared.
    """

    entries: tuple[ReportRow, ...]
    pairs: dict[tuple[int, int], Comparison]
    notes: tuple[str, ...]


def judge_rows(chapter: ReportTable, margin: float = MARGIN) -> Verdicts:
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
    results = compare_paired(
        list(spreads.values()), margin, higher_is_better=[metric.higher_is_better] * len(spreads)
    )
    if any(spread.seeds == 2 for spread in spreads.values()):
        notes.append("Of two seeds, intervals are wide and cover a little less than they promise")
    entries = tuple(entry for entry, _ in usable)
    return Verdicts(entries, dict(zip(spreads, results, strict=True)), tuple(notes))


def _read(
    chapter: ReportTable, entries: Sequence[ReportRow], notes: list[str]
) -> list[tuple[ReportRow, Samples]]:
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


SIGNS = {"better": "▲", "worse": "▼", "equal": "=", "inconclusive": "?"}
TURNED = {"better": "worse", "worse": "better"}
MOST_NOTES = 6


def verdict_section(chapter: ReportTable, verdicts: Verdicts) -> list[Markup]:
    """Return the matrix with what it says in words; a sentence alone where nothing is compared."""
    notes = [*verdicts.notes[:MOST_NOTES]]
    if len(verdicts.notes) > MOST_NOTES:
        notes.append(f"and {len(verdicts.notes) - MOST_NOTES} more of this kind")
    below = tag("p", ". ".join(notes) + ".", class_="soft") if notes else None
    if not verdicts.pairs:
        words = (
            "No verdict: a difference between methods needs at least two seeds of each. What "
            "another seed would change is not known, so small differences here mean nothing."
        )
        if len(chapter.entries) < 2:
            words = "One row: there is nothing to compare it with."
        return [tag("p", words, class_="soft"), *filter(None, [below])]
    return [
        tag("p", _summary(chapter, verdicts)),
        tag("div", _matrix(chapter, verdicts), class_="scroll", tabindex=0, role="region"),
        *filter(None, [below]),
    ]


def _summary(chapter: ReportTable, verdicts: Verdicts) -> str:
    found = Counter(result.verdict for result in verdicts.pairs.values())
    settled = found["better"] + found["worse"]
    margin = f"{MARGIN * chapter.score.scale:g}"
    words = (
        f"Of {len(verdicts.pairs)} pairs, {settled} differ, {found['equal']} are equal within "
        f"±{margin} and {found['inconclusive']} are inconclusive: {chapter.score.label}, paired "
        f"over seeds and images; pairs differ where p, after Holm over all pairs of this table, is "
        f"below 0.05."
    )
    needed = sorted(r.seeds_needed for r in verdicts.pairs.values() if r.seeds_needed)
    if needed:
        words += (
            f" With about {needed[0]} seeds in all the nearest of the inconclusive pairs would be "
            f"settled, with {needed[(len(needed) - 1) // 2]} half of those that seeds can settle."
        )
    return words


def _matrix(chapter: ReportTable, verdicts: Verdicts) -> Markup:
    labels = [entry.label for entry in verdicts.entries]
    corner = tag("th", "row less column", scope="col", class_="soft")
    head = tag("tr", corner, [tag("th", label, scope="col") for label in labels])
    body = []
    for a, entry in enumerate(verdicts.entries):
        cells = [_cell(chapter, verdicts, a, b) for b in range(len(labels))]
        body.append(tag("tr", tag("th", entry.label, scope="row"), cells, data_name=entry.name))
    caption = tag("caption", "Verdicts of every pair", class_="unseen")
    return tag("table", caption, tag("thead", head), tag("tbody", body), class_="matrix")


def _cell(chapter: ReportTable, verdicts: Verdicts, a: int, b: int) -> Markup:
    result = verdicts.pairs.get((min(a, b), max(a, b)))
    if a == b or result is None:
        return tag("td", "" if a == b else "-", class_="none")
    sign = 1 if a < b else -1
    verdict = result.verdict if a < b else TURNED.get(result.verdict, result.verdict)
    difference = chapter.shown(sign * result.spread.mean, "+")
    ends = sorted((sign * result.low, sign * result.high))
    interval = " to ".join(chapter.shown(end, "+") for end in ends)
    pair = f"{verdicts.entries[a].label} less {verdicts.entries[b].label}"
    title = (
        f"{pair}: {difference}, 95 % interval {interval}, p {result.p:.2g}, "
        f"{result.spread.seeds} seeds, {verdict}"
    )
    title = "; ".join(filter(None, [title, settling(result)]))
    words = [tag("span", SIGNS[verdict], aria_hidden="true"), " ", difference]
    unseen = tag("span", f" {verdict}", class_="unseen")
    return tag("td", words, unseen, class_=verdict, title=title)
