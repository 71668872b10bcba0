"""An outcome as a table for people in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lpmoe_bench.check.verdicts import Line, Outcome
from lpmoe_bench.check.words import label, limit, number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLOURS = {
    "pass": "green",
    "improved": "cyan",
    "inconclusive": "yellow",
    "not comparable": "magenta",
    "regressed": "red",
}


def show(outcome: Outcome, console: Console) -> None:
    """Print a table a cell, the reasons below it, and the verdict of the call last.

    Counts that are equal share one line.
    """
    from rich.text import Text

    for cell in dict.fromkeys(line.cell for line in outcome.lines):
        lines = [line for line in outcome.lines if line.cell == cell]
        console.print(cell, highlight=False, markup=False, style="bold", soft_wrap=True)
        equal = [line for line in lines if line.kind == "count" and line.verdict == "pass"]
        rows = [line for line in lines if line.candidate is not None and line not in equal]
        if rows:
            console.print(_table(rows))
        if equal:
            console.print(f"{len(equal)} counts of parameters and FLOPs are equal")
        for line in lines:
            if line.reason and line.verdict != "pass":
                words = f"{label(line)}: {line.verdict}, {line.reason}"
                console.print(words, highlight=False, markup=False, soft_wrap=True)
    for note in outcome.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    verdict = Text(outcome.verdict, COLOURS[outcome.verdict])
    console.print(Text("gate: ").append_text(verdict).append(f" ({outcome.summary()})"))


def _table(lines: list[Line]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for name in ("baseline", "candidate", "limit", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for line in lines:
        judged = line.judgement
        table.add_row(
            Text(label(line)),
            number(line, line.baseline),
            number(line, line.candidate),
            limit(line),
            f"{judged.p:.2g}" if judged and judged.p is not None else "",
            Text(line.verdict, COLOURS[line.verdict]),
        )
    return table
