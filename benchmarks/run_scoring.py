"""CPU time of PySODMetrics 1.6.2 divided by that of the engine, on the maps of finished runs.

Each run's model is rebuilt from its folder and predicts its test images once, as the run did: same
batch, precision and resizing. The engine and PySODMetrics (`metrics/reference.py`) then score the
very same 8-bit maps under the run's protocol, in turns on one thread, masks prepared anew for each.
Three things are printed of each test set: the largest difference of engine and PySODMetrics over
all images, metrics and levels; the largest difference of the rows that the run stored
(per_image.csv) from rows scored anew; and the CPU time of both scorings with their ratio. A row
differs by more than rounding where the maps do: on another processor, thread count or torch than
the run had, a pixel may round to the next level.

A run folder without adapter.safetensors, such as a published record, cannot be rebuilt: run it
again (`lpmoe-bench run --method lora --task cod`) and name the folder that it prints.

    python benchmarks/run_scoring.py RUN [RUN ...] [--json] [--data-root DIR] [--threads N]
        [--test-images DIR --test-masks DIR]   for runs on a user's own folders
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.data.splits import Split
from lpmoe_bench.data.tasks import Folders, open_split, resolve
from lpmoe_bench.environment import default_cache, usable_cores
from lpmoe_bench.errors import BenchError, DataError, UsageError
from lpmoe_bench.inference.predictor import Predictor, new_predictor
from lpmoe_bench.metrics import reference
from lpmoe_bench.metrics.engine import score_pair
from lpmoe_bench.metrics.protocols import Protocol, get_protocol
from lpmoe_bench.metrics.scorer import Scorer
from lpmoe_bench.model.segmenter import load_trained
from lpmoe_bench.records.model import Record, SplitFacts
from lpmoe_bench.records.store import ROWS, read_record, read_rows
from lpmoe_bench.scoring.robustness import verify_scores

# Before numpy is loaded: one thread, or the comparison is of thread pools.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))


Maps = dict[str, tuple[np.ndarray, np.ndarray]]  # {image: (map, mask)}, uint8 (h, w) each
HOW = (
    "name folders of finished runs, with their adapter.safetensors; "
    "lpmoe-bench run --method lora --task cod makes one and prints where it is"
)


@dataclass(frozen=True)
class Places:
    """Where the images of test sets are: real sets, a user's own YAML, a user's own folders."""

    root: Path | None
    datasets: Path | None
    images: Path | None
    masks: Path | None


def open_test(record: Record, facts: SplitFacts, places: Places) -> Split:
    """Return a record's test set; raises DataError where it is not here, or has other files."""
    registry, cache = load_registry(places.datasets), default_cache()
    split = None
    if facts.generated or facts.label == "own/test":
        folders = None
        if not facts.generated:
            if places.images is None or places.masks is None:
                raise UsageError(
                    f"{record.id} was tested on its user's own folders; name them with "
                    f"--test-images and --test-masks"
                )
            folders = Folders(places.images, places.masks, places.images, places.masks)
        task = registry.task(record.task)
        split = resolve(task, registry, None, folders, facts.generated, cache).tests[0]
    else:
        split = open_split(*registry.split(facts.label), places.root, cache / "manifests")
    if split is None:
        raise DataError(f"{facts.label} is not found; set LPMOE_BENCH_DATA or --data-root")
    if split.digest != facts.digest:
        raise DataError(f"{facts.label} here holds other files than {record.id} was tested on")
    return split


def predict(predictor: Predictor, split: Split, protocol: Protocol) -> Maps:
    """Return the maps and masks of a split, all held at once, so that scoring alone is timed."""
    found = predictor.predictions(split.pairs, protocol.mask_threshold)
    steps = track(found, f"predicting {split.label}", len(split.pairs), console=_stderr())
    return {name: (pred, truth.mask) for name, pred, truth in steps}


def cpu_seconds(maps: Maps, protocol: Protocol) -> tuple[float, float]:
    """Return CPU seconds of PySODMetrics and of the engine, which take turns image by image."""
    first = next(iter(maps.values()))
    score_pair(*first, protocol)  # loads the compiled kernels
    totals = [0.0, 0.0]
    scorers: list[Callable[..., object]] = [reference.reference_scores, score_pair]
    for index, (pred, mask) in enumerate(
        track(maps.values(), "timing", console=_stderr(), transient=True)
    ):
        for which in (0, 1) if index % 2 else (1, 0):
            start = time.process_time()
            scorers[which](pred, mask, protocol)
            totals[which] += time.process_time() - start
    return totals[0], totals[1]


def stored_difference(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> float:
    """Return the largest difference of any score of any image; infinite where one is missing."""
    before = {row["image"]: row for row in old}
    if before.keys() != {row["image"] for row in new}:
        return math.inf
    return max((_difference(before[row["image"]], row) for row in new), default=math.inf)


def _difference(old: dict[str, Any], new: dict[str, Any]) -> float:
    keys = [key for key in new if key not in ("dataset", "image", "flags")]
    if any((old.get(key) is None) != (new[key] is None) for key in keys):
        return math.inf
    return max(abs(old[key] - new[key]) for key in keys if new[key] is not None)


def measure(folder: Path, places: Places, threads: int) -> Iterator[dict[str, Any]]:
    """Yield what is found of each test set of a run."""
    record = read_record(folder)
    if record.kind != "run":
        raise UsageError(f"{folder} holds no run but a record of kind {record.kind}; {HOW}")
    torch.set_num_threads(threads)
    segmenter, config = load_trained(folder, default_cache())
    fabric = Fabric(accelerator=config.runtime.device, devices=1, precision=config.train.precision)  # type: ignore[arg-type]
    predictor = new_predictor(config, segmenter.to(fabric.device), fabric)
    protocol, rows = get_protocol(record.protocol.name), read_rows(folder / ROWS)
    if protocol.hash != record.protocol.hash:
        raise DataError(f"{folder} was scored under another version of protocol {protocol.name}")
    for facts in record.data.tests:
        maps = predict(predictor, open_test(record, facts, places), protocol)
        scorer = Scorer(protocol)
        for name, (pred, mask) in maps.items():
            scorer.add(name, pred, mask, facts.label)
        result = scorer.result()
        checked = verify_scores(result.rows, maps.__getitem__, protocol, len(maps))
        theirs, ours = cpu_seconds(maps, protocol)
        stored = [row for row in rows if row["dataset"] == facts.label]
        scores = record.scores[facts.label]
        yield {
            "run": record.id,
            "test_set": facts.label,
            "images": len(maps),
            "compared": len(checked.images),
            "engine_difference": checked.largest,
            "differences": checked.differences,
            "skipped": checked.skipped,
            "stored_difference": stored_difference(stored, result.rows),
            "stored_rows_equal": stored == result.rows,
            "scores_equal": scores == result.scores,
            "pysodmetrics_seconds": theirs,
            "engine_seconds": ours,
            "ratio": theirs / ours,
        }


def table(found: list[dict[str, Any]]) -> Table:
    out = Table(title="Scoring of finished runs' maps, CPU time on one thread")
    out.add_column("run", overflow="fold")
    out.add_column("test set", no_wrap=True)
    heads = ("images", "engine - PySODMetrics", "stored - anew", "PySODMetrics s", "engine s", "x")
    for name in heads:
        out.add_column(name, justify="right")
    for row in found:
        stored = "equal" if row["stored_rows_equal"] else f"{row['stored_difference']:.1e}"
        out.add_row(
            row["run"],
            row["test_set"],
            str(row["images"]),
            f"{row['engine_difference']:.1e}",
            stored,
            f"{row['pysodmetrics_seconds']:.2f}",
            f"{row['engine_seconds']:.2f}",
            f"[bold]{row['ratio']:.1f}[/]",
        )
    return out


def _stderr() -> Console:
    return Console(stderr=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs")
    data = os.environ.get("LPMOE_BENCH_DATA")
    parser.add_argument("--data-root", type=Path, default=Path(data) if data else None)
    parser.add_argument("--datasets", type=Path, help="your own YAML of data sets")
    parser.add_argument("--test-images", type=Path, help="of runs on own folders")
    parser.add_argument("--test-masks", type=Path)
    parser.add_argument(
        "--threads", type=int, default=usable_cores(), help="for predicting, as the runs"
    )
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    places = Places(args.data_root, args.datasets, args.test_images, args.test_masks)
    try:
        if not args.runs:
            raise UsageError(HOW)
        found = [row for run in args.runs for row in measure(run, places, args.threads)]
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if args.json:
        print(json.dumps({"rows": found}, indent=1))
    else:
        console = Console()
        console.width = max(console.width, 120)
        console.print(table(found))


if __name__ == "__main__":
    main()
