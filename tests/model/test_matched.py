"""Queries as objects and segments: their ranking and boxes by hand, one class, what is refused."""

import math

import pytest
import torch
from drawn_targets import drawn_targets, shown
from test_object_heads import head, loss_of

from lpmoe_bench.data.targets import Found, Segmented
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.mask2former import Mask2Former
from lpmoe_bench.model.decoders.matched import objects_of_queries


def test_scores_are_of_class_and_mask_and_boxes_end_behind_the_last_cell():
    masks = torch.full((3, 4, 8), -9.0)
    masks[0, 1:3, 2:5] = math.log(3)  # three quarters
    masks[1, 0, 7] = 30
    shares = torch.tensor([[0.8, 0.1], [0.3, 0.5], [0.9, 0.0]])
    found = objects_of_queries(shares, masks, (16, 32), most=4)
    # The third query has no pixel: its mean is 0. The first and the second with both classes rank.
    assert found.scores.tolist() == pytest.approx([0.6, 0.5, 0.3, 0.0])
    assert found.classes.tolist() == [0, 1, 0, 0]
    boxes = [[8, 4, 20, 12], [28, 0, 32, 4], [28, 0, 32, 4], [0, 0, 0, 0]]
    assert found.boxes.tolist() == boxes
    assert not found.framed
    assert torch.equal(found.masks, masks[[0, 1, 1, 2]])
    assert len(objects_of_queries(shares, masks, (16, 32), most=100).scores) == 6


def test_objects_of_one_class_go_past_its_background():
    targets = [t.only(torch.tensor([True, False])) for t in drawn_targets(2)]
    built, given = head("mask2former", "instance", classes=1), shown(targets)
    assert isinstance(built, Mask2Former)
    labels, _ = built.queries_of(given)
    assert labels.shape[-1] == 3  # background, object, nothing
    assert [one.classes.tolist() for one in built._truth(labels, targets)] == [[1], [1]]
    loss_of(built, given, targets).backward()
    found = built.eval().predict(given, targets[0].size)
    assert set(found[0].classes.tolist()) == {0}
    labels, masks = built.queries_of(given)
    best = (labels[0].softmax(-1)[:, 1]).max()
    assert bool((found[0].scores <= best).all())
    assert masks.shape[-1] == targets[0].size[1] // 4


def test_segments_are_what_the_queries_are():
    targets = drawn_targets(2, stuff=True)
    built, given = head("mask2former", "panoptic").eval(), shown(targets)
    assert isinstance(built, Mask2Former)
    labels, masks = built.queries_of(given)
    for k, one in enumerate(built.predict(given, targets[0].size)):
        assert isinstance(one, Segmented)
        assert torch.equal(one.masks, masks[k])
        torch.testing.assert_close(one.scores, labels[k].softmax(-1)[:, :4])
    found = head("mask2former", "instance", detections=5).eval().predict(given, targets[0].size)
    assert isinstance(found[0], Found)
    assert len(found[0].scores) == 5


def test_what_does_not_go_is_refused():
    with pytest.raises(
        UsageError, match="option detections of decoder Mask2Former is for instance"
    ):
        head("mask2former", "panoptic", detections=5)
    with pytest.raises(UsageError, match="pixel_layers is 0 and detections 100"):
        head("mask2former", "instance", pixel_layers=0)
    targets = [target._replace(masks=None) for target in drawn_targets(2)]
    with pytest.raises(UsageError, match="these objects have boxes alone; use a task of kind det"):
        loss_of(head("mask2former", "instance"), shown(drawn_targets(2)), targets)
