"""CoLoRA: Correlated Low-Rank Adaptation for ConvNets. NeurIPS 2025, openreview 3pF7rt9fQM.

In each block of a ConvNeXt: z <- D z + C_B F(C_A z), D the frozen 7 x 7 convolution, C_A 1 x 1 to
rank R, C_B 3 x 3 filters; F learns nothing: it adds 0.2 of a Gaussian mean over near places of like
value. The two layers of the MLP have a low-rank change each and one that they share:
W1 <- W1 + B1 A1 / n1 + W2^T B A / n, W2 <- W2 + B2 A2 / n2 + B A W1^T / n', each n the sum of two
standard deviations times a root of its size. All B and C_B start at zero. Biases and norms train
too, a norm behind each stage among them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Features, Method, Prefix, Wrapped, at_least, rate
from .parts.deformable import full_precision, precise

SIDE, SIGMA, SCALE, EPS = 11, 1.0, 0.2, 1e-5  # of the filter


class CoLoRA(Method):
    """reduction: by which rank R is smaller than a block's width. share: part of R that the two
    layers of an MLP share; the rest is a rank of their own."""

    title = "CoLoRA"
    paper = "NeurIPS 2025 (CoLoRA)"
    fidelity = (
        "one block equals the first forward pass of the authors' to 1e-5, from a specification of "
        "it; their block then puts the changed weights in the place of the ones it started from, "
        "so that the same image gives another output at each pass: here these stay as they came; "
        "on grids of fewer than six places a side, which their filter cannot pad, the reflection "
        "goes on; the norms behind the first three stages are new, that of the last is the "
        "backbone's own"
    )
    identity_at_init = False  # but for the norms behind the first three stages it is
    made_for = {"ConvNeXt": "convnext_small"}
    unmergeable = "its filter weighs neighbours by what is in the image"
    preset = {"lr": 2e-4}

    def __init__(self, backbone: Backbone, reduction: int = 16, share: float = 0.5):
        super().__init__(backbone)
        at_least("reduction", reduction, 1)
        rate("share", share)
        self.wrap(lambda name: name.endswith("conv_dw"), lambda conv: FilteredConv(conv, reduction))
        for block in backbone.vit.blocks:
            first, second = block.mlp.fc1, block.mlp.fc2
            rank = max(1, first.in_features // reduction)
            common = int(rank * share)
            shared = SharedFactors(first.in_features, common) if common else None
            own = rank - common
            block.mlp.fc1 = CorrelatedLinear(first, second, shared, own, widens=True)
            block.mlp.fc2 = CorrelatedLinear(second, first, shared, own, widens=False)
        # The authors' names of the norms of stem and merges are numbers: their weights stay.
        self.unfreeze(
            lambda name: (
                name.endswith("bias")
                or name == "norm.weight"
                or (name.startswith("blocks.") and name.endswith(".norm.weight"))
            )
        )
        eps = backbone.vit.norm.eps
        self.stage_norms = nn.ModuleList(nn.LayerNorm(dim, eps) for dim in self.channels[:-1])

    def finish(self, prefix: Prefix) -> Features:
        tokens, taps = self._walk(prefix, range(self.frozen_blocks, self.backbone.depth))
        *early, last = taps
        maps = [
            t._replace(x=norm(t.x)).map() for t, norm in zip(early, self.stage_norms, strict=True)
        ]
        final = self.backbone.norm(last)
        return Features([*maps, final.map()], self.backbone.neck(final), tokens.aux)


class FilteredConv(Wrapped):
    """A frozen depthwise convolution with a low-rank one beside it, filtered in between."""

    def __init__(self, base: nn.Conv2d, reduction: int):
        super().__init__(base)
        dim = base.out_channels
        rank = math.gcd(max(1, dim // reduction), dim)  # its filters are shared out among channels
        self.squeeze = nn.Conv2d(dim, rank, 1, bias=False)
        self.expand = nn.Conv2d(rank, dim, 3, padding=1, groups=rank, bias=False)
        nn.init.kaiming_uniform_(self.squeeze.weight, a=math.sqrt(5))
        nn.init.zeros_(self.expand.weight)

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        """Maps (B, C, H, W) to maps."""
        return self.base(x) + self.expand(smooth_by_value(self.squeeze(x)))


def smooth_by_value(z: Tensor) -> Tensor:
    """Add to maps (B, C, H, W) a fifth of the Gaussian mean over places of like value.

    With phi = pi z / (2 range) a place weighs cos phi among places of small value and sin phi among
    places of large value, none of them below zero; no gradient enters the weights.
    """
    with full_precision(z):
        z = precise(z)
        kept = z.detach()
        # Of each channel of each image; clamped, as a constant map has no range to divide by.
        span = (kept.amax((2, 3), True) - kept.amin((2, 3), True)).clamp(min=EPS)
        phi = kept * (math.pi / 2) / span
        total, weight = torch.zeros_like(z), torch.zeros_like(z)
        for share in (phi.cos().relu(), phi.sin().relu()):
            total = total + share * blur(share * z)
            weight = weight + share * blur(share)
        return z + SCALE * total / (weight + EPS)


def blur(z: Tensor) -> Tensor:
    """Filter maps (B, C, H, W) by a Gaussian of 11 x 11, reflected at the edges."""
    rows, columns = (_blurring(side, z) for side in z.shape[2:])
    # A Gaussian is a product: once along the rows, once along the columns, as matrices.
    return rows @ z @ columns.t()


def _blurring(side: int, like: Tensor) -> Tensor:
    """Return the matrix (side, side) that filters one axis."""
    half = SIDE // 2
    step = torch.arange(-half, half + 1, device=like.device)
    weight = torch.exp(-step.square() / (2 * SIGMA**2)).to(like.dtype)
    at = (torch.arange(side, device=like.device)[:, None] + step).abs()
    turn = max(1, 2 * (side - 1))  # after which a reflection comes back
    at = at % turn
    at = torch.minimum(at, turn - at).clamp(max=side - 1)
    places = F.one_hot(at, side).to(like.dtype)  # (side, 11, side)
    return (places * (weight / weight.sum())[:, None]).sum(1)


class SharedFactors(nn.Module):
    """A, (s, D), and B, (D, s), of both layers of an MLP."""

    def __init__(self, dim: int, rank: int):
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, dim))
        self.b = nn.Parameter(torch.zeros(dim, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))


class CorrelatedLinear(Wrapped):
    """A frozen layer of an MLP, changed by factors of its own and by the other layer's weight.

    widens: whether it is the first, from D to 4 D.
    """

    def __init__(
        self,
        base: nn.Linear,
        other: nn.Linear,
        shared: SharedFactors | None,
        rank: int,
        widens: bool,
    ):
        super().__init__(base)
        self.shared, self.widens = shared, widens
        self.a = nn.Parameter(torch.empty(rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        # Not a module of its own: it is wrapped, counted and saved at its own place.
        self._other = [other.weight]

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        return F.linear(x, self.base.weight + self.change(), self.base.bias)

    def change(self) -> Tensor:
        """Return what is added to W, (outputs, inputs)."""
        own = self.b @ self.a / (math.sqrt(len(self.a)) * (self.a.std() + self.b.std()))
        if self.shared is None:
            return own
        a, b = self.shared.a, self.shared.b
        rank, dim = a.shape
        other = self._other[0].t()
        # B A is (D, D): the other layer's weight brings it to the shape of this one, by W2^T from
        # the left or by W1^T from the right.
        if self.widens:
            a, b = a, other @ b
        else:
            a, b = a @ other, b
        return own + b @ a / ((rank * dim) ** 0.25 * (a.std() + b.std()))
