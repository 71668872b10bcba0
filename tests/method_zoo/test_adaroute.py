"""AdaRoute: its equations by hand, the published counts, the center that blocks share."""

import math

import pytest
import torch
from conftest import tiny_backbone, tiny_image
from counts import adaroute_center, adaroute_module
from hand_backbone import on_grid, set_all

from method_zoo.adaroute import Center, DynamicAdapter
from method_zoo.backbones.create import create_backbone
from method_zoo.errors import ZooError
from method_zoo.options import get_method

# Widths and depths of the four stages, modules a block, and the published millions.
PUBLISHED = {
    "Swin-B": ((128, 256, 512, 1024), (2, 2, 18, 2), 2, 5.243),
    "Swin-L": ((192, 384, 768, 1536), (2, 2, 18, 2), 2, 7.302),
    "ConvNeXt-B": ((128, 256, 512, 1024), (3, 3, 27, 3), 1, 6.456),
    "ConvNeXt-L": ((192, 384, 768, 1536), (3, 3, 27, 3), 1, 9.156),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_adaroute_counts_what_the_authors_print(name):
    widths, depths, each, millions = PUBLISHED[name]
    total = counted = sum(2 * d for d in widths)  # a norm behind each stage trains as well
    for d, g in zip(widths, depths, strict=True):
        total += each * g * adaroute_module(d, 128, g) + adaroute_center(d, 128, g)
        with torch.device("meta"):
            module, center = DynamicAdapter(d, 128, g, 3, 16, 1.0), Center(d, 128, g, (3, 5, 7))
        own, shared = (sum(p.numel() for p in m.parameters()) for m in (module, center))
        counted += each * g * own + shared
    assert counted == total
    assert round(total / 1e6, 3) == millions


def test_adaroute_by_hand():
    """Two channels, one in the middle, two experts, a grid of one patch, one prefix token."""
    module, center = DynamicAdapter(2, 1, 2, 2, 1, 1.0), Center(2, 1, 2, (3, 5))
    set_all(module, gain=[0.5, 0.5], norm__weight=[2.0, 2.0], norm__bias=[0.0, 0.0])
    with torch.no_grad():
        for conv, middle in ((module.before, 1.0), (module.after, -0.5)):
            conv.weight.zero_()[:, :, 1, 1] = middle
            conv.bias.fill_(0.25)
    # The router says 0 and ln 3 for every kind: shares 1/4 and 3/4.
    set_all(module, gates__down__weight=[[0.0, 0.0]], gates__out__weight=[[0.0]] * 8)
    set_all(module, gates__out__bias=[0.0, math.log(3)] * 4)
    set_all(center, experts__0=[[[4.0, 0.0]], [[0.0, 4.0]]])  # down: (1, 3)
    set_all(center, experts__1=[[[8.0], [0.0]], [[0.0], [-4.0]]])  # up: (2, -3)
    with torch.no_grad():  # filters: 0.25 * 4 + 0.75 * 0 = 1 and 0 + 0.75 * 4 = 3 in the middle
        for k, (expert, value) in enumerate(((0, 4.0), (1, 4.0))):
            kernel = center.experts[2 + k].zero_()
            kernel[expert, 0, 0, k + 1, k + 1] = value
    set_all(module, keep__0=2.0, carry__0=-1.0)
    set_all(module, mix__weight=[[0.0], [0.0]], mix__bias=[0.0, math.log(4)])  # 1/5 and 4/5
    set_all(module, inner__weight=[[1.0]], inner__bias=[1.0])
    set_all(module, scale=[1.0, 2.0], shift=[0.5, 0.0], skip_scale=[1.0, 3.0], skip_shift=[0.0, 1])
    x = torch.tensor([[[7.0, 7.0], [3.0, 1.0]]])
    # LN(3, 1) = (2, -2); u = (4, 0), filtered (8.25, 0.25); z = 8.25 + 3 * 0.25 = 9.
    # y_1 = 9; y_2 = 3 * (2 * 9 - 9) = 27; m = 9 / 5 + 4 * 27 / 5 = 23.4; z = 32.4;
    # 2 z + 1 = 65.8, where GELU(z) = z; o = (131.6, -197.4), filtered o / 2 + 0.25.
    o = (65.8 + 0.25, -98.7 + 0.25)
    expected = torch.tensor([[[7.0, 7.0], [o[0] + 0.5 + 3, 2 * o[1] + 3 * 1 + 1]]])
    got = module(on_grid(x, 1, 1, 1), center).x
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-4)


def test_adaroute_without_filters_doubles_the_bottleneck():
    module, center = DynamicAdapter(2, 1, 1, 0, 16, 1.0), Center(2, 1, 1, ())
    set_all(module, gain=[0.0, 0.0], inner__weight=[[0.0]])
    set_all(center, experts__0=[[[1.0, 2.0]]], experts__1=[[[1.0], [-1.0]]])
    x = torch.tensor([[[4.0, 3.0]]])  # down: 10, twice: 20
    got = module(on_grid(x, 0, 1, 1), center).x
    torch.testing.assert_close(got, torch.tensor([[[24.0, -17.0]]]))


def test_adaroute_with_one_expert_is_static():
    module, center = DynamicAdapter(4, 2, 1, 3, 16, 1.0), Center(4, 2, 1, (3, 5, 7))
    weights = center(module.gates(torch.rand(3, 6, 4)))
    for weight, expert in zip(weights, center.experts, strict=True):
        assert torch.equal(weight, expert.expand_as(weight))
    assert not list(module.gates.parameters())


def test_adaroute_mixes_anew_for_every_image():
    method = get_method("adaroute")(tiny_backbone(), router=4)
    torch.nn.init.normal_(method.after_mlp[0].gates.out.weight)
    shares = method.after_mlp[0].gates(torch.randn(2, 24, 48))  # kinds, images, experts
    assert shares.shape == (5, 2, 4)
    torch.testing.assert_close(shares.sum(-1), torch.ones(5, 2))
    assert bool((shares[:, 0] - shares[:, 1]).abs().amax(-1).gt(1e-3).all())


def test_adaroute_starts_with_nearly_equal_shares():
    backbone = tiny_backbone()
    method = get_method("adaroute")(backbone)
    with torch.no_grad():
        shares = method.after_mlp[0].gates(backbone.embed(tiny_image(backbone)).patches)
    entropy = -(shares * shares.log()).sum(-1) / math.log(4)
    assert entropy.min() > 0.95


@pytest.mark.parametrize("centers", [1, 2, 4])
def test_adaroute_saves_each_center_once(centers):
    method = get_method("adaroute")(tiny_backbone(), centers=centers, placement="attention+mlp")
    assert method.center_of == [i * centers // 4 for i in range(4)]
    saved = [name for name in method.adapter_state() if "experts" in name]
    assert len(saved) == centers * 5
    assert all(name.startswith("centers.") for name in saved)
    # One expert of each kind for every block that shares the center, not for every module.
    assert all(center.experts[0].shape[0] == 4 // centers for center in method.centers)


@pytest.mark.parametrize("placement", ["block", "attention+mlp"])
def test_adaroute_places_its_modules_on_the_stream(placement):
    method = get_method("adaroute")(tiny_backbone(), placement=placement, centers=2)
    backbone, t = method.backbone, method.backbone.embed(tiny_image(method.backbone))
    with torch.no_grad():
        u = t.add(backbone.attention(3, t))
        if placement == "attention+mlp":
            u = method.after_attention[3](u, method.centers[1])
        expected = method.after_mlp[3](u.add(backbone.mlp(3, u)), method.centers[1])
        torch.testing.assert_close(method.block(3, t).x, expected.x)


@pytest.mark.parametrize(
    ("size", "width", "count"), [("small", 32, 0.551), ("base", 128, 3.098), ("large", 128, 8.058)]
)
def test_adaroute_is_narrower_on_a_narrow_backbone(size, width, count):
    with torch.device("meta"):
        method = get_method("adaroute")(create_backbone(f"vit_{size}_patch16_224"))
    assert method.after_mlp[0].inner.in_features == width
    assert round(sum(p.numel() for p in method.trainable().values()) / 1e6, 3) == count


def test_adaroute_of_the_detection_configuration():
    """Swin-B with Mask R-CNN: the update starts at 1e-5 and is added to x as it is."""
    usual, other = (
        get_method("adaroute")(tiny_backbone(), **options)
        for options in ({}, {"start": 1e-5, "residual_scale": False})
    )
    for module in other.after_mlp:
        assert bool((module.scale == 1e-5).all())
        assert module.skip_scale is module.skip_shift is None
    taken = {k: v for k, v in usual.adapter_state().items() if ".skip_" not in k}
    taken = {k: v * (1e-5 if k.endswith("mlp.0.scale") else 1) for k, v in taken.items()}
    other.load_adapter_state(taken)
    t = other.backbone.embed(tiny_image(other.backbone))
    with torch.no_grad():
        one, two = (m.after_mlp[0](t, m.centers[0]).patches for m in (usual, other))
    torch.testing.assert_close(two - t.patches, (one - t.patches) * 1e-5, atol=1e-6, rtol=0)
    assert not torch.equal(two, t.patches)


def test_adaroute_starts_at_one_place():
    with pytest.raises(ZooError, match=r"starts at 0, and start is 0\.5; give one of them"):
        get_method("adaroute")(tiny_backbone(), zero_init=True, start=0.5)
