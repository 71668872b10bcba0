"""The manifest cache: nothing is read twice, and nothing changed is taken for the same."""

import json
import os
import time
import tracemalloc

import pytest
from drawn_files import fill, noise_image, square_mask, write

from lpmoe_bench.data import splits
from lpmoe_bench.data.pairs import find_pairs
from lpmoe_bench.data.splits import Split, check_pairs, make_split
from lpmoe_bench.errors import DataError

ABC = ("all.txt", ["a", "b", "c"])


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


def opened(folder, cache) -> Split:
    pairs = find_pairs(folder / "images", folder / "masks")
    return make_split(Split("mine", "", (), ""), "all", pairs, cache)


def forget(calls):
    for names in calls.values():
        names.clear()


def test_the_second_time_no_file_is_read(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    first = opened(folder, cache)
    notes = check_pairs(first, cache=cache)
    assert sorted(reads["hashed"]) == sorted(reads["decoded"]) == ["a", "b", "c"]
    forget(reads)
    told = []
    again = opened(folder, cache)
    assert again.digest == first.digest == opened(folder, None).digest
    forget(reads)
    assert check_pairs(again, lambda done, total: told.append((done, total)), cache) == notes
    assert reads == {"hashed": [], "decoded": []}
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_one_changed_file_is_read_again_and_no_other(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    first = opened(folder, cache)
    check_pairs(first, cache=cache)
    forget(reads)
    before = os.stat(folder / "masks/b.png")
    write(folder / "masks/b.png", square_mask((20, 30)) // 255)
    os.utime(folder / "masks/b.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    again = opened(folder, cache)
    assert again.digest != first.digest
    (note,) = check_pairs(again, cache=cache)
    assert "only 0 and 1" in note
    assert reads == {"hashed": ["b"], "decoded": ["b"]}


def test_a_change_that_hides_its_size_and_date_is_seen(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    first, path = opened(folder, cache), folder / "images/b.jpg"
    before, data = os.stat(path), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    time.sleep(0.02)  # one tick of the clock of files
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_size == before.st_size
    assert opened(folder, cache).digest != first.digest


def test_notes_of_masks_are_kept(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    write(folder / "masks/c.png", square_mask((20, 30)) * 0)
    split = opened(folder, cache)
    notes = check_pairs(split, cache=cache)
    assert "are empty (such as c)" in notes[0]
    forget(reads)
    assert check_pairs(split, cache=cache) == notes
    assert reads["decoded"] == []


def test_broken_pairs_are_never_taken_for_sound(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    (folder / "images/b.jpg").write_bytes(b"nonsense")
    split = opened(folder, cache)
    for _ in range(2):
        forget(reads)
        with pytest.raises(DataError, match="1 problems in the 3 pairs"):
            check_pairs(split, cache=cache)
    assert reads["decoded"] == ["b"]


def test_a_part_of_a_set_uses_and_keeps_the_rest(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    first = opened(folder, cache)
    forget(reads)
    part = make_split(first, "part", first.pairs[1:], cache)
    assert make_split(first, "all", first.pairs, cache).digest == first.digest
    assert reads["hashed"] == []
    assert part.digest == make_split(first, "part", first.pairs[1:]).digest


def test_files_younger_than_the_clock_can_tell_are_not_trusted(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(splits, "SETTLED_SECONDS", 3600)
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    opened(folder, cache)
    forget(reads)
    opened(folder, cache)
    assert sorted(reads["hashed"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 1, "rows": []}', '{"version": 0, "rows": {}}',
     '{"version": 1, "rows": {"a": [1, 2, 3, 4], "b": null, "c": ["s", "short", null, null]}}',
     "[" * 100_000],
)  # fmt: skip
def test_a_damaged_cache_is_made_again(tmp_path, reads, text):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    first = opened(folder, cache)
    (file,) = cache.iterdir()
    file.write_text(text)
    assert opened(folder, cache).digest == first.digest
    assert set(json.loads(file.read_text())["rows"]) == {"a", "b", "c"}


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, reads):
    folder, cache = fill(tmp_path / "set", ABC), tmp_path / "cache"
    cache.write_text("a file where the folder should be")
    first = opened(folder, cache)
    assert first.digest == opened(folder, None).digest
    assert check_pairs(first, cache=cache) == []


def test_an_opened_set_holds_its_names_and_nothing_of_its_pixels(tmp_path):
    """What 50,000 pairs hold is 50,000 times what is asserted here for one."""
    count, pixels = 60, noise_image((200, 300, 3))
    for k in range(count):
        write(tmp_path / "images" / f"p {k:05d}.png", pixels)  # 180 kB once decoded
        write(tmp_path / "masks" / f"p {k:05d}.png", square_mask((200, 300)))
    opened(tmp_path, tmp_path / "cache")
    tracemalloc.start()
    try:
        split = opened(tmp_path, tmp_path / "cache")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(split.pairs) == count
    assert held / count < 4000
