"""CPU time of a loop over the images of a batch divided by that of one grouped convolution.

Every image has kernels of its own, dense as in VFM-Adapter or one filter a channel as in AdaRoute.
Both ways run forward and backward in this process on one thread, turn by turn; medians.

    python benchmarks/per_image_convolution.py [--json] [--batch 8] [--grids 16,24]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from method_zoo.parts.layers import convolve_each

# Name, channels, whether the kernels are dense, their size: those of the default options.
CASES = [
    ("VFM-Adapter", 32, True, 3),
    *(("AdaRoute", width, False, k) for width in (32, 128) for k in (3, 5, 7)),
]


def loop(maps: Tensor, kernels: Tensor) -> Tensor:
    """One convolution an image."""
    groups, padding = maps.shape[1] // kernels.shape[2], kernels.shape[-1] // 2
    each = zip(maps, kernels, strict=True)
    return torch.cat([F.conv2d(m[None], k, padding=padding, groups=groups) for m, k in each])


def seconds(way: Callable[[Tensor, Tensor], Tensor], maps: Tensor, kernels: Tensor) -> float:
    start = time.process_time()
    way(maps, kernels).sum().backward()
    return time.process_time() - start


def measure(case: tuple[str, int, bool, int], batch: int, grid: int, repeats: int) -> dict:
    name, width, dense, size = case
    maps = torch.rand(batch, width, grid, grid, requires_grad=True)
    shape = (batch, width, width if dense else 1, size, size)
    kernels = torch.rand(shape, requires_grad=True)
    torch.testing.assert_close(loop(maps, kernels), convolve_each(maps, kernels))
    times = []
    for _ in range(repeats + 1):
        times.append([seconds(way, maps, kernels) for way in (loop, convolve_each)])
    a, b = (statistics.median(t) for t in zip(*times[1:], strict=True))  # the first warms up
    kind = f"{'dense' if dense else 'depthwise'} {size} x {size}"
    row = {"method": name, "kernel": kind, "channels": width, "batch": batch, "grid": grid}
    return row | {"loop_seconds": a, "grouped_seconds": b, "time_ratio": a / b}


def table(rows: list[dict]) -> Table:
    out = Table(title="Convolutions with kernels of each image, forward + backward: loop / grouped")
    for name in (
        "method",
        "kernel",
        "channels",
        "batch",
        "grid",
        "loop ms",
        "grouped ms",
        "x time",
    ):
        out.add_column(name, no_wrap=True, justify="left" if name == "method" else "right")
    for row in rows:
        facts = [str(row[k]) for k in ("method", "kernel", "channels", "batch", "grid")]
        times = [f"{1e3 * row[k]:.2f}" for k in ("loop_seconds", "grouped_seconds")]
        out.add_row(*facts, *times, f"[bold]{row['time_ratio']:.2f}[/]")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--grids", default="16,24", help="patches a side")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    torch.set_num_threads(1)
    grids = [int(g) for g in args.grids.split(",")]
    rows = [measure(case, args.batch, g, args.repeats) for g in grids for case in CASES]
    if args.json:
        facts = {"torch": torch.__version__, "threads": 1}
        print(json.dumps(facts | {"repeats": args.repeats, "rows": rows}, indent=1))
    else:
        Console().print(table(rows))


if __name__ == "__main__":
    main()
