"""The `run` command: train and evaluate one method, print its scores."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.protocols import get_protocol

if TYPE_CHECKING:
    from rich.console import Console

    from lpmoe_bench.data.tasks import Folders
    from lpmoe_bench.records.model import Record
    from lpmoe_bench.training.plan import Plan
    from lpmoe_bench.training.request import RunRequest


def run_command(
    *,
    method: options.MethodName = None,
    task: options.TaskName = None,
    model: options.ModelChoice,
    seed: options.Seed = None,
    set_: options.Sets = None,
    config: options.ConfigFile = None,
    train_images: Annotated[Path | None, typer.Option(help="Your own folders: images.")] = None,
    train_masks: Annotated[Path | None, typer.Option(help="... their masks.")] = None,
    test_images: Annotated[Path | None, typer.Option(help="... test images.")] = None,
    test_masks: Annotated[Path | None, typer.Option(help="... their masks.")] = None,
    val_images: Annotated[Path | None, typer.Option(help="... images to validate on.")] = None,
    val_masks: Annotated[Path | None, typer.Option(help="... their masks.")] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Your own objects: COCO FILE of the labels of train.")
    ] = None,
    test_annotations: Annotated[Path | None, typer.Option(help="... of the test images.")] = None,
    val_annotations: Annotated[Path | None, typer.Option(help="... of those of val.")] = None,
    split: Annotated[
        float | None, typer.Option(help="... test on this share of train, without leaks.")
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="... leave out what is broken.")
    ] = False,
    pixels: options.PixelOptions,
    plugin: options.Plugins = None,
    data: options.DataOptions,
    runs: options.Runs = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Rerun; old files are kept.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Show a finished run though other code made it.")
    ] = False,
    dry_run: options.DryRun = False,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Train and evaluate one method; writes a record, resumes where it was stopped."""
    from lpmoe_bench.config.settings import parse_sets, read_config_file
    from lpmoe_bench.training.request import RunRequest

    request = RunRequest(
        flags=model.flags(method=method, task=task, seed=seed),
        sets=parse_sets(set_ or []),
        file=read_config_file(config) if config else {},
        folders=_own_folders(
            (
                *(train_images, _one_of("train", train_masks, annotations)),
                *(test_images, _one_of("test", test_masks, test_annotations)),
                *(val_images, _one_of("val", val_masks, val_annotations)),
            ),
            split,
            skip_broken,
            pixels,
        ),
        runs=runs,
        offline=offline,
        **vars(data),
    )
    if force and accept:
        raise UsageError("--force runs again, --accept does not; give one of them")
    run_and_print(request, force, dry_run, out, accept)


def run_and_print(
    request: RunRequest, force: bool, dry_run: bool, out: options.Output, accept: bool = False
) -> None:
    """Refuse what settings alone can refuse, then train, or only plan, and print."""
    from lpmoe_bench.training.request import refuse_early

    # A misspelt name is told in half a second, before torch is imported.
    options.tell_plugins(out)
    refuse_early(request)
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # one process of several speaks
    out = out if first else replace(out, quiet=True)
    if dry_run:
        return _show_plan(request, out, force, accept)
    from lpmoe_bench.environment import keep_freed_memory
    from lpmoe_bench.training.run import run_request

    keep_freed_memory()
    folder, record = run_request(request, out.terminal, force, accept)
    if out.json:
        # The content of run.json, so that a program reads both alike.
        print(record.model_dump_json(indent=2))
    else:
        show_scores(record, record.scores, out.console)
        out.console.print(_cost_line(record), highlight=False, soft_wrap=True)
    # On standard error: what is piped away is the scores alone.
    out.terminal.say(f"record: {folder}")
    return None


def _one_of(part: str, masks: Path | None, annotations: Path | None) -> Path | None:
    """Return where the labels of images are, masks or objects; raises UsageError for both."""
    if masks is not None and annotations is not None:
        name = "--annotations" if part == "train" else f"--{part}-annotations"
        raise UsageError(f"--{part}-masks and {name} both name labels of one folder; give one")
    return masks or annotations


def _own_folders(
    paths: tuple[Path | None, ...],
    share: float | None,
    skip_broken: bool,
    pixels: options.PixelOptions,
) -> Folders | None:
    """Return a user's own folders, None where none is named; raises UsageError for some."""
    from lpmoe_bench.data.tasks import Folders

    rules = pixels.rules(own=any(paths))
    if not any((*paths, share, skip_broken)):
        return None
    train_images, train_masks, *others = paths
    # Half of them would train on one's own images and test on those of the task.
    if train_images is None or train_masks is None:
        raise UsageError(
            "your own folders need --train-images and --train-masks (--annotations of objects), "
            "and --test-images and --test-masks or --split 0.2"
        )
    return Folders(
        train_images, train_masks, *others, share=share, skip_broken=skip_broken, rules=rules
    )


def _show_plan(request: RunRequest, out: options.Output, force: bool, accept: bool) -> None:
    """Resolve everything, build the model on shapes, and say what would run."""
    from lpmoe_bench.model.segmenter import check_memory
    from lpmoe_bench.training.plan import make_plan
    from lpmoe_bench.training.run import announce, foretell

    # On shapes alone: memory and weights are not needed to know whether the parts fit.
    plan = make_plan(request, out.terminal)
    check_memory(plan.config)
    announce(plan, out.terminal)
    if foretold := foretell(plan, force, accept):
        out.terminal.note(foretold)
    if out.json:
        out.print(_planned(plan) | {"foretold": foretold}, "")


def _planned(plan: Plan) -> dict[str, Any]:
    """Return what would run, for machines."""
    from lpmoe_bench.training.features import Forecast, forecast
    from lpmoe_bench.training.prolong import starting_point

    features = forecast(plan) if plan.config.runtime.cache_features else None
    known = isinstance(features, Forecast)
    start = starting_point(plan)
    sizes = {"views": features.views, "bytes": features.bytes} if known else None
    return {
        "id": plan.id,
        "fingerprint": plan.fingerprint,
        "folder": str(plan.folder),
        "finished": (plan.folder / "run.json").exists(),
        "start": {"step": start.step, "run": start.run, "about": start.text},
        "images": {
            "train": len(plan.train_pairs),
            "validation": len(plan.validation.pairs) if plan.validation else 0,
            "tests": {split.label: len(split.pairs) for split in plan.tests},
        },
        "features": sizes,
        "notes": list(plan.notes),
        "config": plan.config.model_dump(),
    }


def show_scores(
    record: Record, scores: Mapping[str, Mapping[str, float | None]], console: Console
) -> None:
    """Print scores by test set, one column each; method and protocol are those of the record."""
    from rich.table import Table

    protocol = get_protocol(record.protocol.name)
    console.print(f"{record.method.title}, protocol {protocol.label}", highlight=False)
    table = Table()
    table.add_column("metric")
    for label in scores:
        table.add_column(label, justify="right")
    # The order of the protocol; a record may hold extra metrics, which tables show.
    for key in protocol.metrics:
        metric, values = get_metric(key), [of_set[key] for of_set in scores.values()]
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        table.add_row(f"{metric.label} {metric.arrow}", *cells)
    console.print(table)


def _cost_line(record: Record) -> str:
    count, costs = record.parameters, record.costs
    assert count is not None
    speed = costs.inference_images_per_second  # not known of features from a cache
    inference = f", {speed:.1f} inference" if speed else ""
    return (
        f"trainable {count.method:,} in the method ({count.share_of_backbone:.2%} of the backbone) "
        f"+ {count.decoder:,} in the decoder; "
        f"{costs.train_images_per_second or 0:.1f} images/s training{inference}; "
        f"peak memory {(costs.peak_memory_bytes or 0) / 2**30:.2f} GiB"
    )
