"""LoRand: its equation by hand, the authors' modules, and the counts of the specification."""

import pytest
import torch
from conftest import tiny_backbone, tiny_image
from counts import lorand
from hand_backbone import fill, gelu, set_all
from reference_tensors import assert_reference, needs_reference, reference

from method_zoo.lorand import LowRankAdapter
from method_zoo.options import get_method


def test_lorand_by_hand():
    module = LowRankAdapter(2, 1, branches=2, kernel=1, shared=False)
    set_all(module, kernels=[[[[2.0]], [[3.0]]], [[[1.0]], [[-1.0]]]])
    set_all(module, down__a=[[[1.0], [0.0]], [[0.0], [1.0]]], down__b=[[[1.0]], [[-1.0]]])
    set_all(module, down__bias=[0.5])
    set_all(module, up__a=[[[1.0]], [[2.0]]], up__b=[[[1.0, 0.0]], [[0.0, 1.0]]])
    set_all(module, up__bias=[0.0, 1.0])
    # P1 = 2 x_0 - 3 x_1 + 0.5 = 2 * 4 - 3 * 2 + 0.5 = 2.5; P2 h = (h, -2 h) + (0, 1).
    h = gelu(2.5)
    expected = torch.tensor([[[4 + h, 2 - 2 * h + 1]]])
    torch.testing.assert_close(module(torch.tensor([[[4.0, 2.0]]])), expected)


def test_lorand_changes_the_updates_before_they_are_added():
    method = get_method("lorand")(tiny_backbone())
    backbone, t = method.backbone, method.backbone.embed(tiny_image(method.backbone))
    with torch.no_grad():
        u = t.x + method.after_attention[1](backbone.attention(1, t).x)
        u = t._replace(x=u)
        expected = u.x + method.after_mlp[1](backbone.mlp(1, u).x)
        torch.testing.assert_close(method.block(1, t).x, expected)


SWIN = {"B": (128, (2, 2, 18, 2)), "L": (192, (2, 2, 18, 2))}


@pytest.mark.parametrize(
    ("size", "options", "count"),
    [
        ("B", (4, 8, 2, 2), 2_370_816),
        ("L", (4, 8, 2, 2), 3_543_936),
        ("B", (2, 8, 2, 2), 1_203_456),
        ("L", (2, 8, 2, 1), 1_792_896),
    ],
)
def test_formula_on_swin(size, options, count):
    width, depths = SWIN[size]
    assert sum(2 * n * lorand(width * 2**k, *options) for k, n in enumerate(depths)) == count


@pytest.mark.parametrize(
    ("backbone", "options", "count"),
    [
        ("vit_base_patch16_224", {}, 1_809_408),
        ("vit_large_patch16_224", {}, 4_816_896),
        ("vit_base_patch16_224", {"branches": 2}, 918_528),
        ("vit_large_patch16_224", {"branches": 2, "shared_kernel": True}, 2_439_168),
    ],
)
def test_count(backbone, options, count):
    from method_zoo.backbones.create import create_backbone

    with torch.device("meta"):
        method = get_method("lorand")(create_backbone(backbone), **options)
    assert sum(p.numel() for p in method.trainable().values()) == count


def stacked(state: dict, *letters: str) -> torch.Tensor:
    """The branches of a tensor, whose names end in their number, as one."""
    names = sorted(n for n in state if n.rstrip("0123456789") in letters)
    return torch.stack([state[n] for n in names])


def of_authors(state: dict, shared: bool) -> dict[str, torch.Tensor]:
    """Their tensors, or gradients of them, under our names."""
    if shared:
        names = {
            "down.a": "DP", "down.b": "DQ", "up.a": "UP", "up.b": "UQ",
        }  # fmt: skip
        found = {ours: stacked(state, f"param_dict.{theirs}") for ours, theirs in names.items()}
        kernels = stacked(state, "param_dict.K")[None]
        return found | {
            "kernels": kernels, "down.bias": state["bias_D"], "up.bias": state["bias_U"],
        }  # fmt: skip
    found = {}
    for ours, theirs in (("down", "project1"), ("up", "project2")):
        for tensor in "ab":
            found[f"{ours}.{tensor}"] = stacked(state, f"{theirs}.param_dict.{tensor.upper()}")
        found[f"{ours}.bias"] = state[f"{theirs}.bias"]
    kernels = [stacked(state, f"project{k}.param_dict.g") for k in (1, 2)]
    return found | {"kernels": torch.stack(kernels)}


@needs_reference
@pytest.mark.parametrize("group", ["separate", "shared"])
def test_lorand_is_the_authors_module(group):
    tensors, _ = reference("lorand")
    tensors = {k.removeprefix(f"{group}/"): t for k, t in tensors.items() if k.startswith(group)}
    parts = {
        kind: {k.removeprefix(kind): t for k, t in tensors.items() if k.startswith(kind)}
        for kind in ("state/", "gw/")
    }
    shared = group == "shared"
    state = of_authors(parts["state/"], shared)
    module = LowRankAdapter(64, 32, 2 if shared else 4, 8, shared)
    module.load_state_dict(state)
    x = tensors["x"].requires_grad_()
    y = module(x)
    assert_reference(y, tensors["y"])
    y.square().sum().backward()
    assert_relative(x.grad, tensors["gx"])
    for name, gradient in of_authors(parts["gw/"], shared).items():
        assert_relative(module.get_parameter(name).grad, gradient)


def assert_relative(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Gradients are sums of many terms: 1e-5 of the largest."""
    assert_reference(got / expected.abs().max(), expected / expected.abs().max())


def test_the_start_is_spread_as_the_raw_tensors_say():
    torch.manual_seed(0)
    method = get_method("lorand")(tiny_backbone())
    module = method.after_mlp[0]
    bounds = {"kernels": 8, "down.a": 8, "down.b": 24, "down.bias": 48, "up.b": 48, "up.bias": 24}
    for name, fan_in in bounds.items():
        largest = float(module.get_parameter(name).detach().abs().max()) * fan_in**0.5
        assert 0.8 < largest <= 1, name
    fill(module.kernels, torch.zeros(2, 4, 8, 8))
    fill(module.up.bias, torch.zeros(48))
    x = torch.randn(1, 2, 48)
    assert torch.equal(module(x), x)
