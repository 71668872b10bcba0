"""Objects at an image's own size: by hand, beside published post-processing, and scored."""

import numpy as np
import pytest
import torch
from drawn_targets import drawn_targets, truth_of
from torch import Tensor

from lpmoe_bench.data.targets import Found, Layered, Segmented
from lpmoe_bench.inference.objects import settle_objects, settle_panoptic
from lpmoe_bench.metrics.objects import COCO_MASKS, ObjectScorer
from lpmoe_bench.metrics.panoptic import COCO_PANOPTIC, PanopticScorer
from lpmoe_bench.metrics.runs import pixels_of_runs


def found(boxes, scores, masks=None, framed=False, classes=None) -> Found:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    kinds = torch.zeros(len(boxes), dtype=torch.int64) if classes is None else classes
    return Found(boxes, kinds, torch.tensor(scores, dtype=torch.float32), masks, framed)


def logits_of(masks: Tensor) -> Tensor:
    return 20 * masks.float() - 10


def test_boxes_go_to_the_images_own_pixels_and_the_best_are_kept():
    given = found([[0, 0, 8, 8], [8, 16, 16, 32], [4, 4, 6, 6]], [0.2, 0.9, 0.5])
    got = settle_objects(given, (32, 32), (32, 32), (64, 16), most=2)
    assert got.scores.tolist() == pytest.approx([0.9, 0.5])
    assert got.boxes.tolist() == [[4, 32, 8, 64], [2, 8, 3, 12]]
    assert got.masks is None


def test_what_lies_on_the_padding_is_cut_or_left_out():
    given = found([[4, 4, 30, 20], [18, 2, 30, 9]], [0.5, 0.9])
    got = settle_objects(given, (32, 32), (32, 16), (64, 32), most=10)
    assert got.boxes.tolist() == [[8, 8, 32, 40]]
    assert got.scores.tolist() == [0.5]


def test_nothing_found_is_nothing():
    none = found([], [])
    for given in (none, none._replace(masks=torch.zeros(0, 28, 28), framed=True)):
        got = settle_objects(given, (32, 32), (32, 32), (10, 10), most=10)
        assert len(got.boxes) == len(got.scores) == len(got.classes) == 0
    empty = none._replace(masks=torch.zeros(0, 8, 8))
    assert settle_objects(empty, (32, 32), (32, 32), (10, 10), most=10).masks == []


def test_a_mask_fills_its_box_and_keeps_its_half():
    mask = torch.zeros(1, 28, 28)
    mask[0, :, 14:] = 1  # the right half
    given = found([[8, 4, 24, 28]], [1.0], mask, framed=True)
    got = settle_objects(given, (32, 32), (32, 32), (64, 96), most=10)
    assert got.masks is not None
    pixels = pixels_of_runs(got.masks[0], 64, 96)
    assert got.boxes.tolist() == [[24, 8, 72, 56]]
    expected = np.zeros((64, 96), bool)
    expected[8:56, 48:72] = True
    edge = np.zeros_like(expected)  # where a mask of 28 cells fades into what is outside
    edge[8:56, 47:49] = edge[8:10, 47:72] = edge[54:56, 47:72] = edge[8:56, 70:72] = True
    assert (pixels == expected)[~edge].all()
    assert np.abs(pixels.sum() - 24 * 48) <= 24 + 48


def test_pasting_is_close_to_torchvisions():
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 1, 4, 4, generator=generator)
    masks = torch.nn.functional.interpolate(coarse, (28, 28), mode="bilinear")[:, 0]
    low = 40 * torch.rand(6, 2, generator=generator)
    boxes = torch.cat([low, low + 10 + 80 * torch.rand(6, 2, generator=generator)], 1)
    given = found(boxes.tolist(), [0.5] * 6, masks, framed=True)
    got = settle_objects(given, (120, 140), (120, 140), (120, 140), most=10)
    theirs = paste_masks_in_image(masks[:, None], boxes, (120, 140))[:, 0] >= 0.5
    for runs, other in zip(got.masks, theirs.numpy(), strict=True):
        ours = pixels_of_runs(runs, 120, 140)
        # They round boxes to whole pixels first.
        assert (ours & other).sum() / (ours | other).sum() > 0.85


def test_masks_of_queries_are_read_over_the_image_and_give_the_boxes():
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[0, 4:8, 2:6] = masks[2, :, 8:] = True  # the third lies on the padding
    given = found(np.zeros((3, 4)).tolist(), [0.3, 0.9, 0.8], logits_of(masks))
    got = settle_objects(given, (64, 64), (64, 32), (128, 64), most=10)
    assert got.scores.tolist() == pytest.approx([0.3])  # the second has no pixel
    assert got.boxes.tolist() == [[16, 32, 48, 64]]
    pixels = pixels_of_runs(got.masks[0], 128, 64)  # its corners are rounded
    assert pixels[36:60, 20:44].all()
    assert pixels.sum() > 0.97 * 32 * 32


def test_the_truth_itself_scores_one():
    targets = drawn_targets(3)
    scorer = ObjectScorer(COCO_MASKS, ["a", "b"])
    for number, target in enumerate(targets):
        given = Found(target.boxes, target.classes, torch.ones(2), logits_of(target.masks))
        pred = settle_objects(given, target.size, target.size, target.size, 100)
        scorer.add(f"i{number}", pred, truth_of(target), "drawn")
    scores = scorer.result().scores
    assert scores["mask_ap"] == scores["box_ap"] == 1


@pytest.mark.parametrize("count", [0, 1, 20])
def test_runs_are_those_of_the_whole_image(count: int):
    rng = np.random.default_rng(count)
    masks = torch.zeros(count, 24, 40, dtype=torch.bool)
    for mask in masks:
        top, left = rng.integers(0, 20), rng.integers(0, 36)
        mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = True
    given = found(np.zeros((count, 4)).tolist(), [0.5] * count, logits_of(masks))
    got = settle_objects(given, (24, 40), (24, 40), (24, 40), most=100)
    for runs, mask in zip(got.masks, masks.numpy(), strict=True):
        assert runs.sum() == 24 * 40
        assert (pixels_of_runs(runs, 24, 40) == mask).all()
    few = settle_objects(given, (24, 40), (24, 40), (24, 40), most=7)
    assert len(few.scores) == len(few.masks) == len(few.boxes) == min(7, count)


# Panoptic maps.

THINGS = [True, True, False, False]


def published(scores: Tensor, masks: Tensor, things: list[bool]) -> tuple[np.ndarray, list[int]]:
    """Mask2Former's merging in the order of its paper's code, over whole maps at once."""
    best, labels = scores.max(1)
    sure = best > 0.8
    best, labels, shares = best[sure], labels[sure], masks[sure].sigmoid()
    ids, kinds, stuff = np.zeros(masks.shape[1:], int), [], {}
    if not len(best):
        return ids, kinds
    winner = (best[:, None, None] * shares).argmax(0)
    for k, label in enumerate(labels.tolist()):
        mine, whole = winner == k, shares[k] >= 0.5
        both = mine & whole
        if not both.any() or mine.sum() / whole.sum() < 0.8:
            continue
        if not things[label] and label in stuff:
            ids[both.numpy()] = stuff[label]
            continue
        kinds.append(label)
        stuff[label] = len(kinds)
        ids[both.numpy()] = len(kinds)
    return ids, kinds


@pytest.mark.parametrize("seed", range(6))
def test_segments_are_those_of_mask2formers_merging(seed: int):
    generator = torch.Generator().manual_seed(seed)
    coarse = 6 * torch.randn(30, 1, 4, 4, generator=generator)
    masks = torch.nn.functional.interpolate(coarse, (24, 30), mode="bilinear")[:, 0]
    masks = masks - 1.5
    scores = (4 * torch.randn(30, 5, generator=generator)).softmax(1)[:, :4]
    ids, kinds = published(scores, masks, THINGS)
    got = settle_panoptic(Segmented(scores, masks), (24, 30), (24, 30), (24, 30), THINGS)
    assert got.classes.tolist() == kinds
    assert (got.segments == ids).all()


def test_stuff_is_one_segment_and_things_are_several():
    masks = torch.zeros(4, 8, 8, dtype=torch.bool)
    masks[0, :2], masks[1, 6:] = True, True
    masks[2, 3:5, :3], masks[3, 3:5, 5:] = True, True
    scores = torch.zeros(4, 4)
    scores[:2, 2] = scores[2:, 0] = 0.95
    given = Segmented(scores, logits_of(masks))
    got = settle_panoptic(given, (32, 32), (32, 32), (8, 8), THINGS)
    assert got.classes.tolist() == [2, 0, 0]
    assert got.segments[0, 0] == got.segments[7, 7] == 1
    assert got.segments[3, 0] != got.segments[3, 7]
    assert (got.segments[5] == 0).all()
    unsure = settle_panoptic(
        Segmented(0.8 * scores, given.masks), (32, 32), (32, 32), (8, 8), THINGS
    )
    assert len(unsure.classes) == 0
    assert not unsure.segments.any()


def layered(boxes, scores, masks, stuff, classes) -> Layered:
    given = found(boxes, scores, masks, classes=torch.tensor(classes))
    return Layered(given.boxes, given.classes, given.scores, masks, stuff)


def test_objects_lie_above_stuff_and_the_surer_above_the_others():
    boxes = [[0, 0, 8, 8], [4, 0, 12, 8], [1, 0, 9, 8], [0, 8, 4, 12], [12, 8, 16, 16]]
    stuff = torch.full((5, 4, 4), -9.0)
    stuff[2, :, :3] = stuff[4, :, 3] = 9  # the right column is an object, they say
    stuff[0] = 99  # of a thing: means nothing
    stuff[3, 3, 0] = 10  # a sixteenth of the image
    given = layered(
        boxes, [0.9, 0.8, 0.7, 0.4, 0.95], torch.ones(5, 28, 28), stuff, [0, 1, 1, 0, 2]
    )
    got = settle_panoptic(given, (16, 16), (16, 16), (16, 16), THINGS)
    # The third is hidden by more than half, the fourth unsure, the fifth of a class of stuff.
    assert got.classes.tolist() == [0, 1, 2, 3]
    assert (got.segments[1:7, 1:7] == 1).all()
    assert (got.segments[1:7, 8:11] == 2).all()
    assert (got.segments[8:12, :12] == 3).sum() > 40
    assert (got.segments[14:, :2] == 4).all()
    assert (got.segments[9:, 14:] == 0).all()


def test_objects_on_the_padding_are_no_segments():
    stuff = torch.full((5, 8, 8), -9.0)
    stuff[3] = 9
    boxes = [[20, 0, 30, 32], [0, 24, 16, 30], [0, 0, 20, 8]]
    given = layered(boxes, [0.9, 0.9, 0.9], torch.ones(3, 28, 28), stuff, [0, 0, 1])
    got = settle_panoptic(given, (32, 32), (16, 16), (16, 16), THINGS)
    assert got.classes.tolist() == [1, 3]
    assert (got.segments[1:7, 1:] == 1).all()
    assert (got.segments[9:] == 2).all()


def test_stuff_that_covers_too_little_is_left_out():
    stuff = torch.full((5, 16, 16), -9.0)
    stuff[2, :, 1:], stuff[3, :2, 0], stuff[4, 2:, 0] = 9, 9, 9  # a 128th of class 3
    given = layered([], [], torch.zeros(0, 28, 28), stuff, [])
    got = settle_panoptic(given, (64, 64), (64, 64), (16, 16), THINGS)
    assert got.classes.tolist() == [2]
    assert (got.segments[:, 1:] == 1).all()
    stuff[3, 2:4, 0] = 10
    got = settle_panoptic(given, (64, 64), (64, 64), (16, 16), THINGS)
    assert got.classes.tolist() == [2, 3]


def test_the_panoptic_truth_itself_scores_one():
    scorer = PanopticScorer(COCO_PANOPTIC, list("abcd"), ["a", "b"])
    for number, target in enumerate(drawn_targets(3, stuff=True)):
        assert target.labels is not None
        maps = [*target.masks, target.labels == 2, target.labels == 3]
        given = Segmented(0.9 * torch.eye(4), logits_of(torch.stack(maps)))
        pred = settle_panoptic(given, target.size, target.size, target.size, THINGS)
        scorer.add(f"i{number}", pred, truth_of(target), "drawn")
    assert scorer.result().scores["pq"] == 1
