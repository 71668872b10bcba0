"""Time and memory of the literal quadratic cosine attention, divided by those of ours.

Both are run forward and backward in this process, turn by turn, on the shapes of the injector (ViT
tokens read three prior grids) and of the extractor (prior tokens read the ViT grid), batch 1.
"branch" is the cosine branch alone, "attention" the whole module with it. Peak is the most that the
tensors of a run held at a time, beyond inputs and weights; saved is what its graph keeps for the
backward pass.

    python benchmarks/cosine_attention.py [--json] [--widths 384,1024] [--sizes 256,512,1024]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import weakref
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from method_zoo.lpmoe import Layout
from method_zoo.parts import deformable
from method_zoo.parts.deformable import CosineDeformableAttention, aligned_logits

HEAD_WIDTH = 64
MIB = 2**20
LONG_SECONDS = 2


class Cost(NamedTuple):
    """One way to compute one thing, forward and backward."""

    seconds: float
    peak_bytes: int
    saved_bytes: int


def literal_logits(query: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    """The authors' bracketing, W ((q^ f^T) f): through the matrix of all cosines."""
    query = query / (query.norm(dim=-1, keepdim=True) + 1e-8)
    unit = features / (features.norm(dim=-1, keepdim=True) + 1e-8)
    return ((query @ unit.transpose(1, 2)) @ features) @ weight.t()


def cases(width: int, size: int, direction: str) -> dict[str, Callable[[Callable], Tensor]]:
    """Return what is measured, by name: functions of the way the logits are computed."""
    torch.manual_seed(0)
    grid = (size // 16, size // 16)
    tokens = torch.empty(1, grid[0] * grid[1], width)
    prior = torch.empty(1, tokens.shape[1] * 21 // 4, width)
    layout = Layout.of(grid, tokens)
    into_vit = direction == "injector"
    query, features = (tokens, prior) if into_vit else (prior, tokens)
    here, source = (layout.tokens, layout.prior) if into_vit else (layout.prior, layout.tokens)
    query, features = (
        F.layer_norm(torch.randn_like(t), (width,)).requires_grad_() for t in (query, features)
    )
    module = CosineDeformableAttention(width, width // HEAD_WIDTH, len(source.grids))
    torch.nn.init.normal_(module.weights.weight, std=0.02)

    def attention(logits: Callable) -> Tensor:
        # Ours makes all projections in one operation, which the literal branch has no place in.
        ours = logits is aligned_logits
        with (
            mock.patch.object(deformable, "aligned_logits", logits),
            mock.patch.object(module, "_fuses", module._fuses if ours else lambda *_: False),
        ):
            return module(query, features, here.points, source)

    return {
        "branch": lambda logits: logits(query, features, module.weights.weight),
        "attention": attention,
    }


class Held(TorchDispatchMode):
    """Counts the bytes of all storages that operations have made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.alive: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if is_tensor(x)}
        for tensor in filter(is_tensor, tree_leaves(out)):
            storage = tensor.untyped_storage()
            if storage._cdata not in inputs | self.alive:
                self.alive.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def free(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size


def is_tensor(x: object) -> bool:
    return isinstance(x, Tensor)


def count(run: Callable[[], Tensor]) -> Cost:
    """Count the memory of one run, forward and backward."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not tensor.is_leaf:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    start = time.perf_counter()
    with Held() as held:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = run()
        saved = sum(kept.values())
        out.sum().backward()
        del out
    return Cost(time.perf_counter() - start, held.peak, saved)


def seconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run().sum().backward()
    return time.perf_counter() - start


def measure(case: Callable[[Callable], Tensor], repeats: int) -> dict[str, Cost]:
    """Return the costs of both ways. Counting memory warms up, the timed runs alternate.

    A run that takes seconds is not repeated: counting slows it down by a millisecond or two.
    """
    runs = {"literal": lambda: case(literal_logits), "ours": lambda: case(aligned_logits)}
    counted = {name: count(run) for name, run in runs.items()}
    if max(cost.seconds for cost in counted.values()) > LONG_SECONDS:
        return counted
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return {n: c._replace(seconds=statistics.median(times[n])) for n, c in counted.items()}


def table(rows: list[dict]) -> Table:
    out = Table(title="Cosine attention, forward + backward: literal / ours")
    for name in ("width", "px", "shape", "part"):
        out.add_column(name, no_wrap=True)
    for name in ("literal s", "ours s", "x time", "literal MiB", "ours MiB", "x peak", "x saved"):
        out.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        a, b = row["literal"], row["ours"]
        out.add_row(
            *(str(row[k]) for k in ("width", "px", "shape", "part")),
            f"{a['seconds']:.3f}",
            f"{b['seconds']:.3f}",
            f"[bold]{row['time_ratio']:.1f}[/]",
            f"{a['peak_bytes'] / MIB:.0f}",
            f"{b['peak_bytes'] / MIB:.0f}",
            f"[bold]{row['peak_ratio']:.1f}[/]",
            f"{row['saved_ratio']:.1f}",
        )
    return out


def row(width: int, size: int, direction: str, part: str, costs: dict[str, Cost]) -> dict:
    a, b = costs["literal"], costs["ours"]
    return {
        "width": width,
        "px": size,
        "shape": direction,
        "part": part,
        "literal": a._asdict(),
        "ours": b._asdict(),
        "time_ratio": a.seconds / b.seconds,
        "peak_ratio": a.peak_bytes / b.peak_bytes,
        "saved_ratio": a.saved_bytes / b.saved_bytes,
    }


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--widths", type=numbers, default=[384, 1024], help="of the backbone")
    parser.add_argument("--sizes", type=numbers, default=[256, 512, 1024], help="pixels a side")
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed runs of the short cases; median"
    )
    parser.add_argument("--threads", type=int, default=1, help="0: as torch chooses")
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    cells = [
        (width, size, direction)
        for width in args.widths
        for size in args.sizes
        for direction in ("injector", "extractor")
    ]
    rows = []
    for cell in track(cells, "measuring", console=Console(stderr=True), transient=True):
        for part, case in cases(*cell).items():
            rows.append(row(*cell, part, measure(case, args.repeats)))
    if args.json:
        facts = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        print(json.dumps(facts | {"batch": 1, "repeats": args.repeats, "rows": rows}, indent=1))
    else:
        console = Console()
        console.width = max(console.width, 120)
        console.print(table(rows))


if __name__ == "__main__":
    main()
