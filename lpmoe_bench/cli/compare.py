"""The `compare` command: two methods side by side, with intervals and verdicts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.console import VERDICT_STYLES
from lpmoe_bench.metrics.facts import get_metric

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lpmoe_bench.analysis.comparison import ComparisonLine, Report


def compare_command(
    *,
    a: Annotated[
        str, typer.Argument(help="A method or fingerprint among the records, or a folder of runs.")
    ],
    b: Annotated[str, typer.Argument(help="The one it is compared with.")],
    records: Annotated[
        list[Path] | None, typer.Option("--records", help="Folders of records to look in.")
    ] = None,
    kept: options.RecordFilter,
    metrics: options.Metrics = None,
    margin: Annotated[
        float, typer.Option(help="Differences below this are equal.", min=0, max=1)
    ] = 0.005,
    out: options.Output,
) -> None:
    """Compare two methods, paired over seeds and images: A - B, interval, verdict."""
    import lpmoe_bench

    found = kept.narrow(options.readable_records(records))
    report = lpmoe_bench.compare(a, b, records=found, metrics=options.names(metrics), margin=margin)
    for note in report.notes:
        out.terminal.note(note)
    if out.json:
        out.print(asdict(report) | {"margin": margin}, "")
    else:
        _show(report, margin, out.console)


def _show(report: Report, margin: float, console: Console) -> None:
    from lpmoe_bench.analysis.significance import settling

    title = f"A = {report.a}, B = {report.b}, "
    title += f"seeds {', '.join(map(str, report.seeds))}" if report.seeds else "of no known seed"
    console.print(title, highlight=False, markup=False)
    facts = {key: get_metric(key) for key in {line.metric for line in report.lines}}
    labels = {key: f"{fact.label} {fact.arrow}" for key, fact in facts.items()}
    for test_set in dict.fromkeys(line.test_set for line in report.lines):
        lines = [line for line in report.lines if line.test_set == test_set]
        console.print(_table(test_set, lines, labels))
        reasons: dict[str, list[str]] = {}
        for line in lines:
            reasons.setdefault(settling(line.result), []).append(labels[line.metric])
        for reason, names in reasons.items():
            if reason:
                console.print(f"{', '.join(names)}: {reason}", highlight=False, markup=False)
    legend = (
        f"\nA and B: mean ± standard deviation over seeds; equal: the 95 % interval lies within "
        f"±{margin:g}; p after Holm over all lines"
    )
    console.print(legend, highlight=False, soft_wrap=True)


def _table(test_set: str, lines: list[ComparisonLine], labels: dict[str, str]) -> Table:
    from rich import box, markup, table, text

    made = table.Table(
        title=markup.escape(test_set),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    made.add_column("metric", no_wrap=True)
    for name in ("A", "B", "A - B", "95 % interval", "p"):  # pairs of numbers may take two lines
        made.add_column(name, justify="right", no_wrap=name in ("A - B", "p"))
    made.add_column("A is", no_wrap=True)
    for line in lines:
        result, sides = line.result, ((line.a, line.a_sd), (line.b, line.b_sd))
        made.add_row(
            labels[line.metric],
            *(f"{mean:.3f}" + ("" if sd is None else f" ±{sd:.3f}") for mean, sd in sides),
            f"{result.spread.mean:+.4f}",
            f"{result.low:+.4f} {result.high:+.4f}",
            f"{result.p:.2g}",
            text.Text(result.verdict, VERDICT_STYLES[result.verdict].terminal),
        )
    return made
