"""SNELL: its distances by hand, the authors' module, its quantile, and what it folds into."""

import pytest
import torch
from conftest import tiny_backbone
from hand_backbone import assert_values, set_all
from reference_tensors import assert_reference, needs_reference, reference
from torch import nn

from method_zoo.backbones.create import create_backbone
from method_zoo.options import get_method
from method_zoo.snell import DistanceKernel, KernelLinear, quantile_of

FORM = {"quantile": 0.5, "soft": False, "snella": False}


def hand_layer(**form) -> KernelLinear:
    """Two inputs, one output; D = 0.1 (|(3, 4)| - |(1, 0)|, |(0, 0)| - |(0, 2)|) = (0.4, -0.2)."""
    base = nn.Linear(2, 1).requires_grad_(False)
    set_all(base, weight=[[1.0, 2.0]], bias=[0.5])
    layer = KernelLinear(base, 1, 4, 0.0, 0.0, **FORM | form)
    kernel = layer.kernels[0]
    set_all(kernel, u=[[[3.0, 4.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]], v=[[[0.0, 0.0]]] * 2)
    return layer


@pytest.mark.parametrize(
    ("form", "change"),
    [
        # The median of 0.4 and 0.2 is 0.3: 0.4 stays, times itself.
        ({}, (0.16, 0.0)),
        ({"soft": True}, (0.4 * 0.1, 0.0)),
        ({"quantile": 0.0}, (0.4, -0.2)),
        # A softmax over one output is 1: D + 1 + 0.
        ({"quantile": 0.0, "snella": True}, (1.4, 0.8)),
    ],
)
def test_snell_by_hand(form, change):
    layer = hand_layer(**form)
    expected = [[10 + 40 + 0.5 + 10 * change[0] + 20 * change[1]]]
    assert_values(layer(torch.tensor([[10.0, 20.0]])), expected, 1e-5)
    assert_values(layer.fold().weight, [[1 + change[0], 2 + change[1]]], 1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_quantile_is_that_of_torch(share):
    values = torch.randn(57)
    torch.testing.assert_close(quantile_of(values, share), values.quantile(share))


def test_queries_keys_and_values_have_a_kernel_each():
    method = get_method("snell")(tiny_backbone())
    block = method.backbone.vit.blocks[0]
    assert [len(m.kernels) for m in (block.attn.qkv, block.attn.proj, block.mlp.fc1)] == [3, 1, 1]
    assert [m.dropout.p for m in (block.attn.qkv, block.attn.proj)] == [0.1, 0.0]


def test_it_trains_behind_an_input_without_gradient():
    torch.manual_seed(0)  # thresholds and dropout may leave a kernel of five tokens without any
    method = get_method("snell")(tiny_backbone()).train()
    x = torch.randn(1, 5, 48)
    layer = method.backbone.vit.blocks[0].attn.qkv
    layer(x).square().sum().backward()
    assert all(bool(p.grad.any()) for p in layer.kernels.parameters())


@pytest.mark.parametrize(("rank", "count"), [(8, 1_327_104), (16, 2_654_208), (32, 5_308_416)])
def test_count(rank, count):
    with torch.device("meta"):
        method = get_method("snell")(create_backbone("vit_base_patch16_224"), rank=rank)
    assert sum(p.numel() for p in method.trainable().values()) == count


@needs_reference
@pytest.mark.parametrize("group", ["dense", "sparse", "snella"])
def test_snell_is_the_authors_module(group):
    tensors, _ = reference("snell")
    tensors = {k.removeprefix(f"{group}/"): t for k, t in tensors.items() if k.startswith(group)}
    quantile = 0.0 if group == "dense" else 0.9
    kernel = DistanceKernel(48, 96, 8, quantile, soft=False, snella=group == "snella")
    names = {"u": "In_Qs", "v": "Out_Qs"}
    if group == "snella":
        names |= {name: name for name in ("alpha", "beta", "gamma")}
    kernel.load_state_dict({ours: tensors[f"state/{theirs}"] for ours, theirs in names.items()})
    assert_reference(kernel.dense(), tensors["delta_before_threshold"])
    x = tensors["x"].requires_grad_()
    if "delta" in tensors:
        assert_reference(kernel(), tensors["delta"])
    y = x @ kernel()
    assert_reference(y, tensors["y"])
    y.square().sum().backward()
    assert_relative(x.grad, tensors["gx"])
    for ours, theirs in names.items():
        assert_relative(kernel.get_parameter(ours).grad, tensors[f"gw/{theirs}"])


def assert_relative(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert_reference(got / expected.abs().max(), expected / expected.abs().max())
