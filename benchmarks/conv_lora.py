"""CPU time of Conv-LoRA's literal dispatch of experts divided by that of ours, 8 experts.

Literal, as the paper's released code describes it: rows are sorted by expert through `nonzero`,
every expert resizes whole maps bicubically and convolves them, and results are put together through
log(sum(exp)); on a GPU the host waits several times a layer. Ours is
`method_zoo.conv_lora`. Both run forward and backward in this process on one thread, turn
by turn; medians. Maps are spread over the experts evenly.

    python benchmarks/conv_lora.py [--json] [--repeats 7]
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
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from method_zoo.conv_lora import Experts, ScaleExpert

RANK, EXPERTS = 3, 8
# Name, maps at once, side of a map: a batch of images of a plain ViT, SAM's windows and images.
CASES = [
    ("ViT at 256 px, 8 images", 8, 16),
    ("ViT at 512 px, 8 images", 8, 32),
    ("SAM windows, 1 image", 25, 14),
    ("SAM global, 8 images", 8, 64),
]


def literal_expert(expert: ScaleExpert, a: Tensor) -> Tensor:
    """Enlarge, convolve, GELU, reduce: whole maps."""
    if expert.scale == 1:
        return F.gelu(expert.conv(a))
    large = F.interpolate(a, scale_factor=expert.scale, mode="bicubic")
    return F.interpolate(F.gelu(expert.conv(large)), size=a.shape[-2:], mode="bicubic")


def literal(experts: Experts, a: Tensor, gates: Tensor) -> Tensor:
    """Dispatch by sorted rows of the gate matrix, (B, E), and combine in exponential space."""
    _, order = torch.nonzero(gates).sort(0)
    expert_of = torch.nonzero(gates)[order[:, 1], 1:]
    rows = torch.nonzero(gates)[order[:, 1], 0]
    counts = (gates > 0).sum(0).tolist()
    shares = torch.gather(gates[rows], 1, expert_of)
    parts = a[rows].split(counts)
    done = [literal_expert(e, part) for e, part in zip(experts, parts, strict=True) if len(part)]  # type: ignore[arg-type]
    stacked = torch.cat(done).exp() * (shares > 0)[:, :, None, None]
    zeros = torch.zeros_like(a)
    combined = zeros.index_add(0, rows, stacked)
    combined = torch.where(combined == 0, torch.finfo(torch.float64).eps, combined)
    return combined.log()


def seconds(way: Callable[[], Tensor]) -> float:
    start = time.process_time()
    way().sum().backward()
    return time.process_time() - start


def measure(case: tuple[str, int, int], repeats: int) -> dict:
    """Time both ways on maps spread evenly over the experts, as the balance loss wants it."""
    name, count, side = case
    torch.manual_seed(0)
    experts = Experts(RANK, EXPERTS)
    for expert in experts:
        nn.init.normal_(expert.conv.bias, std=0.1)  # type: ignore[union-attr, arg-type]
    a = torch.randn(count, RANK, side, side, requires_grad=True)
    index = torch.arange(count) % EXPERTS
    gates = F.one_hot(index, EXPERTS).float()
    ways = {"literal": lambda: literal(experts, a, gates), "ours": lambda: experts(a, index)}
    torch.testing.assert_close(ways["literal"](), ways["ours"](), atol=1e-4, rtol=1e-4)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats + 1):
        for way, run in ways.items():
            times[way].append(seconds(run))
    slow, fast = (statistics.median(times[way][1:]) for way in ways)  # the first warms up
    found = {"case": name, "maps": count, "side": side, "literal_seconds": slow}
    return found | {"ours_seconds": fast, "time_ratio": slow / fast}


def table(rows: list[dict]) -> Table:
    out = Table(title=f"Conv-LoRA's {EXPERTS} experts, forward + backward: literal / ours")
    for name in ("case", "maps", "side", "literal ms", "ours ms", "x time"):
        out.add_column(name, no_wrap=True, justify="left" if name == "case" else "right")
    for row in rows:
        times = [f"{1e3 * row[key]:.1f}" for key in ("literal_seconds", "ours_seconds")]
        facts = [str(row[key]) for key in ("case", "maps", "side")]
        out.add_row(*facts, *times, f"[bold]{row['time_ratio']:.2f}[/]")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(stderr=True)
    cases = track(CASES, "measuring", console=console, transient=True)
    rows = [measure(case, args.repeats) for case in cases]
    if args.json:
        facts = {"torch": torch.__version__, "threads": 1, "rank": RANK, "experts": EXPERTS}
        print(json.dumps(facts | {"repeats": args.repeats, "rows": rows}, indent=1))
    else:
        Console().print(table(rows))


if __name__ == "__main__":
    main()
