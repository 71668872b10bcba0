"""Time of an epoch without a feature cache divided by that of one with it.

Every method with frozen blocks trains on the embedded set through the code of `lpmoe-bench run`:
without a cache, with one in memory and with one on disk. CPU time of this process on one thread,
from the second epoch on, validation included; medians. What a cache saves depends on how much is
left to compute: the decoder, and the blocks that train.

    python benchmarks/feature_cache.py [--json] [--methods lst,partial] [--images 32] [--epochs 3]
        [--backbone vit_small_patch16_224] [--weights random] [--size 256]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lpmoe_bench.console import Terminal
from lpmoe_bench.model.segmenter import blueprint, build_segmenter
from lpmoe_bench.training.features import MIB, idle_because, open_features
from lpmoe_bench.training.loop import train
from lpmoe_bench.training.plan import Plan, make_plan
from lpmoe_bench.training.request import RunRequest
from lpmoe_bench.training.run import make_fabric, make_training
from method_zoo.options import get_method, list_methods

MODES = (None, "memory", "disk")
VALIDATION = 0.02  # of the embedded set: a few images beside --images


def make(method: str, mode: str | None, args: argparse.Namespace, place: Path) -> Plan:
    """Plan a run whose files and features are in a place of their own."""
    flags = {"method": method, "task": "cod", "backbone": args.backbone, "size": args.size}
    sets = {
        "train": {"limit_train": args.images, "epochs": args.epochs, "validation": VALIDATION},
        "runtime": {"device": "cpu", "workers": 0, "save_seconds": 1e6, "cache_features": mode},
    }
    request = RunRequest(
        flags | ({"weights": args.weights} if args.weights else {}),
        sets,
        embedded=True,
        runs=place / str(mode),
    )
    return dataclasses.replace(make_plan(request, Terminal(quiet=True)), cache=place)


def epoch_seconds(plan: Plan) -> tuple[float, int]:
    """Train, and return the seconds of an epoch and the bytes of a feature."""
    fabric = make_fabric(plan)
    segmenter = build_segmenter(plan.config, plan.weights, plan.decoder_weights)
    cache = open_features(plan, segmenter, fabric, Terminal())
    if plan.config.runtime.cache_features and cache is None:
        raise SystemExit("no features were kept; give --images fewer of them")
    marks: list[float] = []
    plan.folder.mkdir(parents=True)
    train(
        make_training(plan, segmenter, fabric, cache, lambda *_: marks.append(time.process_time()))
    )
    steps = len(marks) // plan.config.train.epochs
    ends = marks[steps - 1 :: steps]
    return statistics.median(b - a for a, b in pairwise(ends)), cache.view_bytes if cache else 0


def measure(method: str, args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as place:
        plans = [make(method, mode, args, Path(place)) for mode in MODES]
        (plain, _), (memory, view_bytes), (disk, _) = map(epoch_seconds, plans)
    return {
        "method": method,
        "frozen_blocks": blueprint(plans[0].config).method.frozen_blocks,
        "feature_bytes": view_bytes,
        "plain_seconds": plain,
        "memory_seconds": memory,
        "disk_seconds": disk,
        "memory_ratio": plain / memory,
        "disk_ratio": plain / disk,
    }


def table(rows: list[dict], title: str) -> Table:
    out = Table(title=title)
    names = ("method", "frozen", "MiB an image", "without s", "memory s", "disk s")
    for name in (*names, "x memory", "x disk"):
        out.add_column(name, no_wrap=True, justify="left" if name == "method" else "right")
    for row in sorted(rows, key=lambda row: -row["memory_ratio"]):
        facts = [row["method"], str(row["frozen_blocks"]), f"{row['feature_bytes'] / MIB:.2f}"]
        times = [f"{row[f'{mode}_seconds']:.2f}" for mode in ("plain", "memory", "disk")]
        ratios = [f"[bold]{row[f'{mode}_ratio']:.2f}[/]" for mode in ("memory", "disk")]
        out.add_row(*facts, *times, *ratios)
    return out


def with_frozen_blocks(args: argparse.Namespace) -> list[str]:
    """Return the methods of the zoo for which a cache does something."""
    with tempfile.TemporaryDirectory() as place:
        plan = make("decoder_only", None, args, Path(place))
    configs = {
        name: plan.config.model_copy(update={"method": name, "options": {}})
        for name in list_methods()
        if not get_method(name).made_for
    }
    return [name for name, config in configs.items() if not idle_because(blueprint(config).method)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", help="all with frozen blocks where not given")
    parser.add_argument("--backbone", default="vit_small_patch16_224")
    parser.add_argument("--weights", default="random", help="'' takes the backbone's own")
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    torch.set_num_threads(1)
    methods = args.methods.split(",") if args.methods else with_frozen_blocks(args)
    console = Console(stderr=True)
    rows = [measure(m, args) for m in track(methods, "measuring", console=console, transient=True)]
    facts = {"backbone": args.backbone, "size": args.size, "images": args.images}
    if args.json:
        print(json.dumps({"torch": torch.__version__, "threads": 1} | facts | {"rows": rows}))
    else:
        words = f"{args.backbone}, {args.size} px, {args.images} images"
        Console().print(table(rows, f"Epoch without / with cached features, {words}"))


if __name__ == "__main__":
    main()
