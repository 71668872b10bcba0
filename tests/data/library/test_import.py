"""`data import`: layouts of all kinds become an entry that can be used as it is."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from downloads import QUIET, zip_of
from drawn_files import noise_image, square_mask, write

from lpmoe_bench.data.audit.group_split import group_split
from lpmoe_bench.data.library.importing import import_set, recognise_ways
from lpmoe_bench.data.pairs import find_pairs
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.data.tasks import Folders, open_split, resolve
from lpmoe_bench.errors import DataError, UsageError

COD = load_registry().task("cod")


def draw(folder: Path, image: str, *masks: str, seed: int = 0) -> None:
    write(folder / image, noise_image((30, 40, 3), seed))
    for mask in masks:
        write(folder / mask, square_mask())


def brought(source: Path, tmp_path: Path, **how):
    file = tmp_path / "mine.yaml"
    made = import_set(source, COD, file, tmp_path / "cache", QUIET, **how)
    return made, load_registry(file)


def six(folder: Path, image: str, *masks: str) -> None:
    for k in range(6):
        draw(folder, image.format(k), *(mask.format(k) for mask in masks), seed=10 + k)


@pytest.mark.parametrize(
    ("image", "masks", "places"),
    [
        ("images/{0}.jpg", ["masks/{0}.png"], ("images", "masks")),
        ("imgs/{0}.jpg", ["gt/{0}_mask.png"], ("imgs/{name}", "gt/{name}_mask")),
        ("photos/{0}.jpg", ["masks/{0}.png"], ("photos", "masks")),
        ("x ({0}).png", ["x ({0})_mask.png", "x ({0})_mask_1.png"], ("**/*", "**/*_mask*")),
        ("p{0}/p{0}_Image/p{0}.bmp", ["p{0}/p{0}_lesion/p{0}_lesion.bmp"],
         ("{name}/{name}_Image/{name}", "{name}/{name}_lesion/{name}_lesion")),
        ("a/b/c/d/e/f/g/images/{0}.jpg", ["a/b/c/d/e/f/g/masks/{0}.png"],
         ("a/b/c/d/e/f/g/images", "a/b/c/d/e/f/g/masks")),
    ],
)  # fmt: skip
def test_a_layout_becomes_an_entry_with_a_split(tmp_path, image, masks, places):
    six(tmp_path / "Set 1", image, *masks)
    made, registry = brought(tmp_path / "Set 1", tmp_path)
    assert made.name == "set_1"
    assert tuple(made.places["train"]) == places
    assert made.counts == {"train": 5, "test": 1}
    dataset = registry.dataset("set_1")
    splits = {name: open_split(dataset, name, None) for name in ("train", "test")}
    names = {name: [pair.name for pair in split.pairs] for name, split in splits.items() if split}
    assert len(names["train"]) == 5
    assert not set(names["train"]) & set(names["test"])
    data = resolve(registry.task("set_1"), registry, None, generated_root=tmp_path / "cache")
    assert data.train.label == "set_1/train"
    assert registry.task("set_1").protocol == "cod"


def test_parts_that_are_there_are_kept(tmp_path):
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        for k in range(count):
            draw(tmp_path / "set", f"{part}/img/{k}.jpg", f"{part}/gt/{k}.png")
    made, registry = brought(tmp_path / "set", tmp_path)
    assert made.counts == {"test": 2, "train": 3, "val": 1}
    data = resolve(registry.task("set"), registry, None, generated_root=tmp_path / "cache")
    assert data.validation is not None
    assert [s.label for s in (data.train, data.validation, *data.tests)] == [
        "set/train", "set/val", "set/test"
    ]  # fmt: skip


def test_an_archive_is_unpacked_into_the_data_folder(tmp_path):
    six(tmp_path / "tree", "deep/er/images/{0}.jpg", "deep/er/masks/{0}.png")
    archive = zip_of(tmp_path / "tree", tmp_path / "mine.zip")
    made, registry = brought(archive, tmp_path, root=tmp_path / "data")
    assert made.folder == tmp_path / "data/mine"
    assert open_split(registry.dataset("mine"), "train", tmp_path / "data") is not None
    (tmp_path / "mine.yaml").unlink()
    with pytest.raises(DataError, match="is there already; give another --name"):
        brought(archive, tmp_path, root=tmp_path / "data")
    with pytest.raises(DataError, match="set LPMOE_BENCH_DATA or give --data-root"):
        brought(archive, tmp_path)


def test_broken_pairs_are_refused_or_left_out(tmp_path):
    six(tmp_path / "set", "images/{0}.jpg", "masks/{0}.png")
    (tmp_path / "set/images/3.jpg").write_bytes(b"no image")
    draw(tmp_path / "set", "images/lonely.jpg")
    with pytest.raises(DataError, match="lonely"):
        brought(tmp_path / "set", tmp_path)
    made, _ = brought(tmp_path / "set", tmp_path, skip=True)
    assert sum(made.counts.values()) == 5
    assert "2 left out" in made.text


def test_parts_that_are_there_go_on_without_what_was_left_out(tmp_path):
    for part, count in (("train", 4), ("test", 2)):
        for k in range(count):
            draw(tmp_path / "set", f"{part}/img/{k}.jpg", f"{part}/gt/{k}.png", seed=k)
    (tmp_path / "set/train/img/3.jpg").write_bytes(b"no image")
    draw(tmp_path / "set", "train/img/lonely.jpg")
    made, registry = brought(tmp_path / "set", tmp_path, skip=True)
    assert made.counts == {"test": 2, "train": 3}
    data = resolve(registry.task("set"), registry, None, generated_root=tmp_path / "cache")
    assert [pair.name for pair in data.train.pairs] == ["0", "1", "2"]
    draw(tmp_path / "set", "train/img/later.jpg")  # nobody has left this one out
    with pytest.raises(DataError, match=r"1 names of set/train have .*: later \(no mask\)"):
        open_split(registry.dataset("set"), "train", None)


def test_what_is_there_is_not_overwritten(tmp_path):
    six(tmp_path / "set", "images/{0}.jpg", "masks/{0}.png")
    brought(tmp_path / "set", tmp_path)
    with pytest.raises(UsageError, match="exists already; name another file"):
        brought(tmp_path / "set", tmp_path)


def test_what_is_not_recognised_shows_what_to_write(tmp_path):
    draw(tmp_path / "set", "one/a.jpg")
    draw(tmp_path / "set", "two/b.jpg")
    with pytest.raises(DataError, match=r"no layout is recognised .*such as one/a\.jpg"):
        recognise_ways(tmp_path / "set")


# --- splits without leaks


def test_copies_and_frames_of_one_folder_stay_together(tmp_path):
    for k in range(8):
        image = noise_image((30, 40, 3), seed=k)
        for copy, change in (("a", 0), ("b", 3)):  # the second one is a little brighter
            pixels = np.clip(image.astype(int) + change, 0, 255).astype(np.uint8)
            write(tmp_path / f"images/{k}{copy}.png", pixels)
            write(tmp_path / f"masks/{k}{copy}.png", square_mask())
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    places = (tmp_path / "cache", tmp_path / "cache")
    train, test, said = group_split(pairs, 0.25, *places)
    assert len(test) == 4
    assert {p.name[0] for p in train}.isdisjoint({p.name[0] for p in test})
    assert "4 of 16 images" in said
    assert group_split(pairs, 0.25, *places)[1] == test
    # Videos by hand: four groups of four.
    groups = {pair.name: str(int(pair.name[0]) % 4) for pair in pairs}
    _, test, _ = group_split(pairs, 0.25, *places, groups)
    assert len({groups[pair.name] for pair in test}) == 1
    with pytest.raises(DataError, match="one group"):
        group_split(pairs, 0.25, *places, dict.fromkeys(groups, "all"))
    with pytest.raises(UsageError, match="--split is 2"):
        group_split(pairs, 2, *places)


def test_own_folders_are_divided_and_broken_files_left_out(tmp_path):
    six(tmp_path, "images/{0}.jpg", "masks/{0}_gt.png")
    (tmp_path / "images/2.jpg").write_bytes(b"")
    images, masks = tmp_path / "images", tmp_path / "masks"
    registry = load_registry()

    def data(**how):
        folders = Folders(images, masks, **how)
        return resolve(COD, registry, None, folders, generated_root=tmp_path / "cache")

    found = data(share=0.4, skip_broken=True)
    assert (len(found.train.pairs), len(found.tests[0].pairs)) == (3, 2)
    assert [note.partition(":")[0] for note in found.notes[:2]] == ["own/train", "own/train"]
    assert "image {name}, mask {name}_gt" in found.notes[0]
    assert "1 left out as broken" in found.notes[1]
    assert "a local split" in found.notes[2]
    found = data(test_images=images, test_masks=masks, val_images=images, val_masks=masks,
                 skip_broken=True)  # fmt: skip
    assert found.validation is not None
    assert found.validation.label == "own/val"
    with pytest.raises(UsageError, match=r"--split 0\.2"):
        data()
    with pytest.raises(UsageError, match="--val-images and --val-masks go together"):
        data(share=0.2, val_images=images)


def test_the_written_file_is_plain_yaml(tmp_path):
    six(tmp_path / "set", "images/{0}.jpg", "masks/{0}.png")
    made, _ = brought(tmp_path / "set", tmp_path)
    content = yaml.safe_load(made.file.read_text())
    assert content["datasets"]["set"]["splits"] == {
        "train": "set_train.txt",
        "test": "set_test.txt",
    }
    assert content["datasets"]["set"]["local"] == ["train", "test"]
    assert "run --task set" in made.text
    assert made.as_json()["splits"]["test"]["pairs"] == 1
