"""The opened ConvNeXt, v1 and v2, computes what timm computes."""

import pytest
import timm
import torch
from conftest import FAMILIES, moved, tiny_backbone
from opened import image_of, walked

from method_zoo.backbones.create import create_backbone
from method_zoo.errors import ZooError
from method_zoo.options import get_method


@pytest.mark.parametrize("family", ["convnext", "convnext_v2"])
@pytest.mark.parametrize("side", [(64, 96), (32, 32), (160, 96)])
def test_equals_timm(family, side):
    backbone, image = tiny_backbone(family), image_of(*side)
    name, size = FAMILIES[family]
    whole = timm.create_model(name, num_classes=0, global_pool="", **size).eval()
    whole.load_state_dict(backbone.state())
    with torch.no_grad():
        expected = whole.head.norm(whole.forward_features(backbone.normalise(image)))
    assert torch.equal(walked(backbone, image).map(), expected)


def test_a_block_has_one_branch():
    backbone = tiny_backbone("convnext")
    t = backbone.embed(image_of(64, 96))
    for call in (backbone.attention, backbone.mlp, backbone.norm1, backbone.norm2):
        with pytest.raises(ZooError, match="one branch; use update or block"):
            call(0, t)
    assert torch.equal(backbone.block(0, t).x, t.x + backbone.update(0, t).x)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("convnext_tiny", 27_820_128),
        ("convnext_small", 49_454_688),
        ("convnext_base", 87_566_464),
        ("convnext_large", 196_230_336),
        ("convnextv2_base", 87_692_800),
        ("convnextv2_large", 196_419_840),
    ],
)
def test_sizes(name, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in create_backbone(name).parameters()) == count


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("swin_base_patch4_window7_224", 5.243),
        ("swin_large_patch4_window7_224", 7.302),
        ("convnext_base", 6.456),
        ("convnext_large", 9.156),
    ],
)
def test_adaroute_trains_what_its_authors_print(name, millions):
    with torch.device("meta"):
        method = get_method("adaroute")(create_backbone(name))
    assert round(sum(p.numel() for p in method.trainable().values()) / 1e6, 3) == millions
    assert len(method.centers) == 4
    assert [norm.eps for norm in method.stage_norms] == [1e-5 if "swin" in name else 1e-6] * 4


def test_adaroute_may_be_placed_otherwise_in_stages():
    cls = get_method("adaroute")
    usual, once = (cls(tiny_backbone("swin"), in_stages=s) for s in ("authors", "placement"))
    assert len(usual.after_attention) == 6
    assert len(once.after_attention) == 0
    with pytest.raises(ZooError, match="this backbone has no attention; choose block"):
        cls(tiny_backbone("convnext"), in_stages="placement", placement="attention+mlp")
    with pytest.raises(ZooError, match="centers is 2; a stage of 1 blocks takes 1 to 1"):
        cls(tiny_backbone("swin"), centers=2)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("convnext_atto", "convolutions as its MLP"), ("convnext_nano_ols", "stem overlaps")],
)
def test_variants_that_cannot_be_opened(name, sentence):
    with torch.device("meta"), pytest.raises(ZooError, match=sentence):
        create_backbone(name)


def test_a_final_norm_before_the_pooling_is_the_final_norm():
    name, size = FAMILIES["convnext"]
    backbone = moved(name, head_norm_first=True, **size)
    assert {"norm_pre.weight", "norm_pre.bias"} <= backbone.state().keys()
    assert torch.equal(backbone.vit.norm.weight, backbone.state()["norm_pre.weight"])


def test_reset_starts_as_timm_does():
    for family in ("convnext", "convnext_v2", "swin", "swin_v2", "hiera"):
        first, second, other = (tiny_backbone(family) for _ in range(3))
        for backbone, seed in ((first, 1), (second, 1), (other, 2)):
            backbone.reset(seed)
        name, size = FAMILIES[family]
        fresh = timm.create_model(name, num_classes=0, global_pool="", **size).state_dict()
        weight = "patch_embed.proj.weight" if "convnext" not in family else "stem.0.weight"
        assert not torch.equal(first.state()[weight], other.state()[weight])
        for key, tensor in first.state().items():
            assert torch.equal(tensor, second.state()[key]), key
            expected = fresh[key]
            torch.testing.assert_close(tensor.mean(), expected.mean(), rtol=0, atol=0.1, msg=key)
            torch.testing.assert_close(tensor.std(), expected.std(), rtol=0.4, atol=0.02, msg=key)
