"""Swin Transformer opened into verbs: attention in windows, shifted by half in every other block.

Swin, Liu et al., ICCV 2021, arXiv 2103.14030; the model is timm's class of that name.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import (
    SwinTransformer,
    SwinTransformerBlock,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn

from ..errors import ZooError
from .backbone import Tokens
from .staged import Staged, in_stages

APART = -100.0  # added to the score of two places that the shift has brought into one window


class Swin(Staged):
    """Layers in a block see each window as an image of its own, pads included.

    Any grid is padded to whole windows first and shifted then, and a grid that is no larger than a
    window is shifted too: so do the authors. timm shifts first, which is the same where windows
    divide the grid, and must be built with `always_partition` not to shrink its windows.
    """

    def _openable(self, vit: nn.Module) -> nn.Module:
        assert type(vit) is SwinTransformer
        layers: Any = vit.layers
        widths = [stage.blocks[0].dim for stage in layers]
        return with_whole_windows(in_stages(vit, "layers", widths, (SwinTransformerBlock,)))

    def _scaled(self, i: int, branch: int, x: Tensor) -> Tensor:
        return x  # there is no LayerScale

    def _self_attention(self, i: int, x: Tensor, t: Tokens) -> tuple[Tensor, Tensor | float]:
        block, (height, width) = self._block(i), t.grid
        window, shift = block.window_size, block.shift_size
        # Departs from timm, as said above: pads, which are zeros behind the norm, then the shift.
        pad = (-height % window[0], -width % window[1])
        x = F.pad(x.unflatten(1, t.grid), (0, 0, 0, pad[1], 0, pad[0]))
        rows, columns = x.shape[1:3]
        apart = None
        if any(shift):
            # Half a window up and left: the windows of this
            # block straddle those of the block before.
            x = torch.roll(x, (-shift[0], -shift[1]), (1, 2))
            apart = shift_mask((rows, columns), window, shift, x)
        # (B * windows, places in a window, C), image by image.
        windows = window_partition(x, window).flatten(1, 2)
        y, aux = self._attend(i, windows, t._replace(grid=window), apart)
        x = window_reverse(y.unflatten(1, window), window, rows, columns)
        if any(shift):
            x = torch.roll(x, tuple(shift), (1, 2))
        return x[:, :height, :width].flatten(1, 2), aux

    def _attend(
        self, i: int, x: Tensor, t: Tokens, apart: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Attend within each window of x, (B * windows, N, C)."""
        attn, (batch, count, _) = self._block(i).attn, x.shape
        qkv, aux1 = self.linear(attn.qkv, x, 0, t.grid)
        qkv = qkv.reshape(batch, count, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = with_mask(self._scores(i, q, k), apart)
        x = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, count, -1)
        x, aux2 = self.linear(attn.proj, x, 0, t.grid)
        return x, aux1 + aux2

    def _scores(self, i: int, q: Tensor, k: Tensor) -> Tensor:
        """Return the scores with the learnt bias of each pair of places, (., heads, N, N)."""
        attn = self._block(i).attn
        scores = (q * attn.scale) @ k.transpose(-2, -1)
        table, index = attn.relative_position_bias_table, attn.relative_position_index
        return scores + table[index.view(-1)].view(*index.shape, -1).permute(2, 0, 1)

    def merge(self, g: int, t: Tokens) -> Tokens:
        """Join 2 x 2 places before stage g: a norm of the four, then a linear layer."""
        part, t = self.vit.merges[g - 1], neighbours(t)
        x, aux = self.linear(part.reduction, part.norm(t.x), 0, t.grid)
        return t._replace(x=x, aux=t.aux + aux)


def with_whole_windows(vit: Any) -> nn.Module:
    """Return a Swin of any version that keeps window and shift on small grids.

    Raises ZooError for one that does not.
    """
    if not all(block.always_partition for block in vit.blocks):
        raise ZooError("a Swin must be built with always_partition=True to be opened")
    return vit


def shift_mask(
    grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], like: Tensor
) -> Tensor:
    """Return what is added to the scores of each window of a shifted grid, (windows, N, N)."""
    # A shift rolls the first rows behind the last: they share a window and are no neighbours.
    rows, columns = (
        sum(
            (torch.arange(side, device=like.device) >= side - bound).to(like.dtype)
            for bound in (w, s)
        )
        for side, w, s in zip(grid, window, shift, strict=True)
    )
    assert isinstance(rows, Tensor)
    assert isinstance(columns, Tensor)
    # Along an axis 0 is before the last window, 1 in it, 2 what the shift rolled into it: nine
    # regions, and places attend to each other only within one.
    regions = 3 * rows[:, None] + columns
    places = window_partition(regions[None, :, :, None], window).flatten(1)
    return (places[:, None] != places[:, :, None]).to(like.dtype) * APART


def with_mask(scores: Tensor, apart: Tensor | None) -> Tensor:
    """Add the mask of each window, (windows, N, N), to the scores of all images."""
    if apart is None:
        return scores
    # (B * windows, heads, N, N) to (B, windows, heads, N,
    # N); the mask is the same for all images and heads.
    split = scores.unflatten(0, (-1, len(apart))) + apart[None, :, None]
    return split.flatten(0, 1)


def neighbours(t: Tokens) -> Tokens:
    """Put 2 x 2 places side by side, (B, H / 2 * W / 2, 4 C); an odd side is padded with zeros."""
    height, width = t.grid
    x = F.pad(t.x.unflatten(1, t.grid), (0, 0, 0, width % 2, 0, height % 2))
    # In the authors' order: rows change first.
    x = torch.cat([x[:, r::2, c::2] for c in (0, 1) for r in (0, 1)], dim=-1)
    return t._replace(x=x.flatten(1, 2), grid=(x.shape[1], x.shape[2]))
