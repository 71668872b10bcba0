"""VeRA: Vector-based Random Matrix Adaptation. Kopiczko et al., ICLR 2024, arXiv 2310.11454.

y = W x + c + b * (B (d * (A x))) on the fused qkv layer of every block. A (rank x C) and B
(3C x rank) are random, frozen and shared by all blocks; the vectors d (rank, 0.1) and b (3C, 0)
train, so training starts at the frozen model.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Method, Wrapped, at_least, rewrite
from .parts.low_rank import changed_linear, in_full_precision


class VeRA(Method):
    """seed: of the two random matrices, which are drawn again instead of saved."""

    title = "VeRA"
    paper = "arXiv 2310.11454"
    fidelity = (
        "the paper's equation, on the fused qkv layer alone, with the count of Hugging Face peft's "
        "VeRA there; the random matrices are drawn anew from the seed, not saved"
    )
    needs_one_width = True
    needs_attention = True
    mergeable = True
    preset = {"lr": 1e-2}

    def __init__(self, backbone: Backbone, rank: int = 256, seed: int = 0):
        super().__init__(backbone)
        at_least("rank", rank, 1)
        at_least("seed", seed, 0)
        dim, device = backbone.dim, backbone.mean.device
        shared = Projections(dim, 3 * dim, rank, seed, device)
        self.wrap(lambda name: name.endswith("attn.qkv"), lambda m: VeRALinear(m, shared))


class Projections(nn.Module):
    """The two frozen random matrices of all layers, drawn as Hugging Face peft draws them."""

    a: Tensor
    b: Tensor

    def __init__(self, inputs: int, outputs: int, rank: int, seed: int, device: torch.device):
        super().__init__()
        self.seed = seed
        generator = torch.Generator("cpu").manual_seed(seed)
        for name, shape in (("a", (rank, inputs)), ("b", (outputs, rank))):
            # Drawn on the CPU, because a seed gives other numbers on another device.
            drawn = nn.init.kaiming_uniform_(torch.empty(shape, device="cpu"), generator=generator)
            self.register_buffer(name, drawn.to(device), persistent=False)


class VeRALinear(Wrapped):
    """A frozen linear layer with a random low-rank update that two trained vectors scale."""

    def __init__(self, base: nn.Linear, shared: Projections):
        super().__init__(base)
        self.shared = shared
        self.inner = nn.Parameter(torch.full((shared.a.shape[0],), 0.1))
        self.outer = nn.Parameter(torch.zeros(shared.b.shape[0]))

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        if in_full_precision(self.base, x):
            # Both vectors scale B, in its columns and its rows: A needs no gradient then.
            b = self.outer[:, None] * self.shared.b * self.inner
            return changed_linear(self.base, x, self.shared.a, b)
        # d scales the low-rank axis between A and B, b the outputs behind B.
        update = F.linear(F.linear(x, self.shared.a) * self.inner, self.shared.b)
        return self.base(x) + update * self.outer

    def fold(self) -> nn.Module:
        inner = self.inner[:, None] * self.shared.a
        rewrite(self.base, self.base.weight + self.outer[:, None] * (self.shared.b @ inner))
        return self.base
