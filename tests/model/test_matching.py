"""Matching loss: equal to transformers', by hand, and where images hold nothing or void."""

import math

import pytest
import torch
from torch import Tensor

from lpmoe_bench.data.targets import Target
from lpmoe_bench.model.label_losses import VOID
from lpmoe_bench.model.matching import (
    PAPER,
    PartWeights,
    TrueMasks,
    _places,
    _read_truth,
    assign,
    matching_loss,
    truth_of_labels,
    truth_of_targets,
)

CLASSES, POINTS = 5, 300


def drawn(queries: int, counts: list[int], seed: int = 0) -> tuple[Tensor, Tensor, list[TrueMasks]]:
    """Logits of labels and masks that want a gradient, and as many true masks an image."""
    torch.manual_seed(seed)
    labels = torch.randn(len(counts), queries, CLASSES + 1, requires_grad=True)
    masks = torch.randn(len(counts), queries, 12, 16, requires_grad=True)
    truth = [
        TrueMasks(torch.rand(count, 48, 64) > 0.5, torch.randint(CLASSES, (count,)))
        for count in counts
    ]
    return labels, masks, truth


def gradients(value: Tensor, *tensors: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, tensors, retain_graph=True))


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


CASES = [(7, [3, 2]), (3, [4, 5]), (6, [0, 2]), (4, [1, 0]), (5, [1])]


@pytest.mark.parametrize(("queries", "counts"), CASES)
def test_it_is_transformers_loss_with_its_gradients(double, queries: int, counts: list[int]):
    pytest.importorskip("transformers")
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    theirs = Mask2FormerLoss(Mask2FormerConfig(num_labels=CLASSES, train_num_points=POINTS), {})
    labels, masks, truth = drawn(queries, counts, seed=queries)
    torch.manual_seed(9)
    given = [one.masks.double() for one in truth], [one.classes for one in truth]
    parts = theirs(masks, labels, *given)
    keys = ("loss_cross_entropy", "loss_mask", "loss_dice")
    for weights in (PAPER, PartWeights(1, 0, 0), PartWeights(0, 1, 0), PartWeights(0, 0, 1)):
        # They are handed out without weights, which the model around the loss multiplies.
        expected = sum(w * parts[key] for w, key in zip(weights, keys, strict=True))
        torch.manual_seed(9)
        ours = matching_loss(labels, masks, truth, POINTS, weights)
        assert abs(ours.item() - expected.item()) < 1e-6
        for one, other in zip(
            gradients(ours, labels, masks), gradients(expected, labels, masks), strict=True
        ):
            assert (one - other).abs().max() < 1e-9


def test_each_output_is_matched_by_itself_and_their_losses_are_added():
    labels, masks, truth = drawn(6, [2, 3])
    torch.manual_seed(1)
    single = [matching_loss(labels, masks, truth, POINTS)]
    single.append(matching_loss(labels.flip(1), masks, truth, POINTS))
    torch.manual_seed(1)
    both = matching_loss(
        torch.cat([labels, labels.flip(1)]), torch.cat([masks, masks]), truth, POINTS
    )
    torch.testing.assert_close(both, sum(single))


def halves() -> tuple[Tensor, Tensor]:
    """Logits of two queries, of class 1 on the left and of class 0 on the right; and the labels."""
    left = torch.ones(4, 8).index_fill(1, torch.arange(4, 8), -1)
    masks = 30 * torch.stack([left, -left])[None]
    labels = torch.full((1, 2, 3), -30.0)
    labels[0, 0, 1] = labels[0, 1, 0] = 30
    return labels, masks


def test_queries_go_to_the_masks_that_they_are():
    labels, masks = halves()
    target = torch.zeros(1, 8, 16, dtype=torch.int64)
    target[..., :8] = 1
    truth = truth_of_labels(target)
    query, mask = assign(labels[0], masks[0], truth[0], POINTS)
    assert dict(zip(query.tolist(), truth[0].classes[mask].tolist(), strict=True)) == {0: 1, 1: 0}
    # Classes and masks cannot both be had when the masks change places.
    right, wrong = (matching_loss(labels, m, truth, POINTS) for m in (masks, -masks))
    assert 5 * right < wrong


def test_cross_entropy_by_hand():
    # Two queries, one class present: one is taught class 0, the other "nothing" with weight .1.
    labels, masks = torch.zeros(1, 2, 3), torch.zeros(1, 2, 4, 4)
    labels[0, 0, 0] = math.log(2)  # 1/2, 1/4, 1/4: it costs least for class 0
    truth = truth_of_labels(torch.zeros(1, 8, 8, dtype=torch.int64))
    expected = (1 * math.log(2) + 0.1 * math.log(3)) / 1.1
    got = matching_loss(labels, masks, truth, POINTS, PartWeights(1, 0, 0))
    assert got.item() == pytest.approx(expected, abs=1e-6)
    # Masks at logits 0 on an object that is everywhere: BCE ln 2; Dice 1 - (P + 1) / (1.5 P + 1).
    got = matching_loss(labels, masks, truth, POINTS, PartWeights(0, 1, 0))
    assert got.item() == pytest.approx(math.log(2), abs=1e-5)
    # Said to be labelled everywhere, for bilinear reading fades at the image's own edge.
    truth = [truth[0]._replace(counted=torch.ones(8, 8, dtype=torch.bool))]
    got = matching_loss(labels, masks, truth, POINTS, PartWeights(0, 0, 1))
    assert got.item() == pytest.approx(1 - (POINTS + 1) / (1.5 * POINTS + 1), abs=1e-5)


def test_truth_is_a_mask_a_class_and_void_is_nobodys():
    labels = torch.tensor([[[3, 3], [0, 255]], [[255, 255], [255, 255]], [[1, 1], [1, 1]]])
    one, none, whole = truth_of_labels(labels)
    assert one.classes.tolist() == [0, 3]
    assert one.masks.int().tolist() == [[[0, 0], [1, 0]], [[1, 1], [0, 0]]]
    assert one.counted is not None
    assert one.counted.int().tolist() == [[1, 1], [1, 0]]
    assert len(none.masks) == len(none.classes) == 0
    assert none.counted is not None
    assert not none.counted.any()
    assert whole.counted is None


def test_points_lie_on_labelled_pixels_and_read_these_alone():
    counted = torch.zeros(6, 10, dtype=torch.bool)
    counted[2:4, 7:] = counted[0, 0] = True
    where = _places(3, 500, counted, torch.zeros(()))
    column, row = (where * torch.tensor([10, 6])).long().unbind(-1)
    assert bool(counted[row, column].all())
    assert len(set(zip(row.flatten().tolist(), column.flatten().tolist(), strict=True))) == 7
    # A mask that is all of the labelled pixels reads as 1 up to their very edge.
    read = _read_truth(counted[None].expand(3, -1, -1), counted, where)
    torch.testing.assert_close(read, torch.ones(3, 500))


def test_void_pixels_have_no_influence():
    # Logits of the labels' own size differ in void pixels alone, and more than a pixel from others.
    labels, masks, _ = drawn(4, [1, 1])
    target = torch.randint(3, (2, 12, 16), generator=torch.Generator().manual_seed(0))
    target[0, :, 5:] = VOID
    other = masks.detach().clone()
    other[0, :, :, 6:] += 7
    found = []
    for given in (masks, other):
        torch.manual_seed(2)
        found.append(matching_loss(labels, given, truth_of_labels(target), POINTS))
    assert torch.equal(*found)
    (grad,) = gradients(found[0], masks)
    assert not grad[0, :, :, 6:].any()
    assert grad[0, :, :, :5].any()


def test_an_image_without_labels_teaches_nothing_and_one_without_objects_does():
    labels, masks, _ = drawn(4, [0, 0])
    void = truth_of_labels(torch.full((2, 12, 16), VOID))
    loss = matching_loss(labels, masks, void, POINTS)
    assert loss.item() == 0
    assert not any(grad.any() for grad in gradients(loss, labels, masks))
    empty = [TrueMasks(torch.zeros(0, 12, 16, dtype=torch.bool), torch.zeros(0, dtype=torch.int64))]
    loss = matching_loss(labels, masks, [*empty, *void[1:]], POINTS)
    by_label, by_mask = gradients(loss, labels, masks)
    assert loss > 0.5
    assert by_label[0].any()
    assert not by_label[1].any()
    assert not by_mask.any()


def test_half_precision_is_left_before_anything_is_compared():
    labels, masks, truth = drawn(6, [2, 3])
    low = labels.bfloat16(), masks.bfloat16()
    torch.manual_seed(3)
    exact = matching_loss(*(one.float() for one in low), truth, POINTS)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        got = matching_loss(*low, truth, POINTS)
    assert got.dtype is torch.float32
    assert torch.equal(got, exact)


def test_broken_logits_are_assigned_and_reported_as_no_number():
    labels, masks, truth = drawn(4, [2])
    with torch.no_grad():
        masks[0, 1] = math.nan
    query, _ = assign(labels[0], masks[0], truth[0], POINTS)
    assert 1 not in query.tolist()
    with torch.no_grad():
        masks[:] = math.nan
    assert not matching_loss(labels, masks, truth, POINTS).isfinite()


def test_more_masks_than_queries_leave_some_out():
    labels, masks, truth = drawn(2, [5])
    query, mask = assign(labels[0], masks[0], truth[0], POINTS)
    assert sorted(query.tolist()) == [0, 1]
    assert len(set(mask.tolist())) == 2
    assert matching_loss(labels, masks, truth, POINTS).isfinite()


def test_truth_of_targets_is_objects_then_stuff_and_crowds_are_nobodys():
    masks = torch.zeros(4, 6, 8, dtype=torch.bool)
    masks[0, :3, :3] = masks[1, 3:, :3] = masks[2, 5, 7] = True  # an object, a crowd, a pixel
    boxes = torch.tensor([[0.0, 0, 3, 3], [0, 3, 3, 6], [7, 5, 8, 6], [0, 0, 0, 0]])
    crowd = torch.tensor([False, True, False, False])
    target = Target((6, 8), boxes, torch.tensor([4, 4, 2, 1]), crowd, masks)
    (alone,) = truth_of_targets([target])
    assert alone.classes.tolist() == [4]
    assert torch.equal(alone.masks, masks[:1])
    assert alone.counted is not None
    assert torch.equal(~alone.counted, masks[1])
    labels = torch.full((6, 8), VOID)
    labels[:3, 4:] = 7
    (both,) = truth_of_targets([target._replace(labels=labels, inner=(6, 7))])
    assert both.classes.tolist() == [4, 7]
    assert torch.equal(both.masks[1], labels == 7)
    expected = (masks[0] | (labels == 7)).clone()
    expected[:, 7] = False
    assert both.counted is not None
    assert torch.equal(both.counted, expected)


def test_a_target_without_void_is_counted_everywhere():
    masks = torch.zeros(0, 6, 8, dtype=torch.bool)
    none = torch.zeros(0)
    target = Target((6, 8), torch.zeros(0, 4), none.long(), none.bool(), masks)
    (truth,) = truth_of_targets([target])
    assert truth.counted is None
    assert len(truth.classes) == 0
