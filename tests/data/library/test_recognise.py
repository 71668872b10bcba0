"""Layouts recognised in what a user downloaded, or a sentence that says what to do."""

from pathlib import Path

import pytest
from downloads import QUIET, make_pranet, packaged, put, zip_of

from lpmoe_bench.data.library.add import add_set, with_layout
from lpmoe_bench.data.library.recognise import recognise
from lpmoe_bench.data.registry import Dataset
from lpmoe_bench.data.tasks import open_split
from lpmoe_bench.errors import DataError, UsageError


def test_case_and_depth_do_not_matter(tmp_path):
    put(tmp_path / "a" / "b", "duts-te/DUTS-TE-IMAGE", "duts-te/duts-te-mask", "1")
    found = recognise(packaged("duts"), tmp_path)
    assert [pair.name for pair in found["test"]] == ["1"]


def test_obvious_folders_are_enough(tmp_path):
    put(tmp_path, "set/training/Imgs", "set/training/GT", "1")
    put(tmp_path, "set/testing/Imgs", "set/testing/GT", "2", "3")
    found = recognise(packaged("gdd"), tmp_path)
    assert {split: len(pairs) for split, pairs in found.items()} == {"train": 1, "test": 2}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_is_given_may_be_the_first_folder_of_the_layout(tmp_path, kind, monkeypatch):
    put(tmp_path / "testdataset", "CAMO/Imgs", "CAMO/GT", "1")
    put(tmp_path / "TrainValDataset", "Imgs", "GT", "2")  # a neighbour that was not given
    source, sinet = Path(), packaged("sinet_cod")
    monkeypatch.chdir(tmp_path / "testdataset")
    if kind == "zip":
        source = zip_of(tmp_path / "testdataset", tmp_path / "TestDataset.zip")
    added = add_set(sinet, source, tmp_path / "root", QUIET)
    assert [one.label for one in added.splits] == ["sinet_cod/test_camo"]


def test_folders_of_a_users_own_names(tmp_path):
    put(tmp_path / "down" / "deeper", "my photos", "wahrheit", "1", "2")
    facts = {"name": "mine", "title": "Mine", "task": "cod"}
    mine = Dataset.model_validate(facts | {"images": "my photos", "masks": "wahrheit"})
    added = add_set(mine, tmp_path / "down", tmp_path / "root", QUIET)
    assert [(one.label, one.pairs) for one in added.splits] == [("mine/all", 2)]
    assert open_split(mine, "all", tmp_path / "root") is not None


def test_splits_that_were_not_in_it_are_named(tmp_path):
    pranet = make_pranet(tmp_path / "down")
    root, polyp = tmp_path / "root", packaged("pranet_polyp")
    added = add_set(polyp, pranet, root, QUIET)
    assert added.missing == ["train", "test_cvc_clinicdb", "test_cvc_colondb", "test_etis"]
    assert "not found in it: train, test_cvc_clinicdb" in added.text
    put(tmp_path / "more", "TrainDataset/image", "TrainDataset/mask", "a")
    assert "train" not in add_set(polyp, tmp_path / "more", root, QUIET).missing


def test_errors_name_the_archive_not_the_folder_it_was_unpacked_to(tmp_path):
    put(tmp_path / "down", "train/image", "train/mask", "1")
    put(tmp_path / "down", "train/image", "other", "2")
    source = zip_of(tmp_path / "down", tmp_path / "gdd.zip")
    with pytest.raises(DataError, match=r"2 \(no mask\)") as caught:
        add_set(packaged("gdd"), source, tmp_path / "root", QUIET)
    assert "in train/image and train/mask" in str(caught.value)
    with pytest.raises(DataError, match=r"no split of ucf is recognised in gdd\.zip: looked for"):
        add_set(packaged("ucf"), source, tmp_path / "root", QUIET)


def test_two_places_are_not_guessed_between(tmp_path):
    for copy in ("a", "b"):
        put(tmp_path, f"{copy}/train/image", f"{copy}/train/mask", "1")
    with pytest.raises(DataError, match=r"gdd/train is found 2 times in .* \(a, b\); give one"):
        recognise(packaged("gdd"), tmp_path)


def test_what_is_not_recognised_says_what_to_do(tmp_path):
    put(tmp_path / "down", "left", "right", "1")
    gdd = packaged("gdd")
    with pytest.raises(DataError, match=r"looked for train/image \+ train/mask; .*found left, right"
                       r"; name them: --as-split NAME --images DIR --masks DIR"):  # fmt: skip
        add_set(gdd, tmp_path / "down", tmp_path / "root", QUIET)
    by_hand = with_layout(gdd, "test", "left", "right", "")
    added = add_set(by_hand, tmp_path / "down", tmp_path / "root", QUIET)
    assert added.splits[0].label == "gdd/test"
    assert open_split(gdd, "test", tmp_path / "root") is not None


def test_layouts_by_hand_that_are_wrong():
    gdd = packaged("gdd")
    with pytest.raises(UsageError, match="give all three or none"):
        with_layout(gdd, "test", "left", None, "")
    with pytest.raises(UsageError, match="unknown split of gdd 'tst'; did you mean 'test'"):
        with_layout(gdd, "tst", "left", "right", "")
    with pytest.raises(UsageError, match=r"'\.\./left' cannot be used here"):
        with_layout(gdd, "test", "../left", "right", "")
    with pytest.raises(UsageError, match=r"object is 'white'; it is a value.*such as #ff0000"):
        with_layout(gdd, None, None, None, "white")


def test_sources_that_are_none(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        add_set(packaged("gdd"), tmp_path / "none.zip", tmp_path / "root", QUIET)
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match="neither a folder nor a zip or tar archive"):
        add_set(packaged("gdd"), tmp_path / "a.rar", tmp_path / "root", QUIET)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "train.zip").write_bytes(b"PK")
    (inner / "readme.txt").write_text("unpack both")
    with pytest.raises(DataError, match=r"holds archives \(train\.zip\)"):
        add_set(packaged("gdd"), zip_of(inner, tmp_path / "b.zip"), tmp_path / "root", QUIET)
