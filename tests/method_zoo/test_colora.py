"""CoLoRA: its changes and its filter by hand, the authors' block, and the printed counts."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_backbone, tiny_image
from hand_backbone import assert_values, fill, set_all
from reference_tensors import assert_reference, needs_reference, reference
from torch import nn

from method_zoo.backbones.create import create_backbone
from method_zoo.colora import CorrelatedLinear, FilteredConv, SharedFactors, blur, smooth_by_value
from method_zoo.errors import ZooError
from method_zoo.options import get_method

ROOT2 = math.sqrt(2)


def test_colora_by_hand():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    set_all(first, weight=[[1.0, 0.0], [0.0, 2.0]], bias=[0.0, 1.0])
    set_all(second, weight=[[1.0, 0.0], [2.0, 1.0]])
    shared = SharedFactors(2, 1)
    set_all(shared, a=[[1.0, 3.0]], b=[[0.0], [2.0]])
    layer = CorrelatedLinear(first, second, shared, 1, widens=True)
    set_all(layer, a=[[1.0, 3.0]], b=[[2.0], [4.0]])
    # Own: (1, 3) by (2, 4), standard deviations of sqrt 2 each. Shared: W2^T (0, 2) = (4, 2), again
    # sqrt 2, beside (1, 3); its root is the fourth one of 1 * 2.
    own = torch.tensor([[2.0, 6.0], [4.0, 12.0]]) / (2 * ROOT2)
    common = torch.tensor([[4.0, 12.0], [2.0, 6.0]]) / (2**0.25 * 2 * ROOT2)
    assert_values(layer.change(), (own + common).tolist(), 1e-5)
    weight = own + common + torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    expected = [[*(weight @ torch.tensor([1.0, 10.0]) + torch.tensor([0.0, 1.0])).tolist()]]
    assert_values(layer(torch.tensor([[1.0, 10.0]])), expected, 1e-4)
    back = CorrelatedLinear(second, first, shared, 1, widens=False)
    fill(back.b, [[0.0], [0.0]])
    # A W1^T = (1, 6), of standard deviation 5 / sqrt 2; B (0, 2).
    common = torch.tensor([[0.0, 0.0], [2.0, 12.0]]) / (2**0.25 * (5 / ROOT2 + ROOT2))
    assert_values(back.change(), common.tolist(), 1e-5)


def test_its_filter_keeps_small_and_large_values_apart():
    # phi = 0 and pi / 2: a place of value 5 sees no place of value 0, however near, and a fifth of
    # its own mean is added.
    assert_values(smooth_by_value(torch.tensor([[[[0.0, 5.0]]]])), [[[[0.0, 6.0]]]], 1e-3)


@pytest.mark.parametrize("sides", [(7, 9), (6, 6)])
def test_blurring_reflects_at_the_edges(sides):
    z = torch.randn(2, 3, *sides)
    step = torch.exp(-torch.arange(-5.0, 6).square() / 2)
    kernel = torch.outer(step, step) / step.sum() ** 2
    padded = F.pad(z, (5, 5, 5, 5), mode="reflect").flatten(0, 1)[:, None]
    expected = F.conv2d(padded, kernel[None, None]).view_as(z)
    torch.testing.assert_close(blur(z), expected)


def test_blurring_a_single_place_leaves_it():
    z = torch.randn(1, 2, 1, 1)
    torch.testing.assert_close(blur(z), z)


def test_the_stream_is_that_of_the_frozen_model_at_the_start():
    image = tiny_image(tiny_backbone("convnext"))
    frozen = get_method("decoder_only")(tiny_backbone("convnext"))(image)
    method = get_method("colora")(tiny_backbone("convnext"))
    assert_values(method(image).final, frozen.final.tolist(), 1e-5)


def test_the_same_image_gives_the_same_again():
    image = tiny_image(tiny_backbone("convnext"))
    method = get_method("colora")(tiny_backbone("convnext")).train()
    with torch.no_grad():
        for p in method.trainable().values():
            p.add_(0.1 * torch.randn_like(p))
        assert torch.equal(method(image).final, method(image).final)


def test_it_goes_on_convnext_alone():
    with pytest.raises(ZooError, match=r"^CoLoRA goes on ConvNeXt alone.*such as convnext_small"):
        get_method("colora")(tiny_backbone())


@pytest.mark.parametrize(
    ("name", "count", "factors"),
    [("convnext_small", 2_811_648, 2_698_272), ("convnext_base", 4_893_952, 4_742_784)],
)
def test_count_is_the_printed_one(name, count, factors):
    with torch.device("meta"):
        method = get_method("colora")(create_backbone(name))
    trained = method.trainable()
    assert sum(p.numel() for p in trained.values()) == count
    ours = (".squeeze.", ".expand.", ".fc1.a", ".fc1.b", ".fc2.a", ".fc2.b", ".shared.")
    added = {n: p for n, p in trained.items() if any(x in n for x in ours) and "bias" not in n}
    assert sum(p.numel() for p in added.values()) == factors


@needs_reference
def test_colora_is_the_first_forward_pass_of_the_authors():
    tensors, _ = reference("colora_convnext")
    assert_reference(smooth_by_value(tensors["filter_in"]), tensors["filter_out"])
    first, second = (layer(tensors, f"pwconv{k}") for k in (1, 2))
    shared = SharedFactors(32, 4)
    fill(shared.a, tensors["lora/lora_pw_share_A"])
    fill(shared.b, tensors["lora/lora_pw_share_B"])
    up = CorrelatedLinear(first, second, shared, 4, widens=True)
    down = CorrelatedLinear(second, first, shared, 4, widens=False)
    for k, wrapped in enumerate((up, down), start=1):
        fill(wrapped.a, tensors[f"lora/lora_pw_A{k}"])
        fill(wrapped.b, tensors[f"lora/lora_pw_B{k}"])
        assert_reference(wrapped.change(), tensors[f"step1/delta{k}"])
    base = nn.Conv2d(32, 32, 7, padding=3, groups=32)
    fill(base.weight, tensors["frozen/dwconv.weight"])
    fill(base.bias, tensors["frozen/dwconv.bias"])
    conv = FilteredConv(base, 4)
    fill(conv.squeeze.weight, tensors["lora/lora.lora_A.weight"])
    fill(conv.expand.weight, tensors["lora/lora.lora_B.weight"])
    norm = tensors["frozen/norm.weight"], tensors["frozen/norm.bias"]
    y = F.layer_norm(conv(tensors["x"]).permute(0, 2, 3, 1), (32,), *norm, 1e-6)
    y = down(F.gelu(up(y))) * tensors["frozen/gamma"]
    assert_reference(tensors["x"] + y.permute(0, 3, 1, 2), tensors["step1/y"])


def layer(tensors: dict, name: str) -> nn.Linear:
    weight = tensors[f"frozen/{name}.weight"]
    made = nn.Linear(weight.shape[1], weight.shape[0])
    fill(made.weight, weight)
    fill(made.bias, tensors[f"frozen/{name}.bias"])
    return made
