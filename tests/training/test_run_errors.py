"""Wrong input to a run: one line, a documented exit code, no traceback."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import arguments, call, draw_data

from lpmoe_bench.files import hold_lock


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return draw_data(tmp_path_factory.mktemp("pairs"))


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        (["--method", "lroa"], 2, "did you mean 'lora'"),
        (["--task", "codd"], 2, "did you mean 'cod'"),
        (["--backbone", "vit_tiny_patch16_223"], 2, "unknown backbone"),
        (["--decoder", "fpm"], 2, "did you mean 'fpn'"),
        (["--size", "250"], 2, "multiple of 32"),
        (["--set", "rnak=8"], 2, "did you mean 'rank'"),
        (["--set", "rank=eight"], 2, "it takes a whole number, such as 8"),
        (["--set", "train.loss=dice"], 2, "unknown loss"),
        (["--set", "runtime.device=cuda"], 6, "no GPU"),
        (["--train-images", "nowhere"], 3, "nowhere"),
        (["--set", "decoder.width=-8"], 2, "positive multiple of 8"),
        (["--set", "decoder.classes=3"], 2, "unknown option"),
        (["--set", "train.select=e_max"], 2, "only a whole data set has"),
        (["--set", "train.clip=.inf"], 2, "train.clip"),
        (["--seed", "99999999999999999999999"], 2, "seed is"),
        (["--method", "lpmoe", "--set", "runtime.micro_batch=2"], 2, "normalises over the batch"),
        (["--method", "lpmoe", "--set", "train.batch=1"], 2, "train.batch must be 2"),
        (["--runs", "results/records"], 2, "published records"),
    ],
)
def test_wrong_input_is_one_line_and_a_code(data, tmp_path, more, code, sentence):
    done = call(arguments(data, tmp_path, *more))
    assert done.code == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "Traceback" not in done.stderr


def test_dry_run_tells_machines_what_would_run(data, tmp_path):
    done = call(arguments(data, tmp_path, "--dry-run", "--json"))
    plan = json.loads(done.stdout)
    assert plan["images"] == {"train": 22, "validation": 2, "tests": {"own/test": 6}}
    assert plan["config"]["options"] == {"rank": 8, "alpha": 8.0}
    assert not plan["finished"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--set", "rank=0"), "rank is 0; it must be at least 1"),
        (("--decoder", "mask2former"), "this method gives 16, 16, 16, 16; use lpmoe"),
    ],
)
def test_dry_run_refuses_a_model_that_cannot_be_built(data, tmp_path, more, sentence):
    done = call(arguments(data, tmp_path, *more, "--dry-run"))
    assert done.code == 2
    assert sentence in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "take", [lambda: torch.empty(10**15), lambda: np.empty(10**15)], ids=["torch", "numpy"]
)
def test_memory_that_runs_out_is_one_line_and_a_code(data, tmp_path, monkeypatch, take):
    monkeypatch.setattr("lpmoe_bench.training.run.train", lambda run: take())
    done = call(arguments(data, tmp_path))
    assert done.code == 6, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: out of memory at batch 4, size 64; use")


def test_second_process_on_the_same_run_is_refused(data, tmp_path):
    dry = call(arguments(data, tmp_path, "--dry-run"))
    folder = tmp_path / next(x for x in dry.stderr.splitlines() if x.startswith("run "))[4:]
    lock = hold_lock(folder / ".lock")
    assert lock
    with lock:
        second = call(arguments(data, tmp_path))
    assert second.code == 2
    assert "another process" in second.stderr
