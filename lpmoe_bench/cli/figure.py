"""The `figure` command: images x methods as PDF or PNG, for papers and talks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.cli import options


def figure_command(
    *,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="NAME=FOLDER of maps or FILE of results, runs, or folders of records; else runs."
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Your own folder of images.")] = None,
    gt: Annotated[Path | None, typer.Option(help="... and of their masks, or a COCO file.")] = None,
    kept: options.RecordFilter,
    rows: Annotated[
        str, typer.Option(help="disagreement, worst, even, or names of images with commas.")
    ] = "disagreement",
    count: Annotated[int, typer.Option(help="How many rows.", min=1, max=30)] = 4,
    metric: Annotated[
        str | None,
        typer.Option("--metrics", "--metric", help="Score of the order; else the primary one."),
    ] = None,
    protocol: options.ProtocolName = None,
    show: Annotated[
        str, typer.Option(help="Of each map, with commas: maps, overlays, errors.")
    ] = "maps",
    crop: Annotated[
        list[str] | None,
        typer.Option(help="object, X,Y,WIDTH,HEIGHT in pixels, or NAME=X,Y,WIDTH,HEIGHT."),
    ] = None,
    scores: Annotated[bool, typer.Option("--scores", help="The score below each map.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Of detections: the least score that is shown.", min=0, max=1, show_default="0.5"
        ),
    ] = None,
    width: Annotated[float, typer.Option(help="Inches: 3.25 a column, 6.9 two.", min=1)] = 6.9,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="File: .pdf, .png, .svg.", show_default="figure.pdf"),
    ] = None,
    pixels: options.PixelOptions,
    places: options.DataOptions,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Draw image, mask and the maps of methods side by side, of a task or of your own folders."""
    from lpmoe_bench.data.registry import load_registry
    from lpmoe_bench.environment import default_cache
    from lpmoe_bench.errors import UsageError
    from lpmoe_bench.records.context import narrow
    from lpmoe_bench.records.store import RECORD, FoundRecords
    from lpmoe_bench.report import contents, figure, plots
    from lpmoe_bench.report.images import SetSource, parse_maps

    plots.need_plots()
    crops, around = figure.parse_crops(crop or [])
    look = figure.FigureLook(tuple(options.names([show])), width, crops, around, scores)
    named = parse_maps((text for text in sources or [] if "=" in text), "a source")
    roots = [Path(text) for text in sources or [] if "=" not in text]
    found, (settings, tasks, methods, tests) = FoundRecords([], []), kept.parsed()
    if tests and (gt or places.embedded):
        raise UsageError("--test-set is of records; leave it away with --gt or --embedded")
    for option, several in (("--task", tasks), ("--test-set", tests)):
        if several[1:]:
            raise UsageError(f"a figure shows one test set; {option} names {', '.join(several)}")
    if roots or not named:
        found = narrow(options.readable_records(roots), (), tasks, methods, tests)
        found = narrow(found, settings)
        for root in roots:
            # Most likely a folder of maps that was given without a name.
            if next(root.rglob(RECORD), None) is None:
                raise UsageError(
                    f"{root} holds no record; name a folder of records, or a folder of maps as "
                    f"NAME={root}"
                )
    choice = contents.Selection(tasks[0] if tasks else None, tests[0] if tests else None, metric)
    cache = default_cache()

    # Called only for runs whose maps are not kept: it imports torch.
    def load(folder: Path):
        from lpmoe_bench.inference.predictor import load_predictor

        return load_predictor(folder, cache, offline, out.terminal.note)[0]

    data = figure.gather_figure(
        figure.FigureRequest(
            SetSource(load_registry(places.datasets), places.data_root, cache),
            found,
            named,
            load,
            choice,
            images,
            gt,
            places.embedded,
            protocol,
            pixels.rules(own=gt is not None),
            threshold,
        )
    )
    outputs = output or [Path("figure.pdf")]
    drawn = figure.draw_figure(data, rows, count, look, outputs)
    for note in dict.fromkeys(data.notes):
        out.terminal.note(note)
    files, titles = [str(path) for path in outputs], [one.title for one in data.sources]
    if not out.json:
        out.terminal.say(f"rows: {', '.join(drawn)}")
    out.print({"output": files, "images": drawn, "methods": titles}, "\n".join(files))


def picture_command(
    *,
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs of one task.")],
    count: Annotated[int, typer.Option(help="How many scenes of the embedded set.", min=1)] = 4,
    output: Annotated[Path, typer.Option("--output", "-o", help="File.")] = Path("picture.png"),
    data: options.DataOptions,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Older spelling of `figure RUNS --embedded --rows even`."""
    out.terminal.note("picture is now figure RUNS --embedded --rows even")
    figure_command(
        sources=[str(run) for run in runs],
        kept=options.RecordFilter(),
        rows="even",
        count=count,
        output=[output],
        pixels=options.PixelOptions(),
        places=replace(data, embedded=True),
        out=out,
        offline=offline,
    )
