"""SIGMA (reconstruction): its equations by hand, its share of the backbone, its place."""

import math

import pytest
import torch
from conftest import shake, tiny_backbone, tiny_image
from hand_backbone import on_grid, set_all

import method_zoo
from lpmoe_bench.cli.lists import _first_lines
from method_zoo.backbones.create import create_backbone
from method_zoo.mona import MonaAdapter
from method_zoo.options import get_method
from method_zoo.sigma import SigmaAdapter


def test_the_list_of_methods_says_that_it_is_a_reconstruction():
    assert dict(_first_lines(method_zoo, ["sigma"]))["sigma"].startswith("SIGMA (reconstruction)")
    assert get_method("sigma").title == "SIGMA (reconstruction)"
    assert "reconstruction" in get_method("sigma").fidelity


@pytest.mark.parametrize(
    ("name", "width", "count", "share"),
    [
        ("vit_tiny_patch16_224", 16, 0.101, 1.83),
        ("vit_small_patch16_224", 32, 0.354, 1.63),
        ("vit_base_patch16_224", 72, 1.483, 1.73),
        ("vit_large_patch16_224", 96, 5.175, 1.71),
    ],
)
def test_sigma_has_the_share_of_the_abstract(name, width, count, share):
    with torch.device("meta"):
        method = get_method("sigma")(create_backbone(name))
    counted = sum(p.numel() for p in method.trainable().values())
    assert method.after_mlp[0].down.out_features == width
    assert round(counted / 1e6, 3) == count
    assert round(100 * counted / method.backbone_size, 2) == share


def test_sigma_by_hand():
    """Two channels in and four in the middle, a grid of one patch, one prefix token."""
    module = SigmaAdapter(2, 4, "image", "film")
    with torch.no_grad():
        for conv, middle in zip(module.filters, (1.0, 2.0, 4.0), strict=True):
            conv.weight.zero_()[:, :, conv.kernel_size[0] // 2, conv.kernel_size[0] // 2] = middle
            conv.bias.zero_()
    down = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    set_all(module, norm__weight=[3.0, 3.0], norm__bias=[0.0, 0.0])
    set_all(module, down__weight=down, down__bias=[0.0] * 4)
    set_all(module, weigh__weight=[[0.0] * 4] * 3, weigh__bias=[0.0, 0.0, math.log(2)])
    set_all(module, fused_norm__weight=[1.0] * 4, fused_norm__bias=[0.0] * 4)
    # The first layer says 100, where GELU(x) = x; gamma = (1, 1, 1, 1), beta = (9, 9, 29, 29).
    set_all(module, film__0__weight=[[0.0] * 4], film__0__bias=[100.0])
    set_all(module, film__2__weight=[[0.01]] * 4 + [[0.09]] * 2 + [[0.29]] * 2)
    set_all(module, up__weight=[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]], up__bias=[0.0, 1.0])
    x = torch.tensor([[[7.0, 7.0], [3.0, 1.0]]])
    # LN(3, 1) = (3, -3); h = (3, 3, -3, -3); shares 1/4, 1/4, 1/2: f = h (1 + 0.25 + 0.5 + 2);
    # LN f = (1, 1, -1, -1); y = (11, 11, 27, 27); up: 11 and 27 + 1.
    got = module(on_grid(x, 1, 1, 1)).x
    expected = torch.tensor([[[7.0, 7.0], [3 + 11.0, 1 + 28.0]]])
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-4)
    assert module._fused(torch.full((1, 1, 4), 8.0), (1, 1)).tolist() == [[[30.0] * 4]]


def test_sigma_without_its_two_parts_is_like_mona():
    """Mona that reads its norm alone, without its inner projection."""
    module = shake(SigmaAdapter(6, 4, "static", "none"))
    module.fused_norm = torch.nn.Identity()
    mona = MonaAdapter(6, 4, 0.0, zero_init_up=False).eval()
    mona.load_state_dict(mona.state_dict() | module.state_dict())
    gains = {"gain_normed": [1.0] * 6, "gain_plain": [0.0] * 6}
    set_all(mona, **gains, project__weight=[[0.0] * 4] * 4, project__bias=[0.0] * 4)
    t = on_grid(torch.randn(2, 6, 6), 0, 2, 3)
    torch.testing.assert_close(module(t).x, mona(t).x)


def test_sigma_weighs_the_scales_per_image_or_per_token():
    h = torch.randn(2, 6, 4)
    for weights, same in (("image", True), ("token", False)):
        module = shake(SigmaAdapter(6, 4, weights, "none"))
        with torch.no_grad():
            for k, conv in enumerate(module.filters):  # each filter gives its own constant
                conv.weight.zero_()
                conv.bias.fill_(k)
        weighed = (module._fused(h, (2, 3)) - h)[..., 0]  # (B, N): the mean scale
        assert bool((weighed.std(1) < 1e-5).all()) is same
        assert bool((weighed[0, 0] - weighed[1, 0]).abs() > 1e-4)


@pytest.mark.parametrize("placement", ["block", "attention+mlp"])
def test_sigma_places_its_modules_on_the_stream(placement):
    method = get_method("sigma")(tiny_backbone(), placement=placement)
    for module in (*method.after_attention, *method.after_mlp):
        torch.nn.init.normal_(module.up.weight)
    backbone, t = method.backbone, method.backbone.embed(tiny_image(method.backbone))
    with torch.no_grad():
        u = t.add(backbone.attention(2, t))
        u = method.after_attention[2](u) if placement == "attention+mlp" else u
        expected = method.after_mlp[2](u.add(backbone.mlp(2, u)))
        torch.testing.assert_close(method.block(2, t).x, expected.x)
