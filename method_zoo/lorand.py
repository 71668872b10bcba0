"""LoRand: 1% VS 100%: Low Rank Adapter for Dense Predictions. Yin et al., CVPR 2023.

o <- o + P2 GELU(P1 o), o the residual update of the attention or of the MLP, before it is added:
two adapters a block. P z = W z + c with W^T = sum_b A_b G_b B_b over a few branches, A_b (p x k),
G_b (k x k), B_b (k x q) for p inputs and q outputs. P1 leads to d / f channels, P2 back. Each P has
its own kernels G, or both share them. All start uniform at random: it does not start at the frozen
model.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Method, Tokens, ZooError, at_least


class LoRand(Method):
    """branches: low-rank products that are summed. kernel: k, the side of a kernel. factor: f, by
    which the inner width is smaller than the backbone's. shared_kernel: one G a branch for both
    projections, as the paper's text has it; the first author's code gives each its own."""

    title = "LoRand"
    paper = "CVPR 2023 (LoRand)"
    fidelity = (
        "the module equals the first author's and, with shared_kernel, that of another release, to "
        "1e-5; four branches, kernels of 8 and half the width are the released class's defaults, "
        "the ranks behind the paper's tables are not published; on the residual update after "
        "LayerScale, of all tokens"
    )
    identity_at_init = False
    needs_attention = True
    unmergeable = "its bottleneck bends what the branches return, which no weight of theirs can"
    preset = {"lr": 1e-4}

    def __init__(
        self,
        backbone: Backbone,
        branches: int = 4,
        kernel: int = 8,
        factor: int = 2,
        shared_kernel: bool = False,
    ):
        super().__init__(backbone)
        for option, value in {"branches": branches, "kernel": kernel, "factor": factor}.items():
            at_least(option, value, 1)
        if factor > min(backbone.dims):
            raise ZooError(f"factor is {factor}; it must be at most the width {min(backbone.dims)}")
        self.after_attention, self.after_mlp = (
            nn.ModuleList(
                LowRankAdapter(dim, dim // factor, branches, kernel, shared_kernel)
                for dim in backbone.dims
            )
            for _ in range(2)
        )

    def block(self, i: int, t: Tokens) -> Tokens:
        o = self.backbone.attention(i, t)
        t = self.backbone.shortcut(i, t).add(o._replace(x=self.after_attention[i](o.x)))
        o = self.backbone.mlp(i, t)
        return t.add(o._replace(x=self.after_mlp[i](o.x)))


class LowRankAdapter(nn.Module):
    """A bottleneck with its identity, both of whose projections are sums of low-rank products."""

    def __init__(self, dim: int, width: int, branches: int, kernel: int, shared: bool):
        super().__init__()
        self.kernels = nn.Parameter(torch.empty(1 if shared else 2, branches, kernel, kernel))
        self.down = LowRankSum(dim, width, branches, kernel)
        self.up = LowRankSum(width, dim, branches, kernel)
        _spread(self.kernels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        # [0] and [-1] are the same kernels where both projections share them.
        return x + self.up(F.gelu(self.down(x, self.kernels[0])), self.kernels[-1])


class LowRankSum(nn.Module):
    """z (sum over branches of A G B) + c, the kernels G given from outside."""

    def __init__(self, inputs: int, outputs: int, branches: int, kernel: int):
        super().__init__()
        self.a = nn.Parameter(torch.empty(branches, inputs, kernel))
        self.b = nn.Parameter(torch.empty(branches, kernel, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        # As Kaiming's rule reads the raw tensors: by their last side, not by what they multiply.
        for tensor, fan_in in ((self.a, kernel), (self.b, outputs), (self.bias, inputs)):
            _spread(tensor, fan_in)

    def forward(self, z: Tensor, kernels: Tensor) -> Tensor:
        # The branches side by side make two thin factors: their sum is one product.
        a = (self.a @ kernels).transpose(0, 1).flatten(1)  # (inputs, branches * k)
        return F.linear(z, (a @ self.b.flatten(0, 1)).t(), self.bias)


def _spread(tensor: Tensor, fan_in: int) -> None:
    nn.init.uniform_(tensor, -(fan_in**-0.5), fan_in**-0.5)
