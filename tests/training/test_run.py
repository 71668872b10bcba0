"""One run from plan to record, and its errors."""

import errno
import json
import math
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_runs import (
    BLOCKS,
    PARAMETERS,
    WIDTH,
    arguments,
    assert_same_result,
    call,
    call_until,
    losses,
    only_run,
    start,
)
from torch._inductor.exc import InvalidCxxCompiler

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.data import loader as loading
from lpmoe_bench.files import hold_lock
from lpmoe_bench.inference.predictor import new_fabric
from lpmoe_bench.model.segmenter import Segmenter
from lpmoe_bench.records.store import read_record, read_rows
from lpmoe_bench.training import loop


def test_record_tells_the_whole_run(finished):
    record = read_record(finished)
    scores = next(iter(record.scores.values()))
    assert 0 <= scores["s_measure"] <= 1
    assert record.parameters is not None
    assert record.parameters.method == BLOCKS * 4 * 8 * WIDTH
    assert record.parameters.share_of_backbone == BLOCKS * 4 * 8 * WIDTH / PARAMETERS
    assert record.training is not None
    assert record.training.steps == 2 * 6  # 24 images less 2 for validation, in batches of 4
    assert record.test_opened == 1
    assert record.costs.state_bytes == (finished / "adapter.safetensors").stat().st_size
    assert [s.images for s in record.data.tests] == [6]
    assert record.backbone is not None
    half = [0.5, 0.5, 0.5]  # what the name implies, and so no part of the settings
    facts = {"mean": half, "std": half, "patch": 16, "grid": 10, "pos_antialias": True}
    assert record.backbone.facts == facts
    assert set(record.config["facts"].values()) == {None}
    rows = read_rows(finished / "per_image.csv")
    assert len(rows) == 6
    assert np.mean([row["mae"] for row in rows]) == pytest.approx(scores["mae"], abs=1e-12)
    curve = read_rows(finished / "curve.csv")
    assert [row["step"] for row in curve if row["validation"] is not None] == [6, 12]
    assert not (finished / "resume.safetensors").exists()


def test_finished_run_is_returned_not_repeated(data, finished):
    runs = finished.parents[3]
    before = (finished / "run.json").read_bytes()
    done = call(arguments(data, runs, "--json"))
    assert done.code == 0
    assert json.loads(done.stdout) == json.loads(before)
    assert (finished / "run.json").read_bytes() == before
    assert "is finished" in done.stderr


@pytest.mark.faults
def test_killed_run_resumes_and_ends_bit_equal(data, finished, tmp_path):
    more = ["--set", "runtime.save_seconds=0"]
    process = start(arguments(data, tmp_path, *more))
    while not list(tmp_path.rglob("resume.safetensors")):  # written after every step
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not list(tmp_path.rglob("run.json"))
    done = call(arguments(data, tmp_path, *more))
    assert done.code == 0, done.stderr
    assert_same_result(finished, only_run(tmp_path))


@pytest.mark.faults
def test_interrupted_run_resumes_and_ends_bit_equal(data, finished, tmp_path):
    """By both signals, one after the other, each while a step is computed."""
    asked = arguments(data, tmp_path)
    for number, steps, sum_ in ((signal.SIGINT, 2, 2), (signal.SIGTERM, 5, 7)):
        done = call_until(asked, steps, lambda number=number: signal.raise_signal(number))
        assert done.code == 130
        assert f"interrupted after step {sum_} of 12" in done.stderr
        assert not list(tmp_path.rglob("run.json"))
    assert call(asked).code == 0
    assert_same_result(finished, only_run(tmp_path))


def test_a_signal_while_the_last_state_is_scored_ends_the_run(
    data, finished, tmp_path, monkeypatch
):
    select = loop._select_best

    def interrupted(run, progress, best):
        best = select(run, progress, best)
        if progress.step == 12:
            signal.raise_signal(signal.SIGTERM)
        return best

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_select_best", interrupted)
        done = call(arguments(data, tmp_path))
    assert (done.code, "after step 12 of 12" in done.stderr) == (130, True)
    assert not list(tmp_path.rglob("run.json"))
    assert call(arguments(data, tmp_path)).code == 0
    assert_same_result(finished, only_run(tmp_path))


def test_micro_batches_workers_and_checkpointing_change_no_fingerprint(
    data, finished, tmp_path, monkeypatch
):
    at_once, forward = [], Segmenter.forward

    def counted(segmenter, images, *more):
        at_once.append(len(images))
        return forward(segmenter, images, *more)

    monkeypatch.setattr(Segmenter, "forward", counted)
    more = ["runtime.micro_batch=2", "runtime.workers=1", "runtime.checkpointing=true"]
    done = call(arguments(data, tmp_path, *(a for m in more for a in ("--set", m))))
    assert done.code == 0, done.stderr
    assert max(at_once) == 2  # in validation and test too
    other = only_run(tmp_path)
    assert other.name == finished.name
    scores = [next(iter(read_record(f).scores.values()))["mae"] for f in (finished, other)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def test_divergence_stops_and_keeps_the_last_good_state(data, tmp_path):
    done = call(arguments(data, tmp_path, "--set", "train.lr=1e30", "--set", "train.clip=1e30"))
    assert done.code == 7
    assert "diverged at step" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("run.json"))
    state = load_file(next(tmp_path.rglob("resume.safetensors")))
    assert all(np.isfinite(tensor).all() for tensor in state.values())
    assert any(name.startswith("model/") for name in state)


def test_forced_rerun_keeps_the_old_record(data, finished, tmp_path):
    shutil.copytree(finished, tmp_path / finished.relative_to(finished.parents[3]))
    done = call(arguments(data, tmp_path, "--force"))
    assert done.code == 0, done.stderr
    again = only_run(tmp_path)
    assert_same_result(finished, again)
    assert (again / "superseded-1-run.json").read_bytes() == (finished / "run.json").read_bytes()


def test_foreign_and_damaged_adapters_are_refused(data, finished, tmp_path):
    image = str(data / "test" / "images" / "000.png")
    fine = call(["predict", str(finished), image, "-o", str(tmp_path / "out")])
    assert fine.code == 0, fine.stderr
    pred = cv2.imread(str(tmp_path / "out" / "000.png"), cv2.IMREAD_UNCHANGED)
    assert pred.shape == (60, 80)
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    adapter = copy / "adapter.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"x")
    damaged = call(["predict", str(copy), image, "-o", str(tmp_path / "out2")])
    assert (damaged.code, "is damaged" in damaged.stderr) == (3, True)
    adapter.unlink()
    missing = call(["predict", str(copy), image, "-o", str(tmp_path / "out2")])
    assert (missing.code, "could not be read" in missing.stderr) == (3, True)


@pytest.mark.faults
def test_full_disk_is_one_sentence_and_the_same_command_goes_on(data, finished, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with mock.patch("lpmoe_bench.files.os.replace", full):
        failed = call(arguments(data, tmp_path))
    assert failed.code == 6
    assert "the disk is full" in failed.stderr
    assert not list(tmp_path.rglob("run.json"))
    assert call(arguments(data, tmp_path)).code == 0
    assert_same_result(finished, only_run(tmp_path))


@pytest.mark.slow
def test_two_processes_train_as_one(data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    options = ["--set", "train.validation=0.25"]  # 18 images: 4, 4, 4, 4, 2
    assert call(arguments(data, one, *options)).code == 0
    devices = ["--set", "runtime.devices=2", "--set", "runtime.device=cpu"]
    assert start(arguments(data, two, *options, *devices)).wait() == 0
    first, second = (read_record(only_run(runs)) for runs in (one, two))
    assert first.fingerprint == second.fingerprint
    assert second.scores["own/test"]["mae"] == pytest.approx(
        first.scores["own/test"]["mae"], abs=0.02
    )


def test_lpmoe_resumes_from_any_step(data, tmp_path):
    """BatchNorm, drop path and the best state are resumed too: 5 steps an epoch, 2 epochs."""
    more = ["--method", "lpmoe", "--set", "train.validation=0.2", "--set", "width=16"]
    whole, parts = (arguments(data, tmp_path / name, *more) for name in ("whole", "parts"))
    assert call(whole).code == 0
    for before, stop in pairwise((0, 1, 5, 6, 9)):  # within an epoch, at its end, behind it
        done = call_until(parts, stop - before, lambda: signal.raise_signal(signal.SIGINT))
        assert done.code == 130, done.stderr
        assert f"interrupted after step {stop} of 10" in done.stderr
    assert call(parts).code == 0
    assert_same_result(only_run(tmp_path / "whole"), only_run(tmp_path / "parts"))


# Wrong input to a run: one line, a documented exit code, no traceback.


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        (["--backbone", "vit_tiny_patch16_223"], 2, "unknown backbone"),
        (["--size", "250"], 2, "multiple of 32"),
        (["--set", "rank=eight"], 2, "it takes a whole number, such as 8"),
        (["--set", "runtime.device=cuda"], 6, "no GPU"),
        (["--set", "train.precision=tf32"], 2, "tf32, which is of NVIDIA GPUs"),
        (["--set", "runtime.compile=graphs"], 2, "graphs, which is of NVIDIA GPUs"),
        (["--set", "runtime.workers=999999999999"], 2, "workers"),
        (["--set", "runtime.compile=max"], 2, "'default' or 'graphs'"),
        (["--method", "conv_lora", "--set", "runtime.compile=default"], 2, "it uses some alone"),
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


@pytest.mark.parametrize(
    ("precision", "products", "computes"),
    [
        ("32-true", "highest", "32-true"),
        ("tf32", "high", "32-true"),
        ("bf16-mixed", "highest", "bf16-mixed"),
    ],
)
def test_tf32_is_single_precision_with_rounded_factors(precision, products, computes):
    before = torch.get_float32_matmul_precision()
    try:
        fabric = new_fabric("cpu", precision)
        assert torch.get_float32_matmul_precision() == products
        assert fabric._precision.precision == computes
    finally:
        torch.set_float32_matmul_precision(before)


def test_dry_run_tells_machines_what_would_run(data, tmp_path):
    done = call(arguments(data, tmp_path, "--dry-run", "--json"))
    plan = json.loads(done.stdout)
    assert plan["images"] == {"train": 22, "validation": 2, "tests": {"own/test": 6}}
    assert plan["config"]["options"] == {"rank": 8, "alpha": 8.0}
    assert (plan["finished"], plan["foretold"]) == (False, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--set", "rank=0"), "rank is 0; it must be at least 1"),
        (("--decoder", "mask2former"), "decoder width is 8; it must be a multiple of 32"),
    ],
)
def test_dry_run_refuses_a_model_that_cannot_be_built(data, tmp_path, more, sentence):
    done = call(arguments(data, tmp_path, *more, "--dry-run"))
    assert done.code == 2
    assert sentence in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["real", "dry"])
@pytest.mark.parametrize(
    ("setting", "code", "sentence"),
    [
        ("rank=100000000000", 6, "lora (rank 100000000000, alpha 8.0) with decoder fpn (width 8)"),
        ("rank=100000000000", 6, " GiB for its weights and their training, and this machine has"),
        ("decoder.width=100000000000", 2, "is larger than any memory; choose smaller options"),
    ],
)
def test_a_model_larger_than_memory_is_refused_before_it_is_built(
    data, tmp_path, monkeypatch, setting, code, sentence, dry
):
    # Calling it would be a TypeError: to ask for so much memory may end the program.
    monkeypatch.setattr("lpmoe_bench.training.run.build_segmenter", None)
    done = call(arguments(data, tmp_path, "--set", setting, *dry))
    assert done.code == code, done.stderr
    assert sentence in done.stderr.splitlines()[-1]


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


@pytest.fixture(scope="module")
def read_late(data, tmp_path_factory):
    """A run whose steps are read one later, as on a GPU, and by the AdamW that is used there."""
    runs = tmp_path_factory.mktemp("late")
    with mock.patch.object(loop, "reads_late", return_value=True):
        assert call(arguments(data, runs)).code == 0
    return only_run(runs)


def test_steps_that_are_read_late_train_alike(finished, read_late):
    assert losses(read_late) == pytest.approx(losses(finished), rel=1e-5)
    one, other = read_record(finished), read_record(read_late)
    assert one.training == other.training
    assert one.fingerprint == other.fingerprint
    for split, scores in one.scores.items():
        assert other.scores[split] == pytest.approx(scores, abs=1e-5)


@pytest.mark.faults
def test_late_reading_stops_at_whole_steps_and_resumes_bit_equal(
    data, read_late, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "reads_late", lambda device: True)
    for steps, sum_ in ((2, 2), (5, 7)):
        done = call_until(
            arguments(data, tmp_path), steps, lambda: signal.raise_signal(signal.SIGTERM)
        )
        assert f"interrupted after step {sum_} of 12" in done.stderr
    assert call(arguments(data, tmp_path)).code == 0
    assert_same_result(read_late, only_run(tmp_path))
    assert losses(only_run(tmp_path)) == losses(read_late)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_a_step_without_a_number_changes_nothing_that_is_kept(data, tmp_path, monkeypatch, late):
    """Step 4 gives NaN: what is left is the state after step 3, BatchNorm and moments too."""
    monkeypatch.setattr(loop, "reads_late", lambda device: late)
    good, bad = (arguments(data, tmp_path / k, "--method", "lpmoe") for k in ("good", "bad"))
    done = call_until(good, 3, lambda: signal.raise_signal(signal.SIGTERM))
    assert "interrupted after step 3" in done.stderr
    forward, calls = Segmenter.forward, []

    def broken(segmenter, images, targets=None, examine=False):
        found = forward(segmenter, images, targets, examine)
        if targets is None or examine:
            return found
        calls.append(float(found.detach()))
        return found * (math.nan if len(calls) == 4 else 1)

    monkeypatch.setattr(Segmenter, "forward", broken)
    done = call(bad)
    assert done.code == 7
    assert "diverged at step 4 of 12: loss nan" in done.stderr
    assert len(calls) == (5 if late else 4)
    assert all(map(math.isfinite, calls))  # the step behind it computed with good weights
    files = (next((tmp_path / k).rglob("resume.safetensors")) for k in ("good", "bad"))
    states = [load_file(file) for file in files]
    assert states[0].keys() == states[1].keys()
    assert any("running_mean" in name for name in states[0])
    assert any(name.startswith("optimizer/") for name in states[0])
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    monkeypatch.setattr(Segmenter, "forward", forward)
    assert call(bad).code == 0  # which goes on from there


def test_one_loader_reads_for_all_epochs_and_goes_on_within_one(monkeypatch):
    made = []
    run = SimpleNamespace(
        dataset=list(range(10)),
        config=RunConfig(train={"batch": 4}),
        fabric=SimpleNamespace(global_rank=0, world_size=1, device=torch.device("cpu")),
    )
    wanted = [keys for epoch in range(3) for keys in loop._epoch(run, epoch)]
    assert [len(keys) for keys in wanted] == [4, 4, 2] * 3
    monkeypatch.setattr(loop, "loader", lambda data, keys, *more: made.append(list(keys)) or [])
    for first, steps in ((0, 9), (0, 8), (4, 8), (3, 3), (5, 6)):
        assert list(loop._batches(run, first, steps, 3)) == []
        assert made[-1] == wanted[first:steps]


def test_what_workers_share_has_to_hold_their_batches(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda path: SimpleNamespace(free=65536))
    done = call(arguments(data, tmp_path, "--set", "runtime.workers=2"))
    assert (done.code, done.stderr.count("Traceback")) == (6, 0)
    assert "/dev/shm has 0.1 MiB free, and runtime.workers=2 needs" in done.stderr
    assert "or ask for fewer, or 0" in done.stderr


def test_a_run_in_a_thread_trains(data, finished, tmp_path):
    """Python hears signals in its main thread alone."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(call, arguments(data, tmp_path)).result()
    assert done.code == 0, done.stderr
    assert_same_result(finished, only_run(tmp_path))


@pytest.mark.slow
def test_compiled_code_trains_alike_and_the_record_says_so(data, finished, tmp_path):
    done = call(arguments(data, tmp_path, "--set", "runtime.compile=default"))
    assert done.code == 0, done.stderr
    one, other = read_record(finished), read_record(only_run(tmp_path))
    assert losses(only_run(tmp_path)) == pytest.approx(losses(finished), rel=1e-4)
    assert one.fingerprint == other.fingerprint
    assert "runtime.compile=default" in other.notes[-1]


def test_a_record_says_how_each_part_of_its_training_was_computed(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop.torch, "compile", lambda model, **options: model)
        asked = arguments(data, tmp_path, "--set", "runtime.compile=default")
        done = call_until(asked, 8, lambda: signal.raise_signal(signal.SIGTERM))
        assert done.code == 130, done.stderr
    assert call(arguments(data, tmp_path)).code == 0
    assert "(runtime.compile=default, then off)" in read_record(only_run(tmp_path)).notes[-1]


def test_a_model_that_cannot_be_compiled_is_one_sentence(data, tmp_path, monkeypatch):
    def failing(module, *given, **named):
        raise InvalidCxxCompiler

    monkeypatch.setattr(loop.Steps, "take", failing)
    done = call(arguments(data, tmp_path, "--set", "runtime.compile=default"))
    assert (done.code, done.stderr.count("Traceback")) == (6, 0)
    assert "could not compile this model here" in done.stderr
    assert "leave runtime.compile out" in done.stderr
