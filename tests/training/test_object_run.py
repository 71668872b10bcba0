"""Runs on objects: boxes, masks and segments from images to a record, and what is refused."""

import json
import signal
from pathlib import Path

import cv2
import numpy as np
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


@pytest.mark.parametrize("kind", HEADS)
def test_micro_batches_are_refused_before_anything_trains(object_data, tmp_path, kind):
    done = call(asked(object_data, tmp_path, kind, "--set", "runtime.micro_batch=2"))
    assert (done.code, done.stdout) == (2, "")
    assert "which micro-batches and several CPU processes divide" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not [*tmp_path.rglob("*.csv")]


def own_labels(folder: Path, form: str) -> tuple[str, str]:
    """Write 8 images and their labels of one class; return their folders."""
    random, place = np.random.default_rng(5), folder / form
    (folder / "images").mkdir(exist_ok=True)
    place.mkdir()
    for k in range(8):
        pixels, ids = random.integers(0, 99, (60, 80, 3)).astype(np.uint8), np.zeros((60, 80))
        x, y = int(random.integers(5, 50)), int(random.integers(5, 30))
        pixels[y : y + 20, x : x + 20] += 120
        ids[y : y + 20, x : x + 20] = 7
        cv2.imwrite(str(folder / "images" / f"{k}.png"), pixels)
        if form == "yolo":
            text = f"0 {(x + 10) / 80} {(y + 10) / 60} {20 / 80} {20 / 60}\n"
            (place / f"{k}.txt").write_text(text)
        else:
            cv2.imwrite(str(place / f"{k}.png"), ids.astype(np.uint16))
    (folder / "names.txt").write_text("cell\n")
    return str(folder / "images"), str(place)


@pytest.mark.parametrize(("kind", "form"), [("detection", "yolo"), ("instance", "instances")])
def test_own_folders_of_one_class(tmp_path, kind, form):
    images, labels = own_labels(tmp_path, form)
    named = ["--classes", str(tmp_path / "names.txt"), "--train-images", images]
    more = ["--train-masks", labels, "--split", "0.25", "--runs", str(tmp_path / "runs")]
    few = ["--set", "train.epochs=1"]
    done = call(["run", *QUICK, *named, *more, "--task", kind, *HEADS[kind], *few])
    assert done.code == 0, done.stderr
    assert read_record(only_run(tmp_path / "runs")).config["classes"] == ["cell"]
    # Maps of pixels have two classes at least, and binary masks none.
    for task, said in (("semantic", "name the background too"), ("cod", "task cod is binary")):
        done = call(["run", *QUICK, *named, *more, "--task", task])
        assert (done.code, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr


def evaluated(folder: Path, data: Path, name: str, *more: str):
    """Evaluate a run on the test images under another label."""
    arguments = ["--test-images", str(data / "images"), "--name", name, "--allow-overlap", *more]
    return call(["evaluate", str(folder), *arguments, "--force", "--json", "--quiet"])


def test_own_files_are_scored_as_the_run_itself_was(object_data, object_run, tmp_path):
    kind, folder = object_run
    ends = "_panoptic" if kind == "panoptic" else ""
    said = json.loads((object_data / f"test{ends}.json").read_text())
    file = object_data / f"again_{kind}.json"
    file.write_text(json.dumps(said))
    maps = object_data / f"again_{kind}"
    if ends and not maps.exists():
        maps.symlink_to(object_data / "maps")
    done = evaluated(folder, object_data, kind, "--test-annotations", str(file))
    assert done.code == 0, done.stderr
    (made,) = json.loads(done.stdout)
    assert made["scores"] == {f"own/{kind}": read_record(folder).scores[f"{kind}_set/test"]}


def test_other_labels_are_refused_in_one_sentence(object_data, object_run, tmp_path):
    kind, folder = object_run
    ends = "_panoptic" if kind == "panoptic" else ""
    said = json.loads((object_data / f"test{ends}.json").read_text())
    other = object_data / f"other_{kind}.json"
    other.write_text(json.dumps(said).replace("disc", "dog"))
    maps = object_data / f"other_{kind}"
    if ends and not maps.exists():
        maps.symlink_to(object_data / "maps")
    boxes = json.loads((object_data / "test.json").read_text())
    for one in boxes["annotations"]:
        del one["segmentation"]
    (object_data / "boxes.json").write_text(json.dumps(boxes))
    alone = {
        "detection": "",  # boxes are what it is scored by
        "instance": "boxes without masks",
        "panoptic": "with the file_name of their map",
    }[kind]
    for file, words in ((other, "such as dog"), (object_data / "boxes.json", alone)):
        done = evaluated(folder, object_data, "x", "--test-annotations", str(file))
        assert (done.code == 0) == (not words)
        assert words in done.stderr
        assert done.stderr.count("\n") == bool(words)
