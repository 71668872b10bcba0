"""Conv-LoRA: Convolution Meets LoRA. Zhong et al., ICLR 2024, arXiv 2401.17868.

y = W x + b + (alpha / rank) B (a + E_j(a)), a = A x, on the fused qkv layer of every block. E_j:
one of several convolutions of the low-rank map a, each at its own scale, chosen by a gate per
image, or per window where the backbone attends in windows. Prefix tokens take the LoRA path. B
starts at zero: training starts at the frozen model.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._backbone import Backbone
from ._conv_lora_experts import Experts
from ._conv_lora_gate import Gate
from ._errors import ZooError, at_least
from ._method import Method
from .lora import LoRALinear

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
        at_least("experts", experts, 1)
        if gate_gradient not in GRADIENTS:
            raise ZooError(f"gate_gradient is '{gate_gradient}'; choose {' or '.join(GRADIENTS)}")
        through = gate_gradient == "straight_through"
        self.wrap(
            lambda name: name.endswith("attn.qkv"),
            lambda module: ConvLoRALinear(module, rank, alpha, experts, through),
        )


class ConvLoRALinear(LoRALinear):
    """A frozen linear layer with a low-rank update whose inner map is convolved at some scale."""

    def __init__(self, base: nn.Module, rank: int, alpha: float, experts: int, through: bool):
        super().__init__(base, rank, alpha)
        self.gate, self.experts, self.through = Gate(rank, experts), Experts(rank, experts), through

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        assert grid is not None, "a spatial layer is told its grid"
        return self.forward_aux(x, prefix, grid)[0]

    def forward_aux(self, x: Tensor, prefix: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        a = F.linear(x, self.a)
        maps = a[:, prefix:].transpose(1, 2).unflatten(2, grid)
        choice = self.gate(maps)
        convolved = self.experts(maps, choice.index)
        if self.through:  # a factor of exactly one that carries a gradient
            convolved = convolved * (choice.share / choice.share.detach())[:, None, None, None]
        patches = a[:, prefix:] + convolved.flatten(2).transpose(1, 2)
        inner = torch.cat([a[:, :prefix], patches], dim=1)
        return self.base(x) + F.linear(inner, self.b) * self.scale, choice.loss

    def fold(self) -> nn.Module:
        raise ZooError("Conv-LoRA depends on its input and cannot be folded")
