"""The `report` command: records as one HTML file, or one plot of score against cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpmoe_bench.cli import options

if TYPE_CHECKING:
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.report.contents import ReportContents
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
        Path | None, typer.Option(help="Write this plot alone: a file .svg or .png.")
    ] = None,
    x: Annotated[str, typer.Option(help="Its cost: parameters, images_per_second, memory, ...")] = (
        "parameters"
    ),
    count: Annotated[int, typer.Option(help="How many disputed images.", min=1)] = 8,
    no_images: Annotated[bool, typer.Option("--no-images", help="No picture of a set.")] = False,
    maps: Annotated[
        list[str] | None, typer.Option(help="Maps of scored records: NAME=FOLDER.")
    ] = None,
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    out: options.Output,
) -> None:
    """Write one HTML file of records: tables, plots, verdicts, disputed images; opens offline."""
    from lpmoe_bench.records.context import narrow
    from lpmoe_bench.report.contents import Selection, gather_contents

    settings, tasks, methods, tests = kept.parsed()
    choice = Selection(
        tasks[0] if len(tasks) == 1 else None,
        tests[0] if len(tests) == 1 else None,
        metric,
        tuple(across.split(",")) if across else (),
        settings,
    )
    several = (tasks if len(tasks) > 1 else (), methods, tests if len(tests) > 1 else ())
    found = narrow(options.readable_records(roots), (), *several)
    material = gather_contents(found, choice)
    for note in material.notes:
        out.terminal.note(note)
    if pareto is not None:
        from lpmoe_bench.report.pareto import write_pareto

        for note in write_pareto(material, x, pareto):
            out.terminal.note(note)
        return out.print({"output": str(pareto)}, pareto)
    gallery = _gallery(count, no_images, maps or [], data_root, datasets)
    page = _write(material, title, output, gallery, out.terminal)
    return out.print({"output": str(page)}, page)


def _gallery(
    count: int, no_images: bool, maps: list[str], data_root: Path | None, datasets: Path | None
) -> PictureSources:
    from lpmoe_bench.data.registry import load_registry
    from lpmoe_bench.environment import default_cache
    from lpmoe_bench.report.disputes import PictureSources, TestImages, parse_maps

    source = None if no_images else TestImages(load_registry(datasets), data_root, default_cache())
    return PictureSources(source, parse_maps(maps), count)


def _write(
    material: ReportContents, title: str, folder: Path, gallery: PictureSources, terminal: Terminal
) -> Path:
    from lpmoe_bench.files import write_atomically
    from lpmoe_bench.report.build import build_page

    with terminal.bar("report", len(material.chapters)) as bar:
        text = build_page(material, title, gallery, bar.update)
    if gallery.embedded:
        terminal.note(
            f"the page holds images of {', '.join(dict.fromkeys(gallery.embedded))}: make it with "
            f"--no-images before you publish it"
        )
    path = folder / "index.html"
    write_atomically(path, text)
    return path
