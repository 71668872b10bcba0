"""Layers in parts seen as one: what they compute, how they are written, saved and loaded."""

import pytest
import torch
from conftest import EVA, tiny_backbone
from opened import image_of, opened
from torch import nn

from method_zoo.backbones.linear import Joined, Qkv, rewrite
from method_zoo.errors import ZooError


def one_linear(layer: nn.Linear) -> nn.Linear:
    """A plain layer of the same weight and bias."""
    plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
        if layer.bias is not None:
            plain.bias.copy_(layer.bias)
    return plain


def layers() -> dict[str, nn.Linear]:
    torch.manual_seed(0)
    sizes = {"a": 4, "b": 4, "c": 5}
    some = {name: nn.Linear(6, size, bias=name != "b") for name, size in sizes.items()}
    none = {name: nn.Linear(6, 4, bias=False) for name in "abc"}
    biases = [nn.Parameter(torch.randn(4)) for _ in range(2)]
    return {
        "joined": Joined(**some),
        "without bias": Joined(**none),
        "keyless": Qkv(nn.Linear(6, 12, bias=False), *biases),
        "plain": nn.Linear(6, 12),
    }


@pytest.mark.parametrize("kind", layers())
def test_computes_what_one_layer_does(kind):
    layer, x = layers()[kind], torch.randn(2, 3, 6)
    plain = one_linear(layer)
    assert (layer.bias is None) == (kind == "without bias")
    torch.testing.assert_close(layer(x), plain(x))


@pytest.mark.parametrize("kind", layers())
def test_rewritten_it_computes_the_new_weight_and_bias(kind):
    layer, x = layers()[kind], torch.randn(2, 3, 6)
    kept = None if layer.bias is None else layer.bias.clone()
    weight, bias = torch.randn_like(layer.weight), torch.randn(layer.out_features)
    rewrite(layer, weight)
    assert torch.equal(layer.weight, weight)
    assert layer.bias is None if kept is None else torch.equal(layer.bias, kept)
    rewrite(layer, bias=bias)
    assert torch.equal(layer.bias, bias)  # of the keys too, which had none
    torch.testing.assert_close(layer(x), x @ weight.T + bias)
    for name, parameter in layer.named_parameters():
        assert parameter.grad_fn is None, name


def test_keys_without_bias_train_none():
    names = {name for name, _ in layers()["keyless"].named_parameters()}
    assert names == {"weight", "q_bias", "v_bias"}


@pytest.mark.parametrize("family", [*EVA, "beit", "sam_meta"])
def test_a_state_has_the_names_of_its_library(family):
    backbone = tiny_backbone(family)
    state = backbone.state()
    expected = {
        "eva02": ("blocks.0.attn.k_proj.weight", "blocks.0.mlp.fc1_g.bias"),
        "eva02_fused": ("blocks.0.attn.q_bias", "blocks.0.attn.qkv.weight"),
        "dinov3": ("blocks.0.attn.qkv.weight", "reg_token"),
        "beit": ("blocks.0.attn.v_bias", "blocks.0.attn.relative_position_bias_table"),
        "sam_meta": ("blocks.0.mlp.lin1.weight", "neck.1.weight"),
    }
    assert set(expected[family]) <= state.keys()
    assert not any("attn.qkv.q" in n or "fc1.fc1_" in n for n in state)


@pytest.mark.parametrize("family", [*EVA, "beit"])
def test_a_merged_state_brings_biases_that_were_none(family):
    backbone, image = tiny_backbone(family), image_of(64, 96)
    for block in backbone.vit.blocks:
        rewrite(block.attn.qkv, bias=torch.randn(3 * backbone.dim))
    merged = backbone.state()
    assert len(merged) > len(tiny_backbone(family).state())
    fresh = tiny_backbone(family)
    before = opened(fresh, image)
    fresh.load(merged)
    assert torch.equal(opened(fresh, image), opened(backbone, image))
    assert not torch.allclose(opened(fresh, image), before)
    assert not any(p.requires_grad for p in fresh.parameters())
    fresh.load(merged)  # which has a place for all of it by now


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blocks.0.attn.qkv.bias", (7,)),
        ("blocks.0.attn.qkv.other_bias", (144,)),
        ("blocks.0.norm1.spare_bias", (48,)),
        ("bias", (48,)),
    ],
)
def test_no_bias_is_invented(name, shape):
    backbone = tiny_backbone("dinov3")
    with pytest.raises(ZooError, match=rf"1 unknown \['{name}'\]"):
        backbone.load(backbone.state() | {name: torch.zeros(shape)})
    assert torch.equal(opened(backbone, image_of(64, 64)), opened(backbone, image_of(64, 64)))
