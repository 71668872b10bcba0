"""Commands that look at what a run predicts: maps of images, methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.commands.options import Datasets, Json, NoColor, Offline, Quiet


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    images: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("predictions"),
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|never|always|PIXELS",
            help="Cut images into windows: auto, those beyond twice the training size, into "
            "windows of that; always, windows of the training size; or windows of your own.",
        ),
    ] = "auto",
    threshold: Annotated[
        float | None,
        typer.Option(help="Write masks: 255 above this probability.", min=0, max=1),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    offline: Offline = False,
) -> None:
    """Write the maps and overlays that a trained run predicts for images of any size."""
    from dataclasses import asdict
    from json import dumps

    from lpmoe_bench.console import Terminal
    from lpmoe_bench.errors import DataError, InterruptedRun
    from lpmoe_bench.inference.prediction import find_images, predict_images
    from lpmoe_bench.inference.predictor import load_predictor, side_of
    from lpmoe_bench.model.weights.resolve import default_cache

    sources, terminal = find_images(images, output), Terminal(quiet, no_color)
    side_of(tile, 32)  # a wrong word is said before anything is loaded
    predictor, config = load_predictor(run, default_cache(), offline)
    side = side_of(tile, config.size)
    try:
        written, failed = predict_images(predictor, sources, output, side, threshold, terminal)
    except KeyboardInterrupt:
        raise InterruptedRun(f"interrupted; the maps in {output} are whole") from None
    if json:
        files = [{key: str(path) for key, path in asdict(one).items()} for one in written]
        print(dumps({"output": str(output), "written": files, "failed": failed}, indent=2))
    else:
        print(output)
    if len(failed) == 1:
        raise DataError(failed[0])
    if failed:
        raise DataError(
            f"{len(failed)} of {len(sources)} images could not be read, the first: {failed[0]}"
        )


def picture(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs of one task.")],
    images: Annotated[int, typer.Option(help="How many scenes of the embedded set.", min=1)] = 4,
    output: Annotated[Path, typer.Option("--output", "-o", help="File.")] = Path("picture.png"),
    datasets: Datasets = None,
    quiet: Quiet = False,
    no_color: NoColor = False,
    offline: Offline = False,
) -> None:
    """Draw image, mask and every run's prediction side by side, on scenes of the runs' task."""
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.data.registry import load_registry
    from lpmoe_bench.data.tasks import resolve
    from lpmoe_bench.inference.prediction import side_by_side, task_of
    from lpmoe_bench.model.weights.resolve import default_cache

    registry, cache = load_registry(datasets), default_cache()
    task = registry.task(task_of(runs))
    with Terminal(quiet, no_color).bar("drawing scenes", 1) as bar:
        data = resolve(task, registry, None, None, True, cache, bar.update)
    pairs = data.tests[0].pairs
    step = max(1, len(pairs) // images)
    side_by_side(runs, pairs[::step][:images], output, cache, offline)
    print(output)
