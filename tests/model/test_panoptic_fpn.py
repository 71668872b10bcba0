"""Panoptic FPN by hand: its size, its loss in two parts, what is refused."""

import pytest
import torch
import torch.nn.functional as F
from drawn_targets import STRIDES, drawn_targets, shown
from test_object_heads import head, loss_of

from lpmoe_bench.data.label_rules import VOID
from lpmoe_bench.data.targets import Layered
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.mask_rcnn import MaskRCNN
from lpmoe_bench.model.decoders.panoptic_fpn import PanopticFPN


def test_count_is_that_of_mask_rcnn_and_the_branch():
    w, classes = 64, 5
    with torch.device("meta"):
        inputs = Inputs([384] * 4, list(STRIDES), 384)
        both, things = PanopticFPN(inputs, classes), MaskRCNN(inputs, classes)
    convolutions = 1 + 1 + 2 + 3  # from strides 4, 8, 16 and 32
    branch = convolutions * (9 * w**2 + 2 * w) + (classes + 1) * (w + 1)
    more = sum(p.numel() for p in both.parameters()) - sum(p.numel() for p in things.parameters())
    assert more == branch


def test_the_loss_is_that_of_both_parts():
    targets = drawn_targets(2, stuff=True)
    built, given = head("panoptic_fpn", "panoptic"), shown(targets)
    assert isinstance(built, PanopticFPN)
    maps = built.maps_of(given)
    logits = F.interpolate(built._stuff(maps), (64, 64), mode="bilinear", align_corners=False)
    wanted = torch.stack([t.labels.masked_fill(t.masks.any(0), 4) for t in targets])
    assert (wanted[:, :, 0] == VOID).all()
    part = F.cross_entropy(logits, wanted, ignore_index=VOID)
    torch.manual_seed(7)
    things = built.loss_on(maps, targets, (64, 64))
    torch.testing.assert_close(loss_of(built, given, targets), things + 0.5 * part)


def test_void_alone_teaches_the_branch_nothing():
    targets = drawn_targets(2, stuff=True)
    none = torch.zeros(2, dtype=torch.bool)
    void = [t.only(none)._replace(labels=torch.full_like(t.labels, VOID)) for t in targets]
    built, given = head("panoptic_fpn", "panoptic"), shown(targets)
    loss = loss_of(built, given, void)
    loss.backward()
    assert bool(loss.isfinite())
    assert not built.stuff.weight.grad.any()


def test_it_predicts_both_layers():
    targets = drawn_targets(2, stuff=True)
    built, given = head("panoptic_fpn", "panoptic").eval(), shown(targets)
    with torch.no_grad():
        found = built.predict(given, (64, 64))
    assert all(isinstance(one, Layered) for one in found)
    assert found[0].stuff.shape == (5, 16, 16)
    assert found[0].masks.shape[1:] == (28, 28)


def test_objects_without_stuff_are_refused():
    targets = drawn_targets(2)
    with pytest.raises(UsageError, match="Panoptic FPN learns classes of stuff"):
        loss_of(head("panoptic_fpn", "panoptic"), shown(targets), targets)
