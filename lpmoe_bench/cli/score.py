"""The command line of `score`."""

from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.cli import options


def score_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders of maps, one a method.")],
    gt: Annotated[Path | None, typer.Option(help="Folder of masks.")] = None,
    images: Annotated[Path | None, typer.Option(help="Images of --gt, as a run has them.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Task.")] = None,
    test_set: Annotated[
        str | None, typer.Option("--test-set", help="Test set of the task, such as camo/test.")
    ] = None,
    protocol: options.ProtocolName = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Method's name, once a folder; else the folder's.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score what is there; tables show how much.")
    ] = False,
    vary: Annotated[
        bool, typer.Option("--vary", help="Every protocol, and where it turns the order.")
    ] = False,
    worst: Annotated[int, typer.Option(help="List and picture so many worst images.", min=0)] = 0,
    verify: Annotated[
        int, typer.Option(help="Score so many images again by PySODMetrics.", min=0)
    ] = 0,
    curves: Annotated[Path | None, typer.Option(help="Folder for PR, F and E curves.")] = None,
    extra: Annotated[
        list[str] | None, typer.Option(help="Extra metrics, with commas, such as hd95.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; as cores allow.", min=1)] = None,
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    embedded: options.Embedded = False,
    runs: options.Runs = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Score again; old ones are kept.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Score maps that any program made; writes a record for each folder."""
    from lpmoe_bench.cli.score_command import ScoreExtras, score_and_print
    from lpmoe_bench.model.weights.resolve import default_cache
    from lpmoe_bench.scoring.plan import ScoreRequest

    request = ScoreRequest(
        folders=folders,
        names=name or (),
        gt=gt,
        images=images,
        task=task,
        test_set=test_set,
        protocol=protocol,
        datasets=datasets,
        data_root=data_root,
        embedded=embedded,
        cache=default_cache(),
        runs=runs,
        allow_missing=allow_missing,
        force=force,
        jobs=jobs,
        extra=[key for text in extra or () for key in text.split(",") if key],
    )
    score_and_print(request, ScoreExtras(vary, worst, verify, curves), json, quiet, no_color)
