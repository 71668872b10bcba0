"""Controllable-LPMoE. Sun et al., ICCV 2025, arXiv 2510.21114.

Local priors c, from a mixture of convolution experts that reads the image, and the tokens x of the
frozen ViT talk twice a stage: x <- x + gamma * A3(LN x, LN c), then a quarter of the frozen blocks,
then c <- c + A1(LN c, LN x), c <- c + F(LN c). A: cosine-aligned deformable attention, F: scale
enhancement. The decoder reads a pyramid of priors and raw tokens at strides 4, 8, 16, 32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from .backbones.beit import Beit
from .method import Backbone, Call, Features, Method, Remaking, call, rate
from .parts.deformable import CosineDeformableAttention, Grids, TokenPlaces, places
from .parts.layers import PriorExtractor, as_tokens
from .parts.pyramid import Pyramid
from .parts.spatial_prior import split_grids, start_convolution

STRIDES = [4, 8, 16, 32]
NORM_EPS = 1e-5


class LPMoE(Method):
    """Options and their defaults are those of the paper's configuration with a plain ViT.

    heads: of the deformable attention; 0 takes the backbone's own number, as the paper does.
    points: reads per head and level. ratio: width of the values as a share of the backbone's.
    width: channels of the prior extractor. cosine: "sum" over tokens, or their "mean". renormalise:
    let the weights of a head sum to one. norm: BatchNorm of the mixture "shared" by its four
    scales, or "per_scale". gamma: initial gate of the injectors. drop_path: rate in the extractors;
    the paper takes the stochastic depth of its largest backbone's last block, 0.4 (0.3 for BEiT).
    """

    title = "Controllable-LPMoE"
    paper = "arXiv 2510.21114"
    fidelity = (
        "written from a specification of the authors' code; attention, experts, prior extractor "
        "and scale enhancement equal theirs to 1e-5. The frozen blocks run without stochastic "
        "depth; the decoder is the one all methods share, or mask2former as in the paper"
    )
    # Its maps are its own. What stays as it was while gamma is 0 is the token stream, and `final`.
    needs_one_width = True
    identity_at_init = False
    batch_statistics = True
    recomputable = ("interactions",)
    unmergeable = "its priors come from the image itself, beside the backbone"
    preset = {"lr": 1e-3}

    def __init__(
        self,
        backbone: Backbone,
        heads: int = 0,
        points: int = 4,
        ratio: float = 0.5,
        width: int = 64,
        cosine: str = "sum",
        renormalise: bool = False,
        norm: str = "shared",
        gamma: float = 0.0,
        drop_path: float = 0.4,
    ):
        super().__init__(backbone)
        rate("drop_path", drop_path)
        dim, stages = backbone.dim, len(backbone.groups)
        attention = {
            "eps": _norm_eps(backbone),
            "heads": heads or backbone.heads,
            "points": points,
            "ratio": ratio,
            "cosine": cosine,
            "renormalise": renormalise,
        }
        self.prior = PriorExtractor(dim, width, norm)
        self.level = nn.Parameter(torch.empty(3, dim))
        self.inject = nn.ModuleList(Injector(dim, gamma, **attention) for _ in range(stages))
        # The last stage is followed by two more extractors, which read the same tokens.
        self.extract = nn.ModuleList(
            nn.ModuleList(Extractor(dim, drop_path, **attention) for _ in range(count))
            for count in [1] * (stages - 1) + [3]
        )
        self.pyramid = Pyramid(dim)
        self.channels = [dim // 4] * len(STRIDES)
        self.strides = list(STRIDES)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.level)
        for part in (self.prior, self.inject, self.extract, self.pyramid.up):
            part.apply(start_convolution)
        for module in self.modules():  # last: the general rule has overwritten its own
            if isinstance(module, CosineDeformableAttention):
                module.reset()

    def forward(self, image: Tensor) -> Features:
        """Image in [0, 1], (B, 3, h, w), to maps of dim / 4 channels at strides 4, 8, 16, 32."""
        t, taps = self.backbone.embed(image), []
        # The map at stride 4 goes to the pyramid alone, which is also what projects it: it has 16
        # times the places that the ViT has.
        u1, *levels = self.prior(self.backbone.normalise(image), projected=False)
        project, layout = self.prior.project, Layout.of(t.grid, image)
        prior = torch.cat(
            [as_tokens(u, project) + e for u, e in zip(levels, self.level, strict=True)], 1
        )
        for group, inject, extract in zip(
            self.backbone.groups, self.inject, self.extract, strict=True
        ):
            x = self.interact(inject, t.patches, prior, layout)  # prior -> ViT
            t = t.with_patches(x)
            for i in group:
                t = self.step(i, t)
            for extractor in extract:  # type: ignore[attr-defined]
                prior = self.interact(extractor, prior, t.patches, layout)  # ViT -> prior
            taps.append(t.map())
        maps = self.pyramid(u1, split_grids(prior, layout.prior.grids), taps, project)
        return Features(maps, self.backbone.neck(self.backbone.norm(t)), t.aux)

    def interact(self, part: nn.Module, *inputs: Any) -> Tensor:
        """Run an injector or an extractor, with what is recomputed in the backward pass."""
        if self.recompute == "interactions" and not self.checkpointing and torch.is_grad_enabled():
            return Remaking().during(part, *inputs)
        return self.recomputed(part, *inputs)


def _norm_eps(backbone: Backbone) -> float:
    """Return the epsilon of the interactions' norms: the authors hand on that of their backbone,
    1e-6 of BEiT and 1e-5 of Uni-Perceiver."""
    # Other backbones, of which most have 1e-6, keep the 1e-5 that all records of them mean.
    is_beit = isinstance(backbone, Beit)
    return backbone.vit.blocks[0].norm1.eps if is_beit else NORM_EPS


# Channel-oriented adaptive scale enhancement, the feed-forward layer of Controllable-LPMoE.
#
# y = W1 x; on each grid m = depthwise3x3(y), m <- m * (g0 s + g1 (1 - s')) with channel attention
# s, reverse channel attention 1 - s' and a gate g per image; out = W2 GELU(m).


class ScaleEnhancement(nn.Module):
    """The feed-forward part of an extractor; three grids share all weights."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.reduce = nn.Linear(dim, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.channel = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.reverse = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.gate = nn.Linear(hidden, 2)
        self.expand = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, grids: Grids, remake: Call = call) -> Tensor:
        """Return the residual update, (B, T, C); the tokens of the grids follow one another."""
        parts = self.reduce(x).split([height * width for height, width in grids], dim=1)
        # Tokens seen as channels-last maps: they go in and come out without being transposed.
        maps = [
            self.depthwise(p.unflatten(1, grid).permute(0, 3, 1, 2))
            for p, grid in zip(parts, grids, strict=True)
        ]
        mean = torch.stack([m.mean((2, 3)) for m in maps], dim=1)  # (B, L, C)
        peak = torch.stack([m.amax((2, 3)) for m in maps], dim=1)
        factors = self.channel_factor(mean, peak)[..., None, None].unbind(1)
        scaled = [
            (m * f).permute(0, 2, 3, 1).flatten(1, 2) for m, f in zip(maps, factors, strict=True)
        ]
        return self.expand(remake(F.gelu, torch.cat(scaled, dim=1)))

    def channel_factor(self, mean: Tensor, peak: Tensor) -> Tensor:
        """Return the one factor each channel of each map is multiplied with, (B, L, C).

        The authors pool five times and build two full maps; one mean and one maximum suffice.
        """
        pooled = (mean + peak).flatten(0, 1).unsqueeze(1)  # (B * L, 1, C)
        # A filter of 3 along the channels: each channel's share depends on its two neighbours.
        attended = self.channel(pooled).view_as(mean).sigmoid()
        reversed_ = 1 - self.reverse(pooled).view_as(mean).sigmoid()
        # One attends to what the channel has, the other to what it lacks; g0 + g1 = 1 for an image.
        gate = self.gate(mean).softmax(-1)
        return gate[..., :1] * attended + gate[..., 1:] * reversed_


# The two interactions of Controllable-LPMoE: prior tokens into the ViT stream, and back.
#
# Injector: x <- x + gamma * A3(LN(x), LN(c)). Extractor: c <- c + A1(LN(c), LN(x)), then c <- c +
# DropPath(F(LN(c))), with the cosine-aligned deformable attention A and scale enhancement F.


class Layout(NamedTuple):
    """Where ViT tokens and prior tokens lie in the image; the same for all stages."""

    tokens: TokenPlaces  # one grid, stride 16
    prior: TokenPlaces  # strides 8, 16, 32

    @classmethod
    def of(cls, grid: tuple[int, int], like: Tensor) -> Layout:
        """Return the layout for a ViT grid whose sides are even."""
        height, width = grid
        prior = [(2 * height, 2 * width), grid, (height // 2, width // 2)]
        return cls(places([grid], like), places(prior, like))


class Injector(nn.Module):
    """Prior -> ViT, before the blocks of a stage; gamma 0 leaves the frozen stream as it is."""

    def __init__(self, dim: int, gamma: float, eps: float, **attention):
        super().__init__()
        self.norm_tokens = nn.LayerNorm(dim, eps)
        self.norm_prior = nn.LayerNorm(dim, eps)
        self.attention = CosineDeformableAttention(dim, levels=3, **attention)
        self.gamma = nn.Parameter(torch.full((dim,), gamma))

    def forward(self, x: Tensor, prior: Tensor, layout: Layout, remake: Call = call) -> Tensor:
        """x: (B, N, C) patch tokens. prior: (B, T, C). Returns the new patch tokens."""
        query, features = remake(self.norm_tokens, x), remake(self.norm_prior, prior)
        # Queries at the ViT's places read the three grids of the prior.
        update = self.attention(query, features, layout.tokens.points, layout.prior, remake)
        return x + self.gamma * update


class Extractor(nn.Module):
    """ViT -> prior, after the blocks of a stage."""

    def __init__(self, dim: int, drop_path: float, eps: float, **attention):
        super().__init__()
        self.norm_prior = nn.LayerNorm(dim, eps)
        self.norm_tokens = nn.LayerNorm(dim, eps)
        self.attention = CosineDeformableAttention(dim, levels=1, **attention)
        self.norm_enhance = nn.LayerNorm(dim, eps)
        self.enhance = ScaleEnhancement(dim, dim // 4)
        self.drop_path = DropPath(drop_path)

    def forward(self, prior: Tensor, x: Tensor, layout: Layout, remake: Call = call) -> Tensor:
        """prior: (B, T, C). x: (B, N, C) patch tokens. Returns the new prior tokens."""
        query, features = remake(self.norm_prior, prior), remake(self.norm_tokens, x)
        # The other way round: all places of the prior read the one grid of the ViT.
        here, there = layout.prior.points, layout.tokens
        prior = prior + self.attention(query, features, here, there, remake)
        normed = remake(self.norm_enhance, prior)
        return prior + self.drop_path(self.enhance(normed, layout.prior.grids, remake))
