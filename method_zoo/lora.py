"""LoRA: Low-Rank Adaptation of Large Language Models. Hu et al., ICLR 2022, arXiv 2106.09685.

y = W x + b + (alpha / rank) B A x, on the fused query-key-value layer of every block.
A (rank x d) starts Kaiming-uniform, B (3d x rank) at zero: training starts at the frozen model.
Or on queries and values alone, each with an A (rank x d) and a B (d x rank) of its own.
rsLoRA (Kalajdzievski, arXiv 2312.03732) divides by the root of the rank instead.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Method, Wrapped, at_least, one_of, rewrite
from .parts.low_rank import changed_linear, in_full_precision

TARGETS = ("qkv", "qv")


class LoRA(Method):
    """targets: "qkv" gives the fused layer one update, whose A queries, keys and values share; "qv"
    gives queries and values an update each and leaves the keys. Both train the same number."""

    title = "LoRA"
    paper = "arXiv 2106.09685"
    fidelity = (
        "the paper's equation, equal to Hugging Face peft's outputs; on the fused qkv layer as the "
        "Conv-LoRA comparison uses it, where the paper adapts queries and values (targets=qv)"
    )
    needs_attention = True
    mergeable = True
    preset = {"lr": 1e-3}
    later_options = {"targets": "qkv", "rslora": False}

    def __init__(
        self,
        backbone: Backbone,
        rank: int = 8,
        alpha: float = 8.0,
        targets: str = "qkv",
        rslora: bool = False,
    ):
        super().__init__(backbone)
        at_least("rank", rank, 1)
        one_of("targets", targets, TARGETS)
        layer = LoRALinear if targets == "qkv" else QueryValueLinear
        self.wrap(lambda name: name.endswith("attn.qkv"), lambda m: layer(m, rank, alpha, rslora))


class LoRALinear(Wrapped):
    """A frozen linear layer with a trained low-rank update."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, rooted: bool = False):
        super().__init__(base)
        self.alpha, self.rooted = alpha, rooted  # rooted: scaled by the root of the rank, rsLoRA
        self.a = nn.Parameter(torch.empty(rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.scale = alpha / (math.sqrt(rank) if rooted else rank)

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        if in_full_precision(self.base, x):
            return changed_linear(self.base, x, self.a, self.b * self.scale)
        # Two thin products, A then B: the matrix B A, as large as W, is never formed.
        return self.base(x) + F.linear(F.linear(x, self.a), self.b) * self.scale

    def fold(self) -> nn.Module:
        rewrite(self.base, self.base.weight + self.scale * self.b @ self.a)
        return self.base


class QueryValueLinear(Wrapped):
    """A frozen fused qkv layer with a low-rank update of its queries and one of its values."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, rooted: bool = False):
        super().__init__(base)
        self.a = nn.Parameter(torch.empty(2 * rank, base.in_features))  # queries' rows, values'
        self.b = nn.Parameter(torch.zeros(2, base.out_features // 3, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.scale = alpha / (math.sqrt(rank) if rooted else rank)

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        if in_full_precision(self.base, x):
            return changed_linear(self.base, x, self.a, self._spread() * self.scale)
        # The fused output is [queries, keys, values]; the keys' part of the update is zero.
        query, value = map(F.linear, F.linear(x, self.a).chunk(2, dim=-1), self.b)
        update = torch.cat([query, torch.zeros_like(query), value], dim=-1)
        return self.base(x) + update * self.scale

    def _spread(self) -> Tensor:
        """Return both B as one, (3d, 2 rank): queries read the first A, values the second."""
        (query, value), rank = self.b, self.b.shape[2]
        keys = query.new_zeros(len(query), 2 * rank)
        return torch.cat([F.pad(query, (0, rank)), keys, F.pad(value, (rank, 0))])

    def fold(self) -> nn.Module:
        rewrite(self.base, self.base.weight + self.scale * self._spread() @ self.a)
        return self.base
