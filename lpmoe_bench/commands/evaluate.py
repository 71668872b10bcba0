"""The command line of `evaluate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpmoe_bench.commands.options import DataRoot, Datasets, Json, NoColor, Offline, Quiet

if TYPE_CHECKING:
    from lpmoe_bench.records.store import StoredRecord


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="data set/split, a data set (its test splits), or an embedded set."),
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Protocol; by default the run's.")] = None,
    test_images: Annotated[Path | None, typer.Option(help="Your own folders: images.")] = None,
    test_masks: Annotated[Path | None, typer.Option(help="... their masks.")] = None,
    name: Annotated[str, typer.Option(help="... what to call them: own/NAME.")] = "test",
    data_root: DataRoot = None,
    datasets: Datasets = None,
    runs: Annotated[
        Path | None, typer.Option(help="Folder of records; by default that of the run.")
    ] = None,
    save_predictions: Annotated[
        bool, typer.Option("--save-predictions", help="Keep the maps as 8-bit PNG.")
    ] = False,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Also sets with images of the training list.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Again; old files are kept.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    offline: Offline = False,
) -> None:
    """Score a trained run on another test set; writes a record for each set."""
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.errors import InterruptedRun
    from lpmoe_bench.inference.evaluation import EvaluationRequest, evaluate_run
    from lpmoe_bench.model.weights.resolve import default_cache

    request = EvaluationRequest(
        run=run,
        sets=tuple(data or ()),
        test_images=test_images,
        test_masks=test_masks,
        name=name,
        protocol=protocol,
        data_root=data_root,
        datasets=datasets,
        runs=runs,
        cache=default_cache(),
        offline=offline or bool(os.environ.get("LPMOE_BENCH_OFFLINE")),
        save_predictions=save_predictions,
        allow_overlap=allow_overlap,
        force=force,
    )
    terminal = Terminal(quiet, no_color)
    try:
        made = evaluate_run(request, terminal)
    except KeyboardInterrupt:
        raise InterruptedRun("interrupted; finished sets are kept") from None
    if json:
        from json import dumps

        print(dumps([one.record.model_dump() for one in made.values()], indent=2))
    else:
        _show(made, no_color)
    for one in made.values():
        terminal.say(f"record: {one.folder}")


def _show(made: dict[str, StoredRecord], no_color: bool) -> None:
    from rich.console import Console

    from lpmoe_bench.run_command import show_scores

    scores = {label: one.record.scores[label] for label, one in made.items()}
    any_record = next(iter(made.values())).record  # all have one method and one protocol
    show_scores(any_record, scores, Console(no_color=no_color))
