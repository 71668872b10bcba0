"""FacT: Factor-Tuning for Lightweight Adaptation. Jie & Deng, AAAI 2023, arXiv 2212.03145.

FacT-TT: y = W x + c + s V Sigma U x. U (rank x d) and V (d x rank) are shared by every layer of
every block; each d x d piece of a weight has its own core Sigma (rank x rank): 3 for qkv, 1 for
proj, 4 for fc1 and 4 for fc2. V starts at zero: training starts at the frozen model. Where a width
is no multiple of d, as in a SwiGLU, the last piece is cut: the paper has no such layers.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Method, Wrapped, at_least, rate, rewrite
from .parts.low_rank import add_low, changed_linear, in_full_precision, linear_and_low

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


class FacT(Method):
    """scale: s, which the authors choose per task in 0.01 ... 100. dropout: in front of V, while
    training."""

    title = "FacT-TT"
    paper = "arXiv 2212.03145"
    fidelity = (
        "the tensor-train form of the paper with the authors' dropout, from a specification: there "
        "is no module of theirs to compare with; any MLP ratio that divides is ours"
    )
    needs_one_width = True
    needs_attention = True
    mergeable = True
    preset = {"lr": 1e-3}

    def __init__(
        self, backbone: Backbone, rank: int = 16, scale: float = 1.0, dropout: float = 0.1
    ):
        super().__init__(backbone)
        at_least("rank", rank, 1)
        rate("dropout", dropout)
        shared = Factors(backbone.dim, rank)
        self.wrap(
            lambda name: name.endswith(LAYERS),
            lambda module: FacTLinear(module, shared, scale, dropout),
        )


class Factors(nn.Module):
    """The two factors that all layers share."""

    def __init__(self, dim: int, rank: int):
        super().__init__()
        self.u = nn.Parameter(torch.empty(rank, dim))
        self.v = nn.Parameter(torch.zeros(dim, rank))
        nn.init.kaiming_uniform_(self.u, a=math.sqrt(5))


class FacTLinear(Wrapped):
    """A frozen linear layer, seen as d x d pieces, with a core for each piece."""

    def __init__(self, base: nn.Linear, shared: Factors, scale: float, dropout: float):
        super().__init__(base)
        rank, dim = shared.u.shape
        self.missing = -base.in_features % dim  # inputs that the last piece lacks
        pieces = (math.ceil(base.out_features / dim), math.ceil(base.in_features / dim))
        bound = 1 / math.sqrt(pieces[1] * rank)  # as of one linear layer that reads all pieces
        self.shared, self.scale = shared, scale
        self.core = nn.Parameter(torch.empty(*pieces, rank, rank).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)
        # One piece on a side and whole ones on the other, as of every layer but those of a SwiGLU.
        self.thin = 1 in pieces and base.out_features % dim == 0

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        if in_full_precision(self.base, x) and self.thin:
            return self._thin(x)
        pieces = F.pad(x, (0, self.missing)).unflatten(-1, (self.core.shape[1], -1))
        # Sigma acts between U and V, on rank channels: the d x d update is never formed.
        h = torch.einsum("...kr,jksr->...js", F.linear(pieces, self.shared.u), self.core)
        update = F.linear(self.dropout(h), self.shared.v).flatten(-2)
        y = self.base(x)
        return y + self.scale * update[..., : y.shape[-1]]

    def _thin(self, x: Tensor) -> Tensor:
        """Compute the same with the cores as part of U, or of V where U reads one piece."""
        (outputs, _, rank, _), base = self.core.shape, self.base
        u, v = self.shared.u, self.shared.v * self.scale
        dropping = self.training and self.dropout.p > 0
        if outputs == 1:  # U' = [Sigma_1 U, Sigma_2 U, ...], (rank, inputs)
            u = torch.einsum("ksr,rc->skc", self.core[0], u).flatten(1)
        elif not dropping:  # V' = [V Sigma_1; V Sigma_2; ...], (outputs, rank)
            v = torch.einsum("cs,jsr->jcr", v, self.core[:, 0]).flatten(0, 1)
        u = u[:, : base.in_features]
        if not dropping:
            return changed_linear(base, x, u, v[: base.out_features])
        y, h = linear_and_low(base, x, u)
        if outputs > 1:
            h = F.linear(h, self.core[:, 0].flatten(0, 1)).unflatten(-1, (outputs, rank))
        return add_low(y, self.dropout(h.contiguous()), v)

    def fold(self) -> nn.Module:
        # Output a of piece j by input b of piece k.
        pieces = torch.einsum("as,jksr,rb->jakb", self.shared.v, self.core, self.shared.u)
        update = pieces.flatten(2).flatten(0, 1)[: self.base.out_features, : self.base.in_features]
        rewrite(self.base, self.base.weight + self.scale * update)
        return self.base
