"""Trainable parameters of each method with default options, derived by hand from its equations."""

from collections.abc import Callable

from method_zoo._backbone import Backbone


def lpmoe(d: int, h: int, ratio: float = 0.5) -> int:
    """Ten attentions with four points, prior width 64, scale enhancement at a quarter of d."""
    squares = (7.25 + 20 * ratio) * d**2
    return round(squares + (168.5 + 10 * ratio) * d + 158_356 + 216 * h * (d + 1))


def lpmoe_norms() -> int:
    """BatchNorms of the mixture at width 64: at entry, exit and behind every branch convolution."""
    branches = 3 + 3 + 6 + 3  # three kernel sizes; the asymmetric expert has two convolutions each
    return 4 * 2 * (16 + 64) + branches * 2 * 16


def block(b: Backbone) -> int:
    """One block: qkv, proj, fc1 and fc2 with biases, two norms, LayerScale where there is one."""
    scaled = hasattr(b.vit.blocks[0].ls1, "gamma")
    return 12 * b.dim**2 + 13 * b.dim + 2 * b.dim * scaled


def bottleneck(d: int, m: int) -> int:
    """Down and up with their biases."""
    return 2 * d * m + m + d


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


COUNTS: dict[str, Callable[[Backbone], int]] = {
    "adapter": lambda b: b.depth * 2 * bottleneck(b.dim, 2),
    "adaptformer": lambda b: b.depth * bottleneck(b.dim, 64),
    # Biases of qkv 3d, proj d, fc1 4d, fc2 d and two norms 2d; of patch embedding and final norm.
    "bitfit": lambda b: b.depth * 11 * b.dim + 2 * b.dim,
    "conv_lora": lambda b: conv_lora(b, 3, 8),
    "convpass": lambda b: b.depth * 2 * (bottleneck(b.dim, 8) + 9 * 8**2 + 8),
    "decoder_only": lambda b: 0,
    "dora": lambda b: b.depth * (8 * (b.dim + 3 * b.dim) + 3 * b.dim),
    "fact": lambda b: 2 * b.dim * 16 + b.depth * 12 * 16**2,
    "full": lambda b: sum(p.numel() for p in b.parameters()),
    "late_lora": lambda b: b.depth // 2 * 8 * (b.dim + 3 * b.dim),
    "ln_tune": lambda b: (2 * b.depth + 1) * 2 * b.dim,
    "lora": lambda b: b.depth * 8 * (b.dim + 3 * b.dim),
    "lpmoe": lambda b: lpmoe(b.dim, b.heads),
    "lst": lambda b: lst(b, 8),
    "mona": lambda b: b.depth * 2 * mona(b.dim, 64),
    "partial": lambda b: block(b) + 2 * b.dim,
    "rep_adapter": lambda b: b.depth * 2 * (b.dim * 8 + 8 + b.dim * 8 // 2 + b.dim),
    "sam_adapter": lambda b: sam_adapter(b, 16),
    "scratch": lambda b: sum(p.numel() for p in b.parameters()),
    # Scale and shift of widths d, 3d, d, d, 4d, d in a block, of patch embedding and final norm.
    "ssf": lambda b: b.depth * 2 * 11 * b.dim + 2 * 2 * b.dim,
    "vera": lambda b: b.depth * (256 + 3 * b.dim),
    "vpt": lambda b: b.depth * 12 * b.dim,
}

# The same for options that are not the default: method, options, formula.
Variant = tuple[str, dict[str, object], Callable[[Backbone], int]]
VARIANTS: list[Variant] = [
    ("conv_lora", {"gate_gradient": "straight_through"}, lambda b: conv_lora(b, 3, 8)),
    ("conv_lora", {"rank": 2, "experts": 1}, lambda b: conv_lora(b, 2, 1)),
    ("late_lora", {"blocks": 4, "rank": 1}, lambda b: b.depth * 4 * b.dim),
    ("mona", {"zero_init_up": True, "bottleneck": 5}, lambda b: b.depth * 2 * mona(b.dim, 5)),
    ("partial", {"blocks": 3}, lambda b: 3 * block(b) + 2 * b.dim),
    ("rep_adapter", {"groups": 4}, lambda b: b.depth * 2 * (b.dim * 10 + 8 + b.dim)),
    ("sam_adapter", {"layout": "grid", "scale": 8}, lambda b: sam_adapter(b, 8)),
    ("ssf", {"exact_init": True}, lambda b: (b.depth * 22 + 4) * b.dim),
    ("lora", {"rank": 2, "alpha": 4.0}, lambda b: b.depth * 2 * (b.dim + 3 * b.dim)),
    ("vpt", {"deep": False}, lambda b: 12 * b.dim),
    ("vpt", {"prompts": 3}, lambda b: b.depth * 3 * b.dim),
    ("lpmoe", {"cosine": "mean", "renormalise": True}, lambda b: lpmoe(b.dim, b.heads)),
    # Each of the four experts has norms of 16 channels, one of 64 at its end; three more of each.
    ("lpmoe", {"norm": "per_scale"}, lambda b: lpmoe(b.dim, b.heads) + 3 * lpmoe_norms()),
    ("lpmoe", {"ratio": 0.25, "heads": 2}, lambda b: lpmoe(b.dim, 2, 0.25)),
]
