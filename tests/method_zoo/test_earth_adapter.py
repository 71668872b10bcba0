"""Earth-Adapter: its bands and experts by hand, the authors' module, and the printed counts."""

import math

import pytest
import torch
from conftest import tiny_backbone
from counts import earth_adapter
from hand_backbone import assert_values, fill, set_all
from reference_tensors import assert_reference, needs_reference, reference

from method_zoo.backbones.create import create_backbone
from method_zoo.earth_adapter import EarthAdapter, FrequencyExperts, split_bands
from method_zoo.options import get_method


def test_earth_adapter_by_hand():
    """One channel on 2 x 2 patches, of whose spectrum the square keeps the whole: low f = f."""
    module = FrequencyExperts(1, 1, cutoff=1.0)
    # Half-side int(2 * 1 // 2) = 1: rows and columns [0, 2) of two.
    for expert, factor in zip(module.experts, (1.0, 10.0, 100.0), strict=True):
        set_all(expert, down__weight=[[1.0]], down__bias=[-1.0], up__weight=[[factor]])
        set_all(expert, up__bias=[1.0])
    set_all(module, router__weight=[[0.0]] * 3, router__bias=[0.0, 0.0, math.log(2)])
    f = torch.tensor([[[1.0], [2.0], [3.0], [0.0]]])
    # ReLU(f - 1) = 0, 1, 2, 0 for f and low f, and 0 for high f = 0; shares 1/4, 1/4, 1/2:
    # (r + 1) / 4 + (10 r + 1) / 4 + 1 / 2.
    expected = [[[11 * r / 4 + 1] for r in (0, 1, 2, 0)]]
    assert_values(module(f, (2, 2)), expected, 1e-5)


def test_a_small_grid_has_no_low_frequency():
    f = torch.randn(1, 16, 3)
    low, high = split_bands(f, (4, 4), 0.2)
    assert not low.any()
    assert torch.equal(high, f)


def test_the_mean_is_low_and_stripes_are_high():
    f = torch.tensor([3.0, 1.0]).repeat(8)[None, :, None]  # columns of 4 x 4 in turn
    low, high = split_bands(f, (4, 4), 0.5)
    assert_values(low.flatten(), [2.0] * 16, 1e-5)
    assert_values(high.flatten(), [1.0, -1.0] * 8, 1e-5)


@pytest.mark.parametrize(
    ("options", "ours", "released"),
    [
        ({}, 2_007_009, 4_868_448),
        ({"bottleneck": 64, "fourier": 6, "at": "first"}, None, 9_589_344),
    ],
)
def test_count_beside_what_the_released_class_builds(options, ours, released):
    with torch.device("meta"):
        method = get_method("earth_adapter")(create_backbone("vit_large_patch16_224"), **options)
    counted = sum(p.numel() for p in method.trainable().values())
    d, mixing = options.get("bottleneck", 32), options.get("fourier", 3)
    idle = (24 - mixing) * (2 * (2 * 1024 * d + d + 1024) + 3 * 1024 + 3)
    assert counted + idle == released
    assert ours in (None, counted)
    if ours:
        assert idle == 2_861_439


def test_without_mixing_no_expert_reads_a_band():
    backbone = tiny_backbone()
    method = get_method("earth_adapter")(backbone, fourier=0)
    counted = sum(p.numel() for p in method.trainable().values())
    assert counted == earth_adapter(backbone, mixing=0)


@pytest.mark.parametrize(("at", "expected"), [("last", [0, 0, 1, 1]), ("first", [1, 1, 0, 0])])
def test_which_blocks_mix(at, expected):
    method = get_method("earth_adapter")(tiny_backbone(), fourier=2, at=at)
    assert [isinstance(a, FrequencyExperts) for a in method.adapters] == expected


@needs_reference
def test_earth_adapter_is_the_authors_module():
    tensors, state = reference("earth_adapter")
    backbone = create_backbone(
        "vit_tiny_patch16_224", embed_dim=48, depth=4, num_heads=3, img_size=32
    )
    method = EarthAdapter(backbone, bottleneck=6, fourier=1, cutoff=0.5)
    single, mixed = method.adapters[0], method.adapters[3]
    load(single, state, "mlp_list1.0")
    for k, expert in enumerate(mixed.experts, start=1):
        load(expert, state, f"mlp_list{k}.1")
    fill(mixed.router.weight, state["router.1.weight"])
    fill(mixed.router.bias, state["router.1.bias"])
    scale = state["scale"].clone().requires_grad_()
    outputs = []
    for k, module in enumerate((single, mixed)):
        x = tensors[f"x{k}"]
        f = x[:, 1:]
        y = torch.cat([x[:, :1], f + scale[k] * module(f, (8, 8))], dim=1)
        assert_reference(y, tensors[f"y{k}"])
        outputs.append(y)
    maps = tensors["x1"][:, 1:]
    for got, name in zip(split_bands(maps, (8, 8), 0.5), ("low1", "high1"), strict=True):
        assert_reference(got.mT.unflatten(2, (8, 8)), tensors[name])
    sum(y.square().sum() for y in outputs).backward()
    for got, name in (
        (scale.grad, "scale"),
        (mixed.router.weight.grad, "router.1.weight"),
        (mixed.experts[2].down.weight.grad, "mlp_list3.1.0.weight"),
        (single.up.bias.grad, "mlp_list1.0.2.bias"),
    ):
        expected = tensors[f"gw/{name}"]
        assert_reference(got / expected.abs().max(), expected / expected.abs().max())


def load(expert, state, name: str) -> None:
    for ours, theirs in (("down", 0), ("up", 2)):
        for tensor in ("weight", "bias"):
            fill(expert.get_parameter(f"{ours}.{tensor}"), state[f"{name}.{theirs}.{tensor}"])
