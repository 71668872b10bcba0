"""The opened SAM encoder computes what timm computes; prompts and layers see its windows."""

from functools import partial

import pytest
import timm
import torch
from conftest import FAMILIES, SAM, SIZE, moved, shake, tiny_backbone
from opened import image_of, native, opened, recorded
from timm.layers import resample_abs_pos_embed_nhwc
from timm.models.vision_transformer_sam import Block, checkpoint_filter_fn

from method_zoo.backbones.create import create_backbone
from method_zoo.backbones.sam import Sam
from method_zoo.errors import ZooError
from method_zoo.options import get_method

# Equality --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "height_width", [(64, 96), (96, 64), (32, 32), (96, 96), (128, 160), (64, 64)]
)
def test_equals_timm_at_every_size(height_width):
    # 96 pixels fill the windows exactly, the others are padded.
    backbone, image = tiny_backbone("sam"), image_of(*height_width)
    assert torch.equal(opened(backbone, image), native(backbone, backbone.vit, image))


def test_table_without_antialias():
    backbone, image = tiny_backbone("sam"), image_of(32, 32)
    with_it = opened(backbone, image)
    backbone.pos_antialias = False
    table = resample_abs_pos_embed_nhwc(backbone.vit.pos_embed, [2, 2], antialias=False)
    t = backbone.position(torch.zeros(1, 2, 2, backbone.dim))
    torch.testing.assert_close(t.x, table.flatten(1, 2))
    assert not torch.allclose(opened(backbone, image), with_it, atol=1e-3)


@pytest.mark.parametrize(
    "extra",
    [
        {"qk_norm": True},
        {"pre_norm": True},
        {"init_values": 0.1},
        {"use_abs_pos": False},
        {"use_rel_pos": False},
        {"neck_chans": None},
        {"qkv_bias": False},
        {"window_size": 0},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_equals_timm_for_every_option(extra):
    name, size = FAMILIES["sam"]
    backbone, image = moved(name, **(size | extra)), image_of(64, 96)
    assert torch.equal(opened(backbone, image), native(backbone, backbone.vit, image))


def test_metas_encoder_and_its_checkpoint():
    """Meta's code on the same weights; its attention is not fused, so the last bits differ."""
    encoders = pytest.importorskip("segment_anything.modeling.image_encoder")
    name, size = FAMILIES["sam"]
    # Meta's norms have another epsilon than timm's, which are those of the native forward.
    norm_layer = partial(torch.nn.LayerNorm, eps=1e-6)
    torch.manual_seed(0)
    meta = encoders.ImageEncoderViT(
        **SIZE, **SAM, img_size=64, use_rel_pos=True, norm_layer=norm_layer
    )
    shake(meta)
    checkpoint = {f"image_encoder.{k}": v for k, v in meta.state_dict().items()}
    checkpoint["prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 256)  # is left out
    backbone = create_backbone(name, **size, norm_layer=norm_layer)
    backbone.load(checkpoint_filter_fn(checkpoint, backbone.vit))
    backbone, meta, image = backbone.double(), meta.double(), image_of(64, 64).double()
    with torch.no_grad():
        expected = meta(backbone.normalise(image))
    torch.testing.assert_close(opened(backbone, image), expected, rtol=0, atol=1e-10)


def test_branches_are_the_halves_of_a_block():
    backbone = tiny_backbone("sam")
    with torch.no_grad():
        t = backbone.embed(image_of(64, 96))
        for i in (0, 1):  # in windows, and global
            after = t.add(backbone.attention(i, t, normed=backbone.norm1(i, t)))
            whole = after.add(backbone.mlp(i, after, normed=backbone.norm2(i, after)))
            block = backbone.vit.blocks[i](t.x.unflatten(1, t.grid))
            assert torch.equal(whole.x, block.flatten(1, 2))


# Prompts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [True, False])
def test_prompts_do_not_leak_between_neighbours(deep):
    method = get_method("vpt")(tiny_backbone("sam"), prompts=3, deep=deep).eval()
    with torch.no_grad():
        method.prompts.normal_()
        image = image_of(64, 96)
        other = torch.cat([image[:1], 1 - image[1:]])
        first, second = (method(x).final[0] for x in (image, other))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_a_window_with_prompts_by_hand():
    """Three prompts beside the nine tokens of one window: a softmax over twelve, worked out."""
    backbone = tiny_backbone("sam")
    attn = backbone.vit.blocks[0].attn
    torch.manual_seed(0)
    prompts, window = torch.randn(3, backbone.dim), torch.randn(2, 9, backbone.dim)
    with torch.no_grad():
        t = backbone.position(torch.zeros(2, 3, 3, backbone.dim))
        t = t._replace(x=window).insert(prompts)
        got, _ = backbone._self_attention(0, t.x, t)
        q, k, v = (m.unflatten(2, (3, 16)).transpose(1, 2) for m in attn.qkv(t.x).chunk(3, dim=2))
        scores = q @ k.transpose(2, 3) / 4
        for a in range(9):
            for b in range(9):
                rows, columns = a // 3 - b // 3 + 2, a % 3 - b % 3 + 2
                place = attn.rel_pos_h[rows] + attn.rel_pos_w[columns]
                scores[:, :, 3 + a, 3 + b] += q[:, :, 3 + a] @ place
        expected = attn.proj((scores.softmax(3) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, expected)


def test_prompts_are_averaged_over_the_windows_of_their_image():
    backbone = tiny_backbone("sam")
    with torch.no_grad():
        t = backbone.embed(image_of(96, 96)).insert(torch.randn(2, backbone.dim))
        got, _ = backbone._self_attention(0, t.x, t)
        windows = t.map().unfold(2, 3, 3).unfold(3, 3, 3).permute(0, 2, 3, 4, 5, 1)
        for n in range(2):
            alone = []
            for window in windows[n].flatten(0, 1):
                x = torch.cat([t.x[n, :2], window.flatten(0, 1)])[None]
                alone.append(backbone._self_attention(0, x, t._replace(x=x, grid=(3, 3)))[0])
            torch.testing.assert_close(got[n, :2], torch.cat(alone)[:, :2].mean(0))


# Layers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "inside"),
    [("attn.qkv", True), ("attn.proj", True), ("mlp.fc1", False), ("mlp.fc2", False)],
)
def test_wrapped_layers_see_each_window_as_an_image(name, inside):
    backbone, image = tiny_backbone("sam"), image_of(64, 96)
    plain = opened(backbone, image)
    assert float(recorded(backbone, name, image).aux) == backbone.depth
    in_window, over_all = (backbone.vit.blocks[i].get_submodule(name) for i in (2, 3))
    assert in_window.told == ((14, 5, (3, 3)) if inside else (29, 5, (4, 6)))
    assert over_all.told == (29, 5, (4, 6))
    assert torch.equal(opened(backbone, image), plain)


def test_the_gate_of_conv_lora_decides_for_each_window():
    method = get_method("conv_lora")(tiny_backbone("sam")).eval()
    seen: list[int] = []
    for block in method.backbone.vit.blocks:
        block.attn.qkv.gate.register_forward_hook(lambda m, x, y: seen.append(len(y.index)))
    method(image_of(64, 96))
    assert seen == [2 * 4, 2, 2 * 4, 2]  # 4 x 6 is padded to 6 x 6: four windows


# What it is ------------------------------------------------------------------------------------


def test_reset_draws_as_timm_does():
    first, second, other = (tiny_backbone("sam") for _ in range(3))
    for backbone, seed in ((first, 1), (second, 1), (other, 2)):
        backbone.reset(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fresh = timm.create_model(FAMILIES["sam"][0], num_classes=0, **FAMILIES["sam"][1])
    expected = fresh.state_dict()
    for name, tensor in first.vit.state_dict().items():
        assert torch.equal(tensor, second.vit.state_dict()[name]), name
        assert torch.equal(tensor, expected[name]), name
    weight = "blocks.0.attn.qkv.weight"
    assert not torch.equal(first.vit.state_dict()[weight], other.vit.state_dict()[weight])


def test_sam_huge_has_637_million_parameters():
    with torch.device("meta"):
        backbone = create_backbone("samvit_huge_patch16")
        assert backbone.neck(backbone.embed(torch.empty(1, 3, 64, 64))).shape == (1, 256, 4, 4)
    assert sum(p.numel() for p in backbone.parameters()) == 637_026_048


def test_rotary_positions_and_other_blocks_are_refused():
    name, size = FAMILIES["sam"]
    with pytest.raises(ZooError, match="rotary positions"):
        create_backbone(name, **(size | {"use_rel_pos": False, "use_rope": True}))
    vit = tiny_backbone("sam").vit
    vit.blocks[1].__class__ = type("Other", (Block,), {})
    with pytest.raises(ZooError, match="blocks of another type"):
        Sam(vit)
