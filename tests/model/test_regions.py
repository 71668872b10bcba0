"""Faster and Mask R-CNN by hand: their size, torchvision's own losses, padded images, refusals."""

import pytest
import torch
from drawn_targets import SIDE, STRIDES, drawn_targets, shown
from test_object_heads import head, loss_of, part_of
from torchvision.models.detection.image_list import ImageList

from lpmoe_bench.data.targets import Target
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.names import get_decoder
from lpmoe_bench.model.decoders.regions import RegionHead


def regions(name: str = "mask_rcnn", **options) -> RegionHead:
    built = head(name, "instance" if name == "mask_rcnn" else "detection", **options)
    assert isinstance(built, RegionHead)
    return built


def size_of(
    classes: int, channels: int, plain: bool, masked: bool, w: int = 64, h: int = 256
) -> int:
    """The parameters that the layers have, written down from the papers' figures."""
    norm = 2 * w
    maps = 4 * (channels * w + norm) + 4 * (9 * w**2 + norm)  # into the pyramid, and smoothed
    if plain:  # two doublings
        maps += 2 * (4 * w**2 + w + norm)
    proposals = (9 * w**2 + w) + 3 * (w + 1) + 12 * (w + 1)  # three anchors a place
    boxes = (49 * w * h + h) + (h**2 + h) + 5 * (classes + 1) * (h + 1)
    masks = 4 * (9 * w**2 + w) + (4 * w**2 + w) + (classes + 1) * (w + 1)
    return maps + proposals + boxes + masked * masks


@pytest.mark.parametrize(("name", "masked"), [("faster_rcnn", False), ("mask_rcnn", True)])
@pytest.mark.parametrize("plain", [True, False])
def test_count_is_that_of_the_formula(name: str, masked: bool, plain: bool):
    with torch.device("meta"):
        inputs = Inputs([384] * 4, [16] * 4 if plain else list(STRIDES), 384)
        built = get_decoder(name)(inputs, 3)  # type: ignore[call-arg]
    assert sum(p.numel() for p in built.parameters()) == size_of(3, 384, plain, masked)
    assert all(p.requires_grad for p in built.parameters())
    assert not list(built.buffers())


@pytest.mark.parametrize("name", ["faster_rcnn", "mask_rcnn"])
def test_the_loss_is_torchvisions(name: str):
    targets = drawn_targets(2)
    built, given = regions(name), shown(targets)
    ours = loss_of(built, given, targets)
    maps = dict(zip("0123", built.pyramid(given.maps), strict=True))
    truth = [{"boxes": t.boxes, "labels": t.classes + 1, "masks": t.masks} for t in targets]
    images = ImageList(torch.zeros(2, 3, SIDE, SIDE), [(SIDE, SIDE)] * 2)
    torch.manual_seed(7)
    proposals, first = built.proposals(images, maps, truth)
    _, second = built.heads(maps, proposals, images.image_sizes, truth)
    assert len(first | second) == 4 + (name == "mask_rcnn")
    torch.testing.assert_close(ours, sum((first | second).values()))


def test_what_it_finds_is_torchvisions():
    targets = drawn_targets(2)
    built, given = regions().eval(), shown(targets)
    maps = dict(zip("0123", built.pyramid(given.maps), strict=True))
    images = ImageList(torch.zeros(2, 3, SIDE, SIDE), [(SIDE, SIDE)] * 2)
    with torch.no_grad():
        proposals, _ = built.proposals(images, maps)
        theirs, _ = built.heads(maps, proposals, images.image_sizes)
        ours = built.predict(given, (SIDE, SIDE))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.boxes, other["boxes"])
        assert torch.equal(one.classes, other["labels"] - 1)
        assert torch.equal(one.scores, other["scores"])
        assert torch.equal(one.masks, other["masks"][:, 0])
        assert one.framed


def padded(targets: list[Target]) -> list[Target]:
    return [target._replace(inner=(SIDE, SIDE // 2)) for target in targets]


def test_proposals_of_a_padded_image_end_where_it_does():
    targets = drawn_targets(2)
    built, given = regions(), shown(targets)
    assert not torch.equal(loss_of(built, given, padded(targets)), loss_of(built, given, targets))
    kept = []
    propose = built._propose
    built._propose = lambda *a: kept.append(propose(*a)) or kept[-1]  # type: ignore[method-assign]
    loss_of(built, given, padded(targets))
    assert max(float(boxes[:, 2].max()) for boxes in kept[0].boxes) == SIDE // 2
    assert max(float(boxes[:, 3].max()) for boxes in kept[0].boxes) == SIDE


def test_strides_are_not_learnt_from_the_first_batch():
    targets = drawn_targets(2)
    one, other, given = regions(seed=1), regions(seed=1), shown(targets)
    # torchvision would take the padded image for the whole canvas, and its strides for others.
    loss_of(one, given, padded(targets))
    assert torch.equal(loss_of(one, given, targets), loss_of(other, given, targets))


def test_boxes_without_masks_are_refused_by_what_learns_masks():
    targets = [target._replace(masks=None) for target in drawn_targets(2)]
    with pytest.raises(UsageError, match="these objects have boxes alone; use a task of kind det"):
        loss_of(regions(), shown(drawn_targets(2)), targets)
    assert bool(loss_of(regions("faster_rcnn"), shown(drawn_targets(2)), targets).isfinite())


def test_as_many_are_found_as_the_protocol_counts():
    targets = drawn_targets(1)
    given = shown(targets)
    few, many = regions(detections=3).eval(), regions(detections=1000).eval()
    assert many.proposals.post_nms_top_n() >= 1000
    with torch.no_grad():
        for built, most in ((few, 3), (many, 1000)):
            built.heads.score_thresh = 0.0
            found = built.predict(part_of(given, 0), (SIDE, SIDE))[0]
            assert len(found.scores) <= most
            assert most > 3 or len(found.scores) == 3
        assert len(found.scores) > 100


def test_options_that_do_not_go_are_refused():
    with pytest.raises(UsageError, match="regions 3; the first three must be 1 or more, regions 4"):
        regions(regions=3)
    with pytest.raises(
        UsageError, match="decoder width is 12; it must be a positive multiple of 8"
    ):
        regions(width=12)
