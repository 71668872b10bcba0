"""The command line: parse, call one function, print."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lpmoe_bench.commands import check as cli_check
from lpmoe_bench.commands import compare as cli_compare
from lpmoe_bench.commands import data as cli_data
from lpmoe_bench.commands import merge as cli_merge
from lpmoe_bench.commands import profile as cli_profile
from lpmoe_bench.commands import read as cli_read
from lpmoe_bench.commands import score as cli_score
from lpmoe_bench.commands.options import DataRoot, Datasets, Json, NoColor, Offline, Quiet, Runs
from lpmoe_bench.errors import BenchError, UsageError

TRAIN_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "safetensors",
    "onnx",
    "segment_anything",
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, score and compare parameter-efficient fine-tuning methods for segmentation.",
    epilog="Exit codes: 0 ok, 2 usage, 3 data, 5 not comparable, 6 resources, 7 diverged, "
    "130 interrupted (the same command resumes).",
)


def main() -> None:
    """Run the command line; an expected error is one line on stderr and its exit code."""
    from method_zoo import ZooError

    try:
        app()
    except BenchError as error:
        _fail(str(error), error.exit_code)
    except ZooError as error:
        _fail(str(error), UsageError.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in TRAIN_PACKAGES:
            raise
        _fail(
            f"this command needs {error.name}, which is not installed; "
            f"install it with: pip install 'lpmoe-bench[train]'",
            UsageError.exit_code,
        )


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


@app.command()
def run(
    method: Annotated[str | None, typer.Option("--method", "-m", help="Method.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Task.")] = None,
    backbone: Annotated[str | None, typer.Option(help="timm ViT or the default.")] = None,
    weights: Annotated[str | None, typer.Option(help=".safetensors or random[:seed].")] = None,
    decoder: Annotated[str | None, typer.Option(help="Decoder.")] = None,
    decoder_weights: Annotated[str | None, typer.Option(help="SAM checkpoint: .pth.")] = None,
    size: Annotated[int | None, typer.Option(help="Image side, a multiple of 32.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A paper's own settings.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.")] = None,
    label: Annotated[str | None, typer.Option(help="A few words of your own.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="rank=8, decoder.width=64, train.lr=1e-4, runtime.workers=2."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of settings.")] = None,
    train_images: Annotated[Path | None, typer.Option(help="Your own folders: images.")] = None,
    train_masks: Annotated[Path | None, typer.Option(help="... their masks.")] = None,
    test_images: Annotated[Path | None, typer.Option(help="... test images.")] = None,
    test_masks: Annotated[Path | None, typer.Option(help="... their masks.")] = None,
    data_root: DataRoot = None,
    datasets: Datasets = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="Use the embedded set.")] = False,
    runs: Runs = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Rerun; old files are kept.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan only.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    offline: Offline = False,
) -> None:
    """Train and evaluate one method; writes a record, resumes where it was stopped."""
    from lpmoe_bench import run_command
    from lpmoe_bench.config import parse_sets, read_config_file

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
    run_command.run(
        flags={k: v for k, v in flags.items() if v is not None},
        sets=parse_sets(set_ or []),
        file=read_config_file(config) if config else {},
        folders=(train_images, train_masks, test_images, test_masks),
        data_root=data_root,
        datasets=datasets,
        embedded=embedded,
        runs=runs,
        force=force,
        dry_run=dry_run,
        offline=offline or bool(os.environ.get("LPMOE_BENCH_OFFLINE")),
        json=json,
        quiet=quiet,
        no_color=no_color,
    )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    images: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("predictions"),
    quiet: Quiet = False,
    no_color: NoColor = False,
    offline: Offline = False,
) -> None:
    """Write the maps and overlays that a trained run predicts for images."""
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.predict import predict as write
    from lpmoe_bench.weights import default_cache

    with Terminal(quiet, no_color).bar("predicting", len(images)) as bar:
        write(run, images, output, default_cache(), offline, bar.update)
    print(output)


@app.command()
def picture(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    images: Annotated[int, typer.Option(help="How many scenes of the embedded set.", min=1)] = 4,
    output: Annotated[Path, typer.Option("--output", "-o", help="File.")] = Path("picture.png"),
    offline: Offline = False,
) -> None:
    """Draw image, mask and every run's prediction side by side, on embedded test scenes."""
    from lpmoe_bench.predict import side_by_side
    from lpmoe_bench.registry import load_registry, resolve
    from lpmoe_bench.weights import default_cache

    registry, cache = load_registry(), default_cache()
    pairs = resolve(registry.task("cod"), registry, None, None, True, cache).tests[0].pairs
    step = max(1, len(pairs) // images)
    side_by_side(runs, pairs[::step][:images], output, cache, offline)
    print(output)


for command in (cli_read.table, cli_read.describe, cli_read.doctor, cli_read.publish):
    app.command()(command)
app.command()(cli_compare.compare)
app.command()(cli_profile.profile)
app.command()(cli_score.score)
for command in (cli_merge.merge, cli_merge.export):
    app.command()(command)
app.command("list")(cli_read.list_)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_check.app, name="check")
