"""Whole tiny networks of the authors of ViT-Adapter and ViT-CoMer, under our names."""

import re

import torch
from reference_tensors import reference

from method_zoo.backbones.backbone import Backbone
from method_zoo.backbones.create import create_backbone

SHARED = (
    (r"attn\.sampling_offsets", "attention.offsets"),
    (r"attn\.attention_weights", "attention.weights"),
    (r"attn\.value_proj", "attention.value"),
    (r"attn\.output_proj", "attention.output"),
    (r"ffn_norm", "norm_feed"),
    (r"query_norm", "norm_query"),
    (r"feat_norm", "norm_features"),
    (r"ffn\.dwconv\.dwconv", "feed.filter"),
    (r"ffn\.", "feed."),
    (r"^level_embed$", "level"),
    (r"^spm\.conv(\d)\.", lambda m: f"prior.downs.{int(m[1]) - 2}."),
    (r"^spm\.fc(\d)\.", lambda m: f"prior.project.{int(m[1]) - 1}."),
    (r"^spm\.", "prior."),
    (r"^up\.", "pyramid.up."),
    (r"^norm(\d)\.", lambda m: f"pyramid.norms.{int(m[1]) - 1}."),
)
TRUNK = re.compile(r"blocks\.|patch_embed\.|pos_embed")


def network(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], Backbone]:
    """Return the tensors of a file, the state of what is not the trunk, and the trunk, built."""
    tensors, state = reference(name)
    dim = state["pos_embed"].shape[2]
    backbone = create_backbone(
        "vit_tiny_patch16_224", embed_dim=dim, depth=4, num_heads=dim // 16, img_size=64,
        mlp_ratio=2, class_token=False, init_values=1.0, pos_antialias=False,
    )  # fmt: skip
    backbone.normalise_by((0, 0, 0), (1, 1, 1))
    trunk = {k: t for k, t in state.items() if TRUNK.match(k)}
    trunk["pos_embed"] = trunk["pos_embed"][:, 1:]
    own = {re.sub(r"gamma(\d)$", r"ls\1.gamma", k): t for k, t in trunk.items()}
    own |= {k: t for k, t in backbone.state().items() if k.startswith("norm.")}
    backbone.load(own)
    return tensors, {k: t for k, t in state.items() if not TRUNK.match(k)}, backbone


def under_our_names(state: dict, names: tuple) -> dict[str, torch.Tensor]:
    """Rename; names: patterns and what stands for them, tried one after the other."""
    found = {}
    for name, tensor in state.items():
        for pattern, ours in (*names, *SHARED):
            name = re.sub(pattern, ours, name)
        found[name] = tensor
    return found
