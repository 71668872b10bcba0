"""What the best epoch is picked on: carved from train, a split of its own, folders, or nothing."""

import json

import pytest
import yaml
from tiny_runs import QUICK, arguments, call, draw_pairs, only_run

from lpmoe_bench.records.context import own_settings
from lpmoe_bench.records.store import read_record, read_rows


def planned(*more: str) -> dict:
    done = call(["run", "--method", "lora", *QUICK, "--dry-run", "--json", *more])
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> list[str]:
    """Options that name a set with a validation split of its own."""
    root = tmp_path_factory.mktemp("set")
    for k, (part, count) in enumerate((("train", 12), ("val", 5), ("test", 3))):
        draw_pairs(root / "mine" / part, count, seed=k)
    layout = {part: [f"{part}/images", f"{part}/masks"] for part in ("train", "val", "test")}
    entry = {"title": "Mine", "task": "mine", "layouts": [layout]}
    task = {"title": "Mine", "protocol": "cod", "loss": "structure", "select": "iou",
            "train": ["mine/train"], "test": ["mine/test"]}  # fmt: skip
    file = root / "mine.yaml"
    file.write_text(yaml.safe_dump({"tasks": {"mine": task}, "datasets": {"mine": entry}}))
    return ["--task", "mine", "--datasets", str(file), "--data-root", str(root)]


def test_a_split_of_its_own_is_used_and_hashed(mine, tmp_path):
    own, carved = planned(*mine), planned(*mine, "--set", "train.carve=true")
    assert own["images"] == {"train": 12, "validation": 5, "tests": {"mine/test": 3}}
    assert carved["images"]["train"] == 11
    assert own["fingerprint"] != carved["fingerprint"]
    # Without a split of its own, the set has the fingerprint that it always had.
    lonely = tmp_path / "lonely.yaml"
    content = {"datasets": {"mine": {"override": True, "layouts": [
        {part: [f"{part}/images", f"{part}/masks"] for part in ("train", "test")}]}}}  # fmt: skip
    lonely.write_text(yaml.safe_dump(content))
    without = planned(*mine, "--datasets", str(lonely))
    assert without["fingerprint"] == carved["fingerprint"]


def test_fewer_validation_images_are_hashed_only_where_asked_for(mine):
    some = planned(*mine, "--set", "train.limit_validation=2")
    assert some["images"]["validation"] == 2
    every = planned(*mine, "--set", "train.limit_validation=null")
    assert every["fingerprint"] == planned(*mine)["fingerprint"] != some["fingerprint"]


def test_lists_of_the_environment_are_read(mine, monkeypatch):
    monkeypatch.setenv("LPMOE_BENCH_DATASETS", mine[3])
    assert planned(*mine[:2], *mine[4:])["fingerprint"] == planned(*mine)["fingerprint"]


def test_folders_to_validate_on(data, mine, tmp_path):
    more = ["--val-images", str(data / "test/images"), "--val-masks", str(data / "test/masks")]
    done = call(arguments(data, tmp_path, "--dry-run", "--json", *more))
    assert json.loads(done.stdout)["images"] == {
        "train": 24, "validation": 6, "tests": {"own/test": 6}
    }  # fmt: skip
    last = ["--set", "train.select=last", "--set", "train.validation=0"]
    done = call(arguments(data, tmp_path, "--dry-run", *more, *last))
    assert done.code == 2
    assert "--val-images and --val-masks name what is validated on" in done.stderr


def test_everything_is_trained_on_and_the_last_state_kept(data, tmp_path):
    last = ["--set", "train.select=last", "--set", "train.validation=0"]
    done = call(arguments(data, tmp_path, *last))
    assert done.code == 0, done.stderr
    assert "24 images, no validation, the last state is kept" in done.stderr
    folder = only_run(tmp_path)
    record = read_record(folder)
    assert record.data.validation is None
    assert record.training is not None
    assert (record.training.steps, record.training.best_step) == (12, 12)
    assert record.training.best_validation is None
    assert any("trained on all images" in note for note in record.notes)
    assert own_settings(record)["train.validation"] == 0  # so that rows of tables say it
    assert own_settings(record)["train.select"] == "last"
    assert not any(row["validation"] for row in read_rows(folder / "curve.csv"))
    assert "the last state kept, nothing picked on" in call(["table", str(tmp_path)]).stdout


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["train.select=last"], "say train.validation=0 to train on all images"),
        (["train.validation=0"], "say train.select=last to keep the last state"),
        (["train.select=last", "train.validation=0", "train.patience=2"], "leave them out"),
    ],
)
def test_a_validation_that_nothing_looks_at_is_refused(data, tmp_path, sets, sentence):
    more = [part for one in sets for part in ("--set", one)]
    done = call(arguments(data, tmp_path, *more))
    assert done.code == 2
    assert sentence in done.stderr
