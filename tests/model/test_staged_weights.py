"""Files of hierarchical models: timm's names and those of their authors, and what is refused."""

import re

import pytest
import torch
from conftest import tiny_backbone

from lpmoe_bench.errors import DataError
from lpmoe_bench.model.decoders.names import build_decoder
from lpmoe_bench.model.weights.checkpoint import Checkpoint
from lpmoe_bench.model.weights.fitting import state_for
from lpmoe_bench.model.weights.layouts import find_model
from lpmoe_bench.model.weights.resolve import load_backbone, resolve_weights
from method_zoo.options import get_method

NAMES = {
    "swin": "swin_tiny_patch4_window7_224",
    "swin_v2": "swinv2_tiny_window8_256",
    "convnext": "convnext_tiny",
    "convnext_v2": "convnextv2_tiny",
    "hiera": "sam2_hiera_tiny",
}


def taken(family: str, tensors: dict[str, torch.Tensor]):
    """What is read from a file of these tensors for a backbone of the family."""
    checkpoint = Checkpoint(tensors, (), {})
    return state_for(find_model(checkpoint), checkpoint, tiny_backbone(family), NAMES[family])


def renamed(tensors: dict[str, torch.Tensor], rules: dict[str, str]) -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in tensors.items():
        for pattern, new in rules.items():
            name = re.sub(pattern, new, name)
        found[name] = tensor
    return found


def earlier(match: re.Match[str]) -> str:
    return f"layers.{int(match[1]) - 1}.downsample"


ORIGINAL = {
    "swin": {r"layers\.(\d)\.downsample": earlier},
    "swin_v2": {r"layers\.(\d)\.downsample": earlier},
    "convnext": {
        r"stages\.(\d)\.downsample\.": r"downsample_layers.\1.",
        r"^stem\.": "downsample_layers.0.",
        r"stages\.(\d)\.blocks\.": r"stages.\1.",
        "conv_dw": "dwconv",
        r"mlp\.fc": "pwconv",
        r"head\.norm": "norm",
    },
    "hiera": {
        r"^": "image_encoder.trunk.",
        r"mlp\.fc1": "mlp.layers.0",
        r"mlp\.fc2": "mlp.layers.1",
    },
}


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_timms_names_are_read(family, prefix):
    own = tiny_backbone(family).state()
    found = taken(family, {prefix + k: t for k, t in own.items()})
    assert found.state.keys() == own.keys()
    assert all(torch.equal(t, own[k]) for k, t in found.state.items())
    assert found.said == ((f"prefix '{prefix}' stripped",) if prefix else ())


@pytest.mark.parametrize("family", ORIGINAL)
def test_the_authors_names_are_read(family):
    own = tiny_backbone(family).state()
    tensors = renamed(own, ORIGINAL[family])
    assert tensors.keys() != own.keys()
    place = "layers.0.blocks.0.attn.relative_position_index"
    tensors |= {place: torch.zeros(9, 9)} if "swin" in family else {}
    found = taken(family, tensors)
    assert found.state.keys() == own.keys()
    assert all(torch.equal(t, own[k]) for k, t in found.state.items())


def test_tables_of_other_windows_are_resized_and_that_is_said():
    own = tiny_backbone("swin").state()
    tensors = {
        k: torch.ones(81, t.shape[1]) if k.endswith("bias_table") else t for k, t in own.items()
    }
    found = taken("swin", tensors)
    assert found.said == (
        "resized 6 tables of places, such as layers.0.blocks.0.attn.relative_position_bias_table",
    )
    table = found.state["layers.0.blocks.0.attn.relative_position_bias_table"]
    torch.testing.assert_close(table, torch.ones(25, 2), atol=1e-3, rtol=0)


def test_what_is_another_model_is_refused():
    with pytest.raises(DataError, match=r"no stages, which swin_tiny.* a plain ViT, 48 wide"):
        taken("swin", tiny_backbone("plain").state())
    with pytest.raises(DataError, match="it holds a ResNet, not convnext_tiny"):
        taken("convnext", {"layer1.0.conv1.weight": torch.ones(1)})
    with pytest.raises(DataError, match="tensors missing"):
        taken("swin", tiny_backbone("swin_v2").state())
    two = {f"{side}.{k}": t for k, t in tiny_backbone("swin").state().items() for side in "ab"}
    with pytest.raises(DataError, match=r"several models, 'a\.' and 'b\.'"):
        taken("swin", two)


@pytest.mark.parametrize("decoder", ["fpn", "upernet", "mask2former"])
@pytest.mark.parametrize("family", ["swin", "convnext", "hiera"])
def test_decoders_read_the_maps_as_they_are(family, decoder):
    method = get_method("decoder_only")(tiny_backbone(family))
    made = []
    for strides in (method.backbone.strides, [16] * 4):
        method.strides = strides
        head = build_decoder(decoder, method, 2, {"width": 32})
        made.append([n for n, _ in head.named_parameters() if ".up." in n or "refine" in n])
    assert not made[0]  # no map is made of another one; of one stride they would have to be
    assert made[1]
    image = torch.rand(1, 3, 64, 96)
    method.strides = method.backbone.strides
    head = build_decoder(decoder, method, 2, {"width": 32}).eval()
    assert head.predict(method(image), (64, 96)).shape == (1, 2, 64, 96)


def test_random_weights_and_facts_of_a_hierarchical_name(tmp_path):
    weights = resolve_weights("swin_tiny_patch4_window7_224", "random", tmp_path, offline=True)
    assert (weights.facts.patch, weights.facts.grid) == (4, None)
    with torch.device("meta"):
        assert load_backbone(weights).strides == [4, 8, 16, 32]
