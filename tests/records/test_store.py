"""Records: written completely or not at all, read back exactly, found without a crash."""

import errno
import json
import math
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from records import content, record

from lpmoe_bench import environment, files
from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.records.model import SCHEMA_VERSION, parse_record, record_folder, run_folder
from lpmoe_bench.records.store import find_records, read_record, read_rows, write_record

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
def test_a_full_disk_leaves_no_record_and_no_half_file(tmp_path, monkeypatch, full_at):
    calls = []

    def full(handle):
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
    assert found.packages["numpy"]
    assert found.torch == found.packages.get("torch")


@pytest.mark.parametrize("module", ["record", "environment", "publish", "tables.formats"])
def test_reading_records_needs_no_heavy_package(module):
    heavy = "{'torch', 'pandas', 'numpy', 'scipy', 'cv2'}"
    code = f"import sys, lpmoe_bench.{module}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_versions_are_those_that_the_packages_state():
    found = environment.installed_packages()
    assert "numpy" in found
    assert found == {name: metadata.version(name) for name in found}
    assert {name for name in environment.PACKAGES if _is_installed(name)} == found.keys()


def _is_installed(name):
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False
