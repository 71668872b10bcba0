"""RepAdapter: Adaption via Structural Re-parameterization. Luo et al., 2023, arXiv 2302.08106.

z <- z + s (B (A z + a) + b) between LN1 and qkv and between LN2 and fc1, without a non-linearity; B
is grouped. It folds into the layer behind: W' = W (I + s B A), c' = c + s W (B a + b), and costs
nothing then. B starts at zero: training starts at the frozen model.
"""

import torch
from torch import Tensor, nn

from .method import Backbone, Method, Wrapped, ZooError, at_least, rate, rewrite
from .parts.low_rank import add_low, changed_linear, in_full_precision, linear_and_low


class RepAdapter(Method):
    """groups: of B; each reads its share of the bottleneck. scale: s, which the authors choose per
    task in 0.1 ... 10. dropout: behind A, while training."""

    title = "RepAdapter"
    paper = "arXiv 2302.08106"
    fidelity = (
        "the authors' code: the module equals theirs to 1e-5, its two places and the merge are "
        "those of the paper"
    )
    mergeable = True
    preset = {"lr": 1e-3}

    def __init__(
        self,
        backbone: Backbone,
        bottleneck: int = 8,
        groups: int = 2,
        scale: float = 1.0,
        dropout: float = 0.1,
    ):
        super().__init__(backbone)
        at_least("groups", groups, 1)
        at_least("bottleneck", bottleneck, 1)
        rate("dropout", dropout)
        odd = [width for width in backbone.widths if width % groups] or backbone.widths[:1]
        if bottleneck % groups or odd[0] % groups:
            raise ZooError(
                f"groups is {groups}; it must divide the bottleneck {bottleneck} "
                f"and the width {odd[0]}"
            )
        self.wrap(
            lambda name: name.endswith(("attn.qkv", "mlp.fc1")),
            lambda module: RepLinear(module, bottleneck, groups, scale, dropout),
        )


class RepLinear(Wrapped):
    """A frozen linear layer with a trained linear adapter in front of it."""

    def __init__(self, base: nn.Linear, width: int, groups: int, scale: float, dropout: float):
        super().__init__(base)
        dim, self.scale = base.in_features, scale
        self.down, self.dropout = nn.Linear(dim, width), nn.Dropout(dropout)
        # Up starts at zero, for the frozen model is the start. Down must not: with both at zero no
        # gradient would ever reach either.
        self.up = nn.Parameter(torch.zeros(groups, dim // groups, width // groups))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def adapter(self, z: Tensor) -> Tensor:
        """Return s (B (A z + a) + b), (..., C)."""
        h = self.dropout(self.down(z)).unflatten(-1, (self.up.shape[0], -1))
        # g groups, each from its m channels of the bottleneck to its o outputs.
        up = torch.einsum("...gm,gom->...go", h, self.up).flatten(-2)
        return self.scale * (up + self.bias)

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        base, down = self.base, self.down
        if not in_full_precision(base, x):
            return base(x + self.adapter(x))
        behind, shift = self._behind()
        if not (self.training and self.dropout.p > 0):
            return changed_linear(base, x, down.weight, behind, None, shift + behind @ down.bias)
        y, h = linear_and_low(base, x, down.weight, shift)
        return add_low(y, self.dropout(h.contiguous() + down.bias), behind)

    def _behind(self) -> tuple[Tensor, Tensor]:
        """Sort W (z + s (B h + b)) + c: return s W B, (outputs, width), and c + s W b."""
        up, weight = torch.block_diag(*self.up), self.base.weight
        shift = self.scale * (weight @ self.bias)
        shift = shift if self.base.bias is None else self.base.bias + shift
        # The short side as rows, which is several times as fast, as in `parts.low_rank`.
        return self.scale * (up.t() @ weight.t()).t(), shift

    def fold(self) -> nn.Module:
        behind, shift = self._behind()
        weight = self.base.weight + behind @ self.down.weight
        rewrite(self.base, weight, shift + behind @ self.down.bias)
        return self.base
