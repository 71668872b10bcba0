"""EVA and DINOv3 opened: rotations, prompts, layers in parts, options, and what is refused."""

import copy

import pytest
import timm
import torch
from conftest import EVA, SIZE, moved, tiny_backbone
from opened import image_of, native, opened

from method_zoo.backbones.create import create_backbone
from method_zoo.backbones.eva import Eva
from method_zoo.errors import ZooError
from method_zoo.options import get_method

MIXED = {"rope_type": "mixed", "attn_type": "rope", "rope_grid_indexing": "xy"}


@pytest.mark.parametrize(
    "options",
    [
        {"scale_attn_inner": True, "swiglu_mlp": True, "scale_mlp": True},
        {"qkv_bias": False, "qk_norm": True},
        {"qkv_fused": False, "qk_norm": True, "init_values": 0.1, "attn_only_layer_scale": True},
        {"attn_type": "rope", "use_rot_pos_emb": True, "qkv_fused": False, "qk_norm": True},
        {"use_rot_pos_emb": True, "rope_grid_offset": 1.0, "rope_grid_indexing": "xy"},
        {"use_rot_pos_emb": True, "use_abs_pos_emb": False} | MIXED,
        {"use_rot_pos_emb": True, "no_embed_class": True, "num_reg_tokens": 2} | MIXED,
        {"use_rot_pos_emb": True, "rope_type": "mrope", "rope_grid_indexing": "ij"},
        {"use_pre_transformer_norm": True, "use_post_transformer_norm": False},
        {"class_token": False, "swiglu_mlp": True, "swiglu_align_to": 8},
    ],
    ids=lambda options: "-".join(list(options)[:2]),
)
@pytest.mark.parametrize("height_width", [(64, 64), (64, 96)])
def test_equals_timm_for_every_option(options, height_width):
    name, size = "vit_small_patch16_rope_224", {"img_size": 64, "use_rot_pos_emb": False}
    backbone = moved(name, **(SIZE | size | {"attn_type": "eva"} | options))
    arguments = SIZE | size | {"attn_type": "eva"} | options
    image = image_of(*height_width)
    # At the native size as timm builds it alone, with a table of rotations for that one grid.
    dynamic = {"dynamic_img_size": height_width != (64, 64)}
    vit = timm.create_model(name, num_classes=0, global_pool="", **arguments, **dynamic)
    vit.load_state_dict(backbone.state())
    assert torch.equal(opened(backbone, image), native(backbone, vit, image))


def test_real_widths_equal_timm():
    # Joined layers of real size, where a product may be cut into blocks in another way.
    name, size = "eva02_base_patch14_224", {"depth": 1, "img_size": 112, "dynamic_img_size": True}
    vit = timm.create_model(name, num_classes=0, global_pool="", **size)
    backbone, image = Eva(copy.deepcopy(vit)), image_of(128, 128)
    assert torch.equal(opened(backbone, image), native(backbone, vit, image))


@pytest.mark.parametrize("family", [*EVA, "mixed"])
def test_prompts_get_the_identity_rotation(family):
    if family == "mixed":
        backbone = moved("vit_small_patch16_rope_mixed_224", **SIZE, img_size=64)
    else:
        backbone = tiny_backbone(family)
    own = backbone.vit.num_prefix_tokens
    with torch.no_grad():
        t = backbone.embed(image_of(64, 96)).insert(torch.randn(3, backbone.dim))
        x = torch.randn(2, backbone.heads, t.x.shape[1], backbone.dim // backbone.heads)
        for i in (0, 2):
            got = backbone._placed(i, x, t)
            assert torch.equal(got[:, :, : own + 3], x[:, :, : own + 3])
            # A pair of channels is turned and keeps its length, by hand: 1 - sine 0, cosine 1.
            rope = t.rope[i] if t.rope.ndim == 4 else t.rope
            sine, cosine = rope.chunk(2, dim=-1)
            half = backbone.vit.blocks[i].attn.rotate_half
            other = torch.empty_like(x)
            if half:
                first, second = x.chunk(2, dim=-1)
                other = torch.cat([-second, first], dim=-1)
            else:
                other[..., ::2], other[..., 1::2] = -x[..., 1::2], x[..., ::2]
            k = own + 3
            expected = x[:, :, k:] * cosine + other[:, :, k:] * sine
            torch.testing.assert_close(got[:, :, k:], expected)


def test_learnt_frequencies_train_and_are_drawn_anew():
    backbone = moved("vit_small_patch16_rope_mixed_224", **SIZE, img_size=64)
    before = backbone.state()["rope.freqs"].clone()
    full = get_method("full")(backbone)
    full(image_of(64, 96)).final.square().mean().backward()
    assert bool(backbone.vit.rope.freqs.grad.abs().sum() > 0)
    backbone.requires_grad_(False).reset(1)
    first = backbone.state()["rope.freqs"].clone()
    backbone.reset(1)
    assert torch.equal(first, backbone.state()["rope.freqs"])
    assert not torch.equal(first, before)


def test_a_lora_on_three_layers_is_not_bypassed():
    """timm's fused forward reads `qkv.weight` past a wrapped layer; here every part is reached."""
    for family in EVA:
        method, image = get_method("lora")(tiny_backbone(family)), image_of(64, 64)
        before = method(image).final
        layer = method.backbone.vit.blocks[0].attn.qkv
        with torch.no_grad():
            for part in range(3):
                layer.b.zero_()
                layer.b.view(3, -1, layer.b.shape[1])[part].normal_()
                assert not torch.allclose(method(image).final, before, atol=1e-4), (family, part)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("eva02_enormous_patch14_clip_224", {}, "EvaBlockPostNorm cannot be opened"),
        ("vit_large_patch16_sapiens2", {"num_kv_heads": 8}, "queries that share keys cannot be"),
    ],
)
def test_models_that_cannot_be_opened(name, options, sentence):
    with torch.device("meta"), pytest.raises(ZooError, match=sentence):
        create_backbone(name, depth=1, **options)


def test_a_model_with_one_table_of_rotations_is_refused():
    vit = timm.create_model(EVA["eva02"][0], num_classes=0, **EVA["eva02"][1])
    with pytest.raises(ZooError, match="dynamic_img_size=True"):
        Eva(vit)
