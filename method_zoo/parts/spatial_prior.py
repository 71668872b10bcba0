"""What ViT-Adapter and its kin are made of: a convolutional prior of the image, deformable
attention between tokens of several grids, a feed-forward layer on these grids, and the pyramid.

Chen et al., ICLR 2023, arXiv 2205.08534; the attention is that of Deformable DETR, arXiv
2010.04159. Tokens of several grids follow one another: strides 8, 16 and 32.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .deformable import (
    Grids,
    TokenPlaces,
    full_precision,
    places,
    precise,
    sample,
    start_on_star,
    value_width,
)
from .layers import start_as_timm

NORM_EPS = 1e-6


def three_grids(grid: tuple[int, int], like: Tensor) -> TokenPlaces:
    """Return the places of the tokens at strides 8, 16 and 32 beside a ViT grid of even sides."""
    height, width = grid
    return places([(2 * height, 2 * width), grid, (height // 2, width // 2)], like)


def split_grids(tokens: Tensor, grids: Grids) -> list[Tensor]:
    """Return the maps (B, C, H, W) of tokens (B, T, C) that follow one another."""
    parts = tokens.split([height * width for height, width in grids], dim=1)
    return [p.mT.unflatten(2, grid) for p, grid in zip(parts, grids, strict=True)]


class SpatialPrior(nn.Module):
    """Image to maps of `dim` channels at strides 4, 8, 16 and 32; width: those of its stem."""

    def __init__(self, dim: int, width: int = 64):
        super().__init__()
        self.stem = nn.Sequential(
            *_unit(3, width, 2), *_unit(width, width, 1), *_unit(width, width, 1),
            nn.MaxPool2d(3, stride=2, padding=1),
        )  # fmt: skip
        sides = [width, 2 * width, 4 * width, 4 * width]
        self.downs = nn.ModuleList(nn.Sequential(*_unit(a, b, 2)) for a, b in pairwise(sides))
        self.project = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in sides)
        self.apply(start_convolution)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image: normalised, (B, 3, h, w)."""
        maps = [self.stem(image)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        return [project(m) for project, m in zip(self.project, maps, strict=True)]


def _unit(channels: int, out: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(out), nn.ReLU()]


def start_convolution(module: nn.Module) -> None:
    """Draw a linear layer or a convolution as the authors do, for `Module.apply`; others stay."""
    start_as_timm(module)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        # He et al., ICCV 2015: the variance is kept through a ReLU, here for the backward pass.
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class DeformableAttention(nn.Module):
    """Queries read values around their reference points; the weights of a head sum to one.

    ratio: width of the values as a share of dim.
    """

    def __init__(self, dim: int, heads: int, levels: int, points: int = 4, ratio: float = 0.5):
        super().__init__()
        inner, count = value_width(dim, heads, points, ratio), heads * levels * points
        self.shape = (heads, levels, points)
        self.offsets, self.weights = nn.Linear(dim, 2 * count), nn.Linear(dim, count)
        self.value, self.output = nn.Linear(dim, inner), nn.Linear(inner, dim)
        start_on_star(self, *self.shape)

    def forward(
        self, query: Tensor, features: Tensor, points: Tensor, source: TokenPlaces
    ) -> Tensor:
        """Return the update of the queries, (B, Q, C).

        query: (B, Q, C), at the points (Q, 2). features: (B, T, C), at the places `source`.
        """
        heads, levels, count = self.shape
        value = self.value(features).unflatten(2, (heads, -1))
        offsets = self.offsets(query).unflatten(2, (*self.shape, 2))
        # Softmax over all points of all levels of a head, in float32.
        weights = precise(self.weights(query).unflatten(2, (heads, levels * count))).softmax(-1)
        with full_precision(query):
            # Offsets count in cells of their level.
            where = points[:, None, None, None] + precise(offsets) * source.cells[:, None]
            weights = weights.unflatten(3, (levels, count))
            read = sample(precise(value), source.grids, where, weights)
        return self.output(read)


class GridFeedForward(nn.Module):
    """Linear, 3 x 3 filter on each grid, GELU, linear; the grids share all weights."""

    def __init__(self, dim: int):
        super().__init__()
        hidden = max(1, dim // 4)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.filter = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.apply(start_convolution)

    def forward(self, x: Tensor, grids: Grids) -> Tensor:
        """Tokens of these grids, (B, T, C), to their update."""
        # A filter must not reach from one grid into the next, so each is a map of its own.
        maps = [self.filter(m) for m in split_grids(self.fc1(x), grids)]
        return self.fc2(F.gelu(joined(maps)))


def joined(maps: list[Tensor]) -> Tensor:
    """Return maps (B, C, H, W) as tokens that follow one another, (B, T, C)."""
    return torch.cat([m.flatten(2).mT for m in maps], dim=1)


class SummedPyramid(nn.Module):
    """Four maps: prior and ViT, resized, summed and normed; the finest is made from the second."""

    def __init__(self, dim: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(4))
        start_convolution(self.up)

    def forward(self, c1: Tensor, priors: list[Tensor], taps: list[Tensor]) -> list[Tensor]:
        """c1: stride 4. priors: strides 8, 16, 32. taps: four ViT maps. All (B, C, ., .)."""
        maps = []
        for c, tap, norm in zip([c1 + self.up(priors[0]), *priors], taps, self.norms, strict=True):
            maps.append(norm(c + resize_map(tap, c)))
        return maps


def resize_map(x: Tensor, like: Tensor) -> Tensor:
    """Resize a map bilinearly to the sides of another one."""
    size = like.shape[-2:]
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def usual_heads(dim: int, heads: int) -> int:
    """Return the heads of the published settings: 6 up to a width of 384, else the backbone's."""
    return 6 if dim <= SMALL else heads


def usual_ratio(dim: int) -> float:
    """Return the width of the values of the published settings: whole up to 384, else half."""
    return 1.0 if dim <= SMALL else 0.5


SMALL = 384
