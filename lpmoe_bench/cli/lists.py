"""Commands that only read: lists, descriptions, doctor, publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.cli.options import DataRoot, Datasets, Json


def list_(
    kind: Annotated[
        str,
        typer.Argument(
            help="methods, tasks, datasets, backbones, decoders, protocols, published, runs."
        ),
    ],
    datasets: Datasets = None,
    json: Json = False,
) -> None:
    """List methods, tasks, data sets, backbones, decoders, protocols, published tables or runs."""
    from lpmoe_bench.cli.catalogue import listing
    from lpmoe_bench.data.registry import load_registry

    _print_pairs(listing(kind, load_registry(datasets), None), json)


def describe(
    name: Annotated[str, typer.Argument(help="A method, task, data set, protocol, ...")],
    datasets: Datasets = None,
    json: Json = False,
) -> None:
    """Explain a method, task, data set, backbone, decoder or protocol."""
    from lpmoe_bench.cli.catalogue import describe as facts
    from lpmoe_bench.data.registry import load_registry

    _print_pairs(facts(name, load_registry(datasets)), json)


def doctor(data_root: DataRoot = None, json: Json = False) -> None:
    """Say what is installed and found here, and what to do about what is not."""
    from lpmoe_bench.cli.doctor import examine

    rows = [
        (f.name, f.value + (f"  -> {f.advice}" if f.advice else "")) for f in examine(data_root)
    ]
    _print_pairs(rows, json)


def publish(
    folders: Annotated[list[Path], typer.Argument(help="Run folders.")],
    results: Annotated[Path, typer.Option(help="Root of published records.")] = Path(
        "results/records"
    ),
    allow_dirty: Annotated[bool, typer.Option(help="Also records of uncommitted code.")] = False,
) -> None:
    """Copy the records of runs, never weights or images, to the published results."""
    from lpmoe_bench.records.folder import publish as copy

    for folder in folders:
        print(copy(folder, results, allow_dirty))


def _print_pairs(rows: list[tuple[str, str]], json: bool) -> None:
    if json:
        from json import dumps

        print(dumps([list(row) for row in rows], indent=2, ensure_ascii=False))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"{name:<{width}}  " + text.replace("\n", "\n" + " " * (width + 2)))
