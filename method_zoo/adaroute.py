"""AdaRoute, later ParaX. Lou, S. Yu & Y. Yu, ICML 2026, arXiv 2602.06862.

u = x + g LN(x); u <- u + D u; z = A u; y_1 = C_1 z, y_k = C_k (a_k z + b_k y_{k-1}), C_k filters of
3, 5 and 7; m = sum_k w_k y_k, w = softmax(M sum_k y_k) per token; z <- z + m; z <- GELU(z + P z);
o = B z; o <- o + D' o; x <- l o + l' + s x + s'. A, B and every C_k are mixed for each image from
the experts of a center that many blocks share: A = sum_g p_g A_g, p = softmax(Router(mean u)).
Prefix tokens pass.
"""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Features, Method, Prefix, Tokens, ZooError, at_least, one_of
from .parts.layers import add_filtered, convolve_each, scaled_norm

SIZES = (3, 5, 7)
PLACEMENTS = ("block", "attention+mlp")
IN_STAGES = ("authors", "placement")
NARROW = 384


class AdaRoute(Method):
    """bottleneck: channels r; 0 takes the authors' 128, or 32 where the backbone is at most 384
    wide, which else would train 8 % of it. placement: behind every block, or behind the attention
    and behind the MLP, both with the center of their block. centers: how many share the depth, or
    each stage of a hierarchical backbone. in_stages: on such a backbone "authors" places the
    modules as their code does, whatever placement says: behind the attention and behind the MLP,
    or behind a block that has no attention; "placement" goes by placement there too.
    experts: of each kind in a center; 0 takes one for every block that shares it. kernels: how many
    of the filter sizes 3, 5, 7; 0 leaves out every filter on the grid. router: its hidden channels;
    0 weighs all experts the same. zero_init: start at the frozen model, l = 0, where the authors
    start at 1. start: l itself; one of the authors' four detection configurations (Swin-B, Mask
    R-CNN) has 1e-5. residual_scale: whether what the update is added to has a scale s and a shift
    s', which that configuration leaves out too."""

    title = "AdaRoute (ParaX)"
    paper = "arXiv 2602.06862"
    fidelity = (
        "the equations of the authors' released ParaX code, whose four printed parameter counts "
        "they give, and to 1e-5 their tensors on a Swin, with a trained norm behind each stage; on "
        "a plain ViT the authors classify only: its use for masks, the narrower bottleneck up to "
        "width 384 and any grid are ours; without the stochastic depth of their backbones"
    )
    identity_at_init = False
    unmergeable = "its weights are mixed anew for every image"
    preset = {"lr": 3e-4}
    later_options = {"start": 1.0, "residual_scale": True, "in_stages": "authors"}

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
        start: float = 1.0,
        residual_scale: bool = True,
        in_stages: str = "authors",
    ):
        super().__init__(backbone)
        one_of("placement", placement, PLACEMENTS)
        one_of("in_stages", in_stages, IN_STAGES)
        sizes = {"bottleneck": bottleneck, "experts": experts, "router": router}
        for option, value in sizes.items():
            at_least(option, value, 0)
        staged = len(backbone.widths) > 1
        # Who shares centers: all blocks, or those of a stage, which have one width.
        sharing = backbone.groups if staged else [range(backbone.depth)]
        most = min(map(len, sharing))
        if not 1 <= centers <= most:
            raise ZooError(
                f"centers is {centers}; a {'stage' if staged else 'backbone'} of {most} blocks "
                f"takes 1 to {most}"
            )
        if staged and in_stages == "authors":
            placement = "attention+mlp" if backbone.has_attention else "block"
        if placement == "attention+mlp" and not backbone.has_attention:
            raise ZooError(
                f"placement is '{placement}', and this backbone has no attention; choose block"
            )
        if not 0 <= kernels <= len(SIZES):
            raise ZooError(f"kernels is {kernels}; it must be 0 to {len(SIZES)}, sizes 3, 5, 7")
        if zero_init and start != 1:
            raise ZooError(
                f"zero_init is true, which starts at 0, and start is {start:g}; give one of them"
            )
        width = bottleneck or (32 if backbone.widths[-1] <= NARROW else 128)
        # Block k of n in a stage takes center k * centers // n: runs of blocks as equal as can be.
        self.center_of = [
            s * centers + k * centers // len(blocks)
            for s, blocks in enumerate(sharing)
            for k in range(len(blocks))
        ]
        counts = [experts or self.center_of.count(c) for c in range(centers * len(sharing))]
        self.centers = nn.ModuleList(
            Center(backbone.dims[self.center_of.index(c)], width, count, SIZES[:kernels])
            for c, count in enumerate(counts)
        )
        start = 0.0 if zero_init else start
        self.after_attention, self.after_mlp = (
            nn.ModuleList(
                DynamicAdapter(dim, width, counts[c], kernels, router, start, residual_scale)
                for dim, c in zip(backbone.dims, self.center_of, strict=True)
                if used
            )
            for used in (placement == "attention+mlp", True)
        )
        # Behind each stage, where the backbone's own norm is for the last alone.
        eps = next(m.eps for m in backbone.vit.modules() if isinstance(m, nn.LayerNorm))
        norms = [nn.LayerNorm(dim, eps) for dim in self.channels] if staged else []
        self.stage_norms = nn.ModuleList(norms)

    def block(self, i: int, t: Tokens) -> Tokens:
        center, backbone = self.centers[self.center_of[i]], self.backbone
        if not self.after_attention:
            return self.after_mlp[i](backbone.block(i, t), center)
        t = backbone.shortcut(i, t).add(backbone.attention(i, t))
        t = self.after_attention[i](t, center)
        return self.after_mlp[i](t.add(backbone.mlp(i, t)), center)

    def finish(self, prefix: Prefix) -> Features:
        if not self.stage_norms:
            return super().finish(prefix)
        rest = range(self.frozen_blocks, self.backbone.depth)
        tokens, taps = self._walk(prefix, rest)
        # The next stage reads the tokens without this norm.
        maps = [
            t._replace(x=norm(t.x)).map() for t, norm in zip(taps, self.stage_norms, strict=True)
        ]
        return Features(maps, maps[-1], tokens.aux)


# The expert center of AdaRoute and its router: weights mixed anew for every image.


class Center(nn.Module):
    """Experts that several modules share: G ways down, G ways up, G filters of each size.

    The modules are handed their center; none of them owns it, so that it is one object, counted
    and saved once.
    """

    def __init__(self, dim: int, width: int, experts: int, sizes: tuple[int, ...]):
        super().__init__()
        shapes = [(width, dim), (dim, width), *((width, 1, k, k) for k in sizes)]
        self.experts = nn.ParameterList(
            nn.init.trunc_normal_(nn.Parameter(torch.empty(experts, *shape)), std=0.02)
            for shape in shapes
        )

    def forward(self, gates: Tensor) -> list[Tensor]:
        """Shares of the experts, (2 + K, B, G), to the weights of each image.

        Down (B, r, C), up (B, C, r), then a filter (B, r, 1, k, k) for each of the K sizes.
        """
        return [
            # (B, G) @ (G, all numbers of an expert): the
            # weights of each image are a mean of the experts.
            (gate @ expert.flatten(1)).unflatten(1, expert.shape[1:])
            for gate, expert in zip(gates, self.experts, strict=True)
        ]


class Router(nn.Module):
    """Says for each image how much every expert of every kind counts: a dense softmax a kind."""

    def __init__(self, dim: int, hidden: int, kinds: int, experts: int):
        super().__init__()
        self.down, self.out = nn.Linear(dim, hidden), nn.Linear(hidden, kinds * experts)
        self.shape = (kinds, experts)
        for layer in (self.down, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, u: Tensor) -> Tensor:
        """Tokens, (B, N, C), to shares, (kinds, B, G)."""
        logits = self.out(F.gelu(self.down(u.mean(1))))
        return logits.unflatten(1, self.shape).softmax(-1).transpose(0, 1)


class Uniform(nn.Module):
    """In place of the router, every expert counts the same for every image."""

    def __init__(self, kinds: int, experts: int):
        super().__init__()
        self.kinds, self.experts = kinds, experts

    def forward(self, u: Tensor) -> Tensor:
        return u.new_full((self.kinds, u.shape[0], self.experts), 1 / self.experts)


# The module of AdaRoute: a bottleneck and a cascade of filters whose weights a router mixes.


class DynamicAdapter(nn.Module):
    """What belongs to one place in the network; the center's experts are handed in."""

    def __init__(
        self,
        dim: int,
        width: int,
        experts: int,
        sizes: int,
        router: int,
        start: float,
        residual_scale: bool = True,
    ):
        super().__init__()
        self.norm, self.gain = nn.LayerNorm(dim), nn.Parameter(torch.full((dim,), 1e-5))
        kinds = 2 + sizes
        # Over a single expert a softmax is always one, and so is one over a single filter size.
        routed = router > 0 and experts > 1
        self.gates = Router(dim, router, kinds, experts) if routed else Uniform(kinds, experts)
        self.before, self.after = (_filter(dim) if sizes else None for _ in range(2))
        self.mix = nn.Linear(width, sizes) if sizes > 1 else None
        later = max(sizes - 1, 0)  # filters that read the result of the one before
        self.keep, self.carry = (
            nn.ParameterList(torch.ones(()) for _ in range(later)) for _ in "ab"
        )
        self.inner = nn.Linear(width, width)
        # x <- l o + l' + s x + s': scale and shift of the update, then of what it is added to.
        self.scale = nn.Parameter(torch.full((dim,), start))
        self.shift = nn.Parameter(torch.zeros(dim))
        self.skip_scale, self.skip_shift = (
            nn.Parameter(torch.full((dim,), value)) if residual_scale else None
            for value in (1.0, 0.0)
        )
        for layer in (self.mix, self.inner):
            if layer is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, t: Tokens, center: Center) -> Tokens:
        """Tokens of any prefix and grid, to tokens; the prefix stays as it is."""
        x = t.patches
        u = x + scaled_norm(self.norm, x, self.gain)
        if self.before is not None:
            weight, bias = (self.before.get_parameter(name) for name in ("weight", "bias"))
            u = add_filtered(u.mT.unflatten(2, t.grid), weight, bias).flatten(2).mT
        # A, B and the C_k of each image: p_g from the mean of u, then the sum over the experts.
        down, up, *filters = center(self.gates(u))
        z = u @ down.mT  # (B, N, r)
        # Without filters the authors' code adds z to itself, which is kept.
        z = z + (self._cascade(z, t.grid, filters) if filters else z)
        z = F.gelu(z + self.inner(z))
        return t.with_patches(self._leave(z @ up.mT, x, t.grid))

    def _leave(self, o: Tensor, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return l (o + D' o) + l' + s x + s' with all that is constant in the filter."""
        shift = self.shift if self.skip_shift is None else self.shift + self.skip_shift
        if self.after is None:
            o = torch.addcmul(shift, self.scale, o)
        else:
            weight, bias = (self.after.get_parameter(name) for name in ("weight", "bias"))
            # l (o + D' o) + l' = l o + (l D') o + (l b + l'): the kernel takes up scale and shift.
            kernel, bias = self.scale[:, None, None, None] * weight, self.scale * bias + shift
            o = add_filtered(o.mT.unflatten(2, grid), kernel, bias, self.scale).flatten(2).mT
        return o + x if self.skip_scale is None else torch.addcmul(o, self.skip_scale, x)

    def _cascade(self, z: Tensor, grid: tuple[int, int], filters: list[Tensor]) -> Tensor:
        """Filter tokens, (B, N, r), on their grid at growing sizes and mix the results."""
        # Place by place in memory, then image by image: no filter has to bring it into that order.
        z = z.transpose(0, 1).contiguous().transpose(0, 1)
        found = [_each_filtered(z, grid, filters[0])]
        for a, b, kernel in zip(self.keep, self.carry, filters[1:], strict=True):
            found.append(_each_filtered(a * z + b * found[-1], grid, kernel))
        if self.mix is None:
            return found[0]
        # w_k = softmax(M sum_k y_k) says for each token how much each filter size counts.
        shares = self.mix(reduce(torch.add, found)).softmax(-1).unbind(-1)  # K times (B, N)
        return reduce(torch.add, (w[..., None] * y for w, y in zip(shares, found, strict=True)))


def _filter(dim: int) -> nn.Conv2d:
    conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
    nn.init.zeros_(conv.get_parameter("bias"))
    return conv


def _each_filtered(x: Tensor, grid: tuple[int, int], kernels: Tensor) -> Tensor:
    """Filter the tokens, (B, N, C), of each image with kernels of its own, (B, C, 1, k, k)."""
    return convolve_each(x.mT.unflatten(2, grid), kernels).flatten(2).mT
