"""Commands that only read or copy: lists, descriptions, doctor, publish."""

from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.cli import options


def list_command(
    kind: Annotated[
        str | None, typer.Argument(help="methods, tasks, metrics, settings, ...; none: the lists.")
    ] = None,
    datasets: options.Datasets = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """List what there is to choose from; without a kind, which lists there are."""
    from lpmoe_bench.cli.catalogue import KINDS, listing
    from lpmoe_bench.data.registry import load_registry

    rows = list(KINDS.items()) if kind is None else listing(kind, load_registry(datasets), None)
    options.print_pairs(rows, json, no_color)


def describe_command(
    name: Annotated[str, typer.Argument(help="A method, task, data set, setting, metric, ...")],
    datasets: options.Datasets = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Explain a method, task, data set, backbone, decoder, protocol, metric, setting or loss."""
    from lpmoe_bench.cli.catalogue import description as facts
    from lpmoe_bench.data.registry import load_registry

    options.print_pairs(facts(name, load_registry(datasets)), json, no_color)


def doctor_command(
    data_root: options.DataRoot = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Say what is installed and found here, and what to do about what is not."""
    from lpmoe_bench.cli.doctor import examine

    rows = [
        (f.name, f.value + (f"  -> {f.advice}" if f.advice else "")) for f in examine(data_root)
    ]
    options.print_pairs(rows, json, no_color)


def publish_command(
    folders: Annotated[list[Path], typer.Argument(help="Run folders.")],
    results: Annotated[Path, typer.Option(help="Root of published records.")] = Path(
        "results/records"
    ),
    allow_dirty: Annotated[bool, typer.Option(help="Also records of uncommitted code.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Copy the records of runs, never weights or images, to the published results."""
    from lpmoe_bench.records import store

    made = []
    for folder in folders:
        made.append(str(store.publish(folder, results, allow_dirty)))
        if not json:
            print(made[-1])
    if json:
        options.print_json({"published": made})
