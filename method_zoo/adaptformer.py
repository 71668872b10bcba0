"""AdaptFormer: Adapting Vision Transformers. Chen et al., NeurIPS 2022, arXiv 2205.13535.

y = u + MLP(LN(u)) + scale * Up(ReLU(Down(u))), u the stream after the attention: a branch beside
the MLP. Up starts at zero: training starts at the frozen model.
"""

import torch.nn.functional as F
from torch import nn

from .method import Backbone, Method, Tokens, at_least, rate
from .parts.layers import Bottleneck


class AdaptFormer(Method):
    """bottleneck: channels between Down and Up. scale: factor of the branch. dropout: on the
    bottleneck, while training."""

    title = "AdaptFormer"
    paper = "arXiv 2205.13535"
    fidelity = (
        "the authors' code, whose branch reads the stream before the norm, where the paper's "
        "figure shows it after; the module equals theirs to 1e-5"
    )
    needs_one_width = True
    needs_attention = True
    unmergeable = "its branch beside the MLP has a ReLU of its own, which no weight can hold"
    preset = {"lr": 1e-3}

    def __init__(
        self, backbone: Backbone, bottleneck: int = 64, scale: float = 0.1, dropout: float = 0.1
    ):
        super().__init__(backbone)
        at_least("bottleneck", bottleneck, 1)
        rate("dropout", dropout)
        self.scale = scale
        self.adapters = nn.ModuleList(
            Bottleneck(backbone.dim, bottleneck, F.relu, dropout) for _ in range(backbone.depth)
        )

    def block(self, i: int, t: Tokens) -> Tokens:
        t = t.add(self.backbone.attention(i, t))
        # The branch reads the stream itself, before the MLP's norm: so does the authors' code.
        update = self.backbone.mlp(i, t)
        return t.add(update._replace(x=update.x + self.scale * self.adapters[i](t.x)))
