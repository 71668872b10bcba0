"""Figures and pages of objects: maps, outcomes worked by hand, sources, legends, bad files."""

import json
import re

import cv2
import numpy as np
import object_sets as sets
import pytest
from tiny_runs import call

from lpmoe_bench.data import test_sets
from lpmoe_bench.data.label_rules import LabelRules, class_colours
from lpmoe_bench.data.object_drawing import CROWD, MATCHED
from lpmoe_bench.data.pixels import PixelRules
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.objects import Detections
from lpmoe_bench.metrics.panoptic import Panoptic
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.runs import runs_of_pixels
from lpmoe_bench.report.object_pictures import FALSE, LOST
from lpmoe_bench.report.pictures import pictures_of

ALL = (slice(None), slice(None))
CAT, DOG = class_colours(2)  # of `object_sets`, in the order of their ids


@pytest.fixture
def truth_file(tmp_path):
    """Images a, b and c with a COCO file; see `object_sets.content`."""
    return sets.coco_set(tmp_path) / "train.json"


def set_of(path, form="coco", images=None):
    rules = PixelRules(labels=LabelRules(form, ()))
    return test_sets.folder_set(path, images, path.parent / "cache", rules)


def detections(*found, masks=True, shape=sets.SHAPE):
    """(x0, y0, x1, y1, class, score) each."""
    boxes = np.array([one[:4] for one in found], float).reshape(-1, 4)
    runs = []
    for left, top, right, bottom in boxes.astype(int):
        mask = np.zeros(shape, bool)
        mask[top:bottom, left:right] = True
        runs.append(runs_of_pixels(mask))
    classes = np.array([one[4] for one in found], int)
    scores = np.array([one[5] for one in found], float)
    return Detections(boxes, classes, scores, runs if masks else None)


def is_colour(picture, colour):
    return (picture == colour).all(axis=-1)


# Image a: a dog at 10 5 30 25, a cat at 0 0 4 6. Image b: a crowd of cats at 40 10 60 40, a dog at
# 2 2 12 12. Image c: nothing.
@pytest.mark.parametrize(("kind", "protocol"), [("instance", "masks"), ("detection", "boxes")])
def test_outcomes_worked_by_hand(truth_file, kind, protocol):
    shows = pictures_of(set_of(truth_file), kind, get_protocol(f"coco_{protocol}"))
    image, truth = shows.read("a")
    assert image is None
    # The dog is found by 16 of 20 columns: IoU .8. The next at the same place comes too late, the
    # cat is called a dog, and what has a score below .5 is not looked at.
    pred = detections(
        *[(10, 5, 26, 25, 1, 0.9), (10, 5, 30, 24, 1, 0.8), (0, 0, 4, 6, 1, 0.7)],
        (40, 30, 50, 38, 0, 0.4),
        masks=kind == "instance",
    )
    assert shows.told(pred, truth) == "1 matched, 1 missed, 2 false"
    errors = shows.errors(pred, truth)
    assert errors[5, 10].tolist() == [*FALSE]  # the second one lies on top of the first
    assert errors[24, 25].tolist() == [*MATCHED]
    assert errors[0, 0].tolist() == [*FALSE]
    assert (errors[30:38, 40:50] == 255).all()
    alone = shows.errors(detections(masks=kind == "instance"), truth)
    assert is_colour(alone, LOST)[0, 0]
    assert is_colour(alone, LOST)[5, 10]
    # The AP of one image is said to be that.
    metric = get_metric(f"{(kind == 'instance' and 'mask') or 'box'}_ap50")
    assert shows.label(metric) == f"image {metric.label}"
    assert shows.score(metric, pred, truth) == pytest.approx((1 + 0) / 2)  # dogs and cats
    # What has no object has no score.
    empty = shows.read("c")[1]
    assert shows.score(metric, pred, empty) is None
    assert shows.told(detections(masks=kind == "instance"), empty) == "0 matched, 0 missed, 0 false"
    assert (shows.errors(detections(masks=kind == "instance"), empty) == 255).all()


def test_crowds_are_grey_and_take_what_lies_in_them(truth_file):
    shows = pictures_of(set_of(truth_file), "instance", get_protocol("coco_masks"))
    truth = shows.read("b")[1]
    pred = detections((42, 12, 50, 20, 0, 0.9), (44, 20, 58, 38, 0, 0.8), (2, 2, 12, 12, 1, 0.6))
    assert shows.told(pred, truth) == "1 matched, 0 missed, 0 false"
    errors = shows.errors(pred, truth)
    assert errors[12, 42].tolist() == [*CROWD]
    assert not is_colour(errors, FALSE).any()
    found = shows.swatches(shows.present(truth, ALL), ["maps", "errors"])
    assert found["crowd"] == CROWD
    assert list(found)[:1] == ["dog"]
    assert "crowd" not in shows.swatches(shows.present(pred, ALL), ["maps"])
    assert shows.present(truth, (slice(0, 9), slice(0, 9))) == {1}  # the part has the dog alone


def test_an_object_that_is_found_has_the_colour_of_the_truth(truth_file):
    shows = pictures_of(set_of(truth_file), "instance", get_protocol("coco_masks"))
    truth = shows.read("a")[1]
    pred = detections((50, 30, 58, 38, 1, 0.95), (10, 5, 30, 25, 1, 0.9), (31, 5, 36, 9, 0, 0.6))
    own, true = shows.shown(pred, truth), shows.shown(truth, truth)
    assert own[5, 10].tolist() == true[5, 10].tolist() == [*DOG]
    assert own[30, 50].tolist() not in ([255] * 3, [*DOG])
    assert true[0, 0].tolist() == [*CAT]
    over = shows.over(np.zeros((*sets.SHAPE, 3), np.uint8), pred, truth)
    assert over[39, 0].tolist() == [0, 0, 0]
    raised = shows.above(0.92)
    assert raised.told(pred, truth) == "0 matched, 2 missed, 1 false"
    assert (raised.shown(pred, truth)[5:25, 10:30] == 255).all()


@pytest.mark.parametrize("side", [1, 4])
def test_four_hundred_objects_and_one_pixel(tmp_path, side):
    where = [(x, y) for x in range(0, 200, 10) for y in range(0, 200, 10)]
    objects = [
        {"id": k, "image_id": 1, "category_id": 7, "bbox": [x, y, side, side], "iscrowd": 0,
         "area": side**2, "segmentation": sets.runs((x, y, x + side, y + side), shape=(200, 200))}
        for k, (x, y) in enumerate(where, 1)
    ]  # fmt: skip
    images = [{"id": 1, "file_name": "a.png", "height": 200, "width": 200}]
    path = tmp_path / "cells.json"
    path.write_text(json.dumps(sets.content(objects) | {"images": images}))
    shows = pictures_of(set_of(path), "instance", get_protocol("cells"))
    truth = shows.read("a")[1]
    pred = detections(*((x, y, x + side, y + side, 1, 0.9) for x, y in where[1:]), shape=(200, 200))
    assert shows.told(pred, truth) == "399 matched, 1 missed, 0 false"
    errors = shows.errors(pred, truth)
    x, y = where[0]
    assert errors[y, x].tolist() == [*LOST]
    assert is_colour(errors, MATCHED).any()


def panoptic_set(folder):
    """One image, 4 x 6: sky above, a cat and a dog below, the last column void."""
    ids = np.full((4, 6), 1)
    ids[2:, :3], ids[2:, 3:], ids[:, 5] = 2, 3, 0
    (folder / "pan").mkdir()
    numbers = np.dstack([0 * ids, 0 * ids, ids]).astype(np.uint8)
    cv2.imwrite(str(folder / "pan" / "a.png"), numbers)
    kinds = [{"id": k, "name": n, "isthing": int(k > 1)} for k, n in enumerate("scd", 1)]
    listed = [{"id": k, "category_id": k} for k in (1, 2, 3)]
    said = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 6}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": listed}],
        "categories": kinds,
    }
    (folder / "pan.json").write_text(json.dumps(said))
    return folder / "pan.json"


def test_panoptic_outcomes_by_hand(tmp_path):
    path = panoptic_set(tmp_path)
    shows = pictures_of(set_of(path, "coco_panoptic"), "panoptic", get_protocol("coco_panoptic"))
    truth = shows.read("a")[1]
    colours = class_colours(3)
    plain = shows.shown(truth, truth)
    assert plain[0, 0].tolist() == [*colours[0]]
    assert plain[3, 1].tolist() == [*colours[1]]
    assert plain[0, 5].tolist() == [*CROWD]  # void
    segments = np.ones((4, 6), int)
    segments[2:, :3], segments[2:, 3:] = 2, 3
    pred = Panoptic(segments, np.array([0, 1, 1]))  # the dog is called a cat
    assert shows.told(pred, truth) == "2 matched, 1 missed, 1 false"
    errors = shows.errors(pred, truth)
    assert errors[0, 0].tolist() == errors[3, 1].tolist() == [*MATCHED]
    assert tuple(errors[3, 4].tolist()) in {FALSE, LOST}
    assert shows.score(get_metric("pq"), pred, truth) == pytest.approx((1 + 2 / 3) / 3)
    assert shows.label(get_metric("pq")) == "image PQ"
    found = shows.swatches(shows.present(truth, ALL) | shows.present(pred, ALL), ["maps"])
    assert list(found) == ["s", "c", "d", "void or crowd"]
    with pytest.raises(UsageError, match="--threshold is of scores of detections"):
        shows.above(0.3)


def test_what_does_not_fit_is_told(truth_file, tmp_path):
    test = set_of(truth_file)
    with pytest.raises(UsageError, match=r"has labels of format coco, and the protocol is of sem"):
        pictures_of(test, "semantic", get_protocol("classes"))
    with pytest.raises(UsageError, match=r"format coco.*--protocol coco_masks"):
        pictures_of(test, "panoptic", get_protocol("coco_panoptic"))
    shows = pictures_of(test, "instance", get_protocol("coco_masks"))
    with pytest.raises(UsageError, match="coco_masks does not have mae"):
        shows.score(get_metric("mae"), detections(), shows.read("a")[1])
    (tmp_path / "found.json").write_text(json.dumps([
        {"image_id": 77, "category_id": 7, "score": 1, "bbox": [1, 1, 2, 2]}
    ]))  # fmt: skip
    with pytest.raises(DataError, match=r"speaks of no image of .*, but of 77"):
        shows.attached({}, tmp_path / "found.json")


@pytest.fixture
def cells(truth_file, tmp_path, monkeypatch):
    """Two methods' files of results of `truth_file`, and a folder of a file an image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path / "cache"))
    told = [
        {"image_id": 1, "category_id": 7, "score": 0.9, "bbox": [10, 5, 20, 20],
         "segmentation": [sets.POLYGON]},
        {"image_id": 2, "category_id": 7, "score": 0.8, "bbox": [2, 2, 10, 10],
         "segmentation": sets.runs((2, 2, 12, 12))},
    ]  # fmt: skip
    (tmp_path / "good.json").write_text(json.dumps(told))
    (tmp_path / "poor.json").write_text(json.dumps(told[1:]))
    (tmp_path / "each").mkdir()
    for name, own in (("a", told[:1]), ("b", told[1:]), ("c", [])):
        own = [{**one, "category": "dog"} for one in own]
        (tmp_path / "each" / f"{name}.json").write_text(json.dumps(own))
    return ["--gt", "train.json", "--images", "images"]


def test_a_figure_from_files_and_folders(cells, tmp_path):
    sources = ["Good=good.json", "Poor=poor.json", "Each=each"]
    show = ["--show", "maps,overlays,errors", "--scores", "-o", "f.png"]
    done = call(["figure", *sources, *cells, *show])
    assert done.code == 0, done.stderr
    assert "rows: a, b" in done.stderr  # c has no object, and so no score
    picture = cv2.imread("f.png")[..., ::-1]
    for colour in (MATCHED, LOST, FALSE, DOG, CAT):  # in the maps or the legend
        assert is_colour(picture, colour).any()
    done = call(["figure", *sources, *cells, "--rows", "worst", "--count", "1", "-o", "f.png"])
    assert "rows: a\n" in done.stderr
    done = call(["figure", *sources, *cells, "--rows", "c", "--scores", "-o", "f.png"])
    assert done.code == 0, done.stderr
    assert call(["figure", *sources, *cells, "--crop", "0,0,30,30", "-o", "f.pdf"]).code == 0


@pytest.mark.parametrize(
    ("more", "content", "sentence"),
    [
        (["--crop", "object"], None, "write X,Y,WIDTH,HEIGHT for label maps and objects"),
        ([], "[{", "is no sound JSON"),
        ([], '[{"category": "dog", "score": 1, "bbox": [1, 2]}]', "it is left, top, width, height"),
        ([], '[{"category": "cow", "score": 1, "bbox": [1, 2, 3, 4]}]', "category cow"),
        ([], '[{"category": "dog", "score": 1, "bbox": [1, 2, 3, 4]}]', "without a mask"),
        (["--images", "each"], None, "holds no image files"),
        (["--rows", "worst", "--metric", "mae"], None, "coco_masks does not have mae"),
    ],
)
def test_bad_inputs_are_one_sentence(cells, tmp_path, more, content, sentence):
    if content:
        (tmp_path / "each" / "b.json").write_text(content)
    named = ["figure", "Each=each", *cells, "--protocol", "coco_masks", "-o", "f.png"]
    done = call([*named, *more])
    assert done.code in (2, 3)
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_no_image_of_a_set_has_an_object(tmp_path, monkeypatch, cells):
    (tmp_path / "none.json").write_text(json.dumps(sets.content([])))
    (tmp_path / "nothing.json").write_text("[]")
    named = ["figure", "A=nothing.json", "--gt", "none.json", "--images", "images", "-o", "f.png"]
    done = call([*named, "--protocol", "coco_masks"])
    assert (done.code, "no image of" in done.stderr) == (3, True)
    done = call([*named, "--protocol", "coco_masks", "--rows", "even", "--show", "maps,errors"])
    assert done.code == 0, done.stderr


def test_the_page_of_scored_files_shows_the_disputed_images(cells, tmp_path):
    more = ["--protocol", "coco_masks", "--runs", "runs"]
    assert call(["score", "good.json", "poor.json", *cells, *more]).code == 0
    done = call(["report", "runs", "-o", "page"])
    assert done.code == 0, done.stderr
    page = (tmp_path / "page/index.html").read_text()
    legend = re.search(r'<p class="legend">.*</p>', page)
    assert legend is not None
    told = re.findall(r">([^<>]+)</span>", legend[0])
    assert told == ["cat", "dog", "matched at IoU .5", "missed", "false alarm", "crowd"]
    assert "Drawn are detections of a score of at least 0.5" in page
    assert "1 matched, 1 missed, 0 false" in page
    assert "image AP mask" in page
    assert page.count('class="grid"') == 2  # image c has no object


def test_a_figure_and_a_page_of_a_run(object_run, object_data, tmp_path, monkeypatch):
    kind, folder = object_run
    monkeypatch.chdir(tmp_path)
    lists = str(object_data / f"{kind}0.yaml")
    done = call(["figure", str(folder), "--datasets", lists, "--rows", "test01,test02",
                 "--show", "maps,overlays,errors", "--scores", "-o", "f.png"])  # fmt: skip
    assert done.code == 0, done.stderr
    assert "predicted now" not in done.stderr
    height, width = cv2.imread("f.png").shape[:2]
    assert width > 1500
    assert height > width / 2
