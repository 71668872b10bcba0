"""SNELL: Expanding Sparse Tuning for Low Memory Usage. Shen et al., NeurIPS 2024, arXiv 2411.01800.

y = W x + c + S(D)^T x on queries, keys, values, proj, fc1 and fc2, of which ConvNeXt has the last
two; a D each. D_ij = 0.1 (|U_0i - V_0j| - |U_1i - V_1j|), distances of the rank / 2 numbers that
stand for input i from those for output j: the update is not of low rank. S keeps what is larger
than the quantile t of |D|: D |D| there and 0 elsewhere, or D (|D| - tau); no gradient enters the
factor. Drawn at random, but small: it starts near the frozen model. SNELLA (arXiv 2510.24037) takes
D + alpha softmax(D / gamma) + beta in the place of D.
"""

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .method import Backbone, Method, Wrapped, ZooError, at_least, one_of, rate, rewrite
from .parts.deformable import full_precision, precise

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
SPARSIFIERS = ("released", "soft")
COEFFICIENT = 0.1


class SNELL(Method):
    """rank: numbers that stand for an input or an output, even. quantile: t, the share of D that is
    left out; 0 takes D as it is. sparsifier: "released", D |D|, or "soft" as in the paper. snella:
    alpha, beta and gamma beside D, 1, 0 and 1 at the start. dropout: of what D reads, but not of
    proj, while training. drop_path: how often its update is left out of an image, while training.
    """

    title = "SNELL"
    paper = "arXiv 2411.01800"
    fidelity = (
        "equal to the authors' module to 1e-5, from a specification of it; the released "
        "sparsifier multiplies D by its own size, where the paper takes (|D| - tau) "
        "(sparsifier=soft); their checkpointing, which lets factors behind an input without "
        "gradient never train, and their trained class token are not imitated; snella is without "
        "the allocator of the quantiles"
    )
    identity_at_init = False
    mergeable = True
    preset = {"lr": 1e-3}

    def __init__(
        self,
        backbone: Backbone,
        rank: int = 32,
        quantile: float = 0.9,
        sparsifier: str = "released",
        snella: bool = False,
        dropout: float = 0.1,
        drop_path: float = 0.1,
    ):
        super().__init__(backbone)
        at_least("rank", rank, 2)
        if rank % 2:
            raise ZooError(f"rank is {rank}; it must be even, for two distances of half of it")
        one_of("sparsifier", sparsifier, SPARSIFIERS)
        for option, value in {"quantile": quantile, "dropout": dropout}.items():
            rate(option, value)
        rate("drop_path", drop_path)
        form = {"quantile": quantile, "soft": sparsifier == "soft", "snella": snella}
        names = [name for name, _ in backbone.vit.named_modules()]
        there = [e for e in LAYERS if any(name.endswith(e) for name in names)]
        for ending in there or LAYERS:
            pieces, dropped = (3 if ending == "attn.qkv" else 1), dropout * (ending != "attn.proj")
            self.wrap(
                lambda name, ending=ending: name.endswith(ending),
                lambda m, pieces=pieces, dropped=dropped: KernelLinear(
                    m, pieces, rank, dropped, drop_path, **form
                ),
            )


class KernelLinear(Wrapped):
    """A frozen linear layer with a sparse change, made of distances; a fused one has several."""

    def __init__(
        self, base: nn.Linear, pieces: int, rank: int, dropout: float, drop_path: float, **form
    ):
        super().__init__(base)
        inputs, outputs = base.in_features, base.out_features // pieces
        self.kernels = nn.ModuleList(
            DistanceKernel(inputs, outputs, rank, **form) for _ in range(pieces)
        )
        self.dropout, self.drop_path = nn.Dropout(dropout), DropPath(drop_path)

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        z = self.dropout(x)
        if self.training and torch.is_grad_enabled():
            # D, as large as W, is made again in the backward pass instead of being kept.
            update = checkpoint(self._update, z, use_reentrant=False)
        else:
            update = self._update(z)
        return self.base(x) + self.drop_path(update)

    def _update(self, z: Tensor) -> Tensor:
        return F.linear(z, self.change())

    def change(self) -> Tensor:
        """Return what is added to W, (outputs, inputs)."""
        return torch.cat([kernel() for kernel in self.kernels], dim=1).t()

    def fold(self) -> nn.Module:
        rewrite(self.base, self.base.weight + self.change())
        return self.base


class DistanceKernel(nn.Module):
    """S(D), (inputs, outputs)."""

    def __init__(
        self, inputs: int, outputs: int, rank: int, quantile: float, soft: bool, snella: bool
    ):
        super().__init__()
        self.quantile, self.soft = quantile, soft
        # Kaiming's rule on three sides: an input counts once for each number that stands for it.
        self.u, self.v = (
            nn.Parameter(torch.empty(2, side, rank // 2).uniform_(-bound, bound))
            for side, bound in ((n, (n * rank / 2) ** -0.5) for n in (inputs, outputs))
        )
        self.alpha, self.beta, self.gamma = (
            nn.Parameter(torch.full((1,), start)) if snella else None for start in (1.0, 0.0, 1.0)
        )

    def forward(self) -> Tensor:
        with full_precision(self.u):
            d = self.dense()
            if not self.quantile:
                return d
            size = d.detach().abs()
            # Of the detached size: neither threshold nor factor carries a gradient.
            threshold = quantile_of(size.flatten(), self.quantile)
            if self.soft:
                return d * (size - threshold).clamp_(min=0)
            return d * torch.where(size > threshold, size, 0)

    def dense(self) -> Tensor:
        """Return D."""
        near, far = (_distances(u, v) for u, v in zip(self.u, self.v, strict=True))
        d = COEFFICIENT * (near - far)
        if self.alpha is None or self.beta is None or self.gamma is None:
            return d
        return d + self.alpha * (d / self.gamma).softmax(-1) + self.beta


def _distances(u: Tensor, v: Tensor) -> Tensor:
    # By differences: through a product of matrices small distances would lose their digits.
    return torch.cdist(precise(u), precise(v), compute_mode="donot_use_mm_for_euclid_dist")


def quantile_of(values: Tensor, share: float) -> Tensor:
    """Return what torch.quantile does, of as many values as there are, without sorting them all.

    Args:
        values: (n,).
        share: 0 to 1.
    """
    # Linear between the two values around this place, as torch.quantile by default.
    place = share * (len(values) - 1)
    below = int(place)
    lower = values.kthvalue(below + 1).values
    above = values.kthvalue(min(below + 2, len(values))).values
    return torch.lerp(lower, above, place - below)
