"""The contract of methods, and parameters counted by a formula."""

import copy

import broken_methods
import pytest
import torch
from conftest import tiny_backbone, tiny_image
from sound_methods import Adapter, Scaled, adapter_count, scaled_count

from method_zoo.backbones.create import create_backbone
from method_zoo.contract.checks import CHECKS
from method_zoo.contract.observe import Build
from method_zoo.method import Method
from method_zoo.options import get_method

BROKEN: dict[type[Method], str] = {
    item: item.breaks for item in vars(broken_methods).values() if hasattr(item, "breaks")
}
COMPILE = "compile"  # seconds rather than milliseconds
# torch 2.6, the oldest that is allowed, cannot compile `_replace` of a named tuple.
COMPILES = tuple(map(int, torch.__version__.split(".")[:2])) > (2, 6)


def failing(method: type[Method], checks: list[str], formula: bool = True) -> set[str]:
    """Return the checks that the method does not pass."""
    backbone = tiny_backbone()
    count = scaled_count if issubclass(method, Scaled) else adapter_count
    build = Build(method, backbone, count if formula else None)
    found = set()
    for name in checks:
        try:
            CHECKS[name](build, tiny_image(backbone))
        except (Exception, pytest.fail.Exception):
            found.add(name)
    return found


def test_sound_methods_pass():
    checks = [name for name in CHECKS if COMPILES or name != COMPILE]
    assert failing(Adapter, checks) == set()
    assert failing(Scaled, [name for name in CHECKS if name != COMPILE]) == set()


@pytest.mark.parametrize("method", BROKEN, ids=lambda method: method.__name__)
def test_exactly_the_broken_promise_is_noticed(method):
    checks = [name for name in CHECKS if name != COMPILE or name == BROKEN[method]]
    assert failing(method, checks) == {BROKEN[method]}


def test_a_missing_formula_is_noticed():
    checks = [name for name in CHECKS if name != COMPILE]
    assert failing(Adapter, checks, formula=False) == {"count"}


def test_every_check_has_a_method_that_breaks_it():
    assert set(BROKEN.values()) == CHECKS.keys()


# Trainable parameters on real EVA-02, DINOv3, BEiT and Meta's SAM, worked out by hand.


# Blocks of a width d with 2 d of biases into keys, queries and values (EVA, BEiT) or none (DINOv3);
# the SwiGLU of EVA-02 has two layers of 8/3 d and, from its base size on, a norm between.
COUNTS = {
    "eva02_small_patch14_224": {
        "lora": 12 * 8 * 4 * 384,
        "bitfit": 12 * (6 * 384 + 2 * 1024) + 2 * 384,
        "ssf": 12 * 2 * (7 * 384 + 2 * 1024) + 4 * 384,
        "rep_adapter": 120_000,  # as on a plain ViT of that width
    },
    "eva02_base_patch14_224": {
        "lora": 12 * 8 * 4 * 768,
        "bitfit": 12 * (6 * 768 + 3 * 2048) + 2 * 768,
        "ln_tune": 12 * (4 * 768 + 2 * 2048) + 2 * 768,
        "fact": 2 * 768 * 16 + 12 * (3 + 1 + 6 + 3) * 16**2,  # 4096 and 2048 are cut at 768
    },
    "vit_small_patch16_dinov3": {
        "bitfit": 12 * 8 * 384 + 2 * 384,
        "full": 295_296 + 5 * 384 + 12 * (12 * 384**2 + 12 * 384) + 2 * 384,
    },
    "beit_base_patch16_224": {
        "bitfit": 12 * 10 * 768 + 2 * 768,
        "ssf": 205_824,
        # 86,530,984 with the head for a thousand classes, as timm lists it.
        "full": 86_530_984 - 1000 * 769,
        "partial": 12 * 768**2 + 14 * 768 + 12 * (27**2 + 3) + 2 * 768,
    },
    "sam_vit_b": {"bitfit": 102_656, "ln_tune": 12 * 4 * 768 + 4 * 256, "conv_lora": 119_232},
}


@pytest.mark.parametrize("name", COUNTS)
def test_count(name):
    with torch.device("meta"):  # no weight is drawn, and none takes memory
        backbone = create_backbone(name)
        for method, count in COUNTS[name].items():
            trainable = get_method(method)(copy.deepcopy(backbone)).trainable().values()
            assert sum(p.numel() for p in trainable) == count, method
