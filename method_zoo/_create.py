"""A timm name to a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import timm
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from ._backbone import Backbone
from ._errors import ZooError
from ._sam import Sam

# Another class than these is for the plain family to open or to refuse.
FAMILIES: dict[type[nn.Module], type[Backbone]] = {VisionTransformerSAM: Sam}


def check_backbone_name(name: str, also: Iterable[str] = ()) -> None:
    """Raise ZooError with the closest names unless `name` is a timm model, with or without tag.

    `also` are further names the caller knows, offered among the closest.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = [*also, *timm.list_models()]
        close = ", ".join(get_close_matches(name, known, n=5) or ["vit_small_patch16_224"])
        raise ZooError(f"unknown backbone '{name}'; use a timm model name, closest: {close}")
    tagged = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in tagged:
        close = ", ".join(get_close_matches(name, tagged, n=5, cutoff=0) or [architecture])
        raise ZooError(f"{architecture} has no pretrained weights '{tag}'; closest: {close}")


def create_backbone(
    name: str,
    state: dict[str, Tensor] | None = None,
    pos_antialias: bool | None = None,
    **kwargs,
) -> Backbone:
    """Build a frozen backbone by its timm name; no files are read.

    `state` is the timm state dict, loaded strictly; without it the weights are timm's random ones.
    `pos_antialias` says how position tables are resized; by default as timm does it (with).
    Raises ZooError for an unknown name, an unsupported model or a state that does not fit.
    """
    check_backbone_name(name)
    try:
        vit = timm.create_model(name, pretrained=False, num_classes=0, global_pool="", **kwargs)
    except AssertionError as error:  # how timm says that a model cannot go without pooling
        raise ZooError(f"{name} cannot be opened ({error}); use a plain vit_* model") from None
    family = FAMILIES.get(type(vit), Backbone)
    backbone = family(vit, True if pos_antialias is None else pos_antialias)
    if state is not None:
        backbone.load(state)
    return backbone
