"""Label files of objects: what each format says, and one sentence for all that is wrong."""

import json

import cv2
import numpy as np
import object_sets as sets
import pytest

from lpmoe_bench.data.annotations import mask_checksum
from lpmoe_bench.data.object_files import label_places
from lpmoe_bench.data.objects import read_objects
from lpmoe_bench.data.pairs import find_objects
from lpmoe_bench.data.pixels import pixel_rules
from lpmoe_bench.errors import DataError, UsageError


def rules(form, **more):
    return pixel_rules({"labels": {"format": form, **more}})


def read(folder, said=None, form="coco", **more):
    """Return the pairs of a COCO set and their objects, by name."""
    sets.coco_set(folder, said)
    pairs = find_objects(folder / "images", [folder / "train.json"], rules(form, **more))
    return {p.name: (p, read_objects(p.mask, p.rules, p.image)) for p in pairs}


# COCO


def test_ids_with_gaps_become_classes_in_their_order(tmp_path):
    found = read(tmp_path)
    assert found["a"][0].rules.labels.classes == ("cat", "dog")
    assert found["a"][1].classes.tolist() == [1, 0]
    assert [*found] == ["a", "b", "c"]


def test_polygons_runs_crowds_and_empty_images(tmp_path):
    found = read(tmp_path)
    a, b, c = (found[name][1] for name in "abc")
    assert [int(runs[1::2].sum()) for runs in a.masks] == [400, 24]
    assert a.boxes.tolist() == [[10, 5, 30, 25], [0, 0, 4, 6]]
    assert a.areas.tolist() == [400, 24]
    assert b.crowd.tolist() == [True, False]
    assert c.boxes.shape == (0, 4)
    assert c.masks == []


def test_compressed_runs_are_read_as_plain_ones(tmp_path):
    from lpmoe_bench.metrics.runs import pack_runs

    plain = sets.content()
    packed = sets.content()
    given = packed["annotations"][1]["segmentation"]
    given["counts"] = pack_runs(given["counts"])
    one, other = read(tmp_path / "x", plain)["a"][1], read(tmp_path / "y", packed)["a"][1]
    assert all((p == q).all() for p, q in zip(one.masks, other.masks, strict=True))


def test_boxes_and_areas_that_a_file_leaves_out_come_from_masks(tmp_path):
    said = sets.content()
    for one in said["annotations"]:
        del one["bbox"], one["area"]
    found = read(tmp_path, said)["a"][1]
    assert found.boxes.tolist() == [[10, 5, 30, 25], [0, 0, 4, 6]]
    assert found.areas.tolist() == [400, 24]


def test_boxes_alone_have_no_masks(tmp_path):
    said = sets.content()
    for one in said["annotations"]:
        del one["segmentation"]
    pair, found = read(tmp_path, said)["a"]
    assert found.masks is None
    assert not pair.mask.objects.has_masks


def test_declared_classes_choose_the_order(tmp_path):
    found = read(tmp_path, classes=["dog", "horse", "cat"])["a"]
    assert found[0].rules.labels.classes == ("dog", "horse", "cat")
    assert found[1].classes.tolist() == [0, 2]


def test_checksums_follow_the_labels_of_their_own_image(tmp_path):
    before = {name: mask_checksum(pair.mask) for name, (pair, _) in read(tmp_path / "x").items()}
    moved = {name: mask_checksum(pair.mask) for name, (pair, _) in read(tmp_path / "y").items()}
    assert before == moved
    said = sets.content()
    said["annotations"][3]["bbox"] = [2, 2, 10, 11]
    after = {k: mask_checksum(pair.mask) for k, (pair, _) in read(tmp_path / "z", said).items()}
    assert [name for name in before if before[name] != after[name]] == ["b"]


def test_a_whole_number_of_pixels_of_all_objects_round_trips(tmp_path):
    from lpmoe_bench.data.object_writing import coco_json

    first = read(tmp_path / "x")
    items = [(f"{name}.png", objects) for name, (_, objects) in first.items()]
    again = read(tmp_path / "y", coco_json(items, ("cat", "dog")))
    for name, (_, one) in first.items():
        other = again[name][1]
        assert one.boxes.tolist() == other.boxes.tolist()
        assert one.areas.tolist() == other.areas.tolist()
        assert all((p == q).all() for p, q in zip(one.masks, other.masks, strict=True))


def change(**what):
    """Return a COCO file with its first annotation changed; None leaves a key out."""
    said = sets.content()
    one = said["annotations"][0] | what
    said["annotations"][0] = {key: value for key, value in one.items() if value is not None}
    return said


TWO = [{"id": 3, "name": "cat"}, {"id": 7, "name": "cat"}]
BROKEN = [
    (change(category_id=5), "annotation 1 is of category 5, .* it has 3, 7"),
    (change(image_id=9), "annotation 1 is of image 9, not in its list"),
    (change(id=2), "two annotations with the id 2"),
    (change(bbox=[70, 5, 5, 5]), "box 70 5 75 10, outside of its image of 60 x 40 pixels"),
    (change(bbox=[10, 5, -3, 5]), "whose end lies before its start"),
    (change(bbox=[10, 5, float("nan"), 5]), "annotation 1 has the box"),
    (change(bbox=[10, 5, 3]), "not enough values"),
    (change(bbox=None, segmentation=None), "neither a box nor an outline"),
    (change(segmentation=[[1, 2, 3, 4]]), "annotation 1 has an outline of 2 corners"),
    (change(segmentation={"size": [3, 3], "counts": [9]}), "annotation 1 has runs of size"),
    (change(segmentation=sets.runs((0, 0, 2, 2)) | {"counts": [5]}), "do not add up"),
    (change(area=-4), "an area of -4 pixels"),
    (change(category_id=None), "KeyError: 'category_id'"),
    (sets.content(categories=[]), "lists no category"),
    (sets.content(categories=TWO), "category cat twice"),
    (sets.content(categories=[{"id": 3, "name": "a, b"}, sets.CATEGORIES[0]]), "without commas"),
    (sets.content(images=[]), "lists no image"),
    ({"images": []}, "no COCO file that is read"),
]


@pytest.mark.parametrize(("said", "sentence"), BROKEN)
def test_a_broken_file_is_one_sentence(tmp_path, said, sentence):
    with pytest.raises(DataError, match=sentence) as error:
        read(tmp_path, said)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_json(tmp_path):
    sets.coco_set(tmp_path)
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(DataError, match="no sound JSON"):
        find_objects(tmp_path / "images", [tmp_path / "train.json"], rules("coco"))


def test_images_that_are_missing_are_named(tmp_path):
    sets.coco_set(tmp_path)
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images .* not there: b.png"):
        find_objects(tmp_path / "images", [tmp_path / "train.json"], rules("coco"))


def test_a_category_beside_the_declared_classes(tmp_path):
    with pytest.raises(DataError, match="category cat, which is none of the classes"):
        read(tmp_path, classes=["dog"])


# Panoptic


def panoptic(folder, change=lambda said, ids: None):
    ids = np.zeros(sets.SHAPE, np.int64)
    ids[20:] = 5  # grass
    ids[5:25, 10:30] = 300
    ids[0:4, 0:6] = 70000
    said = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [
            {"id": 300, "category_id": 7, "iscrowd": 0}, {"id": 5, "category_id": 9},
            {"id": 70000, "category_id": 7, "iscrowd": 1}]}],
        "categories": [{"id": 7, "name": "dog", "isthing": 1},
                       {"id": 9, "name": "grass", "isthing": 0}],
    }  # fmt: skip
    change(said, ids)
    sets.image(folder / "images" / "a.png")
    (folder / "maps").mkdir()
    colours = np.dstack([ids >> 16 & 255, ids >> 8 & 255, ids & 255]).astype(np.uint8)
    cv2.imwrite(str(folder / "maps" / "a.png"), colours)
    (folder / "train.json").write_text(json.dumps(said))
    places = [folder / "train.json", folder / "maps"]
    pair = find_objects(folder / "images", places, rules("coco_panoptic"))[0]
    return pair, read_objects(pair.mask, pair.rules, pair.image)


def test_things_are_masks_and_stuff_is_a_map(tmp_path):
    pair, found = panoptic(tmp_path)
    assert pair.rules.labels.classes == ("dog", "grass")
    assert pair.rules.labels.things == ("dog",)
    assert found.classes.tolist() == [0, 0]
    assert found.crowd.tolist() == [False, True]
    assert found.boxes.tolist() == [[10, 5, 30, 25], [0, 0, 6, 4]]
    assert set(np.unique(found.labels)) == {1, 255}
    assert (found.labels == 1).sum() == 20 * 60 - 5 * 20


def test_a_map_that_does_not_fit_its_list(tmp_path):
    def other(said, ids):
        ids[30:32, 30:32] = 8

    with pytest.raises(DataError, match="segments 8 that its list does not have"):
        panoptic(tmp_path / "x", other)

    def fewer(said, ids):
        ids[ids == 70000] = 0

    with pytest.raises(DataError, match="no pixel of segment 70000"):
        panoptic(tmp_path / "y", fewer)


def test_a_change_of_the_map_is_another_label(tmp_path):
    def wider(said, ids):
        ids[30:32, 30:32] = 300

    one, other = panoptic(tmp_path / "x")[0], panoptic(tmp_path / "y", wider)[0]
    assert mask_checksum(one.mask) != mask_checksum(other.mask)
    assert mask_checksum(one.mask) == mask_checksum(panoptic(tmp_path / "z")[0].mask)


def test_maps_lie_in_the_folder_of_the_files_name_or_in_the_only_one_that_has_them(tmp_path):
    panoptic(tmp_path)
    path = tmp_path / "train.json"
    with pytest.raises(DataError, match="not found; images and maps have maps of its names; their"):
        label_places(path, rules("coco_panoptic").labels)  # the image is a.png too
    (tmp_path / "images" / "a.png").unlink()
    assert label_places(path, rules("coco_panoptic").labels) == [path, tmp_path / "maps"]
    (tmp_path / "train").mkdir()
    assert label_places(path, rules("coco_panoptic").labels) == [path, tmp_path / "train"]
    assert label_places(path, rules("coco").labels) == [path]


# VOC and YOLO

VOC = """<annotation><size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>11</xmin><ymin>6</ymin>
<xmax>30</xmax><ymax>25</ymax></bndbox></object>
<object><name>cat</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>
<xmax>4</xmax><ymax>6</ymax></bndbox></object></annotation>"""


DOG = VOC.format(name="dog")


def voc(folder, text=DOG, **more):
    sets.image(folder / "images" / "a.png")
    (folder / "xml").mkdir()
    (folder / "xml" / "a.xml").write_text(text)
    declared = {"classes": ["cat", "dog"]} | more
    pair = find_objects(folder / "images", [folder / "xml"], rules("voc", **declared))[0]
    return read_objects(pair.mask, pair.rules, pair.image)


def test_corners_of_voc_count_from_one_and_belong_to_the_box(tmp_path):
    found = voc(tmp_path)
    assert found.boxes.tolist() == [[10, 5, 30, 25], [0, 0, 4, 6]]
    assert found.classes.tolist() == [1, 0]
    assert found.areas.tolist() == [400, 24]
    assert found.crowd.tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (VOC.format(name="cow"), "an object cow, which is none of the classes"),
        (VOC[:99], "no sound XML"),
        ("<annotation/>", "no VOC file that is read"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>", "declares entities"),
    ],
)
def test_a_broken_voc_file(tmp_path, text, sentence):
    with pytest.raises(DataError, match=sentence):
        voc(tmp_path, text)


def yolo(folder, text, **more):
    sets.image(folder / "images" / "a.png")
    sets.image(folder / "images" / "b.png")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text(text)
    declared = {"classes": ["cat", "dog"]} | more
    pairs = find_objects(folder / "images", [folder / "labels"], rules("yolo", **declared))
    return [read_objects(pair.mask, pair.rules, pair.image) for pair in pairs]


def test_shares_of_yolo_are_pixels_and_images_without_a_file_are_empty(tmp_path):
    a, b = yolo(tmp_path, "1 0.5 0.25 0.5 0.5\n")
    assert a.boxes.tolist() == [[15, 0, 45, 20]]
    assert a.classes.tolist() == [1]
    assert b.boxes.shape == (0, 4)


def test_outlines_of_yolo_are_masks(tmp_path):
    a, _ = yolo(tmp_path, "0 0 0 0.5 0 0.5 0.5 0 0.5\n")
    assert a.boxes.tolist() == [[0, 0, 30, 20]]
    assert int(a.masks[0][1::2].sum()) == 600


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("2 0.5 0.5 0.1 0.1", "line 1 is of class 2; the 2 classes"),
        ("0 50 50 10 10", "beyond 0 to 1"),
        ("0 0.5 0.5 0.1", "in line 1"),
        ("cat 0.5 0.5 0.1 0.1", "in line 1"),
    ],
)
def test_a_broken_yolo_file(tmp_path, text, sentence):
    with pytest.raises(DataError, match=sentence):
        yolo(tmp_path, text)


def test_formats_that_list_no_classes_need_them():
    for form in ("voc", "yolo", "instances"):
        with pytest.raises(UsageError, match="labels have no classes"):
            rules(form)


# Instance maps


def instances(folder, values, **more):
    sets.image(folder / "images" / "a.png")
    (folder / "masks").mkdir()
    cv2.imwrite(str(folder / "masks" / "a.png"), values)
    declared = {"classes": ["cell"]} | more
    places = [folder / "masks"]
    pair = find_objects(folder / "images", places, rules("instances", **declared))[0]
    return read_objects(pair.mask, pair.rules, pair.image)


def test_each_value_of_an_instance_map_is_an_object(tmp_path):
    values = np.zeros(sets.SHAPE, np.uint16)
    values[5:25, 10:30], values[0:6, 0:4] = 40000, 2
    found = instances(tmp_path, values)
    assert found.boxes.tolist() == [[0, 0, 4, 6], [10, 5, 30, 25]]
    assert found.areas.tolist() == [24, 400]


def test_values_of_cityscapes_have_a_class_and_groups_are_crowds(tmp_path):
    values = np.zeros(sets.SHAPE, np.uint16)
    values[0:2], values[5:8], values[10:12], values[20:30] = 26003, 24000, 26, 7
    found = instances(tmp_path, values, classes={"person": 24, "car": 26}, divisor=1000)
    assert found.classes.tolist() == [1, 0, 1]
    assert found.crowd.tolist() == [True, False, False]
    values[0:2] = 29001
    with pytest.raises(DataError, match="29001, whose class 29 is none of"):
        instances(tmp_path / "x", values, classes={"person": 24, "car": 26}, divisor=1000)


def test_a_file_for_each_object(tmp_path):
    sets.image(tmp_path / "s" / "k" / "images" / "k.png")
    for number in range(2):
        mask = np.zeros(sets.SHAPE, np.uint8)
        mask[4 * number : 4 * number + 6, 2:9] = 255
        (tmp_path / "s" / "k" / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "s" / "k" / "masks" / f"x{number}.png"), mask)
    images, masks = tmp_path / "s/*/images/{name}.png", tmp_path / "s/{name}/masks/*.png"
    pair = find_objects(images, [masks], rules("instances", classes=["nucleus"]))[0]
    found = read_objects(pair.mask, pair.rules, pair.image)
    assert pair.name == "k"
    assert found.boxes.tolist() == [[2, 0, 9, 6], [2, 4, 9, 10]]


# A user's own folders, verification, and conversion


def own(folder, kind="instance", labels="train.json"):
    """Return the data of a user's own folder whose third is tested on."""
    from lpmoe_bench.data.registry import load_registry
    from lpmoe_bench.data.tasks import Folders, resolve

    task = load_registry().task(kind)
    folders = Folders(folder / "images", folder / labels, share=0.34)
    return resolve(task, load_registry(), None, folders, generated_root=folder / "cache")


def test_own_annotations_bring_their_classes(tmp_path):
    found = own(sets.coco_set(tmp_path))
    assert found.train.rules.labels.classes == ("cat", "dog")
    assert len(found.train.pairs) + len(found.tests[0].pairs) == 3


def test_own_files_that_do_not_fit_the_task(tmp_path):
    sets.coco_set(tmp_path)
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml" / "a.xml").write_text(DOG)
    with pytest.raises(UsageError, match="format voc, and task instance is instance"):
        own(tmp_path, labels="xml")
    with pytest.raises(UsageError, match="do not list their classes; name them with --classes"):
        own(tmp_path, labels="xml", kind="detection")
    with pytest.raises(DataError, match="no COCO panoptic file that is read"):
        own(tmp_path, kind="panoptic")


ENTRY = """
datasets:
  mine: {title: M, task: instance, folder: FOLDER, labels: {format: coco, files: {all: train.json}}}
"""


def registered(folder):
    from lpmoe_bench.data.registry import load_registry

    (folder / "sets.yaml").write_text(ENTRY.replace("FOLDER", str(folder)))
    return load_registry(folder / "sets.yaml").dataset("mine")


def test_verification_counts_objects(tmp_path):
    from lpmoe_bench.data.library import verify

    said = sets.content()
    said["annotations"].append(said["annotations"][1] | {"id": 5})
    sets.coco_set(tmp_path, said)
    (found,) = verify.verify_set(registered(tmp_path), None)
    counts = {"objects": 5, "crowds": 1, "boxes outside": 0, "without area": 0, "twice": 1}
    assert found.objects == counts | {"images without": 1}
    assert "class 0   cat: 50.0% of objects, in 1 images" in verify.verification_text([found])
    verify.write_sheet(registered(tmp_path), None, tmp_path / "sheet.png")
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None


def test_conversion_keeps_every_object(tmp_path):
    from lpmoe_bench.console import Terminal
    from lpmoe_bench.data.library.convert import convert_set

    first = read(tmp_path)
    quiet = Terminal(quiet=True)
    (made,) = convert_set(registered(tmp_path), None, tmp_path / "out", quiet)
    assert (made.images, made.objects) == (3, 4)
    again = find_objects(tmp_path / "images", [tmp_path / "out/all.json"], rules("coco"))
    for pair in again:
        one = read_objects(pair.mask, pair.rules, pair.image)
        other = first[pair.name][1]
        assert one.boxes.tolist() == other.boxes.tolist()
        assert all((p == q).all() for p, q in zip(one.masks, other.masks, strict=True))
    with pytest.raises(UsageError, match="exists already"):
        convert_set(registered(tmp_path), None, tmp_path / "out", quiet)


def test_entries_of_objects_that_do_not_go_together(tmp_path):
    from lpmoe_bench.data.registry import load_registry

    head = "datasets:\n  d: {title: D, task: "
    for text, sentence in (
        ("camvid, labels: {format: coco}}", "labels of format coco, but task camvid is semantic"),
        ("instance, labels: {format: voc, classes: [a]}}", "whose sets have coco or yolo"),
        ("panoptic, labels: {format: coco_panoptic, files: {all: a.json}}}", "folder of its maps"),
        ("instance, labels: {format: coco, files: {all: ../a.json}}}", "inside the set's folder"),
        ("instance, labels: {format: instances, classes: [a, b]}}", "needs a divisor"),
        ("instance, labels: {format: coco, divisor: 5}}", "divisor is of labels of format"),
    ):
        (tmp_path / "x.yaml").write_text(head + text)
        with pytest.raises(UsageError, match=sentence):
            load_registry(tmp_path / "x.yaml")


@pytest.mark.data
@pytest.mark.parametrize("name", ["pennfudan", "bccd", "coco_mini_instances"])
def test_real_sets_are_read_as_they_are_counted(name):
    import os
    from pathlib import Path

    from lpmoe_bench.data.pairs import split_pairs
    from lpmoe_bench.data.registry import load_registry

    root = os.environ.get("LPMOE_BENCH_DATA")
    dataset = load_registry().dataset(name)
    place = dataset.location(Path(root)) if root else None
    if place is None:
        pytest.skip(f"LPMOE_BENCH_DATA names no folder with {name}")
    pairs = split_pairs(dataset, place, "train")
    assert len(pairs) == dataset.counts["train"]
    found = read_objects(pairs[0].mask, pairs[0].rules, pairs[0].image)
    assert len(found.classes) == len(found.boxes) > 0
