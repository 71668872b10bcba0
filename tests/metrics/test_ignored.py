"""Pixels that count for nothing: left out of counts and losses, background for all the rest."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.engine import Measured, prepare_mask, score_pair
from lpmoe_bench.metrics.maps import PreparedMask
from lpmoe_bench.metrics.protocols import MAP_PROTOCOLS, get_protocol
from lpmoe_bench.metrics.scorer import Scorer
from lpmoe_bench.model.losses import LOSSES, get_loss

COD, MEDICAL = get_protocol("cod"), get_protocol("medical")


def drawn(seed: int = 0):
    """A map, a mask and pixels to ignore: a rim about the object and some at random."""
    random = np.random.default_rng(seed)
    mask = np.zeros((24, 32), np.uint8)
    mask[6:16, 8:20] = 255
    pred = np.clip(mask * 0.6 + random.integers(0, 120, mask.shape), 0, 255).astype(np.uint8)
    ignored = random.random(mask.shape) < 0.1
    ignored[4:6, 6:22] = ignored[16:18, 6:22] = True
    return pred, mask, ignored


def test_counts_by_hand():
    mask = np.array([[255, 255, 0, 0]], np.uint8)
    pred = np.array([[255, 0, 255, 0]], np.uint8)
    plain = Measured(pred, PreparedMask(mask), "none")
    assert plain.binary == (1, 1, 1, 1)
    assert plain.mae == 0.5
    ignored = np.array([[False, True, True, False]])
    found = Measured(pred, PreparedMask(mask, ignored=ignored), "none")
    assert found.binary == (1, 0, 0, 1)  # the miss and the false alarm count for nothing
    assert (found.binary.iou, found.mae) == (1.0, 0.0)
    assert (
        found.s_measure
        == Measured(
            np.array([[255, 0, 0, 0]], np.uint8), PreparedMask(np.array([[255, 0, 0, 0]], np.uint8))
        ).s_measure
    )


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("normalisation", ["none", "minmax"])
def test_counted_scores_are_those_of_the_rest_and_others_of_a_blank(normalisation, floats):
    pred, mask, ignored = drawn()
    pred[~ignored & (pred == pred.min())] += 1  # the least value lies among the ignored
    given_ = pred / 255 if floats else pred
    found = Measured(given_, PreparedMask(mask, ignored=ignored), normalisation)
    low, high = (pred.min() / 255, pred.max() / 255) if normalisation == "minmax" else (0, 1)
    values = (pred / 255 - low) / (high - low)
    rest = Measured(values[~ignored][None], PreparedMask(mask[~ignored][None]), "none")
    for name in ("binary", "adaptive"):
        assert getattr(found, name) == getattr(rest, name)
    assert found.mae == pytest.approx(rest.mae, abs=1e-12)
    assert np.array_equal(found.curve.iou, rest.curve.iou)
    blank = Measured(np.where(ignored, 0, values), PreparedMask(np.where(ignored, 0, mask)), "none")
    for name in ("s_measure", "weighted_f", "e_adaptive"):
        assert getattr(found, name) == pytest.approx(getattr(blank, name), abs=1e-9)
    assert np.allclose(found.e_curve, blank.e_curve, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(MAP_PROTOCOLS)))
def test_what_ignored_pixels_hold_moves_no_counted_score(seed, protocol):
    """Only through the map's least and greatest value, which normalisation sees everywhere."""
    pred, mask, ignored = drawn(seed)
    pred[0, :2], ignored[0, :2] = (0, 255), False
    rules = get_protocol(protocol)
    other = pred.copy()
    other[ignored] = np.random.default_rng(seed + 1).integers(0, 256, int(ignored.sum()))
    scores = [score_pair(one, prepare_mask(mask, rules, ignored), rules) for one in (pred, other)]
    assert scores[0].counts == scores[1].counts
    assert sum(scores[0].counts) == int((~ignored).sum())
    for key, value in scores[0].values.items():
        assert np.array_equal(value, scores[1].values[key]), key


def test_none_ignored_is_bit_for_bit_as_without():
    pred, mask, _ = drawn()
    for rules in MAP_PROTOCOLS.values():
        plain = score_pair(pred, mask, rules)
        nothing = score_pair(pred, prepare_mask(mask, rules, None), rules)
        assert plain.values.keys() == nothing.values.keys()
        for key, value in plain.values.items():
            assert np.array_equal(value, nothing.values[key])


def test_the_record_says_it_and_an_image_of_nothing_is_refused():
    pred, mask, ignored = drawn()
    scorer = Scorer(MEDICAL)
    scorer.add("a", pred, prepare_mask(mask, MEDICAL, ignored))
    scorer.add("b", pred, mask)
    result = scorer.result()
    assert result.counts["ignored_pixels"] == 1
    assert any("a" in text and "ignored" in text for text in result.warnings)
    plain = Scorer(COD)
    plain.add("b", pred, mask)
    assert "ignored_pixels" not in plain.result().counts
    with pytest.raises(DataError, match="all pixels of the mask are ignored"):
        PreparedMask(mask, ignored=np.ones_like(ignored))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_do_not_see_ignored_pixels(name):
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, 4:10, 3:9] = 1
    mask[0, :, :, 9:11] = -1
    logits = torch.randn(2, 1, 16, 16, generator=generator)
    other = torch.where(mask < 0, logits + 5, logits)
    loss = get_loss(name)
    assert torch.equal(loss(logits, mask), loss(other, mask))
    logits.requires_grad_()
    loss(logits, mask).backward()
    assert logits.grad is not None
    assert (logits.grad[mask < 0] == 0).all()
    wrong = mask[0] == 1
    if name == "lovasz":  # a hinge has no gradient where the margin is kept
        wrong = wrong & (logits[0] < 1)
    assert (logits.grad[0][wrong] != 0).all()
    # An image that is ignored throughout costs no NaN, and micro-batches add up to the batch.
    mask[1] = -1
    assert torch.isfinite(loss(logits, mask))
    halves = [loss(logits[k : k + 1], mask[k : k + 1]) for k in (0, 1)]
    assert torch.allclose(sum(halves) / 2, loss(logits, mask))


def test_the_structure_loss_of_a_rest_by_hand():
    logits, mask = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, -1.0]]]])
    # Weight 1 + 5 |1 / 961 - 1|, probability one half: (w / 2 + 1) / (w + 1), and ln 2 beside it.
    weight = 1 + 5 * (1 - 1 / 961)
    expected = np.log(2) + 1 - (weight / 2 + 1) / (weight * 1.5 - weight / 2 + 1)
    assert float(get_loss("structure")(logits, mask)) == pytest.approx(expected, rel=1e-6)
