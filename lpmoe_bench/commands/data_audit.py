"""The `data audit` command: images in two places, and scores without them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.commands.options import DataRoot, Datasets, Json, NoColor, Offline, Quiet


def audit(
    names: Annotated[list[str], typer.Argument(metavar="SET...", help="Data sets to compare.")],
    records: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of records: their scores without the test images seen."),
    ] = None,
    no_features: Annotated[
        bool, typer.Option("--no-features", help="Confirm near duplicates by pixels alone.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report as Markdown.")
    ] = None,
    data_root: DataRoot = None,
    datasets: Datasets = None,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    offline: Offline = False,
) -> None:
    """Find images that lie in two splits or two sets, exactly or nearly; groups apart."""
    import os
    from json import dumps

    from lpmoe_bench.analysis import clean
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.data.audit import report
    from lpmoe_bench.data.audit.audit import audit_sets
    from lpmoe_bench.data.pairs import check_root
    from lpmoe_bench.data.registry import load_registry
    from lpmoe_bench.files import write_atomically
    from lpmoe_bench.model.likeness import default_features
    from lpmoe_bench.model.weights.resolve import default_cache
    from lpmoe_bench.records.store import find_records

    check_root(data_root)
    registry, cache = load_registry(datasets), default_cache()
    chosen = [registry.dataset(name) for name in dict.fromkeys(names)]
    stored = find_records(records).stored if records else []
    offline = offline or bool(os.environ.get("LPMOE_BENCH_OFFLINE"))
    bars = Terminal(quiet, no_color)
    features, why_not = None, "--no-features"
    if not no_features:
        features, why_not = default_features(cache, offline, bars.say)
    found = audit_sets(chosen, data_root, cache, bars, features, why_not)
    scores = clean.clean_scores(stored, found)
    if json:
        extra = {"clean_subset": clean.as_json(scores)} if records else {}
        print(dumps(report.as_json(found) | extra, indent=2, ensure_ascii=False))
    else:
        print(report.as_text(found))
        protocols = {one.record.id: one.record.protocol.name for one in stored}
        if records:
            print("\n" + (clean.as_text(scores, protocols) or "No record was tested on these."))
    if output is not None:
        write_atomically(output, report.as_markdown(found))
