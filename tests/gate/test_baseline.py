"""baseline.json: the same bytes for the same records, and what is no use as one."""

import json

import pytest
from gate_records import METRICS as KEYS
from gate_records import call, pinned, store

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.gate.baseline import baseline_text, read_baseline

METRICS = ",".join(KEYS)


@pytest.fixture
def base(tmp_path):
    return pinned(tmp_path)


def test_equal_records_give_equal_bytes_whatever_the_order(base, tmp_path):
    _, file = base
    for seed in reversed(range(5)):
        store(tmp_path / "again", seed)
    other = tmp_path / "other.json"
    call("pin", tmp_path / "again", "--baseline", other, "--metrics", METRICS)
    assert other.read_bytes() == file.read_bytes()
    read = read_baseline(file)
    assert baseline_text(read) == file.read_text()
    assert '"seeds": [0, 1, 2, 3, 4]' in file.read_text()  # a list of numbers is one line
    again = call("check", tmp_path / "again", "--baseline", file, "--json")
    assert "same to the last bit" in again


def test_a_second_pin_is_refused(base):
    records, file = base
    said = call("pin", records, "--baseline", file, code=UsageError.exit_code)
    assert "check update --reason" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist; write it with"),
        ("{", "not valid JSON"),
        ("[]", "no schema_version"),
        ('{"schema_version": true}', "no schema_version"),
        ('{"schema_version": 2}', "install a newer lpmoe-bench"),
        ('{"schema_version": 1, "cells": []}', "damaged: cells"),
        ('{"schema_version": 1}', "damaged: cells"),
    ],
)
def test_a_baseline_that_is_no_use_is_one_sentence(tmp_path, text, words):
    file = tmp_path / "baseline.json"
    if text is not None:
        file.write_text(text)
    store(tmp_path / "new", 0)
    said = call("check", tmp_path / "new", "--baseline", file, code=DataError.exit_code)
    assert words in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda cell: cell["metrics"]["mae"].update(mean=0.5), "mean of the scores"),
        (lambda cell: cell["metrics"]["mae"].update(sd=None), "an sd needs two scores"),
        (lambda cell: cell["metrics"]["mae"].update(scores=[0.1, 0.2], mean=0.15), "2 scores of 5"),
        (lambda cell: cell.update(seeds=[0, 0, 1, 2, 3]), "named twice"),
        (lambda cell: cell.update(surprise=1), "surprise"),
        (lambda cell: cell["metrics"]["mae"].update(sd=-1.0), "metrics.mae.sd"),
        (lambda cell: cell["metrics"]["mae"].update(sd=float("nan")), "metrics.mae.sd"),
        (None, "is there twice"),
    ],
)
def test_an_edited_baseline_is_found_out(base, change, words):
    records, file = base
    content = json.loads(file.read_text())
    if change is None:
        content["cells"] *= 2
    else:
        change(content["cells"][0])
    file.write_text(json.dumps(content))
    said = call("check", records, "--baseline", file, code=DataError.exit_code)
    assert words in said
    assert change is None or "is damaged" in said


def test_limits_that_make_no_sense_are_one_sentence(base):
    records, file = base
    for options, words in (
        (("--level", "0"), "--level: input should be greater than 0"),
        (("--floor", "0.1", "--cap", "0.01"), "the limits: the cap 0.01 lies below the floor 0.1"),
        (("--cap", "-1"), "--cap"),
        (("--speed-tolerance", "7"), "--speed-tolerance"),
    ):
        said = call("check", records, "--baseline", file, *options, code=UsageError.exit_code)
        assert words in said
