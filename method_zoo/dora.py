"""DoRA: Weight-Decomposed Low-Rank Adaptation. Liu et al., ICML 2024, arXiv 2402.09353.

W' = g (W + s B A) / ||W + s B A||, the norm taken per output row, s = alpha / rank, on the fused
qkv layer of every block. g starts at the row norms of W and B at zero, so W' starts at W. The
norm counts as a constant in the backward pass (section 4.3 of the paper).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lora import LoRALinear
from .method import Backbone, Method, at_least, rewrite
from .parts.low_rank import changed_linear, in_full_precision, well_scaled


class DoRA(Method):
    title = "DoRA"
    paper = "arXiv 2402.09353"
    fidelity = (
        "the paper's equation with its detached norm; on the fused qkv layer alone, with the count "
        "of Hugging Face peft's DoRA there"
    )
    needs_attention = True
    mergeable = True
    preset = {"lr": 1e-3}

    def __init__(self, backbone: Backbone, rank: int = 8, alpha: float = 8.0):
        super().__init__(backbone)
        at_least("rank", rank, 1)
        self.wrap(lambda name: name.endswith("attn.qkv"), lambda m: DoRALinear(m, rank, alpha))


class DoRALinear(LoRALinear):
    """A frozen linear layer whose rows get a low-rank change of direction and a trained length."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__(base, rank, alpha)
        self.length = nn.Parameter(self._changed().norm(dim=1))

    def _changed(self) -> Tensor:
        """Return W + s B A, as a constant."""
        with torch.no_grad():
            return self.base.weight + self.scale * (self.b @ self.a)

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        # The row of W' is g (W + s B A) / ||W + s B A||: the frozen row, scaled by the ratio below.
        ratio = self.length / self._changed().norm(dim=1)
        if in_full_precision(self.base, x) and well_scaled(ratio, self.base.bias):
            return changed_linear(self.base, x, self.a, self.b * self.scale, ratio)
        update = F.linear(F.linear(x, self.a), self.b) * self.scale
        # Written as a change of the frozen output, which at the start stays as it is to the bit.
        y = self.base(x)
        without_bias = y if self.base.bias is None else y - self.base.bias
        return y + (ratio - 1) * without_bias + ratio * update

    def fold(self) -> nn.Module:
        weight = self._changed()
        # One length for each output row: W is (outputs,
        # inputs), its rows are normed over the inputs.
        rewrite(self.base, (self.length / weight.norm(dim=1))[:, None] * weight)
        return self.base
