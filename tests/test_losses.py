"""The structure loss: the authors' numbers, and a case worked by hand."""

import math

import pytest
import torch
from reference import needs_reference, reference

from lpmoe_bench.errors import UsageError
from lpmoe_bench.losses import get_loss


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


def test_unknown_loss_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'structure'"):
        get_loss("structur")
