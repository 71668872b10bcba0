"""Conv-LoRA: Convolution Meets LoRA. Zhong et al., ICLR 2024, arXiv 2401.17868.

y = W x + b + (alpha / rank) B (a + E_j(a)), a = A x, on the fused qkv layer of every block. E_j:
one of several convolutions of the low-rank map a, each at its own scale, chosen by a gate per
image, or per window where the backbone attends in windows. Prefix tokens take the LoRA path. B
starts at zero: training starts at the frozen model.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lora import LoRALinear
from .method import Backbone, Method, ZooError, at_least, one_of
from .parts.low_rank import add_low, in_full_precision, linear_and_low

MOST_EXPERTS = 64  # the last would enlarge a map as many times
GRADIENTS = ("official", "straight_through")


class ConvLoRA(Method):
    """experts: convolutions at scales 1 ... experts. gate_gradient: "official", where the balance
    loss alone trains the gate, as in the authors' code; "straight_through" also gives it the
    gradient of the task, through the share of the chosen expert, without changing any output."""

    title = "Conv-LoRA"
    paper = "arXiv 2401.17868"
    fidelity = (
        "the authors' code to 1e-5, gate and balance loss included; their combination through "
        "exp and log is left out, which changes nothing for one expert a map"
    )
    needs_attention = True
    find_unused_parameters = True
    unmergeable = "its convolutions see neighbours, and a gate chooses them for every image"
    preset = {"lr": 1e-3}
    without_gradient = {
        "gate": "the balance loss alone trains the official gate, and only while it draws noise",
        "experts": "an expert that no image has chosen is idle",
    }

    def __init__(
        self,
        backbone: Backbone,
        rank: int = 3,
        alpha: float = 32.0,
        experts: int = 8,
        gate_gradient: str = "official",
    ):
        super().__init__(backbone)
        at_least("rank", rank, 1)
        if not 1 <= experts <= MOST_EXPERTS:  # built one by one, before anybody can count them
            raise ZooError(f"experts is {experts}; it must be 1 to {MOST_EXPERTS}")
        one_of("gate_gradient", gate_gradient, GRADIENTS)
        through = gate_gradient == "straight_through"
        self.wrap(
            lambda name: name.endswith("attn.qkv"),
            lambda module: ConvLoRALinear(module, rank, alpha, experts, through),
        )


class ConvLoRALinear(LoRALinear):
    """A frozen linear layer with a low-rank update whose inner map is convolved at some scale."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, experts: int, through: bool):
        super().__init__(base, rank, alpha)
        self.gate, self.experts, self.through = Gate(rank, experts), Experts(rank, experts), through

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        assert grid is not None, "a spatial layer is told its grid"
        return self.forward_aux(x, prefix, grid)[0]

    def forward_aux(self, x: Tensor, prefix: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        whole = in_full_precision(self.base, x)
        if whole:
            y, a = linear_and_low(self.base, x, self.a)
        else:
            y, a = self.base(x), F.linear(x, self.a)
        # (B, N, r) without the prefix to (B, r, H, W).
        maps = a[:, prefix:].transpose(1, 2).unflatten(2, grid)
        choice = self.gate(maps)
        convolved = self.experts(maps, choice.index)
        if self.through:  # a factor of exactly one that carries a gradient
            convolved = convolved * (choice.share / choice.share.detach())[:, None, None, None]
        patches = a[:, prefix:] + convolved.flatten(2).transpose(1, 2)
        inner = torch.cat([a[:, :prefix], patches], dim=1)
        if whole:
            return add_low(y, inner, self.b * self.scale), choice.loss
        return y + F.linear(inner, self.b) * self.scale, choice.loss

    def fold(self) -> nn.Module:
        raise ZooError("Conv-LoRA depends on its input and cannot be folded")


# The gate of Conv-LoRA: which expert reads a map, and the loss that balances the choices.
#
# logits = mean(a) W_g; training adds noise of deviation softplus(mean(a) W_n) + 0.01. The largest
# wins. L = 0.01 (CV^2(importance) + CV^2(load)), over the maps of one call (Shazeer et al., 2017).

BALANCE = 0.01
LEAST_DEVIATION = 0.01


class GateChoice(NamedTuple):
    """index: (B,), the chosen expert. share: (B,), its softmax share. loss: scalar."""

    index: Tensor
    share: Tensor
    loss: Tensor


class Gate(nn.Module):
    """Chooses one of several experts for each map, with noise while training."""

    def __init__(self, rank: int, experts: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rank, experts))
        self.noise = nn.Parameter(torch.zeros(rank, experts))

    def forward(self, a: Tensor) -> GateChoice:
        """Low-rank maps a, (B, r, H, W), to the choice for each of them."""
        pooled = a.mean((2, 3)).float()
        clean = _project(pooled, self.weight)
        if not self.training:  # without noise the load is what was chosen
            index = clean.argmax(1)
            load = importance = _one_hot(index, clean)
            logits = clean
        else:
            deviation = F.softplus(_project(pooled, self.noise)) + LEAST_DEVIATION
            logits = clean + torch.randn_like(clean) * deviation
            index = logits.argmax(1)
            importance = _one_hot(index, clean)
            # Which expert wins is a step without gradient;
            # how likely it wins has one (Shazeer et al.).
            load = _probability_of_top(clean, logits, deviation)
        loss = BALANCE * (_variation(importance.sum(0)) + _variation(load.sum(0)))
        share = logits.softmax(1).gather(1, index[:, None])[:, 0]
        return GateChoice(index, share, loss)


def _project(pooled: Tensor, weight: Tensor) -> Tensor:
    # Not a matrix product: that would run in half precision under autocast, where choices flip.
    return (pooled[:, :, None] * weight).sum(1)


def _one_hot(index: Tensor, like: Tensor) -> Tensor:
    return F.one_hot(index, like.shape[1]).to(like.dtype)


def _probability_of_top(clean: Tensor, noisy: Tensor, deviation: Tensor) -> Tensor:
    """Return how likely each expert would win if its own noise were drawn again, (B, E)."""
    if clean.shape[1] == 1:
        return torch.ones_like(clean)
    first, second = noisy.topk(2, dim=1).values.unbind(1)
    # The winner has to beat the second, the others have to beat the winner.
    rival = torch.where(noisy == first[:, None], second[:, None], first[:, None])
    return torch.special.ndtr((clean - rival) / deviation)


def _variation(x: Tensor) -> Tensor:
    """Return the squared coefficient of variation, with the unbiased variance."""
    if x.shape[0] == 1:
        return x.new_zeros(())
    # 0 where all experts are used alike, the larger the less even it is.
    return x.var() / (x.mean() ** 2 + 1e-10)


# The experts of Conv-LoRA: a 3 x 3 convolution of the low-rank map at another scale each.
#
# E_s(a) = down_s(GELU(conv(up_s(a)))), up_s and down_s bicubic by s; E_1 does not resize. Exactly
# the same with less work: at odd s the way down reads only the middle of each s x s cell, so only
# the 3 x 3 values around each middle are interpolated, and the convolution takes steps of 3.


class Experts(nn.ModuleList):
    """Experts for scales 1, 2, ...; each map goes through the one that was chosen for it."""

    one_of = True  # who counts work where the choice is not known divides by the number of experts

    def __init__(self, rank: int, count: int):
        super().__init__(ScaleExpert(rank, scale + 1) for scale in range(count))

    def forward(self, a: Tensor, index: Tensor) -> Tensor:
        """Maps a, (B, r, H, W), and the chosen experts, (B,), to E_index(a), (B, r, H, W)."""
        if torch.compiler.is_compiling() or a.is_meta:
            # Here the choice is not known: all experts run, and the chosen map is taken.
            every = torch.stack([expert(a) for expert in self], dim=1)
            return every[torch.arange(a.shape[0], device=a.device), index]
        chosen = index.tolist()  # the one time that the host waits for the device
        # Maps of one expert are brought together, so that each expert runs once, then put back.
        order = sorted(range(len(chosen)), key=chosen.__getitem__)
        used = sorted(set(chosen))
        parts = a[order].split([chosen.count(e) for e in used])
        done = torch.cat([self[e](part) for e, part in zip(used, parts, strict=True)])
        # The inverse permutation: results go back to the places of their maps.
        return done[sorted(range(len(order)), key=order.__getitem__)]


class ScaleExpert(nn.Module):
    """A convolution that sees the map `scale` times larger."""

    def __init__(self, rank: int, scale: int):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(rank, rank, 3, padding=1), scale
        nn.init.zeros_(self.conv.get_parameter("bias"))

    def forward(self, a: Tensor) -> Tensor:
        """Map, (B, r, H, W), to a map of the same size."""
        if self.scale == 1:
            return F.gelu(self.conv(a))
        height, width = a.shape[-2:]
        # Bicubic resizing is linear and goes side by side, so it is a matrix product on each side.
        rows, columns = (_resize(size, self.scale * size, a) for size in (height, width))
        if self.scale % 2 == 0:
            large = F.gelu(self.conv(rows @ a @ columns.T))
            rows, columns = (_resize(self.scale * size, size, a) for size in (height, width))
            return rows @ large @ columns.T
        large = _middles(rows, self.scale) @ a @ _middles(columns, self.scale).T
        return F.gelu(F.conv2d(large, self.conv.weight, self.conv.bias, stride=3))


def _resize(source: int, target: int, like: Tensor) -> Tensor:
    """Return bicubic interpolation of a line as a matrix, (target, source)."""
    if like.is_meta:  # nothing to compute, and torch would take seconds for that
        return like.new_empty(target, source)
    make = _bicubic if torch.compiler.is_compiling() else _kept
    return make(source, target, like.dtype, like.device)


@lru_cache(maxsize=128)
def _kept(source: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Make each matrix once: that costs as much as the products with it."""
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
        return _bicubic(source, target, dtype, device)


def _bicubic(source: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    unit = torch.eye(source, device=device, dtype=torch.promote_types(dtype, torch.float32))
    line = F.interpolate(unit[None, None], (target, source), mode="bicubic")[0, 0]
    return line.to(dtype)


def _middles(matrix: Tensor, scale: int) -> Tensor:
    """Keep the three lines around the middle of each cell of `scale` lines, scale odd."""
    cells = matrix.unflatten(0, (-1, scale))
    return cells[:, scale // 2 - 1 : scale // 2 + 2].flatten(0, 1)
