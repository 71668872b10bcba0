"""Records."""

import errno
import json
import math
import os
import re
import stat
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_records import changed, content, record

from lpmoe_bench import environment, files
from lpmoe_bench.console import printable
from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.records.model import SCHEMA_VERSION, parse_record, record_folder, run_folder
from lpmoe_bench.records.store import (
    OPENED_FILE,
    count_opening,
    find_records,
    image_rows,
    read_record,
    read_rows,
    write_record,
)
from lpmoe_bench.records.store import ROWS as ROWS_FILE
from lpmoe_bench.records.verify import publish
from lpmoe_bench.tables.table import build_table

ROWS = [
    {"dataset": "CAMO", "image": "b, with comma", "s_measure": 0.1 + 0.2, "flags": ""},
    {"dataset": "CAMO", "image": "0012", "s_measure": None, "flags": "empty_mask"},
]
CURVE = [{"step": 1, "loss": 1 / 3, "validation": math.nan}]


def test_round_trip_is_exact(tmp_path):
    scores = {"s_measure": 0.1 + 0.2, "mae": 5e-324, "e_mean": 1 / 3}
    written = record(scores=scores, notes=["Größe ± 1"])
    write_record(tmp_path / "new" / "folder", written, ROWS, CURVE)
    assert read_record(tmp_path / "new" / "folder") == written
    assert read_rows(tmp_path / "new" / "folder" / "per_image.csv") == ROWS
    assert read_rows(tmp_path / "new" / "folder" / "curve.csv") == [
        {"step": 1.0, "loss": 1 / 3, "validation": None}
    ]


@pytest.mark.parametrize("quoted", [False, True])
def test_rows_of_one_test_set_are_those_that_the_whole_file_has(tmp_path, quoted):
    names = ("b, with comma", 'c "quoted"') if quoted else ("b", "c")
    rows = [
        {"dataset": test, "image": name, "s_measure": value, "flags": ""}
        for test in ("CAMO", "Other")
        for name, value in zip(names, (0.1 + 0.2, None), strict=True)
    ]
    write_record(tmp_path, record(), rows)
    found = image_rows(tmp_path, "Other")
    assert found is not None
    assert list(found.images) == list(names)
    assert found.numbers("s_measure") == [0.1 + 0.2, None]
    assert found.numbers("dice") == [None, None]
    (tmp_path / ROWS_FILE).write_text("dataset,image,s_measure\nOther,b\nOther,c,x\n")
    found = image_rows(tmp_path, "Other")
    assert found is not None
    with pytest.raises(DataError, match="no table of numbers"):
        found.numbers("s_measure")
    (tmp_path / ROWS_FILE).write_text("dataset,image\nOther,b,0.5\n")
    with pytest.raises(DataError, match="a row has 3 cells, the head 2"):
        image_rows(tmp_path, "Other")
    assert image_rows(tmp_path / "nowhere", "Other") is None


def test_numbers_that_json_cannot_hold_become_null(tmp_path):
    write_record(tmp_path, record(scores={"s_measure": math.nan, "mae": math.inf}), [])
    assert "NaN" not in (tmp_path / "run.json").read_text()
    assert read_record(tmp_path).scores["CAMO"] == {"s_measure": None, "mae": None}
    foreign = json.dumps(content(scores={"s_measure": math.nan}))  # as Python writes it unasked
    assert "NaN" in foreign
    (tmp_path / "run.json").write_text(foreign)
    assert read_record(tmp_path).scores["CAMO"] == {"s_measure": None}


def test_a_second_write_leaves_nothing_of_the_first(tmp_path):
    write_record(tmp_path, record(seed=0), ROWS, CURVE)
    write_record(tmp_path, record(seed=1), ROWS[:1])
    assert sorted(os.listdir(tmp_path)) == ["per_image.csv", "run.json"]
    assert read_record(tmp_path).seed == 1


@pytest.mark.parametrize("full_at", [1, 2, 3])
@pytest.mark.faults
def test_a_full_disk_leaves_no_record_and_no_half_file(tmp_path, monkeypatch, full_at):
    calls = []

    def full(handle):
        if not stat.S_ISDIR(os.fstat(handle).st_mode):  # folders are flushed too
            calls.append(handle)
        if len(calls) == full_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        write_record(tmp_path, record(), ROWS, CURVE)
    complete = ["per_image.csv", "curve.csv"][: full_at - 1]
    assert sorted(os.listdir(tmp_path)) == sorted(complete)


def test_version_1_keeps_loading():
    # The smallest version 1 record there can be, as text: do not edit it when fields are added.
    text = """{"schema_version": 1, "kind": "score", "id": "x", "fingerprint": "00",
      "created": "2026-01-02T00:00:00+00:00", "method": {"name": "n", "title": "N"},
      "task": "cod", "protocol": {"name": "cod", "version": 1, "hash": "00"},
      "scores": {"A": {"mae": 0.5}}, "environment":
      {"python": "3.11", "platform": "p", "cpu": "c", "device": "d", "version": "0"}}"""
    assert parse_record(json.loads(text), Path("old")).scores["A"]["mae"] == 0.5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"schema_version": 1, "kind"', "is not valid JSON: damaged, or no record"),
        ("[1]", "is no record: it has no schema_version"),
        ('{"schema_version": true}', "it has no schema_version"),
        (json.dumps(content() | {"schema_version": True}), "it has no schema_version"),
        (json.dumps(content() | {"schema_version": 1.0}), "it has no schema_version"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}), "install a newer lpmoe-bench"),
        (json.dumps(content(fingerprint=None)), "is no valid record: fingerprint: "),
        (json.dumps(content(surprise=1)), "is no valid record: surprise: "),
        (b"\xff\xfe\x00", "is not valid JSON"),
        ("[" * 100000, "is not valid JSON"),
    ],
)
def test_a_bad_record_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "run.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=sentence) as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "written", "sentence"),
    [
        ('"s_measure": 0.75', '"s_measure": 1e999', "holds 1e999, a number too large"),
        ('"s_measure": 0.75', f'"s_measure": -{"9" * 400}.5', "a number too large"),
        (
            '"trainable": 647456',
            f'"trainable": 1{"0" * 400}',
            "holds 10000000000000000000..., a num",
        ),
        ('"trainable": 647456', f'"trainable": 1{"0" * 5000}', "a number too large"),
        ('"images": 996', f'"images": 1{"0" * 400}', "a number too large"),
        ('"width": 64', f'"width": 1{"0" * 400}', "a number too large"),
    ],
)
@pytest.mark.faults
def test_numbers_that_no_record_has_are_refused(tmp_path, field, written, sentence):
    text = json.dumps(content())
    assert field in text
    (tmp_path / "run.json").write_text(text.replace(field, written))
    with pytest.raises(DataError, match=re.escape(sentence)) as caught:
        read_record(tmp_path)
    assert len(str(caught.value)) < 300


def test_large_numbers_that_records_have_are_read(tmp_path):
    whole = content(seed=2**63 - 1)
    whole["costs"] |= {"training_flops": 10**18, "train_images_per_second": 1.5e-7}
    (tmp_path / "run.json").write_text(json.dumps(whole))
    found = read_record(tmp_path)
    assert (found.seed, found.costs.training_flops) == (2**63 - 1, 10**18)
    assert found.costs.train_images_per_second == 1.5e-7


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.faults
def test_control_characters_of_texts_are_written_out(tmp_path, escaped):
    strange = "\x1b[2J\x9b\u202eevil\x07"
    whole = content(scores={"mae": 0.1}, label=strange if escaped else strange.strip("\x1b\x07"))
    whole["method"]["title"] = "Lo\u200fRA" if not escaped else "\x1b]0;LoRA"
    (tmp_path / "run.json").write_text(json.dumps(whole, ensure_ascii=escaped), encoding="utf-8")
    found = read_record(tmp_path)
    text = "".join((found.label, found.method.title))
    assert text.isprintable()
    assert "LoRA" in text or r"Lo\u200fRA" in text
    assert r"\x9b\u202eevil" in text


@pytest.mark.faults
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path):
    for name in ("a", "b", "c"):
        write_record(tmp_path / name, record(), ROWS)
    (tmp_path / "a/run.json").unlink()
    os.mkfifo(tmp_path / "a/run.json")
    (tmp_path / "b/per_image.csv").unlink()
    os.mkfifo(tmp_path / "b/per_image.csv")
    found = find_records([tmp_path])
    assert [stored.folder.name for stored in found.stored] == ["b", "c"]
    assert found.notes == [
        f"left out: {tmp_path}/a/run.json could not be read (it is a pipe or a device, and no file)"
    ]
    for read in (lambda: read_rows(tmp_path / "b" / ROWS_FILE), lambda: publish_to(tmp_path)):
        with pytest.raises(DataError, match="it is a pipe or a device"):
            read()


def publish_to(root):
    return publish(root / "b", root / "results", allow_dirty=True)


@pytest.mark.faults
def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path, monkeypatch):
    write_record(tmp_path / "good", record(), ROWS)
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):  # as for a user without the right, which root always has
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_records([tmp_path])
    assert len(found.stored) == 1
    assert found.notes == [f"left out: {tmp_path}/locked could not be read (Permission denied)"]


TEXTS = st.one_of(st.text(), st.sampled_from(["=1+1", "'=1", "''-x", "-1", "-", "+a", "@b", "\t"]))


@given(TEXTS)
def test_cells_are_no_formulas_and_are_read_as_they_were(text):
    cell = files.safe_cell(text)
    assert files.cell_text(cell) == text
    assert cell in (text, f"'{text}")
    try:
        float(cell)
    except ValueError:
        assert cell == "-" or cell[:1] not in set("=+-@\t\r")


NAMES = st.one_of(TEXTS, st.text("ab,\"'=\n\r\t;\\", max_size=8))
VALUES = st.one_of(st.none(), st.floats(allow_infinity=False, allow_nan=False))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.text(max_size=12))
def test_whatever_is_recorded_is_read_back(tmp_path_factory, pairs, label):
    folder = tmp_path_factory.mktemp("own")
    rows = [{"dataset": "CAMO", "image": name, "flags": "", "mae": value} for name, value in pairs]
    made = record(label=label, scores={"mae": 0.1 if pairs else None})
    write_record(folder, made, rows)
    found = read_record(folder)
    assert found.scores == made.scores
    assert found.label == printable(label)
    assert read_rows(folder / ROWS_FILE) == rows
    if found := image_rows(folder, "CAMO"):
        assert list(found.images) == [row["image"] for row in rows]
        assert found.numbers("mae") == [row["mae"] for row in rows]


def test_names_of_images_that_look_like_formulas_come_back(tmp_path):
    names = ["=cmd|' /C calc'!A0", "@eaDir/a", "-1", "+b", "'=c", "a,b"]
    rows = [{"dataset": "CAMO", "image": name, "flags": "", "mae": -0.5} for name in names]
    write_record(tmp_path, record(), rows)
    text = (tmp_path / ROWS_FILE).read_text()
    assert "\nCAMO,'=cmd" in text
    assert "\nCAMO,-1," in text
    assert [row["image"] for row in read_rows(tmp_path / ROWS_FILE)] == names
    found = image_rows(tmp_path, "CAMO")
    assert found.images == found.texts("image") == names
    assert found.numbers("mae") == [-0.5] * len(names)


def test_find_reads_good_records_and_notes_bad_ones(tmp_path):
    write_record(tmp_path / "b" / "run", record(seed=1), ROWS)
    write_record(tmp_path / "a" / "run", record(seed=2), ROWS)
    write_record(tmp_path / "a" / "run" / "predictions", record(seed=3), ROWS)  # inside a record
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "run.json").write_text("half")
    (tmp_path / "unfinished").mkdir()
    found = find_records([tmp_path])
    assert [stored.record.seed for stored in found.stored] == [2, 1]
    assert found.stored[0].folder == tmp_path / "a" / "run"
    assert len(found.notes) == 1
    assert "c/run.json is not valid JSON" in found.notes[0]
    assert [r.seed for r in find_records([tmp_path / "b" / "run"]).records] == [1]
    with pytest.raises(UsageError, match="nowhere is no folder"):
        find_records([tmp_path / "nowhere"])


def test_default_roots_prefer_own_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_records().records == []
    write_record(tmp_path / "results" / "records" / "x", record(seed=5), ROWS)
    (tmp_path / "runs" / "unfinished").mkdir(parents=True)
    assert [r.seed for r in find_records().records] == [5]
    write_record(tmp_path / "runs" / "x", record(seed=6), ROWS)
    assert [r.seed for r in find_records().records] == [6]


def test_folders_say_what_a_record_is_and_stay_inside_the_root():
    run = record(seed=2, fingerprint="0123456789abcdef")
    assert record_folder(run).as_posix() == "cod/lora/small/0123456789ab-s2"
    other = record(seed=2, fingerprint="0123456789abcdef", kind="evaluation")
    assert record_folder(other).as_posix() == (
        "evaluations/cod/lora/small/0123456789ab-s2/CAMO-cdcdcdcdcdcd"
    )
    maps = record(kind="score", backbone=None, fingerprint="0123456789abcdef")
    assert record_folder(maps).as_posix() == "scored/cod/lora/0123456789ab"
    assert ".." not in run_folder("..", "../../x", "hub/name", "f", 0).parts
    assert len(run_folder("..", "../../x", "hub/name", "f", 0).parts) == 4


def test_bad_rows_are_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"rows\.csv does not exist"):
        read_rows(tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_text("image,mae\na,zero\n")
    with pytest.raises(DataError, match="is no table of numbers"):
        read_rows(tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_text("image,mae\na,1,2\n")
    with pytest.raises(DataError, match="is no table of numbers"):
        read_rows(tmp_path / "rows.csv")


def test_git_state_counts_code_only(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    assert environment.git_state(tmp_path) == (None, None)
    git("init")
    assert environment.git_state(tmp_path) == (None, None)  # such as a wheel in somebody's checkout
    (tmp_path / "lpmoe_bench").mkdir()
    (tmp_path / "lpmoe_bench" / "__init__.py").write_text("")
    git("add", ".")
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "-m", "m")
    sha, dirty = environment.git_state(tmp_path)
    assert len(sha) == 40
    assert dirty is False
    (tmp_path / "notes.txt").write_text("beside the code")
    assert environment.git_state(tmp_path) == (sha, False)
    (tmp_path / "lpmoe_bench" / "new.py").write_text("")
    assert environment.git_state(tmp_path) == (sha, True)


def test_environment_takes_the_device_in_words():
    found = environment.collect_environment("cpu, 2 threads")
    assert found.device == "cpu, 2 threads"
    assert found.torch == found.packages.get("torch")
    packages = environment.installed_packages()
    assert "numpy" in packages
    assert packages == {name: metadata.version(name) for name in packages}


# What may share a table: records that differ in anything that decides a score never do.


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


# Publishing copies numbers only, once, and only what others can rerun.


ONE_ROW = [{"dataset": "CAMO", "image": "a", "s_measure": 0.5}]


def one_image(**changes):
    """A record that its one row bears out."""
    counts = {"CAMO": {"images": 1, "scored": 1}}
    return record(scores={"s_measure": 0.5}, counts=counts, **changes)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "x"
    write_record(folder, one_image(), ONE_ROW, [{"step": 1, "loss": 0.5}])
    (folder / "adapter.safetensors").write_bytes(b"weights")
    (folder / "predictions").mkdir()
    (folder / "predictions" / "a.png").write_bytes(b"image")
    return folder


def test_copies_the_numbers_and_nothing_else(run, tmp_path):
    target = publish(run, tmp_path / "records")
    assert target == tmp_path / "records" / "cod" / "lora" / "small" / "lora00000000-s0"
    assert sorted(p.name for p in target.iterdir()) == ["curve.csv", "per_image.csv", "run.json"]
    for path in target.iterdir():
        assert path.read_bytes() == (run / path.name).read_bytes()


def test_same_record_again_is_accepted_another_is_refused(run, tmp_path):
    target = publish(run, tmp_path / "records")
    assert publish(run, tmp_path / "records") == target
    write_record(run, one_image(created="2026-02-02T00:00:00+00:00"), ONE_ROW)
    with pytest.raises(UsageError, match=r"made 2026-01-02.*yours was made 2026-02-02"):
        publish(run, tmp_path / "records")
    assert read_record(target) == one_image()


def test_a_dirty_tree_is_refused_unless_allowed(tmp_path):
    dirty = content()["environment"] | {"git_dirty": True}
    write_record(tmp_path / "run", one_image(environment=dirty), ONE_ROW)
    with pytest.raises(UsageError, match="code that differs from its commit efefefefefef"):
        publish(tmp_path / "run", tmp_path / "records")
    assert not (tmp_path / "records").exists()
    assert publish(tmp_path / "run", tmp_path / "records", allow_dirty=True).is_dir()


def test_an_unfinished_or_incomplete_run_is_refused(run, tmp_path):
    (run / "per_image.csv").unlink()
    with pytest.raises(DataError, match=r"per_image\.csv does not exist"):
        publish(run, tmp_path / "records")
    (run / "run.json").unlink()
    with pytest.raises(DataError, match="no finished run is there"):
        publish(run, tmp_path / "records")


def test_a_damaged_count_of_openings_costs_no_trained_run(tmp_path):
    assert [count_opening(tmp_path), count_opening(tmp_path)] == [1, 2]
    (tmp_path / OPENED_FILE).write_text("x")
    assert count_opening(tmp_path) == 1
