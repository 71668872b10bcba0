"""The `report` command: records as one HTML file, or one plot of score against cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.cli import options


def report_command(
    *,
    roots: options.Roots = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of index.html.")] = Path(
        "report"
    ),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "lpmoe-bench report",
    kept: options.RecordFilter,
    metric: Annotated[
        str | None,
        typer.Option("--metrics", "--metric", help="Score of the plots; else the primary one."),
    ] = None,
    across: Annotated[str, typer.Option(help="Mix these in one table: decoder.")] = "",
    against: Annotated[
        str | None,
        typer.Option(
            help="A method that every other is compared with.", show_default="decoder_only"
        ),
    ] = None,
    judged: options.VerdictOptions,
    scatter: Annotated[
        Path | None,
        typer.Option("--pareto", help="Write this plot alone: a file .pdf, .svg, .png or .pgf."),
    ] = None,
    confused: Annotated[
        Path | None,
        typer.Option("--confusion", help="Write which classes are taken for which alone: a file."),
    ] = None,
    x: Annotated[
        str, typer.Option(help="Its cost: parameters, images_per_second, memory, or a cost column.")
    ] = ("parameters"),
    count: Annotated[int, typer.Option(help="How many disputed images.", min=1)] = 8,
    no_images: Annotated[bool, typer.Option("--no-images", help="No picture of a set.")] = False,
    maps: Annotated[
        list[str] | None, typer.Option(help="Maps of scored records that moved: NAME=FOLDER.")
    ] = None,
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    out: options.Output,
) -> None:
    """Write one HTML file of records: tables, plots, verdicts, disputed images; opens offline."""
    from lpmoe_bench.data.registry import load_registry
    from lpmoe_bench.environment import default_cache
    from lpmoe_bench.files import write_atomically
    from lpmoe_bench.records.context import narrow, unsealed_text
    from lpmoe_bench.report import confusion, contents, images, page, pareto, plots

    rules = judged.rules()
    settings, tasks, methods, tests = kept.parsed()
    choice = contents.Selection(
        tasks[0] if len(tasks) == 1 else None,
        tests[0] if len(tests) == 1 else None,
        metric,
        tuple(across.split(",")) if across else (),
        settings,
    )
    # Before records are read, which takes longer.
    plots.need_plots()
    # One name is left to the selection, which says what there is instead of a wrong one.
    several = (tasks if len(tasks) > 1 else (), methods, tests if len(tests) > 1 else ())
    found = narrow(options.readable_records(roots), (), *several)
    shown = contents.gather_contents(found, choice, rules.groups)
    for note in (*shown.notes, *filter(None, [unsealed_text(found.records)])):
        out.terminal.note(note)
    if scatter is not None:
        for note in pareto.write_pareto(shown, x, scatter):
            out.terminal.note(note)
        return out.print({"output": str(scatter)}, scatter)
    if confused is not None:
        confusion.write_confusion(shown, confused)
        return out.print({"output": str(confused)}, confused)
    named, written = images.parse_maps(maps or []), output / "index.html"
    source = None
    if not no_images:
        source = images.SetSource(load_registry(datasets), data_root, default_cache(), named)
    with out.terminal.bar("report", len(shown.tables)) as bar:
        text, embedded = page.build_page(shown, title, source, count, bar.update, against, rules)
    if embedded:
        out.terminal.note(
            f"the page holds images of {', '.join(embedded)}: make it with --no-images before you "
            f"publish it"
        )
    write_atomically(written, text)
    out.print({"output": str(written)}, written)
