"""Authors' checkpoints under our names: every tensor, the options that shapes tell, refusals."""

import pytest
import torch
from conftest import tiny_backbone
from reference_tensors import FOLDER, needs_reference, reference
from released_files import adaroute_file, conv_lora_file, lpmoe_file, sam_adapter_file, shaken
from torch import Tensor

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.model import released
from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.mask2former import Mask2Former
from lpmoe_bench.model.decoders.sam import SamDecoder
from lpmoe_bench.model.released import read_released
from method_zoo.adaroute import Center, DynamicAdapter
from method_zoo.options import get_method

WHOLE = {f"mask_decoder.{k}": torch.zeros(2) for k in ("iou_token.weight", "mask_tokens.weight")}
WHOLE |= {"prompt_encoder.no_mask_embed.weight": torch.ones(1, 256)}
WHOLE |= {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": torch.ones(2, 128)}


def method_of(name: str, family: str = "plain", **options):
    torch.manual_seed(0)
    return shaken(get_method(name)(tiny_backbone(family), **options))


def file_of(name: str) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """A method with random weights, and its checkpoint as its authors write it."""
    if name == "lpmoe":
        method = method_of("lpmoe", "beit", heads=1, ratio=0.25)
        decoder = Mask2Former(Inputs.of(method), 1)
        return method, lpmoe_file(method, shaken(decoder))
    if name == "sam_adapter":
        method = method_of("sam_adapter", "sam_meta", scale=8)
        return method, sam_adapter_file(method, WHOLE)
    if name == "conv_lora":
        method = method_of("conv_lora", "sam_meta", rank=2)
        return method, conv_lora_file(method, WHOLE, trained_alone=False)
    method = method_of("adaroute", bottleneck=8, experts=3, kernels=2, residual_scale=False)
    return method, adaroute_file(method)


@pytest.mark.parametrize(
    ("name", "options", "dropped"),
    [
        ("lpmoe", {"heads": 1, "points": 4, "ratio": 0.25, "width": 64}, {"auxiliary_head": 1}),
        ("sam_adapter", {"scale": 8, "layout": "official"}, {}),
        ("conv_lora", {"rank": 2, "experts": 8}, {"prompt_encoder": 1}),
        (
            "adaroute",
            {"bottleneck": 8, "experts": 3, "kernels": 2, "router": 16, "residual_scale": False},
            {"head": 1},
        ),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_tensor_finds_its_place(tmp_path, name, options, dropped, prefix):
    method, state = file_of(name)
    torch.save({prefix + k: t for k, t in state.items()}, tmp_path / "a.pth")
    found = read_released(tmp_path / "a.pth", name)
    assert (found.options, found.dropped) == (options, dropped)
    own = method.adapter_state()
    assert found.method.keys() == own.keys()
    assert all(torch.equal(found.method[k], t) for k, t in own.items())
    plain = tiny_backbone({"lpmoe": "beit", "adaroute": "plain"}.get(name, "sam_meta")).state()
    assert found.backbone.keys() == plain.keys()
    assert all(torch.equal(found.backbone[k], t) for k, t in plain.items())


def test_the_decoder_of_controllable_lpmoe_is_whole(tmp_path):
    _, state = file_of("lpmoe")
    torch.save(state, tmp_path / "a.pth")
    found = read_released(tmp_path / "a.pth", "lpmoe")
    assert found.decoder == "mask2former"
    assert found.decoder_options == {"width": 64, "queries": 100, "layers": 9}
    own = Mask2Former(Inputs([12] * 4, [4, 8, 16, 32], 48), 1).state_dict()
    assert {k: t.shape for k, t in found.decoder_state.items()} == {
        k: t.shape for k, t in own.items()
    }
    head = {k: t for k, t in state.items() if k.startswith("decode_head.")}
    torch.save({k: t for k, t in state.items() if k not in head}, tmp_path / "b.pth")
    assert read_released(tmp_path / "b.pth", "lpmoe").decoder == ""


def test_an_adapter_without_its_backbone_is_read_too(tmp_path):
    method, state = file_of("lpmoe")
    bare = {k.removeprefix("backbone."): t for k, t in state.items() if ".blocks" not in k}
    torch.save({k: t for k, t in bare.items() if "head" not in k}, tmp_path / "a.pth")
    assert read_released(tmp_path / "a.pth", "lpmoe").method.keys() == method.adapter_state().keys()


def test_names_of_a_whole_sam_decoder_are_metas():
    own = {k.removeprefix("mask_decoder."): t for k, t in SamDecoder(Inputs([256], [16], 256), 1)
           .state_dict().items() if k.startswith("mask_decoder.")}  # fmt: skip
    back = {v: k for k, v in released.sam_decoder_names().items()}
    for name in own:
        assert any(name.startswith(begin) for begin in back), name


@needs_reference
def test_names_of_autogluons_decoder_are_those_of_its_own_module():
    _, state = reference("autogluon_multiclass_sam_head")
    ours, left = released.rename(state, released.sam_decoder_names())
    assert set(left) == {"output_classifier_mlps.weight", "output_classifier_mlps.bias"}
    own = {k.removeprefix("mask_decoder.") for k in SamDecoder(Inputs([256], [16], 256), 1)
           .state_dict() if k.startswith("mask_decoder.") and "iou_pred" not in k}  # fmt: skip
    assert ours.keys() == own


@needs_reference
def test_names_of_adaroutes_module_are_those_of_its_own_network():
    tensors = reference("adaroute_swin")[0]
    place = "weights.layers.0.blocks.0.adapter1."
    state = {k.removeprefix(place): t for k, t in tensors.items() if k.startswith(place)}
    ours, left = released.rename(state, released.adaroute_module_names())
    assert set(left) == {"logit_scale"}
    ours = released.cascade_scalars(ours)
    module, center = DynamicAdapter(24, 8, 2, 3, 16, 1.0), Center(24, 8, 2, (3, 5, 7))
    module.load_state_dict(ours)
    assert [k.item() for k in module.keep] == state["conv_res_scale"][0::2].tolist()
    assert [k.item() for k in module.carry] == state["conv_res_scale"][1::2].tolist()
    place = "weights.peft_params.0."
    experts = {k.removeprefix(place): t for k, t in tensors.items() if k.startswith(place)}
    center.load_state_dict(released.rename(experts, released.center_names())[0])


@needs_reference
def test_a_network_of_stages_is_told_apart():
    with pytest.raises(DataError, match="on a backbone of 4 stages, Swin or ConvNeXt"):
        read_released(FOLDER / "adaroute_swin.safetensors", "adaroute")


def without(*parts: str):
    return lambda state: {k: t for k, t in state.items() if not any(p in k for p in parts)}


def filled(name: str, value: float):
    return lambda state: state | {k: t.fill_(value) for k, t in state.items() if k.endswith(name)}


def put(name: str, tensor: Tensor):
    return lambda state: {k: tensor if k.endswith(name) else t for k, t in state.items()}


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("lpmoe", without("module1.stem"), "is no checkpoint of Controllable-LPMoE: no name in it"),
        ("lpmoe", without("level_embed"), "has no level, so it is not whole"),
        (
            "lpmoe",
            put("level_embed", torch.ones(3)),
            "of shapes that no checkpoint of Controllable",
        ),
        ("sam_adapter", put("shared_mlp.weight", torch.ones(48, 0)), "of shapes that no .* has"),
        ("adaroute", put("projA_params", torch.ones(4)), "of shapes that no .* has"),
        ("sam_adapter", filled("shared_mlp.bias", float("nan")), "our 'prompts.up.bias' holds NaN"),
        ("conv_lora", without("lora_moe"), "LoRA alone, without the experts of Conv-LoRA"),
        ("conv_lora", without("lora_A"), "no name in it ends in vision_encoder.layers.0.attn"),
        ("adaroute", filled("logit_scale", 0.5), "learnt temperatures"),
        (
            "conv_lora",
            lambda s: s | {"model.model.mask_decoder.output_classifier_mlps.weight": torch.ones(1)},
            "AutoGluon's of several classes",
        ),
        (
            "adaroute",
            lambda s: s | {f"ema.{k}": t for k, t in s.items()},
            "holds several models, under '', 'ema.'",
        ),
    ],
)
def test_what_is_no_such_checkpoint_is_one_sentence(tmp_path, name, change, sentence):
    torch.save(change(file_of(name)[1]), tmp_path / "a.pth")
    with pytest.raises(DataError, match=sentence):
        read_released(tmp_path / "a.pth", name)


def test_other_methods_have_no_layout(tmp_path):
    with pytest.raises(
        UsageError, match="known are the layouts of adaroute, conv_lora, lpmoe, sam"
    ):
        read_released(tmp_path / "a.pth", "mona")
