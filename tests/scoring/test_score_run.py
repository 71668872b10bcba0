"""Scores of a run's saved maps are the run's own; a task's sets are found by name."""

import pytest
from drawn_maps import draw_folders, draw_map, draw_mask, save, score_folders, stored
from tiny_runs import arguments, call, draw_data, only_run

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.store import read_record, read_rows
from lpmoe_bench.tables.table import build_table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    data = draw_data(root / "data")
    more = ("--set", "runtime.save_predictions=true", "--set", "train.epochs=1")
    done = call(arguments(data, root / "runs", *more))
    assert done.code == 0, done.stderr
    return root, only_run(root / "runs")


def test_saved_maps_score_what_the_run_scored(run):
    """Bit for bit: a run scores the very 8-bit maps that it saves."""
    root, folder = run
    done = call(
        [
            *("score", str(folder / "predictions"), "--name", "Saved", "--task", "cod"),
            *("--gt", str(root / "data" / "test" / "masks"), "--jobs", "1"),
            *("--images", str(root / "data" / "test" / "images"), "--runs", str(root / "scored")),
        ]
    )
    assert done.code == 0, done.stderr
    place = only_run(root / "scored")
    assert read_rows(place / "per_image.csv") == read_rows(folder / "per_image.csv")
    ran, scored = read_record(folder), read_record(place)
    assert scored.scores == ran.scores
    (group,) = build_table([ran, scored]).groups
    assert [row.label for row in group.rows] == ["LoRA", "Saved"]


SETS = """
tasks:
  toy:
    title: Toys
    protocol: glass
    loss: structure
    select: iou
    train: [one/train]
    test: [one/test, two/all]
datasets:
  one: {title: One, task: toy, folder: one, splits: {train: train.txt, test: test.txt}}
  two: {title: Two, task: toy, folder: two}
"""


@pytest.fixture
def task(tmp_path):
    (tmp_path / "sets.yaml").write_text(SETS)
    for name, letter in (("one", "p"), ("two", "q")):
        for seed in range(3):
            save(tmp_path / name / "images" / f"{letter}{seed}.png", draw_map(seed))
            save(tmp_path / name / "masks" / f"{letter}{seed}.png", draw_mask(seed))
            save(tmp_path / "maps" / name / f"{letter}{seed}.png", draw_map(seed))
    for split in ("train", "test"):
        (tmp_path / "one" / f"{split}.txt").write_text("p0\np1\np2\n")
    options = {"gt": None, "protocol": None, "task": "toy", "data_root": tmp_path}
    return tmp_path, options | {"datasets": tmp_path / "sets.yaml", "cache": tmp_path / "cache"}


def test_a_tasks_sets_are_scored_under_its_protocol(task):
    root, options = task
    outcome, _, plan = score_folders(root, "maps", **options)
    record, rows = stored(outcome)
    assert (record.task, record.protocol.name) == ("toy", "glass")
    assert list(record.scores) == ["one/test", "two/all"]
    assert [row["dataset"] for row in rows] == ["one/test"] * 3 + ["two/all"] * 3
    assert plan.places[0].parts[-4:-1] == ("scored", "toy", "maps")


def test_one_set_is_told_by_name_or_by_its_files(task):
    root, options = task
    outcome, _, _ = score_folders(root, "maps", **options, test_set="two/all")
    assert list(stored(outcome)[0].scores) == ["two/all"]
    outcome, _, _ = score_folders(root, "maps/one", **options)
    assert list(stored(outcome)[0].scores) == ["one/test"]


def test_sets_that_are_not_there(task):
    root, options = task
    here = root / "elsewhere" / "sets.yaml"  # a file finds the sets beside it
    here.parent.mkdir()
    here.write_text(SETS)
    (root / "nothing").mkdir()
    with pytest.raises(DataError, match=r"one/test, two/all is not found under .*--embedded"):
        score_folders(root, "maps", **options | {"data_root": root / "nothing", "datasets": here})
    with pytest.raises(UsageError, match="did you mean 'two'"):
        score_folders(root, "maps", **options, test_set="twoo/all")


def test_sub_folders_answer_to_several_names(task):
    root, options = task
    for name in ("ONE_test", "One"):
        (root / "maps" / "one").rename(root / "maps" / name)
        outcome, _, _ = score_folders(root, "maps", **options, force=True)
        assert list(stored(outcome)[0].scores) == ["one/test", "two/all"]
        (root / "maps" / name).rename(root / "maps" / "one")


def test_maps_of_a_set_without_masks_are_noted(task):
    root, options = task
    (root / "two").rename(root / "gone")
    outcome, notes, _ = score_folders(root, "maps", **options)
    assert list(stored(outcome)[0].scores) == ["one/test"]
    assert any("maps has maps of two/all in two, but no masks" in note for note in notes)


def test_folders_with_other_sets_share_one_call(task):
    root, options = task
    (root / "maps" / "two").rename(root / "second")
    draw_folders(root / "unused", 1)
    outcome, notes, _ = score_folders(root, "maps", "second", **options)
    assert [list(stored(outcome, i)[0].scores) for i in (0, 1)] == [["one/test"], ["two/all"]]
    assert any("maps has no sub-folder for two/all" in note for note in notes)
