"""Panoptic quality: by hand, and equal to a plain loop on drawn and on real images."""

import json
import pickle

import numpy as np
import pytest
from drawn_objects import Truth, real_file
from panoptic_loop import panoptic_loop, panoptic_means

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.classes import VOID
from lpmoe_bench.metrics.facts import get_metric, refuse_ambiguous
from lpmoe_bench.metrics.panoptic import (
    COCO_PANOPTIC,
    Panoptic,
    PanopticScorer,
    read_segments,
    segments_text,
)
from lpmoe_bench.metrics.protocols import explain_protocol, get_protocol
from lpmoe_bench.metrics.row_scores import RowScore, row_score

NAMES = ("cat", "dog", "sky", "grass")
THINGS = ("cat", "dog")


def truth_of(segments, classes, crowd=(), things=(0, 1)):
    """The truth of a map of numbers, 0 void, and the class of each; crowd: numbers of crowds."""
    segments = np.array(segments)
    labels = np.full(segments.shape, VOID, np.uint8)
    for number, own in enumerate(classes, 1):
        if own not in things:
            labels[segments == number] = own
    own = [number for number, c in enumerate(classes, 1) if c in things]
    masks = [segments == number for number in own]
    marks = np.array([number in crowd for number in own], bool)
    kinds = np.array([classes[number - 1] for number in own], int)
    areas = np.array([float(mask.sum()) for mask in masks])
    return Truth(np.zeros((len(own), 4)), kinds, marks, areas, masks, segments.shape, labels)


def found_of(segments, classes):
    return Panoptic(np.array(segments), np.array(classes, int))


def scorer_of(pairs, names=NAMES, things=THINGS):
    scorer = PanopticScorer(COCO_PANOPTIC, names, things)
    for number, (pred, truth) in enumerate(pairs):
        scorer.add(f"i{number:03}", pred, truth, "set")
    return scorer


# A cat of four pixels found by four of six, of which one more lies on void: 4 / 5. The dog is
# found by exactly half of their union: no match. A grass lies on void, sky is found whole.
TRUTH = [[1, 1, 0, 3], [1, 1, 0, 3], [2, 2, 0, 3], [2, 2, 0, 3]]
FOUND = [[1, 1, 1, 3], [1, 1, 4, 3], [1, 2, 4, 3], [0, 2, 4, 3]]


def test_matches_worked_by_hand():
    scorer = scorer_of([])
    ids, told = scorer.matches("a", found_of(FOUND, [0, 1, 2, 3]), truth_of(TRUTH, [0, 1, 2]))
    # Stuff is first among the segments of the truth: sky, cat, dog.
    assert ids.tolist() == [[{0: 0, 3: 1, 1: 2, 2: 3}[v] for v in row] for row in TRUTH]
    assert np.argwhere(told.matched).tolist() == [[0, 2], [1, 0]]
    assert told.ious[1, 0] == pytest.approx(0.8)
    assert told.missed.tolist() == [False, False, True]
    assert told.false.tolist() == [False, True, False, False]  # grass lies on void


def test_worked_by_hand():
    pair = (found_of(FOUND, [0, 1, 2, 3]), truth_of(TRUTH, [0, 1, 2]))
    done = scorer_of([pair]).result()
    assert done.rows[0]["panoptic"] == "0t:0.8:1:0:0;1t:0.0:0:1:1;2s:1.0:1:0:0"
    assert done.scores == pytest.approx(
        {
            **{"pq": 1.8 / 3, "sq": 1.8 / 3, "rq": 2 / 3},
            **{"pq_things": 0.4, "sq_things": 0.4, "rq_things": 0.5},
            **{"pq_stuff": 1.0, "sq_stuff": 1.0, "rq_stuff": 1.0},
            **{"pq/cat": 0.8, "pq/dog": 0.0, "pq/sky": 1.0, "pq/grass": None},
        },
        abs=1e-15,
    )
    assert [*done.scores][:3] == ["pq", "sq", "rq"]
    assert done.counts == {
        **{"images": 1, "scored": 1, "segments": 3, "found_segments": 4},
        **{"pixels": 16, "void_pixels": 4},
    }
    assert done.rows[0]["pq"] is None


def test_crowds_absorb_their_class_and_the_last_of_several_counts():
    # Two crowds of dogs; a cat on a crowd is false, a dog on the first crowd too, one on the last
    # is left out, and so is one that half lies on it and with one pixel more on void.
    truth = truth_of([[1, 1, 1, 1, 2, 2, 2, 2, 2, 0]], [1, 1], crowd=(1, 2))
    for segments, called, expected in (
        ([[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]], [1], "1t:0.0:0:1:0"),
        ([[0, 0, 0, 0, 1, 1, 0, 0, 0, 0]], [1], "none"),
        ([[0, 0, 0, 0, 1, 1, 0, 0, 0, 0]], [0], "0t:0.0:0:1:0"),
        ([[0, 0, 1, 1, 1, 1, 0, 0, 0, 0]], [1], "1t:0.0:0:1:0"),
        ([[0, 0, 1, 1, 1, 1, 0, 0, 0, 1]], [1], "none"),
    ):
        found, scorer = found_of(segments, called), scorer_of([])
        scorer.add("x", found, truth)
        with pytest.raises(DataError, match="none of its 1 images has a segment"):
            scorer.result()
        scorer.add("y", *(found_of([[1]], [2]), truth_of([[1]], [2])))
        rows = scorer.result().rows
        assert (rows[0]["panoptic"], rows[0]["flags"]) == (expected, "")
        own = {1: (1, True), 2: (1, True)}
        numbers = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 2, 0]])
        each, _ = panoptic_loop([(numbers, own, found.segments, dict(enumerate(called, 1)))], 4)
        assert each[called[0]][2] == (expected != "none")


def draw(seed, images=8, classes=6, things=(0, 1, 2), crowds=0.2, size=24):
    """Maps of rectangles with void, and what a poor model finds of them."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(images):
        true = np.zeros((size, size), int)
        for number in range(1, 9):
            top, left = rng.integers(0, size - 4, 2)
            true[top : top + rng.integers(3, 14), left : left + rng.integers(3, 14)] = number
        pred = np.roll(true, rng.integers(-1, 2, 2), (0, 1))
        pred[rng.random(pred.shape) < 0.05] = 9
        if rng.random() < 0.3:
            pred[pred == 3] = 4
        pred[pred == 5] *= int(rng.random() < 0.6)
        kinds = rng.integers(0, classes, 10)
        called = np.where(rng.random(10) < 0.7, kinds, rng.integers(0, classes, 10))
        # Stuff has one segment a class in the truth.
        for number in range(1, 9):
            own = kinds[number - 1]
            if own not in things:
                true[true == number] = int(np.flatnonzero(kinds == own)[0]) + 1
        true, kinds = _numbered(true, kinds)
        pred, called = _numbered(pred, called)
        crowd = {n for n, c in enumerate(kinds, 1) if c in things and rng.random() < crowds}
        found.append((pred, called, true, kinds, crowd))
    return found


def _numbered(segments, classes):
    """Numbers without gaps, and the classes of those that have pixels."""
    here = [int(number) for number in np.unique(segments) if number]
    again = np.zeros_like(segments)
    for place, number in enumerate(here, 1):
        again[segments == number] = place
    return again, [int(classes[number - 1]) for number in here]


def pair_of(drawn, things=(0, 1, 2)):
    pred, called, true, kinds, crowd = drawn
    return found_of(pred, called), truth_of(true, kinds, crowd, things)


def looped(drawn, classes=6):
    return panoptic_loop(
        [
            (true, {n: (c, n in crowd) for n, c in enumerate(kinds, 1)}, pred,
             dict(enumerate(called, 1)))
            for pred, called, true, kinds, crowd in drawn
        ],
        classes,
    )  # fmt: skip


SIX = ("a", "b", "c", "d", "e", "f")


@pytest.mark.parametrize("crowds", [0, 0.2, 0.6])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_a_plain_loop(seed, crowds):
    drawn = draw(seed, crowds=crowds)
    scores = scorer_of([pair_of(one) for one in drawn], SIX, SIX[:3]).result().scores
    each, means = looped(drawn)
    for end, chosen in (("", range(6)), ("_things", range(3)), ("_stuff", range(3, 6))):
        wanted = panoptic_means(each, chosen)
        assert wanted is not None
        ours = tuple(scores[f"{stem}{end}"] for stem in ("pq", "sq", "rq"))
        assert ours == pytest.approx(wanted, abs=1e-12)
    assert (scores["pq"], scores["sq"], scores["rq"]) == pytest.approx(means, abs=1e-12)
    for number, name in enumerate(SIX):
        alone = panoptic_means(each, [number])
        assert scores[f"pq/{name}"] == (alone and pytest.approx(alone[0], abs=1e-12))
    assert 0.05 < scores["pq"] < 0.95


def test_rows_give_the_scores_again_and_those_without_some_images():
    drawn = draw(9, images=9)
    done = scorer_of([pair_of(one) for one in drawn], SIX, SIX[:3]).result()
    texts = [row["panoptic"] for row in done.rows]
    for text in texts:
        counts = read_segments(text, 6)
        assert segments_text(counts.sum(axis=0), (0, 1, 2)) == text
    places, units = np.array([0, 1, 0, 2, 1, 3, 3, 4, 2]), 5
    rests = [
        scorer_of(
            [pair_of(one) for one, own in zip(drawn, places, strict=True) if own != unit],
            *(SIX, SIX[:3]),
        ).result()
        for unit in range(units)
    ]
    for key, value in done.scores.items():
        rule = row_score(key, COCO_PANOPTIC, SIX)
        assert rule is not None
        parts = rule.read([["", *texts]])
        assert parts.counted.tolist() == [False] + 9 * [True]
        images = parts.of_image
        assert rule.of_all(images) == pytest.approx(value, abs=1e-15)
        by_hand = [rest.scores[key] for rest in rests]
        assert None not in by_hand, "each class is in several units"
        ours = rule.leave_out(images, places, units)
        np.testing.assert_allclose(ours, np.array(by_hand, float), atol=1e-12)
        plain = RowScore(columns=rule.columns, read=rule.read, score=rule.score)
        np.testing.assert_allclose(plain.leave_out(images, places, units), ours, atol=1e-12)
    assert row_score("pq/z", COCO_PANOPTIC, SIX) is row_score("pq", None, SIX) is None


def test_a_class_that_one_unit_alone_has_is_told_by_no_other():
    pairs = [
        (found_of([[1, 2]], [0, 2]), truth_of([[1, 2]], [0, 2])),
        (found_of([[1, 1]], [0]), truth_of([[1, 1]], [2])),
    ]
    rows = scorer_of(pairs).result().rows
    rule = row_score("pq/cat", COCO_PANOPTIC, NAMES)
    assert rule is not None
    images = rule.read([[row["panoptic"] for row in rows]]).of_image
    without = rule.leave_out(images, np.array([0, 1]), 2)
    assert np.isnan(without[0])
    assert without[1] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        *("0t:1:1:0", "0x:1:1:0:0", "t:1:1:0:0", "0t:nan:1:0:0", "0t:1:-1:0:0", "none;", "x"),
        *("0t:1:1:0:0;", "4t:1:1:0:0", "0t:1:1:0:0;0s:1:1:0:0", "0t:1e3:1:0:0"),
    ],
)
def test_rows_that_are_none(text):
    with pytest.raises(ValueError, match="row of segments"):
        read_segments(text, 4)


def test_order_and_division_of_the_images_do_not_matter():
    pairs = [pair_of(one) for one in draw(3, images=6)]
    whole = scorer_of(pairs, SIX, SIX[:3]).result()
    parts = [PanopticScorer(COCO_PANOPTIC, SIX, SIX[:3]) for _ in range(3)]
    for number in (5, 0, 3, 1, 4, 2):
        parts[number % 2].add(f"i{number:03}", *pairs[number], "set")
    first, second, empty = (pickle.loads(pickle.dumps(one)) for one in parts)
    empty.merge(second)
    empty.merge(first)
    assert empty.result() == whole
    with pytest.raises(DataError, match="i000 was scored twice"):
        empty.merge(first)
    with pytest.raises(DataError, match="i001 was scored twice"):
        empty.add("i001", *pairs[1], "set")


ONE = truth_of([[1, 2]], [0, 2])


@pytest.mark.parametrize(
    ("pred", "truth", "sentence"),
    [
        (found_of([[1, 2, 0]], [0, 2]), ONE, r"map has int64 numbers of shape \[1, 3\]"),
        (found_of([[1, 2]], [0]), ONE, "map has segment 2, but classes of segments 1 to 1"),
        (found_of([[-1, 1]], [0]), ONE, "map has segment -1"),
        (found_of([[1, 1]], [0, 2]), ONE, "map has no pixel of segment 2; leave it out"),
        (found_of([[1, 1]], [4]), ONE, "map has class 4; the 4 classes are 0 to 3"),
        (found_of([[1.0, 1.0]], [0]), ONE, "map has float64 numbers"),
        (found_of([[1, 1]], [0]), ONE._replace(labels=np.zeros((1, 2), int)), "labels int64"),
        (found_of([[1, 1]], [0]), ONE._replace(labels=np.array([[0, VOID]], np.uint8)),
         "truth has cat in its map of stuff, which is a thing"),
        (found_of([[1, 1]], [0]), ONE._replace(labels=np.array([[2, 2]], np.uint8)),
         "truth has two segments that share pixels"),
        (found_of([[1, 1]], [0]), ONE._replace(classes=np.array([3])), "grass among its things"),
        (found_of([[1, 1]], [0]), ONE._replace(masks=[]), "0 masks of 1 things"),
        (found_of([[1, 1]], [0]), ONE._replace(masks=[np.zeros((1, 2), bool)]), "without a pixel"),
        (found_of([[1, 1]], [0]), ONE._replace(masks=[[3]]), "do not add up"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_said_with_the_image(pred, truth, sentence):
    scorer = scorer_of([])
    with pytest.raises(DataError, match=f"image x cannot be scored: its .*{sentence}"):
        scorer.add("x", pred, truth)
    scorer.add("x", found_of([[1, 2]], [0, 2]), ONE)  # what was refused left nothing behind
    assert scorer.result().scores["pq"] == 1.0


def test_images_that_are_void_throughout():
    void = (found_of([[1, 0]], [0]), truth_of([[0, 0]], []))
    scorer = scorer_of([void])
    with pytest.raises(DataError, match="set has no score: none of its 1 images has a segment"):
        scorer.result()
    scorer.add("y", found_of([[1, 2]], [0, 2]), ONE, "set")
    done = scorer.result()
    assert (done.rows[0]["panoptic"], done.rows[0]["flags"]) == ("none", "all_void")
    assert done.counts["all_void"] == 1
    assert done.scores["pq"] == 1.0
    with pytest.raises(DataError, match="no image was scored"):
        scorer_of([]).result()
    with pytest.raises(UsageError, match="unknown class of things 'cut'; did you mean 'cat'"):
        PanopticScorer(COCO_PANOPTIC, NAMES, ["cut"])


def test_the_protocol_tells_all_of_itself():
    assert get_protocol("coco_panoptic") is COCO_PANOPTIC
    told = dict(explain_protocol(COCO_PANOPTIC))
    assert "more than half" in told["void"]
    assert "the last one" in told["crowds"]
    assert all(f"  {key}" in told for key in [*COCO_PANOPTIC.metrics, "pq/NAME"])
    assert COCO_PANOPTIC.kind == "panoptic"
    assert COCO_PANOPTIC.metrics[:6] == ("pq", "sq", "rq", "pq_things", "sq_things", "rq_things")
    assert get_metric("pq/light post").label == "PQ light post"
    with pytest.raises(UsageError, match="'PQth' is called pq_things here"):
        refuse_ambiguous("PQth")


# Real images, their truth disturbed on purpose.


def read_panoptic(folder, images):
    """Maps of segments and their classes and crowds, of a file's first images."""
    import cv2

    content = json.loads((folder / "panoptic_val.json").read_text())
    place = {one["id"]: k for k, one in enumerate(content["categories"])}
    things = [k for k, one in enumerate(content["categories"]) if one["isthing"]]
    found = []
    for one in content["annotations"][:images]:
        pixels = cv2.imread(str(folder / "panoptic" / one["file_name"])).astype(np.int64)
        ids = pixels[..., 2] + 256 * pixels[..., 1] + 256**2 * pixels[..., 0]
        segments = [s for s in one["segments_info"] if (ids == s["id"]).any()]
        true = np.zeros(ids.shape, int)
        for number, own in enumerate(segments, 1):
            true[ids == own["id"]] = number
        kinds = [place[own["category_id"]] for own in segments]
        crowd = {number for number, own in enumerate(segments, 1) if own["iscrowd"]}
        found.append((true, kinds, crowd))
    return found, len(place), things


@pytest.mark.data
@pytest.mark.parametrize("crowds", [False, True])
def test_disturbed_truth_of_real_images_gets_the_scores_of_the_loop(crowds):
    folder = real_file("coco_mini/panoptic_val.json").parent
    truths, classes, things = read_panoptic(folder, 12)
    rng, drawn = np.random.default_rng(0), []
    for true, kinds, own_crowds in truths:
        more = {n for n, c in enumerate(kinds, 1) if c in things and crowds and rng.random() < 0.2}
        pred = np.roll(true, rng.integers(-6, 7), axis=1)
        for number in range(1, len(kinds) + 1):
            pred[pred == number] *= int(rng.random() > 0.1)
        called = np.where(rng.random(len(kinds)) < 0.1, rng.integers(0, classes, len(kinds)), kinds)
        pred, called = _numbered(pred, called)
        drawn.append((pred, called, true, kinds, own_crowds | more))
    names = [f"c{number}" for number in range(classes)]
    pairs = [pair_of(one, things) for one in drawn]
    scores = scorer_of(pairs, names, [names[k] for k in things]).result().scores
    each, means = looped(drawn, classes)
    assert (scores["pq"], scores["sq"], scores["rq"]) == pytest.approx(means, abs=1e-12)
    of_things = panoptic_means(each, things)
    assert of_things is not None
    assert scores["pq_things"] == pytest.approx(of_things[0], abs=1e-12)
    assert 0.3 < scores["pq"] < 0.95
