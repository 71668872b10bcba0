"""What is unusual about images is said with their names; records of one folder wait in line."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_maps import draw_folders, draw_map, out, save, score_folders, stored

from lpmoe_bench.files import hold_lock
from lpmoe_bench.records.store import find_records
from lpmoe_bench.scoring import scoring
from lpmoe_bench.scoring.work import flag_sentences

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "maps"


def last_row(pixels):
    pixels[-1, 10:30] = 255


def whole(pixels):
    pixels[:] = 255


@pytest.mark.parametrize(
    ("draw", "flag", "words"),
    [
        (last_row, "s_undefined", "the S-measure leaves out the empty quadrants"),
        (whole, "full_masks", "its mask is object throughout"),
    ],
)
def test_a_flag_is_said_with_the_images_name(tmp_path, draw, flag, words):
    draw_folders(tmp_path, 3, ("A",))
    mask = np.zeros((24, 36), np.uint8)
    draw(mask)
    save(tmp_path / "masks" / "p1.png", mask)
    shown = out(tmp_path, "--protocol", "cod")
    (line,) = [line for line in shown.stderr.splitlines() if words in line]
    assert "1 of 3 images" in line
    assert line.endswith("(p1)")
    (record,) = find_records([tmp_path / "runs"]).records
    assert next(iter(record.counts.values()))[flag] == 1
    assert any(words in note for note in record.notes)


def test_every_flag_that_no_check_says_is_said():
    rows = [{"image": "p0", "flags": "s_unstable;empty_mask"}, {"image": "p1", "flags": ""}]
    (said,) = flag_sentences(rows)
    assert said.startswith("1 of 2 images are unusual: a quadrant is constant in map and mask")
    assert said.endswith("(p0)")


def test_two_near_levels_are_stretched_and_said(tmp_path):
    draw_folders(tmp_path, 2, ("A",))
    save(tmp_path / "A" / "p1.png", np.where(draw_map(1) > 99, 102, 100).astype(np.uint8))
    _, notes, _ = score_folders(tmp_path)
    said = " ".join(note for note in notes if "(p1)" in note)
    for words in ("two values only", "cod stretches each to the full range", "above half of"):
        assert words in said


def test_nothing_above_half_is_no_object_where_nothing_is_stretched(tmp_path):
    draw_folders(tmp_path, 2, ("A",))
    save(tmp_path / "A" / "p1.png", draw_map(1) // 2)
    _, notes, _ = score_folders(tmp_path, protocol="glass")
    (said,) = [note for note in notes if "above half" in note]
    assert "glass does not stretch them, so that they have no object (p1)" in said


def test_of_three_at_once_no_record_is_lost(tmp_path):
    draw_folders(tmp_path, 2, ("A",))
    command = [sys.executable, "-m", "lpmoe_bench", "score", str(tmp_path / "A"), "--gt",
               str(tmp_path / "masks"), "--protocol", "cod", "--runs", str(tmp_path / "runs"),
               "--force", "--quiet"]  # fmt: skip
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [(one.communicate()[1], one.returncode) for one in running] == [(b"", 0)] * 3
    (place,) = (tmp_path / "runs" / "scored" / "own" / "A").iterdir()
    names = sorted(path.name for path in place.glob("*run.json"))
    assert names == ["run.json", "superseded-1-run.json", "superseded-2-run.json"]


def test_who_comes_second_takes_the_record_of_the_first(tmp_path, monkeypatch):
    """While one scores, another writes the record of the same maps."""
    _, _, plan = score_folders(draw_folders(tmp_path, 2, ("A",)))
    place, away = plan.places[0], tmp_path / "away"
    shutil.move(place, away)
    score = scoring.score_set

    def slow(*given):
        found = score(*given)
        shutil.copytree(away, place)
        return found

    monkeypatch.setattr(scoring, "score_set", slow)
    outcome, _, _ = score_folders(tmp_path)
    assert (place / "run.json").read_bytes() == (away / "run.json").read_bytes()
    assert not list(place.glob("superseded*"))
    assert stored(outcome)[0] == outcome.records[0].record


def test_a_lock_that_is_never_given_back_is_a_sentence(tmp_path, monkeypatch):
    _, _, plan = score_folders(draw_folders(tmp_path, 2, ("A",)))
    monkeypatch.setattr(scoring, "WAIT", 0.05)
    lock = hold_lock(plan.places[0] / ".lock")
    assert lock is not None
    with lock:
        shown = out(tmp_path, "--protocol", "cod", "--force")
    assert shown.exit_code
    assert "is written by another process" in str(shown.exception) + shown.output


# Folders that once went wrong, where they are at hand.

SCORES = {
    "00_base": (0.92584, 0.76570),
    "20c_16bit_1000": (0.92584, 0.76573),
    "22b_dblext": (0.92584, 0.76570),
    "22c_sal_fuse": (0.92584, 0.76570),
    "23c_video": (0.92584, 0.76570),
    "53_symlink": (0.92584, 0.76570),
    "60_exif_map": (0.926, 0.766),
}


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize("case", SCORES)
def test_folders_that_once_went_wrong(tmp_path, case):
    shutil.copytree(CASES / case, tmp_path / case)
    root = tmp_path / case
    link = root / "p" / "CAMO"
    if link.is_file():  # a link that was stored as its text
        link.unlink()
        link.symlink_to("../real")
    outcome, _, _ = score_folders(root, "p", gt=root / "g")
    (scores,) = stored(outcome)[0].scores.values()
    near = 1e-3 if case == "60_exif_map" else 1e-4
    assert (scores["s_measure"], scores["weighted_f"]) == pytest.approx(SCORES[case], abs=near)
