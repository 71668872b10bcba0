"""Pairs of image and mask, by each layout of folders."""

import gc
import os
import sys
from pathlib import Path

import pytest
from downloads import packaged, put
from drawn_files import fill, make_pairs, noise_image, square_mask, write

from lpmoe_bench.data.pairs import Pair, find_pairs, read_names, read_pair, split_pairs, table_pairs
from lpmoe_bench.errors import DataError


def test_pairs_match_by_stem_whatever_the_suffix(tmp_path):
    write(tmp_path / "i" / "a.JPG", noise_image())
    write(tmp_path / "i" / "b.1.png", noise_image())
    write(tmp_path / "m" / "a.png", square_mask())
    write(tmp_path / "m" / "b.1.BMP", square_mask())
    (tmp_path / "i" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "i" / "._a.jpg").write_bytes(b"x")
    pairs = find_pairs(tmp_path / "i", tmp_path / "m")
    assert [(p.name, p.image.name, p.mask.name) for p in pairs] == [
        ("a", "a.JPG", "a.png"),
        ("b.1", "b.1.png", "b.1.BMP"),
    ]


def test_accents_match_in_both_spellings(tmp_path):
    write(tmp_path / "i" / "caf\u00e9.png", noise_image())
    write(tmp_path / "m" / "cafe\u0301.png", square_mask())
    assert len(find_pairs(tmp_path / "i", tmp_path / "m", ["cafe\u0301"])) == 1


def test_names_without_a_partner_are_all_counted_and_ten_shown(tmp_path):
    make_pairs(tmp_path)
    for index in range(12):
        write(tmp_path / "images" / f"q{index:02d}.png", noise_image())
    write(tmp_path / "masks" / "z.png", square_mask())
    with pytest.raises(DataError) as caught:
        find_pairs(tmp_path / "images", tmp_path / "masks")
    text = str(caught.value)
    assert "13 of 19 names" in text
    assert "q00 (no mask)" in text
    assert "q09 (no mask), and 3 more" in text
    assert "q10" not in text


def test_list_that_names_files_that_are_not_there(tmp_path):
    make_pairs(tmp_path)
    (tmp_path / "masks" / "p1.png").unlink()
    with pytest.raises(DataError, match=r"2 of 3 .*p1 \(no mask\), x \(no image or mask\)"):
        find_pairs(tmp_path / "images", tmp_path / "masks", ["p0", "p1", "x"])


def test_two_files_of_one_name_and_folders_without_images(tmp_path):
    make_pairs(tmp_path)
    write(tmp_path / "images" / "p1.jpg", noise_image())
    with pytest.raises(DataError, match=r"p1\.jpg and p1\.png"):
        find_pairs(tmp_path / "images", tmp_path / "masks")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image files"):
        find_pairs(tmp_path / "empty", tmp_path / "masks")
    with pytest.raises(DataError, match="nowhere cannot be opened"):
        find_pairs(tmp_path / "nowhere", tmp_path / "masks")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "empty"), (b"\n \n", "empty"), (b"a\nb\na\n", "twice: a"), (b"\xff\xfe\0", "UTF-8")],
)
def test_broken_lists(tmp_path, content, sentence):
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_names(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_names(tmp_path / "none.txt")


def test_lists_may_come_from_windows(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffx y\r\nz\r\n".encode())
    assert read_names(tmp_path / "a.txt") == ["x y", "z"]


def test_image_and_mask_of_different_sizes(tmp_path):
    image = write(tmp_path / "i.png", noise_image())
    mask = write(tmp_path / "m.png", square_mask((30, 41)))
    with pytest.raises(DataError, match=r"i\.png is 40 x 30 .*m\.png is 41 x 30"):
        read_pair(Pair("a", image, mask))


@pytest.mark.parametrize(
    "stem", ["mit Leerzeichen", "zwei\nZeilen", "兎 “é”", " vorn", "a,b;c'\"", "%s{0}*?[x]"]
)
def test_names_of_any_kind(tmp_path, stem):
    write(tmp_path / "bilder 兎/images" / f"{stem}.png", noise_image())
    write(tmp_path / "bilder 兎/masks" / f"{stem}.png", square_mask())
    (pair,) = find_pairs(tmp_path / "bilder 兎/images", tmp_path / "bilder 兎/masks")
    assert pair.name == stem
    assert read_pair(pair)[0].shape == (30, 40, 3)


def test_files_and_folders_may_be_links(tmp_path):
    make_pairs(tmp_path / "real", 2)
    (tmp_path / "images").symlink_to(tmp_path / "real/images")
    (tmp_path / "masks").mkdir()
    for name in ("p0.png", "p1.png"):
        (tmp_path / "masks" / name).symlink_to(tmp_path / "real/masks" / name)
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    assert [read_pair(pair)[1].any() for pair in pairs] == [True, True]
    (tmp_path / "real/masks/p1.png").unlink()
    with pytest.raises(DataError, match=r"masks/p1\.png does not exist"):
        read_pair(pairs[1])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, names are text always")
def test_names_of_another_encoding_are_refused(tmp_path):
    make_pairs(tmp_path, 1)
    name = os.fsencode(tmp_path / "images") + b"/h\xe4schen.png"  # Latin-1
    os.rename(tmp_path / "images/p0.png", name)
    with pytest.raises(DataError, match=r"1 names in .*images are no UTF-8 text: 'h\\udce4schen"):
        find_pairs(tmp_path / "images", tmp_path / "masks")


def test_the_search_for_cycles_goes_on_afterwards(tmp_path):
    with pytest.raises(DataError):
        find_pairs(tmp_path / "none", tmp_path)
    assert gc.isenabled()
    gc.disable()
    try:
        make_pairs(tmp_path, 1)
        assert not gc.isenabled()  # whoever switched it off has reasons
    finally:
        gc.enable()


# Layouts seen in the wild, read in place, and folders of names that only nearly match.


def named(pairs) -> list[str]:
    assert pairs is not None
    return [pair.name for pair in pairs]


# --- patterns


def test_a_suffix_of_masks_is_no_part_of_the_name(tmp_path):
    put(tmp_path, "in", "gt", "ISIC_1", "ISIC_2", tail="_segmentation")
    write(tmp_path / "in/ISIC_1_superpixels.png", noise_image((6, 8, 3)))
    (tmp_path / "in/ATTRIBUTION.txt").write_text("thanks")
    pairs = find_pairs(tmp_path / "in/*.jpg", tmp_path / "gt/*_segmentation.png")
    assert named(pairs) == ["ISIC_1", "ISIC_2"]
    assert pairs[0].mask.name == "ISIC_1_segmentation.png"
    with pytest.raises(DataError, match=r"holds no files \*_Mask"):
        find_pairs(tmp_path / "in/*.jpg", tmp_path / "gt/*_Mask")


def test_images_and_masks_in_one_folder(tmp_path):
    put(tmp_path, "Imgs", "Imgs", "1", "2")
    assert named(find_pairs(tmp_path / "Imgs/*.jpg", tmp_path / "Imgs/*.png")) == ["1", "2"]
    with pytest.raises(DataError, match=r"2 names .* belong to two files"):
        find_pairs(tmp_path / "Imgs", tmp_path / "Imgs")


def test_a_beginning_selects_and_stays_in_the_name(tmp_path):
    put(tmp_path, "Train/Image", "Train/GT_Object", "COD10K-CAM-1-a", "COD10K-NonCAM-2-b")
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
        ("dis5k", "test_te4", "DIS-TE4/im", "DIS-TE4/gt", "", ".png"),
        ("crack500", "val", "valcrop/valcrop", "valcrop/valcrop", "", ".png"),
        ("deepcrack", "train", "train_img", "train_lab", "", ".png"),
        ("whu_building", "val", "val/image", "val/label", "", ".tif"),
        ("cuhk_defocus", "train", "train/images", "train/masks", "", ".png"),
        ("chameleon", "test", "CHAMELEON/Imgs", "CHAMELEON/GT", "", ".png"),
        ("sun_seg", "test_easy_seen", "TestEasyDataset/Seen/Frame", "TestEasyDataset/Seen/GT", "",
         ".png"),
    ],
)  # fmt: skip
def test_layouts_seen_in_the_wild(tmp_path, name, split, images, masks, tail, ending):
    put(tmp_path, images, masks, "a", "b", tail=tail, ending=ending)
    dataset = packaged(name)
    assert named(split_pairs(dataset, tmp_path, split)) == ["a", "b"]
    others = [s for s in dataset.split_names if s != split and s not in dataset.splits]
    assert [split_pairs(dataset, tmp_path, other) for other in others] == [None] * len(others)


@pytest.mark.parametrize(
    ("name", "split", "files", "names"),
    [
        ("glas", "test_a", ["testA_1.bmp", "testA_1_anno.bmp", "testB_1.bmp", "train_1.bmp"],
         ["testA_1"]),
        ("drive", "train", ["training/images/21_training.tif", "training/1st_manual/21_manual1.gif",
                            "training/mask/21_training_mask.gif"], ["21"]),
        ("deepglobe_roads", "train", ["train/1_sat.jpg", "train/1_mask.png"], ["1"]),
        ("busi", "lesions", ["benign/benign (1).png", "benign/benign (1)_mask.png",
                             "malignant/malignant (1).png", "malignant/malignant (1)_mask.png",
                             "malignant/malignant (1)_mask_1.png", "normal/normal (1).png",
                             "normal/normal (1)_mask.png"], ["benign (1)", "malignant (1)"]),
        ("crackforest", "all", ["image/001.jpg", "groundTruth/001.mat"], ["001"]),
        ("cuhk_defocus", "all", ["image/out_of_focus0001.jpg", "gt/out_of_focus0001.png",
                                 "image/motion0001.jpg", "gt/motion0001.png"],
         ["out_of_focus0001"]),
    ],
)  # fmt: skip
def test_names_seen_in_the_wild(tmp_path, name, split, files, names):
    for file in files:  # names alone are read here
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert named(split_pairs(packaged(name), tmp_path, split)) == names


def test_one_folder_of_masks_for_train_and_test(tmp_path):
    put(tmp_path, "Images/Train", "GT", "a", "b")
    put(tmp_path, "Images/Test", "GT", "c")
    camo = packaged("camo")
    assert named(split_pairs(camo, tmp_path, "train")) == ["a", "b"]
    assert named(split_pairs(camo, tmp_path, "test")) == ["c"]
    (tmp_path / "GT/c.png").unlink()
    with pytest.raises(DataError, match=r"c \(no mask\)"):
        split_pairs(camo, tmp_path, "test")


def test_a_split_of_two_parts(tmp_path):
    for part, names in (("easy", ["3", "1"]), ("hard", ["2"])):
        put(tmp_path, f"test/{part}/images", f"test/{part}/masks", *names)
    assert named(split_pairs(packaged("trans10k"), tmp_path, "test")) == ["1", "2", "3"]
    put(tmp_path, "test/hard/images", "test/hard/masks", "1")
    with pytest.raises(DataError, match=r"1 names stand twice in .*: 1$"):
        split_pairs(packaged("trans10k"), tmp_path, "test")


def test_masks_with_a_suffix_go_before_masks_without(tmp_path):
    v2 = packaged("trans10k_v2")
    put(tmp_path, "test/images", "test/masks_12", "1")
    put(tmp_path, "train/images", "train/masks_12", "1", tail="_mask")
    assert named(split_pairs(v2, tmp_path, "test")) == ["1"]
    assert named(split_pairs(v2, tmp_path, "train")) == ["1"]


def test_what_add_wrote_goes_before_other_layouts(tmp_path):
    put(tmp_path, "test/images", "test/masks", "new")
    assert split_pairs(packaged("camo"), tmp_path, "train") is None  # missing, not broken
    (tmp_path / "test/SOURCE.txt").write_text("added")
    fill(tmp_path, ("test.txt", ["old"]), ("train.txt", ["old2"]))
    camo = packaged("camo")
    assert named(split_pairs(camo, tmp_path, "test")) == ["new"]
    assert named(split_pairs(camo, tmp_path, "train")) == ["old2"]


def test_a_table_goes_before_folders_that_nobody_added(tmp_path):
    put(tmp_path, "train/images", "train/masks", "a", "b")
    leaf = packaged("conv_lora_leaf")
    assert named(split_pairs(leaf, tmp_path, "train")) == ["a", "b"]
    (tmp_path / "train.csv").write_text("image,label\ntrain/images/a.jpg,train/masks/a.png\n")
    assert named(split_pairs(leaf, tmp_path, "train")) == ["a"]


# --- tables


def table(tmp_path, text: str) -> Path:
    put(tmp_path, "train/images", "train/masks", "a", "b")
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
