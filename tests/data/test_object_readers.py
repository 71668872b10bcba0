"""Readers of objects: boxes and masks move together, and what is lost is not trained on."""

import numpy as np
import pytest
import torch

from lpmoe_bench.data.loader import PairDataset, rescale
from lpmoe_bench.data.object_readers import BoxReader, InstanceReader, PanopticReader
from lpmoe_bench.data.objects import Objects, box_of_runs, read_objects
from lpmoe_bench.data.pairs import find_objects
from lpmoe_bench.data.pixels import pixel_rules
from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.runs import areas_of, runs_of_pixels


def objects(boxes, shape=(40, 60), labels=None):
    """Return rectangles as objects of classes 0, 1 and so on."""
    masks = []
    for x0, y0, x1, y1 in boxes:
        mask = np.zeros(shape, bool)
        mask[y0:y1, x0:x1] = True
        masks.append(runs_of_pixels(mask))
    count = len(boxes)
    return Objects(
        shape, np.array(boxes, np.float64).reshape(-1, 4), np.arange(count), np.zeros(count, bool),
        areas_of(masks), masks, labels,
    )  # fmt: skip


def bounds(mask):
    """Return the box around a mask (h, w), of zeros where it is empty."""
    return box_of_runs(runs_of_pixels(mask.numpy()), mask.shape[0]).tolist()


TRUTH = objects([(10, 5, 30, 25), (0, 0, 4, 6), (40, 20, 60, 40)])


def test_boxes_of_runs_are_those_of_their_masks():
    draw = np.random.default_rng(0)
    for _ in range(300):
        mask = draw.random((7, 5)) < draw.random() * 0.4
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        wanted = [0, 0, 0, 0]
        if mask.any():
            wanted = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert box_of_runs(runs_of_pixels(mask), 7).tolist() == wanted


def test_squash_moves_boxes_as_masks():
    target = InstanceReader().target(TRUTH, (20, 60))
    assert target.size == (20, 60)
    assert target.boxes.tolist() == [[10, 2.5, 30, 12.5], [0, 0, 4, 3], [40, 10, 60, 20]]
    assert target.masks.shape == (3, 20, 60)
    assert [bounds(mask) for mask in target.masks][1] == [0, 0, 4, 3]


def test_a_mirrored_box_is_that_of_the_mirrored_mask():
    reader = InstanceReader()
    target = reader.mirrored(reader.target(TRUTH, (40, 60)))
    assert target.boxes.tolist() == [bounds(mask) for mask in target.masks]
    assert reader.mirrored(target).boxes.tolist() == TRUTH.boxes.tolist()


def test_a_letterbox_knows_its_image():
    reader = InstanceReader()
    target = reader.padded(reader.target(TRUTH, (32, 48)), (64, 48))
    assert target.size == (64, 48)
    assert target.inner == (32, 48)
    assert target.masks.shape == (3, 64, 48)
    assert not target.masks[:, 32:].any()
    assert reader.mirrored(target).inner is None  # the image then lies at the right


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
def test_a_view_cuts_boxes_as_masks(factor, share):
    reader = InstanceReader()
    target = reader.target(TRUTH, (40, 60))
    image = torch.zeros(3, 40, 60)
    _, seen = rescale(image, target, (factor, factor), iter([0.5, share, share]), reader)
    assert seen.size == (40, 60)
    for box, mask in zip(seen.boxes.tolist(), seen.masks, strict=True):
        assert np.abs(np.array(box) - bounds(mask)).max() <= 0.5  # to the nearest pixel
    alone = rescale(image, BoxReader().target(TRUTH, (40, 60)), (factor, factor),
                    iter([0.5, share, share]), BoxReader())[1]  # fmt: skip
    assert alone.classes.tolist() == seen.classes.tolist()


def test_an_object_out_of_view_is_gone():
    reader = InstanceReader()
    target = reader.target(TRUTH, (40, 60))
    take, put = (slice(0, 40), slice(0, 60)), (slice(0, 40), slice(0, 60))
    seen = reader.view(target, (80, 120), take, put)
    assert seen.classes.tolist() == [0, 1]
    assert seen.boxes.tolist() == [[20, 10, 60, 40], [0, 0, 8, 12]]


def test_what_a_small_canvas_loses_is_not_trained_but_stays_in_truth():
    truth = objects([(7, 7, 8, 8), (10, 5, 30, 25)])
    target = InstanceReader().target(truth, (8, 8))
    assert len(target.classes) == 2
    assert target.trained().classes.tolist() == [1]
    assert len(truth.classes) == 2


def test_stuff_is_void_where_nothing_is_seen():
    labels = np.full((40, 60), 3, np.uint8)
    truth = objects([(10, 5, 30, 25)], labels=labels)
    reader = PanopticReader()
    target = reader.padded(reader.target(truth, (32, 48)), (48, 48))
    assert target.labels.unique().tolist() == [3, 255]
    assert (target.labels[32:] == 255).all()
    part = (slice(0, 24), slice(0, 24))
    seen = reader.view(target, (24, 24), part, (slice(4, 28), slice(4, 28)))
    assert (seen.labels == 3).sum() == 16 * 24
    assert seen.labels.dtype == torch.int64


def test_items_of_a_set_are_lists_of_targets(tmp_path):
    import object_sets as sets

    sets.coco_set(tmp_path)
    rules = pixel_rules({"labels": {"format": "coco"}})
    pairs = find_objects(tmp_path / "images", [tmp_path / "train.json"], rules)
    dataset = PairDataset(
        pairs, (32, 64), 0, True, (0.5, 2.0), fit="letterbox", reader=InstanceReader()
    )
    images, targets = dataset.collate([dataset[0, k] for k in range(3)])
    again = dataset.collate([dataset[0, k] for k in range(3)])[1]
    assert images.shape == (3, 3, 32, 64)
    assert isinstance(targets, list)
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(targets, again, strict=True))
    assert len(targets[2].classes) == 0
    assert targets[2].masks.shape == (0, 32, 64)


def test_boxes_without_masks_are_refused_where_masks_are_trained(tmp_path):
    import object_sets as sets

    said = sets.content()
    del said["annotations"][0]["segmentation"]
    sets.coco_set(tmp_path, said)
    rules = pixel_rules({"labels": {"format": "coco"}})
    pairs = find_objects(tmp_path / "images", [tmp_path / "train.json"], rules)
    BoxReader().check("x/train", pairs)
    with pytest.raises(DataError, match=r"x/train has boxes without masks \(such as in a"):
        InstanceReader().check("x/train", pairs)
    with pytest.raises(DataError, match="tell nothing of stuff"):
        PanopticReader().check("x/train", pairs)


def test_objects_are_counted_and_oddities_with_them(tmp_path):
    import object_sets as sets

    from lpmoe_bench.data.splits import Split, check_pairs

    said = sets.content()
    said["annotations"] += [
        said["annotations"][1] | {"id": 5},  # twice
        {"id": 6, "image_id": 1, "category_id": 3, "bbox": [50, 30, 20, 20], "area": 9,
         "segmentation": sets.runs((50, 30, 60, 40))},
        {"id": 7, "image_id": 2, "category_id": 3, "bbox": [5, 5, 0, 4], "area": 0,
         "segmentation": sets.runs()},
    ]  # fmt: skip
    sets.coco_set(tmp_path, said)
    rules = pixel_rules({"labels": {"format": "coco"}})
    pairs = find_objects(tmp_path / "images", [tmp_path / "train.json"], rules)
    assert read_objects(pairs[0].mask, pairs[0].rules).oddities == (1, 0, 1)
    notes = " | ".join(check_pairs(Split("own", "train", tuple(pairs)), varied=True))
    for text in (
        "1 of 3 images of own/train have no object (such as c)",
        "1 crowds of own/train",
        "1 boxes of own/train reach beyond",
        "1 objects of own/train have no area",
        "1 objects of own/train stand twice",
    ):
        assert text in notes


def test_an_image_of_another_size_than_its_labels_is_named(tmp_path):
    import object_sets as sets

    from lpmoe_bench.data.splits import Split, check_pairs

    sets.coco_set(tmp_path)
    sets.image(tmp_path / "images" / "b.png", shape=(50, 60))
    rules = pixel_rules({"labels": {"format": "coco"}})
    pairs = find_objects(tmp_path / "images", [tmp_path / "train.json"], rules)
    with pytest.raises(DataError, match=r"1 problems .*b.png is 60 x 50 pixels, but its labels"):
        check_pairs(Split("own", "train", tuple(pairs)))
