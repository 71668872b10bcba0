"""Verdicts as a matrix: the row's score less the column's, and whether that is sure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from lpmoe_bench.analysis import significance
from lpmoe_bench.console import VERDICT_STYLES
from lpmoe_bench.errors import BenchError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.report.contents import ReportRow, ReportTable
from lpmoe_bench.tables.rows import counted

MOST_ROWS = 24  # a matrix of more cannot be read
MOST_NOTES = 6
MARGIN = 0.005  # as `compare` has it
TURNED = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Verdicts:
    """Comparisons of rows by their places in `rows`: (a, b), a < b, for A - B.

    notes: what a reader must know, such as rows that could not be compared.
    """

    rows: tuple[ReportRow, ...]
    pairs: dict[tuple[int, int], significance.Comparison]
    notes: tuple[str, ...]


def judge_rows(table: ReportTable, margin: float = MARGIN) -> Verdicts:
    """Compare every pair of rows that share two seeds or more, corrected over all these pairs."""
    notes: list[str] = []
    metric = METRICS.get(table.score.key)
    several = [r for r in table.ranked() if table.mean(r) is not None and len(r.stored) > 1]
    if metric is None or len(several) < 2:
        return Verdicts((), {}, ())
    if singles := len(table.rows) - len(several):
        notes.append(f"{counted(singles, 'row')} of one seed or none: not compared")
    if len(several) > MOST_ROWS:
        notes.append(f"Only the {MOST_ROWS} best of {len(several)} rows are compared")
    usable = _read(table, several[:MOST_ROWS], notes)
    spreads = _spreads([found for _, found in usable], notes, [row.label for row, _ in usable])
    results = significance.compare_paired(
        list(spreads.values()), margin, higher_is_better=[metric.higher_is_better] * len(spreads)
    )
    if any(spread.seeds == 2 for spread in spreads.values()):
        notes.append("Of two seeds, intervals are wide and cover a little less than they promise")
    rows = tuple(row for row, _ in usable)
    return Verdicts(rows, dict(zip(spreads, results, strict=True)), tuple(notes))


def _read(
    table: ReportTable, rows: Sequence[ReportRow], notes: list[str]
) -> list[tuple[ReportRow, significance.Samples]]:
    usable = []
    for row in rows:
        try:
            found = significance.samples(row.stored, table.test, table.score.key)
            usable.append((row, found))
        except (BenchError, KeyError) as error:
            notes.append(f"{row.label} is not compared: {error}")
    return usable


def _spreads(
    found: Sequence[significance.Samples], notes: list[str], labels: Sequence[str]
) -> dict[tuple[int, int], significance.Spread]:
    spreads = {}
    for a, b in combinations(range(len(found)), 2):
        seeds = sorted(set(found[a].seeds) & set(found[b].seeds))
        if len(seeds) < 2:
            shared = counted(len(seeds), "seed")
            notes.append(f"{labels[a]} and {labels[b]} share {shared}: not compared")
        elif found[a].images != found[b].images:
            notes.append(f"{labels[a]} and {labels[b]} have rows of other images: not compared")
        else:
            difference = _of(found[a], seeds) - _of(found[b], seeds)
            spreads[a, b] = significance.spread_of(difference)
    return spreads


def _of(found: significance.Samples, seeds: Sequence[int]) -> np.ndarray:
    """Return the values of these seeds, (seeds, images)."""
    return found.values[[found.seeds.index(seed) for seed in seeds]]


class MatrixCell(NamedTuple):
    """A cell of the matrix: its class, the sign and number that are shown, and all in words."""

    kind: str
    sign: str = ""
    text: str = ""
    words: str = ""


def verdict_facts(table: ReportTable, verdicts: Verdicts) -> dict[str, Any]:
    """Return what the page shows: a sentence, the rows of the matrix, and notes.

    The matrix has no rows where nothing is compared; the sentence then says why.
    """
    notes = [*verdicts.notes[:MOST_NOTES]]
    if len(verdicts.notes) > MOST_NOTES:
        notes.append(f"and {len(verdicts.notes) - MOST_NOTES} more of this kind")
    facts: dict[str, Any] = {"notes": ". ".join(notes) + "." if notes else "", "matrix": []}
    if len(table.rows) < 2:
        return facts | {"summary": "One row: there is nothing to compare it with."}
    if not verdicts.pairs:
        return facts | {
            "summary": "No verdict: a difference between methods needs at least two seeds of each. "
            "What another seed would change is not known, so small differences here mean nothing."
        }
    places = range(len(verdicts.rows))
    matrix = [
        (row, [_cell(table, verdicts, a, b) for b in places]) for a, row in enumerate(verdicts.rows)
    ]
    return facts | {"summary": _summary(table, verdicts), "matrix": matrix}


def _summary(table: ReportTable, verdicts: Verdicts) -> str:
    found = Counter(result.verdict for result in verdicts.pairs.values())
    settled = found["better"] + found["worse"]
    margin = f"{MARGIN * table.score.scale:g}"
    said = (
        f"Of {len(verdicts.pairs)} pairs, {settled} differ, {found['equal']} are equal within "
        f"±{margin} and {found['inconclusive']} are inconclusive: {table.score.label}, paired "
        f"over seeds and images; pairs differ where p, after Holm over all pairs of this table, is "
        f"below 0.05."
    )
    needed = sorted(r.seeds_needed for r in verdicts.pairs.values() if r.seeds_needed)
    if needed:
        said += (
            f" With about {needed[0]} seeds in all the nearest of the inconclusive pairs would be "
            f"settled, with {needed[(len(needed) - 1) // 2]} half of those that seeds can settle."
        )
    return said


def _cell(table: ReportTable, verdicts: Verdicts, a: int, b: int) -> MatrixCell:
    result = verdicts.pairs.get((min(a, b), max(a, b)))
    if a == b or result is None:
        return MatrixCell("none", text="" if a == b else "-")
    sign = 1 if a < b else -1
    verdict = result.verdict if a < b else TURNED.get(result.verdict, result.verdict)
    difference = table.shown(sign * result.spread.mean, "+")
    ends = sorted((sign * result.low, sign * result.high))
    interval = " to ".join(table.shown(end, "+") for end in ends)
    pair = f"{verdicts.rows[a].label} less {verdicts.rows[b].label}"
    said = (
        f"{pair}: {difference}, 95 % interval {interval}, p {result.p:.2g}, "
        f"{result.spread.seeds} seeds, {verdict}"
    )
    said = "; ".join(filter(None, [said, significance.settling(result)]))
    return MatrixCell(verdict, VERDICT_STYLES[verdict].sign, difference, said)
