"""Files of results of anybody: what they mean, how they score, and what is refused."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_runs import call

from lpmoe_bench.records.store import read_record

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 17, "name": "dog"}]  # numbers with gaps
SIDES = (40, 60)  # height and width


def square(left: int, top: int, side: int) -> list[list[float]]:
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


def truth(folder: Path, outlines: bool = True) -> Path:
    """Write a COCO file: two images with two objects and one, and one image with none."""
    images = [
        {"id": 10 * k, "file_name": f"sub/{k}.jpg", "height": SIDES[0], "width": SIDES[1]}
        for k in range(3)
    ]
    objects = []
    for k, (image, category, left, top, side) in enumerate(
        [(0, 3, 2, 3, 10), (0, 17, 30, 8, 20), (10, 3, 5, 6, 16)]
    ):
        one = {"id": k, "image_id": image, "category_id": category, "area": side * side}
        one |= {"bbox": [left, top, side, side]}
        objects.append(one | ({"segmentation": square(left, top, side)} if outlines else {}))
    place = folder / "truth.json"
    place.write_text(
        json.dumps({"images": images, "annotations": objects, "categories": CATEGORIES})
    )
    return place


def results(folder: Path, gt: Path, **changes) -> Path:
    """Write the truth as results, with changes of each entry."""
    kept = ("image_id", "category_id", "bbox", "segmentation")
    found = []
    for one in json.loads(gt.read_text())["annotations"]:
        entry = {k: one[k] for k in kept if k in one} | {"score": 0.5} | changes
        found.append({k: v for k, v in entry.items() if v is not None})
    place = folder / "ours.json"
    place.write_text(json.dumps(found))
    return place


def scored(tmp_path: Path, *asked) -> tuple[dict, str]:
    """Score, and return the scores and all that was said."""
    done = call(["score", *map(str, asked), "--runs", str(tmp_path / "runs")])
    assert done.code == 0, done.stderr
    (place,) = (tmp_path / "runs").rglob("run.json")
    record = read_record(place.parent)
    (scores,) = record.scores.values()
    return scores, done.stderr + "\n".join(record.notes)


def refused(*asked) -> str:
    done = call(["score", *map(str, asked)])
    assert done.code != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_truth_as_results_is_perfect(tmp_path):
    gt = truth(tmp_path)
    scores, said = scored(tmp_path, results(tmp_path, gt), "--gt", gt)
    assert (scores["mask_ap"], scores["box_ap"], scores["mask_ap/dog"]) == (1, 1, 1)
    assert "protocol coco_masks counts" in said
    assert "1 of 3 images have no detection" in said
    record = read_record(next((tmp_path / "runs").rglob("run.json")).parent)
    assert record.method.name == "ours"
    assert sum(one["objects"] for one in record.counts.values()) == 3


def test_results_that_equal_their_truth_are_wondered_at(tmp_path):
    gt = truth(tmp_path)
    content = json.loads(gt.read_text())
    content["images"].pop()  # the one without an object
    gt.write_text(json.dumps(content))
    assert "are these results?" in scored(tmp_path, results(tmp_path, gt), "--gt", gt)[1]


def test_a_miss_and_a_false_alarm_by_hand(tmp_path):
    # Cats: a false alarm of score .9 above two hits of .5, so that the precision is 2/3 at every
    # recall; the dog is not found.
    gt = truth(tmp_path, outlines=False)
    place = results(tmp_path, gt)
    found = [one for one in json.loads(place.read_text()) if one["category_id"] == 3]
    wrong = {"image_id": 20, "category_id": 3, "bbox": [0, 0, 9, 9], "score": 0.9}
    place.write_text(json.dumps([*found, wrong]))
    scores, said = scored(tmp_path, place, "--gt", gt)
    assert scores["box_ap/cat"] == pytest.approx(2 / 3)
    assert scores["box_ap/dog"] == 0
    assert scores["box_ap"] == pytest.approx(1 / 3)
    assert "protocol coco_boxes counts" in said


def test_names_do_where_there_are_no_ids(tmp_path):
    gt = truth(tmp_path)
    place = results(tmp_path, gt)
    entries = json.loads(place.read_text())
    names = {3: "cat", 17: "dog"}
    for one in entries:
        one["file_name"] = f"{one.pop('image_id') // 10}.png"
        one["category"] = names[one.pop("category_id")]
    place.write_text(json.dumps(entries))
    assert scored(tmp_path, place, "--gt", gt)[0]["mask_ap"] == 1


def test_a_folder_of_one_file_an_image(tmp_path):
    gt, ours = truth(tmp_path), tmp_path / "ours" / "sub"
    ours.mkdir(parents=True)
    for k in range(3):
        own = json.loads(results(tmp_path, gt).read_text())
        own = [one for one in own if (one["image_id"], one["category_id"]) == (10 * k, 3)]
        own = [one | {"category": "cat"} for one in own]
        (ours / f"{k}.json").write_text(json.dumps(own))
    scores, _ = scored(tmp_path, ours.parent, "--gt", gt, "--protocol", "coco_boxes")
    assert (scores["box_ap/cat"], scores["box_ap/dog"]) == (pytest.approx(1), 0)


def test_instance_maps_have_no_scores(tmp_path):
    content = json.loads(truth(tmp_path).read_text())
    content["categories"] = [{"id": 1, "name": "cell"}]
    for one in content["annotations"]:
        one["category_id"] = 1
    gt, maps = tmp_path / "truth.json", tmp_path / "maps" / "sub"
    gt.write_text(json.dumps(content))
    maps.mkdir(parents=True)
    for image in content["images"]:
        pixels = np.zeros(SIDES, np.uint16)
        for one in content["annotations"]:
            if one["image_id"] == image["id"]:
                x, y, side, _ = one["bbox"]
                pixels[y : y + side, x : x + side] = 1000 + one["id"]
        cv2.imwrite(str(tmp_path / "maps" / image["file_name"].replace("jpg", "png")), pixels)
    scores, said = scored(tmp_path, maps.parent, "--gt", gt, "--protocol", "dsb2018")
    assert scores["dsb_score"] == 1
    assert "which have no scores" in said


def panoptic(folder: Path) -> tuple[Path, Path]:
    """Write a panoptic truth of two images, sky above a cat, and its maps as results."""
    categories = [{"id": 1, "name": "sky", "isthing": 0}, {"id": 5, "name": "cat", "isthing": 1}]
    images, annotations = [], []
    (folder / "truth").mkdir()
    (folder / "ours").mkdir()
    for k in range(2):
        numbers = np.full(SIDES, 7, np.int64)
        numbers[20:, 10 + k :] = 260 + k
        colours = np.dstack([numbers // 65536, numbers // 256 % 256, numbers % 256])
        for place in ("truth", "ours"):
            cv2.imwrite(str(folder / place / f"{k}.png"), colours.astype(np.uint8))
        images.append({"id": k, "file_name": f"{k}.jpg", "height": 40, "width": 60})
        segments = [{"id": 7, "category_id": 1}, {"id": 260 + k, "category_id": 5}]
        annotations.append({"image_id": k, "file_name": f"{k}.png", "segments_info": segments})
    gt = folder / "truth.json"
    gt.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return gt, folder / "ours"


def test_panoptic_maps_with_a_list(tmp_path):
    gt, ours = panoptic(tmp_path)
    annotations = json.loads(gt.read_text())["annotations"]
    annotations[1]["segments_info"][1]["category_id"] = 1  # the second cat is called sky
    (tmp_path / "ours.json").write_text(json.dumps(annotations))
    annotations[0]["segments_info"].append({"id": 99, "category_id": 5})
    (tmp_path / "ours.json").write_text(json.dumps(annotations))
    scores, said = scored(tmp_path, ours, "--gt", gt, "--protocol", "coco_panoptic")
    assert "1 of 2 images lack a segment that their list has" in said
    # Sky: two matched, one false. Cat: one matched, one missed.
    assert scores["pq/sky"] == pytest.approx(2 / 2.5)
    assert scores["pq/cat"] == pytest.approx(1 / 1.5)
    assert scores["pq_things"] == scores["pq/cat"]


def test_panoptic_maps_whose_numbers_tell_the_class(tmp_path):
    gt, ours = panoptic(tmp_path)
    for k, path in enumerate(sorted(ours.iterdir())):
        numbers = np.full(SIDES, 1000, np.int64)
        numbers[20:, 10 + k :] = 2000
        colours = np.dstack([numbers // 65536, numbers // 256 % 256, numbers % 256])
        cv2.imwrite(str(path), colours.astype(np.uint8))
    assert scored(tmp_path, ours, "--gt", gt, "--protocol", "coco_panoptic")[0]["pq"] == 1


def test_a_segment_of_no_class_is_refused(tmp_path):
    gt, ours = panoptic(tmp_path)
    said = refused(ours, "--gt", gt, "--protocol", "coco_panoptic", "--runs", tmp_path / "runs")
    assert "holds segment 7, whose class is not told" in said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_id": 99}, "speaks of 1 images that"),
        ({"image_id": None}, "entry 1 names no image"),
        ({"category_id": 4}, "category 4, and the truth has cat, dog, 3, 17"),
        ({"score": None}, "whose score is None"),
        ({"score": float("nan")}, "whose score is nan"),
        ({"bbox": [1, 2, -3, 4]}, "width and height are finite, 0 or more"),
        ({"bbox": [1, 2, 3]}, "it is left, top, width, height"),
        ({"segmentation": None}, "without a mask, which the protocol scores"),
        ({"segmentation": {"size": [3, 3], "counts": [9]}}, "runs of size [3, 3]"),
        ({"bbox": None, "segmentation": None}, "without a mask"),
    ],
)
def test_what_is_no_result_is_one_sentence(tmp_path, changes, sentence):
    gt = truth(tmp_path)
    said = refused(results(tmp_path, gt, **changes), "--gt", gt, "--runs", tmp_path / "runs")
    assert sentence in said.replace("\n", " ")
    assert not list(tmp_path.rglob("run.json"))


def test_files_that_are_no_results(tmp_path):
    gt, ours = truth(tmp_path), tmp_path / "ours.json"
    for content, sentence in (("{", "is no sound JSON"), ("[1]", "holds no results")):
        ours.write_text(content)
        assert sentence in refused(ours, "--gt", gt)
    ours.write_text("[]")
    assert "no folder" in refused(ours, "--gt", tmp_path, "--protocol", "cod")
