"""Losses: the authors' numbers of the structure loss, and cases worked by hand."""

import math

import pytest
import torch
from reference_tensors import needs_reference, reference

from lpmoe_bench.errors import UsageError
from lpmoe_bench.model import losses
from lpmoe_bench.model.losses import _window_mean, get_loss


@needs_reference
@pytest.mark.parametrize(
    ("name", "key"), [("structure", "official"), ("structure_intended", "intended")]
)
def test_equals_the_reference_tensor(name: str, key: str):
    tensors, _ = reference("structure_loss")
    value = get_loss(name)(tensors["logits"], tensors["target"])
    assert abs(value - tensors[key]) < 1e-6


def test_uniform_mask_by_hand():
    # All foreground, logits 0: BCE = ln 2. Away from the padding the weight is 1, at the border
    # the average over zeros lowers the pooled mask; with one pixel it is 1/961.
    logits, mask = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    weight = 1 + 5 * (1 - 1 / 961)
    iou = 1 - (0.5 * weight + 1) / (1.5 * weight - 0.5 * weight + 1)
    assert get_loss("structure")(logits, mask).item() == pytest.approx(math.log(2) + iou, abs=1e-6)


def test_variants_differ_where_the_boundary_is_wrong():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    logits = torch.where(mask > 0, 4.0, -4.0)
    logits[..., 30:34] *= -1
    official, intended = (
        get_loss("structure")(logits, mask),
        get_loss("structure_intended")(logits, mask),
    )
    assert intended > official + 0.05


def test_perfect_prediction_costs_nothing():
    mask = (torch.arange(64) % 2).float().expand(2, 1, 64, 64)
    assert get_loss("structure")((mask - 0.5) * 100, mask).item() < 1e-6


@pytest.mark.parametrize("shape", [(2, 1, 96, 64), (1, 3, 5, 9), (1, 1, 40, 1)])
def test_surroundings_are_averaged_to_the_bit(shape):
    mask = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    pooled = torch.nn.functional.avg_pool2d(mask, 31, stride=1, padding=15)
    assert torch.equal(_window_mean(mask), pooled)


# --- BCE + Dice


def test_bce_dice_by_hand():
    # Four pixels, two of them object, all logits 0: BCE = ln 2, overlap 1, total 4 x 0.5 + 2 = 4.
    logits, mask = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    expected = math.log(2) + 1 - (2 * 1 + 1) / (4 + 1)
    assert get_loss("bce_dice")(logits, mask).item() == pytest.approx(expected, abs=1e-6)


# --- balanced BCE


def test_balanced_bce_by_hand():
    # One object pixel of four: it weighs 3/4, the others 1/4 each.
    logits = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    wrong = math.log(1 + math.e)
    expected = (0.75 * math.log(2) + 0.25 * wrong + 0.5 * math.log(2)) / 4
    assert get_loss("balanced_bce")(logits, mask).item() == pytest.approx(expected, abs=1e-6)


def test_balanced_bce_gives_both_classes_one_pull():
    # At logits 0 the gradients of object and background cancel, however small the object is.
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :2, :2] = 1
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    get_loss("balanced_bce")(logits, mask).backward()
    assert logits.grad is not None
    assert logits.grad[mask > 0].sum().item() == pytest.approx(-logits.grad[mask == 0].sum().item())
    assert logits.grad[mask > 0].sum().item() < -1e-3


@pytest.mark.parametrize(("name", "logit"), [("bce_dice", -50.0), ("balanced_bce", 1.0)])
def test_a_loss_is_the_mean_of_its_images_and_knows_empty_masks(name, logit):
    loss, masks = get_loss(name), torch.zeros(2, 1, 4, 4)
    masks[0, ..., :1], masks[1, ..., :3] = 1, 1
    logits = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    single = [loss(logits[k : k + 1], masks[k : k + 1]) for k in range(2)]
    assert loss(logits, masks).item() == pytest.approx(sum(single).item() / 2, abs=1e-6)
    empty = torch.zeros(1, 1, 4, 4)
    assert loss(torch.full_like(empty, logit), empty).item() < 1e-6


def test_unknown_loss_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'structure'"):
        get_loss("structur")


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_the_formula_of_a_gpu_is_equal_where_no_pixel_is_ignored(name, monkeypatch):
    """Which is not asked there whether any is: the one with weights stands for both."""
    drawn = torch.Generator().manual_seed(0)
    mask = (torch.rand(2, 1, 40, 40, generator=drawn) > 0.6).double()
    start = torch.randn(2, 1, 40, 40, generator=drawn, dtype=torch.float64)
    found = []
    for asked in (False, True):
        monkeypatch.setattr(losses, "may_ignore", lambda mask, asked=asked: asked)
        logits = start.clone().requires_grad_()
        value = get_loss(name)(logits, mask)
        value.backward()
        found.append((value.detach(), logits.grad))
    for plain, weighted in zip(*found, strict=True):
        torch.testing.assert_close(weighted, plain, rtol=1e-11, atol=1e-14)
    assert found[0][1].abs().max() > 0
