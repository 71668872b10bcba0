"""The `run` command: announce the plan, execute it, print the scores."""

from __future__ import annotations

import os
from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.tasks import Folders
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.model.segmenter import check_buildable
from lpmoe_bench.records.model import Record
from lpmoe_bench.training.features import Forecast, forecast
from lpmoe_bench.training.plan import Plan, RunRequest, make_plan
from lpmoe_bench.training.run import announce, run_request


def run(
    request: RunRequest, force: bool, dry_run: bool, json: bool, quiet: bool, no_color: bool
) -> None:
    """Plan, execute and print one run; errors are those of make_plan and execute."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # one process of several speaks
    terminal = Terminal(quiet or not first, no_color)
    if dry_run:
        plan = make_plan(request, terminal)
        check_buildable(plan.config)
        announce(plan, terminal)
        if json:
            print(dumps(_planned(plan), indent=2))
        return
    folder, record = run_request(request, terminal, force)
    if json:
        print(record.model_dump_json(indent=2))
    else:
        show(record, Console(no_color=no_color))
    terminal.say(f"record: {folder}")


def own_folders(*paths: Path | None) -> Folders | None:
    """Return a user's own four folders, None where none is named; raises UsageError for some."""
    given = [path for path in paths if path is not None]
    if not given:
        return None
    if len(given) < 4:
        raise UsageError(
            "your own folders need all four: --train-images, --train-masks, --test-images, "
            f"--test-masks; got {len(given)}"
        )
    return Folders(*given)


def _planned(plan: Plan) -> dict[str, Any]:
    """Return what would run, for machines."""
    features = forecast(plan) if plan.config.runtime.cache_features else None
    known = isinstance(features, Forecast)
    sizes = {"views": features.views, "bytes": features.bytes} if known else None
    return {
        "id": plan.id,
        "fingerprint": plan.fingerprint,
        "folder": str(plan.folder),
        "finished": (plan.folder / "run.json").exists(),
        "images": {
            "train": len(plan.train_pairs),
            "validation": len(plan.validation.pairs),
            "tests": {split.label: len(split.pairs) for split in plan.tests},
        },
        "features": sizes,
        "notes": list(plan.notes),
        "config": plan.config.model_dump(),
    }


def show(record: Record, console: Console) -> None:
    """Print the scores of a run, and what it cost."""
    show_scores(record, record.scores, console)
    console.print(_cost_line(record), highlight=False, soft_wrap=True)


def show_scores(
    record: Record, scores: Mapping[str, Mapping[str, float | None]], console: Console
) -> None:
    """Print scores by test set, one column each; method and protocol are those of the record."""
    protocol = get_protocol(record.protocol.name)
    console.print(f"{record.method.title}, protocol {protocol.label}", highlight=False)
    table = Table()
    table.add_column("metric")
    for label in scores:
        table.add_column(label, justify="right")
    for key in protocol.metrics:
        arrow = "↑" if get_metric(key).higher_is_better else "↓"
        values = [of_set[key] for of_set in scores.values()]
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        table.add_row(f"{get_metric(key).label} {arrow}", *cells)
    console.print(table)


def _cost_line(record: Record) -> str:
    count, costs = record.parameters, record.costs
    assert count is not None
    return (
        f"trainable {count.method:,} in the method ({count.share_of_backbone:.2%} of the backbone) "
        f"+ {count.decoder:,} in the decoder; "
        f"{costs.train_images_per_second or 0:.1f} images/s training, "
        f"{costs.inference_images_per_second or 0:.1f} inference; "
        f"peak memory {(costs.peak_memory_bytes or 0) / 2**30:.2f} GiB"
    )
