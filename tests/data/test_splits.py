"""Digests that follow content alone, and the check that finds every broken file before training."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_files import fill, write

from lpmoe_bench.data.pairs import find_pairs
from lpmoe_bench.data.scenes.generate import ensure_generated
from lpmoe_bench.data.splits import Split, check_pairs, make_split
from lpmoe_bench.errors import DataError


def opened(folder: Path, generated=False) -> Split:
    pairs = find_pairs(folder / "images", folder / "masks")
    return make_split(Split("mine", "", (), "", generated=generated), "all", pairs)


# --- digests

ABC = ("all.txt", ["a", "b", "c"])


def test_digest_follows_content_not_place_order_or_dates(tmp_path):
    first = opened(fill(tmp_path / "one", ABC))
    other = fill(tmp_path / "two", ("all.txt", ["c", "b", "a"]))
    os.utime(other / "images/a.jpg", (0, 0))
    assert opened(other).digest == first.digest
    assert make_split(first, "other", first.pairs[::-1]).digest == first.digest
    assert len(first.digest) == 64


@pytest.mark.parametrize("kind", ["images/a.jpg", "masks/a.png"])
def test_digest_sees_one_changed_file(tmp_path, kind):
    first = opened(fill(tmp_path, ABC)).digest
    pixels = cv2.imread(str(tmp_path / kind), cv2.IMREAD_UNCHANGED)
    pixels[0, 0] = 255
    write(tmp_path / kind, pixels)
    assert opened(tmp_path).digest != first


def test_digest_sees_names_and_which_pairs(tmp_path):
    split = opened(fill(tmp_path, ABC))
    digests = {make_split(split, "part", split.pairs[:n]).digest for n in range(4)}
    (tmp_path / "images/a.jpg").rename(tmp_path / "images/d.jpg")
    (tmp_path / "masks/a.png").rename(tmp_path / "masks/d.png")
    assert len(digests | {opened(tmp_path).digest}) == 5


def test_digest_of_a_drawn_set_is_of_pixels(tmp_path):
    counts = {"train": 2}
    folder = ensure_generated("generated_cod", tmp_path, counts=counts, shape=(48, 64))
    first = opened(folder, generated=True)
    path = first.pairs[0].image
    pixels = cv2.imread(str(path))
    path.write_bytes(cv2.imencode(".png", pixels, (cv2.IMWRITE_PNG_COMPRESSION, 0))[1].tobytes())
    assert opened(folder, generated=True).digest == first.digest
    assert opened(folder).digest != first.digest  # by bytes
    pixels[0, 0, 0] ^= 1
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    assert opened(folder, generated=True).digest != first.digest


def test_a_file_that_goes_missing_is_a_sentence(tmp_path):
    split = opened(fill(tmp_path, ABC))
    split.pairs[1].mask.unlink()
    with pytest.raises(DataError, match=r"b\.png cannot be read"):
        make_split(split, "all", split.pairs)


# --- the check before training


def test_whole_files_pass(tmp_path):
    told = []
    split = opened(fill(tmp_path, ("all.txt", ["a", "b", "c"])))
    assert check_pairs(split, lambda done, total: told.append((done, total))) == []
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_all_broken_files_are_reported_at_once(tmp_path):
    folder = fill(tmp_path, ("all.txt", [f"n{i:02d}" for i in range(20)]))
    split = opened(folder)
    (folder / "images/n01.jpg").write_bytes(b"")
    (folder / "masks/n01.png").write_bytes(b"nonsense")
    (folder / "images/n05.jpg").write_bytes((folder / "images/n05.jpg").read_bytes()[:-50])
    (folder / "masks/n09.png").unlink()
    write(folder / "masks/n12.png", np.zeros((20, 31), np.uint8))
    with pytest.raises(DataError) as caught:
        check_pairs(split)
    text = str(caught.value)
    assert text.startswith("5 problems in the 20 pairs of mine/all: ")
    for words in ("n01.jpg is empty", "n01.png cannot be decoded", "n05.jpg is truncated",
                  "n09.png does not exist", "n12.png is 31 x 20"):  # fmt: skip
        assert words in text
    for index in range(20):
        (folder / f"images/n{index:02d}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="; and 12 more"):
        check_pairs(split)


def test_unusual_masks_are_noted_once_each(tmp_path):
    folder = fill(tmp_path, ("all.txt", list("abcdef")))
    split = opened(folder)
    mask = np.zeros((20, 30), np.uint8)
    write(folder / "masks/b.png", mask)
    mask[3:9, 3:9] = 1
    write(folder / "masks/c.png", mask)
    write(folder / "masks/d.png", mask)
    write(folder / "masks/e.png", mask * 200)
    assert check_pairs(split) == [
        "1 of 6 masks of mine/all hold grey levels; values above 128 count as object (such as e)",
        "2 of 6 masks of mine/all hold only 0 and 1; 1 counts as object (such as c)",
        "1 of 6 masks of mine/all are empty (such as b)",
    ]
