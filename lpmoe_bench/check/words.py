"""How a line of an outcome is worded, the same in every form of output."""

from __future__ import annotations

from lpmoe_bench.check.verdicts import Line
from lpmoe_bench.metrics.facts import METRICS


def label(line: Line) -> str:
    """Return the name of what is judged; a metric's with its direction."""
    if line.kind != "quality" or line.name not in METRICS:
        return line.name
    fact = METRICS[line.name]
    return f"{fact.label} {'↑' if fact.higher_is_better else '↓'}"


def number(line: Line, value: float | None) -> str:
    """Return a value with the digits that its kind deserves."""
    if value is None:
        return "-"
    if line.kind == "count":
        return f"{value:,.0f}"
    return f"{value:.1f}" if line.kind == "speed" else f"{value:.4f}"


def limit(line: Line) -> str:
    """Return the limit of a score, a dash where there is none."""
    judgement = line.judgement
    return number(line, judgement.limit if judgement else None)


def sentence(line: Line) -> str:
    """Say a line in one sentence."""
    said = f"{label(line)} is {line.verdict}"
    if line.candidate is not None:
        said += f": {number(line, line.candidate)}, baseline {number(line, line.baseline)}"
    if line.judgement and line.judgement.limit is not None:
        said += f", limit {limit(line)}"
    return f"{said}; {line.reason}" if line.reason else said
