"""Swin Transformer v2 opened into verbs: cosine attention, norms behind the branches.

Swin v2, Liu et al., CVPR 2022, arXiv 2111.09883; the model is timm's class `SwinTransformerV2`.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from torch import Tensor, nn

from ..errors import ZooError
from .backbone import Tokens
from .linear import Qkv, open_qkv
from .staged import in_stages
from .swin import Swin, neighbours, with_whole_windows

LARGEST = 100.0  # the most that a cosine is scaled by
BIAS = 16  # the most that the place of a pair adds


class SwinV2(Swin):
    """As Swin, with these differences: a branch reads the tokens as they are and its norm follows,
    `norm1` and `norm2` returning the tokens; scores are scaled cosines; their bias comes from a
    small network on the offset of two places; keys have no bias; a merge norms behind its layer.
    """

    def _openable(self, vit: nn.Module) -> nn.Module:
        assert type(vit) is SwinTransformerV2
        parts: Any = vit
        widths = [stage.blocks[0].norm1.normalized_shape[0] for stage in parts.layers]
        in_stages(parts, "layers", widths, (SwinTransformerV2Block,))
        for block in parts.blocks:
            if block.attn.qkv_bias_separate:
                raise ZooError("a Swin v2 whose biases are added apart cannot be opened")
            open_qkv(block.attn)
        return with_whole_windows(parts)

    def norm1(self, i: int, t: Tokens) -> Tensor:
        """Return what the attention branch of block i reads, (B, N, C): the tokens themselves."""
        return t.x

    def norm2(self, i: int, t: Tokens) -> Tensor:
        """Return what the MLP branch of block i reads, (B, N, C): the tokens themselves."""
        return t.x

    def _scaled(self, i: int, branch: int, x: Tensor) -> Tensor:
        return getattr(self._block(i), f"norm{branch}")(x)

    def _scores(self, i: int, q: Tensor, k: Tensor) -> Tensor:
        attn = self._block(i).attn
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        # Learnt as a logarithm, one a head: the factor stays positive without a constraint.
        scores = scores * attn.logit_scale.clamp(max=math.log(LARGEST)).exp()
        # One row for each offset of two places, (2 H -
        # 1) (2 W - 1) of a window, not for each pair.
        table = attn.cpb_mlp(attn.relative_coords_table).view(-1, attn.num_heads)
        index = attn.relative_position_index
        bias = table[index.view(-1)].view(*index.shape, -1).permute(2, 0, 1).contiguous()
        return scores + BIAS * bias.sigmoid()

    def merge(self, g: int, t: Tokens) -> Tokens:
        """Join 2 x 2 places before stage g: a linear layer of the four, then a norm."""
        part, t = self.vit.merges[g - 1], neighbours(t)
        x, aux = self.linear(part.reduction, t.x, 0, t.grid)
        return t._replace(x=part.norm(x), aux=t.aux + aux)

    def reset(self, seed: int) -> None:
        """Re-initialise every weight as timm does; norms behind the branches start at zero."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.vit.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    if not isinstance(module, Qkv) and module.bias is not None:
                        nn.init.zeros_(module.bias)
                elif hasattr(module, "reset_parameters"):
                    module.reset_parameters()
                if isinstance(module, Qkv):
                    nn.init.zeros_(module.q_bias)
                    nn.init.zeros_(module.v_bias)
        for block in self.vit.blocks:
            for norm in (block.norm1, block.norm2):
                nn.init.zeros_(norm.weight)
                nn.init.zeros_(norm.bias)
