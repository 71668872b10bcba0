"""Cosine-aligned deformable attention of Controllable-LPMoE, linear in the number of tokens.

a = softmax(W q), b = softmax(W u) with u_i = sum_j cos(q_i, f_j) f_j and the same W,
out = W_o sum over levels and points of a * b * (W_v f at reference + offset(q)).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ZooError, at_least

# Multi-scale deformable sampling in plain torch: weighted bilinear reads at learnt places.
#
# The core of Deformable DETR (Zhu et al., ICLR 2021, arXiv 2010.04159, equation 3) without a
# compiled extension: out(q) = sum over levels l and points p of w(q, l, p) * value_l at location(q,
# l, p).


Grids = Sequence[tuple[int, int]]


class TokenPlaces(NamedTuple):
    """Where the tokens of one or more grids lie; x before y, each 0 to 1 over the image."""

    grids: Grids  # (height, width) of each level
    points: Tensor  # (T, 2), the centres of all cells, level after level, row by row
    cells: Tensor  # (L, 2), the size of one cell of each level


def places(grids: Grids, like: Tensor) -> TokenPlaces:
    """Return the places of grids on the device of `like`, in float32.

    Made from ranges on the device itself, without a copy between devices: once a forward pass this
    costs less than a cache would.
    """
    points, cells = [], []
    for height, width in grids:
        y = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) / width
        points.append(torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1))
        cells += [x[0] * 2, y[0] * 2]  # the first centre lies half a cell from the edge
    return TokenPlaces(grids, torch.cat(points), torch.stack(cells).view(-1, 2))


def star(heads: int, levels: int, points: int) -> Tensor:
    """Return the offsets to start from, (heads * levels * points * 2,), in cells of a level.

    Each head looks another way, its points 1, 2, ... cells off; the star's tips lie on a square.
    """
    angle = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
    ray = torch.stack([angle.cos(), angle.sin()], dim=-1)
    # Divided by the larger of |x| and |y|: directions of a square, each tip on a whole cell's ring.
    ray = ray / ray.abs().amax(-1, keepdim=True)
    reach = torch.arange(1, points + 1, dtype=torch.float32)
    offsets = ray[:, None, None] * reach[:, None]  # (h, 1, P, 2)
    return offsets.expand(heads, levels, points, 2).flatten()


def start_on_star(module: Any, heads: int, levels: int, points: int) -> None:
    """Start deformable attention, which has the layers `offsets`, `weights`, `value` and `output`,
    on a star of points around each reference, with equal weights."""
    with torch.no_grad():
        module.offsets.bias.copy_(star(heads, levels, points))
    for zero in (module.offsets.weight, module.weights.weight, module.weights.bias):
        nn.init.zeros_(zero)
    for linear in (module.value, module.output):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)


def sample(value: Tensor, grids: Grids, where: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted bilinear reads of `value`, (B, Q, h * d); outside the grid is zero.

    value: (B, T, h, d), the levels one after the other. where: (B, Q, h, L, P, 2), 0 to 1.
    weights: (B, Q, h, L, P).
    """
    heads = value.shape[2]
    # Heads go into the batch; points come before queries, so the sum over points is vectorised.
    value = value.permute(0, 2, 3, 1).flatten(0, 1)  # (B * h, d, T)
    where = (2 * where - 1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # (L, B * h, P, Q, 2)
    weights = weights.permute(3, 0, 2, 4, 1).flatten(1, 2).unsqueeze(2)  # (L, B * h, 1, P, Q)
    total = None
    start = 0
    for level, (height, width) in enumerate(grids):
        plane = value[:, :, start : start + height * width].unflatten(2, (height, width))
        start += height * width
        read = F.grid_sample(plane, where[level], padding_mode="zeros", align_corners=False)
        part = (read * weights[level]).sum(2)  # (B * h, d, Q)
        total = part if total is None else total + part
    assert total is not None
    return total.unflatten(0, (-1, heads)).permute(0, 3, 1, 2).flatten(2)


def precise(x: Tensor) -> Tensor:
    """Bring half-precision numbers to float32 and leave others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> torch.autocast:
    """Return the context in which autocast leaves the numbers on the device of x as they are."""
    # The meta device, where only shapes are counted, knows no autocast: it stands for the CPU.
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


NORM_EPS = 1e-8


class CosineDeformableAttention(nn.Module):
    """Queries read features around their reference points (spec of arXiv 2510.21114, section 2.3).

    ratio: width of the values as a share of dim. cosine: "sum" as the authors do, or "mean", which
    does not grow with the number of tokens. renormalise: let the weights of a head sum to one;
    the authors' product of two softmaxes sums to less.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        levels: int,
        points: int = 4,
        ratio: float = 0.5,
        cosine: str = "sum",
        renormalise: bool = False,
    ):
        super().__init__()
        inner = value_width(dim, heads, points, ratio)
        if cosine not in ("sum", "mean"):
            raise ZooError(f"cosine is {cosine!r}; allowed are 'sum' (as in the paper) and 'mean'")
        self.shape = (heads, levels, points)
        self.mean = cosine == "mean"
        self.renormalise = renormalise
        count = heads * levels * points
        self.offsets = nn.Linear(dim, count * 2)
        self.weights = nn.Linear(dim, count)
        self.value = nn.Linear(dim, inner)
        self.output = nn.Linear(inner, dim)
        self.reset()

    def reset(self) -> None:
        """Start on a star of points around each reference, with equal weights."""
        start_on_star(self, *self.shape)

    def forward(
        self, query: Tensor, features: Tensor, points: Tensor, source: TokenPlaces
    ) -> Tensor:
        """Return the update of the queries, (B, Q, C).

        query: (B, Q, C), at the points (Q, 2). features: (B, T, C), at the places `source`.
        """
        heads = self.shape[0]
        value = self.value(features).unflatten(2, (heads, -1))
        offsets = self.offsets(query).unflatten(2, (*self.shape, 2))
        # The authors force their sampling to float32; the cosine sum over all tokens needs it too.
        with full_precision(query):
            # Offsets count in cells of their level.
            where = points[:, None, None, None] + precise(offsets) * source.cells[:, None]
            weights = self.mixed_weights(query, features)
            read = sample(precise(value), source.grids, where, weights)
        return self.output(read)

    def mixed_weights(self, query: Tensor, features: Tensor) -> Tensor:
        """Return the product of direct and cosine-aligned weights, (B, Q, h, L, P), in float32."""
        query, features = precise(query), precise(features)
        aligned = aligned_logits(query, features, self.weights.weight)
        if self.mean:
            aligned = aligned / features.shape[1]
        # b = softmax(W u): the layer of a, bias included, reads u_i in the place of q_i.
        aligned = (aligned + self.weights.bias).unflatten(2, (self.shape[0], -1))
        direct = self.weights(query).unflatten(2, (self.shape[0], -1))
        if self.renormalise:  # the product of two softmaxes, scaled to sum 1, is one softmax
            mixed = (direct + aligned).softmax(-1)
        else:
            mixed = direct.softmax(-1) * aligned.softmax(-1)
        return mixed.unflatten(3, self.shape[1:])


def aligned_logits(query: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    """Return W u for u_i = sum_j cos(q_i, f_j) f_j, without the matrix of all cosines: (B, Q, K).

    W (S f) = q^ (f^T ((f W^T) / |f|)) / |q| is the same product in another bracketing: its cost is
    linear in the tokens. query: (B, Q, C). features: (B, T, C). weight: (K, C).
    """
    query_norm = torch.linalg.vector_norm(query, dim=-1, keepdim=True) + NORM_EPS
    feature_norm = torch.linalg.vector_norm(features, dim=-1, keepdim=True) + NORM_EPS
    summary = features.transpose(1, 2) @ ((features @ weight.t()) / feature_norm)  # (B, C, K)
    return (query @ summary) / query_norm


def value_width(dim: int, heads: int, points: int, ratio: float) -> int:
    """Return the width of the values; raises ZooError where heads, points or ratio do not fit."""
    at_least("points", points, 1)
    if not 0 < ratio <= 1:
        raise ZooError(f"ratio is {ratio}; it must be above 0 and at most 1")
    inner = int(dim * ratio)
    if heads < 1 or dim % heads or inner % heads:
        raise ZooError(
            f"heads is {heads}; it must divide the backbone's width {dim} and the width of the "
            f"values {inner}: set heads to a divisor of both"
        )
    return inner
