"""SSF: Scaling & Shifting Your Features. Lian et al., NeurIPS 2022, arXiv 2210.08823.

y <- y * g + b per channel, after the patch embedding, in each block after LN1, qkv, proj, LN2, fc1
and fc2, and after the final norm; in a hierarchical backbone also after the norm of the patches,
depthwise convolutions with their norms, and norm and layer of every merge. g ~ N(1, 0.02),
b ~ N(0, 0.02); both fold into the layer before.
"""

import re
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm
from torch import Tensor, nn

from .method import Backbone, Method, Wrapped, rewrite
from .parts.low_rank import changed_linear, in_full_precision, well_scaled

STAGED = re.compile(r"patch_embed\.norm|merges\.\d+\.\w+|blocks\.\d+\.(conv_dw|norm)")
LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


class SSF(Method):
    """exact_init: start at g = 1, b = 0, hence at the frozen model, where the authors draw both."""

    title = "SSF"
    paper = "arXiv 2210.08823"
    fidelity = (
        "the places and the start of the authors' code, from a specification; the count on SAM "
        "ViT-H is 4,409,216 where the Conv-LoRA table prints 4.42 M, which nothing explains; "
        "merging, which their repository leaves out, is added"
    )
    identity_at_init = False
    mergeable = True
    preset = {"lr": 1e-3}

    def __init__(self, backbone: Backbone, exact_init: bool = False):
        super().__init__(backbone)
        staged = len(backbone.widths) > 1
        self.wrap(
            lambda name: (
                name in ("patch_embed.proj", "norm")
                or name.endswith(LAYERS)
                or (staged and bool(STAGED.fullmatch(name)))
            ),
            lambda module: ScaleShift(module, 0.0 if exact_init else 0.02),
        )


class ScaleShift(Wrapped):
    """A frozen linear layer, norm or convolution with a trained scale and shift per channel."""

    def __init__(self, base: Any, deviation: float):
        super().__init__(base)
        width = len(base.weight)
        self.scale = nn.Parameter(torch.empty(width).normal_(1, deviation))
        self.shift = nn.Parameter(torch.empty(width).normal_(0, deviation))

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        base = self.base
        if type(base) in (nn.LayerNorm, LayerNorm):
            # Multiplied into the norm's own scale and shift, which are as small as g and b.
            weight, shift = self._folded()
            return F.layer_norm(x, base.normalized_shape, weight, shift, base.eps)
        if in_full_precision(base, x):
            shift = self._shifted()
            if well_scaled(self.scale, shift):
                return changed_linear(base, x, rows=self.scale, bias=shift)
        # Channels come last, but for the convolution of the patch embedding: (B, C, H, W).
        shape = (-1, 1, 1) if isinstance(self.base, nn.Conv2d) else (-1,)
        return self.base(x) * self.scale.view(shape) + self.shift.view(shape)

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias: (W x + c) g + b = (g W) x + (g c + b), channel by channel."""
        weight = self.base.weight
        return weight * self.scale.view(-1, *[1] * (weight.ndim - 1)), self._shifted()

    def _shifted(self) -> Tensor:
        bias = self.base.bias
        return self.shift if bias is None else bias * self.scale + self.shift

    def fold(self) -> nn.Module:
        rewrite(self.base, *self._folded())
        return self.base
