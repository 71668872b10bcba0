"""Methods that fold into the layers they change: their equations on numbers worked by hand."""

import math

import pytest
import torch
from conftest import tiny_backbone
from reference_tensors import assert_reference, needs_reference, reference
from torch import nn

from method_zoo.dora import DoRALinear
from method_zoo.fact import FacTLinear, Factors
from method_zoo.options import get_method
from method_zoo.rep_adapter import RepLinear
from method_zoo.ssf import ScaleShift
from method_zoo.vera import Projections, VeRALinear


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight)).requires_grad_(False)
    layer.weight.copy_(torch.tensor(weight))
    layer.bias.copy_(torch.tensor(bias))
    return layer


def assert_by_hand(wrapped, x: list[float], expected: list[float]) -> None:
    """Compare the output, and that of the folded layer, with numbers worked by hand."""
    read, wanted = torch.tensor(x, dtype=torch.float32), torch.tensor(expected, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(wrapped.eval()(read), wanted)
        torch.testing.assert_close(wrapped.fold()(read), wanted)


def fill(tensor: torch.Tensor, values: list) -> None:
    with torch.no_grad():
        tensor.copy_(torch.tensor(values))


def test_ssf_by_hand():
    layer = ScaleShift(linear([[1, 2], [3, 4]], [0, 1]), 0.0)
    assert torch.equal(layer.scale, torch.ones(2))
    assert torch.equal(layer.shift, torch.zeros(2))
    fill(layer.scale, [2, -1])
    fill(layer.shift, [0.5, 10])
    assert_by_hand(layer, [1, 1], [2 * 3 + 0.5, -8 + 10])  # W x + b = (3, 8)


def test_ssf_scales_channels_of_convolutions_and_norms():
    conv = ScaleShift(nn.Conv2d(1, 2, 1, bias=False).requires_grad_(False), 0.02)
    x = torch.rand(1, 1, 2, 3)
    with torch.no_grad():
        y = conv(x)
        plain = x * conv.base.weight.view(1, 2, 1, 1)
        scale, shift = conv.scale.view(2, 1, 1), conv.shift.view(2, 1, 1)
        torch.testing.assert_close(y, plain * scale + shift)
        torch.testing.assert_close(conv.fold()(x), y)  # which has no bias of its own
    norm = ScaleShift(nn.LayerNorm(2).requires_grad_(False), 0.0)
    fill(norm.scale, [3, 1])
    fill(norm.shift, [0, 1])
    norm.base.eps = 0.0
    assert_by_hand(norm, [5, 1], [3 * 1, -1 + 1])  # LN(5, 1) = (1, -1)


def test_ssf_draws_its_scales_about_one():
    torch.manual_seed(0)
    drawn = get_method("ssf")(tiny_backbone())
    scales = torch.cat([p.detach().flatten() for n, p in drawn.trainable().items() if "scale" in n])
    assert abs(float(scales.mean()) - 1) < 2e-3
    assert abs(float(scales.std()) - 0.02) < 2e-3


def test_dora_by_hand():
    layer = DoRALinear(linear([[3, 0], [0, 2]], [1, 0]), rank=1, alpha=2.0)
    torch.testing.assert_close(layer.length, torch.tensor([3.0, 2.0]))
    fill(layer.a, [[0, 2]])
    fill(layer.b, [[1], [0]])
    fill(layer.length, [10, 1])
    # s = 2: W + s B A = [[3, 4], [0, 2]], of lengths 5 and 2; W' = [[6, 8], [0, 1]].
    assert_by_hand(layer, [1, 1], [14 + 1, 1])


def test_dora_takes_the_norm_as_a_constant():
    layer = DoRALinear(linear([[3, 0]], [0]), rank=1, alpha=1.0)
    fill(layer.a, [[0, 4]])
    fill(layer.b, [[1]])
    layer(torch.tensor([[1.0, 0.0]])).sum().backward()
    # y = g (3 x_1 + b a x) / n with n = 5: dy/dg = 3 / 5; b reads a x = 0 and gets nothing,
    # where a norm that is not constant would give it -g 3 n' / n^2.
    assert layer.length.grad.item() == pytest.approx(0.6)
    assert layer.b.grad.item() == 0


def test_vera_by_hand():
    shared = Projections(2, 2, 2, 0, torch.device("cpu"))
    layer = VeRALinear(linear([[1, 0], [0, 1]], [0, 5]), shared)
    assert torch.equal(layer.inner, torch.full((2,), 0.1))
    assert torch.equal(layer.outer, torch.zeros(2))
    fill(shared.a, [[1, 1], [1, -1]])
    fill(shared.b, [[1, 0], [1, 2]])
    fill(layer.inner, [2, 3])
    fill(layer.outer, [1, -1])
    # x = (3, 1): A x = (4, 2); d * . = (8, 6); B . = (8, 20); b * . = (8, -20)
    assert_by_hand(layer, [3, 1], [3 + 8, 1 + 5 - 20])


def test_vera_shares_matrices_that_come_from_its_seed():
    torch.manual_seed(1)
    one = get_method("vera")(tiny_backbone(), rank=4)
    torch.manual_seed(2)
    same, other = (get_method("vera")(tiny_backbone(), rank=4, seed=seed) for seed in (0, 3))
    layers = [block.attn.qkv for block in one.backbone.vit.blocks]
    assert all(layer.shared is layers[0].shared for layer in layers)
    assert torch.equal(same.backbone.vit.blocks[2].attn.qkv.shared.a, layers[0].shared.a)
    assert not torch.equal(other.backbone.vit.blocks[2].attn.qkv.shared.a, layers[0].shared.a)
    assert {name.rpartition(".")[2] for name in one.adapter_state()} == {"inner", "outer"}


def test_fact_by_hand():
    shared = Factors(2, 1)
    fill(shared.u, [[1, 2]])
    fill(shared.v, [[1], [3]])
    # From one piece of width 2 to two pieces, as fc1 would: cores 5 and -1, s = 2.
    layer = FacTLinear(linear([[0, 0]] * 4, [0, 0, 0, 1]), shared, 2.0, 0.0)
    assert layer.core.shape == (2, 1, 1, 1)
    fill(layer.core, [[[[5]]], [[[-1]]]])
    # x = (1, 1): U x = 3; cores: 15 and -3; V: (15, 45) and (-3, -9)
    assert_by_hand(layer, [1, 1], [30, 90, -6, -18 + 1])
    # From two pieces to one, as fc2: U x = 3 and 4, 5 * 3 - 4 = 11, V: (11, 33)
    layer = FacTLinear(linear([[0] * 4] * 2, [0, 0]), shared, 2.0, 0.0)
    fill(layer.core, [[[[5]], [[-1]]]])
    assert_by_hand(layer, [1, 1, 0, 2], [22, 66])


def test_fact_shares_its_factors_and_saves_them_once():
    method = get_method("fact")(tiny_backbone(), rank=2)
    names = [name.rpartition(".")[2] for name in method.adapter_state()]
    assert names.count("u") == names.count("v") == 1
    assert names.count("core") == 16
    assert set(method.adapter_state()) == set(method.trainable())
    first, last = (method.backbone.vit.blocks[i] for i in (0, 3))
    assert first.attn.qkv.shared is last.mlp.fc2.shared


def test_fact_cuts_the_last_piece_of_a_layer_that_does_not_divide():
    shared = Factors(2, 1)
    fill(shared.u, [[1, 2]])
    fill(shared.v, [[1], [3]])
    layer = FacTLinear(linear([[0] * 3] * 3, [0, 0, 1]), shared, 1.0, 0.0)
    assert layer.core.shape == (2, 2, 1, 1)
    fill(layer.core, [[[[5]], [[-1]]], [[[2]], [[1]]]])
    # x = (1, 1, 4): U x = 3, of half a piece 4; cores: 15 - 4, 6 + 4; V: (11, 33), (10, cut off)
    assert_by_hand(layer, [1, 1, 4], [11, 33, 10 + 1])


def test_rep_adapter_by_hand():
    layer = RepLinear(linear([[1, 0], [1, 1]], [0, 1]), width=2, groups=2, scale=2.0, dropout=0.0)
    fill(layer.down.weight, [[1, 1], [0, 1]])
    fill(layer.down.bias, [0, 1])
    fill(layer.up, [[[2]], [[-1]]])  # each output reads one channel of the bottleneck
    fill(layer.bias, [0, 0.5])
    # z = (1, 2): A z + a = (3, 3); B: (6, -3), b: (6, -2.5); s: (12, -5); z' = (13, -3)
    assert_by_hand(layer, [1, 2], [13, 13 - 3 + 1])


@needs_reference
def test_rep_adapter_is_the_authors_module():
    tensors, state = reference("rep_adapter")
    layer = RepLinear(nn.Linear(768, 4), 8, 2, 1.0, 0.1).eval()
    layer.down.load_state_dict(
        {"weight": state["conv_A.weight"][..., 0], "bias": state["conv_A.bias"]}
    )
    with torch.no_grad():
        layer.up.copy_(state["conv_B.weight"][..., 0].unflatten(0, (2, -1)))
        layer.bias.copy_(state["conv_B.bias"])
    assert_reference(tensors["x"] + layer.adapter(tensors["x"]), tensors["y"])


def test_vera_starts_its_matrices_kaiming_uniform():
    shared = Projections(48, 144, 256, 0, torch.device("cpu"))
    for tensor, inputs in ((shared.a, 48), (shared.b, 256)):
        bound = math.sqrt(6 / inputs)
        assert 0.95 * bound < float(tensor.abs().max()) <= bound
