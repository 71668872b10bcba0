"""Two small methods that keep every promise of the contract, and their parameter counts."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from method_zoo.backbones.backbone import Backbone, Tokens
from method_zoo.backbones.linear import Wrapped
from method_zoo.method import Method


class Adapter(Method):
    """Sound: one bottleneck behind every block, shared by all, zero at the start, with a norm."""

    title = "Adapter"
    mergeable = False

    def __init__(self, backbone: Backbone, bottleneck: int = 4):
        super().__init__(backbone)
        self.norm = nn.BatchNorm1d(backbone.dim)
        self.down = nn.Linear(backbone.dim, bottleneck)
        self.up = nn.Linear(bottleneck, backbone.dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def update(self, x: Tensor) -> Tensor:  # (B, N, C)
        x = self.norm(x.flatten(0, 1)).view_as(x)
        return self.up(F.gelu(self.down(x)))

    def block(self, i: int, t: Tokens) -> Tokens:
        t = self.backbone.block(i, t)
        return t._replace(x=t.x + self.update(t.x))


class Scaled(Method):
    """Sound: every projection of the attention gets a trained factor per channel, and merges."""

    title = "Scaled"
    mergeable = True

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.wrap(lambda name: name.endswith("attn.proj"), ScaledLinear)


class ScaledLinear(Wrapped):
    def __init__(self, base: nn.Module):
        super().__init__(base)
        self.factor = nn.Parameter(torch.ones(base.out_features))

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        return self.base(x) * self.factor

    def fold(self) -> nn.Module:
        with torch.no_grad():
            self.base.weight *= self.factor[:, None]
            self.base.bias *= self.factor
        return self.base


def adapter_count(backbone: Backbone) -> int:
    return 2 * backbone.dim + (backbone.dim * 4 + 4) + (4 * backbone.dim + backbone.dim)


def scaled_count(backbone: Backbone) -> int:
    return backbone.depth * backbone.dim
