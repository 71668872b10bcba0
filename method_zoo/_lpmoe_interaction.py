"""The two interactions of Controllable-LPMoE: prior tokens into the ViT stream, and back.

Injector: x <- x + gamma * A3(LN(x), LN(c)). Extractor: c <- c + A1(LN(c), LN(x)), then
c <- c + DropPath(F(LN(c))), with the cosine-aligned deformable attention A and scale enhancement F.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from ._deformable import Places, places
from ._lpmoe_attention import CosineDeformableAttention
from ._lpmoe_scale import ScaleEnhancement


class Layout(NamedTuple):
    """Where ViT tokens and prior tokens lie in the image; the same for all stages."""

    tokens: Places  # one grid, stride 16
    prior: Places  # strides 8, 16, 32

    @classmethod
    def of(cls, grid: tuple[int, int], like: Tensor) -> Layout:
        """Return the layout for a ViT grid whose sides are even."""
        height, width = grid
        prior = [(2 * height, 2 * width), grid, (height // 2, width // 2)]
        return cls(places([grid], like), places(prior, like))


class Injector(nn.Module):
    """Prior -> ViT, before the blocks of a stage; gamma 0 leaves the frozen stream as it is."""

    def __init__(self, dim: int, gamma: float, **attention):
        super().__init__()
        self.norm_tokens = nn.LayerNorm(dim)
        self.norm_prior = nn.LayerNorm(dim)
        self.attention = CosineDeformableAttention(dim, levels=3, **attention)
        self.gamma = nn.Parameter(torch.full((dim,), gamma))

    def forward(self, x: Tensor, prior: Tensor, layout: Layout) -> Tensor:
        """x: (B, N, C) patch tokens. prior: (B, T, C). Returns the new patch tokens."""
        query, features = self.norm_tokens(x), self.norm_prior(prior)
        update = self.attention(query, features, layout.tokens.points, layout.prior)
        return x + self.gamma * update


class Extractor(nn.Module):
    """ViT -> prior, after the blocks of a stage."""

    def __init__(self, dim: int, drop_path: float, **attention):
        super().__init__()
        self.norm_prior = nn.LayerNorm(dim)
        self.norm_tokens = nn.LayerNorm(dim)
        self.attention = CosineDeformableAttention(dim, levels=1, **attention)
        self.norm_enhance = nn.LayerNorm(dim)
        self.enhance = ScaleEnhancement(dim, dim // 4)
        self.drop_path = DropPath(drop_path)

    def forward(self, prior: Tensor, x: Tensor, layout: Layout) -> Tensor:
        """prior: (B, T, C). x: (B, N, C) patch tokens. Returns the new prior tokens."""
        query, features = self.norm_prior(prior), self.norm_tokens(x)
        prior = prior + self.attention(query, features, layout.prior.points, layout.tokens)
        return prior + self.drop_path(self.enhance(self.norm_enhance(prior), layout.prior.grids))
