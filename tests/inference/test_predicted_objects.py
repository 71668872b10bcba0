"""`predict` of runs that find objects: overlays, a file an image, results of all in COCO's form."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from object_runs import NAMES
from tiny_runs import call

import lpmoe_bench
from lpmoe_bench.data.label_rules import class_colours
from lpmoe_bench.data.object_files import result_ids
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.inference.object_outputs import BoxOutputs, PanopticOutputs
from lpmoe_bench.inference.outputs import ListedImage
from lpmoe_bench.metrics.objects import Detections
from lpmoe_bench.metrics.panoptic import Panoptic
from lpmoe_bench.metrics.runs import runs_of_pixels, to_runs
from lpmoe_bench.records.store import find_records, read_record


def test_the_files_of_a_run(object_run, object_data, tmp_path):
    kind, folder = object_run
    (tmp_path / "in").mkdir()
    for name in ("test01", "test02"):
        shutil.copy(object_data / "images" / f"{name}.png", tmp_path / "in" / f"{name}.png")
    cv2.imwrite(str(tmp_path / "in" / "sub.png"), np.zeros((31, 47), np.uint8))  # of nothing
    done = call(["predict", str(folder), str(tmp_path / "in"), "-o", str(tmp_path / "out")])
    assert done.code == 0, done.stderr
    suffix = ".png" if kind == "panoptic" else ".json"
    names = {f"{n}{end}" for n in ("test01", "test02", "sub") for end in (suffix, "_overlay.jpg")}
    names |= set() if kind == "panoptic" else {"predictions.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert cv2.imread(str(tmp_path / "out/sub_overlay.jpg")).shape[1] == 47
    # What is written is what the run has kept of its test set, but for the size of batches.
    kept = next((folder / "predictions").rglob(f"test01{suffix}"))
    own = tmp_path / "out" / f"test01{suffix}"
    images = [tmp_path / "in/test01.png", tmp_path / "in/sub.png"]
    told = lpmoe_bench.predict(folder, images)
    assert [one.image.name for one in told if one.image] == ["test01.png", "sub.png"]
    assert told[1].shape == (31, 47)
    if kind == "panoptic":
        assert told[1].segments is not None
        assert told[1].segments.segments.shape == (31, 47)
        assert np.array_equal(cv2.imread(str(own)), cv2.imread(str(kept)))
        return
    assert told[0].objects is not None
    written = json.loads(own.read_text())
    scores = [[one["score"] for one in found] for found in (json.loads(kept.read_text()), written)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert [one["score"] for one in written] == told[0].objects.scores.tolist()
    if kind == "instance":
        assert told[0].masks is not None
        assert told[0].masks.shape == (len(written), 60, 80)
    else:
        assert told[0].masks is None
    listed = json.loads((tmp_path / "out/predictions.json").read_text())
    assert {one["file_name"]: one["image_id"] for one in listed}.items() <= {
        ("sub.png", 1), ("test01.png", 2), ("test02.png", 3),
    }  # fmt: skip
    assert [one["bbox"] for one in listed if one["image_id"] == 2] == [o["bbox"] for o in written]


def test_what_a_run_of_objects_refuses(object_run, object_data, tmp_path):
    kind, folder = object_run
    image = str(object_data / "images/test01.png")
    out = ["-o", str(tmp_path)]
    done = call(["predict", str(folder), image, *out, "--tile", "64"])
    assert (done.code, "this run finds objects" in done.stderr) == (2, True)
    with pytest.raises(UsageError, match=f"this run finds objects \\({kind}\\)"):
        lpmoe_bench.load_model(folder)
    with pytest.raises(UsageError, match="--tile blends"):
        lpmoe_bench.predict(folder, image, tile=64)
    done = call(["predict", str(folder), image, *out, "--threshold", "0.99"])
    if kind == "panoptic":
        assert (done.code, "have no scores" in done.stderr) == (2, True)
        done = call(["predict", str(folder), image, *out, "--ids", image])
        assert (done.code, "--ids is of files of detections" in done.stderr) == (2, True)
    else:
        assert done.code == 0, done.stderr
        assert json.loads((tmp_path / "predictions.json").read_text()) == []
        assert json.loads((tmp_path / "test01.json").read_text()) == []


@pytest.mark.parametrize("object_run", ["instance"], indirect=True)
def test_results_score_as_the_run_did(object_run, object_data, tmp_path):
    _, folder = object_run
    for name in range(1, 5):
        shutil.copy(object_data / "images" / f"test0{name}.png", tmp_path)
    gt, out = str(object_data / "test.json"), tmp_path / "out"
    asked = ["predict", str(folder), str(tmp_path), "-o", str(out)]
    done = call([*asked, "--ids", gt])
    assert done.code == 0, done.stderr
    (wanted,) = read_record(folder).scores.values()

    def scored(found: Path, truth: str) -> None:
        runs = tmp_path / f"runs{len(list(tmp_path.glob('runs*')))}"
        more = ["--protocol", "coco_masks", "--runs", str(runs)]
        done = call(["score", str(found), "--gt", truth, *more])
        assert done.code == 0, done.stderr
        (scores,) = find_records([runs]).stored[0].record.scores.values()
        assert scores["mask_ap"] == pytest.approx(wanted["mask_ap"], abs=1e-12)

    scored(out / "predictions.json", gt)
    scored(out, gt)  # a file an image, and that of all images is none of them
    coco = pytest.importorskip("pycocotools.coco")
    truth = coco.COCO(gt)
    loaded = truth.loadRes(str(out / "predictions.json"))
    assert loaded.getImgIds() == [1, 2, 3, 4]
    for one in json.loads((out / "predictions.json").read_text()):
        assert truth.cats[one["category_id"]]["name"] == one["category"]
    # Without ids, files tell which image is which, whatever the truth's numbers.
    done = call(asked)
    said = json.loads(Path(gt).read_text())
    for one in said["images"]:
        one["id"] = 90 - one["id"]
    for one in said["annotations"]:
        one["image_id"] = 90 - one["image_id"]
    (tmp_path / "other.json").write_text(json.dumps(said))
    scored(out / "predictions.json", str(tmp_path / "other.json"))


def test_ids_of_a_file(object_data):
    path = object_data / "test.json"
    found = result_ids(path, ["test02", "some/where/test01"], NAMES[1:])
    assert found.images == {"test02": 2, "some/where/test01": 1}
    assert found.classes == {"disc": 1, "box": 2}
    with pytest.raises(DataError, match=r"does not list 1 of 2 images \(cat\)"):
        result_ids(path, ["test02", "cat"], NAMES[1:])
    with pytest.raises(DataError, match=r"does not have 1 of the 1 classes of this run \(cat\)"):
        result_ids(path, ["test02"], ["cat"])


def test_nothing_of_a_user_is_overwritten(object_run, tmp_path):
    kind, folder = object_run
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 9), np.uint8))
    (tmp_path / "a.json").write_text("labels")
    done = call(["predict", str(folder), str(tmp_path), "-o", str(tmp_path)])
    assert (done.code, "would be overwritten" in done.stderr) == (2, True)
    assert (tmp_path / "a.json").read_text() == "labels"
    if kind != "panoptic":
        (tmp_path / "a.png").rename(tmp_path / "predictions.png")
        done = call(["predict", str(folder), str(tmp_path), "-o", str(tmp_path / "out")])
        assert (done.code, "give it another name" in done.stderr) == (2, True)


# The outputs themselves.

SHOWN = dict(zip(("cat", "dog"), class_colours(2), strict=True))
IMAGE = np.full((40, 60, 3), 100, np.uint8)


def found(scores, masks=True):
    boxes = np.array([[4.0 + 10 * k, 4, 10 + 10 * k, 20] for k in range(len(scores))])
    drawn = []
    for left, top, right, bottom in boxes.astype(int):
        mask = np.zeros((40, 60), bool)
        mask[top:bottom, left:right] = True
        drawn.append(runs_of_pixels(mask))
    classes = np.arange(len(scores)) % 2
    return Detections(boxes.reshape(-1, 4), classes, np.array(scores), drawn if masks else None)


@pytest.mark.parametrize("masks", [True, False])
def test_the_overlay_shows_what_is_sure_and_the_file_keeps_all(masks):
    outputs, pred = BoxOutputs(), found([0.9, 0.3], masks)
    assert len(json.loads(outputs.encoded(pred, SHOWN))) == 2
    sure = outputs.drawn(IMAGE, pred, SHOWN)
    assert (sure == outputs.drawn(IMAGE, outputs.cut(pred, 0.5), SHOWN)).all()
    assert (outputs.drawn(IMAGE, pred, SHOWN, 0.2)[18, 14:20] != sure[18, 14:20]).any()
    assert (outputs.drawn(IMAGE, found([], masks), SHOWN) == IMAGE).all()
    assert outputs.cut(pred, 0.3).scores.tolist() == [0.9, 0.3]  # at least


def test_an_entry_of_a_file_of_results():
    image = ListedImage("a/b.jpg", (40, 60), 17, {"cat": 90, "dog": 4})
    one, two = BoxOutputs().entries(image, found([0.9, 0.3]), SHOWN)
    assert (one["image_id"], one["category_id"], one["category"]) == (17, 90, "cat")
    assert (two["category_id"], two["file_name"]) == (4, "a/b.jpg")
    assert one["bbox"] == [4, 4, 6, 16]
    assert one["segmentation"]["size"] == [40, 60]
    assert to_runs(one["segmentation"], 40, 60)[1::2].sum() == 6 * 16
    assert BoxOutputs().entries(ListedImage("a", (40, 60), 1), found([0.9]), SHOWN)[0][
        "category_id"
    ] == 1  # fmt: skip


def test_a_panoptic_overlay_names_its_classes_and_may_be_empty():
    outputs = PanopticOutputs()
    nothing = Panoptic(np.zeros((40, 60), int), np.zeros(0, int))
    assert (outputs.drawn(IMAGE, nothing, SHOWN) == IMAGE).all()
    half = np.zeros((40, 60), int)
    half[:, 30:] = 1
    picture = outputs.drawn(IMAGE, Panoptic(half, np.array([1])), SHOWN)
    assert picture.shape[0] > 40  # a legend below
    assert (picture[40:] == SHOWN["dog"]).all(-1).any()
    assert not (picture[40:] == SHOWN["cat"]).all(-1).any()
