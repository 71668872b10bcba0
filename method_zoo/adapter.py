"""Adapter: Parameter-Efficient Transfer Learning. Houlsby et al., ICML 2019, arXiv 1902.00751.

o <- o + Up(GELU(Down(o))), o the residual update of the attention or of the MLP, before it is
added: two adapters a block. Up starts at zero: training starts at the frozen model.
"""

import torch.nn.functional as F
from torch import nn

from .method import Backbone, Method, Tokens, at_least
from .parts.layers import Bottleneck


class Adapter(Method):
    """bottleneck: channels between Down and Up. 2 gives the parameter count that the Conv-LoRA
    table prints for SAM ViT-H; 64 is usual elsewhere."""

    title = "Adapter"
    paper = "arXiv 1902.00751"
    fidelity = (
        "the paper's equation at its two places a block; GELU and the start are common practice, "
        "the width is inferred from the count that the Conv-LoRA table prints, not stated there"
    )
    needs_one_width = True
    needs_attention = True
    unmergeable = "its bottleneck bends what the branches return, which no weight of theirs can"
    preset = {"lr": 2e-3}

    def __init__(self, backbone: Backbone, bottleneck: int = 2):
        super().__init__(backbone)
        at_least("bottleneck", bottleneck, 1)
        dim, depth = backbone.dim, backbone.depth
        self.after_attention, self.after_mlp = (
            nn.ModuleList(Bottleneck(dim, bottleneck, F.gelu) for _ in range(depth))
            for _ in range(2)
        )

    def block(self, i: int, t: Tokens) -> Tokens:
        o = self.backbone.attention(i, t)
        # On the branch's update and not on the stream: the skip connection stays free of it.
        t = t.add(o._replace(x=o.x + self.after_attention[i](o.x)))
        o = self.backbone.mlp(i, t)
        return t.add(o._replace(x=o.x + self.after_mlp[i](o.x)))
