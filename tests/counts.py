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


COUNTS: dict[str, Callable[[Backbone], int]] = {
    "decoder_only": lambda b: 0,
    "full": lambda b: sum(p.numel() for p in b.parameters()),
    "lora": lambda b: b.depth * 8 * (b.dim + 3 * b.dim),
    "lpmoe": lambda b: lpmoe(b.dim, b.heads),
    "vpt": lambda b: b.depth * 12 * b.dim,
}

# The same for options that are not the default: method, options, formula.
Variant = tuple[str, dict[str, object], Callable[[Backbone], int]]
VARIANTS: list[Variant] = [
    ("lora", {"rank": 2, "alpha": 4.0}, lambda b: b.depth * 2 * (b.dim + 3 * b.dim)),
    ("vpt", {"deep": False}, lambda b: 12 * b.dim),
    ("vpt", {"prompts": 3}, lambda b: b.depth * 3 * b.dim),
    ("lpmoe", {"cosine": "mean", "renormalise": True}, lambda b: lpmoe(b.dim, b.heads)),
    # Each of the four experts has norms of 16 channels, one of 64 at its end; three more of each.
    ("lpmoe", {"norm": "per_scale"}, lambda b: lpmoe(b.dim, b.heads) + 3 * lpmoe_norms()),
    ("lpmoe", {"ratio": 0.25, "heads": 2}, lambda b: lpmoe(b.dim, 2, 0.25)),
]
