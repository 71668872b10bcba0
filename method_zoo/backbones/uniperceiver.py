"""Uni-Perceiver-L, the first backbone of Controllable-LPMoE, as a plain vision transformer.

Uni-Perceiver, Zhu et al., CVPR 2022, arXiv 2112.01522; the image branch as ViT-Adapter has it:
no class token, a norm before the blocks and none behind them, LayerScale, norms with an epsilon of
1e-5, a position table of 14 x 14 that is resized without antialias. Its temporal embedding and the
bias of its patch embedding are the same for every patch, so they are part of the position table.
"""

from functools import partial
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

NAME = "uni_perceiver_large"
POS_ANTIALIAS = False
STATISTICS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def uni_perceiver(**kwargs: Any) -> VisionTransformer:
    """Build the encoder with random weights; further arguments go to timm's class."""
    arguments: dict[str, Any] = {
        "img_size": 224,
        "patch_size": 16,
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
        "init_values": 1e-5,
        "class_token": False,
        "pre_norm": True,
        "final_norm": False,
        "global_pool": "",
        "num_classes": 0,
        "norm_layer": partial(nn.LayerNorm, eps=1e-5),
    }
    vit = VisionTransformer(**(arguments | kwargs))
    vit.pretrained_cfg = dict(STATISTICS)
    return vit
