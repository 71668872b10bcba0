"""Masks of classes, colours and transparency, converted as a set is taken in."""

import cv2
import numpy as np
import pytest
from downloads import QUIET, packaged, put
from drawn_files import square_mask

from lpmoe_bench.data.images import read_mask
from lpmoe_bench.data.library.add import add_set, with_layout
from lpmoe_bench.errors import DataError


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


# --- what a killed program leaves
