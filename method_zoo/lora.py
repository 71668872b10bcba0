"""LoRA: Low-Rank Adaptation of Large Language Models. Hu et al., ICLR 2022, arXiv 2106.09685.

y = W x + b + (alpha / rank) B A x, on the fused query-key-value layer of every block.
A (rank x d) starts Kaiming-uniform, B (3d x rank) at zero: training starts at the frozen model.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._backbone import Backbone, Wrapped
from ._errors import ZooError
from ._method import Method


class LoRA(Method):
    title = "LoRA"
    paper = "arXiv 2106.09685"
    fidelity = "the paper's equation on the fused qkv layer, as the Conv-LoRA comparison uses it"
    mergeable = True
    preset = {"lr": 1e-3}

    def __init__(self, backbone: Backbone, rank: int = 8, alpha: float = 8.0):
        super().__init__(backbone)
        if rank < 1:
            raise ZooError(f"rank is {rank}; it must be at least 1")
        self.wrap(lambda name: name.endswith("attn.qkv"), lambda m: LoRALinear(m, rank, alpha))


class LoRALinear(Wrapped):
    """A frozen linear layer with a trained low-rank update."""

    def __init__(self, base: nn.Module, rank: int, alpha: float):
        super().__init__(base)
        assert isinstance(base, nn.Linear)
        self.a = nn.Parameter(torch.empty(rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        return self.base(x) + F.linear(F.linear(x, self.a), self.b) * self.scale

    def fold(self) -> nn.Module:
        assert isinstance(self.base, nn.Linear)
        with torch.no_grad():
            self.base.weight += self.scale * self.b @ self.a
        return self.base
