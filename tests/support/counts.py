"""Trainable parameters of each method with default options, derived by hand from its equations."""

from collections.abc import Callable
from itertools import pairwise

from method_zoo.backbones.backbone import Backbone


def lpmoe(d: int, h: int, ratio: float = 0.5) -> int:
    """Ten attentions with four points, prior width 64, scale enhancement at a quarter of d."""
    squares = (7.25 + 20 * ratio) * d**2
    return round(squares + (168.5 + 10 * ratio) * d + 158_356 + 216 * h * (d + 1))


def lpmoe_norms() -> int:
    """BatchNorms of the mixture at width 64: at entry, exit and behind every branch convolution."""
    branches = 3 + 3 + 6 + 3  # three kernel sizes; the asymmetric expert has two convolutions each
    return 4 * 2 * (16 + 64) + branches * 2 * 16


def has_norm(b: Backbone) -> bool:
    """Whether a norm follows the last block; SAM has a neck with two norms of 256 instead."""
    return not hasattr(b.vit, "neck")


def qkv_biases(b: Backbone) -> int:
    """Of queries, keys and values; EVA and BEiT have none for keys, DINOv3 has none at all."""
    if b.vit.blocks[0].attn.qkv.bias is None:
        return 0
    return (2 if type(b).__name__ in ("Eva", "Beit") else 3) * b.dim


def gated(b: Backbone) -> bool:
    """Whether the MLP is a SwiGLU, whose first layer gives a gate beside the values."""
    return type(b.vit.blocks[0].mlp).__name__ in ("SwiGLU", "GluMlp")


def inner(b: Backbone) -> int:
    """Channels that the second layer of the MLP reads: 4 d, of EVA-02 8/3 d."""
    return b.dim * 8 // 3 if gated(b) else 4 * b.dim


def first(b: Backbone) -> int:
    """Channels that the first layer of the MLP gives."""
    return inner(b) * (1 + gated(b))


def inner_norm(b: Backbone) -> int:
    """Channels of the norm within the MLP, which EVA-02 has from its base size on."""
    return inner(b) if type(b.vit.blocks[0].mlp).__name__ == "SwiGLU" else 0


def places(b: Backbone, i: int) -> int:
    """Tables of relative positions: SAM's two, as wide as a head; BEiT's, a number a head."""
    if type(b).__name__ == "Beit":
        height, width = b.vit.patch_embed.grid_size
        return b.heads * ((2 * height - 1) * (2 * width - 1) + 3)
    if has_norm(b):
        return 0
    side = b.vit.blocks[i].window_size or b.vit.patch_embed.grid_size[0]
    return 2 * (2 * side - 1) * b.dim // b.heads


def block(b: Backbone, i: int) -> int:
    """Block i: qkv and proj, the MLP, two norms and one within, LayerScale where there is one."""
    names = {name for name, _ in b.vit.blocks[i].named_parameters()}
    scaled = bool(names & {"ls1.gamma", "gamma_1"})
    attention = 4 * b.dim**2 + qkv_biases(b) + b.dim
    mlp = (b.dim + 1) * first(b) + inner(b) * b.dim + b.dim + 2 * inner_norm(b)
    return attention + mlp + 4 * b.dim + 2 * b.dim * scaled + places(b, i)


def fact(b: Backbone, r: int) -> int:
    """Two factors; cores for the pieces of width d: 3 of qkv, 1 of proj, a last one may be cut."""
    cores = 3 + 1 + -(-first(b) // b.dim) + -(-inner(b) // b.dim)
    return 2 * b.dim * r + b.depth * cores * r**2


def bitfit(b: Backbone) -> int:
    """Of qkv, proj, both layers of the MLP, the norms; of patch embedding and final norms."""
    inside = qkv_biases(b) + b.dim + first(b) + b.dim + 2 * b.dim + inner_norm(b)
    return b.depth * inside + b.dim + (b.dim if has_norm(b) else 2 * 256)


def ssf(b: Backbone) -> int:
    """Scale and shift of norms, qkv, proj, fc1, fc2; of patch embedding and final norm."""
    return (
        b.depth * 2 * (2 * b.dim + 3 * b.dim + b.dim + first(b) + b.dim) + 2 * b.dim + last_norm(b)
    )


def last_norm(b: Backbone) -> int:
    return 2 * b.dim * has_norm(b)


def bottleneck(d: int, m: int) -> int:
    """Down and up with their biases."""
    return 2 * d * m + m + d


def adaroute_module(d: int, r: int, g: int, h: int = 16, sizes: int = 3) -> int:
    """Norm and gain 3 d, two filters of 3 x 3 with bias 20 d, two scales and two shifts 4 d.

    Router, mixture over sizes, the scalars of the cascade, the inner layer.
    """
    router = d * h + h + (h + 1) * g * (2 + sizes) if g > 1 else 0  # one expert needs none
    return 27 * d + router + r * sizes + sizes + 2 * (sizes - 1) + r**2 + r


def adaroute_center(d: int, r: int, g: int) -> int:
    """Of each expert a way down, a way up, filters of 3, 5 and 7."""
    return g * (2 * r * d + r * (9 + 25 + 49))


def adaroute(b: Backbone) -> int:
    r = 32 if b.dim <= 384 else 128
    return b.depth * adaroute_module(b.dim, r, b.depth) + adaroute_center(b.dim, r, b.depth)


def conv_lora(b: Backbone, r: int, e: int) -> int:
    """LoRA; two gate matrices and a 3 x 3 convolution an expert."""
    return b.depth * (4 * b.dim * r + 2 * r * e + e * (9 * r**2 + r))


def lst(b: Backbone, r: int) -> int:
    """Side blocks with gates, one way down more than blocks, the way up, a norm."""
    d, k = b.dim, b.dim // r
    side = b.depth * (12 * k**2 + 13 * k + 1)
    return side + (b.depth + 1) * (d * k + k) + (k * d + d) + 2 * k


def mona(d: int, m: int) -> int:
    """A bottleneck, a norm and two gains, filters of 3, 5 and 7, a projection."""
    return bottleneck(d, m) + 4 * d + m * (9 + 25 + 49 + 3) + m**2 + m


def sam_adapter(b: Backbone, scale: int) -> int:
    """From the embedding, from 16 x 16 pixels, a layer a block, the shared way up."""
    d, k = b.dim, b.dim // scale
    return (d + 1) * k + (3 * 256 + 1) * k + b.depth * (k**2 + k) + (k + 1) * d


def sigma(d: int, r: int, static: bool = False, film: bool = True) -> int:
    """Norm, down, three filters with bias, norm of the fused map, up; weights of scales; FiLM."""
    weights = 0 if static else 3 * r + 3
    m = r // 4 if film else 0
    modulation = r * m + m + 2 * r * m + 2 * r if film else 0
    plain = 2 * d + (d * r + r) + (9 + 25 + 49 + 3) * r + 2 * r + (r * d + d)
    return plain + weights + modulation


def vfm_adapter(d: int, depth: int, m: int = 32, inner: int = 8, queries: int = 8) -> int:
    """A bottleneck and a meta-net beside each branch; two hypernetworks, one table of queries."""
    meta = (d * 64 + 64) + (64 * 64 + 64)
    hyper = 64 * m * inner + m * inner + inner * 9 * m + 9 * m
    return depth * 2 * (bottleneck(d, m) + meta) + 2 * hyper + queries * 64


def lorand(d: int, a: int = 4, k: int = 8, f: int = 2, kernels: int = 2) -> int:
    """Two thin factors each way, a times; square kernels; two biases."""
    n = d // f
    return 2 * a * k * (d + n) + kernels * a * k**2 + d + n


def colin(d: int, n: int = 100, k: int = 28) -> int:
    """Two factors each way, four vectors, two biases, a filter with bias and a share a channel."""
    return 2 * k * (d + n) + 4 * k + n + d + 10 * n + n


def earth_adapter(b: Backbone, d: int = 32, mixing: int = 3) -> int:
    """An expert a block; two more with a router where they are mixed; a scale a block."""
    expert = bottleneck(b.dim, d)
    return b.depth * (expert + 1) + mixing * (2 * expert + 3 * b.dim + 3)


def rein(b: Backbone, m: int = 100, r: int = 16, q: int = 0) -> int:
    """Tokens in two factors, two layers that all blocks share, a scale; two layers to queries."""
    d = b.dim
    tokens = b.depth * (r * (m + d) if r else m * d)
    return tokens + 2 * (d**2 + d) + 1 + (d * q + q + 3 * q**2 + q if q else 0)


def snell(b: Backbone, r: int = 32, scalars: int = 0) -> int:
    """r numbers for each input and output: of q, k and v apart, of proj, of both MLP layers."""
    layers = [(b.dim, b.dim)] * 4 + [(b.dim, first(b)), (inner(b), b.dim)]
    return b.depth * sum(r * (p + q) + scalars for p, q in layers)


def deformable(b: Backbone, levels: int) -> int:
    """Offsets, weights, values and the way out of a deformable attention of four points."""
    small = b.dim <= 384
    d, h, inner = b.dim, (6 if small else b.heads), (b.dim if small else b.dim // 2)
    return 3 * h * levels * 4 * (d + 1) + (d + 1) * inner + (inner + 1) * d


def grid_feed_forward(d: int) -> int:
    """Linear to a quarter, a filter with bias, linear; the norm before it."""
    return 2 * d + d * d // 4 + d // 4 + 10 * d // 4 + d * d // 4 + d


def prior_and_pyramid(d: int, c: int = 64) -> int:
    """Stem and ways down with norms, four projections; levels; the way up and four norms."""
    convolutions = [(3, c), (c, c), (c, c), (c, 2 * c), (2 * c, 4 * c), (4 * c, 4 * c)]
    stem = sum(9 * a * b + 2 * b for a, b in convolutions)
    return stem + 11 * c * d + 4 * d + 3 * d + (4 * d**2 + d) + 8 * d


def vit_adapter(b: Backbone) -> int:
    """Four injectors with two norms and gamma, six extractors with two norms and a layer."""
    injector = deformable(b, 3) + 5 * b.dim
    extractor = deformable(b, 1) + 4 * b.dim + grid_feed_forward(b.dim)
    return prior_and_pyramid(b.dim) + 4 * injector + 6 * extractor


def vit_comer(b: Backbone, hidden: int) -> int:
    """Four mixtures, four ways into the ViT, eight back of which four have one more layer."""
    d, feed = b.dim, grid_feed_forward(b.dim)
    mixture = 2 * d * hidden + hidden + d + 3 * (hidden // 2) * (10 + 26) + 3 * 2 * hidden
    into_vit = deformable(b, 3) + 5 * d + feed
    back = deformable(b, 3) + 8 * d + feed
    return prior_and_pyramid(d) + 4 * (mixture + into_vit) + 8 * back + 4 * feed


def vit_split(b: Backbone, k: int = 4, t: int = 3) -> int:
    """Copies of the last blocks; two heads: 1 x 1, offsets of nine taps, 3 x 3 without bias."""
    convolution = 9 * b.dim * 18 + 18 + 9 * b.dim**2
    heads = (k + 2) * b.dim**2 + 2 * b.dim + 2 * convolution
    return sum(block(b, b.depth - 1 - j) for j in range(t)) + heads


COUNTS: dict[str, Callable[[Backbone], int]] = {
    "adaroute": adaroute,
    "adapter": lambda b: b.depth * 2 * bottleneck(b.dim, 2),
    "adaptformer": lambda b: b.depth * bottleneck(b.dim, 64),
    "bitfit": bitfit,
    "colin": lambda b: b.depth * 2 * colin(b.dim),
    "conv_lora": lambda b: conv_lora(b, 3, 8),
    "convpass": lambda b: b.depth * 2 * (bottleneck(b.dim, 8) + 9 * 8**2 + 8),
    "decoder_only": lambda b: 0,
    "dora": lambda b: b.depth * (8 * (b.dim + 3 * b.dim) + 3 * b.dim),
    "earth_adapter": earth_adapter,
    "fact": lambda b: fact(b, 16),
    "full": lambda b: sum(p.numel() for p in b.parameters()),
    "late_lora": lambda b: b.depth // 2 * 8 * (b.dim + 3 * b.dim),
    "linear_probe": lambda b: 0,
    "ln_tune": lambda b: (
        b.depth * (4 * b.dim + 2 * inner_norm(b)) + (2 * b.dim if has_norm(b) else 4 * 256)
    ),
    "lora": lambda b: b.depth * 8 * (b.dim + 3 * b.dim),
    "lorand": lambda b: b.depth * 2 * lorand(b.dim),
    "lpmoe": lambda b: lpmoe(b.dim, b.heads),
    "lst": lambda b: lst(b, 8),
    "mona": lambda b: b.depth * 2 * mona(b.dim, 64),
    "partial": lambda b: block(b, -1) + last_norm(b),
    "rein": rein,
    "rep_adapter": lambda b: b.depth * 2 * (b.dim * 8 + 8 + b.dim * 8 // 2 + b.dim),
    "sam_adapter": lambda b: sam_adapter(b, 16),
    "scratch": lambda b: sum(p.numel() for p in b.parameters()),
    "sigma": lambda b: b.depth * sigma(b.dim, max(8, b.dim * 3 // 32 // 8 * 8)),
    "snell": snell,
    "ssf": ssf,
    "vera": lambda b: b.depth * (256 + 3 * b.dim),
    "vfm_adapter": lambda b: vfm_adapter(b.dim, b.depth),
    "vit_adapter": vit_adapter,
    "vit_comer": lambda b: vit_comer(b, 6 * b.dim),
    "vit_split": vit_split,
    "vpt": lambda b: b.depth * 12 * b.dim,
}

# On hierarchical backbones, where the width d is that of a block: of the methods that go there.


def merged(b: Backbone) -> list[tuple[int, int]]:
    """Widths before and behind each merge."""
    ends = [b.dims[group[-1]] for group in b.groups]
    return list(pairwise(ends))


def outer_biases(b: Backbone) -> int:
    """Of the patches and their norm, of the norms in merges of four places, of the last norm."""
    return 2 * b.dims[0] + sum(4 * d for d, _ in merged(b)) + b.dims[-1]


def swin_block(b: Backbone, i: int) -> int:
    """Block i: qkv, proj, the MLP, two norms, a table of pairs of places."""
    d, attn = b.dims[i], b.vit.blocks[i].attn
    return 12 * d**2 + 13 * d + (2 * attn.window_size[0] - 1) ** 2 * attn.num_heads


def adaroute_in_stages(b: Backbone, r: int, each: int) -> int:
    """A center and a norm a stage; `each` modules a block."""
    total = 0
    for group in b.groups:
        d, g = b.dims[group[-1]], len(group)
        total += each * g * adaroute_module(d, r, g) + adaroute_center(d, r, g) + 2 * d
    return total


ANY: dict[str, Callable[[Backbone], int]] = {
    "decoder_only": lambda b: 0,
    "full": lambda b: sum(p.numel() for p in b.parameters()),
    "linear_probe": lambda b: 0,
    "scratch": lambda b: sum(p.numel() for p in b.parameters()),
}
SWIN: dict[str, Callable[[Backbone], int]] = ANY | {
    "adaroute": lambda b: adaroute_in_stages(b, 32, 2),
    "bitfit": lambda b: 11 * sum(b.dims) + outer_biases(b),
    "colin": lambda b: sum(2 * colin(d, k=min(28, d)) for d in b.dims),
    "conv_lora": lambda b: sum(4 * d * 3 + 2 * 3 * 8 + 8 * (9 * 3**2 + 3) for d in b.dims),
    "dora": lambda b: sum(8 * 4 * d + 3 * d for d in b.dims),
    "late_lora": lambda b: sum(8 * 4 * d for d in b.dims[b.depth // 2 :]),
    "ln_tune": lambda b: 4 * sum(b.dims) + 2 * (outer_biases(b) - b.dims[0]),
    "lora": lambda b: sum(8 * 4 * d for d in b.dims),
    "lorand": lambda b: sum(2 * lorand(d) for d in b.dims),
    "partial": lambda b: swin_block(b, b.depth - 1) + 2 * b.dims[-1],
    "rep_adapter": lambda b: sum(2 * (8 * d + 8 + 4 * d + d) for d in b.dims),
    "snell": lambda b: sum(32 * 18 * d for d in b.dims),
    "ssf": lambda b: (
        22 * sum(b.dims) + 4 * b.dims[0] + sum(2 * (4 * d + e) for d, e in merged(b))
        + 2 * b.dims[-1]
    ),
}  # fmt: skip


def swin_v2_block(b: Backbone, i: int) -> int:
    """As of Swin without biases of keys; a scale a head, a network from offsets to heads."""
    d, h = b.dims[i], b.vit.blocks[i].attn.num_heads
    return 12 * d**2 + 12 * d + h + 3 * 512 + 512 * h


SWIN_V2 = SWIN | {
    # The network of places has a bias too; norms of merges stand behind their layer.
    "bitfit": lambda b: (
        10 * sum(b.dims) + 512 * b.depth + 2 * b.dims[0] + sum(e for _, e in merged(b)) + b.dims[-1]
    ),
    "ln_tune": lambda b: (
        4 * sum(b.dims) + 2 * (b.dims[0] + sum(e for _, e in merged(b)) + b.dims[-1])
    ),
    "partial": lambda b: swin_v2_block(b, b.depth - 1) + 2 * b.dims[-1],
    "ssf": lambda b: (
        22 * sum(b.dims) + 4 * b.dims[0] + sum(4 * e for _, e in merged(b)) + 2 * b.dims[-1]
    ),
}


def colora(b: Backbone, reduction: int = 16) -> int:
    """Two convolutions, four factors of an own rank and two that are shared; every bias; weights of
    the norms of blocks and outputs, of which three are new."""
    total = 0
    for d in b.dims:
        r = max(1, d // reduction)
        s = r // 2
        total += d * r + 9 * d + 10 * d * (r - s) + 2 * d * s + 8 * d
    outputs = [b.dims[group[-1]] for group in b.groups]
    return total + 2 * b.dims[0] + sum(d + e for d, e in merged(b)) + 2 * sum(outputs)


def convnext(response: bool) -> dict[str, Callable[[Backbone], int]]:
    """Blocks of a 7 x 7 convolution, a norm, an MLP and a scale, or in its place v2's norm of the
    response, whose scale and shift are as wide as the MLP."""
    extra = 4 * response
    return ANY | {
        "adaroute": lambda b: adaroute_in_stages(b, 32, 1),
        "colora": colora,
        "bitfit": lambda b: (
            (7 + extra) * sum(b.dims) + 2 * b.dims[0] + sum(d + e for d, e in merged(b))
            + b.dims[-1]
        ),
        "ln_tune": lambda b: 2 * (
            sum(b.dims) + b.dims[0] + sum(d for d, _ in merged(b)) + b.dims[-1]
        ),
        "partial": lambda b: (
            8 * b.dims[-1] ** 2 + (57 + (2 * extra or 1)) * b.dims[-1] + 2 * b.dims[-1]
        ),
        "rep_adapter": lambda b: sum(8 * d + 8 + 4 * d + d for d in b.dims),
        "snell": lambda b: sum(32 * 10 * d for d in b.dims),
        "ssf": lambda b: (
            14 * sum(b.dims) + 4 * b.dims[0] + sum(2 * d + 2 * e for d, e in merged(b))
            + 2 * b.dims[-1]
        ),
    }  # fmt: skip


def around(b: Backbone) -> list[tuple[int, int]]:
    """Widths that enter and leave each block of Hiera."""
    return list(zip([b.dims[0], *b.dims[:-1]], b.dims, strict=True))


def sam2_adapter(b: Backbone, scale: int = 32) -> int:
    """Of each width that enters blocks: a convolution and its norm, from the embedding, a layer a
    block, the shared way up."""
    entering = [c for c, _ in around(b)]
    total, inner = 0, 3
    for d in sorted(set(entering)):
        k = max(2, d // scale)
        convolution = (49 if inner == 3 else 9) * inner * k + 3 * k
        total += convolution + (d + 1) * k + entering.count(d) * (k**2 + k) + (k + 1) * d
        inner = k
    return total


def hiera_block(c: int, d: int) -> int:
    """Of widths c and d: qkv, proj, MLP, two norms; a layer of the shortcut where it widens."""
    inside = 3 * d * (c + 1) + d**2 + d + 8 * d**2 + 5 * d + 2 * c + 2 * d
    return inside + (c * d + d) * (c < d)


HIERA = ANY | {
    "colin": lambda b: sum(2 * colin(d, k=min(28, d)) for d in b.dims),
    "lorand": lambda b: sum(2 * lorand(d) for d in b.dims),
    "sam2_adapter": sam2_adapter,
    "snell": lambda b: sum(32 * (3 * (c + d) + 12 * d) for c, d in around(b)),
    "adaroute": lambda b: adaroute_in_stages(b, 32, 2),
    # A block that widens has one more layer, of its shortcut.
    "bitfit": lambda b: b.dims[0] + sum(c + 10 * d + d * (c < d) for c, d in around(b)),
    "conv_lora": lambda b: sum(
        (c + 3 * d) * 3 + 2 * 3 * 8 + 8 * (9 * 3**2 + 3) for c, d in around(b)
    ),
    "dora": lambda b: sum(8 * (c + 3 * d) + 3 * d for c, d in around(b)),
    "late_lora": lambda b: sum(8 * (c + 3 * d) for c, d in around(b)[b.depth // 2 :]),
    "ln_tune": lambda b: sum(2 * c + 2 * d for c, d in around(b)),
    "lora": lambda b: sum(8 * (c + 3 * d) for c, d in around(b)),
    "partial": lambda b: hiera_block(*around(b)[-1]),
    "rep_adapter": lambda b: sum(13 * (c + d) + 16 for c, d in around(b)),
    "ssf": lambda b: 2 * b.dims[0] + sum(2 * c + 20 * d for c, d in around(b)),
}
IN_STAGES = {
    "swin": SWIN,
    "swin_v2": SWIN_V2,
    "convnext": convnext(False),
    "convnext_v2": convnext(True),
    "hiera": HIERA,
}

# The same for options that are not the default: method, options, formula.
Variant = tuple[str, dict[str, object], Callable[[Backbone], int]]
VARIANTS: list[Variant] = [
    ("adaroute", {"placement": "attention+mlp", "centers": 2, "bottleneck": 8},
     lambda b: 2 * b.depth * adaroute_module(b.dim, 8, b.depth // 2)
     + 2 * adaroute_center(b.dim, 8, b.depth // 2)),
    # Without scale and shift of what the update is added to, 2 d a module.
    ("adaroute", {"residual_scale": False, "start": 1e-5, "bottleneck": 8},
     lambda b: b.depth * (adaroute_module(b.dim, 8, b.depth) - 2 * b.dim)
     + adaroute_center(b.dim, 8, b.depth)),
    # Without filters: neither the two static ones, 20 d, nor a mixture over sizes.
    ("adaroute", {"kernels": 0, "bottleneck": 8},
     lambda b: b.depth * (7 * b.dim + (b.dim + 1) * 16 + 17 * b.depth * 2 + 8 * 9 + 16 * b.dim)),
    # One size, three experts, no router: a single filter, nothing to mix.
    ("adaroute", {"kernels": 1, "experts": 3, "router": 0, "bottleneck": 8, "zero_init": True},
     lambda b: b.depth * (27 * b.dim + 8 * 9) + 3 * (16 * b.dim + 8 * 9)),
    ("colin", {"bottleneck": 9, "kernel": 5}, lambda b: b.depth * 2 * colin(b.dim, 9, 5)),
    ("conv_lora", {"gate_gradient": "straight_through"}, lambda b: conv_lora(b, 3, 8)),
    ("conv_lora", {"rank": 2, "experts": 1}, lambda b: conv_lora(b, 2, 1)),
    ("earth_adapter", {"at": "first", "cutoff": 0.6, "bottleneck": 4},
     lambda b: earth_adapter(b, 4)),
    ("late_lora", {"blocks": 4, "rank": 1}, lambda b: b.depth * 4 * b.dim),
    ("lorand", {"shared_kernel": True, "branches": 2, "kernel": 3, "factor": 4},
     lambda b: b.depth * 2 * lorand(b.dim, 2, 3, 4, kernels=1)),
    ("mona", {"zero_init_up": True, "bottleneck": 5}, lambda b: b.depth * 2 * mona(b.dim, 5)),
    ("partial", {"blocks": 3}, lambda b: 3 * block(b, -1) + last_norm(b)),
    ("rein", {"rank": 0, "tokens": 7}, lambda b: rein(b, 7, 0)),
    ("rein", {"queries": 32, "zero_init": True}, lambda b: rein(b, q=32) - 1),
    ("rep_adapter", {"groups": 4}, lambda b: b.depth * 2 * (b.dim * 10 + 8 + b.dim)),
    ("sam_adapter", {"layout": "grid", "scale": 8}, lambda b: sam_adapter(b, 8)),
    ("sigma", {"scale_weights": "token", "placement": "attention+mlp", "bottleneck": 4},
     lambda b: 2 * b.depth * sigma(b.dim, 4)),
    ("sigma", {"scale_weights": "static", "modulation": "none"},
     lambda b: b.depth * sigma(b.dim, 8, static=True, film=False)),
    ("snell", {"quantile": 0.0, "rank": 2}, lambda b: snell(b, 2)),
    ("snell", {"sparsifier": "soft", "snella": True, "rank": 4}, lambda b: snell(b, 4, 3)),
    ("ssf", {"exact_init": True}, lambda b: (b.depth * 22 + 4) * b.dim),
    ("lora", {"rank": 2, "alpha": 4.0}, lambda b: b.depth * 2 * (b.dim + 3 * b.dim)),
    ("lora", {"rank": 2, "targets": "qv"}, lambda b: b.depth * 2 * 2 * (b.dim + b.dim)),
    ("vfm_adapter", {"bottleneck": 4, "queries": 3, "pool": "mean"},
     lambda b: vfm_adapter(b.dim, b.depth, 4, queries=3)),
    ("vfm_adapter", {"bottleneck": 4, "inner": 2, "queries": 0},
     lambda b: vfm_adapter(b.dim, b.depth, 4, inner=2, queries=0)),
    ("vit_adapter", {"gamma": 1e-6, "heads": 6, "ratio": 1.0}, vit_adapter),
    ("vit_comer", {"hidden": 0.5}, lambda b: vit_comer(b, b.dim // 2)),
    ("vit_split", {"taps": 2, "copies": 4, "start": 0}, lambda b: vit_split(b, 2, 4)),
    ("vpt", {"deep": False}, lambda b: 12 * b.dim),
    ("vpt", {"prompts": 3}, lambda b: b.depth * 3 * b.dim),
    # Each of the four experts has norms of 16 channels, one of 64 at its end; three more of each.
    ("lpmoe", {"cosine": "mean", "renormalise": True, "norm": "per_scale", "ratio": 0.25,
               "heads": 2},
     lambda b: lpmoe(b.dim, 2, 0.25) + 3 * lpmoe_norms()),
]  # fmt: skip
