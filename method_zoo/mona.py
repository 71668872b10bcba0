"""Mona: 5% > 100%, Breaking the Shackles. Yin et al., CVPR 2025, arXiv 2408.08345.

Behind the attention's and behind the MLP's residual: z = g LN(x) + h x; z <- Down z; on
the grid z <- z + (D3 + D5 + D7)(z) / 3, depthwise; z <- z + P z, 1 x 1; x <- x + Up(GELU(z)).
Prefix tokens skip D3, D5 and D7.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Method, Tokens, at_least, rate
from .parts.layers import add_filtered, scaled_norm, zeroed


class Mona(Method):
    """bottleneck: channels between Down and Up. dropout: in front of Up, while training.
    zero_init_up: start at the frozen model, where the authors start Up at random. Up's random bias
    is as large as the tokens of some plain ViTs (DINOv2-S), which then start from noise."""

    title = "Mona"
    paper = "arXiv 2408.08345"
    fidelity = (
        "the authors' module to 1e-5; they give it for Swin alone, so what prefix tokens do is ours"
    )
    needs_one_width = True
    needs_attention = True
    identity_at_init = False
    unmergeable = "its filters see neighbouring tokens, which no layer of a plain ViT does"
    preset = {"lr": 5e-4}

    def __init__(
        self,
        backbone: Backbone,
        bottleneck: int = 64,
        dropout: float = 0.1,
        zero_init_up: bool = False,
    ):
        super().__init__(backbone)
        at_least("bottleneck", bottleneck, 1)
        rate("dropout", dropout)
        self.after_attention, self.after_mlp = (
            nn.ModuleList(
                MonaAdapter(backbone.dim, bottleneck, dropout, zero_init_up)
                for _ in range(backbone.depth)
            )
            for _ in range(2)
        )

    def block(self, i: int, t: Tokens) -> Tokens:
        t = self.after_attention[i](t.add(self.backbone.attention(i, t)))
        return self.after_mlp[i](t.add(self.backbone.mlp(i, t)))


class MonaAdapter(nn.Module):
    """A bottleneck that filters the grid at three sizes."""

    def __init__(self, dim: int, width: int, dropout: float, zero_init_up: bool):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.gain_normed = nn.Parameter(torch.full((dim,), 1e-6))
        self.gain_plain = nn.Parameter(torch.ones(dim))
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        self.filters = nn.ModuleList(
            nn.Conv2d(width, width, k, padding=k // 2, groups=width) for k in (3, 5, 7)
        )
        self.project, self.dropout = nn.Linear(width, width), nn.Dropout(dropout)
        if zero_init_up:
            zeroed(self.up)

    def forward(self, t: Tokens) -> Tokens:
        # g starts at 1e-6 and h at 1: at first the bottleneck reads the stream as it is.
        z = torch.addcmul(scaled_norm(self.norm, t.x, self.gain_normed), t.x, self.gain_plain)
        h = t._replace(x=self.down(z))
        kernel, bias = self.merged_filters()
        filtered = add_filtered(h.map(), kernel, bias)
        h = h.with_patches(filtered.flatten(2).transpose(1, 2)).x
        h = F.gelu(h + self.project(h))
        return t._replace(x=t.x + self.up(self.dropout(h)))

    def merged_filters(self) -> tuple[Tensor, Tensor]:
        """Return (D3 + D5 + D7) / 3 as one 7 x 7 kernel a channel, and its bias."""
        weights, biases = (
            [conv.get_parameter(name) for conv in self.filters] for name in ("weight", "bias")
        )
        # Each smaller kernel goes into the middle of 7
        # x 7: one filter then does the work of three.
        sides = [(7 - weight.shape[-1]) // 2 for weight in weights]
        padded = [F.pad(weight, [side] * 4) for weight, side in zip(weights, sides, strict=True)]
        return torch.stack(padded).mean(0), torch.stack([*biases]).mean(0)
