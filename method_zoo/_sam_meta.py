"""Meta's own SAM encoders by name, built without the loader of `segment_anything`.

Segment Anything, Kirillov et al., ICCV 2023, arXiv 2304.02643; sizes as in its build_sam.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.layers import Mlp
from torch import nn

from ._errors import ZooError

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
