"""The `report` command: records as one HTML file, or one plot of score against cost."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpmoe_bench.cli import options

if TYPE_CHECKING:
    from lpmoe_bench.report.disputes import PictureSources


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
    pareto: Annotated[
        Path | None, typer.Option(help="Write this plot alone: a file .pdf, .svg, .png or .pgf.")
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
    from lpmoe_bench.files import write_atomically
    from lpmoe_bench.records.context import narrow
    from lpmoe_bench.report.contents import Selection, gather_contents
    from lpmoe_bench.report.page import build_page
    from lpmoe_bench.report.plots import need_plots, write_pareto

    settings, tasks, methods, tests = kept.parsed()
    choice = Selection(
        tasks[0] if len(tasks) == 1 else None,
        tests[0] if len(tests) == 1 else None,
        metric,
        tuple(across.split(",")) if across else (),
        settings,
    )
    need_plots()
    several = (tasks if len(tasks) > 1 else (), methods, tests if len(tests) > 1 else ())
    contents = gather_contents(narrow(options.readable_records(roots), (), *several), choice)
    for note in contents.notes:
        out.terminal.note(note)
    if pareto is not None:
        written = pareto
        for note in write_pareto(contents, x, pareto):
            out.terminal.note(note)
    else:
        written = output / "index.html"
        sources = _sources(count, no_images, maps or [], data_root, datasets)
        # Records and code stay to the end: that garbage is looked for among them as often as plots
        # are made takes a tenth of the time.
        gc.freeze()
        with out.terminal.bar("report", len(contents.tables)) as bar:
            text = build_page(contents, title, sources, bar.update)
        if sources.embedded:
            out.terminal.note(
                f"the page holds images of {', '.join(dict.fromkeys(sources.embedded))}: make it "
                f"with --no-images before you publish it"
            )
        write_atomically(written, text)
    out.print({"output": str(written)}, written)


def _sources(
    count: int, no_images: bool, maps: list[str], data_root: Path | None, datasets: Path | None
) -> PictureSources:
    from lpmoe_bench.data.registry import load_registry
    from lpmoe_bench.environment import default_cache
    from lpmoe_bench.report.disputes import PictureSources
    from lpmoe_bench.report.maps import SetSource, parse_maps

    source = None if no_images else SetSource(load_registry(datasets), data_root, default_cache())
    return PictureSources(source, parse_maps(maps), count)
