"""Names: which image belongs to which mask, and what is said when they do not match."""

import gc
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_files import make_pairs, noise_image, square_mask, write

from lpmoe_bench.data.pairs import Pair, find_pairs, read_pair, read_stems
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
        read_stems(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_stems(tmp_path / "none.txt")


def test_lists_may_come_from_windows(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffx y\r\nz\r\n".encode())
    assert read_stems(tmp_path / "a.txt") == ["x y", "z"]


def test_image_and_mask_of_different_sizes(tmp_path):
    image = write(tmp_path / "i.png", noise_image())
    mask = write(tmp_path / "m.png", square_mask((30, 41)))
    with pytest.raises(DataError, match=r"i\.png is 40 x 30 .*m\.png is 41 x 30"):
        read_pair(Pair("a", image, mask))


@pytest.mark.data
def test_real_images_are_read_as_they_are(tmp_path):
    root = os.environ.get("LPMOE_BENCH_DATA")
    if not root or not (Path(root) / "camo").is_dir():
        pytest.skip("LPMOE_BENCH_DATA names no folder with camo")
    camo = Path(root) / "camo"
    stem = read_stems(camo / "test.txt")[0]
    (pair,) = find_pairs(camo / "images", camo / "masks", [stem])
    copy = Pair("ü", tmp_path / "ü ü.jpg", tmp_path / "ü ü.png")
    shutil.copy(pair.image, copy.image)
    shutil.copy(pair.mask, copy.mask)
    image, mask = read_pair(copy)
    assert np.array_equal(image, cv2.imread(str(pair.image))[..., ::-1])
    assert np.array_equal(mask, cv2.imread(str(pair.mask), cv2.IMREAD_GRAYSCALE))


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
