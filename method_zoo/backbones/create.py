"""A backbone's name, timm's or one that timm does not have, to a frozen backbone."""

from collections.abc import Iterable
from difflib import get_close_matches

import timm
from timm.models import model_entrypoint
from timm.models.beit import Beit as TimmBeit
from timm.models.convnext import ConvNeXt as TimmConvNeXt
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva as TimmEva
from timm.models.hieradet_sam2 import HieraDet
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from ..errors import ZooError
from .backbone import STRIDE, Backbone
from .beit import Beit
from .convnext import ConvNeXt
from .deit import Distilled
from .eva import Eva
from .hiera import Hiera
from .sam import META_SAM, Sam, meta_encoder
from .swin import Swin
from .swin_v2 import SwinV2
from .uniperceiver import NAME as UNI_PERCEIVER
from .uniperceiver import POS_ANTIALIAS, uni_perceiver

# Another class than these is for the plain family to open or to refuse.
FAMILIES: dict[type[nn.Module], type[Backbone]] = {
    VisionTransformerSAM: Sam,
    TimmEva: Eva,
    TimmBeit: Beit,
    VisionTransformerDistilled: Distilled,
    SwinTransformer: Swin,
    SwinTransformerV2: SwinV2,
    TimmConvNeXt: ConvNeXt,
    HieraDet: Hiera,
}
SWINS = (SwinTransformer.__module__, SwinTransformerV2.__module__)
OTHERS = (*META_SAM, UNI_PERCEIVER)  # names that timm does not have


def check_backbone_name(name: str, also: Iterable[str] = ()) -> None:
    """Refuse a name that no backbone has.

    Args:
        name: a timm model, with or without the tag of its weights, or one of `OTHERS`.
        also: further names that the caller knows, offered among the closest.

    Raises:
        ZooError: The name is unknown; the closest ones are named.
    """
    if name in OTHERS:
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = [*also, *OTHERS, *timm.list_models()]
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
    size: tuple[int, int] | None = None,
    **kwargs,
) -> Backbone:
    """Build a frozen backbone by its name; no files are read.

    Args:
        name: a timm model, with or without the tag of its weights, or one of `OTHERS`.
        state: the model's own state dict, loaded strictly; without it the weights are random.
        pos_antialias: how position tables are resized; by default as `resizes_smoothly` says.
        size: height and width of the images in pixels. It matters to a model of one fixed grid,
            which is built for it; any other takes every size.
        kwargs: further arguments of the model.

    Returns:
        The backbone, all of it frozen.

    Raises:
        ZooError: The name is unknown, the model cannot be opened, or the state does not fit.
    """
    check_backbone_name(name)
    if name in META_SAM:
        family, vit = Sam, meta_encoder(name, **kwargs)
    elif name == UNI_PERCEIVER:
        family, vit = Backbone, uni_perceiver(**kwargs)
    else:
        vit = _timm_model(name, size, kwargs)
        # By the exact type: a subclass may compute what its parent's family leaves out.
        family = FAMILIES.get(type(vit), Backbone)
    antialias = resizes_smoothly(name) if pos_antialias is None else pos_antialias
    backbone = family(vit, antialias)
    if state is not None:
        backbone.load(state)
    return backbone


def resizes_smoothly(name: str) -> bool:
    """Say whether the authors of a model resize its position table with antialias.

    Those of Uni-Perceiver do not; of others it is what timm does, with antialias.
    """
    return POS_ANTIALIAS if name == UNI_PERCEIVER else True


def _timm_model(name: str, size: tuple[int, int] | None, kwargs: dict) -> nn.Module:
    """Build timm's model without its head, of random weights, as its family needs it built."""
    module = model_entrypoint(name.partition(".")[0]).__module__
    if module == TimmEva.__module__:
        # With a grid of its own it would keep one table of rotations, that of its native size.
        kwargs = {"dynamic_img_size": True} | kwargs
    if module == TimmBeit.__module__ and size is not None:
        patch = kwargs.get("patch_size", STRIDE)  # every BEiT of timm has patches of 16 pixels
        kwargs = {"img_size": tuple(side // STRIDE * patch for side in size)} | kwargs
    if module in SWINS:  # windows stay as they are on any grid, as the authors have it
        kwargs = {"always_partition": True, "strict_img_size": False} | kwargs
    # The class of distilled DeiT cannot be built without pooling; nothing here pools.
    pool = "token" if "distilled" in name else ""
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, global_pool=pool, **kwargs)
    except AssertionError as error:  # how timm says that a model cannot go without pooling
        raise ZooError(f"{name} cannot be opened ({error}); use a plain vit_* model") from None
