"""The `compare` command: two methods side by side, with intervals and verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.console import VERDICT_STYLES
from lpmoe_bench.metrics.facts import get_metric

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lpmoe_bench.analysis.comparison import ComparisonLine, Report

PLANNED_SEEDS = (3, 5, 10, 20)
MORE_IMAGES = 4  # times as many, the other way to see more


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
    judged: options.VerdictOptions,
    over: Annotated[str, typer.Option(help="task: one answer over all test sets as well.")] = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show seeds, images, groups, what varies, the family.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show the smallest difference that more would find.")
    ] = False,
    out: options.Output,
) -> None:
    """Compare two methods, paired over seeds and images: A - B, interval, verdict."""
    import lpmoe_bench

    judged.rules()  # wrong options are refused before records are read
    found = kept.narrow(options.readable_records(records))
    report = lpmoe_bench.compare(
        a,
        b,
        records=found,
        metrics=options.names(metrics),
        margin=judged.margin,
        groups=judged.groups,
        family=judged.family,
        looks=judged.looks,
        over=over,
    )
    for note in report.notes:
        out.terminal.note(note)
    if out.json:
        found = asdict(report) | {"family": judged.family, "looks": judged.looks}
        return out.print(
            found
            | (
                {"plan": list(_plans(report.lines, judged.looks, bool(report.seeds)))}
                if plan
                else {}
            ),
            "",
        )
    _show(report, judged, out.console, explain, plan)
    return None


def _show(
    report: Report, judged: options.VerdictOptions, console: Console, explain: bool, plan: bool
) -> None:
    from lpmoe_bench.analysis.planning import settling

    title = f"A = {report.a}, B = {report.b}, "
    title += f"seeds {', '.join(map(str, report.seeds))}" if report.seeds else "of no known seed"
    console.print(title, highlight=False, markup=False)
    facts = {key: get_metric(key) for key in {line.metric for line in report.lines}}
    labels = {key: f"{fact.label} {fact.arrow}" for key, fact in facts.items()}
    for test_set in dict.fromkeys(line.test_set for line in report.lines):
        lines = [line for line in report.lines if line.test_set == test_set]
        console.print(_verdicts(test_set, lines, labels))
        if explain:
            console.print(_explained(lines, labels))
        if plan:
            console.print(_planned(lines, labels, judged.looks, bool(report.seeds)))
        reasons: dict[str, list[str]] = {}
        for line in lines:
            reason = settling(line.result, models=not report.seeds)
            reasons.setdefault(reason, []).append(labels[line.metric])
        for reason, names in reasons.items():
            if reason:
                console.print(f"{', '.join(names)}: {reason}", highlight=False, markup=False)
    if report.tasks:
        console.print(_answers(report, labels))
    counts = sorted({line.result.family for line in report.lines})
    of = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    what = ("method on a test set", "methods on a test set")
    if judged.family != "set":
        what = ("comparison on all test sets", "comparisons on all test sets")
    over = what[counts != [1]]
    margins = {f"{labels[line.metric]} {line.result.margin:.3g}" for line in report.lines}
    console.print(
        f"\nA and B: mean ± standard deviation over seeds; p after Holm over the {of} {over} that "
        f"these records compare with B, each metric by itself; equal: two one-sided tests put the "
        f"difference within ±margin ({', '.join(sorted(margins)[:8])})",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def _table(title: str, heads: Sequence[str], left: Sequence[str]) -> Table:
    from rich import box, markup, table

    made = table.Table(
        title=markup.escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for name in heads:  # pairs of numbers may take two lines
        made.add_column(
            name, justify="left" if name in left else "right", no_wrap=name in (*left, "A - B", "p")
        )
    return made


def _verdicts(test_set: str, lines: list[ComparisonLine], labels: dict[str, str]) -> Table:
    from rich import text

    heads = ("metric", "A", "B", "A - B", "95 % interval", "p", "A is")
    made = _table(test_set, heads, ("metric", "A is"))
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


def _explained(lines: list[ComparisonLine], labels: dict[str, str]) -> Table:
    """Where the width of an interval comes from, in shares of the variance of the mean."""
    units = "groups" if any(line.groups for line in lines) else "images"
    heads = ("metric", "seeds", "images", "groups", "of seeds", f"of {units}", "of the rest")
    made = _table("What varies", (*heads, "margin", "family"), ("metric", "groups"))
    for line in lines:
        spread = line.result.spread
        made.add_row(
            labels[line.metric],
            str(spread.seeds),
            "fixed" if spread.units == 1 else str(spread.images),
            line.groups or "each image",
            *(f"{share:.0%}" for share in spread.shares),
            f"{line.result.margin:.3g}",
            str(line.result.family),
        )
    return made


def _plans(
    lines: Sequence[ComparisonLine], looks: int, has_seeds: bool
) -> Iterator[dict[str, Any]]:
    """Yield the smallest difference of each line that is found with 80 % power after Holm: with
    what is there, with other numbers of seeds, with more images or groups."""
    from lpmoe_bench.analysis.planning import resolved
    from lpmoe_bench.analysis.significance import LEVEL

    for line in lines:
        spread, level = line.result.spread, (1 - LEVEL) / line.result.family / looks
        more = spread.units * MORE_IMAGES if spread.units > 1 else None
        yield {
            "test_set": line.test_set,
            "metric": line.metric,
            # One seed of each gets no verdict, whatever the difference; a scored map may.
            "now": None if spread.seeds == 1 and has_seeds else resolved(spread, level),
            "seeds": {
                str(seeds): resolved(spread, level, seeds) if spread.seeds > 1 else None
                for seeds in PLANNED_SEEDS
            },
            "units": {} if more is None else {str(more): resolved(spread, level, None, more)},
        }


def _planned(
    lines: list[ComparisonLine], labels: dict[str, str], looks: int, has_seeds: bool
) -> Table:
    seeds = [f"{count} seeds" for count in PLANNED_SEEDS]
    title = "Smallest difference found with 80 % power after Holm"
    heads = ("metric", "as it is", *seeds, f"{MORE_IMAGES} x images or groups")
    made = _table(title, heads, ("metric",))
    for line, found in zip(lines, _plans(lines, looks, has_seeds), strict=True):
        limits = [found["now"], *found["seeds"].values(), *(found["units"].values() or (None,))]
        made.add_row(labels[line.metric], *("-" if x is None else f"{x:.4f}" for x in limits))
    return made


def _answers(report: Report, labels: dict[str, str]) -> Table:
    heads = ("metric", "A - B", "95 % interval", "A better", "by the margin", "equal")
    count = len(report.tasks[0].test_sets)
    sets = f"{count} test sets" if count > 1 else "1 test set, whose own answer it is"
    made = _table(f"Over {sets}: mean difference, and chances", heads, ("metric",))
    for one in report.tasks:
        chances = (one.better, one.by_margin, one.equal)
        made.add_row(
            labels[one.metric],
            f"{one.mean:+.4f}",
            f"{one.low:+.4f} {one.high:+.4f}",
            *(f"{chance:.3f}" for chance in chances),
        )
    return made
