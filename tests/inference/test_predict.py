"""`predict`: any size and kind of file, trees of folders, broken files, nothing overwritten."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_runs import call, draw_pairs

from lpmoe_bench.data.pairs import find_pairs
from lpmoe_bench.data.splits import Split
from lpmoe_bench.data.tasks import TaskData
from lpmoe_bench.errors import UsageError
from lpmoe_bench.inference.prediction import find_images
from lpmoe_bench.records.model import record_digest


@pytest.fixture
def run(finished) -> Path:
    return finished


def draw(path: Path, height: int, width: int, channels: int = 3, kind: type = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    top = np.iinfo(kind).max
    pixels = np.random.default_rng(height + width).integers(0, top, (height, width, channels))
    assert cv2.imwrite(str(path), pixels.astype(kind).squeeze(axis=2 if channels == 1 else ()))


def shape(path: Path) -> tuple[int, ...]:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape


def test_any_size_and_kind_of_image(run, tmp_path):
    images, out = tmp_path / "in", tmp_path / "out"
    sizes = {"one": (1, 1), "odd": (37, 53), "long": (20, 1500), "tall": (700, 1)}
    sizes |= {"big": (260, 333)}
    for name, sides in sizes.items():
        draw(images / f"{name}.png", *sides)
    draw(images / "grey.png", 30, 40, 1)
    draw(images / "alpha.png", 30, 40, 4)
    draw(images / "deep.png", 30, 40, 3, np.uint16)
    done = call(["predict", str(run), str(images), "-o", str(out), "--json"])
    assert done.code == 0, done.stderr
    names = [*sizes, "grey", "alpha", "deep"]
    for name in names:
        sides = sizes.get(name, (30, 40))
        assert shape(out / f"{name}.png") == sides
        assert shape(out / f"{name}_overlay.jpg") == (*sides, 3)
    report = json.loads(done.stdout)
    assert sorted(Path(one["image"]).stem for one in report["written"]) == sorted(names)
    assert report["failed"] == []
    assert len(list(out.iterdir())) == 2 * len(names)  # no temporary file is left


def test_tile_changes_large_images_alone(run, tmp_path):
    draw(tmp_path / "in" / "small.png", 128, 128)  # twice the training size of 64
    draw(tmp_path / "in" / "large.png", 129, 128)
    for tile in ("auto", "never"):
        more = ["--tile", tile] if tile == "auto" else []  # images are seen as they are scored
        done = call(["predict", str(run), str(tmp_path / "in"), "-o", str(tmp_path / tile), *more])
        assert done.code == 0, done.stderr
        assert ("1 of 2 images were seen in windows of 128" in done.stderr) == (tile == "auto")
    maps = {
        (tile, name): cv2.imread(str(tmp_path / tile / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        for tile in ("auto", "never")
        for name in ("small", "large")
    }
    assert (maps["auto", "small"] == maps["never", "small"]).all()
    assert (maps["auto", "large"] != maps["never", "large"]).any()


def test_threshold_writes_masks_of_the_same_maps(run, tmp_path):
    draw(tmp_path / "a.png", 50, 60)
    for folder, more in (("maps", []), ("masks", ["--threshold", "0.4"])):
        done = call(
            ["predict", str(run), str(tmp_path / "a.png"), "-o", str(tmp_path / folder), *more]
        )
        assert done.code == 0, done.stderr
    pred, mask = (
        cv2.imread(str(tmp_path / folder / "a.png"), cv2.IMREAD_UNCHANGED)
        for folder in ("maps", "masks")
    )
    assert (mask == np.where(pred > 102, 255, 0)).all()


def test_broken_files_cost_their_own_outputs_alone(run, tmp_path):
    images, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "c"):
        draw(images / f"{name}.png", 30, 40)
    (images / "b.png").write_bytes((images / "a.png").read_bytes()[:-20])
    (images / "d.jpg").write_bytes(b"")
    os.mkfifo(images / "e.png")
    (out).mkdir()
    (out / "a.png").write_text("an older map")
    absent = images / "absent.png"
    done = call(["predict", str(run), str(images), str(absent), "-o", str(out), "--json"])
    assert done.code == 3
    assert "Traceback" not in done.stderr
    broken = ("b.png is truncated", "d.jpg is empty", "e.png cannot be read (it is a pipe)")
    for sentence in (*broken, "absent.png does not exist"):
        assert sum(sentence in line for line in done.stderr.splitlines() if "left out" in line) == 1
    assert "4 of 6 images could not be read" in done.stderr
    assert sorted(p.name for p in out.iterdir()) == [
        f"{name}{ending}" for name in "ac" for ending in (".png", "_overlay.jpg")
    ]
    assert shape(out / "a.png") == (30, 40)
    assert len(json.loads(done.stdout)["failed"]) == 4


def test_a_usage_error_is_said_before_anything_is_read(run, tmp_path):
    draw(tmp_path / "a.png", 9, 9)
    one = str(tmp_path / "a.png")
    for more, sentence in (
        ([one, "--tile", "big"], "--tile is 'big'"),
        ([one, "-o", str(tmp_path)], "would be overwritten"),
    ):
        done = call(["predict", str(run), "-o", str(tmp_path / "out"), *more])
        assert done.code == 2
        assert sentence in done.stderr
    assert not list(tmp_path.rglob("*_overlay*"))


def names(*places: Path, output: Path = Path("nowhere")) -> list[str]:
    return [source.name.as_posix() for source in find_images(places, output)]


def test_outputs_mirror_the_tree(tmp_path):
    for path in ("x/1.png", "x/deep/1.png", "y/1.png", "y/2.png", ".hidden/1.png", "x/.2.png"):
        draw(tmp_path / path, 2, 2)
    (tmp_path / "x" / "notes.txt").write_text("no image")
    assert names(tmp_path / "x") == ["1", "deep/1"]
    assert names(tmp_path) == ["x/1", "x/deep/1", "y/1", "y/2"]
    assert names(tmp_path / "x", tmp_path / "y") == ["x/1", "x/deep/1", "y/1", "y/2"]
    assert names(tmp_path / "y" / "1.png", tmp_path / "y" / "2.png") == ["1", "2"]
    assert names(tmp_path / "x" / "1.png", tmp_path / "y" / "1.png") == ["x/1", "y/1"]
    assert names(tmp_path / "y" / "1.png", tmp_path / "y") == ["1", "2"]  # each once
    assert names(tmp_path / "y" / "1.png") == ["1"]


def test_a_suffix_tells_two_images_of_one_name_apart(tmp_path):
    for path in ("a.png", "a.bmp", "b.c.png"):
        draw(tmp_path / path, 2, 2)
    assert names(tmp_path) == ["a.bmp", "a.png", "b.c"]
    draw(tmp_path / "a.png.png", 2, 2)
    with pytest.raises(UsageError, match=r"two images would be called a\.png"):
        names(tmp_path)


def test_outputs_are_no_images_and_overwrite_none(tmp_path):
    draw(tmp_path / "in" / "a.png", 2, 2)
    draw(tmp_path / "in" / "out" / "a.png", 2, 2)
    assert names(tmp_path / "in", output=tmp_path / "in" / "out") == ["a"]
    with pytest.raises(UsageError, match="would be overwritten"):
        names(tmp_path / "in", output=tmp_path / "in")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images in"):
        names(tmp_path / "empty")


def test_picture_is_of_the_runs_own_task(run, tmp_path, monkeypatch):
    asked = []

    def drawn(task, registry, root, folders, embedded, *_):
        asked.append((task.name, embedded))
        pairs = find_pairs(tmp_path / "scenes" / "images", tmp_path / "scenes" / "masks")
        split = Split("scenes", "test", tuple(pairs), "")
        return TaskData(split, [split], [])

    draw_pairs(tmp_path / "scenes", 5, seed=3)
    monkeypatch.setattr("lpmoe_bench.report.figure.tasks.resolve", drawn)
    other = tmp_path / "other"
    shutil.copytree(run, other)
    text = (other / "run.json").read_text().replace('"task": "cod"', '"task": "leaf"')
    content = json.loads(text)
    content["seal"]["record"] = record_digest(content)
    (other / "run.json").write_text(json.dumps(content))
    for folder, task in ((run, "cod"), (other, "leaf")):
        done = call(["picture", str(folder), "--count", "2", "-o", str(tmp_path / "p.png")])
        assert done.code == 0, done.stderr
        assert asked.pop() == (task, True)
        assert "note: picture is now figure RUNS --embedded --rows even" in done.stderr
        height, width = shape(tmp_path / "p.png")[:2]
        assert width == pytest.approx(6.9 * 300, abs=1)  # image, mask and map, of two images
        assert height == pytest.approx(2 * width / 3 * 60 / 80 + 0.28 * 300, rel=0.03)
    refused = call(["picture", str(run), str(other), "-o", str(tmp_path / "p.png")])
    assert (refused.code, "several tasks, cod and leaf" in refused.stderr) == (2, True)


def test_photographs_of_telephones_are_not_passed_over(tmp_path):
    for name in ("a.heic", "b.HEIF", "c.avif"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    assert [s.file.name for s in find_images([tmp_path], tmp_path / "out")] == [
        "a.heic", "b.HEIF", "c.avif"
    ]  # fmt: skip
