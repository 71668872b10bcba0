"""VFM-Adapter. Z. Chen, Zeng, Z. Chen, Gao, L. Chen, Liu & Zhao, AAAI 2025 (no arXiv id known).

y = branch(z) + s Up(q(W * q(Down z))), z = LN(x), q = QuickGELU, beside the attention and beside
the MLP. W, dense 3 x 3, is made for each image: p = Meta(z), e = sum_k sum_n softmax_n(p_n . T_k)
p_n, W = Hyper(e). The queries T are one table for the whole network, Hyper one network for all
attentions and one for all MLPs. A prefix token sees the centre of W. Up starts at zero: training
starts at the frozen model.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Method, Tokens, at_least, one_of, rate
from .parts.layers import convolve_each, quick_gelu, zeroed

POOLS = ("sum", "mean")


class VFMAdapter(Method):
    """bottleneck: channels of the convolution. hidden: of the meta-nets. embedding: channels of e.
    inner: of the factors of a kernel. queries: pools of the patches; 0 takes their plain mean.
    pool: how the pools make e; their sum lets the kernels grow with the queries. scale: s, ours:
    kernels start large, and at 1 the first steps drown tokens as small as DINOv2's.
    dropout: in front of Up, while training."""

    title = "VFM-Adapter"
    paper = "AAAI 2025 (VFM-Adapter)"
    fidelity = (
        "after the authors' probable working code, one commit of July 2024 that nobody declares "
        "official; the number of queries, their start and the scale are ours, the bottleneck is "
        "inferred from the 3 % of SAM-B in the abstract; if the paper's global modelling is more "
        "than the pools that make the kernels, it is not here"
    )
    needs_one_width = True
    needs_attention = True
    unmergeable = "its convolution is made anew for every image"
    preset = {"lr": 3e-4}

    def __init__(
        self,
        backbone: Backbone,
        bottleneck: int = 32,
        hidden: int = 64,
        embedding: int = 64,
        inner: int = 8,
        queries: int = 8,
        pool: str = "sum",
        scale: float = 0.1,
        dropout: float = 0.1,
    ):
        super().__init__(backbone)
        sizes = {"bottleneck": bottleneck, "hidden": hidden, "embedding": embedding, "inner": inner}
        for option, value in sizes.items():
            at_least(option, value, 1)
        at_least("queries", queries, 0)
        one_of("pool", pool, POOLS)
        rate("dropout", dropout)
        self.scale, self.pool = scale, pool
        table = torch.randn(queries, embedding) / embedding**0.5
        self.queries = nn.Parameter(table) if queries else None
        self.attention_kernels, self.mlp_kernels = (
            HyperNetwork(embedding, bottleneck, inner) for _ in range(2)
        )
        self.beside_attention, self.beside_mlp = (
            nn.ModuleList(
                GeneratedBypass(backbone.dim, bottleneck, hidden, embedding, dropout)
                for _ in range(backbone.depth)
            )
            for _ in range(2)
        )

    def block(self, i: int, t: Tokens) -> Tokens:
        z = t._replace(x=self.backbone.norm1(i, t))
        update = self.backbone.attention(i, t, z.x)
        t = t.add(self._beside(self.beside_attention[i], self.attention_kernels, update, z))
        z = t._replace(x=self.backbone.norm2(i, t))
        update = self.backbone.mlp(i, t, z.x)
        return t.add(self._beside(self.beside_mlp[i], self.mlp_kernels, update, z))

    def _beside(self, bypass: nn.Module, kernels: nn.Module, update: Tokens, z: Tokens) -> Tokens:
        # y = branch(z) + s bypass(z): both read the same norm, so neither waits for the other.
        generated = bypass(z, lambda p: kernels(self._embedding(p)))
        return update._replace(x=update.x + self.scale * generated)

    def _embedding(self, p: Tensor) -> Tensor:
        """Embeddings of the patches, (B, N, e), to one an image, (B, e)."""
        if self.queries is None:
            return p.mean(1)
        total = pooled(p, self.queries)
        return total / len(self.queries) if self.pool == "mean" else total


class GeneratedBypass(nn.Module):
    """Down, a 3 x 3 convolution with the kernel that is made of its meta-net's words, Up."""

    def __init__(self, dim: int, width: int, hidden: int, embedding: int, dropout: float):
        super().__init__()
        self.meta = MetaNet(dim, hidden, embedding)
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        zeroed(self.up)

    def forward(self, z: Tokens, kernels: Callable[[Tensor], Tensor]) -> Tensor:
        """The normed tokens z, (B, N, C), to the update, (B, N, C).

        kernels: from embeddings of the patches, (B, N, e), to a kernel an image, (B, d, d, 3, 3).
        """
        kernel = kernels(self.meta(z.patches))
        h = z._replace(x=quick_gelu(self.down(z.x)))
        patches = convolve_each(h.map(), kernel).flatten(2).mT
        # A prefix token has no neighbours: of W it sees the centre alone.
        prefix = h.x[:, : h.prefix] @ kernel[..., 1, 1].mT
        h = torch.cat([prefix, patches], dim=1)
        return self.up(self.dropout(quick_gelu(h)))


# How a kernel is made for each image: meta-net p, pooling by queries to e, hypernetwork to W.


class MetaNet(nn.Module):
    """p = Linear(ReLU(Linear(z))): what a module's tokens say about the kernel it needs."""

    def __init__(self, dim: int, hidden: int, embedding: int):
        super().__init__()
        self.inner, self.out = nn.Linear(dim, hidden), nn.Linear(hidden, embedding)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches, (B, N, C), to embeddings, (B, N, e)."""
        return self.out(F.relu(self.inner(patches)))


class HyperNetwork(nn.Module):
    """From one embedding an image to a dense 3 x 3 kernel, in two factors."""

    def __init__(self, embedding: int, width: int, inner: int):
        super().__init__()
        self.rows, self.columns = nn.Linear(embedding, width * inner), nn.Linear(inner, 9 * width)
        self.shape = (width, inner)
        for layer in (self.rows, self.columns):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """Embedding, (B, e), to kernels, (B, out, in, 3, 3): a row of the factors an output."""
        # (B, d * inner) to (B, d, inner): one row of `inner` numbers an output, which all rows
        # turn into the 9 d numbers of its kernel by the same layer.
        factors = self.columns(self.rows(embedding).unflatten(1, self.shape))
        return factors.unflatten(2, (self.shape[0], 3, 3))


def pooled(p: Tensor, queries: Tensor) -> Tensor:
    """Sum over the queries, (K, e), of their softmax pools of p, (B, N, e): (B, e).

    The scores are not scaled.
    """
    share = (queries @ p.mT).softmax(-1)  # (B, K, N)
    return (share @ p).sum(1)
