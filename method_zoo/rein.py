"""Rein: Stronger, Fewer, & Superior. Wei et al., CVPR 2024, arXiv 2312.04265.

Behind block i, on the patches f: f <- f + s Lin2(d + f), d = S' Lin1(T'_i),
S = softmax(f T_i^T / sqrt(C)) over the m tokens T_i = A_i B_i; S' and T'_i are without the first
token, into which attention may drain. Lin1 and Lin2 are shared by all blocks. The tokens make the
queries of a Mask2Former too: q_i = LinT(T_i), and LinM reads for each token and channel the largest
of the blocks, their mean and the last. s starts at 0.001: it starts near the frozen model.
"""

import math

import torch
from torch import Tensor, nn

from .method import Backbone, Features, Method, Prefix, Tokens, at_least
from .parts.layers import zeroed


class Rein(Method):
    """tokens: m, of each block. rank: of the tokens; 0 learns them as they are. queries: width of
    the queries that the decoder is handed, the decoder's own width; 0 makes none, and 256 for a
    mask2former of width 256 is the paper's. zero_init: start at the frozen model, by Lin2 = 0 and
    s = 1, which then does not train."""

    title = "Rein"
    paper = "arXiv 2312.04265"
    fidelity = (
        "equal to the authors' module to 1e-5, from a specification of it, without sight of their "
        "code; on ViT-L with queries=256 it has the 2,990,081 parameters of the paper; without a "
        "decoder that takes queries the two layers that make them are left out; prefix tokens of "
        "any number by-pass it, the frozen blocks run without stochastic depth, and the start "
        "counts patches of 16 pixels whatever the backbone's"
    )
    identity_at_init = False
    needs_one_width = True
    unmergeable = "it attends from every patch to its tokens behind the blocks"
    preset = {"lr": 1e-4}

    def __init__(
        self,
        backbone: Backbone,
        tokens: int = 100,
        rank: int = 16,
        queries: int = 0,
        zero_init: bool = False,
    ):
        super().__init__(backbone)
        at_least("tokens", tokens, 2)
        at_least("rank", rank, 0)
        at_least("queries", queries, 0)
        dim, depth = backbone.dim, backbone.depth
        bound = math.sqrt(6 / (3 * backbone.stride**2 + math.sqrt(dim * (rank or dim))))
        shapes = [(depth, tokens, rank), (depth, rank, dim)] if rank else [(depth, tokens, dim)]
        self.factors = nn.ParameterList(
            nn.Parameter(torch.empty(shape).uniform_(-bound, bound)) for shape in shapes
        )
        self.of_tokens, self.of_features = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.scale = None if zero_init else nn.Parameter(torch.tensor(0.001))
        if zero_init:
            zeroed(self.of_features)
        self.into_queries = nn.Linear(dim, queries) if queries else None
        self.merge_queries = nn.Linear(3 * queries, queries) if queries else None
        self.query_shape = (tokens, queries) if queries else None

    def block(self, i: int, t: Tokens) -> Tokens:
        t = self.backbone.block(i, t)
        return t.with_patches(self.refine(i, t.patches))

    def refine(self, i: int, f: Tensor) -> Tensor:
        """Patches behind block i, (B, N, C), to patches."""
        tokens = self.tokens()[i]
        share = (f @ tokens.t() / math.sqrt(f.shape[2])).softmax(-1)
        # Softmax over all m tokens, then the first is left out: shares that add up to less than 1.
        d = share[:, :, 1:] @ self.of_tokens(tokens[1:])
        update = self.of_features(d + f)
        return f + (update if self.scale is None else self.scale * update)

    def tokens(self) -> Tensor:
        """Return the tokens of all blocks, (L, m, C)."""
        first, *second = self.factors
        return first @ second[0] if second else first

    def finish(self, prefix: Prefix) -> Features:
        return super().finish(prefix)._replace(queries=self.make_queries())

    def make_queries(self) -> Tensor | None:
        """Return a query for each token, (m, Q), the same for every image; None without queries."""
        if self.into_queries is None or self.merge_queries is None:
            return None
        q = self.into_queries(self.tokens())  # (L, m, Q)
        # Channel by channel, the three numbers of one beside each other.
        return self.merge_queries(torch.stack([q.amax(0), q.mean(0), q[-1]], dim=-1).flatten(1))
