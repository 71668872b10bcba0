"""Conv-LoRA: gate, balance loss and experts, by hand and against the authors' own layer."""

import math
from statistics import variance

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_backbone, tiny_image
from reference_tensors import assert_reference, needs_reference, reference
from torch import nn

from lpmoe_bench.model import released
from method_zoo.conv_lora import ConvLoRALinear, Experts, Gate, ScaleExpert, _kept
from method_zoo.options import get_method


def layer_of(through: bool = False) -> ConvLoRALinear:
    layer = ConvLoRALinear(nn.Linear(2, 1).requires_grad_(False), 1, 2.0, 2, through)
    with torch.no_grad():
        layer.base.weight.copy_(torch.tensor([[1.0, 1.0]]))
        layer.base.bias.fill_(0.5)
        layer.a.copy_(torch.tensor([[1.0, 0.0]]))
        layer.b.fill_(10)
        for expert in layer.experts:  # the map itself, plus nothing, before GELU
            expert.conv.weight.zero_()[0, 0, 1, 1] = 1
        layer.experts[1].conv.weight *= -1
    return layer


def test_conv_lora_by_hand():
    layer = layer_of().eval()
    # A prefix token and a grid of 1 x 1 with a = 3 and a = 2: only the grid is convolved.
    x = torch.tensor([[[3.0, 0.0], [2.0, 1.0]]])
    gelu = 2 * 0.5 * (1 + math.erf(2 / math.sqrt(2)))
    for sign, convolved in ((1, gelu), (-1, gelu - 2)):  # GELU(-x) = GELU(x) - x
        with torch.no_grad():
            layer.gate.weight.copy_(torch.tensor([[sign * 1.0, sign * -1.0]]))
            y, _ = layer.forward_aux(x, 1, (1, 1))
        expected = [3.5 + 2 * 10 * 3, 3.5 + 2 * 10 * (2 + convolved)]
        torch.testing.assert_close(y.flatten(), torch.tensor(expected))


@pytest.mark.parametrize("scale", range(1, 9))
def test_an_expert_is_the_literal_resize_and_convolve(scale):
    torch.manual_seed(scale)
    expert, a = ScaleExpert(3, scale), torch.randn(2, 3, 5, 7)
    nn.init.normal_(expert.conv.bias)
    with torch.no_grad():
        large = F.interpolate(a, scale_factor=scale, mode="bicubic") if scale > 1 else a
        expected = F.gelu(expert.conv(large))
        if scale > 1:
            expected = F.interpolate(expected, size=(5, 7), mode="bicubic")
        torch.testing.assert_close(expert(a), expected, atol=1e-5, rtol=1e-5)


def test_each_map_goes_through_its_expert():
    torch.manual_seed(0)
    experts, a = Experts(2, 4), torch.randn(5, 2, 4, 6)
    index = torch.tensor([3, 0, 3, 2, 0])
    with torch.no_grad():
        got = experts(a, index)
        for row, e in enumerate(index):
            torch.testing.assert_close(got[row], experts[e](a[row][None])[0])


def test_matrices_made_for_inference_serve_training():
    _kept.cache_clear()
    experts, a = Experts(2, 3), torch.randn(3, 2, 4, 6)
    with torch.inference_mode():
        expected = experts(a, torch.tensor([0, 1, 2]))
    a.requires_grad_()
    got = experts(a, torch.tensor([0, 1, 2]))
    got.sum().backward()
    assert torch.equal(got, expected)
    assert bool(a.grad.any())


def test_the_gate_chooses_the_largest_without_noise():
    gate = Gate(2, 3).eval()
    with torch.no_grad():
        gate.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]))
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 1.0]])[:, :, None, None]
    choice = gate(a.expand(4, 2, 2, 2))
    assert choice.index.tolist() == [0, 2, 2, 2]
    assert choice.share[0].item() == pytest.approx(math.e / (math.e + 2))
    # Importance and load are both the counts 1, 0, 3.
    expected = 0.01 * 2 * variance([1, 0, 3]) / (4 / 3) ** 2
    assert choice.loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("units", "expected"), [(1, 0.084), (2, 0.042), (25, 0.0034)])
def test_the_balance_loss_at_the_start(units, expected):
    """The means that were measured on the authors' gate; 0.16 in eval mode for one unit."""
    torch.manual_seed(0)
    gate, a = Gate(3, 8), torch.randn(units, 3, 2, 2)
    losses = torch.stack([gate(a).loss for _ in range(400)])
    assert losses.mean().item() == pytest.approx(expected, rel=0.06)
    if units == 1:
        assert gate.eval()(a).loss.item() == pytest.approx(0.16, rel=1e-5)


def test_the_load_is_the_chance_of_winning_again():
    torch.manual_seed(0)
    gate, a = Gate(1, 2), torch.ones(1, 1, 1, 1)
    with torch.no_grad():
        gate.weight.copy_(torch.tensor([[0.3, -0.1]]))
    state = torch.get_rng_state()
    choice = gate(a)
    torch.set_rng_state(state)
    deviation = math.log(2) + 0.01  # softplus(0) + 0.01
    noisy = [c + float(n) * deviation for c, n in zip((0.3, -0.1), torch.randn(2), strict=True)]
    chances = [
        0.5 * (1 + math.erf((clean - rival) / deviation / math.sqrt(2)))
        for clean, rival in zip((0.3, -0.1), reversed(noisy), strict=True)
    ]
    mean = sum(chances) / 2
    expected = 0.01 * (variance([1, 0]) / 0.5**2 + variance(chances) / mean**2)
    assert choice.index.item() == noisy.index(max(noisy))
    assert choice.loss.item() == pytest.approx(expected, rel=1e-5)


def gate_gradient(through: bool, training: bool) -> tuple[float, float]:
    """Return the gradient that the task and that the balance loss give the gate."""
    torch.manual_seed(0)
    layer = layer_of(through).train(training)
    found = []
    for part in (0, 1):
        layer.zero_grad()
        output = layer.forward_aux(torch.randn(3, 4, 2), 0, (2, 2))[part].sum()
        if output.requires_grad:
            output.backward()
        grad = layer.gate.weight.grad
        found.append(0.0 if grad is None else grad.abs().sum().item())
    return found[0], found[1]


def test_who_trains_the_gate():
    task, balance = gate_gradient(through=False, training=True)
    assert task == 0 < balance
    task, balance = gate_gradient(through=True, training=True)
    assert task > 0 < balance
    assert gate_gradient(through=False, training=False) == (0, 0)


def test_straight_through_changes_no_output():
    torch.manual_seed(0)
    x, state = torch.randn(3, 4, 2), layer_of().state_dict()
    results = []
    for through in (False, True):
        layer = layer_of(through)
        layer.load_state_dict(state)
        torch.manual_seed(1)
        results.append(layer.forward_aux(x, 0, (2, 2))[0])
    assert torch.equal(*results)


def test_the_balance_loss_travels_with_the_features():
    method = get_method("conv_lora")(tiny_backbone())
    image = tiny_image(method.backbone)
    # At the start each of the four layers chooses one expert for both images.
    assert method.eval()(image).aux.item() == pytest.approx(4 * 0.16, rel=1e-5)
    method.train()(image).aux.backward()
    gates = [p for n, p in method.trainable().items() if n.endswith("gate.weight")]
    assert len(gates) == 4
    assert all(bool(p.grad.any()) for p in gates)


def test_the_update_has_the_rows_of_the_fused_layer():
    # Query and value alone would have the same count (spec, section 5.1).
    method = get_method("conv_lora")(tiny_backbone())
    assert [tuple(p.shape) for n, p in method.trainable().items() if n.endswith("qkv.b")] == [
        (3 * 48, 3)
    ] * 4


@needs_reference
def test_conv_lora_is_the_authors_layer():
    tensors, state = reference("conv_lora_linear")
    base = nn.Linear(32, 96)
    base.load_state_dict({"weight": state["weight"], "bias": state["bias"]})
    layer = ConvLoRALinear(base.requires_grad_(False), 3, 32.0, 8, False).eval()
    own, left = released.rename(state, released.conv_lora_names(8))  # as an import takes them
    assert set(left) == {"weight", "bias"}
    own |= {f"base.{name}": tensor for name, tensor in base.state_dict().items()}
    layer.load_state_dict(own)
    x = tensors["x"].flatten(1, 2)
    with torch.no_grad():
        y, loss = layer.forward_aux(x, 0, (14, 14))
        delta = y - base(x)
        choice = layer.gate((x @ layer.a.T).transpose(1, 2).unflatten(2, (14, 14)))
    assert torch.equal(choice.index, tensors["gates"].argmax(1))
    assert len(set(choice.index.tolist())) > 2
    assert_reference(y, tensors["y"].flatten(1, 2))
    assert_reference(delta, tensors["delta"].flatten(1, 2))
    assert_reference(loss, tensors["moe_loss"])
