"""Time and memory of the literal LPMoE adapter, divided by those of ours, forward and backward.

Literal is what the specification of the paper says, step by step: maps that stay channels first,
experts of convolution, BatchNorm and ReLU, Haar filters as convolutions, the quadratic matrix of
cosines, levels read one by one and stacked, channel attention that pools five times and builds two
full maps, and a pyramid of whole maps. Both have the same weights; outputs and gradients are
checked equal in double precision first. "adapter" is prior, injectors, extractors and pyramid with
frozen blocks that do nothing, "prior" the prior extractor alone, up to its tokens. "recomputed" is
ours with `runtime.checkpointing`, "remade" with `runtime.recompute=interactions`. Batch 1, in turns
on one thread; ratios are medians over rounds. Peak is the most that the tensors of a step held at a
time, beyond inputs and weights.

    python benchmarks/lpmoe_adapter.py [--json] [--widths 384,1024] [--size 512] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from cosine_attention import MIB, count
from in_turns import in_turns, median, multiple, ratio
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from lpmoe_bench.environment import collect_environment
from method_zoo import Backbone, create_backbone
from method_zoo.lpmoe import LPMoE

WIDTH, POINTS, KERNELS = 64, 4, (3, 5, 7)
LEVELS, BLOCKS = 3, 4
SMALL = 1e-8
CHECKED, EQUAL = 64, 1e-5  # pixels, and share of the largest value


class Unit(nn.Module):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, conv: nn.Module, channels: int):
        super().__init__()
        self.conv, self.norms = conv, nn.ModuleList([nn.BatchNorm2d(channels)])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norms[0](self.conv(x)), inplace=True)


class Wavelet(nn.Module):
    """Haar transform and its inverse as strided convolutions with constant filters."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        same: dict[str, Any] = {"padding": kernel // 2}
        bands = 4 * channels
        self.base = nn.Conv2d(channels, channels, kernel, groups=channels, **same)
        self.base_scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bands = nn.Conv2d(bands, bands, kernel, groups=bands, bias=False, **same)
        self.bands_scale = nn.Parameter(torch.ones(1, bands, 1, 1))
        signs = [[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]
        filters = torch.tensor(signs, dtype=torch.float32)[:, None] / 2
        self.register_buffer("filters", filters.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        even = F.pad(x, (0, width % 2, 0, height % 2))
        bands = F.conv2d(even, self.filters, stride=2, groups=x.shape[1])
        bands = self.bands(bands) * self.bands_scale
        detail = F.conv_transpose2d(bands, self.filters, stride=2, groups=x.shape[1])
        return self.base(x) * self.base_scale + detail[..., :height, :width]


def branch(kind: str, c: int, k: int) -> nn.Module:
    """One kernel size of one of the four experts."""
    if kind == "depthwise":
        return Unit(nn.Conv2d(c, c, k, padding=k // 2, groups=c), c)
    if kind == "atrous":
        return Unit(nn.Conv2d(c, c, 3, padding=k, dilation=k), c)
    if kind == "asymmetric":
        row = Unit(nn.Conv2d(c, c, (1, k), padding=(0, k // 2)), c)
        return nn.Sequential(row, Unit(nn.Conv2d(c, c, (k, 1), padding=(k // 2, 0)), c))
    return Unit(Wavelet(c, k), c)


class Expert(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        inner = WIDTH // 4
        self.enter = Unit(nn.Conv2d(WIDTH, inner, 1), inner)
        self.branches = nn.ModuleList(branch(kind, inner, k) for k in KERNELS)
        self.leave = Unit(nn.Conv2d(WIDTH, WIDTH, 1), WIDTH)

    def forward(self, u: Tensor) -> Tensor:
        z = self.enter(u)
        a3 = self.branches[0](z)
        a5 = self.branches[1](z + a3)
        a7 = self.branches[2](z + a5)
        return self.leave(torch.cat([a3, a5, a7, z], dim=1))


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        kinds = ("depthwise", "atrous", "asymmetric", "wavelet")
        self.experts = nn.ModuleList(Expert(kind) for kind in kinds)
        self.gate = nn.Linear(WIDTH, len(kinds))

    def forward(self, u: Tensor) -> Tensor:
        gate = F.softmax(self.gate(F.adaptive_avg_pool2d(u, 1).flatten(1)), dim=1)
        every = torch.stack([expert(u) for expert in self.experts], dim=1)
        return (every * gate[:, :, None, None, None]).sum(1)


class Prior(nn.Module):
    """The prior extractor: a map at stride 4, tokens at strides 8, 16 and 32."""

    def __init__(self, dim: int):
        super().__init__()
        self.stem = Unit(nn.Conv2d(3, WIDTH, 3, stride=2, padding=1), WIDTH)
        down = (nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1) for _ in range(LEVELS))
        self.downs = nn.ModuleList(Unit(conv, WIDTH) for conv in down)
        self.mixture = Mixture()
        self.project = nn.Conv2d(WIDTH, dim, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        u = F.max_pool2d(self.stem(image), 3, stride=2, padding=1)
        u = u + self.mixture(u)
        scales = [u]
        for down in self.downs:
            u = down(u)
            u = u + self.mixture(u)
            scales.append(u)
        p1, *rest = [self.project(u) for u in scales]
        return [p1, *(p.flatten(2).transpose(1, 2) for p in rest)]


class Attention(nn.Module):
    """Deformable attention whose weights are multiplied by those of the cosine branch."""

    def __init__(self, dim: int, heads: int, levels: int):
        super().__init__()
        self.heads, self.levels = heads, levels
        count = heads * levels * POINTS
        self.offsets, self.weights = nn.Linear(dim, 2 * count), nn.Linear(dim, count)
        self.value, self.output = nn.Linear(dim, dim // 2), nn.Linear(dim // 2, dim)

    def forward(
        self, query: Tensor, features: Tensor, points: Tensor, grids: list[tuple[int, int]]
    ) -> Tensor:
        batch, many, _ = query.shape
        shape = (batch, many, self.heads, self.levels, POINTS)
        sizes = torch.tensor([(width, height) for height, width in grids], dtype=query.dtype)
        offsets = self.offsets(query).view(*shape, 2) / sizes[:, None]
        where = points[None, :, None, None, None] + offsets
        unit_query = query / (query.norm(dim=-1, keepdim=True) + SMALL)
        unit_features = features / (features.norm(dim=-1, keepdim=True) + SMALL)
        cosines = unit_query @ unit_features.transpose(1, 2)  # all queries by all features
        aligned = self.weights(cosines @ features)
        direct = self.weights(query)
        flat = (batch, many, self.heads, self.levels * POINTS)
        mixed = F.softmax(direct.view(flat), -1) * F.softmax(aligned.view(flat), -1)
        value = self.value(features).view(batch, features.shape[1], self.heads, -1)
        reads = []
        start = 0
        for level, (height, width) in enumerate(grids):
            plane = value[:, start : start + height * width].permute(0, 2, 3, 1)
            plane = plane.reshape(batch * self.heads, -1, height, width)
            start += height * width
            grid = (2 * where[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
            reads.append(F.grid_sample(plane, grid, align_corners=False))  # (B h, d, Q, P)
        stacked = torch.stack(reads, dim=-2).flatten(-2)
        factors = mixed.transpose(1, 2).reshape(batch * self.heads, 1, many, -1)
        read = (stacked * factors).sum(-1).view(batch, -1, many)
        return self.output(read.transpose(1, 2).contiguous())


class Enhance(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        hidden = dim // 4
        self.reduce, self.expand = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.channel = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.reverse = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.gate = nn.Linear(hidden, 2)

    def attend(self, conv: nn.Module, m: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(m, 1) + F.adaptive_max_pool2d(m, 1)
        return conv(pooled.flatten(2).transpose(1, 2)).transpose(1, 2)[..., None].sigmoid()

    def forward(self, x: Tensor, grids: list[tuple[int, int]]) -> Tensor:
        done = []
        for part, grid in zip(
            self.reduce(x).split([h * w for h, w in grids], 1), grids, strict=True
        ):
            m = self.depthwise(part.transpose(1, 2).unflatten(2, grid).contiguous())
            kept = m * self.attend(self.channel, m)
            lacking = m * (1 - self.attend(self.reverse, m))
            gate = F.softmax(self.gate(F.adaptive_avg_pool2d(m, 1).flatten(1)), dim=1)
            gate = gate[..., None, None, None]
            done.append((gate[:, 0] * kept + gate[:, 1] * lacking).flatten(2).transpose(1, 2))
        return self.expand(F.gelu(torch.cat(done, dim=1)))


class Injector(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm_tokens, self.norm_prior = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, LEVELS)
        self.gamma = nn.Parameter(torch.zeros(dim))


class Extractor(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm_tokens, self.norm_prior = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, 1)
        self.norm_enhance, self.enhance = nn.LayerNorm(dim), Enhance(dim)


class Pyramid(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(4))
        self.reduce = nn.Conv2d(dim, dim // 4, 1, bias=False)


class Literal(nn.Module):
    """The whole adapter; its tensors have the names that ours have."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.prior = Prior(dim)
        self.level = nn.Parameter(torch.zeros(LEVELS, dim))
        self.inject = nn.ModuleList(Injector(dim, heads) for _ in range(BLOCKS))
        self.extract = nn.ModuleList(
            nn.ModuleList(Extractor(dim, heads) for _ in range(3 if last else 1))
            for last in (False, False, False, True)
        )
        self.pyramid = Pyramid(dim)

    def forward(self, image: Tensor, tokens: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """Normalised image, patch tokens (B, N, C) and their grid to maps at strides 4 to 32."""
        height, width = grid
        grids = [(2 * height, 2 * width), grid, (height // 2, width // 2)]
        of_tokens, of_prior = centres([grid]), centres(grids)
        p1, *levels = self.prior(image)
        c = torch.cat([p + e for p, e in zip(levels, self.level, strict=True)], dim=1)
        x, taps = tokens, []
        for inject, extract in zip(self.inject, self.extract, strict=True):
            query, features = inject.norm_tokens(x), inject.norm_prior(c)
            x = x + inject.gamma * inject.attention(query, features, of_tokens, grids)
            for one in extract:
                query, features = one.norm_prior(c), one.norm_tokens(x)
                c = c + one.attention(query, features, of_prior, [grid])
                c = c + one.enhance(one.norm_enhance(c), grids)
            taps.append(x.transpose(1, 2).unflatten(2, grid))
        parts = c.split([h * w for h, w in grids], 1)
        c2, c3, c4 = (
            part.transpose(1, 2).unflatten(2, size).contiguous()
            for part, size in zip(parts, grids, strict=True)
        )
        maps = [self.pyramid.up(c2) + p1, c2, c3, c4]
        for k, factor in enumerate((4, 2, 1, 0.5)):
            tap = taps[k]
            if factor != 1:
                tap = F.interpolate(tap, scale_factor=factor, mode="bilinear", align_corners=False)
            maps[k] = self.pyramid.reduce(self.pyramid.norms[k](maps[k] + tap))
        return maps


def centres(grids: list[tuple[int, int]]) -> Tensor:
    """The centres of all cells, x before y, 0 to 1, row by row."""
    found = []
    for height, width in grids:
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) / height,
            (torch.arange(width) + 0.5) / width,
            indexing="ij",
        )
        found.append(torch.stack([x.flatten(), y.flatten()], dim=-1))
    return torch.cat(found)


def pair(dim: int, size: int) -> tuple[LPMoE, Literal]:
    """Return both adapters with the same weights, none of them at its start."""
    torch.manual_seed(0)
    sizes = {"embed_dim": dim, "num_heads": dim // 64, "depth": BLOCKS, "img_size": size}
    ours = LPMoE(create_backbone("vit_small_patch16_224", **sizes), drop_path=0.0)
    ours.block = lambda i, t: t  # type: ignore[method-assign]  # the adapter alone is measured
    for layer in [*ours.inject, *(one for stage in ours.extract for one in stage)]:  # type: ignore[attr-defined]
        # Small: the sum over all tokens is large, and what is saturated has no gradient to compare.
        nn.init.normal_(layer.attention.weights.weight, std=1e-3)
        nn.init.normal_(layer.attention.offsets.weight, std=1e-3)
    for inject in ours.inject:
        nn.init.normal_(inject.gamma, std=0.1)  # type: ignore[arg-type]
    literal = Literal(dim, dim // 64)
    own = {n: t for n, t in ours.state_dict().items() if not n.startswith("backbone.")}
    literal.load_state_dict(own)
    return ours.train(), literal.train()


Loss = Callable[[], Tensor]


def losses(ours: LPMoE, literal: Literal, image: Tensor) -> dict[str, dict[str, Loss]]:
    """Return part -> way -> its outputs as one number, which is differentiated."""
    backbone: Backbone = ours.backbone

    def square(maps: list[Tensor]) -> Tensor:
        return torch.stack([m.square().mean() for m in maps]).sum()

    def whole(checkpointing: bool = False, recompute: str | None = None) -> Tensor:
        ours.checkpointing, ours.recompute = checkpointing, recompute
        return square(ours(image).maps)

    def whole_literal() -> Tensor:
        t = backbone.embed(image)
        return square(literal(backbone.normalise(image), t.patches, t.grid))

    def tokens(p1: Tensor, rest: list[Tensor]) -> Tensor:
        return square([p1, torch.cat(rest, dim=1)])

    def prior() -> Tensor:
        p1, *rest = ours.prior(backbone.normalise(image))
        return tokens(p1, [m.flatten(2).transpose(1, 2) for m in rest])

    def prior_literal() -> Tensor:
        p1, *rest = literal.prior(backbone.normalise(image))
        return tokens(p1, rest)

    return {
        "prior": {"literal": prior_literal, "ours": prior},
        "adapter": {
            "literal": whole_literal,
            "ours": whole,
            "recomputed": lambda: whole(checkpointing=True),
            "remade": lambda: whole(recompute="interactions"),
        },
    }


def apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference over the largest value."""
    return float((one - other).detach().abs().max() / other.detach().abs().max())


def outputs(ours: LPMoE, literal: Literal, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    t = ours.backbone.embed(image)
    return ours(image).maps, literal(ours.backbone.normalise(image), t.patches, t.grid)


def check_equal(dim: int) -> None:
    """Raise where outputs or gradients differ, in double precision on a small image: in single one
    gradients through BatchNorm have a hundredth of rounding."""
    ours, literal = (model.double() for model in pair(dim, CHECKED))
    both = outputs(ours, literal, torch.rand(2, 3, CHECKED, CHECKED, dtype=torch.float64))
    far = {f"map {k}": apart(*maps) for k, maps in enumerate(zip(*both, strict=True))}
    for maps in both:
        torch.stack([m.square().mean() for m in maps]).sum().backward()
    own = {name: p.grad for name, p in ours.named_parameters()}
    for name, parameter in literal.named_parameters():
        one, other = own[name], parameter.grad
        # A bias in front of a BatchNorm has no gradient but rounding.
        if one is not None and other is not None and other.abs().max() > SMALL:
            far[f"gradient of {name}"] = apart(one, other)
    worst = max(far, key=far.__getitem__)
    if not far[worst] < EQUAL:
        raise SystemExit(f"ours and literal are not the same: {worst} differs by {far[worst]:.1e}")


def measure(dim: int, size: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each part: seconds, MiB, ratios of literal to ours, of ours to literal."""
    check_equal(dim)
    ours, literal = pair(dim, size)
    image = torch.rand(1, 3, size, size)
    with torch.no_grad():
        difference = max(apart(*maps) for maps in zip(*outputs(ours, literal, image), strict=True))
    if not difference < 1e-3:
        raise SystemExit(f"the outputs differ by {difference:.1e} of their largest value")

    def clear() -> None:
        for model in (ours, literal):
            model.zero_grad(set_to_none=True)

    def step(loss: Loss) -> Callable[[], None]:
        def run() -> None:
            loss().backward()
            clear()

        return run

    rows = []
    for part, ways in losses(ours, literal, image).items():
        peaks = {}
        for way, loss in ways.items():
            clear()
            peaks[way] = count(loss).peak_bytes / MIB
        clear()
        steps = {way: step(loss) for way, loss in ways.items()}
        times = in_turns(steps, rounds, warm_up=0)  # to count memory has warmed up
        found: dict[str, Any] = {"width": dim, "size": size, "part": part}
        found |= {"difference": difference, "seconds": median(times), "peak_MiB": peaks}
        found["times_as_fast"] = {w: ratio(times, "literal", w) for w in ways if w != "literal"}
        found["peak"] = {w: peaks[w] / peaks["literal"] for w in ways if w != "literal"}
        rows.append(found)
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(title="LPMoE adapter, forward + backward: literal against ours")
    for name in ("width", "px", "part", "way"):
        out.add_column(name, no_wrap=True)
    for name in ("literal s", "s", "x as fast", "literal MiB", "MiB", "of its peak"):
        out.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        for way, fast in row["times_as_fast"].items():
            seconds = (f"{row['seconds'][key]:.3f}" for key in ("literal", way))
            peaks = (f"{row['peak_MiB'][key]:.0f}" for key in ("literal", way))
            place = (str(row[key]) for key in ("width", "size", "part"))
            share = f"[bold]{row['peak'][way]:.2f}[/]"
            out.add_row(*place, way, *seconds, f"[bold]{fast:.2f}[/]", *peaks, share)
    return out


def numbers(text: str) -> list[int]:
    return [multiple(64)(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--widths", type=numbers, default=[384, 1024], help="multiples of 64")
    parser.add_argument(
        "--size", type=multiple(32), default=512, help="pixels a side, a multiple of 32"
    )
    parser.add_argument("--rounds", type=multiple(1), default=3)
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    torch.set_num_threads(1)
    widths = track(args.widths, "measuring", console=Console(stderr=True), transient=True)
    rows = [row for width in widths for row in measure(width, args.size, args.rounds)]
    if args.json:
        here = {"torch": torch.__version__, "threads": 1, "cpu": collect_environment("cpu").cpu}
        print(json.dumps(here | {"batch": 1, "rounds": args.rounds, "rows": rows}, indent=1))
        return
    console = Console()
    console.width = max(console.width, 110)
    console.print(table(rows))


if __name__ == "__main__":
    main()
