"""A timm name to a backbone: what is loaded, and one sentence for what cannot be opened."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from conftest import FAMILIES, SIZE, tiny_backbone

from method_zoo.backbones.backbone import Backbone
from method_zoo.backbones.create import create_backbone
from method_zoo.errors import ZooError


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet18", "ResNet is not a plain"),
        ("swin_tiny_patch4_window7_224", "SwinTransformer is not a plain"),
        ("vgg11", "VGG is not a plain"),
        ("vit_tiny_r_s16_p8_224", "not a plain"),
        ("deit_tiny_distilled_patch16_224", "cannot be opened"),
        ("vit_small_patch16_18x2_224", "ParallelThingsBlock cannot be opened"),
        ("vit_tiny_patch16_224.of_nobody", "no pretrained weights 'of_nobody'; closest: vit_tiny_"),
        ("vit_tinny_patch16_224", "unknown backbone .*closest: vit_tiny_patch16_224"),
        ("", "unknown backbone"),
    ],
)
def test_models_that_cannot_be_opened(name, sentence):
    with torch.device("meta"), pytest.raises(ZooError, match=sentence):
        create_backbone(name)


def test_a_subclass_of_the_plain_vit_is_refused():
    # It may add tokens, or read them otherwise; silently leaving that out would be wrong.
    vit = timm.create_model("vit_tiny_patch16_224", **SIZE)
    vit.__class__ = type("Subclass", (type(vit),), {})
    with pytest.raises(ZooError, match="Subclass is not a plain"):
        Backbone(vit)


def test_weights_of_another_model_are_refused():
    state = tiny_backbone().vit.state_dict()
    name, size = FAMILIES["plain"]
    restored = create_backbone(name, copy.deepcopy(state), **size)
    assert torch.equal(restored.vit.cls_token, state["cls_token"])
    with pytest.raises(ZooError, match=r"1 tensors missing \['cls_token'\]"):
        create_backbone(name, {n: t for n, t in state.items() if n != "cls_token"}, **size)
    with pytest.raises(ZooError, match=r"1 unknown \['head.weight'\]"):
        create_backbone(name, state | {"head.weight": torch.zeros(1)}, **size)
    with pytest.raises(ZooError, match=r"1 of another shape \['norm.bias'\]"):
        create_backbone(name, state | {"norm.bias": torch.zeros(7)}, **size)
