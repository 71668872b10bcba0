"""ViT-CoMer on a frozen backbone. Xia et al., CVPR 2024, arXiv 2403.07392.

Beside the ViT runs a prior c of the image, at strides 8, 16 and 32. Each stage: c <- M(c), filters
of 3 and 5 on halves of the channels of each grid; c_16 <- c_16 + x; u = A(LN c, LN' c),
u <- u + F(LN u), x <- x + gamma * (u_8 + u_16 + u_32), resized to the ViT's grid; a quarter of the
blocks; c_16 <- c_16 + x; c <- q + A(LN q, LN f), q = LN c, f = LN' c; c <- c + F(LN c). After the
last stage the step back to c comes four times more, each with one more F before it reads. A:
deformable attention over the three grids; F: linear, 3 x 3 filter on each grid, GELU, linear. gamma
starts at zero. The decoder reads sums of c and x at strides 4, 8, 16, 32.
"""

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from .method import Backbone, Features, Method, ZooError, rate
from .parts.deformable import Grids, TokenPlaces
from .parts.spatial_prior import (
    NORM_EPS,
    DeformableAttention,
    GridFeedForward,
    SpatialPrior,
    SummedPyramid,
    joined,
    resize_map,
    split_grids,
    start_convolution,
    three_grids,
    usual_heads,
    usual_ratio,
)
from .vit_adapter import STRIDES, PriorExtraction

EXTRA = 4  # steps back to c after the last stage


class ViTCoMer(Method):
    """heads: of the deformable attention; 0 takes the published ones, 6 up to a width of 384 and
    the backbone's own above. ratio: width of its values as a share of the backbone's; 0 takes the
    published one, 1 up to a width of 384 and a half above. points: reads per head and level.
    width: channels of the prior's stem. hidden: channels of M as a multiple of the backbone's; 0
    takes the published ones, 6 up to a width of 192, 1.5 up to 384, 1 above. gamma: initial gate of
    what enters the ViT. drop_path: rate in all F."""

    title = "ViT-CoMer (frozen)"
    paper = "arXiv 2403.07392"
    fidelity = (
        "equal to the authors' network to 1e-5, from a specification of it, but for what is "
        "frozen: they train the whole backbone, here all of it is as it came; as theirs it throws "
        "u away, norms what it reads twice and takes the normed c as the base of the step back; "
        "the width of M on ViT-L is not published; the backbone keeps its prefix, which takes no "
        "part, and has no stochastic depth"
    )
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
        hidden: float = 0.0,
        gamma: float = 0.0,
        drop_path: float = 0.2,
    ):
        super().__init__(backbone)
        rate("drop_path", drop_path)
        dim, stages = backbone.dim, len(backbone.groups)
        inner = int((hidden or usual_hidden(dim)) * dim)
        if inner < 2 or inner % 2:
            raise ZooError(
                f"hidden is {hidden}, which makes {inner} channels of {dim}; they must be even"
            )
        shape = (heads or usual_heads(dim, backbone.heads), points, ratio or usual_ratio(dim))
        self.prior = SpatialPrior(dim, width)
        self.level = nn.Parameter(torch.randn(3, dim))
        self.mix = nn.ModuleList(GridMixture(dim, inner) for _ in range(stages))
        self.into_vit = nn.ModuleList(
            PriorToVit(dim, gamma, drop_path, *shape) for _ in range(stages)
        )
        self.into_prior = nn.ModuleList(
            nn.ModuleList(VitToPrior(dim, drop_path, k > 0, *shape) for k in range(count))
            for count in [1] * (stages - 1) + [1 + EXTRA]
        )
        self.pyramid = SummedPyramid(dim)
        self.channels, self.strides = [dim] * len(STRIDES), list(STRIDES)

    def forward(self, image: Tensor) -> Features:
        """Image in [0, 1], (B, 3, h, w), to maps as wide as the backbone at strides 4 to 32."""
        backbone, taps = self.backbone, []
        c1, *levels = self.prior(backbone.normalise(image))
        t = backbone.embed(image)
        where = three_grids(t.grid, image)
        c = joined([m + e[:, None, None] for m, e in zip(levels, self.level, strict=True)])
        for group, mix, into_vit, into_prior in zip(
            backbone.groups, self.mix, self.into_vit, self.into_prior, strict=True
        ):
            # Not made again in the backward pass: its norms would count each batch twice.
            c = with_middle(mix(c, where.grids), t.patches, where.grids)
            t = t.with_patches(t.patches + self.recomputed(into_vit, c, where))
            for i in group:
                t = self.step(i, t)
            for into in into_prior:  # type: ignore[attr-defined]
                c = self.recomputed(into, c, t.patches, where)
            taps.append(t.map())
        maps = self.pyramid(c1, split_grids(c, where.grids), taps)
        return Features(maps, backbone.neck(backbone.norm(t)), t.aux)


def usual_hidden(dim: int) -> float:
    """Return the width of M in the published settings, as a multiple of the backbone's."""
    return 6.0 if dim <= 192 else 1.5 if dim <= 384 else 1.0


def with_middle(c: Tensor, x: Tensor, grids: Grids) -> Tensor:
    """Add the patches of the ViT, (B, N, C), to the prior's tokens of the same grid."""
    fine, middle, coarse = c.split([height * width for height, width in grids], dim=1)
    return torch.cat([fine, middle + x, coarse], dim=1)


class GridMixture(nn.Module):
    """M: linear, on each grid filters of 3 and of 5 for a half of the channels each, linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        half = hidden // 2
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.small, self.large = (
            nn.ModuleList(nn.Conv2d(half, half, k, padding=k // 2, groups=half) for _ in range(3))
            for k in (3, 5)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(hidden) for _ in range(3))
        self.apply(start_convolution)

    def forward(self, c: Tensor, grids: Grids) -> Tensor:
        """Tokens of these grids, (B, T, C), to tokens; there is no residual."""
        maps = []
        for m, small, large, norm in zip(
            split_grids(self.fc1(c), grids), self.small, self.large, self.norms, strict=True
        ):
            first, second = m.chunk(2, dim=1)
            maps.append(F.gelu(norm(torch.cat([small(first), large(second)], dim=1))))
        return self.fc2(F.gelu(joined(maps)))  # a second GELU, as the authors have it


class PriorToVit(nn.Module):
    """What the ViT is given: gamma times the three grids of u, resized and summed."""

    def __init__(
        self, dim: int, gamma: float, drop_path: float, heads: int, points: int, ratio: float
    ):
        super().__init__()
        self.norm_query, self.norm_features = (nn.LayerNorm(dim, NORM_EPS) for _ in range(2))
        self.attention = DeformableAttention(dim, heads, 3, points, ratio)
        self.norm_feed, self.feed = nn.LayerNorm(dim, NORM_EPS), GridFeedForward(dim)
        self.drop_path = DropPath(drop_path)
        self.gamma = nn.Parameter(torch.full((dim,), gamma))

    def forward(self, c: Tensor, where: TokenPlaces) -> Tensor:
        """c: (B, T, C). Returns the update of the patches, (B, N, C)."""
        u = self.attention(self.norm_query(c), self.norm_features(c), where.points, where)
        u = u + self.drop_path(self.feed(self.norm_feed(u), where.grids))
        fine, middle, coarse = split_grids(u, where.grids)
        # u was made on three grids; the ViT has the middle one.
        total = middle + resize_map(fine, middle) + resize_map(coarse, middle)
        return self.gamma * total.flatten(2).mT


class VitToPrior(nn.Module):
    """The step back: the ViT joins the middle grid, and the three read one another.

    again: whether a feed-forward layer of its own comes between, as after the last stage.
    """

    def __init__(
        self, dim: int, drop_path: float, again: bool, heads: int, points: int, ratio: float
    ):
        super().__init__()
        self.norm_query, self.norm_features = (nn.LayerNorm(dim, NORM_EPS) for _ in range(2))
        self.read = PriorExtraction(dim, drop_path, 3, heads, points, ratio)
        self.norm_feed = nn.LayerNorm(dim, NORM_EPS) if again else None
        self.feed = GridFeedForward(dim) if again else None
        self.drop_path = DropPath(drop_path)

    def forward(self, c: Tensor, x: Tensor, where: TokenPlaces) -> Tensor:
        """c: (B, T, C) prior. x: (B, N, C) patches. Returns the new prior."""
        c = with_middle(c, x, where.grids)
        if self.norm_feed is not None and self.feed is not None:
            c = c + self.drop_path(self.feed(self.norm_feed(c), where.grids))
        return self.read(self.norm_query(c), self.norm_features(c), where, where)
