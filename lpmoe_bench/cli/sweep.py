"""The command line of `sweep` and `sweep status`."""

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
from lpmoe_bench.errors import UsageError

app = typer.Typer(
    invoke_without_command=True,
    help="Run methods x tasks x seeds, each in a process of its own; `sweep status` any time.",
    epilog="Exit codes: 0 ok, 4 some cells failed, 130 interrupted (the same command resumes).",
)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="As for run; lora.rank=8 is for that method alone."),
]
Done = Annotated[
    list[Path] | None, typer.Option("--done", help="Records elsewhere that count as done too.")
]


@app.callback()
def sweep(
    context: typer.Context,
    methods: Annotated[str | None, typer.Option("--methods", "-m", help="With commas.")] = None,
    tasks: Annotated[
        str | None, typer.Option("--tasks", "-t", help="With commas; cod by default.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="With commas; 0,1,2 by default.")] = None,
    backbone: Backbone = None,
    weights: WeightsFile = None,
    decoder: DecoderName = None,
    decoder_weights: DecoderWeights = None,
    size: Size = None,
    recipe: Recipe = None,
    label: Label = None,
    set_: Set = None,
    config: ConfigFile = None,
    data_root: DataRoot = None,
    datasets: Datasets = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="Use the embedded sets.")] = False,
    runs: Runs = Path("runs"),
    done: Done = None,
    engine: Annotated[str, typer.Option(help="local, or ray for many machines.")] = "local",
    jobs: Annotated[
        int | None, typer.Option(help="Cells at a time; one a GPU, else one a machine.", min=1)
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster, such as auto.")] = None,
    shared: Annotated[
        bool | None,
        typer.Option("--shared/--streamed", help="Whether Ray's workers see the runs folder."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Failed cells get new tries.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    offline: Offline = False,
) -> None:
    """Run methods x tasks x seeds; finished cells are skipped, stopped ones go on."""
    if context.invoked_subcommand is not None:
        return
    from lpmoe_bench.cli.sweep_command import How, sweep_command
    from lpmoe_bench.config.settings import read_config_file
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.sweep.plan import Places, SweepRequest

    flags: dict[str, Any] = {
        "backbone": backbone,
        "weights": weights,
        "decoder": decoder,
        "decoder_weights": decoder_weights,
        "size": size,
        "recipe": recipe,
        "label": label,
    }
    file = read_config_file(config) if config else {}
    request = SweepRequest(
        methods=_names(_text(methods, file, "method", "")),
        tasks=_names(_text(tasks, file, "task", "cod")),
        seeds=_numbers(_text(seeds, file, "seed", "0,1,2")),
        flags={k: v for k, v in flags.items() if v is not None},
        sets=set_ or [],
        file=file,
        places=Places(data_root=_whole(data_root), datasets=_whole(datasets), embedded=embedded),
        runs=runs.resolve(),
        offline=offline or bool(os.environ.get("LPMOE_BENCH_OFFLINE")),
    )
    how = How(engine, jobs, address, shared, retry, done or [])
    sweep_command(request, how, dry_run, json, Terminal(quiet, no_color))


@app.command()
def status(
    context: typer.Context,
    runs: Annotated[Path | None, typer.Option("--runs", help="Folder of run records.")] = None,
    done: Done = None,
    json: Json = False,
) -> None:
    """Say how the sweeps of a folder stand: what is done, runs, failed and why."""
    from lpmoe_bench.cli.sweep_command import status_command

    before = context.parent.params if context.parent else {}  # `sweep --runs DIR status`
    folder: Path = runs or before["runs"]
    status_command(folder.resolve(), done or before["done"] or [], json or before["json"])


@app.command(hidden=True)
def cell(
    config: Annotated[Path, typer.Option(help="The cell's settings.")],
    expect: Annotated[str, typer.Option(help="The fingerprint that was planned.")],
    parent: Annotated[int, typer.Option(help="Process to end with.")],
    runs: Runs = Path("runs"),
    note: Annotated[list[str] | None, typer.Option(help="A sentence for the record.")] = None,
    set_: Set = None,
    data_root: DataRoot = None,
    datasets: Datasets = None,
    embedded: Annotated[bool, typer.Option("--embedded")] = False,
    offline: Offline = False,
) -> None:
    """Run one cell: `run --config`, refused where its fingerprint is not the planned one."""
    from lpmoe_bench.sweep.local import tether

    tether(parent)
    from lpmoe_bench.cli import run_command
    from lpmoe_bench.config.settings import parse_sets, read_config_file
    from lpmoe_bench.model.weights.resolve import default_cache
    from lpmoe_bench.training.plan import RunRequest

    request = RunRequest(
        flags={},
        sets=parse_sets(set_ or []),
        file=read_config_file(config),
        data_root=data_root,
        embedded=embedded,
        datasets=datasets,
        runs=runs,
        cache=default_cache(),
        offline=offline,
        expect=expect,
        extra_notes=tuple(note or []),
    )
    run_command.run(request, force=False, dry_run=False, json=True, quiet=False, no_color=True)


def _text(flag: str | None, file: dict[str, Any], setting: str, default: str) -> str:
    """Return what a flag says, else the setting of the file that it would win over."""
    return str(file.get(setting, default)) if flag is None else flag


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _numbers(text: str) -> list[int]:
    names = _names(text)
    wrong = [name for name in names if not name.isdecimal() or int(name) >= 2**62]
    if wrong:
        raise UsageError(
            f"--seeds got '{wrong[0]}'; give whole numbers below 2^62 with commas: 0,1,2"
        )
    return list(dict.fromkeys(int(name) for name in names))


def _whole(path: Path | None) -> Path | None:
    """Make a path hold in every folder."""
    return path.expanduser().resolve() if path else None
