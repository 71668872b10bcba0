"""SIGMA (reconstruction): from the abstract of arXiv 2605.27893, 2026, authors not read.

Behind every block: h = Down LN(x); f = h + sum_s a_s D_s h, filters D_s of 3, 5 and 7,
a = softmax(S mean h); y = (1 + gamma) LN(f) + beta, (gamma, beta) = MLP(mean f);
x <- x + Up GELU(y). Prefix tokens pass. Up starts at zero: training starts at the frozen model.
These equations are ours: of the paper (Bridging Structural and Distributional Gaps for Vision
Foundation Model Adaptation) only the abstract could be read, which names a fusion over
scales for the structural gap, then a modulation of the fused features for the distributional one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Method, Tokens, ZooError, one_of
from .parts.layers import zeroed

SIZES = (3, 5, 7)
WEIGHTS = ("image", "token", "static")
MODULATIONS = ("film", "none")
PLACEMENTS = ("block", "attention+mlp")


class Sigma(Method):
    """bottleneck: channels between Down and Up, a multiple of 4; 0 takes 3/32 of the width in steps
    of 8, about the 1.7 % of a plain ViT that the abstract tells. scale_weights: a per image, per
    token, or equal and not learned. modulation: "film", or "none" for gamma = beta = 0. placement:
    behind every block, or behind the attention and behind the MLP."""

    title = "SIGMA (reconstruction)"
    paper = "arXiv 2605.27893"
    fidelity = (
        "a reconstruction from the abstract alone: every equation, the place and the start are "
        "ours, the bottleneck is fitted to the printed 1.72 %; no result of it is the paper's"
    )
    needs_one_width = True
    needs_attention = True
    unmergeable = "its filters see neighbouring tokens and its scales come from the image"
    preset = {"lr": 1e-3}

    def __init__(
        self,
        backbone: Backbone,
        bottleneck: int = 0,
        scale_weights: str = "image",
        modulation: str = "film",
        placement: str = "block",
    ):
        super().__init__(backbone)
        if bottleneck < 0 or bottleneck % 4:
            raise ZooError(f"bottleneck is {bottleneck}; it must be a multiple of 4, or 0")
        one_of("scale_weights", scale_weights, WEIGHTS)
        one_of("modulation", modulation, MODULATIONS)
        one_of("placement", placement, PLACEMENTS)
        width = bottleneck or max(8, backbone.dim * 3 // 32 // 8 * 8)
        self.after_attention, self.after_mlp = (
            nn.ModuleList(
                SigmaAdapter(backbone.dim, width, scale_weights, modulation)
                for _ in range(backbone.depth if used else 0)
            )
            for used in (placement == "attention+mlp", True)
        )

    def block(self, i: int, t: Tokens) -> Tokens:
        t = t.add(self.backbone.attention(i, t))
        if self.after_attention:
            t = self.after_attention[i](t)
        return self.after_mlp[i](t.add(self.backbone.mlp(i, t)))


class SigmaAdapter(nn.Module):
    """A bottleneck that fuses three filters of the grid, then scales and shifts its channels."""

    def __init__(self, dim: int, width: int, scale_weights: str, modulation: str):
        super().__init__()
        self.per_token = scale_weights == "token"
        self.norm, self.down = nn.LayerNorm(dim), nn.Linear(dim, width)
        self.filters = nn.ModuleList(
            nn.Conv2d(width, width, k, padding=k // 2, groups=width) for k in SIZES
        )
        learned = scale_weights != "static"
        # Logits of zero: the three filters start with equal shares.
        self.weigh = zeroed(nn.Linear(width, len(SIZES))) if learned else None
        self.fused_norm, self.film = nn.LayerNorm(width), None
        if modulation == "film":
            inner = nn.Linear(width, width // 4)
            self.film = nn.Sequential(inner, nn.GELU(), zeroed(nn.Linear(width // 4, 2 * width)))
        self.up = zeroed(nn.Linear(width, dim))

    def forward(self, t: Tokens) -> Tokens:
        """Tokens of any prefix and grid, to tokens; the prefix stays as it is."""
        f = self._fused(self.down(self.norm(t.patches)), t.grid)
        y = self.fused_norm(f)
        # Weights at zero make gamma = beta = 0: modulation starts as the plain norm.
        if self.film is not None:
            gamma, beta = self.film(f.mean(1, keepdim=True)).chunk(2, dim=-1)
            y = (1 + gamma) * y + beta
        return t.with_patches(t.patches + self.up(F.gelu(y)))

    def _fused(self, h: Tensor, grid: tuple[int, int]) -> Tensor:
        """Add to patches, (B, N, r), the weighed sum of their filtered maps."""
        maps = h.mT.unflatten(2, grid)
        filtered = torch.stack([conv(maps).flatten(2).mT for conv in self.filters], dim=-1)
        if self.weigh is None:
            return h + filtered.mean(-1)
        share = self.weigh(h if self.per_token else h.mean(1, keepdim=True)).softmax(-1)
        return h + (filtered * share[:, :, None]).sum(-1)
