"""What may share a table: records that differ in anything that decides a score never do."""

import re

import pytest
from records import content, record

from lpmoe_bench.tables.table import build_table


def changed(path, value):
    """A record of another method that differs in one field of its content."""
    other = content("vpt")
    *parents, leaf = path
    place = other
    for key in parents:
        place = place[key]
    place[leaf] = value
    return record("vpt", **{path[0]: other[path[0]]})


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("task",), "polyp", None),
        (("data", "tests", 0, "digest"), "33" * 32, r"test digest \(\w{8}, 33333333\)"),
        (("data", "train", "digest"), "33" * 32, "train digest"),
        (("data", "train", "label"), "other", "train set"),
        (("protocol", "hash"), "33" * 32, "protocol hash"),
        (("backbone", "name"), "large", "backbone"),
        (("backbone", "weights_sha256"), "33" * 32, "backbone weights"),
        (("decoder", "name"), "linear", r"decoder \(fpn \(width 64\), linear \(width 64\)\)"),
        (("decoder", "options"), {"width": 32}, r"decoder \(fpn \(width 32\), fpn \(width 64\)\)"),
        (("decoder", "options"), {}, r"decoder \(fpn \(width 64\), fpn\)"),
        (("config", "size"), 512, r"size \(256, 512\)"),
        (("config", "train", "epochs"), 4, "epochs"),
        (("config", "train", "batch"), 16, "batch"),
        (("config", "train", "limit_train"), 200, r"limit train \(200, all\)"),
        (("config", "train", "loss"), "bce", "loss"),
    ],
)
def test_records_that_are_not_comparable_never_share_a_table(path, value, word):
    table = build_table([record("lora"), changed(path, value)])
    assert [len(group.rows) for group in table.groups] == [1, 1]
    if word:
        assert re.search(rf"^CAMO: 2 tables.* {word}", table.notes[0])


@pytest.mark.parametrize("path", [("config", "label"), ("config", "runtime", "device"), ("label",)])
def test_what_changes_no_result_changes_no_table(path):
    (group,) = build_table([record("lora"), changed(path, "other")]).groups
    assert len(group.rows) == 2
    assert not [line for line in group.footer if "other" in line]


def test_a_limit_beyond_the_set_is_no_part_of_it():
    for limit, words in ((150, "CAMO-train (150 of 996 images"), (5000, "CAMO-train (996 images")):
        (group,) = build_table([record(train={"limit_train": limit})]).groups
        assert words in group.caption
