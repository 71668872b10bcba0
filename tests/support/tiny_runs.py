"""Runs on a tiny random backbone and drawn discs: how tests start them and find their records."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lpmoe_bench.cli.app import main
from lpmoe_bench.records.store import read_record, read_rows
from lpmoe_bench.training import loop

# The GPUs that whoever runs the tests may see: tests/conftest.py shows them to the tests of GPUs.
VISIBLE = {k: os.environ[k] for k in ("CUDA_VISIBLE_DEVICES",) if k in os.environ}
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # one device for all: results are compared bit by bit
# The smallest ViT of timm, and its facts.
BACKBONE, BLOCKS, WIDTH, PARAMETERS = "test_vit", 6, 64, 306_240
QUICK = [
    *("--backbone", BACKBONE, "--weights", "random:3", "--size", "64"),
    *("--set", "train.batch=4", "--set", "train.epochs=2", "--set", "decoder.width=8"),
]


def draw_pairs(folder: Path, count: int, seed: int) -> None:
    """Write images with a bright disc on noise, and their masks."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    random = np.random.default_rng(seed)
    for k in range(count):
        mask = np.zeros((60, 80), np.uint8)
        cv2.circle(mask, (int(random.integers(20, 60)), int(random.integers(20, 40))), 14, 255, -1)
        image = random.integers(0, 120, (60, 80, 3)).astype(np.uint8)
        image[mask > 0] += 100
        cv2.imwrite(str(folder / "images" / f"{k:03}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"{k:03}.png"), mask)


def draw_data(root: Path) -> Path:
    """Draw 24 pairs to train and 6 to test, and return the root."""
    draw_pairs(root / "train", 24, seed=0)
    draw_pairs(root / "test", 6, seed=1)
    return root


def folders(data: Path) -> list[str]:
    kinds = [(part, kind) for part in ("train", "test") for kind in ("images", "masks")]
    return [text for p, k in kinds for text in (f"--{p}-{k}", str(data / p / k))]


def arguments(data: Path, runs: Path, *more: str) -> list[str]:
    return ["run", "--method", "lora", *folders(data), "--runs", str(runs), *QUICK, *more]


def environment() -> dict[str, str]:
    """One thread and no accelerator, for processes of tests."""
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def is_alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


def call(arguments: list[str]) -> Done:
    """Run the command line in this process, on one thread as the killed processes do."""
    threads, out, err = torch.get_num_threads(), io.StringIO(), io.StringIO()
    torch.set_num_threads(1)
    try:
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            mock.patch.object(sys, "argv", ["lpmoe-bench", *arguments]),
            pytest.raises(SystemExit) as caught,
        ):
            main()
    finally:
        torch.set_num_threads(threads)
    return Done(int(caught.value.code or 0), out.getvalue(), err.getvalue())


def call_until(arguments: list[str], steps: int, stop: Callable[[], object]) -> Done:
    """Run the command line in this process; `stop` is called within a step, the last of so many."""
    step, done = loop.Steps.take, []

    def last(*given):
        done.append(given)
        if len(done) == steps:
            stop()
        return step(*given)

    with mock.patch.object(loop.Steps, "take", last):
        return call(arguments)


def start(arguments: list[str]) -> subprocess.Popen:
    command, quiet = [sys.executable, "-m", "lpmoe_bench", *arguments], subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment())


def only_run(runs: Path) -> Path:
    found = [path.parent for path in runs.rglob("run.json")]
    assert len(found) == 1
    return found[0]


def assert_same_result(one: Path, other: Path) -> None:
    first, second = load_file(one / "adapter.safetensors"), load_file(other / "adapter.safetensors")
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[k], second[k]) for k in first)
    assert read_record(one).scores == read_record(other).scores
    assert (one / "per_image.csv").read_bytes() == (other / "per_image.csv").read_bytes()
    columns = ("step", "loss", "learning_rate", "validation")
    curves = [[[r[c] for c in columns] for r in read_rows(f / "curve.csv")] for f in (one, other)]
    assert curves[0] == curves[1]


def corners() -> tuple[torch.Tensor, torch.Tensor]:
    """Four images of noise with a bright square in another corner of each, and their masks."""
    generator = torch.Generator().manual_seed(1)
    images, masks = torch.rand(4, 3, 64, 64, generator=generator), torch.zeros(4, 1, 64, 64)
    for k in range(4):
        top, left = 32 * (k // 2), 32 * (k % 2)
        masks[k, 0, top : top + 32, left : left + 32] = 1
    return (images + masks) / 2, masks


def losses(run: Path) -> list[float]:
    """Return the losses that a run's curve has."""
    return [row["loss"] for row in read_rows(run / "curve.csv") if row["loss"] is not None]
