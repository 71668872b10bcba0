"""The contract of a method on tiny backbones of every family, check by check."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backbones.backbone import STRIDE, Backbone
from ..backbones.create import create_backbone
from ..errors import ZooError
from ..method import Method
from ..plugins import describe_error, explain_fault
from .checks import CHECKS
from .observe import BrokenPromise, Build

# Width 48 with 3 heads: both 48 and its half divide by the heads, as deformable attention needs.
SIZE = {"embed_dim": 48, "depth": 4, "num_heads": 3}
SAM = {"window_size": 3, "global_attn_indexes": (1, 3)}
PLAIN = {
    "plain": ("vit_tiny_patch16_224", SIZE | {"img_size": 64}),
    "dinov2": ("vit_small_patch14_dinov2", SIZE | {"img_size": 56}),
    "registers": ("vit_small_patch14_reg4_dinov2", SIZE | {"img_size": 56}),
}
EVA = {
    "eva02": ("eva02_base_patch14_224", SIZE | {"img_size": 56}),  # three layers to q, k and v
    "eva02_fused": ("eva02_small_patch14_224", SIZE | {"img_size": 56}),  # one, no bias of keys
    "dinov3": ("vit_small_patch16_dinov3", SIZE | {"img_size": 64}),
}
BEIT = {"beit": ("beit_base_patch16_224", SIZE | {"img_size": (64, 96)})}  # the one size it takes
WHOLE = PLAIN | EVA | BEIT
WINDOWS = {
    # A grid of 4 x 4 is padded to four windows of 3 x 3; two blocks of four are global.
    "sam": ("samvit_base_patch16", SIZE | SAM | {"img_size": 64}),
    "sam_meta": ("sam_vit_b", SIZE | SAM | {"img_size": 64}),
}
# Widths 24 to 192; windows of 3, which divide the grids of some images only.
STAGES = {"embed_dim": 24, "depths": (2, 1, 2, 1), "num_heads": (2, 2, 4, 4)}
SWIN = STAGES | {"window_size": 3, "img_size": 64}
CONVNEXT = {"dims": (24, 48, 96, 192), "depths": (2, 1, 2, 1)}
# Block 4 attends over the whole grid, the others in windows of 4, 2, 4, 2.
HIERA = {"embed_dim": 24, "num_heads": 1, "stages": (2, 1, 2, 1), "window_spec": (4, 2, 4, 2)}
STAGED = {
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
    "swin_v2": ("swinv2_tiny_window8_256", SWIN),
    "convnext": ("convnext_tiny", CONVNEXT),
    "convnext_v2": ("convnextv2_tiny", CONVNEXT),
    "hiera": ("sam2_hiera_tiny", HIERA | {"global_att_blocks": (4,)}),
}
FAMILIES = WHOLE | WINDOWS | STAGED


def shake(module: torch.nn.Module) -> torch.nn.Module:
    """Move every weight off its start, near which biases and LayerScale would hide."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def shaken_backbone(name: str, **options: Any) -> Backbone:
    """Return a backbone of its own options with every weight away from its start."""
    torch.manual_seed(0)
    backbone = create_backbone(name, **options)
    shake(backbone)
    return backbone


@cache
def _family(name: str) -> Backbone:
    timm_name, size = FAMILIES[name]
    with torch.random.fork_rng(devices=[]):
        return shaken_backbone(timm_name, **size)


def tiny_backbone(family: str = "plain") -> Backbone:
    """Return a backbone of four blocks with every weight away from its start; a fresh copy."""
    return copy.deepcopy(_family(family))


def tiny_image(backbone: Backbone) -> Tensor:
    """Return two images that suit the backbone, not square where it allows that: (2, 3, h, w)."""
    height, width = backbone.fixed_grid or (4, 6)  # seen at stride 16
    size = (2, 3, height * STRIDE, width * STRIDE)
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


def family_for(method: type[Method]) -> str:
    """Return the first family that a method goes on: plain, but for one made for others."""
    made_for = method.made_for
    kinds = {name: type(_family(name)).__name__ for name in FAMILIES} if made_for else {}
    return next((name for name, kind in kinds.items() if kind in made_for), "plain")


# One method, all checks.

HOLDS, BROKEN, OPEN = "holds", "broken", "does not apply"


class Checked(NamedTuple):
    """What became of one check on one family: holds, broken, or does not apply, and why."""

    family: str
    check: str
    outcome: str
    words: str


def check_method(
    method: type[Method],
    families: Iterable[str] = ("plain",),
    options: Mapping[str, Any] | None = None,
    checks: Iterable[str] = tuple(CHECKS),
    count: Callable[[Backbone], int] | None = None,
) -> Iterator[Checked]:
    """Hold a method against the contract that all methods of the zoo keep.

    Args:
        method: the class.
        families: of backbones, names of `FAMILIES`; each is a tiny one with random weights.
        options: of the method, other than its defaults.
        checks: names of `CHECKS`.
        count: gives the number of trainable parameters for a backbone, from a formula that was
            derived by hand. Without it the check `count` does not apply.

    Yields:
        What became of each check, as it ends. A backbone that the method refuses by a ZooError is
        one line with the check `build`.
    """
    chosen = list(checks)
    for family in families:
        backbone = tiny_backbone(family)
        build = Build(method, backbone, count, dict(options or {}))
        try:
            build()
        except ZooError as error:
            yield Checked(family, "build", OPEN, f"it refuses this backbone: {error}")
            continue
        except Exception as error:
            yield Checked(family, "build", BROKEN, explain_fault(error) or describe_error(error))
            continue
        image = tiny_image(backbone)
        for name in chosen:
            yield Checked(family, name, *_outcome(name, build, image))


def _outcome(name: str, build: Build, image: Tensor) -> tuple[str, str]:
    if name == "count" and build.count is None:
        return OPEN, "no formula for the trainable parameters is given"
    try:
        with torch.random.fork_rng(devices=[]):
            reason = CHECKS[name](build, image)
    except BrokenPromise as error:
        return BROKEN, str(error)
    except Exception as error:  # of the method's own code, or of what it was given
        return BROKEN, explain_fault(error) or describe_error(error)
    return (OPEN, reason) if reason else (HOLDS, (CHECKS[name].__doc__ or name).splitlines()[0])
