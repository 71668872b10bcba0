"""The opened Hiera of SAM 2 and Swin v2 compute what timm computes."""

import pytest
import timm
import torch
from conftest import FAMILIES, tiny_backbone
from opened import image_of, walked
from reference_tensors import assert_reference, needs_reference, reference

from method_zoo.backbones.create import create_backbone
from method_zoo.errors import ZooError
from method_zoo.options import get_method


@pytest.mark.parametrize("side", [(64, 96), (32, 32), (160, 96)])
def test_hiera_equals_timm(side):
    backbone, image = tiny_backbone("hiera"), image_of(*side)
    name, size = FAMILIES["hiera"]
    whole = timm.create_model(name, num_classes=0, global_pool="", **size).eval()
    missing, surplus = whole.load_state_dict(backbone.state(), strict=False)
    assert (missing, surplus) == (["head.norm.weight", "head.norm.bias"], [])
    with torch.no_grad():
        expected = whole.forward_features(backbone.normalise(image))
    assert torch.equal(walked(backbone, image).x, expected.flatten(1, 2))


@needs_reference
def test_hiera_equals_metas_trunk():
    tensors = reference("hiera_sam2")[0]
    size = {"embed_dim": 8, "num_heads": 1, "stages": (1, 2, 3, 1), "window_spec": (8, 4, 6, 3)}
    backbone = create_backbone("sam2_hiera_tiny", global_att_blocks=(4,), **size)
    trunk = {k.removeprefix("trunk/"): t for k, t in tensors.items() if k.startswith("trunk/")}
    layers = {".mlp.layers.0.": ".mlp.fc1.", ".mlp.layers.1.": ".mlp.fc2."}
    for old, new in layers.items():
        trunk = {k.replace(old, new): t for k, t in trunk.items()}
    backbone.load(trunk)
    backbone.normalise_by((0, 0, 0), (1, 1, 1))
    maps = get_method("decoder_only")(backbone)(tensors["image"]).maps
    for k, got in enumerate(maps):
        assert_reference(got, tensors[f"out/stage{k}"])


@pytest.mark.parametrize("side", [(96, 192), (192, 96)])
def test_swin_v2_equals_timm_where_windows_fit(side):
    backbone, image = tiny_backbone("swin_v2"), image_of(*side)
    name, size = FAMILIES["swin_v2"]
    whole = timm.create_model(
        name, num_classes=0, global_pool="", always_partition=True, strict_img_size=False, **size
    ).eval()
    whole.load_state_dict(backbone.state())
    with torch.no_grad():
        expected = whole.forward_features(backbone.normalise(image))
    assert torch.equal(walked(backbone, image).x, expected.flatten(1, 2))


@pytest.mark.parametrize("family", ["swin", "swin_v2", "hiera"])
def test_branches_are_the_halves_of_a_block(family):
    backbone = tiny_backbone(family)
    with torch.no_grad():
        t = backbone.embed(image_of(64, 96))
        for i in range(2):
            after = t.add(backbone.attention(i, t, normed=backbone.norm1(i, t)))
            whole = after.add(backbone.mlp(i, after, normed=backbone.norm2(i, after)))
            assert torch.equal(whole.x, backbone.block(i, t).x)
        pooling = backbone.block(2, backbone.merge(1, t))
        assert (pooling.grid, pooling.x.shape) == ((8, 12), (2, 96, 48))


def test_a_grid_that_windows_of_places_do_not_divide():
    backbone = tiny_backbone("hiera")
    with pytest.raises(ZooError, match="the grid is 6 x 8, which windows of 4 x 4 do not divide"):
        backbone.position(torch.zeros(1, 6, 8, 24))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # Without the norm of timm's head, twice the last width, which the trunk has none of.
        ("sam2_hiera_tiny", 26_851_008 - 2 * 768),
        ("sam2_hiera_small", 33_948_864 - 2 * 768),
        ("sam2_hiera_base_plus", 68_677_504 - 2 * 896),
        ("sam2_hiera_large", 212_151_600 - 2 * 1152),
        ("swinv2_base_window8_256", 86_893_816),
        ("swinv2_large_window12_192", 195_202_932),
    ],
)
def test_sizes(name, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in create_backbone(name).parameters()) == count
