"""Adapters behind or beside a branch: their equations by hand, and the authors' own modules."""

import math

import torch
import torch.nn.functional as F
from conftest import tiny_backbone, tiny_image
from hand_backbone import on_grid, set_all
from reference_tensors import assert_reference, needs_reference, reference

from method_zoo.convpass import Bypass
from method_zoo.mona import MonaAdapter
from method_zoo.options import get_method
from method_zoo.parts.layers import Bottleneck, add_filtered


def test_bottleneck_by_hand():
    module = Bottleneck(2, 1, F.relu)
    assert torch.equal(module(torch.rand(3, 2)), torch.zeros(3, 2))  # Up is zero
    assert module.down.weight.abs().min() > 0
    set_all(module, down__weight=[[1.0, -2.0]], down__bias=[0.5])
    set_all(module, up__weight=[[2.0], [-1.0]], up__bias=[0.0, 1.0])
    x = torch.tensor([[3.0, 1.0], [0.0, 1.0]])  # down: 1.5 and -1.5, of which relu leaves 1.5, 0
    assert torch.equal(module(x), torch.tensor([[3.0, -0.5], [0.0, 1.0]]))


@needs_reference
def test_adaptformer_is_the_authors_module():
    tensors, state = reference("adaptformer")
    module = Bottleneck(768, 64, F.relu)
    module.load_state_dict({k.replace("_proj", ""): t for k, t in state.items()})
    assert_reference(0.1 * module(tensors["x"]), tensors["y"])


def test_convpass_by_hand():
    module = Bypass(1, 1, 0.0).eval()
    x = torch.rand(2, 7, 1)
    assert torch.equal(module(on_grid(x, 1, 2, 3)), torch.zeros_like(x))  # Up is zero
    set_all(module, down__weight=[[1.0]], up__weight=[[2.0]])
    kernel = [[0.0, 1.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]  # half of itself, all of above
    set_all(module, conv__weight=[[kernel]], conv__bias=[0.25])

    def q(v: float) -> float:
        return v / (1 + math.exp(-1.702 * v))

    # A prefix token 0.5; on the grid of two rows 1 above 2.
    x = torch.tensor([[[0.5], [1.0], [2.0]]])
    expected = [0.5 * q(0.5), 0.5 * q(1.0), 0.5 * q(2.0) + q(1.0)]
    expected = torch.tensor([2 * q(v + 0.25) for v in expected])
    torch.testing.assert_close(module(on_grid(x, 1, 2, 1)).flatten(), expected)


def test_convpass_shares_the_norm_with_its_branch():
    method = get_method("convpass")(tiny_backbone(), scale=0.5)
    backbone, t = method.backbone, method.backbone.embed(tiny_image(method.backbone))
    method.eval()
    with torch.no_grad():
        for module in (method.beside_attention[0], method.beside_mlp[0]):
            torch.nn.init.normal_(module.up.weight)
        z = t._replace(x=backbone.norm1(0, t))
        u = t.x + backbone.attention(0, t).x + 0.5 * method.beside_attention[0](z)
        u = t._replace(x=u)
        z = t._replace(x=backbone.norm2(0, u))
        expected = u.x + backbone.mlp(0, u).x + 0.5 * method.beside_mlp[0](z)
        torch.testing.assert_close(method.block(0, t).x, expected)


@needs_reference
def test_convpass_is_the_authors_module():
    tensors, state = reference("convpass")
    module = Bypass(768, 8, 0.1).eval()
    module.load_state_dict({k.removeprefix("adapter_"): t for k, t in state.items()})
    assert_reference(module(on_grid(tensors["x"], 1, 14, 14)), tensors["y"])


def test_mona_by_hand():
    module = MonaAdapter(2, 1, 0.0, zero_init_up=False).eval()
    set_all(module, norm__weight=[1.0, 1.0], norm__bias=[0.0, 0.0])
    set_all(module, gain_normed=[1.0, 1.0], gain_plain=[2.0, 0.0])
    set_all(module, down__weight=[[1.0, 3.0]], down__bias=[0.0])
    set_all(module, project__weight=[[1.0]], project__bias=[0.0])
    set_all(module, up__weight=[[1.0], [-1.0]], up__bias=[0.0, 0.0])
    with torch.no_grad():
        for k, conv in zip((3.0, 6.0, 9.0), module.filters, strict=True):
            conv.weight.zero_()[0, 0, conv.kernel_size[0] // 2, conv.kernel_size[0] // 2] = k
            conv.bias.zero_()
    # LN(3, 1) = (1, -1); z = (1 + 6, -1) and (1 + 6, -1); down: 7 - 3 = 4. On the grid
    # 4 + (3 + 6 + 9) / 3 * 4 = 28, for the prefix 4; projection: 56 and 8, where GELU(x) = x.
    x = torch.tensor([[[3.0, 1.0], [3.0, 1.0]]])
    expected = torch.tensor([[[3 + 8.0, 1 - 8], [3 + 56.0, 1 - 56]]])
    torch.testing.assert_close(module(on_grid(x, 1, 1, 1)).x, expected, atol=1e-3, rtol=1e-4)


def test_monas_three_filters_are_onemerged_filters():
    torch.manual_seed(0)
    module = MonaAdapter(4, 6, 0.0, zero_init_up=False).double()
    z = torch.randn(2, 6, 5, 9, dtype=torch.float64)  # smaller than the largest filter
    plain = z + torch.stack([conv(z) for conv in module.filters]).mean(0)
    merged = add_filtered(z, *module.merged_filters())
    torch.testing.assert_close(merged, plain, atol=1e-12, rtol=1e-12)
    filters = list(module.filters.parameters())
    weight = torch.randn_like(plain)
    found, expected = (torch.autograd.grad((y * weight).sum(), filters) for y in (merged, plain))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


def test_in_half_precision_what_is_kept_does_not_swallow_a_small_filter():
    torch.manual_seed(0)
    z, share, bias = torch.ones(1, 4, 3, 3), torch.rand(4) + 1, torch.zeros(4)
    kernel = torch.full((4, 1, 1, 1), 1e-4)
    expected = z * (share + 1e-4)[:, None, None]
    torch.testing.assert_close(add_filtered(z, kernel, bias, share), expected)
    with torch.autocast("cpu", torch.bfloat16):
        half = add_filtered(z, kernel, bias, share)
    torch.testing.assert_close(half, expected, atol=1e-6, rtol=1e-6)  # bfloat16 has steps of 8e-3


@needs_reference
def test_mona_is_the_authors_module():
    tensors, state = reference("mona")
    names = {
        "adapter_conv.conv1": "filters.0",
        "adapter_conv.conv2": "filters.1",
        "adapter_conv.conv3": "filters.2",
        "adapter_conv.projector": "project",
        "project1": "down",
        "project2": "up",
        "gammax": "gain_plain",
        "gamma": "gain_normed",
    }
    module = MonaAdapter(192, 64, 0.1, zero_init_up=False).eval()
    own = {}
    for name, tensor in state.items():
        theirs = next((k for k in names if name == k or name.startswith(f"{k}.")), None)
        own[name.replace(theirs, names[theirs]) if theirs else name] = tensor
    own["project.weight"] = own["project.weight"][:, :, 0, 0]
    module.load_state_dict(own)
    assert_reference(module(on_grid(tensors["x"], 0, 7, 7)).x, tensors["y"])
