"""The backbones, the images and the run that tests share."""

import os
from functools import cache
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core, so a thread for each process
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch, and for the processes of tests

import object_runs
import pytest
import tiny_runs
import typer.main
import typer.testing
from hypothesis import settings

from method_zoo.backbones.backbone import Backbone
from method_zoo.contract.families import (  # noqa: F401  (tests take them from here)
    EVA,
    FAMILIES,
    PLAIN,
    SAM,
    SIZE,
    STAGED,
    WHOLE,
    WINDOWS,
    shake,
    tiny_backbone,
    tiny_image,
)
from method_zoo.contract.families import shaken_backbone as moved  # noqa: F401

os.environ.pop("LPMOE_BENCH_PLUGINS", None)  # of whoever runs the tests

# Typer makes the command line anew for each call; here thousands of calls share one.
typer.main.get_command = typer.testing._get_command = cache(typer.main.get_command)

# The same examples each time, kept nowhere, however busy the machine is.
settings.register_profile("tests", derandomize=True, database=None, deadline=None)
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Show the GPUs to the tests that are about them, and to no others."""
    if config.option.markexpr == "gpu":
        os.environ.pop("CUDA_VISIBLE_DEVICES")
        os.environ.update(tiny_runs.VISIBLE)


@pytest.fixture(params=FAMILIES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """Each family in turn."""
    return tiny_backbone(request.param)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of discs on noise, 24 pairs to train and 6 to test; tests only read it."""
    return tiny_runs.draw_data(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of LoRA on it; tests only read it."""
    runs = tmp_path_factory.mktemp("finished")
    done = tiny_runs.call(tiny_runs.arguments(data, runs))
    assert done.code == 0, done.stderr
    return tiny_runs.only_run(runs)


@pytest.fixture(scope="session")
def object_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with a disc and a box, 12 to train and 4 to test; tests only add lists of labels."""
    root = tmp_path_factory.mktemp("objects")
    object_runs.draw(root, "train", 12, 0)
    object_runs.draw(root, "test", 4, 1)
    return root


@pytest.fixture(scope="session", params=list(object_runs.HEADS))
def object_run(
    request: pytest.FixtureRequest, object_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Each kind of task that finds objects, and a finished run of it; tests only read it."""
    runs, kind = tmp_path_factory.mktemp(request.param), request.param
    more = ("--set", "runtime.save_predictions=true")
    done = tiny_runs.call(object_runs.asked(object_data, runs, kind, *more))
    assert done.code == 0, done.stderr
    return kind, tiny_runs.only_run(runs)
