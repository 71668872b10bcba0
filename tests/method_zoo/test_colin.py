"""CoLin: its adapter and loss by hand, the authors' module, its start, and the counts."""

import pytest
import torch
from conftest import tiny_backbone, tiny_image
from counts import colin
from hand_backbone import assert_values, gelu, on_grid, set_all
from reference_tensors import assert_reference, needs_reference, reference

from method_zoo.colin import OrthogonalAdapter
from method_zoo.options import get_method


def hand_adapter() -> OrthogonalAdapter:
    module = OrthogonalAdapter(2, 1, 1)
    set_all(module, values=[[1.0], [0.5], [0.25], [0.25]])  # they sum to 2
    set_all(module, down__a=[[1.0], [-1.0]], down__b=[[2.0]], down__bias=[1.0])
    set_all(module, up__a=[[1.0]], up__b=[[1.0, 3.0]], up__bias=[0.0, 1.0])
    kernel = [[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]  # itself, twice its right one
    set_all(module, filter__weight=[[kernel]], filter__bias=[0.5], share=[0.0])
    return module


def test_colin_by_hand():
    # u = 2 * 2 (x_0 - x_1) + 1: 9 and 5 on the grid of one row, 1 for the prefix.
    # D u = 9 + 10 + 0.5 and 5 + 0.5; half of it and half of u: 14.25 and 5.25.
    # P2 h = (2 h, 6 h + 1).
    x = torch.tensor([[[1.0, 1.0], [3.0, 1.0], [1.0, 0.0]]])
    expected = [
        [x0 + 2 * gelu(m), x1 + 6 * gelu(m) + 1]
        for (x0, x1), m in zip(x[0].tolist(), (1.0, 14.25, 5.25), strict=True)
    ]
    found = hand_adapter()(on_grid(x, 1, 1, 2))
    assert_values(found.x, [expected], 1e-5)
    # A^T A = 2, B B^T = 4 and 1, 10: 2 (1 + 9) + 2 (0 + 81).
    assert_values(found.aux, 182.0)


def test_the_loss_travels_with_the_tokens():
    method = get_method("colin")(tiny_backbone(), bottleneck=9, kernel=4)
    adapters = [*method.after_attention, *method.after_mlp]
    losses = [p.orthogonal_loss() for a in adapters for p in (a.down, a.up)]
    aux = method(tiny_image(method.backbone)).aux
    torch.testing.assert_close(aux, torch.stack(losses).sum())


def test_averages_of_singular_vectors_are_not_orthogonal():
    torch.manual_seed(0)
    module = OrthogonalAdapter(512, 100, 28)
    far = module.down.a.T @ module.down.a - torch.eye(28)
    assert far.norm().item() == pytest.approx(4.0, abs=0.2)  # as is measured of the authors'
    x = torch.randn(1, 64, 512)
    branch = module(on_grid(x, 0, 8, 8)).x - x
    assert branch.square().mean().sqrt().item() == pytest.approx(0.13, abs=0.02)
    # The values are those of the second projection's matrices, largest first.
    assert bool((module.values.diff(dim=1) <= 0).all())


@pytest.mark.parametrize(("width", "count"), [(128, 1_703_424), (192, 2_389_248)])
def test_formula_on_swin(width, count):
    depths = enumerate((2, 2, 18, 2))
    assert sum(2 * n * colin(width * 2**k) for k, n in depths) == count
    assert colin(128) == 14_208


@needs_reference
def test_colin_is_the_authors_module():
    tensors, state = reference("colin")
    module = OrthogonalAdapter(64, 20, 8)
    own = {"values": torch.stack([state[f"project1.param_dict.g{k}"][:, 0] for k in range(4)])}
    for ours, theirs in (("down", "project1"), ("up", "project2")):
        own |= {f"{ours}.{x.lower()}": state[f"{theirs}.param_dict.{x}"] for x in "AB"}
        own[f"{ours}.bias"] = state[f"{theirs}.bias"]
    own |= {"filter.weight": state["inner_op.weight"], "filter.bias": state["inner_op.bias"]}
    module.load_state_dict(own | {"share": state["inner_scale"].flatten()})
    found = module(on_grid(tensors["x"], 0, 5, 7))
    assert_reference(found.x, tensors["y"])
    for projection, theirs in ((module.down, "project1"), (module.up, "project2")):
        assert_reference(projection.orthogonal_loss(), tensors[f"orthogonal_loss/{theirs}"])
