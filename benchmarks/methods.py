"""Time of every method's training step divided by that of the frozen backbone's forward alone.

Each method has a process of its own, on one thread: its training steps (forward, structure loss,
backward, AdamW) and the forward pass of a frozen backbone take turns there, and medians count. Peak
memory is that of the training steps, before the frozen backbone is built, less what the process
held before the model. Weights and images are random. `lpmoe-bench table --speeds FILE` shows what
--json prints beside the scores of records. With --alone the step has neither decoder nor structure
loss, but the mean square of the method's maps: what the method itself costs; no table takes that.

    python benchmarks/methods.py [--json] [--alone] [--methods lora,vpt] [--backbone NAME]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from lpmoe_bench.environment import collect_environment
from lpmoe_bench.model.costs import count_parameters, peak_memory_bytes
from lpmoe_bench.model.segmenter import build_segmenter
from lpmoe_bench.model.weights.resolve import load_backbone, resolve_weights
from lpmoe_bench.training.profiling import profile_config
from method_zoo.options import get_method, list_methods

MIB = 2**20
CPU = torch.device("cpu")


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(
    method: str, backbone: str, size: int, batch: int, repeats: int, alone: bool = False
) -> dict:
    """Measure one method in this process; alone: without decoder and structure loss."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    held = peak_memory_bytes(CPU)
    layer = {"method": method, "backbone": backbone, "size": size, "runtime": {"device": "cpu"}}
    weights = resolve_weights(backbone, "random", Path())
    segmenter = build_segmenter(profile_config(layer), weights).train()
    model = segmenter.method if alone else segmenter
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained) if trained else None  # some train the decoder alone
    images = torch.rand(batch, 3, size, size)
    masks = (images[:, :1] > 0.5).float()

    def loss() -> Tensor:
        if alone:
            features = segmenter.method(images)
            maps = [*features.maps, features.final]
            return torch.stack([m.square().mean() for m in maps]).sum() + features.aux
        return segmenter(images, masks)

    def train() -> None:
        value = loss()
        if optimizer is not None:
            value.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    for _ in range(2):
        train()
    peak = peak_memory_bytes(CPU)
    frozen = load_backbone(weights, (size, size))

    @torch.no_grad()
    def forward() -> None:
        t = frozen.embed(images)
        for i in range(frozen.depth):
            t = frozen.block(i, t)
        frozen.norm(t)

    forward()
    pairs = [(seconds(train), seconds(forward)) for _ in range(repeats)]
    step, frozen_seconds = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    counts = count_parameters(segmenter)
    found = {"method": method, "parameters": counts["method"], "peak_bytes": peak - held}
    return found | {"step_seconds": step, "forward_seconds": frozen_seconds, "time_ratio": ratio}


def in_own_process(method: str, args: argparse.Namespace) -> dict:
    own = [sys.executable, __file__, "--one", method, "--backbone", args.backbone]
    own += ["--size", str(args.size), "--batch", str(args.batch), "--repeats", str(args.repeats)]
    own += ["--alone"] if args.alone else []
    done = subprocess.run(own, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{method} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def table(rows: list[dict], title: str) -> Table:
    out = Table(title=title)
    for name in ("method", "parameters", "step s", "frozen forward s", "x time", "peak MiB"):
        out.add_column(name, no_wrap=True, justify="left" if name == "method" else "right")
    for row in sorted(rows, key=lambda row: row["time_ratio"]):
        times = [f"{row[key]:.3f}" for key in ("step_seconds", "forward_seconds")]
        ratio, peak = f"[bold]{row['time_ratio']:.2f}[/]", f"{row['peak_bytes'] / MIB:.0f}"
        out.add_row(row["method"], f"{row['parameters']:,}", *times, ratio, peak)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    anywhere = [name for name in list_methods() if not get_method(name).made_for]
    parser.add_argument("--methods", default=",".join(anywhere))
    parser.add_argument("--backbone", default="vit_small_patch16_224")
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="without decoder and structure loss")
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what each process is told
    args = parser.parse_args()
    if args.one:
        asked = (args.backbone, args.size, args.batch, args.repeats, args.alone)
        print(json.dumps(measure(args.one, *asked)))
        return
    methods = track(
        args.methods.split(","), "measuring", console=Console(stderr=True), transient=True
    )
    rows = [in_own_process(method, args) for method in methods]
    facts = {"backbone": args.backbone, "size": args.size, "batch": args.batch}
    facts |= {"alone": True} if args.alone else {}
    if args.json:
        here = {"torch": torch.__version__, "threads": 1, "cpu": collect_environment("cpu").cpu}
        print(json.dumps(here | facts | {"rows": rows}, indent=1))
    else:
        words = f"{args.backbone}, {args.size} px, batch {args.batch}"
        words += ", without decoder" if args.alone else ""
        Console().print(table(rows, f"Training step / frozen forward, {words}"))


if __name__ == "__main__":
    main()
