"""Backbones: opened, they equal their libraries bit for bit."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from conftest import EVA, FAMILIES, PLAIN, SIZE, WHOLE, WINDOWS, moved, tiny_backbone, tiny_image
from opened import image_of, native, opened, rebuilt, recorded

from method_zoo.backbones.backbone import Backbone, Tokens
from method_zoo.backbones.create import create_backbone
from method_zoo.errors import ZooError

NATIVE = 64  # pixels: four by four patches in every family but BEiT
DYNAMIC = [*PLAIN, *EVA]
OTHERS = [(64, 96), (96, 64), (32, 32), (128, 160)]


# Equality --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", WHOLE | WINDOWS)
def test_equals_its_library_at_native_size(family):
    backbone = tiny_backbone(family)
    image = tiny_image(backbone) if backbone.fixed_grid else image_of(NATIVE, NATIVE)
    assert torch.equal(opened(backbone, image), native(backbone, rebuilt(family, backbone), image))


@pytest.mark.parametrize("family", DYNAMIC)
@pytest.mark.parametrize("height_width", OTHERS)
def test_equals_timm_at_other_sizes(family, height_width):
    backbone, image = tiny_backbone(family), image_of(*height_width)
    dynamic = rebuilt(family, backbone, dynamic_img_size=True)
    assert torch.equal(opened(backbone, image), native(backbone, dynamic, image))


@pytest.mark.parametrize("family", DYNAMIC)
@pytest.mark.parametrize("antialias", [True, False])
def test_equals_timm_with_the_same_resized_table(family, antialias):
    backbone, image = tiny_backbone(family), image_of(64, 96)
    backbone.pos_antialias = antialias
    patch = backbone.vit.patch_embed.patch_size[0]
    size = {"img_size": (4 * patch, 6 * patch), "dynamic_img_size": False}
    resized = rebuilt(family, backbone, **size)
    assert torch.equal(opened(backbone, image), native(backbone, resized, image))


def test_table_without_antialias_is_plain_bicubic():
    # The authors of DINOv2: torch's bicubic, align_corners false, the class token left alone.
    backbone = tiny_backbone("dinov2")
    backbone.pos_antialias = False
    table = backbone.vit.pos_embed
    grid = table[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (2, 6), mode="bicubic", align_corners=False, antialias=False)
    patches = torch.zeros(1, 2, 6, backbone.dim)
    t = backbone.position(patches)
    torch.testing.assert_close(t.patches, grid.flatten(2).transpose(1, 2))
    torch.testing.assert_close(t.x[:, :1], backbone.vit.cls_token + table[:, :1])


@pytest.mark.parametrize(
    "extra",
    [
        {"qk_norm": True},
        {"pre_norm": True},
        {"no_embed_class": True, "reg_tokens": 2},
        {"class_token": False},
        {"init_values": 0.1, "scale_attn_norm": True, "scale_mlp_norm": True},
        {"pos_embed": "none"},
        {"patch_size": 8, "img_size": 32},
        {"patch_size": 32, "img_size": 128},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_equals_timm_for_every_option_of_a_plain_vit(extra):
    backbone = moved("vit_tiny_patch16_224", **(SIZE | {"img_size": 64} | extra))
    image = image_of(NATIVE, NATIVE)
    assert torch.equal(opened(backbone, image), native(backbone, backbone.vit, image))


@pytest.mark.parametrize("family", WHOLE)
def test_branches_are_the_halves_of_a_block(family):
    backbone = tiny_backbone(family)
    with torch.no_grad():
        t = backbone.embed(tiny_image(backbone))
        after = t.add(backbone.attention(1, t, normed=backbone.norm1(1, t)))
        whole = after.add(backbone.mlp(1, after, normed=backbone.norm2(1, after)))
        assert torch.equal(whole.x, backbone.block(1, t).x)
        if family in PLAIN:
            assert torch.equal(whole.x, backbone.vit.blocks[1](t.x))


# What a backbone is ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", WHOLE)
def test_every_grid_is_a_sixteenth_of_the_image(family):
    backbone = tiny_backbone(family)
    t = backbone.embed(image_of(64, 96))
    assert t.grid == (4, 6)
    assert t.map().shape == (2, backbone.dim, 4, 6)
    assert t.prefix == backbone.vit.num_prefix_tokens
    assert t.x.shape[1] == t.prefix + 24


def test_patches_lie_in_reading_order():
    backbone, image = tiny_backbone(), torch.zeros(1, 3, 64, 96)
    image[:, :, 16:32, 80:96] = 1  # second row, last column
    changed = (backbone.patchify(image) - backbone.patchify(torch.zeros_like(image))).abs().sum(-1)
    assert torch.nonzero(changed[0]).tolist() == [[1, 5]]


def test_normalise_uses_the_statistics_of_the_model():
    backbone = tiny_backbone("dinov2")
    image = torch.full((1, 3, 32, 32), 0.5)
    expected = torch.tensor([(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225])
    torch.testing.assert_close(backbone.normalise(image)[0, :, 0, 0], expected)


@pytest.mark.parametrize(
    ("depth", "starts"), [(4, [0, 1, 2, 3]), (12, [0, 3, 6, 9]), (6, [0, 2, 3, 4])]
)
def test_groups_cover_every_block_once(depth, starts):
    size = SIZE | {"depth": depth, "img_size": 64}
    groups = create_backbone("vit_tiny_patch16_224", **size).groups
    assert [i for group in groups for i in group] == list(range(depth))
    assert [group.start for group in groups] == starts


def test_a_backbone_is_frozen_and_stays_in_eval_mode(backbone):
    assert not any(p.requires_grad for p in backbone.parameters())
    backbone.train()
    assert not any(module.training for module in backbone.modules())


@pytest.mark.parametrize("family", WHOLE)
def test_reset_draws_every_weight_anew_from_its_seed(family):
    first, second, other = (tiny_backbone(family) for _ in range(3))
    before = torch.get_rng_state()
    for backbone, seed in ((first, 1), (second, 1), (other, 2)):
        backbone.reset(seed)
    assert torch.equal(before, torch.get_rng_state())
    old, fresh = tiny_backbone(family).state(), rebuilt(family, first).eval()
    fresh.init_weights()
    for name, tensor in first.state().items():
        assert torch.equal(tensor, second.state()[name]), name
        assert not torch.equal(tensor, old[name]), f"{name} was not drawn anew"
        expected = fresh.state_dict()[name]
        torch.testing.assert_close(tensor.mean(), expected.mean(), rtol=0, atol=0.02)
        torch.testing.assert_close(tensor.std(), expected.std(), rtol=0.3, atol=0.01)
    weight = "patch_embed.proj.weight"
    assert not torch.equal(first.state()[weight], other.state()[weight])


@pytest.mark.parametrize("name", ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"])
@pytest.mark.parametrize("family", WHOLE)
def test_wrapped_layers_know_the_grid_and_their_loss_travels(family, name):
    backbone = tiny_backbone(family)
    image = image_of(64, 96)
    plain = opened(backbone, image)
    t = recorded(backbone, name, image)
    assert float(t.aux) == backbone.depth
    wrapped = backbone.vit.blocks[2].get_submodule(name)
    assert wrapped.told == (t.x.shape[1], backbone.vit.num_prefix_tokens + 5, (4, 6))
    assert torch.equal(opened(backbone, image), plain)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (224, 200), (33, 32)])
def test_a_side_that_is_no_multiple_of_32(backbone, height, width):
    with pytest.raises(ZooError, match=f"{height} x {width}.*multiples of 32"):
        backbone.embed(image_of(height, width))


# Tokens: every verb keeps the prefix in front and the patches in reading order.


def tokens() -> Tokens:
    """Two prefix tokens and a grid of 2 x 3, token n filled with n: (1, 8, 4)."""
    x = torch.arange(8.0).view(1, 8, 1).expand(1, 8, 4).clone()
    return Tokens(x, 2, (2, 3), None, torch.zeros(()))


def values(t: Tokens) -> list[float]:
    return t.x[0, :, 0].tolist()


def test_verbs_know_prefix_and_patches():
    t = tokens()
    assert t.patches[0, :, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert t.map().shape == (1, 4, 2, 3)
    assert t.map()[0, 0].tolist() == [[2, 3, 4], [5, 6, 7]]
    assert values(t.with_patches(torch.full((1, 6, 4), 9.0))) == [0, 1, 9, 9, 9, 9, 9, 9]
    assert values(t.drop(1)) == [0, 2, 3, 4, 5, 6, 7]  # the last of the prefix
    leaves = pytree.tree_leaves(t)
    assert sum(isinstance(leaf, torch.Tensor) for leaf in leaves) == 2


def test_insert_goes_behind_the_prefix_and_drop_takes_it_away():
    t = tokens().insert(torch.full((2, 4), 9.0))
    assert values(t) == [0, 1, 9, 9, 2, 3, 4, 5, 6, 7]
    assert (t.prefix, t.grid) == (4, (2, 3))
    assert torch.equal(t.patches, tokens().patches)
    back = t.drop(2)
    assert (values(back), back.prefix) == (values(tokens()), 2)
    pair = tokens()._replace(x=tokens().x.repeat(2, 1, 1))
    prompts = torch.tensor([10.0, 20.0]).view(2, 1, 1).expand(2, 1, 4)
    assert pair.insert(prompts).x[:, 2, 0].tolist() == [10, 20]  # one for each image
    half = tokens()._replace(x=tokens().x.bfloat16())
    assert half.insert(torch.zeros(1, 4)).x.dtype is torch.bfloat16


def test_add_sums_tokens_and_auxiliary_loss():
    t = tokens()._replace(aux=torch.tensor(0.5))
    total = t.add(t._replace(aux=torch.tensor(0.25)))
    assert values(total) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert float(total.aux) == 0.75


def test_no_verb_writes_to_its_tokens():
    t, before = tokens(), tokens().x
    for changed in (t.with_patches(t.patches + 1), t.insert(t.x[0]), t.drop(1), t.add(t)):
        changed.x.add_(1)
    assert torch.equal(t.x, before)


# A timm name to a backbone: what is loaded, and one sentence for what cannot be opened.


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet18", "ResNet is not a plain"),
        ("swinv2_cr_tiny_224", "SwinTransformerV2Cr is not a plain"),
        ("vgg11", "VGG is not a plain"),
        ("vit_tiny_r_s16_p8_224", "not a plain"),
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


DISTILLED = "deit_tiny_distilled_patch16_224"


def test_distilled_deit_equals_timm_and_keeps_its_names():
    size = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 64}
    backbone, image = moved(DISTILLED, **size), image_of(64, 64)
    vit = timm.create_model(DISTILLED, num_classes=0, **size)
    vit.load_state_dict(backbone.state())
    assert torch.equal(opened(backbone, image), native(backbone, vit, image))
    assert backbone.embed(image_of(64, 96)).prefix == 2
    old = backbone.state()["dist_token"].clone()
    backbone.reset(1)
    assert not torch.equal(backbone.state()["dist_token"], old)
    assert backbone.state().keys() == vit.state_dict().keys()


def test_uni_perceiver_has_the_size_that_its_authors_print():
    with torch.device("meta"):
        backbone = create_backbone("uni_perceiver_large")
    # The spec counts the bias of the patches and eight moments, which are part of the table here.
    assert sum(p.numel() for p in backbone.parameters()) + 1024 + 8 * 1024 == 303_356_928
    assert backbone.pos_antialias is False
    assert backbone.vit.blocks[0].norm1.eps == 1e-5


def test_other_statistics_are_taken():
    backbone = tiny_backbone()
    backbone.normalise_by((0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
    image = torch.tensor([0.6, 0.45, 0.425])[None, :, None, None]
    torch.testing.assert_close(backbone.normalise(image), torch.ones(1, 3, 1, 1))
    assert "mean" not in backbone.state()
