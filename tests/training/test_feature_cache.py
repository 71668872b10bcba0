"""Runs with cached features: bit-equal wherever they are kept, within limits."""

import errno
import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from unittest import mock

import pytest
import torch
from tiny_runs import (
    BACKBONE,
    WIDTH,
    arguments,
    assert_same_result,
    call,
    call_until,
    only_run,
    start,
)

from lpmoe_bench.model.weights.resolve import load_backbone, resolve_weights
from lpmoe_bench.records.store import read_record, read_rows
from lpmoe_bench.training.feature_files import FeatureFolder, View
from lpmoe_bench.training.features import pack
from method_zoo.options import get_method

SLOW = [
    pytest.param(m, marks=pytest.mark.slow) for m in ("decoder_only", "linear_probe", "late_lora")
]
IMAGES = 22 + 2  # training and validation, of which training images may be seen on both sides

DISK, MEMORY = (["--set", f"runtime.cache_features={mode}"] for mode in ("disk", "memory"))


def finish(data: Path, runs: Path, method: str, *more: str) -> Path:
    done = call(arguments(data, runs, "--method", method, *more))
    assert done.code == 0, done.stderr
    return only_run(runs)


def kept(place: Path) -> list[Path]:
    return sorted(place.rglob("*.safetensors"))


def computed(folder: Path) -> int:
    """How many features a run had to compute, as its record says."""
    (note,) = (n for n in read_record(folder).notes if n.startswith("features of the"))
    return int(note.split("this process computed ")[1].split()[0])


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """The features of this test, in a cache of its own."""
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="module")
def cached(data, tmp_path_factory) -> tuple[Path, Path]:
    """A run that kept its features on disk, and those."""
    cache = tmp_path_factory.mktemp("cache")
    with mock.patch.dict(os.environ, {"LPMOE_BENCH_CACHE": str(cache)}):
        return finish(data, tmp_path_factory.mktemp("cached"), "partial", *DISK), cache / "features"


def assert_close_result(one: Path, other: Path) -> None:
    """The stated precision: float32 sums in another order, carried through training."""
    for a, b in zip(*(read_rows(folder / "curve.csv") for folder in (one, other)), strict=True):
        assert (a["loss"] is None) == (b["loss"] is None)
        if a["loss"] is None:
            assert a["validation"] == pytest.approx(b["validation"], abs=1e-3)
        else:
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    found, expected = (next(iter(read_record(f).scores.values())) for f in (one, other))
    assert found == {k: v if v is None else pytest.approx(v, abs=1e-3) for k, v in expected.items()}


def alone_as_in_a_batch(name: str) -> bool:
    """Whether this processor rounds the features of an image alike alone and among others."""
    weights = resolve_weights(BACKBONE, "random:3", Path())
    method = get_method(name)(load_backbone(weights, (64, 64)))
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([pack(method.prefix(image[None])) for image in images])
    return torch.equal(alone, pack(method.prefix(images)))


@pytest.mark.parametrize("method", ["lst", "partial", *SLOW])
def test_a_cached_run_has_the_result_of_one_without(data, tmp_path, place, method):
    more = ["--decoder", "fpn"]
    plain = finish(data, tmp_path / "plain", method, *more)
    kept_on_disk = finish(data, tmp_path / "disk", method, *more, *DISK)
    assert plain.name == kept_on_disk.name, "the cache is no part of the fingerprint"
    assert computed(kept_on_disk) == len(kept(place)) > IMAGES
    assert_close_result(plain, kept_on_disk)
    if alone_as_in_a_batch(method):
        assert_same_result(plain, kept_on_disk)


def test_wherever_features_are_kept_the_result_is_bit_equal(data, tmp_path, cached):
    first, place = cached
    shutil.copytree(place.parent, tmp_path / "cache")
    again = finish(data, tmp_path / "again", "partial", *DISK, "--set", "runtime.workers=1")
    assert computed(again) == 0
    in_memory = finish(data, tmp_path / "memory", "partial", *MEMORY)
    assert computed(in_memory) == computed(first)
    for other in (again, in_memory):
        assert_same_result(first, other)


def test_seeds_and_methods_share_features(data, tmp_path, place):
    first = finish(data, tmp_path / "one", "decoder_only", *DISK)
    sides, fpn = computed(first), [*DISK, "--decoder", "fpn"]
    assert computed(finish(data, tmp_path / "two", "linear_probe", *fpn)) == 0
    other_seed = finish(data, tmp_path / "three", "decoder_only", *DISK, "--seed", "1")
    assert 0 < computed(other_seed) < sides
    assert computed(finish(data, tmp_path / "four", "lst", *DISK)) == sides
    assert len([folder for folder in place.iterdir() if (folder / "key.json").exists()]) == 2


@pytest.mark.parametrize(
    "where", [DISK, pytest.param(MEMORY, marks=pytest.mark.slow)], ids=["disk", "memory"]
)
def test_an_interrupted_run_resumes_and_ends_bit_equal(data, tmp_path, cached, where):
    asked = arguments(data, tmp_path / "runs", "--method", "partial", *where)
    stopped = call_until(asked, 7, lambda: signal.raise_signal(signal.SIGINT))
    assert "interrupted after step 7 of 12" in stopped.stderr
    assert call(asked).code == 0
    assert_same_result(cached[0], only_run(tmp_path / "runs"))


def test_damaged_features_are_computed_again(data, tmp_path, place, cached):
    shutil.copytree(cached[1].parent, tmp_path / "cache")
    files = kept(place)
    files[0].write_bytes(files[0].read_bytes()[:100])
    changed = bytearray(files[1].read_bytes())
    changed[-1] ^= 1
    files[1].write_bytes(changed)
    shutil.copy(files[3], files[2])
    again = finish(data, tmp_path / "runs", "partial", *DISK)
    assert computed(again) == 3
    assert_same_result(cached[0], again)


def test_sound_files_of_other_features_are_noticed(data, tmp_path, place, cached):
    shutil.copytree(cached[1].parent, tmp_path / "cache")
    text = next(place.rglob("key.json")).read_text()
    shape = tuple(json.loads(text)["shape"])
    store = FeatureFolder(place, json.loads(text), shape)
    for pair in (data / "train" / "images").iterdir():
        for side in (False, True):
            view = View(hashlib.sha256(pair.read_bytes()).hexdigest(), side)
            if store.path(view).exists():
                store[view] = torch.rand(shape)
    done = call(arguments(data, tmp_path / "runs", "--method", "partial", *DISK))
    assert done.code == 3
    assert "delete that folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run_says_how_large_the_cache_will_be(data, tmp_path, place, cached):
    more = ["--method", "partial", *DISK, "--dry-run", "--json"]
    planned = json.loads(call(arguments(data, tmp_path / "runs", *more)).stdout)["features"]
    views = computed(cached[0])
    # The end of the last block and three taps, 17 tokens in float32.
    assert planned == {"views": views, "bytes": views * 4 * 17 * WIDTH * 4}
    said = call(arguments(data, tmp_path / "runs", *more[:-1])).stderr
    assert f"features of frozen blocks on disk: {views} of 0.02 MiB" in said
    assert not place.exists()


def test_test_images_are_kept_where_asked_for(data, tmp_path, place, cached):
    more = [*DISK, "--set", "runtime.cache_test=true"]
    first = finish(data, tmp_path / "one", "partial", *more)
    assert len(kept(place)) == len(kept(cached[1])) + 6
    record = read_record(first)
    assert record.test_opened == 1
    assert record.costs.inference_images_per_second is None
    assert computed(first) == len(kept(place))
    assert_close_result(cached[0], first)


@pytest.mark.slow
def test_two_processes_share_the_work(data, tmp_path, place, cached):
    more = [*DISK, "--set", "runtime.devices=2", "--set", "runtime.device=cpu"]
    runs = tmp_path / "runs"
    assert start(arguments(data, runs, "--method", "partial", *more)).wait() == 0
    assert computed(only_run(runs)) < len(kept(place)) == computed(cached[0])


# A feature cache without room, or with nothing to do: one sentence, and the run goes on.


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
