"""Convpass: Convolutional Bypasses Are Better Adapters. Jie & Deng, 2022, arXiv 2207.07039.

y = branch(z) + s Up(q(Conv3x3(q(Down z)))), z = LN(x), q = QuickGELU: a bypass
beside the attention and one beside the MLP, on the same norm. The patches are convolved on their
grid, each prefix token as a map of 1 x 1. Up starts at zero: training starts at the frozen model.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Method, Tokens, at_least, rate
from .parts.layers import quick_gelu, zeroed


class Convpass(Method):
    """bottleneck: channels of the convolution. scale: s, which the authors choose per task.
    dropout: in front of Up, while training."""

    title = "Convpass"
    paper = "arXiv 2207.07039"
    fidelity = "the authors' code at any grid and width; the module equals theirs to 1e-5"
    needs_one_width = True
    needs_attention = True
    unmergeable = "its convolution sees neighbouring tokens, which no layer of a plain ViT does"
    preset = {"lr": 3e-4}  # 1e-3 ends below the decoder alone on validation

    def __init__(
        self, backbone: Backbone, bottleneck: int = 8, scale: float = 1.0, dropout: float = 0.1
    ):
        super().__init__(backbone)
        at_least("bottleneck", bottleneck, 1)
        rate("dropout", dropout)
        self.scale = scale
        self.beside_attention, self.beside_mlp = (
            nn.ModuleList(Bypass(backbone.dim, bottleneck, dropout) for _ in range(backbone.depth))
            for _ in range(2)
        )

    def block(self, i: int, t: Tokens) -> Tokens:
        # The norm is worked out once and read by both: the branch and the bypass beside it.
        z = self.backbone.norm1(i, t)
        update = self.backbone.attention(i, t, z)
        t = t.add(self._beside(self.beside_attention[i], update, z))
        z = self.backbone.norm2(i, t)
        update = self.backbone.mlp(i, t, z)
        return t.add(self._beside(self.beside_mlp[i], update, z))

    def _beside(self, bypass: nn.Module, update: Tokens, z: Tensor) -> Tokens:
        return update._replace(x=update.x + self.scale * bypass(update._replace(x=z)))


class Bypass(nn.Module):
    """Down, 3 x 3 convolution, Up; the convolution starts as the identity."""

    def __init__(self, dim: int, width: int, dropout: float):
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        self.conv, self.dropout = nn.Conv2d(width, width, 3, padding=1), nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.dirac_(self.conv.weight)
        zeroed(self.up)
        for layer in (self.down, self.conv):
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, z: Tokens) -> Tensor:
        """The normed tokens z, (B, N, C), to the update, (B, N, C)."""
        h = z._replace(x=quick_gelu(self.down(z.x)))
        patches = self.conv(h.map()).flatten(2).transpose(1, 2)
        # A lone token sees the centre of the kernel alone.
        prefix = F.linear(h.x[:, : h.prefix], self.conv.weight[:, :, 1, 1], self.conv.bias)
        h = torch.cat([prefix, patches], dim=1)
        return self.up(self.dropout(quick_gelu(h)))
