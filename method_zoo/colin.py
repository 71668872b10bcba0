"""CoLin: 1% > 100%: Complex Linear Projection Optimization. Yin et al., 2026, arXiv 2602.10513.

x <- x + P2 GELU(m), u = P1 x, m = sigmoid(a) D u + (1 - sigmoid(a)) u, behind the attention and
behind the MLP; D a 3 x 3 filter a channel on the grid, a one number a channel, 0 at the start.
P z = W z + c with W^T = A diag(sum_b g_b) B, k inner channels; P1 and P2 share the four vectors g.
The loss has 2 (|A^T A - I|^2 + |B B^T - I|^2) more for each P at each forward pass. A and B start
as averages of the singular vectors of random matrices, g as their singular values: it does not
start at the frozen model. A prefix token has no neighbours: m = u.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Method, Tokens, ZooError, at_least
from .parts.deformable import full_precision, precise
from .parts.layers import add_filtered

BRANCHES = 4
ORTHOGONAL_WEIGHT = 0.5  # of the loss, a branch


class CoLin(Method):
    """bottleneck: channels between P1 and P2. kernel: k, the rank of both; in a block that is
    narrower, its width."""

    title = "CoLin"
    paper = "arXiv 2602.10513"
    fidelity = (
        "equal to the authors' module and loss to 1e-5, from a specification of them; the loss "
        "joins that of the task, where their forward pass runs a backward pass of its own for it, "
        "with the same gradient; their evaluation keeps a weight that a loaded file does not "
        "renew, here it is always made of A, g and B; prefix tokens, which their Swin has not, "
        "pass by the filter"
    )
    identity_at_init = False
    needs_attention = True
    unmergeable = "its filter sees neighbouring tokens, and GELU bends what it adds"
    preset = {"lr": 1e-4}

    def __init__(self, backbone: Backbone, bottleneck: int = 100, kernel: int = 28):
        super().__init__(backbone)
        at_least("bottleneck", bottleneck, 1)
        if not 1 <= kernel <= bottleneck:
            raise ZooError(f"kernel is {kernel}; it must be 1 to the bottleneck, {bottleneck}")
        self.after_attention, self.after_mlp = (
            nn.ModuleList(
                OrthogonalAdapter(dim, bottleneck, min(kernel, dim)) for dim in backbone.dims
            )
            for _ in range(2)
        )

    def block(self, i: int, t: Tokens) -> Tokens:
        t = self.backbone.shortcut(i, t).add(self.backbone.attention(i, t))
        t = self.after_attention[i](t)
        return self.after_mlp[i](t.add(self.backbone.mlp(i, t)))


class OrthogonalAdapter(nn.Module):
    """A bottleneck of low rank that filters the grid; its loss is added to that of the tokens."""

    def __init__(self, dim: int, width: int, kernel: int):
        super().__init__()
        self.down, self.up = Orthogonal(dim, width, kernel), Orthogonal(width, dim, kernel)
        self.values = nn.Parameter(torch.empty(BRANCHES, kernel))
        self.filter = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.share = nn.Parameter(torch.zeros(width))
        for projection in (self.down, self.up):  # the second leaves its values in both
            projection.start(self.values)

    def forward(self, t: Tokens) -> Tokens:
        """Tokens of any prefix and grid, to tokens."""
        values = self.values.sum(0)
        u = t._replace(x=self.down(t.x, values))
        share = self.share.sigmoid()
        kernel, bias = self.filter.weight * share.view(-1, 1, 1, 1), self.filter.bias
        assert bias is not None
        # m = sigmoid(a) D u + (1 - sigmoid(a)) u: both factors are part of the filter.
        m = add_filtered(u.map(), kernel, bias * share, 1 - share)
        m = u.with_patches(m.flatten(2).transpose(1, 2))
        loss = self.down.orthogonal_loss() + self.up.orthogonal_loss()
        return t._replace(x=t.x + self.up(F.gelu(m.x), values), aux=t.aux + loss)


class Orthogonal(nn.Module):
    """z A diag(g) B + c; the values g are given from outside."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.a = nn.Parameter(torch.empty(inputs, kernel))
        self.b = nn.Parameter(torch.empty(kernel, outputs))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-(inputs**-0.5), inputs**-0.5))

    @torch.no_grad()
    def start(self, values: Tensor) -> None:
        """Draw a matrix a branch; take the mean of their singular vectors, and their values."""
        inputs, outputs, kernel = len(self.a), len(self.bias), len(self.b)
        # Each as torch starts the weight of a linear layer of these inputs.
        matrices = self.a.new_empty(BRANCHES, inputs, outputs)
        matrices.uniform_(-(inputs**-0.5), inputs**-0.5)
        left, found, right = torch.linalg.svd(matrices, full_matrices=False)
        self.a.copy_(left[:, :, :kernel].mean(0))
        self.b.copy_(right[:, :kernel].mean(0))
        values.copy_(found[:, :kernel])

    def forward(self, z: Tensor, values: Tensor) -> Tensor:
        # z A, then diag(g) B + c; the values scale the rows of B.
        return F.linear(F.linear(z, self.a.t()), self.b.t() * values, self.bias)

    def orthogonal_loss(self) -> Tensor:
        """Return how far the columns of A and the rows of B are from orthonormal, a scalar."""
        with full_precision(self.a):
            products = [precise(m) for m in (self.a.t() @ self.a, self.b @ self.b.t())]
            one = torch.eye(len(self.b), device=self.a.device, dtype=products[0].dtype)
            # |A^T A - I|^2 + |B B^T - I|^2, squared Frobenius norms.
            far = torch.stack([(p - one).square().sum() for p in products]).sum()
        return ORTHOGONAL_WEIGHT * BRANCHES * far
