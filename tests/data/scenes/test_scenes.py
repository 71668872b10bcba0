"""Generated scenes."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lpmoe_bench.data.images import read_image, read_mask
from lpmoe_bench.data.pairs import find_pairs, read_names
from lpmoe_bench.data.scenes import cod
from lpmoe_bench.data.scenes.embedded import EmbeddedSet
from lpmoe_bench.data.scenes.generate import SETS, ensure_generated, generate_folder
from lpmoe_bench.errors import ResourceError, UsageError

SMALL = (132, 176)


@pytest.fixture(scope="module")
def scenes():
    return [cod.SET.scene(index, "test", shape=SMALL) for index in range(64)]


def test_objects_are_small_to_large_and_may_touch_the_border(scenes):
    masks = [mask for _, mask in scenes]
    shares = np.array([(mask > 0).mean() for mask in masks])
    assert shares.min() >= cod.SHARES[0] >= 0.02
    assert shares.max() <= cod.SHARES[1] <= 0.40
    assert shares.min() < 0.06
    assert shares.max() > 0.25
    touching = [m[0].any() or m[-1].any() or m[:, 0].any() or m[:, -1].any() for m in masks]
    assert 0.1 < np.mean(touching) < 0.9


def test_tones_inside_and_outside_are_alike(scenes):
    gaps = []
    for image, mask in scenes:
        grey = image.mean(axis=2)
        inside, outside = grey[mask > 0], grey[mask == 0]
        gaps.append((inside.mean() - outside.mean()) / outside.std())
    assert abs(np.mean(gaps)) < 0.15
    assert np.mean(np.abs(gaps)) < 0.4


COUNTS = {"train": 3, "test": 2}


def make(root, **options):
    return ensure_generated("generated_cod", root, counts=COUNTS, shape=(48, 64), **options)


def test_folder_has_the_standard_layout(tmp_path):
    told = []
    folder = make(tmp_path / "new" / "cache", report=lambda done, total: told.append((done, total)))
    assert sorted(p.name for p in folder.iterdir()) == [
        "SOURCE.txt", "images", "masks", "test.txt", "train.txt"
    ]  # fmt: skip
    assert told == [(done, 5) for done in range(1, 6)]
    for split, count in COUNTS.items():
        pairs = find_pairs(folder / "images", folder / "masks", read_names(folder / f"{split}.txt"))
        assert len(pairs) == count
        for index, pair in enumerate(pairs):
            image, mask = cod.SET.scene(index, split, shape=(48, 64))
            assert np.array_equal(read_image(pair.image), image)
            assert np.array_equal(read_mask(pair.mask), mask)


def test_a_finished_folder_is_not_drawn_again(tmp_path, monkeypatch):
    folder = make(tmp_path)
    monkeypatch.setattr(EmbeddedSet, "scene", None)
    assert make(tmp_path) == folder


def test_other_settings_have_other_folders(tmp_path):
    assert make(tmp_path) != make(tmp_path, seed=1)
    assert len(list(tmp_path.iterdir())) == 2


SCRIPT = (
    "import sys; from pathlib import Path;"
    "from lpmoe_bench.data.scenes.generate import ensure_generated;"
    "print(ensure_generated('generated_cod', Path(sys.argv[1]), shape=(48, 64),"
    " counts={'train': int(sys.argv[2]), 'test': 1}))"
)


def start(root: Path, count: int) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, str(root), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once(tmp_path):
    processes = [start(tmp_path, 20) for _ in range(2)]
    outcomes = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outcomes
    assert outcomes[0][0] == outcomes[1][0]
    (folder,) = tmp_path.iterdir()  # and nothing half-written beside it
    assert len(list((folder / "images").iterdir())) == 21


def test_a_killed_process_leaves_nothing_that_is_used(tmp_path):
    process = start(tmp_path, 5000)
    while not list(tmp_path.glob(".*/images/*.png")) and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("generated_cod*"))
    folder = make(tmp_path)
    assert len(list((folder / "images").iterdir())) == 5


def test_old_drafts_of_a_kill_are_cleared_away(tmp_path):
    name = make(tmp_path / "other").name
    old, young = tmp_path / f".{name}.old", tmp_path / f".{name}.young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    make(tmp_path)
    assert (old.exists(), young.exists()) == (False, True)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match="disk is full"):
        make(tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_set(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'generated_cod'"):
        ensure_generated("generated_cot", tmp_path)


# A folder of drawn scenes for people: its layout, its sizes, and what it refuses.


def test_a_folder_with_images_masks_and_lists(tmp_path):
    told = []
    folder = generate_folder("road", tmp_path / "new" / "roads", 7, 64, 3,
                      report=lambda done, total: told.append((done, total)))  # fmt: skip
    assert told[-1] == (7, 7)
    lists = {split: read_names(folder / f"{split}.txt") for split in ("train", "test")}
    assert {split: len(stems) for split, stems in lists.items()} == {"train": 5, "test": 2}
    (first, *_) = find_pairs(folder / "images", folder / "masks", lists["test"])
    image, mask = SETS["generated_road"].scene(0, "test", 3, size=64)
    assert (read_image(first.image) == image).all()
    assert (read_mask(first.mask) == mask).all()
    assert "seed 3" in (folder / "SOURCE.txt").read_text()


def test_more_scenes_are_the_same_scenes_and_more(tmp_path):
    few, many = (generate_folder("leaf", tmp_path / str(n), n, 48, empty=0.5) for n in (4, 8))
    for path in sorted((few / "images").iterdir()):
        assert path.read_bytes() == (many / "images" / path.name).read_bytes()


def test_an_empty_folder_may_be_there(tmp_path):
    (tmp_path / "here").mkdir()
    assert len(list((generate_folder("cod", tmp_path / "here", 2, 32) / "masks").iterdir())) == 2


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"task": "shadows"}, "did you mean 'shadow'"),
        ({"count": 1}, "--count is 1; it must be at least 2"),
        ({"size": 8}, "--size is 8; choose 32 to 4096 pixels"),
        ({"seed": -1}, "--seed is -1; it must be at least 0"),
        ({"empty": 1.5}, "--empty is 1.5; it is a part of all scenes"),
        ({"empty": 0.5}, "every image of sod has an object; drop it, or choose .*leaf"),
    ],
)
def test_refusals(tmp_path, wrong, sentence):
    with pytest.raises(UsageError, match=sentence):
        generate_folder(**({"task": "sod", "output": tmp_path / "new"} | wrong))
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already; choose a new folder"):
        generate_folder("cod", tmp_path, 2, 32)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
