"""Scores of objects: by hand, and equal to pycocotools on drawn and on real images."""

import json
import pickle
from itertools import pairwise

import numpy as np
import pytest
from drawn_objects import Truth, coco_precision, coco_scores, draw_images, real_file, scorer_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics import hits, runs
from lpmoe_bench.metrics.facts import METRICS, get_metric, refuse_ambiguous
from lpmoe_bench.metrics.objects import (
    CELLS,
    COCO_BOXES,
    COCO_MASKS,
    DSB2018,
    OBJECT_PROTOCOLS,
    Detections,
    ObjectScorer,
)
from lpmoe_bench.metrics.protocols import explain_protocol, get_protocol
from lpmoe_bench.metrics.row_scores import RowScore, row_score

pytest.importorskip("pycocotools")


def truth_of(boxes, classes=None, crowd=(), masks=None, shape=(100, 100)):
    boxes = np.array(boxes, float).reshape(-1, 4)
    marks = np.zeros(len(boxes), bool)
    marks[list(crowd)] = True
    kinds = np.zeros(len(boxes), int) if classes is None else np.array(classes)
    return Truth(boxes, kinds, marks, hits.box_areas(boxes), masks, shape)


def found_of(boxes, scores, classes=None, masks=None):
    boxes = np.array(boxes, float).reshape(-1, 4)
    kinds = np.zeros(len(boxes), int) if classes is None else np.array(classes)
    return Detections(boxes, kinds, np.array(scores, float), masks)


def result(pairs, protocol=COCO_BOXES, classes=1):
    return scorer_of(protocol, pairs, classes).result()


def test_average_precision_worked_by_hand():
    # The first detection overlaps the first object by 90 / 110, the second none; the third is the
    # second object itself: precision 1 up to recall 1/2, 2/3 up to recall 1, where it is a hit.
    truth = truth_of([[0, 0, 10, 10], [40, 40, 60, 60]])
    found = found_of([[0, 0, 10, 9], [80, 80, 90, 90], [40, 40, 60, 60]], [0.9, 0.8, 0.7])
    scores = result([(found, truth)]).scores
    both, second = (51 + 50 * 2 / 3) / 101, 51 * (1 / 3) / 101  # 101 recalls, 51 up to .5
    assert scores["box_ap50"] == pytest.approx(both, abs=1e-12)
    # The overlap is exactly .9: at .95 only the other object is found, behind two false alarms.
    assert scores["box_ap"] == pytest.approx((9 * both + second) / 10, abs=1e-12)
    assert scores["box_ap_small"] == scores["box_ap"] == scores["box_ap/c0"]
    assert scores["box_ap_medium"] is scores["box_ap_large"] is None
    assert [*scores] == [*COCO_BOXES.metrics, "box_ap/c0"]


def test_rows_and_counts_worked_by_hand():
    # A crowd takes the second detection, the third finds nothing and is outside of small.
    truth = truth_of([[0, 0, 10, 10], [50, 50, 100, 100]], crowd=[1])
    found = found_of([[0, 0, 10, 10], [60, 60, 80, 80], [0, 50, 40, 90]], [1, 0.5, 1e-9])
    done = result([(found, truth), (found_of([], []), truth_of([]))])
    first, second = done.rows
    hit, out = (sum(digit * 3**k for k in range(10)) for digit in (1, 2))
    alarm_medium = out * (1 + 3**10 + 3**30) - out  # a false alarm among all and medium ones
    codes = [
        # Of no medium or large object: what is found is left out there.
        hit * (1 + 3**10) + out * (3**20 + 3**30),
        out * (1 + 3**10 + 3**20 + 3**30),
        alarm_medium,
    ]
    pieces = [f"{s}={c:x}" for s, c in zip(("1.0", "0.5", "1e-09"), codes, strict=True)]
    assert first["boxes"] == f"0:1/1/0/0:{' '.join(pieces)}"
    assert (second["boxes"], second["flags"], first["flags"]) == ("none", "no_objects", "")
    assert done.counts == {
        **{"images": 2, "scored": 2, "objects": 1, "crowds": 1, "detections": 3},
        "no_objects": 1,
    }
    assert done.warnings == [
        "image i0001: it has no object: whatever is found in it is a false alarm"
    ]


CASES = {
    "whole pixels, ties": {},
    "fractions": {"whole": False, "scores": 100_000},
    "fractions, ties": {"whole": False, "scores": 2, "classes": 1},
    "crowds": {"crowds": 0.7},
    "no crowds, five classes": {"crowds": 0, "classes": 5, "images": 9},
    "more than a hundred": {"extra": 250, "images": 3, "classes": 1, "scores": 30},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pycocotools(case, seed):
    options = {"classes": 3} | CASES[case]
    pairs = draw_images(seed, **options)
    ours = result(pairs, COCO_MASKS, options["classes"]).scores
    theirs = {
        **coco_scores(pairs, options["classes"], "masks"),
        **coco_scores(pairs, options["classes"], "boxes"),
    }
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert (ours[key] is None) == (value is None), key
        if value is not None:
            assert ours[key] == pytest.approx(value, abs=1e-8), key
    assert 0 < theirs["box_ap"] < 1
    alone = result(pairs, COCO_BOXES, options["classes"]).scores
    assert alone == {key: value for key, value in ours.items() if not key.startswith("mask_")}


@pytest.mark.parametrize("part", ["boxes", "masks"])
def test_curves_equal_those_of_pycocotools(part):
    pairs = draw_images(5, classes=4, extra=9, crowds=0.3)
    rows = [hits.read_hits(row[part], 4) for row in result(pairs, COCO_MASKS, 4).rows]
    theirs = coco_precision(pairs, 4, part)
    known = 0
    for area, iou in ((0, 0), (0, 5), (1, 3), (3, 9)):
        ours = hits.precision_curves(rows, 4, iou, area)
        for own, of_class in zip(ours, theirs[iou, :, :, area].T, strict=True):
            assert np.isnan(own).all() == (of_class == -1).all()
            if not np.isnan(own).any():
                np.testing.assert_allclose(own, of_class, rtol=0, atol=1e-12)
                known += 1
    assert known > 8
    assert hits.count_objects(rows).tolist() == [
        sum(int((~t.crowd & (t.areas >= low) & (t.areas <= high)).sum()) for _, t in pairs)
        for low, high in hits.AREAS
    ]


def test_the_cap_of_detections_is_of_the_protocol():
    rng = np.random.default_rng(0)
    boxes = np.array([[x, y, x + 5, y + 5] for x in range(0, 120, 8) for y in range(0, 120, 8)])
    masks = [np.zeros((128, 128), bool) for _ in boxes]
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    truth = truth_of(boxes, masks=masks, shape=(128, 128))
    pair = (found_of(boxes, rng.random(len(boxes)), masks=masks), truth)
    cut, whole = result([pair], COCO_MASKS), result([pair], CELLS)
    assert len(boxes) == 225
    assert cut.scores["mask_ap"] == pytest.approx(45 / 101)  # 100 / 225 is recall .444
    assert coco_scores([pair], 1, "masks")["mask_ap"] == pytest.approx(45 / 101)
    assert whole.scores["mask_ap"] == 1.0
    assert coco_scores([pair], 1, "masks", 1000)["mask_ap"] == pytest.approx(1.0)
    assert (cut.rows[0]["flags"], whole.rows[0]["flags"]) == ("detections_cut", "")
    assert cut.rows[0]["boxes"].count("=") == 100


def test_the_area_of_a_found_mask_is_its_pixels():
    # 1600 pixels of box, 900 of mask: the false alarm is small.
    mask = np.zeros((100, 100), bool)
    mask[0:40, 0:40] = True
    mask[0:20, 0:35] = False
    true = np.zeros((100, 100), bool)
    true[60:90, 60:90] = True
    truth = truth_of([[60, 60, 90, 90]], masks=[true])
    pair = (found_of([[0, 0, 40, 40], [60, 60, 90, 90]], [0.9, 0.8], masks=[mask, true]), truth)
    scores = result([pair], COCO_MASKS).scores
    assert scores["mask_ap_small"] == pytest.approx(0.5)
    assert scores["box_ap_small"] == 1.0  # by its box the false alarm is medium, and left out


# Masks as runs.

MASK = st_np.arrays(bool, st.just((7, 9)))


@settings(max_examples=60, deadline=None)
@given(st.lists(MASK, max_size=4), st.lists(MASK, max_size=4))
def test_overlaps_of_runs_are_those_of_pixels(first, second):
    found, truth = ([runs.to_runs(mask, 7, 9) for mask in own] for own in (first, second))
    for mask, own in zip(first, found, strict=True):
        assert (runs.pixels_of_runs(own, 7, 9) == mask).all()
    shared = runs.overlaps_of(found, truth)
    assert shared.tolist() == [[float((a & b).sum()) for b in second] for a in first]
    assert runs.areas_of(found).tolist() == [float(mask.sum()) for mask in first]


@settings(max_examples=40, deadline=None)
@given(MASK)
def test_every_form_of_a_mask_is_read(mask):
    from pycocotools import mask as coco_mask

    packed = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    own = runs.runs_of_pixels(mask)
    forms = [mask, mask.astype(np.uint8), own, own.tolist(), packed["counts"], packed]
    for form in [*forms, packed["counts"].decode(), {"size": [7, 9], "counts": own.tolist()}]:
        assert (runs.to_pixels(form, 7, 9) == mask).all()
        assert runs.pixels_of_runs(runs.to_runs(form, 7, 9), 7, 9).tolist() == mask.tolist()


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (np.zeros((3, 4), bool), "a mask of \\[3, 4\\] in an image of \\[7, 9\\]"),
        ({"size": [9, 7], "counts": [63]}, "of size \\[9, 7\\]"),
        ([60], "do not add up"),
        ([70, -7], "do not add up"),
        ([31.5, 31.5], "neither pixels nor runs"),
        ("{{", "none of COCO's|do not add up"),
        (b"\xff", "none of COCO's"),
        (None, "neither pixels nor runs"),
    ],
)
def test_what_is_no_mask_is_refused(mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        runs.to_runs(mask, 7, 9)


# The score of nuclei of 2018.


def test_dsb2018_worked_by_hand():
    # One object is found whole, one by 60 of 100 pixels, one not; one detection finds nothing, and
    # one of low score does not count.
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    found = [boxes[0], [20, 0, 30, 6], [60, 0, 70, 10], boxes[2]]
    pair = with_masks(found_of(found, [0.9, 0.8, 0.7, 0.4]), truth_of(boxes))
    empty = with_masks(found_of([], []), truth_of([]))
    lost = with_masks(found_of([[0, 0, 5, 5]], [0.9]), truth_of([]))
    done = result([pair, empty, lost], DSB2018)
    # At .50 and .55 two are right of three found and three there; at .60 the overlap is not above.
    first = (2 * 2 / 4 + 8 * 1 / 5) / 10
    assert [row["dsb_score"] for row in done.rows] == pytest.approx([first, 1, 0])
    assert [row["dsb_50"] for row in done.rows] == [0.5, 1.0, 0.0]
    assert [row["dsb_75"] for row in done.rows] == [0.2, 1.0, 0.0]
    assert done.scores["dsb_score"] == pytest.approx((first + 1 + 0) / 3)
    assert [*done.scores] == [*DSB2018.metrics]


def with_masks(pred, truth):
    def drawn(boxes):
        masks = np.zeros((len(boxes), *truth.shape), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        return masks

    return pred._replace(masks=drawn(pred.boxes)), truth._replace(masks=drawn(truth.boxes))


@pytest.mark.parametrize("seed", range(4))
def test_dsb2018_is_the_count_of_objects_that_are_overlapped(seed):
    """Where neither objects nor detections overlap among themselves there is nothing to choose."""
    rng = np.random.default_rng(seed)
    true, found = (_label_map(rng) for _ in range(2))
    found = np.where(rng.random(true.shape) < 0.85, true, found)
    sides = [np.stack([own == k for k in range(1, own.max() + 1) if (own == k).any()])
             for own in (true, found)]  # fmt: skip
    ious = np.array([[(a & b).sum() / (a | b).sum() for b in sides[0]] for a in sides[1]])
    by_hand = []
    for level in range(10, 20):
        right = int((20 * ious > level).any(axis=1).sum())
        by_hand.append(right / (len(sides[0]) + len(sides[1]) - right))
    boxes = [np.tile([0.0, 0, 48, 48], (len(own), 1)) for own in sides]
    pair = (
        found_of(boxes[1], np.ones(len(sides[1])), masks=sides[1]),
        truth_of(boxes[0], masks=sides[0], shape=(48, 48)),
    )
    scores = result([pair], DSB2018).scores
    assert scores["dsb_score"] == pytest.approx(np.mean(by_hand), abs=1e-12)
    assert (scores["dsb_50"], scores["dsb_75"]) == (by_hand[0], by_hand[5])
    assert 0 < scores["dsb_score"] < 1


def _label_map(rng):
    labels = np.zeros((48, 48), int)
    for number in range(1, 12):
        top, left = rng.integers(0, 40, 2)
        labels[top : top + rng.integers(3, 14), left : left + rng.integers(3, 14)] = number
    return labels


# Rows: read again, weighted, and with images left out.


def images_of(pairs, classes, part="boxes"):
    done = scorer_of(COCO_MASKS, pairs, classes).result()
    return done, [row[part] for row in done.rows]


@pytest.mark.parametrize("part", ["boxes", "masks"])
def test_rows_say_all_that_scores_are_made_of(part):
    pairs = draw_images(5, images=7, crowds=0.3)
    done, texts = images_of(pairs, 3, part)
    for text in texts:
        assert hits.hits_text(hits.read_hits(text, 3)) == text
    for key, value in done.scores.items():
        rule = row_score(key, COCO_MASKS, ("c0", "c1", "c2"))
        assert rule is not None
        if rule.columns != (part,):
            continue
        parts = rule.read([["", *texts]])
        assert parts.counted.tolist() == [False] + 7 * [True]
        again = rule.of_all(parts.of_image)
        assert (value is None and np.isnan(again)) or again == pytest.approx(value, abs=1e-15)


def test_a_weight_counts_an_image_so_often():
    pairs = draw_images(6, images=6, scores=100_000)
    _, texts = images_of(pairs, 3)
    rule = row_score("box_ap", COCO_BOXES, ("c0", "c1", "c2"))
    assert rule is not None
    images = rule.read([texts]).of_image
    often = [pairs[k] for k in (0, 1, 1, 1, 4, 4)]
    weights = np.array([1, 3, 0, 0, 2, 0], float)
    assert rule.score(images, weights) == pytest.approx(result(often, classes=3).scores["box_ap"])


@pytest.mark.parametrize(
    "key",
    ["box_ap", "box_ap75", "box_ap_small", "mask_ap", "mask_ap_large", "box_ap/c1", "mask_ap/c2"],
)
def test_leaving_out_is_scoring_the_rest(key):
    pairs = draw_images(7, images=9)
    names = ("c0", "c1", "c2")
    rule = row_score(key, COCO_MASKS, names)
    assert rule is not None
    _, texts = images_of(pairs, 3, rule.columns[0])
    images = rule.read([texts]).of_image
    places, units = np.array([0, 1, 0, 2, 1, 3, 3, 4, 2]), 5
    ours = rule.leave_out(images, places, units)
    by_hand = []
    for unit in range(units):
        rest = [pair for pair, own in zip(pairs, places, strict=True) if own != unit]
        value = result(rest, COCO_MASKS, 3).scores[key]
        by_hand.append(np.nan if value is None else value)
    np.testing.assert_allclose(ours, by_hand, atol=1e-12)
    plain = RowScore(columns=rule.columns, read=rule.read, score=rule.score)
    np.testing.assert_allclose(plain.leave_out(images, places, units), by_hand, atol=1e-12)
    assert len(set(ours.tolist())) > 1


def test_a_class_that_one_unit_alone_has_is_told_by_no_other():
    truth = truth_of([[0, 0, 9, 9], [20, 20, 40, 40]], [0, 1])
    pairs = [
        (found_of([[0, 0, 9, 9]], [0.5]), truth),
        (found_of([[0, 0, 9, 9]], [0.4], [1]), truth_of([[0, 0, 9, 9]])),
    ]
    _, texts = images_of([with_masks(*pair) for pair in pairs], 2)
    rule = row_score("box_ap/c1", COCO_MASKS, ("c0", "c1"))
    assert rule is not None
    without = rule.leave_out(rule.read([texts]).of_image, np.array([0, 1]), 2)
    assert np.isnan(without[0])
    assert without[1] == 0.0


@pytest.mark.parametrize(
    "text",
    [
        *("0:1/1/0:", "0:1/1/0/0", "a:1/1/0/0:", "0:1/1/0/0:0.5", "0:1/1/0/0:0.5=", "x", "none;"),
        *("0:1/1/0/0:nan=0", "0:1/1/0/0:0.5=g", "0:1/1/0/0:;0:1/1/0/0:", "3:1/1/0/0:", ";"),
        *("0:1/1/0/0:0.5=0  0.5=0", "0:-1/1/0/0:", "0:1/1/0/0:0.5=ffffffffffffffff"),
    ],
)
def test_rows_that_are_none(text):
    with pytest.raises(ValueError, match=r"a row of detections|no row of detections"):
        hits.read_hits(text, 3)
    rule = row_score("box_ap", COCO_BOXES, ("a", "b", "c"))
    assert rule is not None
    with pytest.raises(ValueError, match="row of detections"):
        rule.read([[text]])


# The scorer.


def test_order_and_division_of_the_images_do_not_matter():
    pairs = draw_images(8, images=6)
    whole = scorer_of(COCO_MASKS, pairs, 3).result()
    parts = [ObjectScorer(COCO_MASKS, ("c0", "c1", "c2")) for _ in range(3)]
    for number in (5, 0, 3, 1, 4, 2):
        parts[number % 2].add(f"i{number:04}", *pairs[number], "set")
    first, second, empty = (pickle.loads(pickle.dumps(one)) for one in parts)
    empty.merge(second)
    empty.merge(first)
    assert empty.result() == whole
    with pytest.raises(DataError, match="i0000 was scored twice"):
        empty.merge(first)
    with pytest.raises(DataError, match="i0001 was scored twice"):
        empty.add("i0001", *pairs[1], "set")


@pytest.mark.parametrize(
    ("pred", "truth", "sentence"),
    [
        (found_of([[0, 0, 1, 1]], [0.5], [2]), truth_of([]), "found has class 2; the 2 classes"),
        (found_of([], []), truth_of([[0, 0, 1, 1]], [-1]), "truth has class -1"),
        (found_of([[5, 0, 1, 1]], [0.5]), truth_of([]), r"box \[5.0, 0.0, 1.0, 1.0\], whose end"),
        (found_of([[0, 0, 1, np.nan]], [0.5]), truth_of([]), "a box that is not finite"),
        (found_of([[0, 0, 1, 1]], [np.inf]), truth_of([]), "a score that is not finite"),
        (found_of([[0, 0, 1, 1]], [0.5, 0.6]), truth_of([]), r"boxes of shape \[1, 4\] beside 2"),
        (found_of([[0, 0, 1, 1]], [0.5], [0.0]), truth_of([]), "float64 and no whole numbers"),
        (
            found_of([], []),
            truth_of([[0, 0, 1, 1]])._replace(areas=np.array([np.nan])),
            "areas that are no finite",
        ),
        (found_of([], []), truth_of([[0, 0, 1, 1]])._replace(crowd=np.array([])), "marks of"),
    ],
)
def test_what_cannot_be_scored_is_said_with_the_image(pred, truth, sentence):
    with pytest.raises(DataError, match=f"image x cannot be scored: .*{sentence}"):
        ObjectScorer(COCO_BOXES, ("a", "b")).add("x", pred, truth)


def test_masks_that_are_missing_or_too_many():
    truth = truth_of([[0, 0, 4, 4]])
    pred, drawn = with_masks(found_of([[0, 0, 4, 4]], [0.5]), truth)
    scorer = ObjectScorer(COCO_MASKS, ("a",))
    with pytest.raises(DataError, match=r"found has boxes and no masks.*coco_boxes"):
        scorer.add("x", pred._replace(masks=None), drawn)
    with pytest.raises(DataError, match="truth has boxes and no masks"):
        scorer.add("x", pred, truth)
    with pytest.raises(DataError, match="found has 2 masks of 1 objects"):
        scorer.add("x", pred._replace(masks=[*pred.masks] * 2), drawn)
    scorer.add("x", pred, drawn)  # what was refused left nothing behind
    assert scorer.result().scores["mask_ap"] == 1.0


def test_a_set_without_objects_has_no_score():
    scorer = ObjectScorer(COCO_BOXES, ("a",))
    with pytest.raises(DataError, match="the data set has no score: no image was scored"):
        scorer.result()
    scorer.add("x", found_of([], []), truth_of([[0, 0, 9, 9]], crowd=[0]), "cells/test")
    with pytest.raises(DataError, match="cells/test has no score: none of its 1 images has an obj"):
        scorer.result()
    with pytest.raises(UsageError, match="two classes are called a"):
        ObjectScorer(COCO_BOXES, ("a", "a"))


def test_boxes_of_no_width_are_scored():
    truth = truth_of([[5, 5, 5, 9], [0, 0, 4, 4]])
    pairs = [(found_of([[5, 5, 5, 9], [0, 0, 4, 4]], [0.9, 0.8]), truth)]
    done = result(pairs)
    assert coco_scores(pairs, 1)["box_ap"] == pytest.approx(51 * 0.5 / 101)
    assert done.scores["box_ap"] == pytest.approx(51 * 0.5 / 101)


# Protocols and facts.


@pytest.mark.parametrize("protocol", OBJECT_PROTOCOLS, ids=lambda one: one.name)
def test_protocols_tell_all_of_themselves(protocol):
    assert get_protocol(protocol.name) is protocol
    told = dict(explain_protocol(protocol))
    assert told["protocol"].startswith(f"{protocol.name} v1 ({protocol.hash[:8]})")
    assert f"the {protocol.most} detections" in told["detections"]
    assert all(f"  {key}" in told for key in protocol.metrics)
    assert protocol.primary == protocol.headline[0]
    assert all(protocol.has_metric(key) for key in protocol.headline)
    assert not protocol.has_metric("iou/c0")


def test_facts_of_objects():
    assert COCO_BOXES.kind == "detection"
    assert COCO_MASKS.kind == CELLS.kind == DSB2018.kind == "instance"
    assert COCO_MASKS.hash != CELLS.hash
    assert COCO_MASKS.class_keys(["a", "b"]) == ("mask_ap/a", "mask_ap/b", "box_ap/a", "box_ap/b")
    assert (COCO_MASKS.has_metric("box_ap/a"), COCO_BOXES.has_metric("mask_ap/a")) == (True, False)
    assert COCO_MASKS.prints_percent("mask_ap/a")
    assert not DSB2018.prints_percent("dsb_score")
    assert get_metric("mask_ap/red cell").label == "AP mask red cell"
    assert METRICS["mask_ap"].latex == r"AP$^{\mathrm{m}}$"
    assert METRICS["box_ap_small"].latex == r"AP$^{\mathrm{b}}_{s}$"
    with pytest.raises(
        UsageError, match=r"mAP.*different things.*box_ap, mask_ap, box_ap50, mask_ap50, ap"
    ):
        refuse_ambiguous("mAP")
    with pytest.raises(UsageError, match=r"APm.*mask_ap, box_ap_medium"):
        refuse_ambiguous("APm")
    assert row_score("mask_ap", COCO_BOXES, ("a",)) is None
    assert row_score("box_ap", COCO_BOXES) is row_score("box_ap/b", COCO_BOXES, ("a",)) is None
    levels = [100 * level for level in hits.IOUS]
    assert np.allclose(levels, [50, 55, 60, 65, 70, 75, 80, 85, 90, 95])
    assert all(b > a for a, b in pairwise(levels))


# Real sets, their truth disturbed on purpose.

SETS = {
    "pennfudan/instances_test.json": (COCO_MASKS, 34),
    "nuclei_dsb2018/instances_test.json": (CELLS, 4),
    "bccd/boxes_test.json": (COCO_BOXES, 25),
    "coco_mini/instances_val.json": (COCO_MASKS, 30),
}


def read_set(path, images):
    """The truth of a file's first images, and the names of its classes."""
    content = json.loads(path.read_text())
    place = {one["id"]: k for k, one in enumerate(content["categories"])}
    pairs = []
    for image in content["images"][:images]:
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        shape = (image["height"], image["width"])
        boxes = np.array([a["bbox"] for a in own], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = None
        if all("segmentation" in a for a in own):
            masks = [runs.to_pixels(a["segmentation"], *shape) for a in own]
        pairs.append(
            Truth(
                boxes,
                np.array([place[a["category_id"]] for a in own], int),
                np.array([a["iscrowd"] for a in own], bool),
                np.array([a["area"] for a in own], float),
                masks,
                shape,
            )
        )
    return pairs, len(place)


def disturbed(truth, classes, rng):
    """Objects shifted, dropped, relabelled and found twice, with scores that tie."""
    keep = np.flatnonzero((rng.random(len(truth.classes)) > 0.15) & ~truth.crowd)
    keep = np.concatenate([keep, keep[rng.random(len(keep)) < 0.15]])
    boxes, kinds, masks = truth.boxes[keep].copy(), truth.classes[keep].copy(), None
    move = np.where(rng.random(len(keep)) < 0.6, rng.integers(-5, 6, len(keep)), 0)
    boxes[:, 0::2] = np.clip(boxes[:, 0::2] + move[:, None], 0, truth.shape[1])
    other = rng.random(len(keep)) < 0.1
    kinds[other] = rng.integers(0, classes, int(other.sum()))
    if truth.masks is not None:
        masks = [np.roll(truth.masks[k], step, axis=1) for k, step in zip(keep, move, strict=True)]
    return Detections(boxes, kinds, np.round(rng.random(len(keep)), 2), masks)


@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_disturbed_truth_of_real_sets_gets_the_scores_of_pycocotools(name):
    protocol, images = SETS[name]
    truths, classes = read_set(real_file(name), images)
    rng = np.random.default_rng(0)
    pairs = [(disturbed(truth, classes, rng), truth) for truth in truths]
    ours = result(pairs, protocol, classes).scores
    for part in protocol.parts:
        for key, value in coco_scores(pairs, classes, part, protocol.most).items():
            assert ours[key] == (value if value is None else pytest.approx(value, abs=1e-8)), key
    assert 0.3 < ours["box_ap"] < 0.95


# Which detection finds which object, as pictures show it.


def test_matches_worked_by_hand():
    # The second object is found by the last detection alone; a crowd takes the third.
    truth = truth_of([[0, 0, 10, 10], [40, 40, 60, 60], [0, 60, 40, 100]], crowd=[2])
    found = found_of(
        [[0, 0, 10, 9], [0, 0, 10, 8], [5, 70, 15, 80], [90, 90, 99, 99], [40, 40, 60, 60]],
        [0.9, 0.8, 0.7, 0.6, 0.3],
    )
    scorer = ObjectScorer(COCO_BOXES, ["c0"])
    told = scorer.matches("a", found, truth)
    assert told.objects.tolist() == [0, -1, 2, -1, 1]
    assert told.right.tolist() == [True, False, False, False, True]
    assert told.false.tolist() == [False, True, False, True, False]
    assert told.crowd.tolist() == [False, False, True, False, False]
    assert not told.missed.any()
    sure = scorer.matches("a", found, truth, least_score=0.5)
    assert sure.missed.tolist() == [False, True, False]
    assert sure.objects.tolist() == [0, -1, 2, -1, -1]
    assert not sure.false[4]  # it is not looked at
    with pytest.raises(DataError, match="no score"):  # nothing was collected
        scorer.result()


@pytest.mark.parametrize("protocol", [COCO_BOXES, COCO_MASKS, DSB2018])
def test_matches_are_those_that_rows_count(protocol):
    pairs = draw_images(5, images=8)
    scorer = scorer_of(protocol, pairs, 3)
    rows = {row["image"]: row for row in scorer.result().rows}
    for number, (pred, truth) in enumerate(pairs):
        told = scorer.matches("again", pred, truth)
        right, false = told.right.sum(), told.false.sum()
        assert told.missed.sum() + right == (~truth.crowd).sum()
        row = rows[f"i{number:04}"]
        if protocol is DSB2018:
            whole = right + false + told.missed.sum()
            assert row["dsb_50"] == pytest.approx(right / whole if whole else 1)
            continue
        kept = hits.read_hits(row[protocol.parts[0]], 3).hits[:, 0, 0]
        assert right == (kept == hits.HIT).sum()
        assert false == (kept == hits.FALSE_ALARM).sum()
