"""Checkpoints in published layouts: each gives the model it was made of, or one clear sentence."""

import argparse
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import published_weights as pub
import pytest
import torch
from conftest import shake
from opened import image_of, opened
from safetensors.torch import save_file
from torch import Tensor

from lpmoe_bench.config.settings import STATISTICS, FactsConfig
from lpmoe_bench.errors import DataError
from lpmoe_bench.model.weights.layouts import FoundModel, backbone_for
from lpmoe_bench.model.weights.resolve import Weights, load_backbone, resolve_weights
from method_zoo.backbones import create

PLAIN, SMALL = "vit_small_patch16_224", pub.SIZE | {"img_size": 64}
DEIT, DINO2 = "deit_small_distilled_patch16_224", "vit_small_patch14_dinov2"
REGISTERS, DINO3 = "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"
UNI = "uni_perceiver_large"
SIZES = {
    DINO2: pub.SIZE | {"img_size": 56},
    REGISTERS: pub.SIZE | {"img_size": 56},
    "vit_giant_patch14_dinov2": pub.SIZE | {"img_size": 56},
    DINO3: pub.SIZE,
    f"{DINO3}_qkvb": pub.SIZE,
    "sam_vit_b": pub.SAM,
    "samvit_base_patch16": pub.SAM,
    UNI: pub.SIZE | {"img_size": 64},
}
BUILD = create.create_backbone


@cache
def reference(name: str, **more: Any) -> dict[str, Tensor]:
    """The state of a tiny backbone, every tensor off its start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = shake(BUILD(name, **(SIZES.get(name, SMALL) | more)))
    return {n: t.detach().clone() for n, t in backbone.state().items()}  # type: ignore[operator]


def build(name: str, *args, **kwargs):
    return BUILD(name, *args, **(SIZES.get(name.partition(".")[0], SMALL) | kwargs))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Every backbone of a name is a tiny one."""
    monkeypatch.setattr(create, "create_backbone", build)


def saved(folder, content: Any, suffix: str = ".pth", **options):
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({name: t.contiguous() for name, t in content.items()}, path)
    else:
        torch.save(content, path, **options)
    return path


def resolved(path, name: str, **facts: Any) -> Weights:
    asked = FactsConfig.model_validate(facts)
    return resolve_weights(name, str(path), path.parent, offline=True, facts=asked)


def check(weights: Weights, expected: dict[str, Tensor]) -> None:
    state = load_backbone(weights).state()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6, msg=name)


# How the weights of one model lie in a file.

PREFIXES = ["", "module.", "model.", "backbone.", "encoder.", "image_encoder.", "_orig_mod."]
PREFIXES += ["teacher.backbone.", "module.backbone.", "_orig_mod.module.", "model.encoder."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_one_common_prefix_is_stripped_and_said(tmp_path, prefix):
    beside = (
        {"decode_head.conv.weight": torch.ones(2)} if prefix else {"head.weight": torch.ones(2)}
    )
    state = reference(PLAIN)
    weights = resolved(saved(tmp_path, pub.under(prefix, state) | beside), PLAIN)
    check(weights, state)
    assert (f"prefix '{prefix}' stripped" in weights.read) == bool(prefix)
    assert any("left out" in said and "(1)" in said for said in weights.read)


NESTED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "model": (lambda s: {"model": s, "epoch": 3}, "taken from 'model'"),
    "state_dict": (lambda s: {"state_dict": s, "hyper_parameters": {"lr": 1}}, "'state_dict'"),
    "teacher": (lambda s: {"student": other(s), "teacher": s}, "'teacher' was taken"),
    "model_ema": (lambda s: {"model": other(s), "model_ema": s}, "'model_ema' was taken"),
    "ema": (lambda s: {"state_dict": other(s), "ema": {"module": s}}, "'ema' was taken"),
    "state_dict_ema": (lambda s: {"state_dict": other(s), "state_dict_ema": s}, "_ema' was taken"),
    "twice": (lambda s: {"state_dict": {"model": s}}, "taken from 'state_dict.model'"),
    "unknown": (lambda s: {"vision_model": s, "args": argparse.Namespace(lr=1)}, "'vision_model'"),
    "optimiser": (
        lambda s: {
            "net": s,
            "optimizer": {"state": {0: {"a.b": torch.ones(9)}}},
            "step": torch.ones(1),
        },
        "taken from 'net'",
    ),
    "side by side": (
        lambda s: pub.under("student.backbone.", other(s)) | pub.under("teacher.backbone.", s),
        "'teacher.backbone.' was taken",
    ),
}


def other(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in state.items()}


@pytest.mark.parametrize("case", NESTED)
def test_the_part_that_is_evaluated_is_taken_and_said(tmp_path, case):
    nest, said = NESTED[case]
    weights = resolved(saved(tmp_path, nest(reference(PLAIN))), PLAIN)
    check(weights, reference(PLAIN))
    assert any(said in one for one in weights.read), weights.read


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".PTH"])
def test_every_kind_of_file_is_read(tmp_path, suffix):
    check(resolved(saved(tmp_path, reference(PLAIN), suffix), PLAIN), reference(PLAIN))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_single(tmp_path, dtype):
    state = {name: tensor.to(dtype) for name, tensor in reference(PLAIN).items()}
    path = saved(tmp_path, state, ".safetensors")
    check(resolved(path, PLAIN), {name: tensor.float() for name, tensor in state.items()})


# Layouts of different authors.


class Layout(NamedTuple):
    """A file's content made of a backbone's state, and what it must give and say."""

    name: str
    write: Callable[[dict[str, Tensor]], Any]
    said: str = ""
    expected: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    imagenet: bool = False


def chunked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return pub.named(state, {r"^blocks\.(\d+)\.": r"blocks.0.\1."})


def dino_whole(state: dict[str, Tensor]) -> dict[str, Any]:
    head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_v": torch.ones(2)}
    both = pub.under("backbone.", state) | head
    return {
        "student": pub.under("module.", other(both)),
        "teacher": both,
        "args": argparse.Namespace(arch="vit_small"),
    }


def hf_mae(state: dict[str, Tensor]) -> dict[str, Tensor]:
    decoder = {
        "decoder.decoder_embed.weight": torch.ones(2, 2),
        "decoder.mask_token": torch.ones(1),
    }
    return pub.under("vit.", pub.hf_vit(state)) | decoder


def hf_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return pub.under("vit.", pub.hf_vit(state)) | {"classifier.weight": torch.ones(2, 32)}


def gated(state: dict[str, Tensor]) -> dict[str, Tensor]:
    rules = {r"\.mlp\.fc1\.": ".mlp.w12.", r"\.mlp\.fc2\.": ".mlp.w3."}
    return pub.named(state, rules) | {"mask_token": torch.zeros(1, 32)}


def hf_gated(state: dict[str, Tensor]) -> dict[str, Tensor]:
    rules = {r"\.mlp\.fc1\.": ".mlp.weights_in.", r"\.mlp\.fc2\.": ".mlp.weights_out."}
    return pub.named(pub.hf_dinov2(state), rules)


def pooled(state: dict[str, Tensor]) -> dict[str, Any]:
    """MAE fine-tuned: the norm behind the pooling, and a head."""
    renamed = pub.named(state, {r"^norm\.": "fc_norm."})
    return {"model": renamed | {"head.weight": torch.ones(9, 32)}}


def registers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return pub.hf_dinov2(
        {n: t for n, t in pub.dinov2_of_facebook(state).items() if n != "mask_token"}
    )


GIANT = "vit_giant_patch14_dinov2"
LAYOUTS = {
    "hf-vit-4": Layout(PLAIN, pub.hf_vit, "layout of Hugging Face"),
    "hf-vit-5": Layout(PLAIN, lambda s: pub.hf_vit(s, old=False), "layout of Hugging Face"),
    "hf-vit-classifier": Layout(PLAIN, hf_classifier, "left out classifier (1)"),
    "hf-deit-4": Layout(DEIT, pub.hf_vit, "DeiT with a distillation token", imagenet=True),
    "hf-deit-5": Layout(DEIT, lambda s: pub.under("deit.", pub.hf_vit(s, old=False)), "'deit.'"),
    "hf-mae": Layout(PLAIN, hf_mae, "MAE with its decoder", imagenet=True),
    "hf-dinov2-4": Layout(DINO2, pub.hf_dinov2, "DINOv2 in the layout of Hugging Face"),
    "hf-dinov2-5": Layout(DINO2, lambda s: pub.hf_dinov2(s, old=False), "left out mask_token"),
    "hf-dinov2-prefix": Layout(
        DINO2, lambda s: pub.under("dinov2.", pub.hf_dinov2(s)), "'dinov2.'"
    ),
    "hf-dinov2-giant": Layout(GIANT, hf_gated, "DINOv2 in the layout of Hugging Face"),
    "hf-dinov2-registers": Layout(REGISTERS, registers, "DINOv2 in the layout of Hugging Face"),
    "hf-dinov3": Layout(DINO3, pub.hf_dinov3, "DINOv3 in", pub.with_dinov3_bias),
    "hf-dinov3-4": Layout(DINO3, lambda s: pub.hf_dinov3(s, 0.0, False), "DINOv3 in"),
    "hf-dinov3-biases": Layout(f"{DINO3}_qkvb", pub.hf_dinov3, "DINOv3", pub.with_dinov3_bias),
    "hf-sam": Layout("sam_vit_b", pub.hf_sam, "SAM in the layout of Hugging Face"),
    "hf-sam-timm": Layout(
        "samvit_base_patch16", lambda s: pub.hf_sam(pub.named(s, {r"mlp\.fc": "mlp.lin"})), "SAM"
    ),
    "fb-dinov2": Layout(DINO2, pub.dinov2_of_facebook, "DINOv2 in the layout of Facebook"),
    "fb-dinov2-chunks": Layout(DINO2, lambda s: chunked(pub.dinov2_of_facebook(s)), "DINOv2"),
    "fb-dinov2-registers": Layout(REGISTERS, pub.dinov2_of_facebook, "of Facebook"),
    "fb-dinov2-giant": Layout(GIANT, gated, "DINOv2"),
    "fb-dinov2-training": Layout(
        DINO2,
        lambda s: {"teacher": pub.under("backbone.", s) | {"dino_head.mlp.0.bias": torch.ones(1)}},
        "left out dino_head (1)",
    ),
    "fb-dinov3": Layout(DINO3, pub.dinov3_of_facebook, "of Facebook", pub.with_dinov3_bias),
    "fb-dinov3-no-bias": Layout(DINO3, lambda s: pub.dinov3_of_facebook(s, 0.0), "of Facebook"),
    "fb-dinov3-biases": Layout(
        f"{DINO3}_qkvb", pub.dinov3_of_facebook, "of Facebook", pub.with_dinov3_bias
    ),
    "fb-dino": Layout(PLAIN, dino_whole, "'teacher' was taken", imagenet=True),
    "fb-mae": Layout(
        PLAIN,
        lambda s: {"model": pub.mae_with_decoder(s)},
        "left out mask_token (1), decoder_pos",
        imagenet=True,
    ),
    "fb-mae-fine-tuned": Layout(PLAIN, pooled, "left out head (1)"),
    "fb-deit": Layout("deit_small_patch16_224", lambda s: {"model": s}, "taken from 'model'"),
    "fb-deit-distilled": Layout(
        DEIT, lambda s: {"model": s | {"head_dist.bias": torch.ones(2)}}, "left out head_dist (1)"
    ),
    "fb-deit3": Layout(
        "deit3_small_patch16_224",
        lambda s: {"model": pub.named(s, {r"\.ls(\d)\.gamma": r".gamma_\1"})},
        "taken from 'model'",
    ),
    "sam": Layout("sam_vit_b", pub.sam_whole, "prefix 'image_encoder.' stripped"),
    "sam-module": Layout(
        "sam_vit_b", lambda s: pub.under("module.", pub.sam_whole(s)), "'module.image_encoder.'"
    ),
    "sam-model": Layout("sam_vit_b", lambda s: {"model": pub.sam_whole(s)}, "from 'model'"),
    "sam-encoder": Layout("sam_vit_b", dict),
    "sam-adapter": Layout("sam_vit_b", pub.sam_adapter, "prompt_generator (2)"),
    "sam-of-timm": Layout("sam_vit_b", pub.fc_of_timm),
    "sam-to-timm": Layout(
        "samvit_base_patch16",
        lambda s: pub.sam_whole(pub.named(s, {r"mlp\.fc": "mlp.lin"})),
        "the image encoder of SAM",
    ),
    "uni-perceiver": Layout(UNI, pub.uni_perceiver, "Uni-Perceiver"),
    "uni-perceiver-state": Layout(
        UNI, lambda s: {"state_dict": pub.uni_perceiver(s)}, "token_embed"
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_published_layout_gives_its_model(tmp_path, case):
    layout = LAYOUTS[case]
    state = reference(layout.name)
    weights = resolved(saved(tmp_path, layout.write(dict(state))), layout.name)
    check(weights, layout.expected(dict(state)))
    assert not layout.said or any(layout.said in one for one in weights.read), weights.read
    assert weights.differing == FactsConfig(
        **({"mean": STATISTICS["imagenet"][0], "std": STATISTICS["imagenet"][1]}
           if layout.imagenet and layout.name == PLAIN else {})
    )  # fmt: skip


def test_uni_perceiver_computes_what_its_authors_do():
    """Patches, positions and the moment added one after the other, and post-LayerScale blocks."""
    state, image = reference(UNI), image_of(64, 64)
    theirs = pub.uni_perceiver(dict(state))
    backbone = BUILD(UNI, dict(state), **SIZES[UNI])
    place = "visual_embed.patch_embed."
    x = torch.nn.functional.conv2d(
        backbone.normalise(image), theirs[f"{place}proj.weight"], theirs[f"{place}proj.bias"], 16
    )
    x = x.flatten(2).transpose(1, 2) + theirs[f"{place}spatial_pos_embed.weight"]
    x = x + theirs[f"{place}temporal_pos_embed.weight"][0]

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = theirs[f"{name}.weight"], theirs[f"{name}.bias"]
        return torch.nn.functional.layer_norm(x, (32,), weight, bias, 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ theirs[f"{name}.weight"].T + theirs[f"{name}.bias"]

    x = norm(x, "visual_embed.embeddings_norm")
    for i in range(2):
        at = f"layers.{i}."
        parts = linear(norm(x, at + "norm1"), at + "self_attn.in_proj").unflatten(2, (3, 2, 16))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) / 4).softmax(-1) @ v
        x = x + theirs[at + "gamma_1"] * linear(
            y.transpose(1, 2).flatten(2), at + "self_attn.out_proj"
        )
        y = torch.nn.functional.gelu(linear(norm(x, at + "norm2"), at + "linear1"))
        x = x + theirs[at + "gamma_2"] * linear(y, at + "linear2")
    torch.testing.assert_close(opened(backbone, image), x, rtol=0, atol=1e-5)


# SAM of another size: tables of the file are kept where the model can be built for them.


def test_sam_of_256_pixels_keeps_its_tables(tmp_path):
    state = reference("sam_vit_b", img_size=128)
    weights = resolved(saved(tmp_path, pub.sam_whole(dict(state))), "sam_vit_b")
    check(weights, state)
    assert (weights.facts.grid, weights.differing.grid) == (8, 8)
    assert any("grid 8, where its name implies 4" in one for one in weights.remarks)


def test_tables_that_were_left_at_another_size_are_resized_and_said(tmp_path):
    state = dict(reference("sam_vit_b", img_size=128))
    tables = [n for n in state if "blocks.1.attn.rel_pos" in n]
    ramp = torch.linspace(-1, 1, 7)[:, None].expand(7, 16).clone()  # of a grid of 4, where 8 is due
    weights = resolved(
        saved(tmp_path, pub.sam_whole(state | dict.fromkeys(tables, ramp))), "sam_vit_b"
    )
    found = load_backbone(weights).state()
    assert any("resized 2 position tables, such as blocks.1" in one for one in weights.read)
    for name in tables:
        assert found[name].shape == (15, 16)
        assert bool((found[name].diff(dim=0) >= 0).all())
        torch.testing.assert_close(found[name][7], torch.zeros(16), rtol=0, atol=1e-6)
    # Both kinds are resized where another grid is asked for.
    smaller = resolved(saved(tmp_path, pub.sam_whole(state)), "sam_vit_b", grid=4)
    assert load_backbone(smaller).vit.pos_embed.shape == (1, 4, 4, 32)
    assert any("resized 3 position tables, such as pos_embed" in one for one in smaller.read)


# Facts of the weights.


def test_patch_and_grid_are_those_of_the_file(tmp_path):
    state = reference(PLAIN, patch_size=8, img_size=48)
    path = saved(tmp_path, dict(state), ".safetensors")
    weights = resolved(path, PLAIN)
    check(weights, state)
    assert (weights.differing.patch, weights.differing.grid) == (8, 6)
    # Asked for what the name has, both are resampled, as before they were facts; and said.
    plain = resolved(path, PLAIN, patch=16, grid=4)
    assert plain.differing == FactsConfig()
    assert sum("resized" in one for one in plain.read) == 2
    assert load_backbone(plain).vit.patch_embed.proj.weight.shape == (32, 3, 16, 16)
    settled = resolve_weights(PLAIN, str(path), tmp_path, facts=FactsConfig(), settled=True)
    assert settled.facts == plain.facts


def test_statistics_can_be_asked_for_and_are_told_where_they_are_a_guess(tmp_path):
    path = saved(tmp_path, reference(PLAIN), ".safetensors")
    guessed = resolved(path, PLAIN)
    assert any("need --set facts.mean=imagenet" in one for one in guessed.remarks)
    asked = resolved(path, PLAIN, mean="imagenet", std="imagenet")
    assert not any("need --set" in one for one in asked.remarks)
    mean, std = STATISTICS["imagenet"]
    assert (asked.differing.mean, asked.differing.std) == (mean, std)
    grey = torch.tensor(mean)[None, :, None, None] + torch.zeros(1, 3, 32, 32)
    assert float(load_backbone(asked).normalise(grey).abs().max()) < 1e-6
    same = resolved(path, PLAIN, mean="inception", std="inception", pos_antialias=True)
    assert same.differing == FactsConfig()
    other_way = resolved(path, PLAIN, pos_antialias=False)
    assert other_way.differing.pos_antialias is False
    assert load_backbone(other_way).pos_antialias is False


def test_a_record_gives_the_facts_that_its_run_had(tmp_path):
    path = saved(tmp_path, pub.mae_with_decoder(dict(reference(PLAIN))))
    run = resolved(path, PLAIN)
    again = resolve_weights(PLAIN, str(path), tmp_path, facts=run.differing, settled=True)
    assert again.facts == run.facts
    # What was asked for against the file: the name's own statistics, of which the record has none.
    asked = resolved(path, PLAIN, mean="inception", std="inception")
    assert asked.differing == FactsConfig()
    again = resolve_weights(PLAIN, str(path), tmp_path, facts=asked.differing, settled=True)
    assert again.facts == asked.facts


# What does not fit, in one sentence.


MASK = torch.ones(1)


def fake(width: int, depth: int, patch: int = 16, **more: Tensor) -> dict[str, Tensor]:
    """Names and sizes of a model, with hardly any of its tensors."""
    found = {f"blocks.{i}.norm1.weight": torch.ones(width) for i in range(depth)}
    return found | {"patch_embed.proj.weight": torch.zeros(width, 3, patch, patch)} | more


REFUSED: dict[str, tuple[str, Any, str]] = {
    "sam-l": ("sam_vit_b", pub.sam_whole(fake(1024, 24, **{"neck.0.weight": torch.ones(1)})),
              "say --backbone sam_vit_l"),
    "sam in a plain ViT": (PLAIN, pub.sam_whole(fake(768, 12, **{"neck.0.weight": torch.ones(1)})),
                           "say --backbone sam_vit_b"),
    "dinov2 in a plain ViT": (
        PLAIN, fake(384, 12, 14, **{"blocks.0.ls1.gamma": torch.ones(384), "mask_token": MASK}),
        "DINOv2 in the layout of Facebook, 384 wide with 12 blocks, patches of 14: "
        "say --backbone vit_small_patch14_dinov2"),
    "registers": (DINO2, fake(384, 12, 14, register_tokens=torch.ones(1, 4, 384)),
                  "say --backbone vit_small_patch14_reg4_dinov2"),
    "dinov3": (PLAIN, fake(768, 12, storage_tokens=torch.ones(1, 4, 768)),
               "say --backbone vit_base_patch16_dinov3"),
    "distilled": ("deit_small_patch16_224", fake(384, 12, dist_token=torch.ones(1, 1, 384)),
                  "say --backbone deit_small_distilled_patch16_224"),
    "mae": (PLAIN, fake(1024, 24, **{"decoder_embed.weight": torch.ones(1)}),
            "say --backbone vit_large_patch16_224.mae"),
    "larger": (PLAIN, fake(768, 12), "say --backbone vit_base_patch16_224"),
    "of no known size": (PLAIN, fake(40, 3), "a plain ViT, 40 wide with 3 blocks, patches of 16"),
    "uni-perceiver": (PLAIN, pub.uni_perceiver(dict(reference(UNI))), f"--backbone {UNI}"),
    "sam 2": (PLAIN, {"image_encoder.trunk.pos_embed_window": torch.ones(1)}, "the Hiera of SAM 2"),
    "swin": (PLAIN, {"layers.0.blocks.0.attn.relative_position_bias_table": torch.ones(1),
                     "patch_embed.proj.weight": torch.ones(2, 3, 4, 4)}, "a Swin Transformer"),
    "clip": (PLAIN, {"vision_model.embeddings.patch_embedding.weight": torch.ones(1)}, "CLIP"),
    "mmpretrain": (PLAIN, {"backbone.layers.0.ln1.weight": torch.ones(1)}, "names of mmpretrain"),
    "resnet": (PLAIN, {"layer1.0.conv1.weight": torch.ones(1)}, "a ResNet"),
    "convnext": (PLAIN, {"downsample_layers.0.0.weight": torch.ones(1)}, "a ConvNeXt"),
    "beit": ("beit_base_patch16_224", {"beit.encoder.layer.0.lambda_1": torch.ones(1)},
             "BEiT in the layout of Hugging Face"),
    "lora": (PLAIN, {"base_model.model.blocks.0.attn.qkv.lora_A.weight": torch.ones(1)}, "LoRA"),
    "decoder": ("sam_vit_b", {"mask_decoder.iou_token.weight": torch.ones(1)}, "without its image"),
    "nothing known": ("sam_vit_b", {"fc.weight": torch.ones(1)}, "no image encoder that sam_vit_b"),
    "two models": (PLAIN, pub.under("a.", fake(32, 1)) | pub.under("b.", fake(32, 1)),
                   "it holds several models, 'a.' and 'b.'"),
    "two parts": (PLAIN, {"first": fake(32, 1), "second": fake(32, 1)}, "parts (first, second)"),
    "adapters left in": (PLAIN, dict(reference(PLAIN)) | {"blocks.0.adapter.weight": torch.ones(1)},
                         "1 unknown ['blocks.0.adapter.weight']"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_says_what_it_is(tmp_path, case):
    name, content, sentence = REFUSED[case]
    path = saved(tmp_path, content)
    with pytest.raises(DataError) as caught:
        resolved(path, name)
    said = str(caught.value)
    assert sentence in said
    assert str(path) in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (torch.full((32,), float("nan")), "'blocks.1.norm1.bias' holds NaN"),
        (torch.full((32,), float("-inf")), "'blocks.1.norm1.bias' holds infinity"),
        (torch.ones(32, dtype=torch.int8), "'blocks.1.norm1.bias' holds int8; quantised"),
        (torch.ones(32, dtype=torch.bool), "'blocks.1.norm1.bias' holds bool"),
        (torch.zeros(1).expand(32), "a view of 4 bytes under 'blocks.1.norm1.bias'"),
        (torch.ones(33), "1 of another shape ['blocks.1.norm1.bias']"),
    ],
)
def test_tensors_that_are_no_weights_are_refused_by_name(tmp_path, tensor, sentence):
    path = saved(tmp_path, reference(PLAIN) | {"blocks.1.norm1.bias": tensor})
    with pytest.raises(DataError, match=str(path)) as caught:
        resolved(path, PLAIN)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
        (b"\n <!DOCTYPE html><html></html>", "a web page (HTML)"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><Error/>', "a web page (HTML)"),
        (b'{"metadata": {}, "weight_map": {}}', "index of weights in several files"),
        (b"", "is empty"),
        (b"PK\x03\x04 cut", "is damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_was_fetched_in_the_place_of_weights_is_called_that(tmp_path, start, sentence, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(start)
    with pytest.raises(DataError) as caught:
        resolved(path, PLAIN)
    assert sentence in str(caught.value)


def test_names_are_found_by_sizes():
    assert backbone_for("dinov3", 384, 12, 16, gated=True) == "vit_small_plus_patch16_dinov3"
    assert backbone_for("dinov2", 1536, 40, 14, 4) == "vit_giant_patch14_reg4_dinov2"
    assert backbone_for("dino", 384, 12, 8) == "vit_small_patch8_224.dino"
    assert backbone_for("vit", 7, 1, 16) == ""
    found = FoundModel(fake(768, 12), "vit", "", ())
    assert (found.fits, found.depth) == ("vit_base_patch16_224", 12)


# The names themselves, from the library of Hugging Face: minutes of imports for a second of tests.

SMALLEST = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
}
THEIRS = {
    "ViT": (PLAIN, {"image_size": 64}),
    "DeiT": (DEIT, {"image_size": 64}),
    "Dinov2": (DINO2, {"image_size": 56, "patch_size": 14}),
    "Dinov2WithRegisters": (REGISTERS, {"image_size": 56, "patch_size": 14}),
    "DINOv3ViT": (DINO3, {"num_register_tokens": 4}),
    "SamVision": (
        "sam_vit_b",
        {"image_size": 64, "mlp_dim": 128, "window_size": 3, "global_attn_indexes": [1]},
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", THEIRS)
def test_tokens_are_those_of_transformers(tmp_path, model):
    transformers = pytest.importorskip("transformers")
    name, more = THEIRS[model]
    config = getattr(transformers, f"{model}Config")(**SMALLEST, **more)
    theirs = shake(getattr(transformers, f"{model}Model")(config)).eval()
    theirs.save_pretrained(tmp_path)
    weights = resolved(tmp_path / "model.safetensors", name)
    backbone, image = load_backbone(weights), image_of(64, 64)
    pixels, side = backbone.normalise(image), 4 * weights.facts.patch
    if side != 64:
        pixels = torch.nn.functional.interpolate(pixels, side, mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = theirs(pixel_values=pixels).last_hidden_state
    # The norms of their ViT have an epsilon of 1e-12, those of timm 1e-6.
    torch.testing.assert_close(opened(backbone, image), expected, rtol=0, atol=2e-4)
