"""Layouts seen in the wild, read in place, and folders of names that only nearly match."""

from pathlib import Path

import pytest
from drawn_files import fill, noise_image, square_mask, write

from lpmoe_bench.data.pairs import find_pairs, split_pairs, table_pairs
from lpmoe_bench.data.registry import Dataset, load_registry
from lpmoe_bench.errors import DataError


def put(folder: Path, images: str, masks: str, names: list[str], ending=".png", tail="") -> None:
    for name in names:
        write(folder / images / f"{name}.jpg", noise_image((6, 8, 3)))
        write(folder / masks / f"{name}{tail}{ending}", square_mask((6, 8)))


def named(pairs) -> list[str]:
    assert pairs is not None
    return [pair.name for pair in pairs]


def packaged(name: str) -> Dataset:
    return load_registry().dataset(name)


# --- patterns


def test_a_suffix_of_masks_is_no_part_of_the_name(tmp_path):
    put(tmp_path, "in", "gt", ["ISIC_1", "ISIC_2"], tail="_segmentation")
    write(tmp_path / "in/ISIC_1_superpixels.png", noise_image((6, 8, 3)))
    (tmp_path / "in/ATTRIBUTION.txt").write_text("thanks")
    pairs = find_pairs(tmp_path / "in/*.jpg", tmp_path / "gt/*_segmentation.png")
    assert named(pairs) == ["ISIC_1", "ISIC_2"]
    assert pairs[0].mask.name == "ISIC_1_segmentation.png"
    with pytest.raises(DataError, match=r"holds no files \*_Mask"):
        find_pairs(tmp_path / "in/*.jpg", tmp_path / "gt/*_Mask")


def test_images_and_masks_in_one_folder(tmp_path):
    put(tmp_path, "Imgs", "Imgs", ["1", "2"])
    assert named(find_pairs(tmp_path / "Imgs/*.jpg", tmp_path / "Imgs/*.png")) == ["1", "2"]
    with pytest.raises(DataError, match=r"2 names .* belong to two files"):
        find_pairs(tmp_path / "Imgs", tmp_path / "Imgs")


def test_a_beginning_selects_and_stays_in_the_name(tmp_path):
    put(tmp_path, "Train/Image", "Train/GT_Object", ["COD10K-CAM-1-a", "COD10K-NonCAM-2-b"])
    assert named(split_pairs(packaged("cod10k"), tmp_path, "train")) == ["COD10K-CAM-1-a"]


# --- layouts of the registry


@pytest.mark.parametrize(
    ("name", "split", "images", "masks", "tail", "ending"),
    [
        ("sinet_cod", "test_camo", "TestDataset/CAMO/Imgs", "TestDataset/CAMO/GT", "", ".png"),
        ("sinet_cod", "train", "TrainDataset/Imgs", "TrainDataset/GT", "", ".png"),
        ("pranet_polyp", "train", "TrainDataset/image", "TrainDataset/mask", "", ".png"),
        ("pranet_polyp", "test_etis", "TestDataset/ETIS-LaribPolypDB/images",
         "TestDataset/ETIS-LaribPolypDB/masks", "", ".png"),
        ("duts", "test", "DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask", "", ".png"),
        ("sbu", "train", "SBUTrain4KRecoveredSmall/ShadowImages",
         "SBUTrain4KRecoveredSmall/ShadowMasks", "", ".png"),
        ("isic2018", "val", "ISIC2018_Task1-2_Validation_Input",
         "ISIC2018_Task1_Validation_GroundTruth", "_segmentation", ".png"),
        ("isic2016", "test", "ISBI2016_ISIC_Part1_Test_Data",
         "ISBI2016_ISIC_Part1_Test_GroundTruth", "_Segmentation", ".png"),
        ("gdd", "train", "train/image", "train/mask", "", ".png"),
        ("massachusetts_roads", "val", "valid/sat", "valid/map", "", ".tif"),
        ("msra10k", "all", "Imgs", "Imgs", "", ".png"),
        ("ecssd", "all", "images", "ground_truth_mask", "", ".png"),
    ],
)  # fmt: skip
def test_layouts_seen_in_the_wild(tmp_path, name, split, images, masks, tail, ending):
    put(tmp_path, images, masks, ["a", "b"], ending, tail)
    dataset = packaged(name)
    assert named(split_pairs(dataset, tmp_path, split)) == ["a", "b"]
    others = [s for s in dataset.split_names if s != split and s not in dataset.splits]
    assert [split_pairs(dataset, tmp_path, other) for other in others] == [None] * len(others)


def test_one_folder_of_masks_for_train_and_test(tmp_path):
    put(tmp_path, "Images/Train", "GT", ["a", "b"])
    put(tmp_path, "Images/Test", "GT", ["c"])
    camo = packaged("camo")
    assert named(split_pairs(camo, tmp_path, "train")) == ["a", "b"]
    assert named(split_pairs(camo, tmp_path, "test")) == ["c"]
    (tmp_path / "GT/c.png").unlink()
    with pytest.raises(DataError, match=r"c \(no mask\)"):
        split_pairs(camo, tmp_path, "test")


def test_a_split_of_two_parts(tmp_path):
    for part, names in (("easy", ["3", "1"]), ("hard", ["2"])):
        put(tmp_path, f"test/{part}/images", f"test/{part}/masks", names)
    assert named(split_pairs(packaged("trans10k"), tmp_path, "test")) == ["1", "2", "3"]
    put(tmp_path, "test/hard/images", "test/hard/masks", ["1"])
    with pytest.raises(DataError, match=r"1 names stand twice in .*: 1$"):
        split_pairs(packaged("trans10k"), tmp_path, "test")


def test_masks_with_a_suffix_go_before_masks_without(tmp_path):
    v2 = packaged("trans10k_v2")
    put(tmp_path, "test/images", "test/masks_12", ["1"])
    put(tmp_path, "train/images", "train/masks_12", ["1"], tail="_mask")
    assert named(split_pairs(v2, tmp_path, "test")) == ["1"]
    assert named(split_pairs(v2, tmp_path, "train")) == ["1"]


def test_what_add_wrote_goes_before_other_layouts(tmp_path):
    put(tmp_path, "test/images", "test/masks", ["new"])
    (tmp_path / "test/SOURCE.txt").write_text("added")
    fill(tmp_path, ("test.txt", ["old"]), ("train.txt", ["old2"]))
    camo = packaged("camo")
    assert named(split_pairs(camo, tmp_path, "test")) == ["new"]
    assert named(split_pairs(camo, tmp_path, "train")) == ["old2"]


def test_a_table_goes_before_folders_that_nobody_added(tmp_path):
    put(tmp_path, "train/images", "train/masks", ["a", "b"])
    leaf = packaged("conv_lora_leaf")
    assert named(split_pairs(leaf, tmp_path, "train")) == ["a", "b"]
    (tmp_path / "train.csv").write_text("image,label\ntrain/images/a.jpg,train/masks/a.png\n")
    assert named(split_pairs(leaf, tmp_path, "train")) == ["a"]


def test_a_split_that_was_not_added_is_missing_not_broken(tmp_path):
    put(tmp_path, "test/images", "test/masks", ["new"])
    assert split_pairs(packaged("camo"), tmp_path, "train") is None


# --- tables


def table(tmp_path, text: str) -> Path:
    put(tmp_path, "train/images", "train/masks", ["a", "b"])
    path = tmp_path / "train.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_tables_of_autogluon(tmp_path):
    path = table(
        tmp_path,
        ",image,label\n0,train/images/b.jpg,train/masks/b.png\n"
        "1,train\\images\\a.jpg,train/masks/a.png\n",
    )
    assert named(split_pairs(packaged("conv_lora_leaf"), tmp_path, "train")) == ["a", "b"]
    assert all(pair.mask.is_file() for pair in table_pairs(path))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must have rows with the columns image and label"),
        ("image,mask\na,b\n", "must have rows with the columns image and label"),
        ("image,label\n../x.jpg,train/masks/a.png\n", "lies outside the table's folder"),
        ("image,label\ntrain/\0a.jpg,train/masks/a.png\n", "lies outside the table's folder"),
        ("image,label\n" + "x" * 5000 + ",train/masks/a.png\n", "1 files .* are not there"),
        ("image,label\n/etc/passwd,train/masks/a.png\n", "lies outside the table's folder"),
        ("image,label\ntrain/images/a.jpg,train/masks/x.png\n", "1 files .* are not there"),
        ("image,label\n" + "train/images/a.jpg,train/masks/a.png\n" * 2, "1 names stand twice"),
    ],
)
def test_broken_and_hostile_tables(tmp_path, text, sentence):
    with pytest.raises(DataError, match=sentence):
        table_pairs(table(tmp_path, text))


def test_names_with_spaces_and_accents(tmp_path):
    put(tmp_path, "my images", "my masks", ["größe 1", "猫"])
    pairs = find_pairs(tmp_path / "my images", tmp_path / "my masks")
    assert named(pairs) == ["größe 1", "猫"]
    assert pairs[0].image.read_bytes().startswith(b"\xff\xd8")
