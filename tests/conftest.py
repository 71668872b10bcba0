"""Tiny backbones, one line a family, and the images that tests share."""

from __future__ import annotations

import copy
import os
from functools import cache

if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core, so a thread for each process
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch, and for the processes of tests

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from method_zoo.backbones.backbone import Backbone
from method_zoo.backbones.create import create_backbone

# The same examples each time, kept nowhere, however busy the machine is.
settings.register_profile("tests", derandomize=True, database=None, deadline=None)
settings.load_profile("tests")

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
WHOLE = (
    PLAIN
    | EVA
    | {
        "beit": ("beit_base_patch16_224", SIZE | {"img_size": (64, 96)})  # the one size it takes
    }
)
WINDOWS = {
    # A grid of 4 x 4 is padded to four windows of 3 x 3; two blocks of four are global.
    "sam": ("samvit_base_patch16", SIZE | SAM | {"img_size": 64}),
    "sam_meta": ("sam_vit_b", SIZE | SAM | {"img_size": 64}),
}
FAMILIES = WHOLE | WINDOWS


@cache
def _family(name: str) -> Backbone:
    timm_name, size = FAMILIES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = create_backbone(timm_name, **size)
        with torch.no_grad():  # a fresh model hides biases and LayerScale: they start near zero
            for parameter in backbone.vit.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone


def tiny_backbone(family: str = "plain") -> Backbone:
    """A backbone of four blocks with every weight away from its start; a fresh copy."""
    return copy.deepcopy(_family(family))


def tiny_image(backbone: Backbone) -> Tensor:
    """Two images that suit the backbone, not square where it allows that: (2, 3, h, w)."""
    height, width = backbone.fixed_grid or (4, 6)
    size = (2, 3, height * backbone.stride, width * backbone.stride)
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=FAMILIES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """Each family in turn."""
    return tiny_backbone(request.param)
