"""CPU time of Conv-LoRA's literal layer and dispatch of experts divided by that of ours, 8 experts.

Literal, as the paper's released code describes it: rows are sorted by expert through `nonzero`,
every expert resizes whole maps bicubically and convolves them, and results are put together through
log(sum(exp)); on a GPU the host waits several times a layer. Ours is `method_zoo.conv_lora`.
"experts" are these alone, maps spread over them evenly. "layer" is the whole layer around a frozen
qkv in training, gate and balance loss included: how much it costs beyond the frozen linear (forward
and input gradient, timed beside it), literal over ours. Both get the same noise; outputs are
checked equal first. All take turns on one thread, forward and backward; ratios are medians over
rounds.

    python benchmarks/conv_lora.py [--json] [--repeats 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from in_turns import in_turns, median, multiple, ratio
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from lpmoe_bench.environment import collect_environment
from method_zoo.conv_lora import ConvLoRALinear, Experts, Gate, ScaleExpert

RANK, EXPERTS = 3, 8
# Name, maps at once, side of a map: a batch of images of a plain ViT, SAM's windows and images.
CASES = [
    ("ViT at 256 px, 8 images", 8, 16),
    ("ViT at 512 px, 8 images", 8, 32),
    ("SAM windows, 1 image", 25, 14),
    ("SAM global, 8 images", 8, 64),
]
# Whole layers: name, maps at once, side of a map, width of the backbone.
LAYERS = [
    ("ViT-S at 256 px, 8 images", 8, 16, 384),
    ("SAM-B windows, 1 image", 25, 14, 768),
    ("SAM-B global, 1 image", 1, 64, 768),
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


def literal_gate(gate: Gate, a: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy top-1 gating of Shazeer et al.: the gate matrix, (B, E), and the balance loss."""
    pooled = F.adaptive_avg_pool2d(a, 1).flatten(1)
    clean = pooled @ gate.weight
    deviation = F.softplus(pooled @ gate.noise) + 0.01
    noisy = clean + torch.randn_like(clean) * deviation
    top, where = noisy.topk(2, dim=1)
    gates = torch.zeros_like(noisy).scatter(1, where[:, :1], F.softmax(top[:, :1], dim=1))
    wins = noisy > top[:, 1:]
    normal = torch.distributions.Normal(0.0, 1.0)
    as_winner = normal.cdf((clean - top[:, 1:]) / deviation)
    as_other = normal.cdf((clean - top[:, :1]) / deviation)
    load = torch.where(wins, as_winner, as_other).sum(0)
    importance = gates.sum(0)
    spread = [x.var() / (x.mean() ** 2 + 1e-10) for x in (importance, load)]
    return gates, 0.01 * (spread[0] + spread[1])


def literal_layer(layer: ConvLoRALinear, x: Tensor, side: int) -> Tensor:
    """Linear layer, A, maps, gate, dispatch, tokens, B: each as a step of its own."""
    low = F.linear(x, layer.a)
    maps = low.transpose(1, 2).reshape(len(x), -1, side, side)
    gates, balance = literal_gate(layer.gate, maps)
    convolved = literal(layer.experts, maps, gates)
    inner = low + convolved.flatten(2).transpose(1, 2)
    return (layer.base(x) + F.linear(inner, layer.b) * layer.scale).mean() + balance


def our_layer(layer: ConvLoRALinear, x: Tensor, side: int) -> Tensor:
    out, balance = layer.forward_aux(x, 0, (side, side))
    return out.mean() + balance


def measure(case: tuple[str, int, int], repeats: int) -> dict[str, Any]:
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
    times = in_turns({way: both_ways(run) for way, run in ways.items()}, repeats)
    slow, fast = median(times).values()
    found = {"case": name, "maps": count, "side": side, "literal_seconds": slow}
    return found | {"ours_seconds": fast, "time_ratio": ratio(times, "literal", "ours")}


def measure_layer(case: tuple[str, int, int, int], repeats: int) -> dict[str, Any]:
    """Time the whole layer in both ways, and the frozen linear alone."""
    name, count, side, width = case
    torch.manual_seed(0)
    base = nn.Linear(width, 3 * width).requires_grad_(False)
    layer = ConvLoRALinear(base, RANK, 32.0, EXPERTS, through=False).train()
    with torch.no_grad():
        layer.b.normal_(std=0.02)
        layer.gate.weight.normal_(), layer.gate.noise.normal_()
    x = torch.randn(count, side * side, width, requires_grad=True)
    seeds = even_seeds(layer, x, side) if count == 1 else [0]

    ways: dict[str, Callable[[], Tensor]] = {
        "literal": lambda: literal_layer(layer, x, side),
        "ours": lambda: our_layer(layer, x, side),
        "linear": lambda: base(x).mean(),
    }

    def seeded(way: Callable[[], Tensor], seed: int) -> Tensor:
        torch.manual_seed(seed)
        return way()

    def work(way: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            for seed in seeds:
                x.grad = None  # within a network nothing is added to it
                seeded(way, seed).backward()

        return run

    for seed in seeds:
        both = [seeded(ways[way], seed) for way in ("literal", "ours")]
        torch.testing.assert_close(*both, atol=1e-5, rtol=1e-4)
        grads = [torch.autograd.grad(one, [x, layer.a, layer.b]) for one in both]
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, atol=1e-3 * float(one.abs().max()), rtol=1e-3)
    times = in_turns({name: work(way) for name, way in ways.items()}, repeats)
    # Small differences of large times: of each round, and then their medians.
    slow, fast = (
        statistics.median(a - b for a, b in zip(times[way], times["linear"], strict=True))
        for way in ("literal", "ours")
    )
    found = {"case": name, "maps": count, "side": side, "width": width}
    found |= {f"{way}_seconds": own / len(seeds) for way, own in median(times).items()}
    return found | {
        "ratio_beyond_linear": slow / fast,
        "time_ratio": ratio(times, "literal", "ours"),
    }


def even_seeds(layer: ConvLoRALinear, x: Tensor, side: int) -> list[int]:
    """Return seeds of the noise with which a single map goes to each expert once: they cost more
    the larger their scale."""
    maps = F.linear(x, layer.a).transpose(1, 2).unflatten(2, (side, side)).detach()
    found: dict[int, int] = {}
    with torch.no_grad():
        for seed in range(100_000):
            torch.manual_seed(seed)
            found.setdefault(int(layer.gate(maps).index), seed)
            if len(found) == EXPERTS:
                return list(found.values())
    raise SystemExit("some expert is never drawn")


def both_ways(loss: Callable[[], Tensor]) -> Callable[[], None]:
    return lambda: loss().sum().backward()


def tables(rows: list[dict[str, Any]], layers: list[dict[str, Any]]) -> list[Table]:
    experts = f"Conv-LoRA's {EXPERTS} experts, forward + backward: literal / ours"
    whole = "Conv-LoRA's layer in training, forward + backward: literal / ours"
    heads = ("case", "maps", "side", "literal ms", "ours ms")
    out = []
    for title, found, more in (
        (experts, rows, ["x time"]),
        (whole, layers, ["linear ms", "x time", "x beyond the linear"]),
    ):
        table = Table(title=title)
        for name in (*heads, *more):
            table.add_column(name, no_wrap=True, justify="left" if name == "case" else "right")
        for row in found:
            facts = [str(row[key]) for key in ("case", "maps", "side")]
            ways = [way for way in ("literal", "ours", "linear") if f"{way}_seconds" in row]
            times = [f"{1e3 * row[f'{way}_seconds']:.1f}" for way in ways]
            ratios = [row[key] for key in ("time_ratio", "ratio_beyond_linear") if key in row]
            table.add_row(*facts, *times, *(f"[bold]{value:.2f}[/]" for value in ratios))
        out.append(table)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=multiple(1), default=7)
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(stderr=True)
    cases = [(measure, case) for case in CASES] + [(measure_layer, case) for case in LAYERS]
    found: list[dict[str, Any]] = []
    for work, case in track(cases, "measuring", console=console, transient=True):
        found.append(work(case, args.repeats))  # type: ignore[arg-type]
    rows, layers = found[: len(CASES)], found[len(CASES) :]
    if args.json:
        here = {"torch": torch.__version__, "threads": 1, "cpu": collect_environment("cpu").cpu}
        facts = here | {"rank": RANK, "experts": EXPERTS, "repeats": args.repeats}
        print(json.dumps(facts | {"rows": rows, "layers": layers}, indent=1))
        return
    console = Console()
    console.width = max(console.width, 100)
    for one in tables(rows, layers):
        console.print(one)


if __name__ == "__main__":
    main()
