"""Cosine-aligned deformable attention of Controllable-LPMoE, linear in the number of tokens.

a = softmax(W q), b = softmax(W u) with u_i = sum_j cos(q_i, f_j) f_j and the same W,
out = W_o sum over levels and points of a * b * (W_v f at reference + offset(q)).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._deformable import Places, precise, sample, star
from ._errors import ZooError

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
        inner = check_sizes(dim, heads, points, ratio)
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
        with torch.no_grad():
            self.offsets.bias.copy_(star(*self.shape))
        for zero in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(zero)
        for linear in (self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, features: Tensor, points: Tensor, source: Places) -> Tensor:
        """Return the update of the queries, (B, Q, C).

        query: (B, Q, C), at the points (Q, 2). features: (B, T, C), at the places `source`.
        """
        heads = self.shape[0]
        value = self.value(features).unflatten(2, (heads, -1))
        offsets = self.offsets(query).unflatten(2, (*self.shape, 2))
        # The authors force their sampling to float32; the cosine sum over all tokens needs it too.
        # The meta device, where only shapes are counted, knows no autocast: it stands for the CPU.
        device = "cpu" if query.is_meta else query.device.type
        with torch.autocast(device, enabled=False):
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


def check_sizes(dim: int, heads: int, points: int, ratio: float) -> int:
    """Return the width of the values; raises ZooError where heads, points or ratio do not fit."""
    if points < 1:
        raise ZooError(f"points is {points}; it must be at least 1")
    if not 0 < ratio <= 1:
        raise ZooError(f"ratio is {ratio}; it must be above 0 and at most 1")
    inner = int(dim * ratio)
    if heads < 1 or dim % heads or inner % heads:
        raise ZooError(
            f"heads is {heads}; it must divide the backbone's width {dim} and the width of the "
            f"values {inner}: set heads to a divisor of both"
        )
    return inner
