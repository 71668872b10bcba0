"""Runs on objects: boxes, masks and segments from images to a record, and what is refused."""

import json
import signal

import pytest
from object_runs import HEADS, NAMES, QUICK, asked
from tiny_runs import assert_same_result, call, call_until, only_run

from lpmoe_bench.records.store import read_record, read_rows


def test_the_record_tells_classes_scores_and_rows(object_run):
    kind, folder = object_run
    record = read_record(folder)
    assert record.config["kind"] == kind
    wanted = {
        "detection": ("faster_rcnn", "own", "box_ap", "boxes"),
        "instance": ("mask_rcnn", "own", "mask_ap", "masks"),
        "panoptic": ("mask2former", "matching", "pq", "panoptic"),
    }[kind]
    assert record.decoder.name == wanted[0]
    assert record.config["train"]["loss"] == wanted[1]
    (scores,) = record.scores.values()
    assert scores[wanted[2]] is not None
    assert record.labels is not None
    stuff = kind == "panoptic"
    assert record.labels.classes == (NAMES if stuff else NAMES[1:])
    assert record.config["things"] == (NAMES[1:] if stuff else [])
    rows = read_rows(folder / "per_image.csv")
    assert len(rows) == 4
    assert all(row[wanted[3]] for row in rows)
    kept = sorted((folder / "predictions").rglob("test*"))
    assert len(kept) == 4


def test_verify_makes_its_scores_again(object_run):
    done = call(["verify", str(object_run[1])])
    assert done.code == 0, done.stderr
    assert "recomputed from rows" in done.stdout


@pytest.mark.faults
def test_an_interrupted_run_ends_bit_equal(object_data, object_run, tmp_path):
    kind, folder = object_run
    wanted = asked(object_data, tmp_path, kind, "--set", "runtime.save_predictions=true")
    done = call_until(wanted, 3, lambda: signal.raise_signal(signal.SIGTERM))
    assert done.code == 130, done.stderr
    assert call(wanted).code == 0
    assert_same_result(folder, only_run(tmp_path))


@pytest.mark.parametrize(
    ("kind", "more", "code", "sentence"),
    [
        ("instance", ["--set", "evaluate=windows"], 2, "evaluate is windows"),
        ("panoptic", ["--set", "runtime.cache_images=true"], 2, "runtime.cache_images keeps"),
        ("instance", ["--decoder", "fpn"], 2, "decoder fpn serves binary and semantic tasks"),
        ("detection", ["--set", "protocol=coco_masks"], 2, "coco_masks scores instance tasks"),
        ("detection", ["--set", "train.loss=ce_dice"], 2, "loss ce_dice is for semantic"),
        ("panoptic", ["--set", "train.select=mean_iou"], 2, "does not have"),
        ("instance", ["--set", "runtime.micro_batch=2"], 2, "micro-batches"),
    ],
)
def test_what_does_not_go_together_is_told_before_training(
    object_data, tmp_path, kind, more, code, sentence
):
    done = call(asked(object_data, tmp_path, kind, *more))
    assert done.code == code, done.stderr
    assert sentence in done.stderr
    assert not list(tmp_path.rglob("resume.safetensors"))


@pytest.mark.parametrize("test", ["test.json", "train.json"])
def test_two_lists_of_one_folder_share_images_or_not(object_data, tmp_path, test):
    own = ["--train-images", object_data / "images", "--annotations", object_data / "train.json"]
    own += ["--test-images", object_data / "images", "--test-annotations", object_data / test]
    more = ["--task", "detection", "--runs", tmp_path, "--dry-run"]
    done = call(["run", *map(str, [*QUICK, *HEADS["detection"], *own, *more])])
    assert done.code == 0, done.stderr
    assert ("share 12 images" in done.stderr) is (test == "train.json")


def test_boxes_without_masks_are_for_detection_alone(object_data, tmp_path):
    said = json.loads((object_data / "train.json").read_text())
    for one in said["annotations"]:
        del one["segmentation"]
    (object_data / "boxes.json").write_text(json.dumps(said))
    for kind, code in (("instance", 3), ("detection", 0)):
        more = ["--set", "train.steps=1"]
        done = call(asked(object_data, tmp_path / kind, kind, *more, train="boxes.json"))
        assert done.code == code, done.stderr
        assert ("has boxes without masks" in done.stderr) is (code == 3)


@pytest.mark.slow
def test_letterbox_scale_and_cached_features(object_data, tmp_path):
    more = ["--set", "fit=letterbox", "--set", "train.steps=2"]
    done = call(
        asked(object_data, tmp_path / "a", "instance", *more, "--set", "train.scale=[0.5,2]")
    )
    assert done.code == 0, done.stderr
    more = ["--method", "decoder_only", "--set", "train.steps=2"]
    cached = call(asked(object_data, tmp_path / "b", "instance", *more,
                        "--set", "runtime.cache_features=memory"))  # fmt: skip
    assert cached.code == 0, cached.stderr
