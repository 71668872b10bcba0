"""Tiny backbones, one line a family, and the images and the run that tests share."""

import copy
import os
from functools import cache
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core, so a thread for each process
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch, and for the processes of tests

import pytest
import tiny_runs
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
BEIT = {"beit": ("beit_base_patch16_224", SIZE | {"img_size": (64, 96)})}  # the one size it takes
WHOLE = PLAIN | EVA | BEIT
WINDOWS = {
    # A grid of 4 x 4 is padded to four windows of 3 x 3; two blocks of four are global.
    "sam": ("samvit_base_patch16", SIZE | SAM | {"img_size": 64}),
    "sam_meta": ("sam_vit_b", SIZE | SAM | {"img_size": 64}),
}
FAMILIES = WHOLE | WINDOWS


def shake(module: torch.nn.Module) -> torch.nn.Module:
    """Move every weight off its start, near which biases and LayerScale would hide."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def moved(name: str, **options) -> Backbone:
    """A backbone of its own options with every weight away from its start."""
    torch.manual_seed(0)
    return shake(create_backbone(name, **options))


@cache
def _family(name: str) -> Backbone:
    timm_name, size = FAMILIES[name]
    with torch.random.fork_rng(devices=[]):
        return moved(timm_name, **size)


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


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of discs on noise, 24 pairs to train and 6 to test; tests only read it."""
    return tiny_runs.draw_data(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of LoRA on it; tests only read it."""
    runs = tmp_path_factory.mktemp("finished")
    done = tiny_runs.call(tiny_runs.arguments(data, runs))
    assert done.code == 0, done.stderr
    return tiny_runs.only_run(runs)
