"""Where a run begins: its own state, that of fewer epochs, or the first step; and its code."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import arguments, call

from lpmoe_bench.errors import DataError
from lpmoe_bench.records.model import CodeFacts
from lpmoe_bench.records.provenance import code_facts
from lpmoe_bench.records.store import (
    KEPT_STATE,
    STATE_FILE,
    find_records,
    read_record,
    read_rows,
    write_record,
)
from lpmoe_bench.training.state import _read_state

FLAT = ["--set", "train.power=0", "--set", "train.warmup=0", "--set", "train.limit_train=8"]


def planned(asked):
    done = call([*asked, "--dry-run", "--json"])
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)["start"], done.stderr


def test_a_run_is_prolonged_to_the_very_result_of_a_longer_one(data, tmp_path):
    whole = arguments(data, tmp_path / "whole", *FLAT)
    one, two = (
        arguments(data, tmp_path / "parts", *FLAT, "--set", f"train.epochs={n}") for n in (1, 2)
    )
    assert planned(two)[0] == {"step": 0, "run": "", "about": ""}
    assert call(one).code == 0
    start, said = planned(two)
    assert start["step"] == 2
    assert start["about"].endswith("it is prolonged from its state after step 2 of 4")
    assert start["about"] in said
    assert call(two).code == 0
    assert call(whole).code == 0
    (expected,) = find_records([tmp_path / "whole"]).stored
    found = {one.record.fingerprint: one for one in find_records([tmp_path / "parts"]).stored}
    prolonged = found[expected.record.fingerprint]
    assert prolonged.record.scores == expected.record.scores
    assert prolonged.record.adapter_digest == expected.record.adapter_digest
    assert any(note.startswith("prolonged from the state of") for note in prolonged.record.notes)
    assert len(found) == 2
    # A bit that turned over is seen, and a state of a version without checksum is taken.
    path = prolonged.folder / KEPT_STATE
    run = "/".join(prolonged.folder.parts[-4:])
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 4
    path.write_bytes(raw)
    with pytest.raises(DataError, match="checksum is that of other content"):
        _read_state(path, run)
    progress = json.dumps({"step": 4})
    save_file({"model/a": torch.ones(2)}, path, metadata={"run": run, "progress": progress})
    assert _read_state(path, run)[0].step == 4
    # Such a state of the run itself is what it goes on from, when it is not finished.
    (prolonged.folder / "run.json").unlink()
    path.rename(prolonged.folder / STATE_FILE)
    assert planned(two)[0]["about"] == "unfinished: it goes on after step 4 of 4"


def test_why_a_run_cannot_be_prolonged_is_said(data, finished):
    start, said = planned(arguments(data, finished.parents[3], "--set", "train.epochs=3"))
    assert start["step"] == 0
    assert "is this run of 2 epochs, but cannot be prolonged: with train.power=1" in start["about"]
    assert start["about"] in said


def test_a_finished_run_of_other_code_is_returned_only_if_accepted(data, finished, tmp_path):
    record = read_record(finished)
    assert record.code == code_facts("lora", "fpn")
    modules = record.code.modules | {"method_zoo.lora": "0" * 16}
    other = record.model_copy(update={"code": CodeFacts(digest="0" * 64, modules=modules)})
    rows, curve = (read_rows(finished / name) for name in ("per_image.csv", "curve.csv"))
    folder = tmp_path / finished.relative_to(finished.parents[3])
    written = write_record(folder, other, rows, curve)
    done = call(arguments(data, tmp_path))
    assert done.code == 2
    assert "method_zoo.lora changed" in done.stderr
    assert "--force runs it again" in done.stderr
    refusal = done.stderr.splitlines()[-1].removeprefix("error: ")
    for words, foretold in (
        ([], f"the run would end at once with exit code 2: {refusal}"),
        (["--accept"], f"{folder} is finished; it would be shown (--force runs it again)"),
        (["--force"], f"{folder} is finished; --force runs it again and keeps the old files"),
    ):
        dry = call(arguments(data, tmp_path, "--dry-run", "--json", *words))
        assert dry.code == 0
        assert json.loads(dry.stdout)["foretold"] == foretold
        assert f"note: {foretold}" in dry.stderr
    done = call(arguments(data, tmp_path, "--accept", "--json"))
    assert done.code == 0
    assert json.loads(done.stdout)["fingerprint"] == written.fingerprint
    assert "accepted, though other code made it: method_zoo.lora changed" in done.stderr
    assert call(arguments(data, tmp_path, "--accept", "--force")).code == 2
