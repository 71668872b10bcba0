"""BEiT opened: a learnt bias for each pair of places, hence one grid that is fixed when built.

BEiT, Bao et al., ICLR 2022, arXiv 2106.08254, and BEiT v2; the model is timm's class `Beit`.
"""

import torch
import torch.nn.functional as F
from timm.models.beit import Beit as TimmBeit
from torch import Tensor, nn

from ..errors import ZooError
from .backbone import STRIDE, Backbone, Tokens
from .linear import open_gate, open_qkv


class Beit(Backbone):
    """Build it for the images it is to see: its tables of biases are resized then, once.

    Prompts have no place and therefore no bias: it is padded with zeros for them.
    """

    def __init__(self, vit: nn.Module, pos_antialias: bool = True):
        super().__init__(vit, pos_antialias)
        height, width = self.vit.patch_embed.grid_size
        self.fixed_grid = (height, width)

    def _openable(self, vit: nn.Module) -> nn.Module:
        assert type(vit) is TimmBeit
        for block in vit.blocks:
            open_qkv(block.attn)
            open_gate(block.mlp)
        return vit

    def position(self, patches: Tensor) -> Tokens:
        """Add class token and position: (B, H, W, C) -> Tokens; ZooError for another grid."""
        vit, (batch, height, width, _) = self.vit, patches.shape
        if (height, width) != self.fixed_grid:
            built = " x ".join(str(side * STRIDE) for side in vit.patch_embed.grid_size)
            raise ZooError(
                f"this BEiT was built for images of {built}, not {height * STRIDE} x "
                f"{width * STRIDE}: resize them, or build it for their size"
            )
        x = torch.cat([vit.cls_token.expand(batch, -1, -1), patches.flatten(1, 2)], dim=1)
        x = x if vit.pos_embed is None else x + vit.pos_embed
        return Tokens(x, 1, (height, width), None, x.new_zeros((), dtype=torch.float32))

    def _scaled(self, i: int, branch: int, x: Tensor) -> Tensor:
        gamma = getattr(self._block(i), f"gamma_{branch}")
        return x if gamma is None else gamma * x

    def _self_attention(self, i: int, x: Tensor, t: Tokens) -> tuple[Tensor, Tensor | float]:
        attn, (batch, count, _) = self._block(i).attn, x.shape
        qkv, aux1 = self.linear(attn.qkv, x, t.prefix, t.grid)
        qkv = qkv.reshape(batch, count, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(i, t))
        x, aux2 = self.linear(attn.proj, x.transpose(1, 2).flatten(2), t.prefix, t.grid)
        return x, aux1 + aux2

    def _bias(self, i: int, t: Tokens) -> Tensor | None:
        """Return what is added to the scores, (..., heads, N, N): of the block, shared, or both."""
        own, shared = self._block(i).attn, self.vit.rel_pos_bias
        bias = None
        if own.relative_position_bias_table is not None:
            bias = _spread(own)[None]  # with an axis for the batch, as timm has it: another kernel
        if shared is not None:
            bias = _spread(shared) if bias is None else bias + _spread(shared)
        return bias if bias is None or t.prefix == 1 else _with_prompts(bias, t.prefix - 1)


def _spread(holder: nn.Module) -> Tensor:
    """Look the bias of each pair of tokens up in a table: (heads, 1 + H*W, 1 + H*W)."""
    table, index = holder.relative_position_bias_table, holder.relative_position_index
    assert isinstance(table, Tensor)
    assert isinstance(index, Tensor)
    # index: (N, N), for each pair of tokens its row in the table, which has a column a head.
    bias = table[index.view(-1)].view(*index.shape, -1)
    return bias.permute(2, 0, 1).contiguous()


def _with_prompts(bias: Tensor, count: int) -> Tensor:
    """Insert zeros for prompts behind the class token, in rows and in columns."""
    # Columns first, then rows. F.pad counts sides from the last axis: left, right, above, below.
    first, patches = bias.tensor_split([1], dim=-1)
    bias = torch.cat([F.pad(first, (0, count)), patches], dim=-1)
    first, patches = bias.tensor_split([1], dim=-2)
    return torch.cat([F.pad(first, (0, 0, 0, count)), patches], dim=-2)
