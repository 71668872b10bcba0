"""Scores on the clean subset: worked by hand, and refused where they would mean nothing."""

from __future__ import annotations

import json

import pytest
from audit_sets import lists, look, place, scene
from sample_records import record
from typer.testing import CliRunner

from lpmoe_bench.analysis.clean import clean_scores, clean_text
from lpmoe_bench.cli.app import app
from lpmoe_bench.data.audit.groups import Audit, AuditedSplit, Duplicate, SetGroups
from lpmoe_bench.records.store import StoredRecord, find_records, write_record

TRAIN, TEST = "camo/train", "camo/test"


def audit(**changes) -> Audit:
    twins = Duplicate(one="camo/b", one_splits=[TEST], other="camo/t", other_splits=[TRAIN],
                  kind="near", between=[(TRAIN, TEST)])  # fmt: skip
    inside = Duplicate(one="camo/a", one_splits=[TEST], other="camo/d", other_splits=[TEST],
                   kind="exact")  # fmt: skip
    splits = [
        AuditedSplit(label=TRAIN, role="train", images=9, digest="11" * 32),
        AuditedSplit(label=TEST, role="test", images=4, digest="22" * 32),
    ]
    return Audit(**({"splits": splits, "twins": [twins, inside]} | changes))


def split(label: str, digest: str) -> dict:
    return {"label": label, "digest": digest, "images": 4}


def stored(folder, **changes) -> list[StoredRecord]:
    data = {"train": split(TRAIN, "11" * 32), "tests": [split(TEST, "22" * 32)]}
    scores = {"s_measure": 0.5, "mae": 0.25, "iou_dataset": 12 / 20, "e_max": 0.9}
    made = record(**({"data": data} | changes)).model_copy(update={"scores": {TEST: scores}})
    rest = {"dataset": TEST, "fp": 1, "fn": 1, "tn": 9}
    rows = [
        rest | {"image": name, "s_measure": s, "mae": m, "tp": tp}
        for name, s, m, tp in (("a", 0.2, 0.4, 2), ("b", 0.8, 0.1, 6), ("c", 0.4, 0.3, 1),
                               ("d", 0.6, 0.2, 3))
    ]  # fmt: skip
    write_record(folder, made, rows)
    return find_records([folder]).stored


def test_by_hand(tmp_path):
    (one,) = clean_scores(stored(tmp_path / "run"), audit())
    assert (one.removed, one.grouped, one.images) == (["b"], 0, 4)
    assert one.official == pytest.approx({"s_measure": 0.5, "mae": 0.25, "iou_dataset": 12 / 20})
    assert one.clean == pytest.approx({"s_measure": 0.4, "mae": 0.3, "iou_dataset": 6 / 12})
    text = clean_text([one], {one.record: "cod"})
    assert "4 images; 3 without the 1 seen" in text
    assert "0.5000 -> 0.4000 (-0.1000)" in text
    assert "its validation part included" in text


def test_groups_that_training_has_seen(tmp_path):
    groups = SetGroups(dataset="camo", what="lesion", source="", count=1, images=2,
                       shared={"camo: lesion 1": {TRAIN: ["x"], TEST: ["c"]}})  # fmt: skip
    (one,) = clean_scores(stored(tmp_path / "run"), audit(groups=[groups]))
    assert (one.removed, one.grouped) == (["b", "c"], 1)
    assert one.clean["s_measure"] == pytest.approx(0.4)


def test_what_a_set_has_for_validation_was_seen_too(tmp_path):
    groups = SetGroups(dataset="camo", what="lesion", source="", count=1, images=2,
                       shared={"camo: lesion 1": {"camo/val": ["x"], TEST: ["c"]}})  # fmt: skip
    found = audit(groups=[groups])
    splits = [*found.splits, found.splits[0].model_copy(
        update={"label": "camo/val", "role": "validation", "digest": "55" * 32}
    )]  # fmt: skip
    found = found.model_copy(update={"splits": splits})
    data = {"train": split(TRAIN, "11" * 32), "tests": [split(TEST, "22" * 32)]}
    own = data | {"validation": split("camo/val", "55" * 32)}
    assert [
        clean_scores(stored(tmp_path / name, data=which), found)[0].removed
        for name, which in (("own", own), ("carved", data))
    ] == [["b", "c"], ["b"]]


@pytest.mark.parametrize(
    ("train", "test", "note"),
    [
        (split("ecssd/all", "11" * 32), "22", "its training set ecssd/all is not among those"),
        (split(TRAIN, "33" * 32), "22", "its training images are not those that were audited"),
        (split(TRAIN, "11" * 32), "44", "its test images are not those that were audited"),
    ],
)
def test_other_data_has_no_clean_score(tmp_path, train, test, note):
    data = {"train": train, "tests": [split(TEST, test * 32)]}
    (one,) = clean_scores(stored(tmp_path / "run", data=data), audit())
    assert note in one.note
    assert one.clean == {}
    assert note in clean_text([one], {one.record: "cod"})


def test_maps_of_unknown_origin_and_joined_training_sets(tmp_path):
    tests = [split(TEST, "22" * 32)]
    (maps,) = clean_scores(stored(tmp_path / "a", data={"tests": tests}), audit())
    assert (maps.removed, "is not known" in maps.note) == (["b"], True)
    joined = {"train": split("other+camo/train", "55" * 32), "tests": tests}
    (one,) = clean_scores(stored(tmp_path / "b", data=joined), audit())
    assert one.removed == ["b"]


def test_records_of_other_sets_and_without_rows(tmp_path):
    (one,) = stored(tmp_path / "run")
    assert clean_scores([one], audit(splits=[])) == []
    (tmp_path / "run/per_image.csv").unlink()
    (bare,) = clean_scores([one], audit())
    assert (bare.clean, bare.note) == ({}, "the record has no rows an image")


def test_the_command_prints_both_scores(tmp_path):
    for name, seed in (("t", 0), ("a", 0), ("b", 1)):
        place(tmp_path, "mine", name, scene(seed))
    audited = look(tmp_path, lists(tmp_path, "mine", train="t", test="a b"))
    train, test = (split(one.label, one.digest) | {"images": one.images} for one in audited.splits)
    scores = {"mine/test": {"s_measure": 0.5}}
    made = record(data={"train": train, "tests": [test]}).model_copy(update={"scores": scores})
    rows = [
        {"dataset": "mine/test", "image": k, "s_measure": s} for k, s in (("a", 0.2), ("b", 0.8))
    ]
    write_record(tmp_path / "runs/one", made, rows)
    own = tmp_path / "own.yaml"
    splits = "{train: train.txt, test: test.txt}"
    own.write_text(f"datasets: {{mine: {{title: M, task: cod, splits: {splits}}}}}\n")
    command = ["data", "audit", "mine", "--no-features", "-q", "--data-root", str(tmp_path)]
    command += ["--datasets", str(own), "--records", str(tmp_path / "runs")]
    env = {"LPMOE_BENCH_CACHE": str(tmp_path / "cache")}
    text = CliRunner().invoke(app, command, env=env)
    assert text.exit_code == 0, text.output
    assert "2 images; 1 without the 1 seen" in text.stdout
    assert "0.5000 -> 0.8000 (+0.3000)" in text.stdout
    (one,) = json.loads(CliRunner().invoke(app, [*command, "--json"], env=env).stdout)[
        "clean_subset"
    ]
    assert (one["removed"], one["clean"]) == (["a"], {"s_measure": 0.8})
