"""What a GPU makes of LoRA and LPMoE on a ViT-L at 512 px, of loading and of evaluation.

Weights are random and images drawn, so nothing is fetched. A step is that of the training loop:
forward under bf16 autocast, structure loss, backward, the norm of the gradient, AdamW, and a look
at the loss one step later. Its bound is the step's operations (counted as `profile` counts them) at
the speed of one large product of bf16 matrices, measured here in turns with the steps; "share" is
the bound over the step. Loading is the training loader over JPEGs of 1280 x 1024, at the number of
workers that a run takes; evaluation reads such files, predicts, resizes to the mask's size and
scores, in threads beside the forward passes. Takes at most eight minutes; the parts stop after
their share of it. Without a GPU it says so and ends with code 2.

    python benchmarks/gpu.py [--json] [--batch 4] [--minutes 7]
    python benchmarks/gpu.py --device cpu --tiny      # that the script works, on any machine
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from image_sizes import draw
from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.data.loader import PairDataset, as_floats, default_workers, epoch_batches, loader
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.splits import Split
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.inference.predictor import Predictor, score_split
from lpmoe_bench.model.costs import count_flops, device_name
from lpmoe_bench.model.segmenter import Segmenter, blueprint, build_segmenter, keep_frozen_rounded
from lpmoe_bench.model.weights.resolve import RANDOM, resolve_weights
from lpmoe_bench.training.loop import RunningStatistics, Steps, reads_late
from lpmoe_bench.training.profiling import profile_config

METHODS = ("lora", "lpmoe")
TURN = 5  # steps between two looks at the clock, at which a GPU is waited for
WARM_UP, LEAST = 1, 3  # turns before, and turns of the clock at the least
MOST = 8  # images a step: there are at least two batches of the fewest files
TINY_SECONDS = 6.0
MEMORY = "out of memory: use a smaller --batch"


@dataclass(frozen=True)
class Sizes:
    """What is run: a backbone at a size, a product of square matrices, files on the disk."""

    backbone: str
    size: int
    matrix: int
    picture: tuple[int, int]
    files: int
    repeats: int  # so many times each file is read


FULL = Sizes("vit_large_patch16_224", 512, 8192, (1280, 1024), 16, 32)
TINY = Sizes("vit_tiny_patch16_224", 64, 512, (80, 64), 2, 8)


def clocked(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds by the clock until the device has done a work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def product(side: int, device: torch.device) -> Callable[[], float]:
    """Return what measures operations a second of a product of matrices in the steps' precision."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = 8

    def rate() -> float:
        taken = clocked(lambda: [a @ b for _ in range(times)], device)
        return times * 2 * side**3 / taken

    rate()
    return rate


def configured(method: str, sizes: Sizes, device: str) -> RunConfig:
    runtime = {"device": device}
    layer = {"method": method, "backbone": sizes.backbone, "size": sizes.size, "runtime": runtime}
    return profile_config(layer)


def built(config: RunConfig, fabric: Fabric) -> Segmenter:
    weights = resolve_weights(config.backbone, RANDOM, Path(), facts=config.facts)
    return build_segmenter(config, weights).to(fabric.device)


def stepper(segmenter: Segmenter, fabric: Fabric, config: RunConfig, batch: int) -> Callable:
    """Return what does a turn of training steps, as the loop does them."""
    late, device = reads_late(fabric.device.type), fabric.device
    trained = [{"params": [p for p in segmenter.parameters() if p.requires_grad], "peak": 1e-4}]
    optimizer = torch.optim.AdamW(trained, fused=late or None)
    keep_frozen_rounded(segmenter, config.train.precision)
    model, wrapped = fabric.setup(segmenter.train(), optimizer)
    run: Any = SimpleNamespace(config=config, fabric=fabric)  # all that a step asks of one
    statistics = RunningStatistics(segmenter)
    taken = Steps(run, model, wrapped, 10**6, statistics, optimizer, late)
    images = torch.rand(batch, 3, *config.sides, device=device)
    masks = (images.mean(1, keepdim=True) > 0.5).float()

    def turn() -> None:
        for step in range(TURN):
            taken.take(images, masks, step)
            while len(taken) > late:
                taken.read()

    return turn


def measure_step(method: str, sizes: Sizes, batch: int, fabric: Fabric, until: float) -> dict:
    """Time steps and products in turns until the clock is there; at least three of each."""
    config, device = configured(method, sizes, fabric.device.type), fabric.device
    operations = count_flops(blueprint(config), config.sides).training * batch
    found: dict[str, Any] = {"method": method, "batch": batch, "step_flops": operations}
    try:
        turn = stepper(built(config, fabric), fabric, config, batch)
        rate = product(sizes.matrix, device)
        for _ in range(WARM_UP):
            turn()
        turns = []
        while len(turns) < LEAST or (len(turns) < 30 and time.perf_counter() < until):
            turns.append((clocked(turn, device) / TURN, rate()))
    except torch.OutOfMemoryError:
        return found | {"failed": MEMORY}
    seconds = statistics.median(taken for taken, _ in turns)
    share = statistics.median(operations / rate / taken for taken, rate in turns)
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    found |= {
        "steps": len(turns) * TURN,
        "step_seconds": seconds,
        "images_per_second": batch / seconds,
    }
    rates = statistics.median(rate for _, rate in turns)
    return found | {"product_flops_per_second": rates, "share_of_bound": share, "peak_MiB": peak}


def draw_pairs(folder: Path, sizes: Sizes) -> list[Pair]:
    """Draw a few files; the list has each several times."""
    pairs = []
    for index in range(sizes.files):
        place = folder / str(index)
        place.mkdir()
        pairs.append(draw(place, *sizes.picture))
    names = enumerate(pairs * sizes.repeats)
    return [Pair(f"{index:05}", image, mask) for index, (image, mask) in names]


def measure_loading(pairs: list[Pair], sizes: Sizes, batch: int, kind: str, until: float) -> dict:
    """Read batches as a training epoch does, and bring them to the device."""
    dataset = PairDataset(pairs, (sizes.size, sizes.size), 0, flip=True, as_bytes=True)
    batches = iter(loader(dataset, epoch_batches(len(pairs), batch, 0, 0), device=kind))
    next(batches)  # the workers have started
    workers, images, start = default_workers(kind), 0, time.perf_counter()
    for image, mask in batches:
        as_floats(image.to(kind, non_blocking=True)), mask.to(kind, non_blocking=True)
        images += len(image)
        if time.perf_counter() > until:
            break
    taken = time.perf_counter() - start
    return {"workers": workers, "images": images, "images_per_second": images / taken}


def measure_evaluation(
    method: str, pairs: list[Pair], sizes: Sizes, batch: int, fabric: Fabric
) -> dict:
    """Score a split of the pairs, files included; and say what the forward passes take of it."""
    config = configured(method, sizes, fabric.device.type)
    predictor = Predictor(built(config, fabric), fabric, config.sides, batch=batch)
    warm, rest = Split("drawn", "warm", tuple(pairs[:batch])), Split("drawn", "test", tuple(pairs))
    score_split(predictor, warm, "cod", lambda done, of: None)
    predictor.images, predictor.seconds = 0, 0.0
    taken = clocked(
        lambda: score_split(predictor, rest, "cod", lambda done, of: None), fabric.device
    )
    found = {"method": method, "images": len(pairs), "images_per_second": len(pairs) / taken}
    return found | {"forward_share": predictor.seconds / taken}


def measure(device: str, sizes: Sizes, batch: int, seconds: float) -> dict[str, Any]:
    """Return all that is measured; the steps of each method get a third of the time."""
    # bfloat16 is slow on most CPUs; there the script is only shown to work.
    precision = "bf16-mixed" if device == "cuda" else "32-true"
    fabric = Fabric(accelerator=device, devices=1, precision=precision)
    start = time.perf_counter()
    torch.manual_seed(0)
    found: dict[str, Any] = {"steps": [], "evaluation": []}
    for part, method in enumerate(METHODS, start=1):
        until = start + part * seconds / 3
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        found["steps"].append(measure_step(method, sizes, batch, fabric, until))
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        pairs = draw_pairs(Path(folder), sizes)
        until = start + 5 * seconds / 6
        found["loading"] = measure_loading(pairs, sizes, batch, device, until)
        few = pairs[: max(batch, len(pairs) // 4)]
        found["evaluation"] = [
            measure_evaluation(method, few, sizes, batch, fabric) for method in METHODS
        ]
    return found | {"seconds": time.perf_counter() - start}


def lines(found: dict[str, Any], title: str) -> Iterator[Table | str]:
    steps = Table(title=title)
    for name in ("method", "batch", "step ms", "images/s", "TFLOP a step", "share of bound"):
        steps.add_column(name, justify="left" if name == "method" else "right")
    steps.add_column("peak MiB", justify="right")
    for row in found["steps"]:
        flops = f"{row['step_flops'] / 1e12:.3g}"
        if "failed" in row:
            steps.add_row(row["method"], str(row["batch"]), row["failed"], "", flops, "", "")
            continue
        peak = "" if row["peak_MiB"] is None else f"{row['peak_MiB']:.0f}"
        times = (f"{1e3 * row['step_seconds']:.1f}", f"{row['images_per_second']:.1f}")
        share = f"[bold]{row['share_of_bound']:.0%}[/]"
        steps.add_row(row["method"], str(row["batch"]), *times, flops, share, peak)
    yield steps
    loading = found["loading"]
    yield f"loading: {loading['images_per_second']:.1f} images/s by {loading['workers']} workers"
    for row in found["evaluation"]:
        yield (
            f"evaluation, {row['method']}: {row['images_per_second']:.1f} images/s, of which the "
            f"forward passes take {row['forward_share']:.0%}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="only to see that the script works")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=7.0, help="about, at most 8")
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    if not 2 <= args.batch <= MOST or not 0 < args.minutes <= 8:
        parser.error(f"--batch is 2 to {MOST}, and --minutes above 0 and at most 8")
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            f"no GPU here (torch {torch.__version__} finds none), so nothing was measured; "
            f"--device cpu --tiny shows that the script works",
            file=sys.stderr,
        )
        return 2
    sizes = TINY if args.tiny else FULL
    found = measure(
        args.device, sizes, args.batch, TINY_SECONDS if args.tiny else 60 * args.minutes
    )
    name = device_name(args.device)
    if args.json:
        facts = {"device": name, "torch": torch.__version__, "tiny": args.tiny}
        facts |= {"cpu": collect_environment(args.device).cpu, "backbone": sizes.backbone}
        print(json.dumps(facts | {"size": sizes.size} | found, indent=1))
        return 0
    console = Console()
    console.width = max(console.width, 110)
    for line in lines(found, f"{sizes.backbone}, {sizes.size} px, {name}"):
        console.print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
