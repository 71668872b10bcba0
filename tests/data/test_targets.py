"""Targets: which objects a head is trained with."""

import torch

from lpmoe_bench.data.targets import Target


def _target() -> Target:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [2, 2, 3, 6], [5, 5, 8, 8]])
    masks = torch.zeros(4, 8, 8, dtype=torch.bool)
    masks[:3, :4, :4] = True
    crowd = torch.tensor([False, True, False, False])
    return Target((8, 8), boxes, torch.tensor([0, 1, 2, 3]), crowd, masks)


def test_crowds_slivers_and_empty_masks_are_not_trained() -> None:
    kept = _target().trained()
    assert kept.classes.tolist() == [0]
    assert kept.masks is not None
    assert kept.masks.shape == (1, 8, 8)


def test_boxes_alone_need_no_masks() -> None:
    assert _target()._replace(masks=None).trained().classes.tolist() == [0, 3]


def test_a_target_without_objects_stays_one() -> None:
    empty = _target().only(torch.zeros(4, dtype=torch.bool))
    assert empty.trained().boxes.shape == (0, 4)


def test_all_tensors_move() -> None:
    moved = _target()._replace(labels=torch.zeros(8, 8, dtype=torch.long)).to("meta")
    found = [value for value in moved if isinstance(value, torch.Tensor)]
    assert len(found) == 5
    assert all(value.is_meta for value in found)
    assert moved.size == (8, 8)
