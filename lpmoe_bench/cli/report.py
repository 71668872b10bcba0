"""The `report` command: records as one HTML file, or one plot of score against cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpmoe_bench.cli.options import DataRoot, Datasets, NoColor, Quiet

if TYPE_CHECKING:
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.report.contents import Material
    from lpmoe_bench.report.disputes import Gallery


def report(
    roots: Annotated[list[Path] | None, typer.Argument(help="Folders of records.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of index.html.")] = Path(
        "report"
    ),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "lpmoe-bench report",
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    test_set: Annotated[str | None, typer.Option(help="Only this test set.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only records of this setting: train.limit_train=150.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Score of plots; else the primary.")] = None,
    across: Annotated[str, typer.Option(help="Mix these in one table: decoder.")] = "",
    pareto: Annotated[
        Path | None, typer.Option(help="Write this plot alone: a file .svg or .png.")
    ] = None,
    x: Annotated[str, typer.Option(help="Its cost: parameters, images_per_second, memory, ...")] = (
        "parameters"
    ),
    images: Annotated[int, typer.Option(help="How many disputed images.", min=1)] = 8,
    no_images: Annotated[bool, typer.Option("--no-images", help="No picture of a set.")] = False,
    maps: Annotated[
        list[str] | None, typer.Option(help="Maps of scored records: NAME=FOLDER.")
    ] = None,
    data_root: DataRoot = None,
    datasets: Datasets = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """Write one HTML file of records: tables, plots, verdicts, disputed images; opens offline."""
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.records.context import parse_only
    from lpmoe_bench.records.store import find_records
    from lpmoe_bench.report.contents import Choice, gather

    choice = Choice(
        task,
        test_set,
        metric,
        tuple(across.split(",")) if across else (),
        parse_only(only or ()),
    )
    terminal = Terminal(quiet, no_color)
    material = gather(find_records(roots or None), choice)
    for note in material.notes:
        terminal.note(note)
    if pareto is not None:
        from lpmoe_bench.report.pareto import write_pareto

        for note in write_pareto(material, x, pareto):
            terminal.note(note)
        print(pareto)
        return
    gallery = _gallery(images, no_images, maps or [], data_root, datasets)
    print(_write(material, title, output, gallery, terminal))


def _gallery(
    count: int, no_images: bool, maps: list[str], data_root: Path | None, datasets: Path | None
) -> Gallery:
    from lpmoe_bench.data.registry import load_registry
    from lpmoe_bench.model.weights.resolve import default_cache
    from lpmoe_bench.report.disputes import Gallery, Source, parse_maps

    source = None if no_images else Source(load_registry(datasets), data_root, default_cache())
    return Gallery(source, parse_maps(maps), count)


def _write(
    material: Material, title: str, folder: Path, gallery: Gallery, terminal: Terminal
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
