"""The Hiera of SAM 2 opened into verbs: windows, and blocks that pool their queries.

Hiera, Ryali et al., ICML 2023, arXiv 2306.00989, as SAM 2 has it, Ravi et al., arXiv 2408.00714;
the model is timm's class `HieraDet`, `sam2_hiera_*`.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.hieradet_sam2 import HieraDet, HieraPatchEmbed, MultiScaleBlock, window_partition
from torch import Tensor, nn

from ..errors import ZooError
from .backbone import SIDE_MULTIPLE, Tokens, checked_sides
from .staged import PATCH, Staged

POOL = (2, 2)
BIAS = 0.02  # at which timm starts those of linear layers


class Hiera(Staged):
    """The first block of a stage, but for stage 0, halves the grid and doubles the width.

    Such a block has still the windows of the stage before. `attention` returns tokens on the new
    grid there, to be added to what `shortcut` returns. There is no final norm, nor SAM 2's neck:
    `norm` leaves the tokens as they are.
    """

    def _openable(self, vit: nn.Module) -> nn.Module:
        assert type(vit) is HieraDet
        parts: Any = vit
        kinds = {type(block) for block in parts.blocks} | {type(parts.patch_embed)}
        pools = [block for block in parts.blocks if block.q_stride is not None]
        starts = [end + 1 for end in parts.stage_ends[:-1]]
        usual = parts.q_pool_blocks == starts and all(b.q_stride == POOL for b in pools)
        if kinds != {MultiScaleBlock, HieraPatchEmbed} or not usual:
            raise ZooError(
                "a Hiera with other patches or pooling cannot be opened; use a sam2_hiera_* model "
                "as timm defines it"
            )
        bounds = [0, *(end + 1 for end in parts.stage_ends)]
        parts.depths = [b - a for a, b in pairwise(bounds)]
        parts.widths = [parts.blocks[end].dim_out for end in parts.stage_ends]
        parts.patch_embed.patch_size = (PATCH, PATCH)
        side = parts.pretrained_cfg["input_size"][-1] // PATCH
        parts.patch_embed.grid_size = (side, side)
        # Its table is no position of one grid, and is made anew for each: it has another name here.
        parts.places, parts.places_in_window = parts.pos_embed, parts.pos_embed_window
        del parts.pos_embed, parts.pos_embed_window, parts.head
        parts.pos_embed = None
        return parts

    def patchify(self, image: Tensor) -> Tensor:
        """Embed an image by overlapping patches: (B, 3, h, w) to (B, h / 4, w / 4, C)."""
        checked_sides(image)
        return self.vit.patch_embed.proj(self.normalise(image)).permute(0, 2, 3, 1)

    def position(self, patches: Tensor) -> Tokens:
        """Add a table that is resized to the grid and one that repeats in every window.

        Raises ZooError for a grid that such windows do not divide.
        """
        places, window = self.vit.places, self.vit.places_in_window
        grid, sides = (patches.shape[1], patches.shape[2]), window.shape[-2:]
        if grid[0] % sides[0] or grid[1] % sides[1]:
            raise ZooError(
                f"the grid is {grid[0]} x {grid[1]}, which windows of {sides[0]} x {sides[1]} do "
                f"not divide; use images whose sides are multiples of {SIDE_MULTIPLE}"
            )
        table = F.interpolate(places, size=grid, mode="bicubic")
        table = table + window.tile((grid[0] // sides[0], grid[1] // sides[1]))
        return super().position(patches + table.permute(0, 2, 3, 1))

    def shortcut(self, i: int, t: Tokens) -> Tokens:
        """Return what the attention's update is added to; a block that pools, pools it too."""
        block = self._block(i)
        if block.dim == block.dim_out:
            return t
        # Of the normed tokens: so do the authors.
        x, aux = self.linear(block.proj, self.norm1(i, t), 0, t.grid)
        x = block.pool(x.transpose(1, 2).unflatten(2, t.grid)).permute(0, 2, 3, 1)
        return t._replace(
            x=x.flatten(1, 2).contiguous(), grid=(x.shape[1], x.shape[2]), aux=t.aux + aux
        )

    def attention(self, i: int, t: Tokens, normed: Tensor | None = None) -> Tokens:
        """Return the residual update of the attention branch, on the new grid where it pools."""
        update = super().attention(i, t, normed)
        pooled = self._block(i).q_stride is not None
        return update._replace(grid=(t.grid[0] // 2, t.grid[1] // 2)) if pooled else update

    def block(self, i: int, t: Tokens) -> Tokens:
        """Run block i as it is: attention added to the shortcut, then MLP."""
        t = self.shortcut(i, t).add(self.attention(i, t))
        return t.add(self.mlp(i, t))

    def _self_attention(self, i: int, x: Tensor, t: Tokens) -> tuple[Tensor, Tensor | float]:
        block, (height, width) = self._block(i), t.grid
        if not block.is_windowed:
            return self._attend(i, x, t)
        window = block.window_size
        x = x.unflatten(1, t.grid)
        # -width % window is what is missing up to whole windows, 0 where they fit.
        x = F.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
        rows, columns = x.shape[1] // window[0], x.shape[2] // window[1]
        windows = window_partition(x, window).flatten(1, 2)
        y, aux = self._attend(i, windows, t._replace(grid=window))
        if block.q_stride is not None:
            window = (window[0] // 2, window[1] // 2)
            height, width = height // 2, width // 2
        # (B * rows * columns, N, C) to (B, rows, height in window, columns, width in window, C);
        # then rows and columns of the image are put together and what was padded is cut off.
        y = y.unflatten(1, window).unflatten(0, (-1, rows, columns)).transpose(2, 3)
        return y.flatten(3, 4).flatten(1, 2)[:, :height, :width].flatten(1, 2), aux

    def _attend(self, i: int, x: Tensor, t: Tokens) -> tuple[Tensor, Tensor | float]:
        """Attend within each row of x, (B', H * W, C); pooled queries leave a quarter of them."""
        attn, (batch, count, _) = self._block(i).attn, x.shape
        qkv, aux1 = self.linear(attn.qkv, x, 0, t.grid)
        q, k, v = qkv.reshape(batch, count, 3, attn.num_heads, -1).unbind(2)
        grid = t.grid
        if attn.q_pool is not None:
            # Queries as maps with the channels of all heads, (B', C, H, W): pooled 2 x 2, while
            # keys and values stay as they are. The output has a quarter of the tokens.
            maps = q.flatten(2).unflatten(1, grid).permute(0, 3, 1, 2)
            q = attn.q_pool(maps).permute(0, 2, 3, 1)
            grid = (q.shape[1], q.shape[2])
            q = q.flatten(1, 2).unflatten(2, (attn.num_heads, -1))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v)
        x = x.transpose(1, 2).flatten(2)
        x, aux2 = self.linear(attn.proj, x, 0, grid)
        return x, aux1 + aux2

    def norm(self, t: Tokens) -> Tokens:
        """Return the tokens as they are: there is no norm behind any stage."""
        return t

    def reset(self, seed: int) -> None:
        """Re-initialise every weight as timm does, deeper layers smaller."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for table in (self.vit.places, self.vit.places_in_window):
                nn.init.trunc_normal_(table, std=0.02)
            for module in self.vit.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
                if isinstance(module, nn.Linear | nn.Conv2d):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear):
                    nn.init.constant_(module.bias, BIAS)
            # The residual stream sums over blocks: the deeper
            # a block, the smaller its part at the start.
            for i, block in enumerate(self.vit.blocks):
                for layer in (block.attn.proj, block.mlp.fc2):
                    layer.weight.div_((2.0 * (i + 1)) ** 0.5)
