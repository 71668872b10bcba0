"""FCOS by hand: its size, which place learns what, centerness, boxes."""

import pytest
import torch
from drawn_targets import STRIDES, drawn_targets, shown
from test_object_heads import head, loss_of

from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.fcos import FCOS, assigned, boxes_at, centerness, places_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("plain", [True, False])
def test_count_is_that_of_the_formula(plain: bool):
    w, channels, classes = 64, 384, 3
    with torch.device("meta"):
        built = FCOS(
            Inputs([channels] * 4, [16] * 4 if plain else list(STRIDES), channels), classes
        )
    norm = 2 * w
    count = 4 * (channels * w + norm) + 4 * (9 * w**2 + norm)
    count += plain * 2 * (4 * w**2 + w + norm)
    towers = 2 * 4 * (9 * w**2 + w + norm)
    count += towers + (classes + 4 + 1) * (9 * w + 1)
    assert sum(p.numel() for p in built.parameters()) == count


def test_places_lie_in_the_middle_of_their_cells():
    places = places_of((64, 96), CPU)
    assert len(places.centres) == sum(64 // s * (96 // s) for s in STRIDES)
    assert places.centres[1].tolist() == [6, 2]
    assert places.centres[-1].tolist() == [80, 48]
    assert places.strides.unique().tolist() == list(STRIDES)


def test_a_place_learns_the_smallest_object_that_suits_its_level_and_is_near():
    places = places_of((64, 64), CPU)
    small, larger = [13.0, 13, 19, 19], [11, 11, 21, 21]
    boxes = torch.tensor([[8, 40, 24, 56], small, [0, 0, 64, 64], [40.5, 40.5, 42, 42], larger])
    where, which = assigned(places, boxes)
    levels = [places.strides[where[which == k]].unique().tolist() for k in range(5)]
    # Sides at most 32 pixels away go to stride 4, to 64 to stride 8; one lies on no place, and one
    # has none of its own.
    assert levels == [[4], [4], [8], [], []]
    assert places.centres[where[which == 1]].tolist() == [[14, 14], [18, 14], [14, 18], [18, 18]]
    near = places.centres[where[which == 0]] - torch.tensor([16, 48])
    assert float(near.abs().max()) < 1.5 * 4
    none = assigned(places, torch.zeros(0, 4))
    assert len(none[0]) == len(none[1]) == 0


def test_boxes_and_centerness_by_hand():
    places = places_of((32, 32), CPU)
    box = boxes_at(places, torch.tensor([[0.5, 0.25, 1, 2]]), torch.tensor([9]))
    assert places.centres[9].tolist() == [6, 6]
    assert box.tolist() == [[4, 5, 10, 14]]
    # 2 to the left of 6 and 1 above 9: the root of (2 / 4) (1 / 8).
    assert centerness(places.centres[9:10], box).item() == pytest.approx((0.5 * 0.125) ** 0.5)
    assert centerness(torch.tensor([[7.0, 9.5]]), box).item() == 1


def test_the_loss_by_hand_of_heads_that_say_nothing():
    targets = [t.only(torch.tensor([True, False])) for t in drawn_targets(1)]
    built, given = head("fcos", "detection"), shown(targets)
    assert isinstance(built, FCOS)
    logits, _, _ = built.outputs_of(given)
    where, which = assigned(places_of(targets[0].size, CPU), targets[0].boxes)
    distances = torch.ones(1, logits.shape[1], 4)
    built.outputs_of = lambda _: (0 * logits, distances, 0 * logits[..., 0])  # type: ignore[method-assign]
    places = places_of(targets[0].size, CPU)
    # Focal loss at p = 1/2: alpha (1/2)^2 ln 2, with alpha 1/4 for the truth and 3/4 for the rest.
    rest = logits.numel() - len(where)
    focal = (0.25 * len(where) + 0.75 * rest) * 0.25 * torch.log(torch.tensor(2.0))
    centred = len(where) * torch.log(torch.tensor(2.0))
    overlaps = 0.0
    for place, k in zip(where.tolist(), which.tolist(), strict=True):
        one = boxes_at(places, distances[0, place : place + 1], torch.tensor([place]))[0]
        other = targets[0].boxes[k]
        low, high = torch.maximum(one[:2], other[:2]), torch.minimum(one[2:], other[2:])
        shared = (high - low).clamp(min=0).prod()
        union = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared
        hull = (torch.maximum(one[2:], other[2:]) - torch.minimum(one[:2], other[:2])).prod()
        overlaps += float(1 - (shared / union - (hull - union) / hull))
    expected = (focal + centred + overlaps) / len(where)
    assert loss_of(built, given, targets).item() == pytest.approx(expected.item(), rel=1e-5)


def test_widths_are_multiples_of_the_groups():
    with pytest.raises(UsageError, match="decoder width is 48; it must be a multiple of 32"):
        head("fcos", "detection", width=48)
