"""A feature cache without room, or with nothing to do: one sentence, and the run goes on."""

import errno
import os
from pathlib import Path
from unittest import mock

import pytest
from cached_runs import DISK, MEMORY, finish, kept
from test_run import assert_same_result
from tiny_runs import arguments, call, draw_data, only_run

from lpmoe_bench.records.store import read_record


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return draw_data(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """The features of this test, in a cache of its own."""
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="module")
def partial(data, tmp_path_factory) -> Path:
    """A run without a cache."""
    return finish(data, tmp_path_factory.mktemp("partial"), "partial")


def test_a_full_disk_falls_back_and_says_so_once(data, tmp_path, place, partial):
    replace, calls = os.replace, []

    def full(source, target):
        if str(target).startswith(str(place)) and len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        calls.append(target)
        return replace(source, target)

    with mock.patch("lpmoe_bench.files.os.replace", full):
        done = call(arguments(data, tmp_path / "runs", "--method", "partial", *DISK))
    assert done.code == 0, done.stderr
    assert done.stderr.count("No space left on device") == 1
    assert "are computed in every epoch" in done.stderr
    assert_same_result(partial, only_run(tmp_path / "runs"))
    assert not [n for n in read_record(only_run(tmp_path / "runs")).notes if "cache" in n]


@pytest.mark.parametrize("where", [DISK, MEMORY], ids=["disk", "memory"])
def test_too_little_room_falls_back(data, tmp_path, place, partial, where):
    more = [*where, "--set", "runtime.cache_gib=1e-4"]
    done = call(arguments(data, tmp_path / "runs", "--method", "partial", *more))
    assert done.code == 0, done.stderr
    assert done.stderr.count("there is room for 0.00 GiB (runtime.cache_gib)") == 1
    assert_same_result(partial, only_run(tmp_path / "runs"))
    assert not kept(place)


def test_it_does_nothing_for_a_method_without_frozen_blocks(data, tmp_path, place):
    done = call(arguments(data, tmp_path / "runs", *DISK, "--set", "train.epochs=1"))
    assert done.code == 0, done.stderr
    assert "runtime.cache_features does nothing for LoRA" in done.stderr
    assert not place.exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([*DISK, "--set", "train.scale=[0.5,2]"], "leave one or the other out"),
        ([*MEMORY, "--set", "train.photometric=true"], "leave one or the other out"),
        ([*MEMORY, "--set", "runtime.devices=2"], "use disk, which they share"),
        ([*MEMORY, "--set", "runtime.cache_test=true"], "needs runtime.cache_features=disk"),
        (["--set", "runtime.cache_features=ram"], "runtime.cache_features is 'ram'"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(data, tmp_path, more, sentence):
    done = call(arguments(data, tmp_path, "--method", "partial", *more))
    assert done.code == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
