"""Changed linear layers as one function: equal to the plain form, forward and backward."""

import copy
import importlib
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_backbone, tiny_image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from method_zoo.backbones.linear import Joined, Wrapped
from method_zoo.contract.observe import gradients, perturb
from method_zoo.conv_lora import ConvLoRALinear
from method_zoo.dora import DoRALinear
from method_zoo.fact import FacTLinear, Factors
from method_zoo.lora import LoRALinear, QueryValueLinear
from method_zoo.options import get_method
from method_zoo.parts.low_rank import (
    add_low,
    changed_linear,
    in_full_precision,
    linear_and_low,
    well_scaled,
)
from method_zoo.rep_adapter import RepLinear
from method_zoo.ssf import ScaleShift
from method_zoo.vera import Projections, VeRALinear

WIDTH, WIDE, TOKENS, RANK = 48, 144, 30, 5
MODULES = ("lora", "dora", "vera", "ssf", "fact", "rep_adapter", "conv_lora")


def wide() -> nn.Linear:
    return nn.Linear(WIDTH, WIDE)


def without_bias() -> nn.Linear:
    return nn.Linear(WIDTH, WIDE, bias=False)


def joined() -> nn.Linear:
    return Joined(
        q=nn.Linear(WIDTH, WIDTH), k=nn.Linear(WIDTH, WIDTH, bias=False), v=nn.Linear(WIDTH, WIDTH)
    )


BASES = (wide, without_bias, joined)
LAYERS: dict[str, Callable[[nn.Linear], Wrapped]] = {
    "lora": lambda base: LoRALinear(base, RANK, 3.0),
    "query and value": lambda base: QueryValueLinear(base, RANK, 3.0),
    "dora": lambda base: DoRALinear(base, RANK, 3.0),
    "vera": lambda base: VeRALinear(base, Projections(WIDTH, WIDE, 16, 0, torch.device("cpu"))),
    "ssf": lambda base: ScaleShift(base, 0.02),
    "fact": lambda base: FacTLinear(base, Factors(WIDTH, RANK), 2.0, 0.0),
    "fact, dropout": lambda base: FacTLinear(base, Factors(WIDTH, RANK), 2.0, 0.3),
    "fact, cut": lambda base: FacTLinear(base, Factors(WIDTH - 8, RANK), 2.0, 0.0),
    "rep_adapter": lambda base: RepLinear(base, 8, 2, 0.7, 0.0),
    "rep_adapter, dropout": lambda base: RepLinear(base, 8, 2, 0.7, 0.3),
    "conv_lora": lambda base: ConvLoRALinear(base, 3, 8.0, 2, through=True),
}


def layer_of(name: str, base: Callable[[], nn.Linear] = wide) -> Wrapped:
    """A layer whose trained tensors have moved off their start, in training."""
    torch.manual_seed(0)
    layer = LAYERS[name](base().requires_grad_(False)).train()
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return layer


def run(layer: Wrapped, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Output, and the gradient of the input and of all that trains, with the same random draws."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    y, aux = layer.forward_aux(x, 0, (5, 6))
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    trained = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    loss = (y * weight.to(y.dtype)).sum() + aux
    found = torch.autograd.grad(loss, [x, *trained.values()], allow_unused=True)
    return y.detach(), {n: g for n, g in zip(["x", *trained], found, strict=True) if g is not None}


def assert_near(got: Tensor, expected: Tensor, share: float) -> None:
    """Compare with a share of the largest value."""
    error = (got.double() - expected.double()).abs().max()
    assert error <= share * expected.abs().max(), f"{error / expected.abs().max():.1e}"


@pytest.fixture
def plainly(monkeypatch):
    """Calls something with every layer in its plain form."""

    def call(work: Callable, *args):
        with monkeypatch.context() as patch:
            for name in MODULES:
                module = importlib.import_module(f"method_zoo.{name}")
                patch.setattr(module, "in_full_precision", lambda *_: False)
            return work(*args)

    return call


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", LAYERS)
def test_equals_the_plain_form_in_float64(name, base, plainly):
    layer, x = layer_of(name, base), torch.randn(2, TOKENS, WIDTH)
    y, grads = run(layer, x)
    # The random draws are of single precision in both.
    exact, exact_grads = plainly(run, copy.deepcopy(layer).double(), x.double())
    if "dropout" not in name:
        assert_near(y, exact, 2e-6)
        assert grads.keys() == exact_grads.keys()
        for key, grad in grads.items():
            assert_near(grad, exact_grads[key], 1e-6)
    plain, plain_grads = plainly(run, layer, x)  # which drops the very same numbers
    assert_near(y, plain, 2e-6)
    for key, grad in grads.items():
        assert_near(grad, plain_grads[key], 2e-6)  # both of them round


@pytest.mark.parametrize("name", LAYERS)
def test_in_eval_folding_gives_the_same(name):
    layer, x = layer_of(name).eval(), torch.randn(2, TOKENS, WIDTH)
    if name == "conv_lora":
        pytest.skip("it depends on its input and cannot be folded")
    with torch.no_grad():
        y = layer(x)
        assert_near(layer.fold()(x), y, 2e-6)


@pytest.mark.parametrize("shape", [(WIDTH,), (0, WIDTH), (2, 0, WIDTH), (1, 1, WIDTH), (7, WIDTH)])
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "conv_lora"])
def test_any_shape(name, shape, plainly):
    layer, x = layer_of(name), torch.randn(shape)
    y, grads = run(layer, x)
    plain, plain_grads = plainly(run, layer, x)
    torch.testing.assert_close(y, plain, atol=1e-5, rtol=1e-5)
    for key, grad in grads.items():
        torch.testing.assert_close(grad, plain_grads[key], atol=1e-4, rtol=1e-5)


def test_inputs_that_are_no_block_of_memory():
    layer, x = layer_of("lora"), torch.randn(2, TOKENS + 3, WIDTH + 4)
    part = x[:, 3:, 4:]
    for got, expected in zip(run(layer, part), run(layer, part.contiguous()), strict=True):
        torch.testing.assert_close(got, expected, atol=0, rtol=0)


@pytest.mark.parametrize("base", [wide, without_bias])
@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_by_differences(base, scaled):
    torch.manual_seed(0)
    layer = base().double().requires_grad_(False)
    shapes = [(2, 3, WIDTH), (2, WIDTH), (WIDE, 2), (WIDE,), (WIDE,)]
    x, a, b, rows, bias = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    rows = (rows.detach().sign() * (2 + rows.detach().abs())).requires_grad_() if scaled else None
    inputs = (x, a, b, rows, bias)
    assert torch.autograd.gradcheck(lambda *t: changed_linear(layer, *t), inputs, fast_mode=True)


def test_gradients_through_what_stands_between_by_differences():
    torch.manual_seed(0)
    base = wide().double().requires_grad_(False)
    shapes = [(2, 3, WIDTH), (6, WIDTH), (WIDE // 3, 2), (WIDE,)]
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]

    def pieces(x: Tensor, a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
        y, h = linear_and_low(base, x, a, bias)
        return add_low(y, h.sin().unflatten(-1, (3, 2)), b)

    assert torch.autograd.gradcheck(pieces, inputs, fast_mode=True)
    x, a, b, bias = inputs
    by_hand = F.linear(x, base.weight, bias)
    h = F.linear(x, a).sin()
    by_hand = by_hand + torch.cat([F.linear(h[..., k : k + 2], b) for k in (0, 2, 4)], dim=-1)
    torch.testing.assert_close(pieces(*inputs), by_hand)


@pytest.mark.parametrize("of_input", [True, False])
def test_no_product_that_nobody_asked_for(of_input):
    layer = layer_of("lora")
    x = torch.randn(2, TOKENS, WIDTH, requires_grad=of_input)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    count = 2 * TOKENS
    full, change = 2 * count * WIDTH * WIDE, 2 * RANK * WIDTH * WIDE
    thin = 2 * (2 * count * RANK * WIDTH + 2 * count * RANK * WIDE)
    # One product forward and one for the input; W' each time; A's and B's gradients, two thin each.
    assert counter.get_total_flops() == (1 + of_input) * (full + change) + thin
    assert layer.base.weight.grad is None


@pytest.mark.parametrize("name", LAYERS)
def test_checkpointing_gives_the_same_gradients(name):
    layer, x = layer_of(name), torch.randn(2, TOKENS, WIDTH, requires_grad=True)
    trained = [x, *(p for p in layer.parameters() if p.requires_grad)]
    found = []
    for again in (False, True):
        torch.manual_seed(1)
        given = (x, 0, (5, 6))
        kept = checkpoint(layer.forward_aux, *given, use_reentrant=False) if again else None
        y, aux = kept or layer.forward_aux(*given)
        loss = y.square().sum() + aux
        found.append(torch.autograd.grad(loss, trained, allow_unused=True))
    for once, twice in zip(*found, strict=True):
        torch.testing.assert_close(once, twice, atol=0, rtol=0)


def test_in_half_precision_the_plain_form_is_kept(plainly):
    """There the update would be lost in W': of one of a thousandth of W most bits are."""
    for name in LAYERS:
        layer, x = layer_of(name).eval(), torch.randn(2, TOKENS, WIDTH)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert not in_full_precision(layer.base, x)
            got, plain = layer(x, 0, (5, 6)), plainly(layer, x, 0, (5, 6))
            assert torch.equal(got, plain)
    layer = layer_of("lora").bfloat16()
    assert not in_full_precision(layer.base, x.bfloat16())


def test_where_the_bias_hides_the_product_a_factor_has_its_gradient_all_the_same(plainly):
    x = torch.randn(2, TOKENS, WIDTH)
    for name in ("ssf", "dora"):
        layer = layer_of(name)
        with torch.no_grad():
            (layer.scale if name == "ssf" else layer.length)[:3] = torch.tensor([0, 1e-7, -1e-4])
        factor = "scale" if name == "ssf" else "length"
        exact = plainly(run, copy.deepcopy(layer).double(), x.double())[1][factor]
        assert_near(run(layer, x)[1][factor], exact, 1e-6)
    assert well_scaled(torch.tensor([1.0, -2.0]), torch.tensor([3.9, -7.9]))
    assert not well_scaled(torch.tensor([1.0, -2.0]), torch.tensor([3.9, -8.1]))
    assert not well_scaled(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]))
    assert not well_scaled(torch.tensor([0.0]), None)
    assert not well_scaled(torch.tensor([float("nan")]), torch.ones(1))


def test_a_layer_of_its_own_kind_or_one_that_trains_is_not_passed_by():
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    x, base = torch.randn(3, WIDTH), Doubled(WIDTH, WIDE).requires_grad_(False)
    layer = LoRALinear(base, RANK, 1.0)
    assert torch.equal(layer(x), base(x))
    trains = LoRALinear(wide(), RANK, 1.0)
    trains(x).sum().backward()
    assert trains.base.weight.grad is not None


def test_a_second_derivative_is_refused():
    layer, x = layer_of("lora"), torch.randn(3, WIDTH, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("name", ["lora", "dora", "vera", "ssf", "fact", "rep_adapter"])
def test_a_whole_method_trains_as_in_its_plain_form(name, plainly):
    backbone = tiny_backbone()
    torch.manual_seed(0)
    method = perturb(get_method(name)(backbone))
    image = tiny_image(backbone)
    other = copy.deepcopy(method)
    torch.manual_seed(1)
    found, _ = gradients(method, image, False)
    torch.manual_seed(1)
    plain, _ = plainly(gradients, other, image, False)
    assert found.keys() == plain.keys()
    for key, grad in found.items():
        assert_near(grad, plain[key], 2e-5)
