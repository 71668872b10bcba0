"""The `table` command: records and published figures as Markdown, LaTeX, CSV or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpmoe_bench.cli import options

if TYPE_CHECKING:
    from lpmoe_bench.tables.parts import CellCounts


def table_command(
    *,
    roots: options.Roots = None,
    format: Annotated[
        str, typer.Option("--format", "-f", help="markdown, latex, csv, html or json.")
    ] = "markdown",
    kept: options.RecordFilter,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            "--metric",
            help="all, or names with commas.",
            autocompletion=options.complete_metrics,
        ),
    ] = None,
    by_class: Annotated[
        bool, typer.Option("--by-class", help="A column for each class of label maps: its IoU.")
    ] = False,
    columns: Annotated[
        str,
        typer.Option(
            help="Costs to add, or all; exactly these columns if a usual one or a metric is named."
        ),
    ] = "",
    sort: Annotated[str | None, typer.Option(help="Order rows by this column.")] = None,
    across: Annotated[str, typer.Option(help="Mix these in one table: decoder.")] = "",
    group: Annotated[
        str, typer.Option(help="A table for each test_set, for each task, or for all.")
    ] = "test_set",
    published: Annotated[
        bool, typer.Option("--published", help="Add published figures, with differences.")
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="One published table alone, such as conv_lora.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="A method that every other is compared with.")
    ] = None,
    judged: options.VerdictOptions,
    speeds: Annotated[
        Path | None, typer.Option(help="Speeds from benchmarks/methods.py --json, as columns.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(help="Another text for a method, row, column or test set: lora=Ours."),
    ] = None,
    order: Annotated[str, typer.Option(help="Rows that stand first, with commas.")] = "",
    digits: Annotated[
        int | None, typer.Option(help="Digits behind the point of scores.", min=0, max=6)
    ] = None,
    percent: Annotated[
        bool | None, typer.Option("--percent/--no-percent", help="Print fractions in percent.")
    ] = None,
    sd: Annotated[str | None, typer.Option(help="Spread over seeds: none, small or full.")] = None,
    caption: Annotated[str | None, typer.Option(help="Caption of the table.")] = None,
    label: Annotated[str | None, typer.Option(help="LaTeX's label, HTML's id.")] = None,
    env: Annotated[
        str | None, typer.Option(help="LaTeX: table, table* or none; else what fits.")
    ] = None,
    notes: Annotated[
        str | None, typer.Option(help="Below the table: none, short (LaTeX) or full (others).")
    ] = None,
    style: Annotated[
        Path | None, typer.Option(help="YAML of --columns to --notes; options win over it.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File.")] = None,
    out: options.Output,
) -> None:
    """Print a comparison table of records: Markdown, LaTeX, CSV or HTML."""
    from lpmoe_bench.analysis.groups import group_texts
    from lpmoe_bench.environment import no_collection
    from lpmoe_bench.errors import UsageError
    from lpmoe_bench.files import write_atomically
    from lpmoe_bench.records.context import keep_only, narrow, unsealed_text
    from lpmoe_bench.records.store import default_roots, find_records
    from lpmoe_bench.tables.formats import format_table
    from lpmoe_bench.tables.latex import latex_notes
    from lpmoe_bench.tables.parts import CLASSES
    from lpmoe_bench.tables.style import TableStyle, parse_rename, read_style
    from lpmoe_bench.tables.table import build_table, read_speeds

    if by_class and metrics:
        raise UsageError("--by-class and --metrics both choose the scores; give one of them")
    wanted = [CLASSES] if by_class else options.names(metrics)
    look = read_style(style) if style else TableStyle()
    look = look.changed(
        columns=columns,
        rename=look.rename | parse_rename(rename or ()),
        order=order,
        digits=digits,
        percent=percent,
        sd=sd,
        caption=caption,
        label=label,
        env=env,
        notes=notes,
    )
    rules = judged.rules()
    settings, tasks, methods, tests = kept.parsed()
    # A published table alone needs no record.
    found = find_records(roots or None) if source else options.readable_records(roots)
    for note in found.notes:
        out.terminal.note(note)
    stored = keep_only(found.stored, settings)
    # One name is left to the table, which says what there is instead of a wrong one; it takes no
    # more than one of each, so of several the records are chosen here.
    if len(tasks) > 1 or len(tests) > 1:
        stored = narrow(found._replace(stored=stored), (), tasks, (), tests).stored
    if unsealed := unsealed_text([one.record for one in stored]):
        out.terminal.note(unsealed)
    with no_collection():
        made = build_table(
            [one.record for one in stored],
            task=tasks[0] if len(tasks) == 1 else None,
            methods=methods or None,
            test_set=tests[0] if len(tests) == 1 else None,
            metrics=wanted or None,
            sort=sort,
            across=across.split(",") if across else (),
            group=group,
            published=published,
            source=source,
            cells=_cells(roots or default_roots()),
            speeds=read_speeds(speeds) if speeds else None,
            style=look,
            image_groups=group_texts(stored, rules.groups),
        )
        if against is not None:
            from lpmoe_bench.tables.verdicts import with_verdicts

            made = with_verdicts(made, stored, against, rules)
    text = format_table(made, "json" if out.json else format)
    for note in (*made.notes, *(latex_notes(made) if format == "latex" else ())):
        out.terminal.note(note)
    if output is None:
        print(text, end="")
    else:
        write_atomically(output, text)


def _cells(roots: Sequence[Path]) -> CellCounts | None:
    """Return the cells that sweeps under these roots declared; None where there is no sweep."""
    if not any(next(root.glob("sweeps/*/plan.json"), None) for root in roots):
        return None
    from lpmoe_bench.sweep.execute import cell_counts
    from lpmoe_bench.tables.parts import CellCounts

    there = [root for root in roots if root.is_dir()]
    declared, finished, failed = zip(*(cell_counts(root, there) for root in there), strict=True)
    return CellCounts(sum(declared), sum(finished), [name for names in failed for name in names])
