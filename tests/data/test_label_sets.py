"""Sets of label maps: registry, published layouts, splits, verification, own folders, drawn."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from drawn_files import noise_image, write

from lpmoe_bench.console import Terminal
from lpmoe_bench.data import splits
from lpmoe_bench.data.audit.audit import audit_sets
from lpmoe_bench.data.labels import VOID, palette_png, read_labels
from lpmoe_bench.data.library.add import add_set
from lpmoe_bench.data.library.importing import import_set
from lpmoe_bench.data.library.listing import details, set_state
from lpmoe_bench.data.library.verify import (
    verification_json,
    verification_markdown,
    verification_text,
    verify_set,
    write_sheet,
)
from lpmoe_bench.data.pairs import split_pairs
from lpmoe_bench.data.pixels import pixel_rules
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.data.scenes import generate
from lpmoe_bench.data.splits import check_pairs, classes_of, contents, digest_of
from lpmoe_bench.data.tasks import Folders, open_split, resolve
from lpmoe_bench.errors import DataError, UsageError

QUIET = Terminal(quiet=True)
SHAPE = (12, 16)
TASK = "kind: semantic, title: T"


def values(seed: int, of=(0, 1, 2)) -> np.ndarray:
    """A label map in blocks, that holds all of these values."""
    blocks = np.random.default_rng(seed).permutation(np.resize(of, 12)).reshape(3, 4)
    return np.kron(blocks, np.ones((4, 4))).astype(np.uint8)


def scene(image: Path, label: Path, seed: int, of=(0, 1, 2)) -> None:
    write(image, noise_image((*SHAPE, 3), seed))
    write(label, values(seed, of))


def fill(folder: Path, of=(0, 1, 2), splits=("train", "test"), count=3) -> Path:
    """A set in the plain layout, whose list of classes lies beside its lists."""
    for number, split in enumerate(splits):
        names = [f"{split}{k}" for k in range(count)]
        for k, name in enumerate(names):
            scene(folder / f"images/{name}.png", folder / f"masks/{name}.png", 9 * number + k, of)
        (folder / f"{split}.txt").write_text("\n".join(names))
    (folder / "classes.txt").write_text("sky\nroad\ncar\n")
    return folder


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return path


def mine(tmp_path: Path, labels="{classes: classes.txt}", task=TASK, more="") -> Path:
    return own(
        tmp_path,
        f"tasks: {{mine: {{{task}, train: [mine/train], test: [mine/test]}}}}\n"
        f"datasets: {{mine: {{title: M, task: mine, labels: {labels}, splits: {{train: train.txt,"
        f" test: test.txt}}{more}}}}}\n",
    )


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "data/mine")
    return tmp_path / "data"


def found(tmp_path, root, path):
    registry = load_registry(path)
    return resolve(registry.task("mine"), registry, root, generated_root=tmp_path / "cache")


# Registry: tasks of classes and sets of labels go together.


def test_a_task_of_classes_in_a_few_lines(tmp_path, root):
    data = found(tmp_path, root, mine(tmp_path))
    assert classes_of(data.train) == ("sky", "road", "car")
    assert data.train.facts["pixels"] == {
        "labels": {"format": "index", "classes": ["sky", "road", "car"]}
    }
    pair = data.train.pairs[0]
    assert np.array_equal(read_labels(pair).labels, values(0))
    assert load_registry(mine(tmp_path)).task("mine").protocol == "classes"  # the kind's own
    assert check_pairs(data.train, varied=True) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tasks: {t: {kind: semantik, title: T, train: [a/b], test: [a/b]}}",
         "key 'protocol' is missing|unknown kind of task 'semantik'; did you mean 'semantic'"),
        (f"tasks: {{t: {{{TASK}, train: [camo/train], test: [camvid/test]}}}}",
         "task t is semantic, but data set camo has no labels; declare `labels:"),
        ("tasks: {t: {title: T, protocol: cod, loss: structure, select: iou, "
         "train: [camvid/train], test: [camvid/test]}}",
         "data set camvid has labels of classes, but task t is binary; write `kind: semantic`"),
        ("datasets: {d: {title: D, task: cod, labels: {classes: [a, b]}}}",
         "data set 'd': data set d has labels of classes, but task cod is binary"),
        ("datasets: {d: {title: D, task: camvid}}", "task camvid is semantic, but data set d has"),
        (f"tasks: {{t: {{{TASK}, train: [camvid/train], test: [voc/test_val]}}}}",
         "sets of different classes: 21 of voc and 11 of camvid, such as background; give both"),
        (f"tasks: {{t: {{{TASK}, train: [camvid/train], test: [d/all]}}}}\n"
         "datasets: {d: {title: D, task: t, labels: {classes: [building, sky, pole, road, "
         "pavement, tree, sign, fence, car, pedestrian, bicyclist]}}}",
         "11 of d and 11 of camvid, in another order"),
        (f"tasks: {{t: {{{TASK}}}}}", "key 'train'"),
        (f"tasks: {{t: {{{TASK}, embedded: generated_semantic, train: [camvid/train]}}}}",
         "key 'test'"),
        ("datasets: {d: {title: D, task: camvid, labels: {classes: [a, a]}}}",
         "data set 'd': class a stands twice"),
        ("datasets: {d: {title: D, task: camvid, labels: {classes: ../../etc/passwd}}}",
         "cannot be used; name a place inside the set's folder"),
        ("datasets: {d: {title: D, task: camvid, labels: {classes: [a, b], folders: [/etc]}}}",
         "'/etc' cannot be used; name a place inside"),
        ("datasets: {d: {title: D, task: camvid, labels: {classes: [a, b], folders: [x]}, "
         "layouts: [{all: [a, b, c]}]}}", "give a place of images and 1 of layers"),
    ],
)  # fmt: skip
def test_entries_that_do_not_go_together(tmp_path, text, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        load_registry(own(tmp_path, text))
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [("sky\ncar\nroad\n", "3 of b/train and 3 of a/train, in another order"),
     ("sky\nroad\nbus\n", "3 of b/train and 3 of a/train, such as bus")],
)  # fmt: skip
def test_training_sets_that_become_one_list_have_one_order_of_classes(tmp_path, listed, sentence):
    for name in "ab":
        fill(tmp_path / "data" / name, splits=("train", "val", "test"))
    entry = (
        "title: T, task: mine, labels: {classes: classes.txt}, "
        "splits: {train: train.txt, val: val.txt, test: test.txt}"
    )
    path = own(
        tmp_path,
        f"tasks: {{mine: {{{TASK}, train: [a/train, b/train], test: [a/test]}}}}\n"
        f"datasets: {{a: {{{entry}}}, b: {{{entry}}}}}\n",
    )
    data = found(tmp_path, tmp_path / "data", path)
    assert (len(data.train.pairs), classes_of(data.train)) == (6, ("sky", "road", "car"))
    (tmp_path / "data/b/classes.txt").write_text(listed)
    with pytest.raises(UsageError, match=sentence):
        found(tmp_path, tmp_path / "data", path)


def test_lists_of_classes_that_differ_on_disk(tmp_path, root):
    fill(root / "other")
    (root / "other/classes.txt").write_text("sky\ncar\nroad\n")
    path = own(
        tmp_path,
        f"tasks: {{mine: {{{TASK}, train: [mine/train], test: [other/test]}}}}\n"
        + "datasets:\n"
        + "".join(
            f"  {name}: {{title: M, task: mine, labels: {{classes: classes.txt}}, "
            f"splits: {{train: train.txt, test: test.txt}}}}\n"
            for name in ("mine", "other")
        ),
    )
    with pytest.raises(UsageError, match="3 of other/test and 3 of mine/train, in another order"):
        found(tmp_path, root, path)
    (root / "other/classes.txt").unlink()
    with pytest.raises(DataError, match=r"other/classes\.txt cannot be read"):
        found(tmp_path, root, path)


# Splits: digests, what is kept of files, checks.


def test_digests_know_what_is_declared_and_layers_their_order(tmp_path, root):
    def digest(labels):
        split = open_split(*load_registry(mine(tmp_path, labels)).split("mine/train"), root)
        assert split is not None
        return split.digest

    first = digest("{classes: classes.txt}")
    assert digest("{classes: [sky, road, car]}") == first  # wherever the list stands
    assert (
        digest("{classes: [sky, road, car], colours: ['#000000', '#111111', '#222222']}") == first
    )
    assert digest("{classes: [sky, road, car], ignore: [255]}") != first
    assert digest("{classes: [road, sky, car]}") != first
    for name in ("a", "b"):
        shutil.copytree(root / "mine/masks", root / "mine" / name)
    write(root / "mine/b/train0.png", np.zeros(SHAPE, np.uint8))
    layers = "{{format: layers, classes: [x, y, z], folders: [{}]}}"
    assert digest(layers.format("a, b")) != digest(layers.format("b, a"))


def test_what_was_read_is_kept_and_read_anew_where_it_means_another_thing(
    tmp_path, root, monkeypatch
):
    monkeypatch.setattr(splits, "SETTLED_SECONDS", -1)  # files as young as these are kept too
    cache, read = tmp_path / "manifests", []
    monkeypatch.setattr(splits, "read_labels", lambda pair: read.append(pair) or read_labels(pair))

    def notes(labels):
        split = open_split(*load_registry(mine(tmp_path, labels)).split("mine/train"), root, cache)
        assert split is not None
        return check_pairs(split, cache=cache)

    assert notes("{classes: [sky, road, car]}") == notes("{classes: [sky, road, car]}") == []
    assert len(read) == 3
    assert notes("{classes: [sky, road, car, tree]}") == [
        "1 of 4 classes are in no image of mine/train: tree"
    ]
    once = (
        r"3 problems in the 3 pairs of mine/train: 3 label maps, such as \S+train0\.png, hold the "
        r"value 2, which is none of the 2 classes \(0 to 1\); correct `classes` or `first`"
    )
    with pytest.raises(DataError, match=once) as told:
        notes("{classes: [sky, road]}")
    assert str(told.value).count(".png") == 1
    assert notes("{classes: [sky, road], ignore: [2]}") == [
        "3 of 3 masks of mine/train have ignored pixels, which count for nothing (such as train0)"
    ]


def test_maps_from_which_nothing_can_be_learnt(tmp_path, root):
    split = open_split(*load_registry(mine(tmp_path)).split("mine/train"), root)
    assert split is not None
    for k in range(3):
        write(root / f"mine/masks/train{k}.png", np.full(SHAPE, 2, np.uint8))
    assert len(check_pairs(split)) == 1  # two classes are nowhere
    with pytest.raises(DataError, match=r"all 3 label maps .*train0\.png\) are car throughout"):
        check_pairs(split, varied=True)
    void = pixel_rules({"labels": {"classes": ["a", "b"], "ignore": 2}})
    pairs = tuple(replace(pair, rules=void) for pair in split.pairs)
    with pytest.raises(
        DataError, match=r"have no labelled pixel: nothing .*; ignored is 2: correct"
    ):
        check_pairs(replace(split, pairs=pairs), varied=True)
    write(root / "mine/masks/train0.png", np.repeat([[0, 1]], 8, 1).repeat(12, 0).astype(np.uint8))
    assert check_pairs(replace(split, pairs=pairs), varied=True)[-1] == (
        "2 of 3 masks of mine/train have no labelled pixel, and teach and tell nothing (such as "
        "train1)"
    )


def test_a_map_of_another_size(tmp_path, root):
    write(root / "mine/masks/train1.png", np.zeros((4, 4), np.uint8))
    split = open_split(*load_registry(mine(tmp_path)).split("mine/train"), root)
    assert split is not None
    with pytest.raises(DataError, match=r"is 16 x 12 pixels but its mask .* is 4 x 4; .*resize_ma"):
        check_pairs(split)


# Layouts that somebody published, each drawn small and read to the right class.


def test_camvid_as_segnet_keeps_it(tmp_path):
    for split in ("train", "val", "test"):
        place = tmp_path / "camvid/CamVid"
        scene(place / split / "0001TP_1.png", place / f"{split}annot/0001TP_1.png", 1, (0, 10, 11))
    split = open_split(*load_registry().split("camvid/test"), tmp_path)
    assert split is not None
    assert set(np.unique(read_labels(split.pairs[0]).labels)) == {0, 10, VOID}
    assert split.groups == {"0001TP_1": "0001TP stretch 1"}


def test_leaf3_in_layers_and_in_colours(tmp_path):
    place = tmp_path / "coffee_leaf"
    write(place / "images/1.jpg", noise_image((4, 4, 3)))
    write(place / "masks_leaf/1.png", np.array([[0, 255, 255, 0]] * 4, np.uint8))
    write(place / "masks/1.png", np.array([[0, 0, 255, 0]] * 4, np.uint8))
    for name in ("train", "val", "test"):
        (place / f"{name}.txt").write_text("1\n")
    split = open_split(*load_registry().split("leaf3/train"), tmp_path)
    assert split is not None
    assert read_labels(split.pairs[0]).labels[0].tolist() == [0, 1, 2, 0]
    # The binary set of the same folder is what it was.
    binary = open_split(*load_registry().split("coffee_leaf/train"), tmp_path)
    assert binary is not None
    assert classes_of(binary) == ()
    place = tmp_path / "leaf3_colours/dataset"
    write(place / "images/test/1.jpg", noise_image((1, 3, 3)))
    colours = np.array([[(0, 0, 0), (0, 176, 0), (255, 0, 0)]], np.uint8)
    write(place / "annotations/test/1_mask.png", colours)
    split = open_split(*load_registry().split("leaf3_colours/test"), tmp_path)
    assert split is not None
    assert read_labels(split.pairs[0]).labels.tolist() == [[0, 1, 2]]


def test_trans10k_v2_beside_its_binary_reading(tmp_path):
    for split in ("train", "validation", "test"):
        place = tmp_path / "trans10k_v2_classes" / split
        write(place / "images/7.jpg", noise_image((*SHAPE, 3)))
        (place / "masks_12").mkdir()
        data = palette_png(values(1, (0, 8, 11)), [(k, 2 * k, 3 * k) for k in range(12)])
        (place / "masks_12/7_mask.png").write_bytes(data)
    registry = load_registry()
    split = open_split(*registry.split("trans10k_v2_classes/test"), tmp_path)
    assert split is not None
    assert np.array_equal(read_labels(split.pairs[0]).labels, values(1, (0, 8, 11)))
    assert classes_of(split)[8] == "floor glass"
    (tmp_path / "trans10k_v2_classes").rename(tmp_path / "trans10k_v2")
    binary = open_split(*registry.split("trans10k_v2/test"), tmp_path)
    assert binary is not None
    assert binary.rules.object == "nonzero"


def test_ade20k_counts_from_one(tmp_path):
    place = tmp_path / "ade20k/ADEChallengeData2016"
    for part in ("training", "validation"):
        scene(place / f"images/{part}/ADE_1.jpg", place / f"annotations/{part}/ADE_1.png", 2,
              (0, 1, 150))  # fmt: skip
    data = resolve(load_registry().task("ade20k"), load_registry(), tmp_path,
                   generated_root=tmp_path / "c")  # fmt: skip
    labels = read_labels(data.tests[0].pairs[0]).labels
    assert set(np.unique(labels)) == {0, 149, VOID}
    assert (classes_of(data.train)[0], classes_of(data.train)[149]) == ("wall", "flag")
    assert data.validation is None  # no epoch is picked on what is tested on


def test_cityscapes_ids_become_classes_by_its_own_table(tmp_path):
    for split in ("train", "val"):
        front = tmp_path / "cityscapes"
        scene(front / f"leftImg8bit/{split}/ulm/ulm_000000_000019_leftImg8bit.png",
              front / f"gtFine/{split}/ulm/ulm_000000_000019_gtFine_labelIds.png", 3,
              (4, 7, 33))  # fmt: skip
        write(front / f"gtFine/{split}/ulm/ulm_000000_000019_gtFine_color.png",
              noise_image((*SHAPE, 3)))  # fmt: skip
    split = open_split(*load_registry().split("cityscapes/test_val"), tmp_path)
    assert split is not None
    labels = read_labels(split.pairs[0]).labels
    raw = values(3, (4, 7, 33))
    assert np.array_equal(labels, np.select([raw == 7, raw == 33], [0, 18], VOID))
    assert split.groups == {"ulm_000000_000019": "ulm"}
    assert len(classes_of(split)) == 19


def test_voc_of_its_archive(tmp_path):
    place = tmp_path / "downloaded/VOCdevkit/VOC2012"
    for name in ("2007_1", "2007_2", "2008_3"):
        write(place / f"JPEGImages/{name}.jpg", noise_image((*SHAPE, 3)))
    for name in ("2007_1", "2007_2"):
        (place / "SegmentationClass").mkdir(exist_ok=True)
        data = palette_png(values(4, (0, 20, 255)), [(k, k, 255 - k) for k in range(21)])
        (place / f"SegmentationClass/{name}.png").write_bytes(data)
    for name, stem in (("train", "2007_1"), ("val", "2007_2")):
        lists = place / "ImageSets/Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{name}.txt").write_text(f"{stem}\n")
    voc = load_registry().dataset("voc")
    added = add_set(voc, tmp_path / "downloaded", tmp_path / "data", QUIET)
    assert [one.pairs for one in added.splits] == [1, 1]
    split = open_split(voc, "test_val", tmp_path / "data")
    assert split is not None
    labels = read_labels(split.pairs[0]).labels
    assert np.array_equal(labels, values(4, (0, 20, 255)))
    # As it was, palette and all.
    kept = (tmp_path / "data/voc/test_val/masks/2007_2.png").read_bytes()
    assert kept == (place / "SegmentationClass/2007_2.png").read_bytes()


def test_coco_stuff_has_gaps(tmp_path):
    for split in ("train2017", "val2017"):
        place = tmp_path / "coco_stuff"
        scene(place / f"images/{split}/1.jpg", place / f"annotations/{split}/1.png", 5,
              (0, 12, 181, 255))  # fmt: skip
    split = open_split(*load_registry().split("coco_stuff/train"), tmp_path)
    assert split is not None
    raw = values(5, (0, 12, 181, 255))
    found = read_labels(split.pairs[0]).labels
    assert np.array_equal(found, np.select([raw == 0, raw == 12, raw == 181], [0, 11, 170], VOID))
    names = classes_of(split)
    assert (len(names), names[11], names[79], names[80]) == (171, "stop sign", "toothbrush",
                                                             "banner")  # fmt: skip


def test_loveda_of_its_archives(tmp_path):
    for part in ("Train", "Val"):
        for number, where in enumerate(("Urban", "Rural")):
            place = tmp_path / "loveda" / part / where
            scene(
                place / f"images_png/{number}.png", place / f"masks_png/{number}.png", 6, (0, 1, 7)
            )
    split = open_split(*load_registry().split("loveda/test_val"), tmp_path)
    assert split is not None
    assert [pair.name for pair in split.pairs] == ["0", "1"]
    assert set(np.unique(read_labels(split.pairs[0]).labels)) == {0, 6, VOID}


def test_every_packaged_list_of_classes_is_as_long_as_its_source_says():
    counts = {"camvid": 11, "leaf3": 3, "trans10k_v2_classes": 12, "ade20k": 150, "cityscapes": 19,
              "voc": 21, "coco_stuff": 171, "loveda": 7}  # fmt: skip
    registry = load_registry()
    for name, count in counts.items():
        labels = registry.dataset(name).pixels.labels
        assert labels is not None
        assert len(labels.classes) == count, name


# Commands: verify, sheet, show, add, import, audit.


def test_verification_counts_classes(tmp_path, root):
    write(root / "mine/masks/train0.png", np.repeat([[0, 0, 0, 1], [0, 0, 255, 255]], 4, 1)
          .repeat(6, 0).astype(np.uint8))  # fmt: skip
    dataset = load_registry(mine(tmp_path, "{classes: classes.txt, ignore: [255]}")).dataset("mine")
    train, test = verify_set(dataset, root)
    assert (train.problems, test.problems) == ([], [])
    pixels = {"sky": 120, "road": 24, "car": 0}
    for k in (1, 2):
        for name, value in zip(pixels, range(3), strict=True):
            pixels[name] += int((values(k) == value).sum())
    labelled = 3 * 192 - 48
    assert sum(pixels.values()) == labelled
    assert [(one.name, one.images) for one in train.classes] == [
        ("sky", 3),
        ("road", 3),
        ("car", 2),
    ]
    assert [one.share for one in train.classes] == pytest.approx(
        [count / labelled for count in pixels.values()]
    )
    assert train.void == pytest.approx(48 / 576)
    text = verification_text([train, test])
    assert "labels    3 classes, 8.33% of pixels void" in text
    assert f"class 2   car: {pixels['car'] / labelled:.1%} of labelled pixels, in 2 images" in text
    assert "| car | " in verification_markdown([train])
    assert verification_json([train])["splits"][0]["classes"][0]["name"] == "sky"


def test_verification_names_unknown_values(tmp_path, root):
    for k in (0, 2):
        write(root / f"mine/masks/train{k}.png", values(k, (0, 7, 255)))
    dataset = load_registry(mine(tmp_path)).dataset("mine")
    train, test = verify_set(dataset, root)
    assert len(train.problems) == 2
    assert train.unknown == {"7": 2, "255": 2}
    assert "unknown   7 in 2 files, 255 in 2 files" in verification_text([train])
    assert train.repairs[-1].startswith("name the class of 7, 255 in `classes` of its entry")
    assert not any("--object" in text for text in train.repairs)
    assert test.unknown == {}


def test_a_sheet_has_overlays_and_a_legend(tmp_path, root):
    dataset = load_registry(mine(tmp_path)).dataset("mine")
    assert write_sheet(dataset, root, tmp_path / "sheet.png") == []
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    plain = 24 + 6 * (176 + 6) + 6  # a row for each of six pairs, and the titles
    assert sheet.shape[0] > plain
    colours = {tuple(pixel[::-1]) for pixel in sheet[plain:].reshape(-1, 3).tolist()}
    assert {(50, 144, 230), (196, 230, 50), (211, 50, 230), (0, 0, 0)} <= colours


def test_show_says_the_classes(tmp_path, root):
    registry = load_registry(mine(tmp_path))
    found = dict(details(set_state(registry.dataset("mine"), root), root))
    assert found["labels"] == "classes of the list classes.txt in its folder"
    assert found["  train"] == "3 pairs (for train)"
    ade = dict(details(set_state(registry.dataset("ade20k"), root), root))
    assert ade["labels"].startswith("150 classes by index: wall, building, sky")


def test_what_is_added_is_copied_as_it_is_with_its_list(tmp_path, root):
    place = fill(tmp_path / "came/inner")
    (root / "mine").rename(tmp_path / "elsewhere")
    dataset = load_registry(mine(tmp_path)).dataset("mine")
    added = add_set(dataset, tmp_path / "came", root, QUIET)
    assert [one.label for one in added.splits] == ["mine/train", "mine/test"]
    assert (root / "mine/classes.txt").read_bytes() == (place / "classes.txt").read_bytes()
    for name in ("train0", "train1", "train2"):
        file = f"masks/{name}.png"
        assert (root / "mine/train" / file).read_bytes() == (place / file).read_bytes()
    split = open_split(dataset, "train", root)
    assert split is not None
    assert np.array_equal(read_labels(split.pairs[0]).labels, values(0))
    assert verify_set(dataset, root)[0].problems == []
    write(place / "masks/train1.png", np.full(SHAPE, 9, np.uint8))
    with pytest.raises(
        DataError, match=r"1 of 3 pairs of mine/train are broken: label map .*value 9"
    ):
        add_set(dataset, tmp_path / "came", root, QUIET, replace=True)


def test_layers_are_added_each_to_its_folder(tmp_path):
    place = tmp_path / "came"
    for name in ("a", "b"):
        write(place / f"images/{name}.png", noise_image((4, 4, 3)))
        write(place / f"leaf/{name}.png", np.array([[0, 255, 255, 0]] * 4, np.uint8))
        write(place / f"spot/{name}.png", np.array([[0, 0, 255, 0]] * 4, np.uint8))
    path = own(
        tmp_path,
        f"tasks: {{mine: {{{TASK}, train: [mine/train], test: [mine/train]}}}}\n"
        "datasets: {mine: {title: M, task: mine, labels: {classes: [ground, leaf, spot], "
        "folders: [leaf, spot]}, splits: {train: null}}}\n",
    )
    dataset = load_registry(path).dataset("mine")
    add_set(dataset, place, tmp_path / "data", QUIET)
    split = open_split(dataset, "train", tmp_path / "data")
    assert split is not None
    assert read_labels(split.pairs[1]).labels[0].tolist() == [0, 1, 2, 0]
    assert (tmp_path / "data/mine/train/spot/b.png").is_file()


def test_an_import_takes_the_classes_of_a_list(tmp_path, root):
    registry, cache = load_registry(), tmp_path / "cache"
    task = registry.task("semantic")
    made = import_set(root / "mine", task, tmp_path / "m.yaml", cache, QUIET, share=0.4)
    entry = yaml.safe_load(made.file.read_text())
    assert entry["datasets"]["mine"]["labels"] == {
        "format": "index", "classes": ["sky", "road", "car"]
    }  # fmt: skip
    assert entry["tasks"]["mine"]["kind"] == "semantic"
    data = resolve(load_registry(made.file).task("mine"), load_registry(made.file), None,
                   generated_root=cache)  # fmt: skip
    assert classes_of(data.train) == ("sky", "road", "car")
    (root / "mine/classes.txt").unlink()
    with pytest.raises(UsageError, match=r"holds no classes\.txt; name the list with --classes"):
        import_set(root / "mine", task, tmp_path / "n.yaml", cache, QUIET)
    with pytest.raises(UsageError, match="--classes is of label maps, but task cod is binary"):
        import_set(root / "mine", registry.task("cod"), tmp_path / "n.yaml", cache, QUIET,
                   labels={"ignore": "255"})  # fmt: skip


def test_an_audit_compares_the_images_of_label_sets(tmp_path, root):
    shutil.copy(root / "mine/images/train0.png", root / "mine/images/test0.png")
    dataset = load_registry(mine(tmp_path)).dataset("mine")
    report = audit_sets([dataset], root, tmp_path / "cache", QUIET)
    assert [(one.kind, one.between) for one in report.leaks] == [
        ("exact", [("mine/train", "mine/test")])
    ]


# Own folders, and the set drawn in code.


def test_own_folders_with_a_list_of_classes(tmp_path, root):
    registry = load_registry()
    place = root / "mine"
    rules = pixel_rules({"labels": {"classes": place / "classes.txt", "ignore": "255"}})
    folders = Folders(place / "images", place / "masks", share=0.4, rules=rules)
    data = resolve(
        registry.task("semantic"), registry, None, folders, generated_root=tmp_path / "c"
    )
    assert classes_of(data.train) == classes_of(data.tests[0]) == ("sky", "road", "car")
    assert len(data.train.pairs) + len(data.tests[0].pairs) == 6
    with pytest.raises(
        UsageError, match=r"task semantic is semantic: say which classes .*--classes"
    ):
        resolve(registry.task("semantic"), registry, None,
                replace(folders, rules=pixel_rules({})), generated_root=tmp_path / "c")  # fmt: skip
    with pytest.raises(UsageError, match="but task cod is binary; choose --task semantic"):
        resolve(registry.task("cod"), registry, None, folders, generated_root=tmp_path / "c")


def test_the_drawn_set_needs_nothing(tmp_path, monkeypatch):
    real = generate.ensure_generated

    def small(name, place, report=None):
        return real(name, place, report, counts={"train": 4, "test": 2}, shape=(48, 64))

    monkeypatch.setattr(generate, "ensure_generated", small)
    registry = load_registry()
    data = resolve(registry.task("semantic"), registry, None, generated_root=tmp_path)
    assert data.train.generated
    assert classes_of(data.train) == ("sky", "meadow", "water", "tree", "house", "balloon")
    assert data.notes[0].startswith("task semantic has no photographs: training on generated_seman")
    folder = data.train.pairs[0].mask.parent.parent
    labels = read_labels(data.train.pairs[0]).labels
    drawn = generate.SETS["generated_semantic"].scene(0, shape=(48, 64))[1]
    assert np.array_equal(labels, drawn)
    # Pixels are hashed: another encoder makes the same set.
    write(data.train.pairs[0].mask, drawn)
    assert digest_of(contents(data.train, data.train.pairs, None)) == data.train.digest
    (folder / "classes.txt").write_text("a\nb\nc\nd\ne\nf\n")
    with pytest.raises(DataError, match="is missing, or not as it was drawn"):
        resolve(registry.task("semantic"), registry, None, generated_root=tmp_path)


# The real sets.


@pytest.fixture
def real() -> Path:
    root = Path(os.environ.get("LPMOE_BENCH_DATA", "/nowhere"))
    if not (root / "camvid").is_dir() or not (root / "coffee_leaf/masks_leaf").is_dir():
        pytest.skip("LPMOE_BENCH_DATA names no folder with camvid and coffee_leaf")
    return root


@pytest.mark.data
def test_the_real_camvid(real, tmp_path):
    registry = load_registry()
    data = resolve(registry.task("camvid"), registry, real, generated_root=tmp_path)
    assert data.validation is not None
    splits = (data.train, data.validation, data.tests[0])
    assert [(s.label, len(s.pairs)) for s in splits] == [
        ("camvid/train", 367), ("camvid/val", 101), ("camvid/test", 233)
    ]  # fmt: skip
    stretches = set(splits[2].groups.values())  # 62 and 171 frames, twenty or so together
    assert {name.partition(" ")[0] for name in stretches} == {"0001TP", "Seq05VD"}
    assert len(stretches) == 13
    for pair in splits[2].pairs[::40]:
        raw = cv2.imread(str(pair.mask), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(read_labels(pair).labels, raw)
    assert (real / "camvid/classes.txt").read_text().split() == list(classes_of(data.train))


@pytest.mark.data
def test_the_real_leaf3(real, tmp_path):
    registry = load_registry()
    data = resolve(registry.task("leaf3"), registry, real, generated_root=tmp_path)
    assert [(s.label, len(s.pairs)) for s in (data.train, *data.tests)] == [
        ("leaf3/train", 400), ("leaf3/test", 50)
    ]  # fmt: skip
    for pair in data.tests[0].pairs[::10]:
        leaf, spot = (cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 0 for file in pair.mask.files)
        assert np.array_equal(read_labels(pair).labels, np.where(spot, 2, np.where(leaf, 1, 0)))
    pairs = split_pairs(registry.dataset("coffee_leaf"), real / "coffee_leaf", "test")
    assert pairs is not None
    assert isinstance(pairs[0].mask, Path)  # the binary set is read as it was
