"""The command line of `run`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from lpmoe_bench.cli.options import (
    Backbone,
    ConfigFile,
    DataRoot,
    Datasets,
    DecoderName,
    DecoderWeights,
    DryRun,
    Json,
    Label,
    NoColor,
    Offline,
    Quiet,
    Recipe,
    Runs,
    Size,
    WeightsFile,
)


def run(
    method: Annotated[str | None, typer.Option("--method", "-m", help="Method.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Task.")] = None,
    backbone: Backbone = None,
    weights: WeightsFile = None,
    decoder: DecoderName = None,
    decoder_weights: DecoderWeights = None,
    size: Size = None,
    recipe: Recipe = None,
    seed: Annotated[int | None, typer.Option(help="Seed.")] = None,
    label: Label = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="rank=8, decoder.width=64, train.lr=1e-4, runtime.workers=2."),
    ] = None,
    config: ConfigFile = None,
    train_images: Annotated[Path | None, typer.Option(help="Your own folders: images.")] = None,
    train_masks: Annotated[Path | None, typer.Option(help="... their masks.")] = None,
    test_images: Annotated[Path | None, typer.Option(help="... test images.")] = None,
    test_masks: Annotated[Path | None, typer.Option(help="... their masks.")] = None,
    data_root: DataRoot = None,
    datasets: Datasets = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="Use the embedded set.")] = False,
    runs: Runs = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Rerun; old files are kept.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    offline: Offline = False,
) -> None:
    """Train and evaluate one method; writes a record, resumes where it was stopped."""
    from lpmoe_bench.cli import run_command
    from lpmoe_bench.config.settings import parse_sets, read_config_file
    from lpmoe_bench.model.weights.resolve import default_cache
    from lpmoe_bench.training.plan import RunRequest

    flags: dict[str, Any] = {
        "method": method,
        "task": task,
        "backbone": backbone,
        "weights": weights,
        "decoder": decoder,
        "decoder_weights": decoder_weights,
        "size": size,
        "recipe": recipe,
        "seed": seed,
        "label": label,
    }
    request = RunRequest(
        flags={k: v for k, v in flags.items() if v is not None},
        sets=parse_sets(set_ or []),
        file=read_config_file(config) if config else {},
        data_root=data_root,
        folders=run_command.own_folders(train_images, train_masks, test_images, test_masks),
        embedded=embedded,
        datasets=datasets,
        runs=runs,
        cache=default_cache(),
        offline=offline or bool(os.environ.get("LPMOE_BENCH_OFFLINE")),
    )
    run_command.run(request, force, dry_run, json, quiet, no_color)
