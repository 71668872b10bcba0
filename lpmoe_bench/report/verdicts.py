"""Verdicts as a matrix: the row's score less the column's, and whether that is sure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from lpmoe_bench.analysis.groups import GroupSource
from lpmoe_bench.analysis.pairing import Rules, common_seeds, judge_paired, pair_rows
from lpmoe_bench.analysis.planning import seeds_needed, settling
from lpmoe_bench.analysis.samples import SeedRows
from lpmoe_bench.analysis.significance import Comparison
from lpmoe_bench.console import VERDICT_STYLES
from lpmoe_bench.errors import BenchError, NotComparableError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.report.contents import ReportRow, ReportTable
from lpmoe_bench.tables.rows import counted

MOST_ROWS = 24  # a matrix of more cannot be read
MARGIN = 0.005  # as `compare` has it
TURNED = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Verdicts:
    """Comparisons of rows by their places in `rows`: (a, b), a < b, for A - B.

    notes: what a reader must know, such as rows that could not be compared.
    """

    rows: Sequence[ReportRow]
    pairs: dict[tuple[int, int], Comparison]
    notes: Sequence[str]


def judge_rows(table: ReportTable, margin: float = MARGIN) -> Verdicts:
    """Compare every pair of rows that share two seeds or more, corrected over all these pairs.

    Where no row has seeds, maps of no known seed are compared as the very models that they are.
    """
    metric = METRICS.get(table.score.key)
    scored = [row for row in table.ranked() if row.score.mean is not None]
    several = [row for row in scored if len(row.stored) > 1]
    several = several or [row for row in scored if row.stored[0].record.seed is None]
    if metric is None or len(several) < 2:
        return Verdicts((), {}, ())
    notes: list[str] = []
    if singles := len(table.rows) - len(several):
        notes.append(f"{counted(singles, 'row')} of one seed or none: not compared")
    if len(several) > MOST_ROWS:
        notes.append(f"Only the {MOST_ROWS} best of {len(several)} rows are compared")
    rows, values = [], []
    for row in several[:MOST_ROWS]:
        try:
            values.append(significance.samples(row.stored, table.test, table.score.key))
            rows.append(row)
        except (BenchError, KeyError) as error:
            notes.append(f"{row.label} is not compared: {error}")
    pairs = {}
    for a, b in combinations(range(len(rows)), 2):
        names = f"{rows[a].label} and {rows[b].label}"
        try:
            seeds = comparison.common_seeds(rows[a].stored, rows[b].stored)
            if len(seeds) == 1:
                notes.append(f"{names} share 1 seed: not compared")
                continue
            pairs[a, b] = comparison.pair_samples(values[a], values[b], seeds, table.score.key)
        except NotComparableError as error:
            notes.append(f"{names} are not compared: {error}")
    ups = [metric.higher_is_better] * len(pairs)
    results = comparison.judge_paired(list(pairs.values()), ups, margin)
    if any(len(pair.seeds) == 2 for pair in pairs.values()):
        notes.append("Of two seeds, intervals are wide and cover a little less than they promise")
    if not all(pair.seeds for pair in pairs.values()):
        notes.append("Without seeds these very maps are compared, over images alone")
    return Verdicts(rows, dict(zip(pairs, results, strict=True)), notes)


def verdict_facts(table: ReportTable, verdicts: Verdicts) -> dict[str, Any]:
    """Return what the page shows: how many pairs are settled, the rows of the matrix, and notes."""
    places = range(len(verdicts.rows))
    found = verdicts.pairs.values()
    return {
        "pairs": len(found),
        "found": Counter(result.verdict for result in found),
        "label": table.score.label,
        "margin": f"{MARGIN * table.score.scale:g}",
        "needed": sorted(result.seeds_needed for result in found if result.seeds_needed),
        "notes": verdicts.notes,
        "matrix": [
            (row, [_cell(table, verdicts, a, b) for b in places])
            for a, row in enumerate(verdicts.rows)
        ],
    }


def _cell(table: ReportTable, verdicts: Verdicts, a: int, b: int) -> dict[str, str]:
    """Return a cell of the matrix: its class, the sign and number that are shown, all in words."""
    result = verdicts.pairs.get((min(a, b), max(a, b)))
    if a == b or result is None:
        return {"kind": "none", "text": "" if a == b else "-"}
    sign = 1 if a < b else -1
    verdict = result.verdict if a < b else TURNED.get(result.verdict, result.verdict)
    difference = table.shown(sign * result.spread.mean, "+")
    low, high = sorted((sign * result.low, sign * result.high))
    words = (
        f"{verdicts.rows[a].label} less {verdicts.rows[b].label}: {difference}, 95 % interval "
        f"{table.shown(low, '+')} to {table.shown(high, '+')}, p {result.p:.2g}, "
        f"{result.spread.seeds} seeds, {verdict}"
    )
    wanted = significance.settling(result, verdicts.rows[min(a, b)].label)
    style = VERDICT_STYLES[verdict]
    words = "; ".join(filter(None, [words, wanted]))
    return {"kind": verdict, "sign": style.sign, "text": difference, "words": words}
