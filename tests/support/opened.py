"""Opened backbones beside the same model as its own library runs it."""

import timm
import torch
import torch.nn.functional as F
from conftest import FAMILIES
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from method_zoo.backbones.backbone import Backbone, Tokens
from method_zoo.backbones.linear import Wrapped
from method_zoo.backbones.sam import META_SAM, meta_encoder


def image_of(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def opened(backbone: Backbone, image: Tensor) -> Tensor:
    """All tokens after the final norm, or SAM's map after its neck, through the verbs."""
    t = walked(backbone, image)
    with torch.no_grad():
        return backbone.neck(t) if hasattr(backbone.vit, "neck") else t.x


def walked(backbone: Backbone, image: Tensor) -> Tokens:
    """Tokens after the final norm, through the verbs."""
    with torch.no_grad():
        t = backbone.embed(image)
        for g, group in enumerate(backbone.groups):
            t = backbone.merge(g, t) if g else t
            for i in group:
                t = backbone.block(i, t)
        return backbone.norm(t)


def native(backbone: Backbone, vit: nn.Module, image: Tensor) -> Tensor:
    """The same through the model's own forward, on the input that the backbone derives."""
    patch = backbone.vit.patch_embed.patch_size[0]
    size = [side // 16 * patch for side in image.shape[-2:]]
    image = backbone.normalise(image)
    if patch != 16:
        image = F.interpolate(image, size, mode="bilinear", antialias=True)
    with torch.no_grad():
        return getattr(vit.eval(), "forward_features", vit)(image)


def rebuilt(family: str, backbone: Backbone, **kwargs) -> nn.Module:
    """A model as its library builds it, with the same weights and other arguments."""
    name, size = FAMILIES[family]
    if name in META_SAM:
        vit = meta_encoder(name, **(size | kwargs))
    else:
        vit = timm.create_model(name, num_classes=0, global_pool="", **(size | kwargs))
    state = backbone.state()
    if vit.pos_embed is not None and vit.pos_embed.shape != state["pos_embed"].shape:
        state["pos_embed"] = resample_abs_pos_embed(
            state["pos_embed"],
            new_size=list(vit.patch_embed.grid_size),
            old_size=list(backbone.vit.patch_embed.grid_size),
            num_prefix_tokens=0 if vit.no_embed_class else vit.num_prefix_tokens,
            antialias=backbone.pos_antialias,
        )
    vit.load_state_dict(state)
    return vit


class Recorder(Wrapped):
    """Passes through, with an auxiliary loss of one, and notes what it is told."""

    def forward_aux(self, x, prefix, grid):
        self.told = (x.shape[1], prefix, grid)
        return self.base(x), torch.ones(())


def recorded(backbone: Backbone, name: str, image: Tensor) -> Tokens:
    """Tokens of an image with five prompts, behind blocks whose layers of a name are recorders."""
    for block in backbone.vit.blocks:
        parent, leaf = block.get_submodule(name.split(".")[0]), name.split(".")[1]
        setattr(parent, leaf, Recorder(getattr(parent, leaf)))
    t = backbone.embed(image).insert(torch.zeros(5, backbone.dim))
    for i in range(backbone.depth):
        t = backbone.block(i, t)
    return t
