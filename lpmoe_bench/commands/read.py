"""Commands that only read: tables, lists, descriptions, doctor, publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.commands.options import DataRoot, Datasets, Json, Quiet


def table(
    roots: Annotated[list[Path] | None, typer.Argument(help="Folders of records.")] = None,
    format: Annotated[
        str, typer.Option("--format", "-f", help="markdown, latex or csv.")
    ] = "markdown",
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    test_set: Annotated[str | None, typer.Option(help="Only this test set.")] = None,
    metrics: Annotated[str, typer.Option(help="all, or names with commas.")] = "",
    columns: Annotated[str, typer.Option(help="Cost columns, with commas.")] = "",
    sort: Annotated[str | None, typer.Option(help="Order rows by this column.")] = None,
    across: Annotated[str, typer.Option(help="Mix these in one table: decoder.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File.")] = None,
    quiet: Quiet = False,
) -> None:
    """Print a comparison table of records: Markdown, LaTeX or CSV."""
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.files import write_atomically
    from lpmoe_bench.record import find_records
    from lpmoe_bench.tables.formats import format_table
    from lpmoe_bench.tables.table import build_table

    found = find_records(roots or None)
    made = build_table(
        found.records,
        task=task,
        methods=method,
        test_set=test_set,
        metrics=metrics.split(",") if metrics else None,
        columns=columns.split(",") if columns else (),
        sort=sort,
        across=across.split(",") if across else (),
    )
    text = format_table(made, format)
    for note in (*found.notes, *made.notes):
        Terminal(quiet).note(note)
    if output is None:
        print(text, end="")
    else:
        write_atomically(output, text)


def list_(
    kind: Annotated[
        str,
        typer.Argument(help="methods, tasks, datasets, backbones, decoders, protocols or runs."),
    ],
    datasets: Datasets = None,
    json: Json = False,
) -> None:
    """List methods, tasks, data sets, backbones, decoders, protocols or runs."""
    from lpmoe_bench.catalogue import listing
    from lpmoe_bench.registry.model import load_registry

    _print_pairs(listing(kind, load_registry(datasets), None), json)


def describe(
    name: Annotated[str, typer.Argument(help="A method, task, data set, protocol, ...")],
    datasets: Datasets = None,
    json: Json = False,
) -> None:
    """Explain a method, task, data set, backbone, decoder or protocol."""
    from lpmoe_bench.catalogue import describe as facts
    from lpmoe_bench.registry.model import load_registry

    _print_pairs(facts(name, load_registry(datasets)), json)


def doctor(data_root: DataRoot = None, json: Json = False) -> None:
    """Say what is installed and found here, and what to do about what is not."""
    from lpmoe_bench.doctor import examine

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
    from lpmoe_bench.publish import publish as copy

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
