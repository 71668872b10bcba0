"""What `score` prints: scores of all folders side by side, and the order under other protocols."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.records.model import Record
from lpmoe_bench.scoring.vary import Line, turn_sentences
from lpmoe_bench.tables.parts import Column, metric_columns


def show_scores(records: Sequence[Record], console: Console) -> None:
    """Print a table for each test set: a row for each metric, a column for each method."""
    for test in dict.fromkeys(test for record in records for test in record.scores):
        having = [record for record in records if test in record.scores]
        protocol = get_protocol(having[0].protocol.name)
        _say(console, f"{test}, protocol {protocol.label}")
        table = Table("metric")
        for record in having:
            table.add_column(escape(record.method.title), justify="right")
        for column in metric_columns(having, test, ["all"]):
            arrow = {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]
            values = [column.value(record, test) for record in having]
            cells = [_number(value, column) for value in values]
            table.add_row(escape(column.label) + arrow, *cells)
        table.add_row("images", *(_coverage(record, test) for record in having))
        console.print(table)


def _number(value: float | None, column: Column) -> str:
    return "-" if value is None else f"{value * column.scale:.{column.decimals}f}"


def _coverage(record: Record, test: str) -> str:
    counts = record.counts.get(test, {})
    images, expected = counts.get("images", 0), counts.get("expected", 0)
    return str(images) if images == expected else f"[bold red]{images}/{expected}[/]"


def show_lines(test: str, lines: Sequence[Line], console: Console) -> None:
    """Print every way to every score, then where the order of methods turns."""
    methods = list(lines[0].values) if lines else []
    _say(console, f"{test}, every protocol")
    table = Table("metric", "protocols that give these values")
    for method in methods:
        table.add_column(escape(method), justify="right")
    table.add_column("order turns")
    last = ""
    for line in lines:
        if line.family != last and last:
            table.add_section()
        last = line.family
        cells = (f"{line.values[method]:.4f}" for method in methods)
        turns = ", ".join(f"{behind} > {ahead}" for ahead, behind in line.turns)
        table.add_row(escape(line.metric), escape(", ".join(line.protocols)), *cells, escape(turns))
    console.print(table)
    sentences = turn_sentences(lines)
    if not sentences and len(methods) > 1:
        sentences = ["the order of these methods is the same under all protocols"]
    for sentence in sentences:
        _say(console, sentence)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
