"""data add: from folders to an entry."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from downloads import QUIET, make_pranet, packaged, put, zip_of
from drawn_files import noise_image, square_mask, write
from object_sets import coco_set
from scipy.io import savemat

from lpmoe_bench.data.audit.groups import known_groups
from lpmoe_bench.data.images import read_mask
from lpmoe_bench.data.library import add
from lpmoe_bench.data.library.add import ADDING, add_set, with_layout
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.data.tasks import open_split
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import staging


@pytest.fixture
def pranet(tmp_path) -> Path:
    return make_pranet(tmp_path / "down")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_bundle_with_several_test_sets(tmp_path, pranet, kind):
    root, source = tmp_path / "root", pranet
    if kind == "zip":
        source = zip_of(pranet, tmp_path / "TestDataset.zip")
    if kind == "tar":
        source = tmp_path / "TestDataset.tar.gz"
        with tarfile.open(source, "w:gz") as archive:
            archive.add(pranet, ".")
    polyp = packaged("pranet_polyp")
    added = add_set(polyp, source, root, QUIET)
    assert [one.label for one in added.splits] == [
        "pranet_polyp/test_kvasir", "pranet_polyp/test_cvc_300",
    ]  # fmt: skip
    assert added.splits[0].remarks == ["2 pairs counted, officially 100"]
    assert "pranet_polyp/test_kvasir: 2 pairs" in added.text
    split = open_split(polyp, "test_kvasir", root)
    assert split is not None
    assert [pair.name for pair in split.pairs] == ["1", "2"]
    assert open_split(polyp, "train", root) is None
    assert [path.name for path in root.iterdir()] == ["pranet_polyp"]
    assert len(list(pranet.rglob("*.png"))) == 4  # what the user has stays


def test_the_other_archive_adds_to_the_set(tmp_path, pranet):
    root, polyp = tmp_path / "root", packaged("pranet_polyp")
    add_set(polyp, pranet, root, QUIET)
    put(tmp_path / "more", "TrainDataset/image", "TrainDataset/mask", "a")
    add_set(polyp, tmp_path / "more", root, QUIET)
    assert sorted(p.name for p in (root / "pranet_polyp").iterdir()) == [
        "test_cvc_300", "test_kvasir", "train",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"test_kvasir is in .* already"):
        add_set(polyp, pranet, root, QUIET)


def test_masks_take_the_names_of_their_images(tmp_path):
    put(tmp_path / "down", "ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth",
        "ISIC_1", tail="_segmentation")  # fmt: skip
    add_set(packaged("isic2018"), tmp_path / "down", tmp_path / "root", QUIET)
    test = tmp_path / "root/isic2018/test"
    assert [p.name for p in (test / "masks").iterdir()] == ["ISIC_1.png"]
    assert "CC BY-NC 4.0" in (test / "SOURCE.txt").read_text()


@pytest.mark.parametrize(
    ("name", "task", "tests"),
    [
        ("conv_lora_camo", "camo_sem_seg", {"test": "test_CAMO"}),
        ("conv_lora_polyp", "polyp", {"test_kvasir": "test_Kvasir",
                                      "test_cvc_clinicdb": "test_CVC-ClinicDB"}),
        ("conv_lora_isic2017", "isic2017", {"test": "test"}),
    ],
)  # fmt: skip
def test_tables_of_test_sets_are_named_as_conv_lora_names_them(tmp_path, name, task, tests):
    for table in ("train", "val", *tests.values()):
        put(tmp_path / "down" / task, f"{table}/images", f"{table}/labels", "1", tail="_gt")
        row = f"{table}/images/1.jpg,{table}/labels/1_gt.png"
        (tmp_path / "down" / task / f"{table}.csv").write_text(f",image,label\n0,{row}\n")
    source = zip_of(tmp_path / "down", tmp_path / f"{task}.zip")
    added = add_set(packaged(name), source, tmp_path / "root", QUIET)
    found = {one.label.partition("/")[2]: one.pairs for one in added.splits}
    assert found == dict.fromkeys(("train", "val", *tests), 1)
    assert added.missing == []


def test_what_fails_leaves_the_data_folder_as_it_was(tmp_path, pranet):
    (pranet / "data/TestDataset/CVC-300/images/2.jpg").write_bytes(b"\xff\xd8\xffcut")
    root = tmp_path / "root"
    with pytest.raises(DataError, match=r"pranet_polyp/test_cvc_300 are broken: images/2\.jpg is"):
        add_set(packaged("pranet_polyp"), pranet, root, QUIET)
    assert list(root.iterdir()) == []


def test_replace_puts_the_old_aside(tmp_path, pranet):
    root, polyp = tmp_path / "root", packaged("pranet_polyp")
    add_set(polyp, pranet, root, QUIET)
    for number in (1, 2):
        added = add_set(polyp, pranet, root, QUIET, replace=True)
        assert str(root / f"pranet_polyp/.test_kvasir-replaced-{number}") in added.aside
    assert "put aside, yours to delete: " in added.text


def test_files_without_a_partner_are_refused_or_left_out(tmp_path):
    root, gdd = tmp_path / "root", packaged("gdd")
    put(tmp_path / "down", "test/image", "test/mask", "1", "2", "3")
    (tmp_path / "down/test/image/1.jpg").unlink()
    (tmp_path / "down/test/mask/2.png").unlink()
    with pytest.raises(DataError, match=r"2 of 3 names have no partner.*--skip-broken leaves"):
        add_set(gdd, tmp_path / "down", root, QUIET)
    added = add_set(gdd, tmp_path / "down", root, QUIET, skip=True)
    assert [one.pairs for one in added.splits] == [1]
    assert added.skipped == ["gdd/test: 1 (no image)", "gdd/test: 2 (no mask)"]
    assert "Left out as broken: gdd/test: 2 (no mask)" in (root / "gdd/test/SOURCE.txt").read_text()
    (tmp_path / "down/test/mask/3.png").rename(tmp_path / "down/test/mask/4.png")
    with pytest.raises(DataError, match="4 of 4 names have no partner"):
        add_set(gdd, tmp_path / "down", tmp_path / "other", QUIET, skip=True)


def test_a_file_that_is_none_is_a_broken_pair(tmp_path):
    put(tmp_path / "down", "test/image", "test/mask", "1", "2")
    (tmp_path / "down/test/image/2.jpg").unlink()
    os.mkfifo(tmp_path / "down/test/image/2.jpg")
    with pytest.raises(DataError, match=r"1 of 2 pairs .*2\.jpg cannot be read, or is no file"):
        add_set(packaged("gdd"), tmp_path / "down", tmp_path / "root", QUIET)
    added = add_set(packaged("gdd"), tmp_path / "down", tmp_path / "root", QUIET, skip=True)
    assert added.splits[0].pairs == 1


def test_what_a_killed_program_left_is_removed_by_the_next(tmp_path, pranet):
    root = tmp_path / "root"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from lpmoe_bench.files import staging\n"
        "with staging(Path(sys.argv[1]), 'adding', 'gdd') as folder:\n"
        "    (folder / 'half.png').write_bytes(b'half')\n"
        "    print(folder, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        add_set(packaged("pranet_polyp"), pranet, root, QUIET)
        assert (left / "half.png").is_file()  # somebody works in it
        other.kill()
    assert left.is_dir()
    put(tmp_path / "more", "TrainDataset/image", "TrainDataset/mask", "a")
    add_set(packaged("pranet_polyp"), tmp_path / "more", root, QUIET)
    assert [path.name for path in root.iterdir()] == ["pranet_polyp"]


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_an_add_that_was_killed_between_splits_ends_well_the_second_time(
    tmp_path, pranet, monkeypatch, killed_at
):
    root, polyp, moved = tmp_path / "root", packaged("pranet_polyp"), []
    install = add._install

    def die(draft, place):
        if len(moved) == killed_at:
            raise SystemExit
        moved.append(place.name)
        return install(draft, place)

    with monkeypatch.context() as patched:
        patched.setattr(add, "_install", die)
        if killed_at == 2:  # both are in place, and nobody was told
            patched.setattr(add, "_bring_table", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            add_set(polyp, pranet, root, QUIET)
    before = sorted(p.name for p in root.glob("pranet_polyp/*/SOURCE.txt"))
    assert len(before) == killed_at
    more = tmp_path / "more"
    put(more, "TestDataset/Kvasir/images", "TestDataset/Kvasir/masks", "9")
    if killed_at:  # another source is not taken for the one that was begun
        with pytest.raises(DataError, match="already"):
            add_set(polyp, more, root, QUIET)
    added = add_set(polyp, pranet, root, QUIET)
    assert (len(added.splits), added.aside) == (2, [])
    assert sorted(p.name for p in (root / "pranet_polyp").iterdir()) == [
        "test_cvc_300", "test_kvasir",
    ]  # fmt: skip
    with pytest.raises(DataError, match="already"):
        add_set(polyp, pranet, root, QUIET)


def test_a_folder_that_is_not_locked_yet_is_left_alone(tmp_path):
    new, old = tmp_path / ".adding-gdd-new", tmp_path / ".adding-gdd-old"
    for folder in (new, old):
        folder.mkdir()
    os.utime(old, (0, 0))
    with staging(tmp_path, ADDING, "gdd") as folder:
        assert new.is_dir()
        assert not old.exists()
    assert not folder.exists()


# Masks of classes, colours and transparency, converted as a set is taken in.


def test_class_numbers_become_object_and_background(tmp_path):
    classes = np.zeros((12, 16), np.uint8)
    classes[2:5], classes[5:8] = 1, 11
    for split in ("train", "validation", "test"):
        put(tmp_path / "down", f"Trans10K_v2/{split}/images", f"Trans10K_v2/{split}/masks_12",
            "1", tail="_mask", mask=classes)  # fmt: skip
    added = add_set(packaged("trans10k_v2"), tmp_path / "down", tmp_path / "root", QUIET)
    assert [one.label.partition("/")[2] for one in added.splits] == ["train", "val", "test"]
    mask = read_mask(tmp_path / "root/trans10k_v2/val/masks/1.png")
    assert np.array_equal(mask, (classes > 0).astype(np.uint8) * 255)


def test_coloured_classes_become_one(tmp_path):
    colours = np.zeros((12, 16, 3), np.uint8)
    colours[2:5, :, 0], colours[5:8] = 255, 255  # red things, white stuff
    put(tmp_path / "down", "train/images", "train/masks", "1", mask=colours)
    for part in ("easy", "hard"):
        place = f"Trans10K/test/{part}"
        put(tmp_path / "down", f"{place}/images", f"{place}/masks", part, tail="_mask",
            mask=colours)  # fmt: skip
    added = add_set(packaged("trans10k"), tmp_path / "down", tmp_path / "root", QUIET)
    assert {one.label: one.pairs for one in added.splits} == {"trans10k/train": 1,
                                                              "trans10k/test": 2}  # fmt: skip
    for path in ("train/masks/1.png", "test/masks/easy.png", "test/masks/hard.png"):
        mask = read_mask(tmp_path / "root/trans10k" / path)
        assert np.array_equal(mask, (colours.max(axis=2) > 0).astype(np.uint8) * 255)


def test_one_colour_of_several_is_the_object(tmp_path):
    colours = np.zeros((12, 16, 3), np.uint8)
    colours[2:10, :, 1] = 176  # the leaf
    healthy = colours.copy()
    colours[5:8, 4:9] = (255, 0, 0)  # the symptom
    colours[8, 4:9] = (220, 30, 10)  # its edge, after resizing
    for split, mask in (("train", colours), ("val", healthy), ("test", square_mask((12, 16)))):
        put(tmp_path / "down", f"lara/dataset/images/{split}", f"lara/dataset/annotations/{split}",
            "1", tail="_mask", mask=mask)  # fmt: skip
    added = add_set(packaged("coffee_leaf"), tmp_path / "down", tmp_path / "root", QUIET)
    assert added.missing == []
    train, val, test = (
        read_mask(tmp_path / f"root/coffee_leaf/{split}/masks/1.png")
        for split in ("train", "val", "test")
    )
    assert np.array_equal(train > 0, colours[..., 0] > 127)
    assert not val.any()
    assert np.array_equal(test, square_mask((12, 16)))  # one that is grey stays as it is


def test_numbers_are_refused_with_the_way_out(tmp_path):
    put(tmp_path / "down", "train/image", "train/mask", "1", mask=square_mask((12, 16)) // 100)
    gdd, root = packaged("gdd"), tmp_path / "root"
    with pytest.raises(DataError, match=r"1 of 1 pairs of gdd/train are broken.*0 to 2 only"):
        add_set(gdd, tmp_path / "down", root, QUIET, skip=True)
    assert list(root.iterdir()) == []
    add_set(with_layout(gdd, None, None, None, "nonzero"), tmp_path / "down", root, QUIET)
    assert read_mask(root / "gdd/train/masks/1.png").max() == 255


def test_transparent_pixels_are_no_object(tmp_path):
    rgba = np.full((12, 16, 4), 255, np.uint8)
    rgba[:6, :, 3] = 0
    put(tmp_path / "down", "train/images", "train/masks", "1", mask=rgba)
    assert cv2.imread(str(tmp_path / "down/train/masks/1.png"), cv2.IMREAD_UNCHANGED).shape[2] == 4
    add_set(packaged("trans10k"), tmp_path / "down", tmp_path / "root", QUIET)
    mask = read_mask(tmp_path / "root/trans10k/train/masks/1.png")
    assert (mask[:6].max(), mask[6:].min()) == (0, 255)


def test_unions_and_values_become_plain_masks(tmp_path):
    source = tmp_path / "Dataset_BUSI_with_GT"
    half = square_mask((12, 16))
    half[:, 12:] = 0
    write(source / "benign/b (1).png", noise_image((12, 16, 3)))
    write(source / "benign/b (1)_mask.png", half)
    write(source / "benign/b (1)_mask_1.png", square_mask((12, 16)) - half)
    write(source / "malignant/m (1).png", noise_image((12, 16, 3), 1))
    write(source / "malignant/m (1)_mask.png", half)
    added = add_set(packaged("busi"), source, tmp_path / "data", QUIET)
    assert [one.label for one in added.splits] == ["busi/all", "busi/lesions"]
    mask = read_mask(tmp_path / "data/busi/all/masks/b (1).png")
    assert np.array_equal(mask, square_mask((12, 16)))
    assert [file.name for file in sorted((tmp_path / "data/busi/all/masks").iterdir())] == [
        "b (1).png", "m (1).png"
    ]  # fmt: skip


def test_matlab_masks_of_a_value_and_the_table_of_groups(tmp_path):
    source = tmp_path / "CrackForest"
    write(source / "image/001.jpg", noise_image((12, 16, 3)))
    (source / "groundTruth").mkdir()
    truth = {"Segmentation": 1 + (square_mask((12, 16)) > 0), "Boundaries": np.zeros((12, 16))}
    savemat(source / "groundTruth/001.mat", {"groundTruth": truth})
    add_set(packaged("crackforest"), source, tmp_path / "data", QUIET)
    mask = read_mask(tmp_path / "data/crackforest/all/masks/001.png")
    assert np.array_equal(mask, square_mask((12, 16)))
    glas = tmp_path / "Warwick"
    write(glas / "train_1.bmp", noise_image((12, 16, 3)))
    write(glas / "train_1_anno.bmp", square_mask((12, 16)) // 85)  # numbers of glands
    (glas / "Grade.csv").write_text("name,patient ID, grade (GlaS)\ntrain_1,4, benign\n")
    add_set(packaged("glas"), glas, tmp_path / "data", QUIET)
    assert known_groups(packaged("glas"), tmp_path / "data/glas", ["train_1"])[0] == {
        "train_1": "4"
    }


OBJECTS = """
tasks:
  pets: {title: Pets, kind: instance, train: [pets/train], test: [pets/test]}
datasets:
  pets:
    title: Pets
    task: pets
    labels: {format: coco, files: {train: train.json, test: test.json}}
    licence: mine
"""


@pytest.fixture
def pets(tmp_path):
    (tmp_path / "own.yaml").write_text(OBJECTS)
    return load_registry([tmp_path / "own.yaml"]).dataset("pets")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_set_of_objects_is_taken_as_it_lies(tmp_path, pets, kind):
    source = coco_set(tmp_path / "down" / "inner").parent  # a folder deeper
    if kind == "zip":
        source = zip_of(source, tmp_path / "pets.zip")
    added = add_set(pets, source, tmp_path / "root", QUIET)
    assert [(one.label, one.pairs) for one in added.splits] == [("pets/train", 3)]
    assert (added.place, added.missing) == (tmp_path / "root" / "pets", ["test"])
    split = open_split(pets, "train", tmp_path / "root")
    assert split is not None
    assert [pair.name for pair in split.pairs] == ["a", "b", "c"]
    said = (added.place / "SOURCE.txt").read_text()
    assert f"Taken from {source.name}" in said
    assert "Licence: mine" in said
    assert (tmp_path / "down" / "inner" / "train.json").exists()  # copied, not moved
    assert not [*(tmp_path / "root").glob(f".{ADDING}*")]
    with pytest.raises(DataError, match="is there already; --replace puts it aside"):
        add_set(pets, source, tmp_path / "root", QUIET)
    again = add_set(pets, source, tmp_path / "root", QUIET, replace=True)
    assert again.aside == [str(tmp_path / "root" / ".pets-replaced-1")]


def test_a_broken_file_of_objects_leaves_the_data_folder_as_it_was(tmp_path, pets):
    source = coco_set(tmp_path / "down")
    (source / "images" / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"pets is not taken: pets/train: .*b\.png"):
        add_set(pets, source, tmp_path / "root", QUIET)
    assert not [*(tmp_path / "root").iterdir()]


def test_what_sets_of_objects_do_not_take_is_told(tmp_path, pets):
    source = coco_set(tmp_path / "down")
    with pytest.raises(UsageError, match="--skip-broken leaves none of them out"):
        add_set(pets, source, tmp_path / "root", QUIET, skip=True)
    with pytest.raises(UsageError, match="leave --as-split out"):
        with_layout(pets, "train", "images", "masks", "")
    (source / "train.json").rename(source / "other.json")
    with pytest.raises(DataError, match=r"looked for images \+ train.json"):
        add_set(pets, source, tmp_path / "root", QUIET)
