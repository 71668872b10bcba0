"""Runs on label maps: record, resume to the bit, sizes, prediction, and what is refused."""

import csv
import json
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from object_runs import disc_and_box
from PIL import Image
from tiny_runs import BACKBONE, assert_same_result, call, call_until, folders, only_run

import lpmoe_bench
from lpmoe_bench.records.store import read_record, read_rows

NAMES = ["ground", "disc", "box"]
COLOURS = ["#203040", "#ff8000", "#00c0ff"]  # of pictures: --ignore says that maps hold values
QUICK = [
    *("--task", "semantic", "--method", "lora", "--ignore", "255"),
    *("--backbone", BACKBONE, "--weights", "random:3", "--size", "64x96"),
    *("--set", "train.batch=4", "--set", "train.epochs=2"),
]
HEADS = {
    "fpn": ["--set", "decoder.width=8"],
    "mask2former": [
        *("--decoder", "mask2former", "--set", "decoder.width=32", "--set", "decoder.queries=6"),
        *("--set", "decoder.layers=1", "--set", "decoder.points=64"),
    ],
}


def draw(folder: Path, count: int, seed: int) -> None:
    """Write images with a disc and a box of their own colours, and maps with a void rim."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    random = np.random.default_rng(seed)
    for k in range(count):
        image, labels, _ = disc_and_box(random)
        labels[:2] = 255
        cv2.imwrite(str(folder / "images" / f"{k:03}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"{k:03}.png"), labels)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("labels")
    draw(root / "train", 12, 0)
    draw(root / "test", 4, 1)
    listed = (f"{name} {colour}\n" for name, colour in zip(NAMES, COLOURS, strict=True))
    (root / "classes.txt").write_text("".join(listed))
    return root


def asked(data: Path, runs: Path, head: str, *more: str) -> list[str]:
    named = ["--classes", str(data / "classes.txt"), *folders(data), "--runs", str(runs)]
    return ["run", *QUICK, *named, *HEADS[head], *more]


@pytest.fixture(scope="module", params=list(HEADS))
def finished(request, data, tmp_path_factory):
    runs = tmp_path_factory.mktemp(request.param)
    done = call(asked(data, runs, request.param, "--set", "runtime.save_predictions=true"))
    assert done.code == 0, done.stderr
    return request.param, only_run(runs)


def test_the_record_tells_classes_scores_and_void(data, finished):
    head, folder = finished
    record = read_record(folder)
    assert record.config["kind"] == "semantic"
    assert record.config["classes"] == NAMES
    assert record.config["train"]["loss"] == {"fpn": "ce_dice", "mask2former": "matching"}[head]
    assert record.labels is not None
    assert record.labels.classes == NAMES
    assert record.labels.ignored == {"own/test": pytest.approx(2 / 60)}
    scores = record.scores["own/test"]
    ious = [scores[f"iou/{name}"] for name in NAMES]
    assert scores["mean_iou"] == pytest.approx(np.mean(ious))
    # From the saved maps alone, as anybody would count them.
    confusion = np.zeros((3, 3))
    for path in sorted((data / "test/masks").glob("*.png")):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        pred = np.asarray(Image.open(folder / "predictions/own-test" / path.name))
        counted = labels != 255
        np.add.at(confusion, (labels[counted], pred[counted]), 1)
    right = np.diag(confusion)
    expected = right / (confusion.sum(0) + confusion.sum(1) - right)
    assert ious == pytest.approx(expected.tolist())
    assert scores["pixel_acc"] == pytest.approx(right.sum() / confusion.sum())
    rows = read_rows(folder / "per_image.csv")
    assert len(rows) == 4
    assert all(row["confusion"] for row in rows)


def test_verify_makes_its_scores_again(finished):
    done = call(["verify", str(finished[1])])
    assert done.code == 0
    assert "10 scores recomputed from rows" in done.stdout


@pytest.mark.faults
def test_an_interrupted_run_ends_bit_equal(data, finished, tmp_path):
    head, folder = finished
    wanted = asked(data, tmp_path, head, "--set", "runtime.save_predictions=true")
    done = call_until(wanted, 3, lambda: signal.raise_signal(signal.SIGTERM))
    assert done.code == 130
    assert "interrupted after step 3 of 6" in done.stderr
    assert call(wanted).code == 0
    assert_same_result(folder, only_run(tmp_path))


def test_it_predicts_palette_maps_and_overlays(data, finished, tmp_path):
    _, folder = finished
    image = data / "test/images/000.png"
    done = call(["predict", str(folder), str(image), "--output", str(tmp_path), "--json"])
    assert done.code == 0, done.stderr
    (written,) = json.loads(done.stdout)["written"]
    with Image.open(written["map"]) as drawn:
        assert drawn.mode == "P"
        kept = Image.open(folder / "predictions/own-test/000.png")
        assert np.array_equal(np.asarray(drawn), np.asarray(kept))
        for picture in (drawn, kept):  # in the colours that are declared
            assert bytes(picture.getpalette()[:9]).hex("#", 3) == "".join(COLOURS)[1:]
    assert cv2.imread(written["overlay"]).shape[1] == 80
    done = call(
        ["predict", str(folder), str(image), "--output", str(tmp_path), "--threshold", ".5"]
    )
    assert done.code == 2
    assert "this run tells classes apart" in done.stderr


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        (["ground", "box", "disc"], "3 classes and this run 3, in another order"),
        (["ground", "disc"], "2 classes and this run 3, such as box"),
        (["ground", "disc", "box", "ball"], "4 classes and this run 3, such as ball"),
        (None, "say which classes your label maps have, with --classes FILE"),
    ],
)
def test_it_is_scored_on_sets_of_its_classes_alone(data, finished, tmp_path, listed, sentence):
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(listed or NAMES))
    draw(tmp_path, 2, 5)
    known = ["evaluate", str(finished[1]), "--test-images", str(tmp_path / "images")]
    known += ["--test-masks", str(tmp_path / "masks"), "--runs", str(tmp_path / "runs")]
    told = ["--classes", str(classes), "--ignore", "255"] if listed else []
    refused = call([*known, *told])
    assert refused.code == 2, refused.stderr
    assert sentence in refused.stderr
    other = call([*known, "--classes", str(data / "classes.txt"), "--protocol", "cod"])
    assert other.code == 2
    assert "protocol cod scores binary tasks, and this run is of a semantic one" in other.stderr
    assert not (tmp_path / "runs").exists()


KEPT = ["--set", "runtime.save_predictions=true"]


def assert_predicts_what_was_scored(data: Path, run: Path, out: Path) -> None:
    """Hold `predict`, its API and the module against kept maps."""
    done = call(["predict", str(run), str(data / "test/images"), "-o", str(out), "--quiet"])
    assert done.code == 0, done.stderr
    found = lpmoe_bench.predict(run, data / "test/images", offline=True)
    model = lpmoe_bench.load_model(run, offline=True)
    for prediction in found:
        assert prediction.image is not None
        name = f"{prediction.image.stem}.png"
        kept = np.asarray(Image.open(run / "predictions/own-test" / name))
        assert np.array_equal(np.asarray(Image.open(out / name)), kept)
        assert np.array_equal(prediction.labels, kept)  # type: ignore[arg-type]
        assert prediction.probability.shape == (len(NAMES), *kept.shape)
        assert np.array_equal(prediction.probability.argmax(0), kept)
        assert np.allclose(prediction.probability.sum(0), 1, atol=1e-5)
        image = np.asarray(Image.open(prediction.image)).transpose(2, 0, 1)
        with torch.no_grad():
            logits = model(torch.from_numpy(image.copy())[None].float() / 255)
        # Up to the rounding of resized 8-bit values.
        assert (logits[0].argmax(0).numpy() == kept).mean() > (0.999 if model.window else 0.98)


def test_letterbox_windows_and_cached_features(data, tmp_path):
    more = ["--set", "fit=letterbox", "--set", "train.epochs=1", "--set", "train.scale=[0.5,2]"]
    done = call(asked(data, tmp_path / "a", "fpn", *more, *KEPT))
    assert done.code == 0, done.stderr
    assert_predicts_what_was_scored(data, only_run(tmp_path / "a"), tmp_path / "maps")
    # Windows of 32 x 64 pixels over images of 60 x 80.
    more = ["--set", "evaluate=windows", "--size", "32x64", "--set", "train.epochs=1"]
    done = call(asked(data, tmp_path / "b", "fpn", *more, *KEPT))
    assert done.code == 0, done.stderr
    assert_predicts_what_was_scored(data, only_run(tmp_path / "b"), tmp_path / "maps")
    more = ["--method", "decoder_only", "--set", "runtime.cache_features=memory"]
    cached = call(asked(data, tmp_path / "c", "fpn", *more))
    plain = call(asked(data, tmp_path / "d", "fpn", *more[:2]))
    assert (cached.code, plain.code) == (0, 0)
    one, other = (
        read_record(only_run(tmp_path / name)).scores["own/test"]["mean_iou"] for name in "cd"
    )
    assert one == pytest.approx(other, abs=0.02)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--set", "train.loss=structure"], "structure"),
        (["--set", "protocol=cod"], "protocol cod scores binary tasks"),
        (["--set", "train.select=s_measure"], "which protocol classes does not have"),
        (["--set", "train.select=iou/dics"], "unknown class 'dics'; did you mean 'disc'?"),
        (
            ["--set", "train.select=acc/disc", "--set", "protocol=trans10k"],
            "mean_iou, pixel_acc, iou/NAME, or",
        ),
        (["--set", "train.class_weights=[1,2]"], "has 2 numbers, and own/train has 3 classes"),
        (["--set", "runtime.cache_features=memory", "--set", "evaluate=windows"], "whole images"),
        (["--task", "cod"], "label maps"),
    ],
)
def test_what_does_not_go_together_is_told_before_training(data, tmp_path, more, sentence):
    done = call(asked(data, tmp_path, "fpn", *more))
    assert done.code == 2, done.stderr
    assert sentence in done.stderr
    assert not list(tmp_path.rglob("resume.safetensors"))


def test_the_score_of_a_class_picks_the_best_epoch(data, tmp_path):
    more = ["--set", "train.select=iou/disc"]
    done = call(asked(data, tmp_path / "runs", "fpn", *more))
    assert done.code == 0, done.stderr
    with open(only_run(tmp_path / "runs") / "curve.csv") as file:
        told = [float(row["validation"]) for row in csv.DictReader(file) if row["validation"]]
    training = read_record(only_run(tmp_path / "runs")).training
    assert training is not None
    assert training.best_validation == pytest.approx(max(told))
    # No image of the validation has the class, though every training image has it.
    for kind in ("images", "masks"):
        shutil.copytree(data / "train" / kind, tmp_path / kind)
    for path in (tmp_path / "masks").glob("*.png"):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(labels == 1, 0, labels))
    more += ["--val-images", str(tmp_path / "images"), "--val-masks", str(tmp_path / "masks")]
    done = call(asked(data, tmp_path / "runs", "fpn", *more))
    assert done.code == 2, done.stderr
    assert "none of the 12 images of own/val has class disc, so that it could" in done.stderr


def test_a_value_outside_the_classes_is_told_before_training(data, tmp_path):
    (tmp_path / "two.txt").write_text("ground\ndisc\n")
    done = call(asked(data, tmp_path, "fpn", "--classes", str(tmp_path / "two.txt")))
    assert done.code == 3, done.stderr
    assert "2" in done.stderr
    assert "masks" in done.stderr
