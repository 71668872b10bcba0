"""Digests that follow content alone, the check of every file, and the cache of both."""

import json
import os
import time
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_files import fill, noise_image, square_mask, write

from lpmoe_bench.data import splits
from lpmoe_bench.data.pairs import find_pairs
from lpmoe_bench.data.scenes.generate import ensure_generated
from lpmoe_bench.data.splits import Split, check_pairs, make_split
from lpmoe_bench.errors import DataError


def opened(folder: Path, generated=False, cache: Path | None = None) -> Split:
    pairs = find_pairs(folder / "images", folder / "masks")
    return make_split(Split("mine", "", (), "", generated=generated), "all", pairs, cache)


# --- digests

ABC = ("all.txt", ["a", "b", "c"])


def test_digest_follows_content_not_place_order_or_dates(tmp_path):
    first = opened(fill(tmp_path / "one", ABC))
    other = fill(tmp_path / "two", ("all.txt", ["c", "b", "a"]))
    os.utime(other / "images/a.jpg", (0, 0))
    assert opened(other).digest == first.digest
    assert make_split(first, "other", first.pairs[::-1]).digest == first.digest
    assert len(first.digest) == 64


@pytest.mark.parametrize("kind", ["images/a.jpg", "masks/a.png"])
def test_digest_sees_one_changed_file(tmp_path, kind):
    first = opened(fill(tmp_path, ABC)).digest
    pixels = cv2.imread(str(tmp_path / kind), cv2.IMREAD_UNCHANGED)
    pixels[0, 0] = 255
    write(tmp_path / kind, pixels)
    assert opened(tmp_path).digest != first


def test_digest_sees_names_and_which_pairs(tmp_path):
    split = opened(fill(tmp_path, ABC))
    digests = {make_split(split, "part", split.pairs[:n]).digest for n in range(4)}
    (tmp_path / "images/a.jpg").rename(tmp_path / "images/d.jpg")
    (tmp_path / "masks/a.png").rename(tmp_path / "masks/d.png")
    assert len(digests | {opened(tmp_path).digest}) == 5


def test_digest_of_a_drawn_set_is_of_pixels(tmp_path):
    counts = {"train": 2}
    folder = ensure_generated("generated_cod", tmp_path, counts=counts, shape=(48, 64))
    first = opened(folder, generated=True)
    path = first.pairs[0].image
    pixels = cv2.imread(str(path))
    path.write_bytes(cv2.imencode(".png", pixels, (cv2.IMWRITE_PNG_COMPRESSION, 0))[1].tobytes())
    assert opened(folder, generated=True).digest == first.digest
    assert opened(folder).digest != first.digest  # by bytes
    pixels[0, 0, 0] ^= 1
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    assert opened(folder, generated=True).digest != first.digest


def test_a_file_that_goes_missing_is_a_sentence(tmp_path):
    split = opened(fill(tmp_path, ABC))
    split.pairs[1].mask.unlink()
    with pytest.raises(DataError, match=r"b\.png cannot be read"):
        make_split(split, "all", split.pairs)


# --- the check before training


def test_all_broken_files_are_reported_at_once(tmp_path):
    folder = fill(tmp_path, ("all.txt", [f"n{i:02d}" for i in range(20)]))
    split = opened(folder)
    (folder / "images/n01.jpg").write_bytes(b"")
    (folder / "masks/n01.png").write_bytes(b"nonsense")
    (folder / "images/n05.jpg").write_bytes((folder / "images/n05.jpg").read_bytes()[:-50])
    (folder / "masks/n09.png").unlink()
    write(folder / "masks/n12.png", np.zeros((20, 31), np.uint8))
    with pytest.raises(DataError) as caught:
        check_pairs(split)
    text = str(caught.value)
    assert text.startswith("5 problems in the 20 pairs of mine/all: ")
    for words in ("n01.jpg is empty", "n01.png cannot be decoded", "n05.jpg is truncated",
                  "n09.png does not exist", "n12.png is 31 x 20"):  # fmt: skip
        assert words in text
    for index in range(20):
        (folder / f"images/n{index:02d}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"20 of them, .*n00\.jpg, .*n02\.jpg: each is empty"):
        check_pairs(split)


def test_unusual_masks_are_noted_once_each(tmp_path):
    folder = fill(tmp_path, ("all.txt", list("abcdef")))
    split = opened(folder)
    mask = np.zeros((20, 30), np.uint8)
    write(folder / "masks/b.png", mask)
    mask[3:9, 3:9] = 1
    write(folder / "masks/c.png", mask)
    write(folder / "masks/d.png", mask)
    write(folder / "masks/e.png", mask * 240)
    assert check_pairs(split) == [
        "1 of 6 masks of mine/all hold grey levels; values above 128 count as object (such as e)",
        "2 of 6 masks of mine/all hold only 0 and 1; 1 counts as object (such as c)",
        "1 of 6 masks of mine/all are empty (such as b)",
    ]


# --- the cache: nothing is read twice, and nothing changed is taken for the same


@pytest.fixture
def reads(monkeypatch):
    """Files may be new here; returns the names of what was hashed and what was decoded."""
    monkeypatch.setattr(splits, "SETTLED_SECONDS", -1e9)
    calls: dict[str, list[str]] = {"hashed": [], "decoded": []}

    def spy(name, kind):
        real = getattr(splits, name)

        def spied(pair):
            calls[kind].append(pair.name)
            return real(pair)

        spied.__name__ = real.__name__
        monkeypatch.setattr(splits, name, spied)

    spy("_hash_files", "hashed")
    spy("inspect_pair", "decoded")
    return calls


def forget(calls):
    for names in calls.values():
        names.clear()


def test_the_second_time_no_file_is_read(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    first = opened(folder, cache=cache)
    notes = check_pairs(first, cache=cache)
    assert sorted(reads["hashed"]) == sorted(reads["decoded"]) == ["a", "b", "c"]
    forget(reads)
    told = []
    again = opened(folder, cache=cache)
    assert again.digest == first.digest == opened(folder).digest
    forget(reads)
    assert check_pairs(again, lambda done, total: told.append((done, total)), cache) == notes
    assert reads == {"hashed": [], "decoded": []}
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_one_changed_file_is_read_again_and_no_other(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    first = opened(folder, cache=cache)
    check_pairs(first, cache=cache)
    forget(reads)
    before = os.stat(folder / "masks/b.png")
    write(folder / "masks/b.png", square_mask((20, 30)) // 255)
    os.utime(folder / "masks/b.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    again = opened(folder, cache=cache)
    assert again.digest != first.digest
    (note,) = check_pairs(again, cache=cache)
    assert "only 0 and 1" in note
    assert reads == {"hashed": ["b"], "decoded": ["b"]}


def test_a_change_that_hides_its_size_and_date_is_seen(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    first, path = opened(folder, cache=cache), folder / "images/b.jpg"
    before, data = os.stat(path), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    time.sleep(0.02)  # one tick of the clock of files
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_size == before.st_size
    assert opened(folder, cache=cache).digest != first.digest


def test_notes_of_masks_are_kept(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    write(folder / "masks/c.png", square_mask((20, 30)) * 0)
    split = opened(folder, cache=cache)
    notes = check_pairs(split, cache=cache)
    assert "are empty (such as c)" in notes[0]
    forget(reads)
    assert check_pairs(split, cache=cache) == notes
    assert reads["decoded"] == []


def test_broken_pairs_are_never_taken_for_sound(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    (folder / "images/b.jpg").write_bytes(b"nonsense")
    split = opened(folder, cache=cache)
    for _ in range(2):
        forget(reads)
        with pytest.raises(DataError, match="1 problems in the 3 pairs"):
            check_pairs(split, cache=cache)
    assert reads["decoded"] == ["b"]


def test_a_part_of_a_set_uses_and_keeps_the_rest(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    first = opened(folder, cache=cache)
    forget(reads)
    part = make_split(first, "part", first.pairs[1:], cache)
    assert make_split(first, "all", first.pairs, cache).digest == first.digest
    assert reads["hashed"] == []
    assert part.digest == make_split(first, "part", first.pairs[1:]).digest


def test_files_younger_than_the_clock_can_tell_are_not_trusted(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(splits, "SETTLED_SECONDS", 3600)
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    opened(folder, cache=cache)
    forget(reads)
    opened(folder, cache=cache)
    assert sorted(reads["hashed"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 1, "rows": []}', '{"version": 0, "rows": {}}',
     '{"version": 1, "rows": {"a": [1, 2, 3, 4], "b": null, "c": ["s", "short", null, null]}}',
     "[" * 100_000],
)  # fmt: skip
def test_a_damaged_cache_is_made_again(tmp_path, reads, text):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    first = opened(folder, cache=cache)
    (file,) = cache.iterdir()
    file.write_text(text)
    assert opened(folder, cache=cache).digest == first.digest
    assert set(json.loads(file.read_text())["rows"]) == {"a", "b", "c"}


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    cache.write_text("a file where the folder should be")
    first = opened(folder, cache=cache)
    assert first.digest == opened(folder).digest
    assert check_pairs(first, cache=cache) == []


def test_an_opened_set_holds_its_names_and_nothing_of_its_pixels(tmp_path):
    """What 50,000 pairs hold is 50,000 times what is asserted here for one."""
    count, pixels = 60, noise_image((200, 300, 3))
    for k in range(count):
        write(tmp_path / "images" / f"p {k:05d}.png", pixels)  # 180 kB once decoded
        write(tmp_path / "masks" / f"p {k:05d}.png", square_mask((200, 300)))
    opened(tmp_path, cache=tmp_path / "cache")
    tracemalloc.start()
    try:
        split = opened(tmp_path, cache=tmp_path / "cache")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(split.pairs) == count
    assert held / count < 4000
