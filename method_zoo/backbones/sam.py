"""The image encoder of SAM opened into verbs: windows, relative positions, the 256-channel neck.

Segment Anything, Kirillov et al., ICCV 2023, arXiv 2304.02643; the model is timm's `samvit_*`, or
the encoder of Meta's `segment_anything`. The blocks of timm's norm with an epsilon of 1e-5, those
of Meta's with 1e-6, each as its native forward does.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Mlp, resample_abs_pos_embed_nhwc
from timm.models import vision_transformer_sam as timm_sam
from torch import Tensor, nn

from ..errors import ZooError
from .backbone import Backbone, Tokens

# Meta's own SAM encoders by name, built without the loader of `segment_anything`.
#
# Segment Anything, Kirillov et al., ICCV 2023, arXiv 2304.02643; sizes as in its build_sam.py.


# Width, blocks, heads, and the blocks that attend over the whole grid.
META_SAM = {
    "sam_vit_b": (768, 12, 12, (2, 5, 8, 11)),
    "sam_vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "sam_vit_h": (1280, 32, 16, (7, 15, 23, 31)),
}
# What Meta writes as (123.675, 116.28, 103.53) and (58.395, 57.12, 57.375) of 255.
STATISTICS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def meta_encoder(name: str, **kwargs: Any) -> nn.Module:
    """Build an encoder of META_SAM with random weights; further arguments go to Meta's class.

    Raises ZooError where the package segment-anything is not installed.
    """
    try:
        from segment_anything.modeling.image_encoder import ImageEncoderViT
    except ImportError:
        raise ZooError(
            f"{name} needs the package segment-anything: pip install segment-anything==1.0"
        ) from None
    width, depth, heads, everywhere = META_SAM[name]
    arguments: dict[str, Any] = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "global_attn_indexes": everywhere,
        "window_size": 14,
        "use_rel_pos": True,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
    }
    return ImageEncoderViT(**(arguments | kwargs))


def named_as_timm(encoder: Any) -> nn.Module:
    """Give Meta's encoder the attributes that timm's has; what it computes stays as it is."""
    patches = encoder.patch_embed
    patches.patch_size, patches.norm = patches.proj.kernel_size, nn.Identity()
    side = encoder.img_size // patches.patch_size[0]
    patches.grid_size = (side, side)
    encoder.embed_dim, encoder.norm_pre = patches.proj.out_channels, nn.Identity()
    encoder.pretrained_cfg = STATISTICS
    for block in encoder.blocks:
        block.ls1, block.ls2 = nn.Identity(), nn.Identity()
        theirs = block.mlp
        block.mlp = Mlp(1, act_layer=nn.Identity)
        block.mlp.fc1, block.mlp.act, block.mlp.fc2 = theirs.lin1, theirs.act, theirs.lin2
    return encoder


class Sam(Backbone):
    """Most blocks attend in windows, padded with zeros; the others over the whole grid.

    Layers in a window block see each window as an image of its own, pads included. Prompts are
    copied into every window, with no relative position, and their copies averaged per image. There
    is no final norm: `norm` leaves the tokens as they are, and the neck has norms of its own.
    """

    def _openable(self, vit: nn.Module) -> nn.Module:
        if not isinstance(vit, timm_sam.VisionTransformerSAM):
            return named_as_timm(vit)
        kinds = (timm_sam.Block, timm_sam.Attention)
        blocks: Any = vit.blocks
        for block in blocks:
            if (type(block), type(block.attn)) != kinds or block.attn.rope:
                raise ZooError(
                    "a SAM encoder with rotary positions or blocks of another type cannot be "
                    "opened; use a samvit_* model as timm defines it"
                )
        return vit

    def position(self, patches: Tensor) -> Tokens:
        table, grid = self.vit.pos_embed, (patches.shape[1], patches.shape[2])
        if table is not None:
            patches = patches + resample_abs_pos_embed_nhwc(
                table, list(grid), antialias=self.pos_antialias
            )
        x = self.vit.norm_pre(patches).flatten(1, 2)
        return Tokens(x, 0, grid, None, x.new_zeros((), dtype=torch.float32))

    def _self_attention(self, i: int, x: Tensor, t: Tokens) -> tuple[Tensor, Tensor | float]:
        side = self._block(i).window_size
        if not side:
            return self._attend(i, x, t)
        prompts, patches = x[:, : t.prefix], x[:, t.prefix :].unflatten(1, t.grid)
        windows, padded = timm_sam.window_partition(patches, side)
        each = windows.shape[0] // x.shape[0]
        # Image by image, as the windows lie: the copies of an image follow one another.
        copies = prompts.repeat_interleave(each, dim=0)
        inside = torch.cat([copies, windows.flatten(1, 2)], dim=1)
        y, aux = self._attend(i, inside, t._replace(grid=(side, side)))
        # (B * windows, p, C) to (B, windows, p, C), and the mean over the windows of an image.
        prompts = y[:, : t.prefix].unflatten(0, (-1, each)).mean(1)
        windows = y[:, t.prefix :].unflatten(1, (side, side))
        patches = timm_sam.window_unpartition(windows, side, t.grid, padded).flatten(1, 2)
        return torch.cat([prompts, patches], dim=1), aux

    def _attend(self, i: int, x: Tensor, t: Tokens) -> tuple[Tensor, Tensor | float]:
        """Attend within each row of x, (B', prefix + H*W, C), on the grid (H, W) that t names."""
        attn, (batch, count, _) = self._block(i).attn, x.shape
        qkv, aux1 = self.linear(attn.qkv, x, t.prefix, t.grid)
        qkv = qkv.view(batch, count, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, batch * attn.num_heads, count, -1).unbind(0)
        if isinstance(attn, timm_sam.Attention):
            q, k = attn.q_norm(q), attn.k_norm(k)
            bias = _relative_position(attn, q, t) if attn.use_rel_pos else None
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            x = _scores_of_meta(attn, q, k, t).softmax(dim=-1) @ v
        x = x.view(batch, attn.num_heads, count, -1).transpose(1, 2).reshape(batch, count, -1)
        x, aux2 = self.linear(attn.proj, x, t.prefix, t.grid)
        return x, aux1 + aux2

    def norm(self, t: Tokens) -> Tokens:
        """Return the tokens as they are: SAM has no norm between the last block and the neck."""
        return t

    def neck(self, t: Tokens) -> Tensor:
        """Return what SAM's mask decoder reads, (B, 256, H, W)."""
        # Channel by channel, as the native forward has it: the norms of Meta's neck add up in the
        # order of memory, and a method may leave the tokens laid out in another.
        return self.vit.neck(t.map().contiguous())

    @property
    def neck_channels(self) -> int:
        convolutions = [m for m in self.vit.neck.modules() if isinstance(m, nn.Conv2d)]
        return convolutions[-1].out_channels if convolutions else self.dims[-1]  # some have no neck

    def reset(self, seed: int) -> None:
        """Re-initialise every weight; timm starts SAM with torch's defaults and zero tables."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.vit.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
        for name, parameter in self.vit.named_parameters():
            if name.endswith(("pos_embed", "rel_pos_h", "rel_pos_w")):
                nn.init.zeros_(parameter)
        for norm in self.vit.neck.children():
            if not isinstance(norm, nn.Conv2d):  # Meta's cannot reset itself
                nn.init.ones_(norm.weight)
                nn.init.zeros_(norm.bias)


def _relative_position(attn: Any, q: Tensor, t: Tokens) -> Tensor:
    """Return what is added to the scores, (B' * heads, N, N): zero where a prompt takes part."""
    tables = attn.rel_pos_h, attn.rel_pos_w
    bias = timm_sam.get_decomposed_rel_pos_bias(q[:, t.prefix :], *tables, t.grid, t.grid)
    return F.pad(bias, (t.prefix, 0, t.prefix, 0)) if t.prefix else bias


def _scores_of_meta(attn: Any, q: Tensor, k: Tensor, t: Tokens) -> Tensor:
    """Return the scores as Meta's code adds them up, (B' * heads, N, N): rows, then columns."""
    scores = (q * attn.scale) @ k.transpose(-2, -1)
    if not attn.use_rel_pos:
        return scores
    (height, width), p = t.grid, t.prefix
    # The tables meet unscaled queries, as in Meta's code; only the product with keys is scaled.
    queries = q[:, p:].unflatten(1, t.grid)
    rows = timm_sam.get_rel_pos(height, height, attn.rel_pos_h)
    columns = timm_sam.get_rel_pos(width, width, attn.rel_pos_w)
    # rows: (H, H, c), what row h of a query adds to row k of a key; the added axis stands for the
    # key's columns. Below the same of columns.
    rows = torch.einsum("bhwc,hkc->bhwk", queries, rows)[:, :, :, :, None]
    columns = torch.einsum("bhwc,wkc->bhwk", queries, columns)[:, :, :, None, :]
    # (B', H * W, H * W) to (B', H, W, H, W): place of the query, place of the key.
    inside = scores[:, p:, p:].unflatten(2, t.grid).unflatten(1, t.grid)
    inside = (inside + rows + columns).flatten(3).flatten(1, 2)
    if not p:
        return inside
    # Pairs with a prompt keep their score as it is: a prompt has no place.
    beside = torch.cat([scores[:, p:, :p], inside], dim=2)
    return torch.cat([scores[:, :p], beside], dim=1)
