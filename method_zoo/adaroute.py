"""AdaRoute, later ParaX. Lou, S. Yu & Y. Yu, ICML 2026, arXiv 2602.06862.

u = x + g LN(x); u <- u + D u; z = A u; y_1 = C_1 z, y_k = C_k (a_k z + b_k y_{k-1}), C_k filters of
3, 5 and 7; m = sum_k w_k y_k, w = softmax(M sum_k y_k) per token; z <- z + m; z <- GELU(z + P z);
o = B z; o <- o + D' o; x <- l o + l' + s x + s'. A, B and every C_k are mixed for each image from
the experts of a center that many blocks share: A = sum_g p_g A_g, p = softmax(Router(mean u)).
Prefix tokens pass.
"""

from torch import nn

from ._adaroute_adapter import DynamicAdapter
from ._adaroute_center import Center
from ._backbone import Backbone
from ._errors import ZooError, at_least, one_of
from ._method import Method
from ._tokens import Tokens

SIZES = (3, 5, 7)
PLACEMENTS = ("block", "attention+mlp")
NARROW = 384


class AdaRoute(Method):
    """bottleneck: channels r; 0 takes the authors' 128, or 32 where the backbone is at most 384
    wide, which else would train 8 % of it. placement: behind every block, or behind the attention
    and behind the MLP, both with the center of their block. centers: how many share the depth.
    experts: of each kind in a center; 0 takes one for every block that shares it. kernels: how many
    of the filter sizes 3, 5, 7; 0 leaves out every filter on the grid. router: its hidden channels;
    0 weighs all experts the same. zero_init: start at the frozen model, l = 0, where the authors
    start at 1."""

    title = "AdaRoute (ParaX)"
    paper = "arXiv 2602.06862"
    fidelity = (
        "the equations of the authors' released ParaX code, whose four printed parameter counts "
        "they give; on a plain ViT the authors classify only: its use for masks, the narrower "
        "bottleneck up to width 384 and any grid are ours"
    )
    identity_at_init = False
    unmergeable = "its weights are mixed anew for every image"
    preset = {"lr": 3e-4}

    def __init__(
        self,
        backbone: Backbone,
        bottleneck: int = 0,
        placement: str = "block",
        centers: int = 1,
        experts: int = 0,
        kernels: int = 3,
        router: int = 16,
        zero_init: bool = False,
    ):
        super().__init__(backbone)
        _check(backbone.depth, bottleneck, placement, centers, experts, kernels, router)
        width = bottleneck or (32 if backbone.dim <= NARROW else 128)
        self.center_of = [i * centers // backbone.depth for i in range(backbone.depth)]
        counts = [experts or self.center_of.count(c) for c in range(centers)]
        self.centers = nn.ModuleList(
            Center(backbone.dim, width, count, SIZES[:kernels]) for count in counts
        )
        start = 0.0 if zero_init else 1.0
        self.after_attention, self.after_mlp = (
            nn.ModuleList(
                DynamicAdapter(backbone.dim, width, counts[c], kernels, router, start)
                for c in self.center_of
                if used
            )
            for used in (placement == "attention+mlp", True)
        )

    def block(self, i: int, t: Tokens) -> Tokens:
        center = self.centers[self.center_of[i]]
        t = t.add(self.backbone.attention(i, t))
        if self.after_attention:
            t = self.after_attention[i](t, center)
        return self.after_mlp[i](t.add(self.backbone.mlp(i, t)), center)


def _check(
    depth: int,
    bottleneck: int,
    placement: str,
    centers: int,
    experts: int,
    kernels: int,
    router: int,
) -> None:
    one_of("placement", placement, PLACEMENTS)
    for option, value in {"bottleneck": bottleneck, "experts": experts, "router": router}.items():
        at_least(option, value, 0)
    if not 1 <= centers <= depth:
        raise ZooError(f"centers is {centers}; a backbone of {depth} blocks takes 1 to {depth}")
    if not 0 <= kernels <= len(SIZES):
        raise ZooError(f"kernels is {kernels}; it must be 0 to {len(SIZES)}, sizes 3, 5, 7")
