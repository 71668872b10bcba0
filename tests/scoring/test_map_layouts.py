"""Folders of maps as people have them: one is scored right, or refused with a sentence."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from drawn_maps import Notes, draw_map, draw_mask, out, save, score_folders, stored

from lpmoe_bench.errors import UsageError
from lpmoe_bench.scoring.plan import ScoreRequest, plan_scores


def scores_of(outcome):
    return stored(outcome)[0].scores


@pytest.fixture
def plain(tmp_path):
    """Scores of three maps in a plain folder."""
    for seed in range(3):
        save(tmp_path / "plain" / "masks" / f"a{seed}.png", draw_mask(seed))
        save(tmp_path / "plain" / "A" / f"a{seed}.png", draw_map(seed))
    (scores,) = scores_of(score_folders(tmp_path / "plain")[0]).values()
    return scores


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a{}.jpg.png", {}),
        ("a{}_sal_fuse.png", {}),
        ("Net_a{}.png", {}),
        ("a{}_sal_fuse.png", {"suffix": "_sal_fuse"}),
        ("Net_a{}.png", {"prefix": "Net_"}),
        ("a{}_sal_fuse.png", {"pattern": "*_sal_fuse.png"}),
        ("out/a{}/sal.png", {"pattern": "out/*/sal"}),
    ],
)
def test_names_with_something_added(tmp_path, plain, name, options):
    for seed in range(3):
        save(tmp_path / "masks" / f"a{seed}.png", draw_mask(seed))
        save(tmp_path / "A" / name.format(seed), draw_map(seed))
        if options:  # other pictures beside the maps, which the pattern leaves out
            save(tmp_path / "A" / f"a{seed}_depth.png", draw_map(seed + 5))
    outcome, notes, _ = score_folders(tmp_path, **options)
    assert list(scores_of(outcome).values()) == [plain]
    said = "3 files are not named" if options else "3 maps match their masks"
    assert any(said in note for note in notes)


def test_a_linked_folder(tmp_path, plain):
    for seed in range(3):
        save(tmp_path / "masks" / f"a{seed}.png", draw_mask(seed))
        save(tmp_path / "real" / f"a{seed}.png", draw_map(seed))
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "CAMO").symlink_to("../real")
    assert list(scores_of(score_folders(tmp_path)[0]).values()) == [plain]


def draw_videos(root, frame="{:05d}", counts=(("bear", 1), ("cat", 3))):
    """Masks as bear/GT/00000.png and maps as bear/00000.png, by number of frames."""
    for video, count in counts:
        for index in range(count):
            seed = index + 10 * count
            save(root / "masks" / video / "GT" / f"{frame.format(index)}.png", draw_mask(seed))
            save(root / "A" / video / f"{frame.format(index)}.png", draw_map(seed))
    return root


def test_videos_are_one_set_with_the_mean_of_each(tmp_path):
    draw_videos(tmp_path)
    shown = json.loads(out(tmp_path, "--protocol", "cod", "--json").stdout)
    (record,), (groups,) = shown["records"], shown["groups"]
    (label,) = record["scores"]
    assert record["counts"][label]["images"] == 4
    with open(Path(groups["file"]).parent / "per_image.csv") as file:
        rows = list(csv.DictReader(file))
    by_hand = {
        video: np.mean([float(r["s_measure"]) for r in rows if r["image"].startswith(video)])
        for video in ("bear", "cat")
    }
    for video, value in by_hand.items():
        assert groups["means"][video]["s_measure"] == pytest.approx(value, abs=1e-15)
    mean = np.mean(list(by_hand.values()))
    assert groups["mean"]["s_measure"] == pytest.approx(mean, abs=1e-15)
    assert abs(mean - record["scores"][label]["s_measure"]) > 1e-4  # three frames weigh more
    with open(groups["file"]) as file:
        lines = list(csv.DictReader(file))
    assert [line["folder"] for line in lines] == ["bear", "cat", "mean of folders"]
    assert [line["images"] for line in lines] == ["1", "3", "4"]


def test_group_by_folder_is_for_any_sub_folders(tmp_path):
    draw_videos(tmp_path, frame="x{}")
    shown = out(tmp_path, "--protocol", "cod", "--group-by", "folder")
    assert "mean of folders: s_measure" in shown.stdout
    assert "bear (1 images)" in shown.stdout
    assert "test set each" not in shown.stderr


def draw_sets(root, names=("ECSSD", "PASCAL"), inner=""):
    for number, name in enumerate(names):
        for seed in range(2 - number % 2):
            save(root / "masks" / name / inner / f"{seed}.png", draw_mask(seed + number))
            save(root / "A" / name / f"{seed}.png", draw_map(seed + number, 60.0 + 90 * number))
    return root


@pytest.mark.parametrize("inner", ["", "GT"])
@pytest.mark.parametrize("names", [("ECSSD", "PASCAL"), ("one", "two"), ("x", "y", "z")])
def test_sets_under_one_root_are_a_row_each(tmp_path, names, inner):
    draw_sets(tmp_path, names, inner)
    outcome, notes, _ = score_folders(tmp_path)
    found = scores_of(outcome)
    assert list(found) == [f"masks/{name}" for name in names]
    assert any("are a test set each" in note for note in notes)
    for name in names:
        request = {"gt": tmp_path / "masks" / name, "runs": tmp_path / "alone"}
        alone, _, _ = score_folders(tmp_path / "A", name, **request)
        assert scores_of(alone)[f"masks/{name}"] == found[f"masks/{name}"]


def test_sets_whose_names_are_numbers_like_frames(tmp_path):
    """A known name of a set is a set, whatever its images are called; a word says it too."""
    for names, options in ((("ECSSD", "HKU-IS"), {}), (("bear", "cat"), {"group_by": "set"})):
        root = draw_videos(tmp_path / names[0], counts=tuple((name, 2) for name in names))
        assert list(scores_of(score_folders(root, **options)[0])) == [f"masks/{n}" for n in names]


def test_when_sub_folders_are_one_set(tmp_path):
    draw_sets(tmp_path)
    (label,) = scores_of(score_folders(tmp_path, group_by="folder")[0])
    assert label == f"{tmp_path.name}/masks"
    # Maps that are not divided are not of several sets.
    for seed in range(2):
        save(tmp_path / "B" / f"p{seed}.png", draw_map(seed))
        save(tmp_path / "flat" / f"set{seed}" / f"p{seed}.png", draw_mask(seed))
    request = {"gt": tmp_path / "flat", "protocol": "cod", "runs": tmp_path / "runs"}
    plan = plan_scores(ScoreRequest([tmp_path / "B"], **request), Notes())
    assert [test.label for test in plan.sets] == [f"{tmp_path.name}/flat"]
    with pytest.raises(UsageError, match="no two sub-folders of masks that each folder of maps"):
        plan_scores(ScoreRequest([tmp_path / "B"], **request, group_by="set"), Notes())
    with pytest.raises(UsageError, match="belongs to --gt"):
        plan_scores(ScoreRequest([tmp_path / "B"], task="cod", group_by="set"), Notes())


def test_images_of_sets_are_in_sub_folders_too(tmp_path):
    draw_sets(tmp_path)
    for name, count in (("ECSSD", 2), ("PASCAL", 1)):
        for seed in range(count):
            save(tmp_path / "images" / name / f"{seed}.png", draw_map(seed))
    outcome, _, _ = score_folders(tmp_path, images=tmp_path / "images")
    assert list(scores_of(outcome)) == ["own/ECSSD", "own/PASCAL"]


def test_a_transposed_map_is_said(tmp_path):
    save(tmp_path / "masks" / "a.png", draw_mask(0))
    (tmp_path / "A").mkdir()
    np.save(tmp_path / "A" / "a.npy", draw_map(0).T)
    _, notes, _ = score_folders(tmp_path)
    assert any("are they transposed? (a)" in note for note in notes)
