"""Benchmarks compare equal things, take turns, and say when there is nothing to measure."""

import json
import sys
from pathlib import Path

import pytest
import torch

# Last: docs/hooks has a module of the same name as one of the benchmarks.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import gpu
import in_turns
import lora_step
import lpmoe_adapter


def test_turns_go_back_and_forth_and_those_that_warm_up_do_not_count():
    called = []
    works = {name: lambda name=name: called.append(name) for name in "abc"}
    times = in_turns.in_turns(works, rounds=2, warm_up=1)
    assert "".join(called) in ("abccbaabc", "cbaabccba")
    assert [len(own) for own in times.values()] == [2, 2, 2]


def test_a_ratio_is_the_median_over_rounds_and_not_of_medians():
    times = {"slow": [2.0, 9.0, 8.0], "fast": [1.0, 3.0, 8.0]}
    assert in_turns.ratio(times, "slow", "fast") == 2  # of 2, 3 and 1
    assert in_turns.median(times) == {"slow": 8, "fast": 3}


def test_the_literal_lpmoe_has_our_maps_and_gradients():
    lpmoe_adapter.check_equal(64)


def test_a_literal_lpmoe_that_is_another_is_refused(monkeypatch):
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(lpmoe_adapter.F, "softmax", lambda x, dim: softmax(1.001 * x, dim))
    with pytest.raises(
        SystemExit, match=r"ours and literal are not the same: gradient of .* differs"
    ):
        lpmoe_adapter.check_equal(64)


def test_no_gpu_is_one_sentence_and_code_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main() == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("no GPU here")
    assert printed.err.count("\n") == 1


def test_a_step_of_lora_equals_one_of_peft_and_both_are_timed():
    pytest.importorskip("peft")
    rows = lora_step.measure("vit_tiny_patch16_224", 64, 2, rounds=1)
    assert len(rows) == 2  # alone, and with decoder and loss
    assert all(row["ratios"]["ours/peft"] > 0 for row in rows)


def test_what_a_gpu_would_be_measured_by_works_on_a_cpu(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--tiny", "--json"])
    monkeypatch.setattr(gpu, "TINY_SECONDS", 0.0)
    monkeypatch.setattr(gpu, "TURN", 1)
    assert gpu.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in found["steps"]] == ["lora", "lpmoe"]
    assert all(row["share_of_bound"] > 0 for row in found["steps"])
    assert found["loading"]["images_per_second"] > 0
    assert all(row["forward_share"] > 0 for row in found["evaluation"])
