"""Who is better, on a page: rows less one reference, all pairs, one answer over test sets."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import fmean
from typing import Any

from lpmoe_bench.analysis.groups import GroupSource
from lpmoe_bench.analysis.over_sets import TaskAnswer, answer_by_rules
from lpmoe_bench.analysis.pairing import PairedRows, Rules, common_seeds, judge_paired, pair_samples
from lpmoe_bench.analysis.planning import settling
from lpmoe_bench.analysis.samples import SeedRows
from lpmoe_bench.analysis.significance import LEVEL, Comparison, Spread
from lpmoe_bench.console import VERDICT_STYLES
from lpmoe_bench.errors import BenchError, NotComparableError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.report.contents import ReportRow, ReportTable
from lpmoe_bench.tables.joined import of_tasks
from lpmoe_bench.tables.parts import Group, Row
from lpmoe_bench.tables.rows import counted
from lpmoe_bench.tables.verdicts import Pairs, find_references, pair_group, verdict_lines

MOST_ROWS = 24  # a matrix or a list of more cannot be read
REFERENCE = "decoder_only"  # what others are compared with where nobody names a row


# Verdicts: those of `table --against` and of `compare`.


@dataclass(frozen=True)
class JudgedTable:
    """The rows of a table less one of them. reference: that one; None where there is none, and
    `reason` says why. results: of each row, by its key."""

    table: ReportTable
    reference: Row | None
    pairs: Pairs = field(default_factory=Pairs)
    results: Mapping[tuple[str, ...], Comparison] = field(default_factory=dict)
    lines: Sequence[str] = ()
    reason: str = ""

    def rows(self) -> list[tuple[ReportRow, PairedRows, Comparison]]:
        """Return the rows that were judged, the best score first."""
        return [
            (row, self.pairs.found[row.row.key, self.table.test], self.results[row.row.key])
            for row in self.table.ranked()
            if row.row.key in self.results
        ]


def judge_tables(
    tables: Sequence[ReportTable], against: str | None, rules: Rules
) -> list[list[JudgedTable]]:
    """Compare the rows of each table with one of them, by the score that the report shows.

    Args:
        tables: those of the report.
        against: the method, title or label of a row; None for REFERENCE where it is one row.
        rules: how differences are judged.

    Returns:
        The tables, those of one task that differ in the test set alone together.

    Raises:
        UsageError: no table has the row, or one has several of that name.
    """
    groups = [table.group for table in tables]
    found = [*map(_usual, groups)] if against is None else find_references(groups, against)
    of = {id(table.group): (table, row) for table, row in zip(tables, found, strict=True)}
    made = []
    for singles in of_tasks(groups):
        together = [_paired(*of[id(group)], against, rules) for group in singles]
        pairs = [pair for one in together for pair in one.pairs.found.values()]
        results = iter(judge_paired(pairs, rules))
        made.append(
            [
                _told(one, {key: next(results) for key, _ in one.pairs.found}, rules)
                for one in together
            ]
        )
    rules.groups.require_use()
    return made


def _usual(group: Group) -> Row | None:
    found = [row for row in group.rows if row.records and row.method == REFERENCE]
    return found[0] if len(found) == 1 else None


def _paired(
    table: ReportTable, reference: Row | None, against: str | None, rules: Rules
) -> JudgedTable:
    if reference is None and against is None:
        several = any(row.row.method == REFERENCE for row in table.rows)
        why = f"{'several rows are' if several else 'no row is'} {REFERENCE}"
        how = "name the row that others are compared with: lpmoe-bench report --against NAME"
        return JudgedTable(table, None, reason=f"No verdicts, for {why}; {how}.")
    if reference is None:
        return JudgedTable(table, None, reason=f"No row {against} here, so no verdicts.")
    if table.score.key not in METRICS:
        why = f"No verdicts, for this version knows no direction of {table.score.key}."
        return JudgedTable(table, None, reason=why)
    folders = {id(one.record): one for one in table.stored}
    pairs = pair_group(table.group, reference, folders, rules, table.score.key)
    return JudgedTable(table, reference, pairs)


def _told(
    one: JudgedTable, results: Mapping[tuple[str, ...], Comparison], rules: Rules
) -> JudgedTable:
    if one.reference is None:
        return one
    found = [*results.values()]
    lines = verdict_lines(one.table.group, one.reference, one.pairs, found, rules)
    return replace(one, results=results, lines=[*lines, *one.pairs.reasons])


def verdict_facts(one: JudgedTable) -> dict[str, Any]:
    """Return what the page shows of the verdicts: a line for each row, and what stands below."""
    rows = one.rows()
    return {
        "reference": one.reference.label if one.reference else "",
        "reason": one.reason,
        "found": Counter(result.verdict for _, _, result in rows),
        "judged": len(rows),
        "left_out": max(0, len(rows) - MOST_ROWS),
        "rows": [_line(one.table, *found) for found in rows[:MOST_ROWS]],
        "lines": one.lines,
    }


def _line(
    table: ReportTable, row: ReportRow, pair: PairedRows, result: Comparison
) -> dict[str, Any]:
    return {
        "row": row,
        "result": result,
        "difference": table.shown(result.spread.mean, "+"),
        "interval": _interval(table, result.low, result.high),
        "p": f"{result.p:.2g}",
        "margin": f"{result.margin * table.score.scale:.3g}",
        "sign": VERDICT_STYLES[result.verdict].sign,
        "settling": settling(result, row.label, not pair.seeds),
    }


def _interval(table: ReportTable, low: float, high: float) -> str:
    return f"{table.shown(low, '+')} to {table.shown(high, '+')}"


# All pairs: differences and intervals, of which none is a verdict.


@dataclass(frozen=True)
class PairMatrix:
    """How rows differ, by their places in `rows`: (a, b), a < b, for A - B.

    notes: what a reader must know, such as rows that could not be compared.
    """

    rows: Sequence[ReportRow]
    pairs: dict[tuple[int, int], Spread]
    notes: Sequence[str]


def pair_all(table: ReportTable, groups: GroupSource) -> PairMatrix:
    """Pair every two rows that share two seeds or more.

    Where no row has seeds, maps of no known seed are compared as the very models that they are.
    """
    scored = [row for row in table.ranked() if row.score.mean is not None]
    several = [row for row in scored if len(row.stored) > 1]
    several = several or [row for row in scored if row.stored[0].record.seed is None]
    if len(several) < 2:
        return PairMatrix((), {}, ())
    notes: list[str] = []
    if singles := len(table.rows) - len(several):
        notes.append(f"{counted(singles, 'row')} of one seed or none: not compared")
    if len(several) > MOST_ROWS:
        notes.append(f"Only the {MOST_ROWS} best of {len(several)} rows are compared")
    read = [SeedRows(row.stored, table.test) for row in several[:MOST_ROWS]]
    rows, values, found = [], [], None
    for row, own in zip(several, read, strict=False):
        try:
            found = found or groups.of(own)
            values.append(own.samples(table.score.key, found and found.of))
            rows.append(row)
        except (BenchError, KeyError) as error:
            notes.append(f"{row.label} is not compared: {error}")
    pairs = {}
    for a, b in combinations(range(len(rows)), 2):
        names = f"{rows[a].label} and {rows[b].label}"
        try:
            seeds = common_seeds(rows[a].stored, rows[b].stored)
            if len(seeds) == 1:
                notes.append(f"{names} share 1 seed: not compared")
                continue
            pair = pair_samples(values[a], values[b], seeds, table.test, table.score.key, found)
            pairs[a, b] = pair.spread
        except NotComparableError as error:
            notes.append(f"{names} are not compared: {error}")
    if found:
        notes.append(f"The {found.text} vary in place of images")
    if any(spread.seeds == 1 for spread in pairs.values()):
        notes.append(
            "Maps of no known seed are compared as they are, over images and the other's seeds"
        )
    return PairMatrix(rows, pairs, notes)


def matrix_facts(table: ReportTable, matrix: PairMatrix) -> dict[str, Any]:
    """Return what the page shows of all pairs: rows of cells, and notes."""
    shown = {pair: _pair_words(table, matrix, pair) for pair in matrix.pairs}
    places = range(len(matrix.rows))
    empty = {"kind": "none", "text": "-"}
    return {
        "pairs": len(matrix.pairs),
        "label": table.score.label,
        "notes": matrix.notes,
        "rows": [
            (row, [shown.get((min(a, b), max(a, b)), (empty, empty))[a > b] for b in places])
            for a, row in enumerate(matrix.rows)
        ],
    }


def _pair_words(
    table: ReportTable, matrix: PairMatrix, pair: tuple[int, int]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the cells of A - B and of B - A."""
    spread, names = matrix.pairs[pair], [matrix.rows[place].label for place in pair]
    half, cells = spread.uncertainty.half_width(LEVEL), []
    for sign, (one, other) in ((1, names), (-1, names[::-1])):
        mean = sign * spread.mean
        text, interval = table.shown(mean, "+"), _interval(table, mean - half, mean + half)
        words = f"{one} less {other}: {text}, 95 % interval {interval}, {spread.seeds} seeds"
        kind = "apart" if abs(mean) > half else "near"
        cells.append({"kind": kind, "text": text, "interval": interval, "words": words})
    return cells[0], cells[1]


# One answer over the test sets of a task.


@dataclass(frozen=True)
class RowAnswer:
    """One row less the reference over the test sets that both stand on. results: of each set, where
    all comparisons of the task are one family."""

    row: ReportRow
    pairs: Sequence[PairedRows]
    results: Sequence[Comparison]
    answer: TaskAnswer


@dataclass(frozen=True)
class TaskAnswers:
    """The rows of a task less one of them, the largest gain first; tables: one a set. left_out: how
    many rows of less gain have no answer here. family: how many comparisons are judged together."""

    tables: Sequence[ReportTable]
    reference: Row
    rows: Sequence[RowAnswer]
    left_out: int
    family: int


def answer_tasks(judged: Sequence[Sequence[JudgedTable]], rules: Rules) -> list[TaskAnswers]:
    """Answer once over the test sets of each task where rows and reference stand on two or more."""
    return [found for together in judged if (found := _answered(together, rules)) is not None]


def _answered(together: Sequence[JudgedTable], rules: Rules) -> TaskAnswers | None:
    first = next((one for one in together if one.reference), None)
    if first is None or first.reference is None:
        return None
    # One reference and one score: others by the same name would be other comparisons.
    key, metric = first.reference.key, first.table.score.key
    kept = [
        one
        for one in together
        if one.reference and one.reference.key == key and one.table.score.key == metric
    ]
    rows: dict[tuple[str, ...], ReportRow] = {}
    paired: dict[tuple[str, ...], list[PairedRows]] = {}
    for one in kept:
        for row, pair, _ in one.rows():
            rows.setdefault(row.row.key, row)
            paired.setdefault(row.row.key, []).append(pair)
    paired = {key: own for key, own in paired.items() if len(own) > 1}
    if not paired:
        return None
    sign = -1 if METRICS[metric].higher_is_better else 1
    ranked = sorted(paired, key=lambda key: sign * fmean(pair.spread.mean for pair in paired[key]))
    every = [pair for key in ranked for pair in paired[key]]
    results = iter(judge_paired(every, replace(rules, family="table")))
    made = [
        RowAnswer(
            rows[key],
            paired[key],
            [next(results) for _ in paired[key]],
            answer_by_rules(paired[key], rules),
        )
        for key in ranked[:MOST_ROWS]
    ]
    tables, left_out = [one.table for one in kept], len(ranked) - len(made)
    return TaskAnswers(tables, first.reference, made, left_out, len(every))


def answer_facts(found: TaskAnswers) -> dict[str, Any]:
    """Return what the page shows of one answer: a line for each row, and what must be said."""
    table = found.tables[0]
    single = [one.row.label for one in found.rows if len(one.pairs[0].seeds) == 1]
    return {
        "context": table.group.context,
        "tests": [one.test for one in found.tables],
        "score": table.score,
        "reference": found.reference.label,
        "margin": f"{found.rows[0].answer.margin * table.score.scale:.3g}",
        "family": found.family,
        "single": single,
        "left_out": found.left_out,
        "rows": [_answer_line(found, one) for one in found.rows],
    }


def _answer_line(found: TaskAnswers, one: RowAnswer) -> dict[str, Any]:
    table, answer = found.tables[0], one.answer
    verdicts = Counter(result.verdict for result in one.results)
    results = dict(zip((pair.test for pair in one.pairs), one.results, strict=True))
    return {
        "row": one.row,
        "answer": answer,
        "sets": [_set_cell(own, results.get(own.test)) for own in found.tables],
        "mean": table.shown(answer.mean, "+"),
        "interval": _interval(table, answer.low, answer.high),
        "between": table.shown(answer.between_sd),
        "verdicts": ", ".join(
            f"{verdicts[kind]} {kind}" for kind in VERDICT_STYLES if verdicts[kind]
        ),
    }


def _set_cell(table: ReportTable, result: Comparison | None) -> tuple[float | None, str, str]:
    if result is None:
        return None, "-", ""
    return (
        result.spread.mean,
        table.shown(result.spread.mean, "+"),
        _interval(table, result.low, result.high),
    )
