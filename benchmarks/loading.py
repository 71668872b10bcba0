"""Images/s of the loader beside decoding alone, and beside what a LoRA training step consumes.

Parts: decode (read image and mask), prepare (decode, squash to the training size, mirror: what the
loader does without workers), augment (prepare, with the rescaling and the photometric distortion
of some recipes), loader with 0, 1, 2 and the default of workers (prepare, and batches between
processes; four passes in one, for workers take time to start), step (forward, loss, backward and
AdamW of lora, no loading). The question is at the end: training with each number of workers, steps
and loading together, against the step alone. What is below 1 there is what training waits for data.
Rounds of all parts take turns and medians count, so that other work on the machine blurs the
figures but does not favour one. Files come from the system's memory after the first round.

    python benchmarks/loading.py [--json] [--images 64] [--rounds 3] [--size 256] [--step-rate 6.5]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.data.loader import PairDataset, default_workers, epoch_batches, loader
from lpmoe_bench.data.pairs import Pair, read_pair
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.data.tasks import resolve
from lpmoe_bench.environment import default_cache, usable_cores
from lpmoe_bench.model.segmenter import build_segmenter
from lpmoe_bench.model.weights.resolve import resolve_weights

BATCH = 8
WORKERS = sorted({0, 1, 2, default_workers("cpu")})
PASSES = 4  # of a loader alone: one would be over before its workers have started


def pairs_of(count: int) -> tuple[str, list[Pair]]:
    """Return training pairs of CAMO where it is found, else of the embedded set."""
    registry, root = load_registry(), os.environ.get("LPMOE_BENCH_DATA")
    place = Path(root) if root and (Path(root) / "camo").is_dir() else None
    task = registry.task("cod")
    found = resolve(task, registry, place, embedded=place is None, generated_root=default_cache())
    return found.train.label, list(found.train.pairs[:count])


def training_step(size: int) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Return one step of lora on the default backbone; random weights cost as much as others."""
    config = RunConfig.model_validate({"method": "lora", "task": "cod", "size": size})
    weights = resolve_weights(config.backbone, "random", Path())
    segmenter = build_segmenter(config, weights).train()
    optimizer = torch.optim.AdamW([p for p in segmenter.parameters() if p.requires_grad])

    def step(images: torch.Tensor, masks: torch.Tensor) -> None:
        segmenter(images, masks).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def rate(work: Callable[[], object], images: int) -> float:
    start = time.perf_counter()
    work()
    return images / (time.perf_counter() - start)


def read(dataset: PairDataset) -> None:
    for index in range(len(dataset)):
        dataset[0, index]


def drain(batches: Iterable) -> None:
    for _ in batches:
        pass


def measure(pairs: list[Pair], size: int, rounds: int, given: float | None) -> dict[str, float]:
    """Return images/s of every part; `given`: that of the step, not measured then."""
    plain = PairDataset(pairs, (size, size), 0, flip=True)
    rich = PairDataset(pairs, (size, size), 0, flip=True, scale=(0.75, 1.25), photometric=True)
    passes = [epoch_batches(len(pairs), BATCH, 0, epoch) for epoch in range(PASSES)]
    batches, many = passes[0], [batch for one in passes for batch in one]
    count, trained = len(pairs), sum(map(len, batches))  # a last batch of one is dropped
    parts: dict[str, tuple[Callable[[], object], int]] = {
        "decode": (lambda: [read_pair(pair) for pair in pairs], count),
        "prepare": (lambda: read(plain), count),
        "augment": (lambda: read(rich), count),
    }
    for n in WORKERS:
        parts[f"loader {n}"] = (lambda n=n: drain(loader(plain, many, n)), PASSES * trained)
    if given is None:
        step = training_step(size)
        images, masks = next(iter(loader(plain, batches, 0)))
        steps = max(1, count // BATCH // 4)  # they cost alike
        step(images, masks)  # memory is allocated once
        parts["step"] = (lambda: [step(images, masks) for _ in range(steps)], steps * len(images))
        for n in WORKERS:
            parts[f"training {n}"] = (
                lambda n=n: [step(*batch) for batch in loader(plain, batches, n)],
                trained,
            )
    found: dict[str, list[float]] = {name: [] for name in parts}
    turns = [name for _ in range(rounds) for name in parts]
    for name in track(turns, "measuring", console=Console(stderr=True)):
        found[name].append(rate(*parts[name]))
    medians = {name: statistics.median(values) for name, values in found.items()}
    return medians if given is None else medians | {"step": given}


def show(label: str, rates: dict[str, float]) -> None:
    table = Table(title=f"{label}, {usable_cores()} cores, {torch.get_num_threads()} threads")
    table.add_column("part")
    for column in ("images/s", "of decode", "of step"):
        table.add_column(column, justify="right")
    for name, value in rates.items():
        table.add_row(
            name, f"{value:.1f}", f"{value / rates['decode']:.2f}", f"{value / rates['step']:.2f}"
        )
    console = Console()
    console.print(table)
    trained = {n: rates[f"training {n}"] / rates["step"] for n in WORKERS if "training 0" in rates}
    if trained:
        best, usual = max(trained, key=trained.__getitem__), default_workers("cpu")
        console.print(
            f"training reaches {trained[best]:.2f} of the step alone with {best} workers, and "
            f"{trained[usual]:.2f} with {usual}, the default here"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--step-rate", type=float, help="images/s of a step, not measured then")
    options = parser.parse_args()
    label, pairs = pairs_of(options.images)
    rates = measure(pairs, options.size, options.rounds, options.step_rate)
    if options.json:
        print(
            json.dumps(
                {"set": label, "cores": usable_cores(), "images_per_second": rates}, indent=2
            )
        )
    else:
        show(label, rates)


if __name__ == "__main__":
    main()
