"""ViT-Adapter on a frozen backbone. Chen et al., ICLR 2023, arXiv 2205.08534.

A convolutional prior c of the image, at strides 8, 16 and 32, and the tokens x of the ViT talk
twice a stage: x <- x + gamma * A3(LN x, LN c), then a quarter of the blocks, then
c <- c + A1(LN c, LN x), c <- c + F(LN c); after the last stage c reads x twice more. A: deformable
attention; F: linear, 3 x 3 filter on each grid, GELU, linear. gamma starts at zero. The decoder
reads sums of prior and ViT at strides 4, 8, 16, 32. Controllable-LPMoE was made from it.
"""

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from .method import Backbone, Features, Method, rate
from .parts.deformable import TokenPlaces, places
from .parts.spatial_prior import (
    NORM_EPS,
    DeformableAttention,
    GridFeedForward,
    SpatialPrior,
    SummedPyramid,
    joined,
    split_grids,
    three_grids,
    usual_heads,
    usual_ratio,
)

STRIDES = [4, 8, 16, 32]


class ViTAdapter(Method):
    """heads: of the deformable attention; 0 takes the published ones, 6 up to a width of 384 and
    the backbone's own above. ratio: width of its values as a share of the backbone's; 0 takes the
    published one, 1 up to a width of 384 and a half above. points: reads per head and level.
    width: channels of the prior's stem. gamma: initial gate of the injectors. drop_path: rate in
    the extractors; the authors take that of their backbone's last block, 0.1 for ViT-T to 0.4 for
    ViT-L."""

    title = "ViT-Adapter (frozen)"
    paper = "arXiv 2205.08534"
    fidelity = (
        "equal to the authors' network to 1e-5, from a specification of it, but for what is "
        "frozen: they train the whole backbone, here all of it is as it came; their plain ViT "
        "drops the class token and gives each block a LayerScale of 1 that trains, here the "
        "backbone keeps its prefix, which takes no part in the interactions, and has no other "
        "scale than its own; no stochastic depth in the frozen blocks"
    )
    # Its maps are its own. What stays as it was while gamma is 0 is the token stream, and `final`.
    identity_at_init = False
    needs_one_width = True
    batch_statistics = True
    unmergeable = "its prior comes from the image itself, beside the backbone"
    preset = {"lr": 1e-3}

    def __init__(
        self,
        backbone: Backbone,
        heads: int = 0,
        points: int = 4,
        ratio: float = 0.0,
        width: int = 64,
        gamma: float = 0.0,
        drop_path: float = 0.2,
    ):
        super().__init__(backbone)
        rate("drop_path", drop_path)
        dim, stages = backbone.dim, len(backbone.groups)
        shape = (heads or usual_heads(dim, backbone.heads), points, ratio or usual_ratio(dim))
        self.prior = SpatialPrior(dim, width)
        self.level = nn.Parameter(torch.randn(3, dim))
        self.inject = nn.ModuleList(PriorInjector(dim, gamma, *shape) for _ in range(stages))
        # The last stage is followed by two more extractors, which read the same tokens.
        self.extract = nn.ModuleList(
            nn.ModuleList(PriorExtraction(dim, drop_path, 1, *shape) for _ in range(count))
            for count in [1] * (stages - 1) + [3]
        )
        self.pyramid = SummedPyramid(dim)
        self.channels, self.strides = [dim] * len(STRIDES), list(STRIDES)

    def forward(self, image: Tensor) -> Features:
        """Image in [0, 1], (B, 3, h, w), to maps as wide as the backbone at strides 4 to 32."""
        backbone, taps = self.backbone, []
        c1, *levels = self.prior(backbone.normalise(image))
        t = backbone.embed(image)
        here, there = places([t.grid], image), three_grids(t.grid, image)
        # A learnt vector for each stride tells tokens of the three grids apart. (B, T, C).
        c = joined([m + e[:, None, None] for m, e in zip(levels, self.level, strict=True)])
        for group, inject, extract in zip(backbone.groups, self.inject, self.extract, strict=True):
            t = t.with_patches(self.recomputed(inject, t.patches, c, here, there))
            for i in group:
                t = self.step(i, t)
            for extractor in extract:  # type: ignore[attr-defined]
                c = self.recomputed(extractor, c, t.patches, there, here)
            taps.append(t.map())
        maps = self.pyramid(c1, split_grids(c, there.grids), taps)
        return Features(maps, backbone.neck(backbone.norm(t)), t.aux)


class PriorInjector(nn.Module):
    """Prior to ViT, before the blocks of a stage; gamma 0 leaves the frozen stream as it is."""

    def __init__(self, dim: int, gamma: float, heads: int, points: int, ratio: float):
        super().__init__()
        self.norm_query, self.norm_features = (nn.LayerNorm(dim, NORM_EPS) for _ in range(2))
        self.attention = DeformableAttention(dim, heads, 3, points, ratio)
        self.gamma = nn.Parameter(torch.full((dim,), gamma))

    def forward(self, x: Tensor, c: Tensor, here: TokenPlaces, there: TokenPlaces) -> Tensor:
        """x: (B, N, C) patches. c: (B, T, C) prior. Returns the new patches."""
        query, features = self.norm_query(x), self.norm_features(c)
        return x + self.gamma * self.attention(query, features, here.points, there)


class PriorExtraction(nn.Module):
    """The prior reads tokens of `levels` grids, then passes a feed-forward layer."""

    def __init__(
        self, dim: int, drop_path: float, levels: int, heads: int, points: int, ratio: float
    ):
        super().__init__()
        self.norm_query, self.norm_features = (nn.LayerNorm(dim, NORM_EPS) for _ in range(2))
        self.attention = DeformableAttention(dim, heads, levels, points, ratio)
        self.norm_feed, self.feed = nn.LayerNorm(dim, NORM_EPS), GridFeedForward(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, c: Tensor, x: Tensor, here: TokenPlaces, there: TokenPlaces) -> Tensor:
        """c: (B, T, C) prior, at the places `here`. x: tokens `there`. Returns the new c."""
        query, features = self.norm_query(c), self.norm_features(x)
        c = c + self.attention(query, features, here.points, there)
        return c + self.drop_path(self.feed(self.norm_feed(c), here.grids))
