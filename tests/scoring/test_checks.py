"""Unusual maps: each is read as it is meant, counted and said, or refused with a sentence."""

import cv2
import numpy as np
import pytest
from drawn_maps import draw_folders, draw_map, draw_mask, save, score_folders, stored

from lpmoe_bench.data.maps import inspect_map, seen_in_8_bits
from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.scoring.work import CHECKS

MAP, MASK = draw_map(0), draw_mask(0)


def three(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., None], 3, axis=2)


def alpha(pixels: np.ndarray, level: int) -> np.ndarray:
    return np.dstack([three(pixels), np.full(pixels.shape, level, np.uint8)])


@pytest.mark.parametrize(
    ("suffix", "pixels", "kinds", "expected"),
    [
        (".png", MAP, (), MAP),
        (".bmp", MAP, (), MAP),
        (".png", three(MAP), ("three channels",), MAP),
        (".png", alpha(MAP, 255), ("three channels",), MAP),
        (".png", alpha(MAP, 0), ("transparent", "three channels"), MAP * 0),
        (".png", MAP.astype(np.uint16) * 200, ("16 bits",), MAP.astype(np.uint16) * 200),
        (".tif", MAP / 256, ("floats",), MAP / 256),
        (".tif", MAP.astype(np.float32) / 256, ("floats",), MAP / 256),
        (".png", np.zeros((4, 5), np.uint16), ("16 bits",), np.zeros((4, 5), np.uint16)),
        (".png", three(MAP).astype(np.uint16) * 257, ("16 bits", "three channels"), MAP * 257.0),
        (".png", three(MASK) * np.uint8([1, 0, 0]), ("in two colours",), MASK),
        (".png", np.dstack([MAP, MAP // 2, MAP]), ("colours",), None),
    ],
)
def test_reading(tmp_path, suffix, pixels, kinds, expected):
    found, seen = inspect_map(save(tmp_path / f"a{suffix}", pixels))
    own = {"16 bits": np.uint16, "floats": np.float64}.get(kinds[0] if kinds else "", np.uint8)
    assert (found.dtype, found.shape, seen) == (own, pixels.shape[:2], kinds)
    if expected is not None:
        assert np.array_equal(found, expected)


def test_pictures_of_16_bits_and_floats_round_half_up():
    values = np.arange(0, 65536, 7, dtype=np.uint16).reshape(1, -1)
    expected = np.floor(values / 65535 * 255 + 0.5).astype(np.uint8)
    assert np.array_equal(seen_in_8_bits(values), expected)
    assert np.array_equal(seen_in_8_bits(values / 65535), expected)
    assert seen_in_8_bits(MAP) is MAP


def test_jpeg_is_noticed_and_near_grey_is_grey(tmp_path):
    found, seen = inspect_map(save(tmp_path / "a.jpg", MAP))
    assert seen == ("jpeg",)
    assert found.shape == MAP.shape
    _, seen = inspect_map(save(tmp_path / "b.jpg", three(MAP)))
    assert seen == ("jpeg", "three channels")


@pytest.mark.parametrize(
    ("suffix", "pixels", "words"),
    [
        (".png", MAP.astype(np.uint16), "16 bits but no value above 255"),
        (".tif", MAP.astype(np.float32), "floats outside of 0 to 1"),
        (".tif", np.full((4, 4), np.nan, np.float32), "or NaN"),
    ],
)
def test_values_that_may_mean_two_things_are_refused(tmp_path, suffix, pixels, words):
    with pytest.raises(DataError, match=words):
        inspect_map(save(tmp_path / f"a{suffix}", pixels))


UNUSUAL = {
    "resized": ("p1.png", cv2.resize(draw_map(1), (72, 48))),
    "jpeg": ("p1.jpg", draw_map(1)),
    "transposed": ("p1.png", np.ascontiguousarray(draw_map(1).T)),
    "16 bits": ("p1.png", draw_map(1).astype(np.uint16) * 257),
    "floats": ("p1.tif", draw_map(1).astype(np.float32) / 255),
    "three channels": ("p1.png", three(draw_map(1))),
    "in two colours": ("p1.png", three(draw_mask(1)) * np.uint8([0, 1, 1])),
    "colours": ("p1.png", np.dstack([draw_map(1), draw_map(1) // 2, draw_map(1) // 3])),
    "transparent": ("p1.png", alpha(draw_map(1), 200)),
    "constant": ("p1.png", np.full((24, 36), 9, np.uint8)),
    "0 and 1": ("p1.png", (draw_map(1) > 90).astype(np.uint8)),
    "two values": ("p1.png", np.where(draw_map(1) > 90, 200, 10).astype(np.uint8)),
    "narrow": ("p1.png", draw_map(1) // 3 + 100),
    "faint": ("p1.png", draw_map(1) // 2),
    "inverted": ("p1.png", 255 - draw_map(1)),
    "mask": ("p1.png", draw_mask(1)),
}


def test_every_check_is_tried():
    of_objects = {"no scores", "listed alone", "nothing", "truth"}  # see test_object_jobs
    assert UNUSUAL.keys() | of_objects == CHECKS.keys()


@pytest.mark.parametrize("check", UNUSUAL)
def test_a_check_is_counted_and_named(tmp_path, check):
    draw_folders(tmp_path, 3, ("A",))
    name, pixels = UNUSUAL[check]
    (tmp_path / "A" / "p1.png").unlink()
    save(tmp_path / "A" / name, pixels)
    outcome, notes, _ = score_folders(tmp_path)
    key, words = CHECKS[check]
    record, _ = stored(outcome)
    (counts,) = record.counts.values()
    assert counts[key] == 1
    mine = [note for note in notes if words in note]
    assert len(mine) == 1
    assert "1 of 3 maps" in mine[0]
    assert "(p1)" in mine[0]
    assert any(words in note for note in record.notes)


def test_sound_maps_raise_no_check(tmp_path):
    outcome, notes, _ = score_folders(draw_folders(tmp_path, 3))
    record, _ = stored(outcome)
    (counts,) = record.counts.values()
    assert not notes
    assert not record.notes
    assert counts.keys().isdisjoint(key for key, _ in CHECKS.values())


def test_stretching_and_inversion_are_said_in_words(tmp_path):
    draw_folders(tmp_path, 3, ("A", "B"))
    for seed in range(3):
        save(tmp_path / "A" / f"p{seed}.png", 255 - draw_map(seed))
        save(tmp_path / "B" / f"p{seed}.png", draw_map(seed) // 4)
    _, notes, _ = score_folders(tmp_path, "A", "B")
    assert any("3 of 3 maps" in n and "they look inverted" in n for n in notes)
    assert any("cod stretches each to the full range (p0, p1, p2)" in n for n in notes)
    _, notes, _ = score_folders(tmp_path, "B", protocol="glass")
    assert any("glass does not stretch them" in note for note in notes)


def test_maps_of_0_and_1_are_refused_where_they_would_count_as_background(tmp_path):
    draw_folders(tmp_path, 3, ("A",))
    for seed in range(3):
        save(tmp_path / "A" / f"p{seed}.png", draw_mask(seed) // 255)
    assert PROTOCOLS["glass"].normalisation == "none"
    with pytest.raises(DataError, match="nothing above 1 of 255, and protocol glass does not"):
        score_folders(tmp_path, protocol="glass")
    outcome, _, _ = score_folders(tmp_path)  # stretched, they are what was meant
    assert stored(outcome)[0].scores["/".join((tmp_path.name, "masks"))]["mae"] == 0


def test_swapped_folders_are_asked_about(tmp_path):
    draw_folders(tmp_path, 3, ("A",))
    (tmp_path / "A").rename(tmp_path / "soft")
    (tmp_path / "masks").rename(tmp_path / "A")
    (tmp_path / "soft").rename(tmp_path / "masks")
    outcome, notes, _ = score_folders(tmp_path)
    assert sum("are the two folders swapped?" in note for note in notes) == 1
    assert any("folders swapped?" in note for note in stored(outcome)[0].notes)
    save(tmp_path / "masks" / "p0.png", draw_mask(0))  # one sound mask: they are not
    _, notes, _ = score_folders(tmp_path)
    assert not any("are the two folders swapped?" in note for note in notes)


def test_masks_of_0_and_1_or_grey_are_said_once(tmp_path):
    draw_folders(tmp_path, 3)
    save(tmp_path / "masks" / "p0.png", draw_mask(0) // 255)
    save(tmp_path / "masks" / "p1.png", np.where(draw_mask(1) > 0, 245, 10).astype(np.uint8))
    outcome, notes, _ = score_folders(tmp_path, "A", "B")
    assert len([n for n in notes if "1 of 3 masks hold only 0 and 1" in n]) == 1
    assert len([n for n in notes if "1 of 3 masks hold grey levels" in n]) == 1
    for index in (0, 1):
        assert sum("masks hold" in note for note in stored(outcome, index)[0].notes) == 2


def test_a_masks_threshold_is_the_protocols(tmp_path):
    grey = draw_mask(0)
    grey[::2][grey[::2] > 0] = 127  # above 125, not above 128
    save(tmp_path / "masks" / "p0.png", grey)
    save(tmp_path / "A" / "p0.png", draw_mask(0))
    outcome, _, _ = score_folders(tmp_path, protocol="shadow_sbu")
    (scores,) = stored(outcome)[0].scores.values()
    assert scores["ber_dataset"] == 0
    outcome, _, _ = score_folders(tmp_path)
    (scores,) = stored(outcome)[0].scores.values()
    assert scores["mae"] > 0.05
    grey[grey > 0] = 127
    save(tmp_path / "masks" / "p0.png", grey)
    with pytest.raises(DataError, match="only values above 128 of 255 count"):
        score_folders(tmp_path)


def test_all_broken_files_are_named_at_once(tmp_path):
    draw_folders(tmp_path, 4)
    (tmp_path / "A" / "p0.png").write_bytes(b"")
    (tmp_path / "A" / "p1.png").write_bytes(b"no image")
    data = (tmp_path / "B" / "p2.png").read_bytes()
    (tmp_path / "B" / "p2.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "masks" / "p3.png").write_bytes(data[:20])
    with pytest.raises(DataError, match=r"4 files of .* cannot be scored") as caught:
        score_folders(tmp_path, "A", "B")
    for words in ("p0.png is empty", "p1.png cannot be decoded", "p2.png is truncated", "p3.png"):
        assert words in str(caught.value)
    assert not list(tmp_path.rglob("run.json"))
