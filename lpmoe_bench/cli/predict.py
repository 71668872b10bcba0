"""Commands that look at what a run predicts: maps or objects of images, scores of a test set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.cli.run import show_scores
from lpmoe_bench.errors import DataError, InterruptedRun, UsageError


def predict_command(
    *,
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    images: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("predictions"),
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="never|auto|always|PIXELS",
            help="Cut images into windows: never; auto, those beyond twice the training size, into "
            "windows of that; always, windows of the training size; or of your own. By default as "
            "the run's maps are scored: never, unless it has evaluate=windows.",
        ),
    ] = None,
    bands: Annotated[
        str | None, typer.Option(help="Bands that are red, green, blue; else as in training.")
    ] = None,
    range_: Annotated[
        str | None,
        typer.Option("--range", help="Values that are black and white; else as in training."),
    ] = None,
    plugin: options.Plugins = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Of a binary task: write masks, 255 above this probability. Of objects: the least "
            "score that is kept and shown; by default files keep all, and overlays show those of "
            "at least .5.",
            min=0,
            max=1,
        ),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(
            help="COCO file whose ids images and classes get in predictions.json; by default both "
            "count from 1.",
            metavar="FILE",
        ),
    ] = None,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Write the maps or objects that a trained run predicts for images, and overlays."""
    options.refuse_no_run(run)
    from lpmoe_bench.config.kinds import get_kind
    from lpmoe_bench.data.object_files import result_ids
    from lpmoe_bench.data.pixels import pixel_rules
    from lpmoe_bench.inference.prediction import find_images, image_rules, predict_images
    from lpmoe_bench.inference.predictor import load_predictor
    from lpmoe_bench.inference.windows import window_of
    from lpmoe_bench.records.store import read_record

    declared = pixel_rules({"bands": bands, "range": range_})
    record = read_record(run)
    rules, kind = image_rules(record, declared), get_kind(record.config.get("kind", "binary"))
    if rules != declared:
        out.terminal.note(f"images are read as those of training, {rules.key}")
    # Found before a model is loaded: a wrong path should cost no seconds.
    sources = find_images(images, output, kind)
    if ids is not None and not kind.outputs.listed:
        raise UsageError(f"--ids is of files of detections, and this run is of a {kind.name} task")
    classes = record.config.get("classes", ())
    known = result_ids(ids, [one.name.as_posix() for one in sources], classes) if ids else None
    if tile is not None:
        window_of(tile, (32, 32))  # a wrong word is said before anything is loaded
    cache = options.cache_folder()
    predictor, config = load_predictor(run, cache, offline, out.terminal.note)
    window = predictor.window if tile is None else window_of(tile, config.sides)
    try:
        written, failed = predict_images(
            predictor, sources, output, window, threshold, out.terminal, rules, known
        )
    except KeyboardInterrupt:
        # Each map is renamed into its place, so none is half written.
        raise InterruptedRun(f"interrupted; the maps in {output} are whole") from None
    files = [{key: str(path) for key, path in asdict(one).items()} for one in written]
    out.print({"output": str(output), "written": files, "failed": failed}, output)
    # Told once all others are written: one broken file must not cost the maps of a night.
    if len(failed) == 1:
        raise DataError(failed[0])
    if failed:
        raise DataError(
            f"{len(failed)} of {len(sources)} images could not be read, the first: {failed[0]}"
        )


# The command line of `evaluate`.


def evaluate_command(
    *,
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    test_set: Annotated[
        list[str] | None,
        typer.Option(
            "--test-set", help="data set/split, a data set (its test splits), or an embedded set."
        ),
    ] = None,
    protocol: options.ProtocolName = None,
    test_images: Annotated[Path | None, typer.Option(help="Your own folders: images.")] = None,
    test_masks: Annotated[
        Path | None,
        typer.Option("--test-masks", "--test-annotations", help="... masks, or COCO FILE."),
    ] = None,
    name: Annotated[str, typer.Option(help="... what to call them: own/NAME.")] = "test",
    pixels: options.PixelOptions,
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    runs: Annotated[
        Path | None, typer.Option(help="Folder of records; by default that of the run.")
    ] = None,
    plugin: options.Plugins = None,
    save_predictions: Annotated[
        bool, typer.Option("--save-predictions", help="Keep the maps as 8-bit PNG.")
    ] = False,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Also sets with images of the training list.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Again; old files are kept.")] = False,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Score a trained run on another test set; writes a record for each set."""
    options.refuse_no_run(run)
    import lpmoe_bench

    try:
        made = lpmoe_bench.evaluate(
            run,
            options.names(test_set),
            images=test_images,
            masks=test_masks,
            name=name,
            pixels=pixels.rules(own=bool(test_images or test_masks)).facts,
            protocol=protocol,
            data_root=data_root,
            datasets=datasets,
            runs=runs,
            save_predictions=save_predictions,
            allow_overlap=allow_overlap,
            force=force,
            offline=offline,
            quiet=out.terminal,
        )
    except KeyboardInterrupt:
        raise InterruptedRun("interrupted; finished sets are kept") from None
    if out.json:
        # A list, because each test set has a record of its own.
        out.print([one.record.model_dump() for one in made.values()], "")
    else:
        scores = {label: one.record.scores[label] for label, one in made.items()}
        any_record = next(iter(made.values())).record  # all have one method and one protocol
        show_scores(any_record, scores, out.console)
    for one in made.values():
        out.terminal.say(f"record: {one.folder}")
