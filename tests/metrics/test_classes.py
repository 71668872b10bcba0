"""Scores of label maps: by hand, against a naive count, and equal to torchmetrics."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.classes import (
    CLASSES,
    TRANS10K,
    VOID,
    ClassScorer,
    confusion_text,
    read_confusions,
)
from lpmoe_bench.metrics.facts import METRICS, get_metric, refuse_ambiguous
from lpmoe_bench.metrics.protocols import (
    MAP_PROTOCOLS,
    PROTOCOLS,
    explain_metric,
    explain_protocol,
    get_protocol,
    map_protocol,
)
from lpmoe_bench.metrics.row_scores import RowScore, row_score

# a: 1 right, one of b called a; b: 2 right of 3; c: one right; d is nowhere; one pixel is void.
TRUTH = np.array([[0, 1, 1], [1, VOID, 2]], np.uint8)
PRED = np.array([[0, 0, 1], [1, 2, 2]], np.uint8)
NAMES = ("a", "b", "c", "d")


def result(protocol=CLASSES, names=NAMES, pairs=((PRED, TRUTH),)):
    scorer = ClassScorer(protocol, names)
    for number, (pred, truth) in enumerate(pairs):
        scorer.add(f"i{number}", np.array(pred), np.array(truth), "set")
    return scorer.result()


def test_scores_worked_by_hand():
    found = result()
    assert found.scores == pytest.approx(
        {
            **{"mean_iou": (1 / 2 + 2 / 3 + 1) / 3, "mean_acc": (1 + 2 / 3 + 1) / 3},
            **{"pixel_acc": 4 / 5, "fw_iou": (1 * 1 / 2 + 3 * 2 / 3 + 1 * 1) / 5},
            **{"iou/a": 1 / 2, "iou/b": 2 / 3, "iou/c": 1.0, "iou/d": None},
            **{"acc/a": 1.0, "acc/b": 2 / 3, "acc/c": 1.0, "acc/d": None},
        }
    )
    assert [*found.scores][:5] == ["mean_iou", "mean_acc", "pixel_acc", "fw_iou", "iou/a"]
    assert found.counts == {"images": 1, "scored": 1, "pixels": 6, "void_pixels": 1}
    assert found.confusion is not None
    assert found.confusion.tolist() == [
        *([1, 0, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]),
        [0, 0, 0, 0],
    ]
    (row,) = found.rows
    assert row["confusion"] == "0:0:1;1:0:1;1:1:2;2:2:1"
    assert (row["dataset"], row["image"], row["mean_iou"], row["flags"]) == ("set", "i0", None, "")


def test_trans10k_counts_absent_classes_and_void_as_its_authors_do():
    found = result(TRANS10K)
    # The void pixel is called c: it enters c's union and the pixels that accuracy is a share of.
    assert found.scores == pytest.approx(
        {
            **{"mean_iou": (1 / 2 + 2 / 3 + 1 / 2 + 0) / 4, "pixel_acc": 4 / 6},
            **{"iou/a": 1 / 2, "iou/b": 2 / 3, "iou/c": 1 / 2, "iou/d": 0.0},
        }
    )
    assert found.rows[0]["confusion"].endswith(";255:2:1")
    assert found.confusion is not None
    assert found.confusion[-1].tolist() == [0, 0, 1, 0]


def test_a_class_that_only_maps_have_counts_0():
    found = result(names=("a", "b", "c"), pairs=[([[0, 2]], [[0, 0]])])
    assert found.scores == pytest.approx(
        {
            **{"mean_iou": (1 / 2 + 0) / 2, "mean_acc": 1 / 2, "pixel_acc": 1 / 2, "fw_iou": 1 / 2},
            **{"iou/a": 1 / 2, "iou/b": None, "iou/c": 0.0},
            **{"acc/a": 1 / 2, "acc/b": None, "acc/c": None},
        }
    )


def test_the_pixels_of_all_images_count_together():
    images = [([[0, 0, 0, 0]], [[0, 0, 0, 0]]), ([[0, 1]], [[1, 0]])]
    found = result(names=("a", "b"), pairs=images)
    assert found.scores["iou/a"] == 4 / 6
    assert found.scores["mean_iou"] == (4 / 6 + 0) / 2  # the mean of the images' would be 1 / 2


def test_an_image_without_a_class_tells_nothing_and_a_set_of_them_is_refused():
    void = (np.zeros((2, 2), np.uint8), np.full((2, 2), VOID, np.uint8))
    found = result(pairs=[void, (PRED, TRUTH)])
    assert found.scores == result().scores
    assert found.counts == {
        **{"images": 2, "scored": 1, "all_void": 1, "pixels": 10, "void_pixels": 5}
    }
    assert found.warnings == [
        "image i0: none of its pixels has a class: it tells nothing about any"
    ]
    for protocol in (CLASSES, TRANS10K):
        with pytest.raises(DataError, match="set has no score: no pixel of its 1 images has a cla"):
            result(protocol, pairs=[void])
    with pytest.raises(DataError, match="no image was scored"):
        ClassScorer(CLASSES, NAMES).result()


def test_what_cannot_be_scored_is_refused_by_the_image():
    scorer = ClassScorer(CLASSES, ("a", "b"))
    plain = np.zeros((2, 2), np.uint8)
    for pred, truth, words in (
        (plain + 2, plain, "its map holds 2; the 2 classes are 0 to 1$"),
        (plain + VOID, plain, "its map holds 255"),
        (
            plain,
            plain + 7,
            "its truth holds 7; the 2 classes are 0 to 1, and 255 where a pixel has",
        ),
        (plain[:1], plain, "both must be of one size"),
        (plain.astype(float), plain, "its map is float64; it must hold numbers of classes"),
        (plain.astype(int) - 1, plain, "its map is int64"),
    ):
        with pytest.raises(DataError, match=f"image x cannot be scored: .*{words}"):
            scorer.add("x", pred, truth)
    scorer.add("x", plain.astype(np.int64), plain)
    with pytest.raises(DataError, match="x was scored twice"):
        scorer.add("x", plain, plain)
    for names, words in (((), "0 classes"), (("a", "a"), "called a"), (("a", " "), "no name")):
        with pytest.raises(UsageError, match=words):
            ClassScorer(CLASSES, names)
    with pytest.raises(UsageError, match="255 classes; a label map has 1 to 254"):
        ClassScorer(CLASSES, [str(number) for number in range(255)])


def drawn(seed, images=5, classes=4, size=(6, 7)):
    rng = np.random.default_rng(seed)
    for _ in range(images):
        truth = rng.integers(0, classes, size).astype(np.uint8)
        truth[rng.random(size) < 0.2] = VOID
        yield rng.integers(0, classes, size).astype(np.uint8), truth


def test_neither_order_nor_division_matters():
    pairs = list(drawn(0))
    parts = [ClassScorer(CLASSES, NAMES) for _ in range(2)]
    for number in (3, 0, 4, 1, 2):
        parts[number % 2].add(f"i{number}", *pairs[number], "set")
    whole = pickle.loads(pickle.dumps(parts[1]))
    whole.merge(parts[0])
    expected = result(pairs=pairs)
    assert (whole.result().scores, whole.result().rows) == (expected.scores, expected.rows)
    with pytest.raises(DataError, match="i0 was scored twice"):
        whole.merge(parts[0])


@given(
    st.integers(1, 5).flatmap(
        lambda k: st.tuples(
            st.just(k),
            st.lists(
                st_np.arrays(np.uint8, (2, 3, 4), elements=st.integers(0, k)),
                min_size=1,
                max_size=4,
            ),
        )
    ),
    st.sampled_from([CLASSES, TRANS10K]),
)
@settings(max_examples=80, deadline=None)
def test_scores_are_those_of_a_naive_count(drawn, protocol):
    classes, images = drawn  # of two layers: the map, and a truth in which the last value is void
    pairs = [(np.minimum(both[0], classes - 1), both[1]) for both in images]
    pairs = [(p, np.where(t == classes, VOID, t).astype(np.uint8)) for p, t in pairs]
    pixels = [(p, t) for pair in pairs for p, t in zip(*(x.ravel() for x in pair), strict=True)]
    if all(t == VOID for _, t in pixels):
        with pytest.raises(DataError):
            result(protocol, [str(k) for k in range(classes)], pairs)
        return
    found = result(protocol, [str(k) for k in range(classes)], pairs).scores
    if protocol is CLASSES:
        pixels = [(p, t) for p, t in pixels if t != VOID]
    ious, accs = [], []
    for k in range(classes):
        both = sum(p == t == k for p, t in pixels)
        either, own = sum(k in (p, t) for p, t in pixels), sum(t == k for _, t in pixels)
        none = None if protocol is CLASSES else 0.0
        ious.append(both / either if either else none)
        accs.append(both / own if own else none)
    known = [x for x in ious if x is not None]
    assert found["mean_iou"] == pytest.approx(sum(known) / len(known), abs=1e-12)
    assert found["pixel_acc"] == pytest.approx(sum(p == t for p, t in pixels) / len(pixels))
    assert [found[f"iou/{k}"] for k in range(classes)] == ious
    if protocol is CLASSES:
        known = [x for x in accs if x is not None]
        assert found["mean_acc"] == pytest.approx(sum(known) / len(known), abs=1e-12)
        assert [found[f"acc/{k}"] for k in range(classes)] == accs


def test_confusion_and_ratios_equal_torchmetrics():
    torch = pytest.importorskip("torch")
    tm = pytest.importorskip("torchmetrics.classification")
    for seed, classes in ((0, 4), (1, 11), (2, 2)):
        pairs = list(drawn(seed, classes=classes, size=(9, 13)))
        names = [str(k) for k in range(classes + 1)]  # the last is nowhere
        found = result(names=names, pairs=pairs)
        pred, truth = (torch.tensor(np.stack(x)).long() for x in zip(*pairs, strict=True))
        facts = {"num_classes": classes + 1, "ignore_index": VOID}

        def score(kind, pred=pred, truth=truth, facts=facts, **more):
            return getattr(tm, kind)(**facts, **more)(pred, truth)

        assert found.confusion is not None
        assert score("MulticlassConfusionMatrix").tolist() == found.confusion[:-1].tolist()
        ours = [found.scores[f"iou/{k}"] for k in names[:-1]]
        theirs = score("MulticlassJaccardIndex", average="none").tolist()
        # torchmetrics divides in 32 bits
        assert theirs[:-1] == np.array(ours, np.float32).tolist()
        mean = score("MulticlassJaccardIndex", average="macro").item()
        assert mean == pytest.approx(found.scores["mean_iou"], rel=2e-7)
        ours = [found.scores[f"acc/{k}"] for k in names[:-1]]
        theirs = score("MulticlassAccuracy", average="none").tolist()
        assert theirs[:-1] == np.array(ours, np.float32).tolist()
        mean = score("MulticlassAccuracy", average="macro").item()
        assert mean == pytest.approx(found.scores["mean_acc"], rel=2e-7)
        right = score("MulticlassAccuracy", average="micro").item()
        assert right == np.float32(found.scores["pixel_acc"])


def test_the_text_of_a_row_is_read_as_it_was_written():
    entries = np.array([[0, 1, 7], [3, 3, 10**12], [255, 0, 2]])
    text = confusion_text(entries)
    assert text == "0:1:7;3:3:1000000000000;255:0:2"
    images, read = read_confusions(["", text, text], 4)
    assert images.tolist() == [1, 1, 1, 2, 2, 2]
    assert read.tolist() == 2 * entries.tolist()
    assert [part.size for part in read_confusions(["", ""], 4)] == [0, 0]
    for bad in ("0:1", "a:b:c", "0:1:7;", "0:1:-7", "0:1:7;;0:0:1", "0:1:1e3", "=1:1:1"):
        with pytest.raises(ValueError, match="is no confusion of classes"):
            read_confusions([text, bad], 4)
    for bad in ("4:0:1", "0:4:1", "0:255:1"):
        with pytest.raises(ValueError, match="beyond its 4 classes"):
            read_confusions([bad], 4)


def test_protocols_are_known_hashed_and_explained():
    hashes = {name: get_protocol(name).hash[:8] for name in ("classes", "trans10k", "cod")}
    assert hashes == {"classes": "b7971425", "trans10k": "d64e271e", "cod": "0d7dbcd5"}
    for change in ({"absent": "counts 0"}, {"void": "counts as wrong"}, {"of_class": ("iou",)}):
        assert replace(CLASSES, **change).hash != CLASSES.hash
    assert replace(CLASSES, title="", source="", headline=(), percent=()).hash == CLASSES.hash
    assert {p.kind for p in MAP_PROTOCOLS.values()} == {"binary"}
    assert (CLASSES.kind, TRANS10K.kind) == ("semantic", "semantic")
    semantic = {name for name, protocol in PROTOCOLS.items() if protocol.kind == "semantic"}
    assert semantic == {"classes", "trans10k"}
    told = dict(explain_protocol(TRANS10K))
    assert "not imitated" in told["source"]
    assert "counts 0" in told["absent"]
    assert "false positive" in told["void"]
    assert "  iou/NAME" in told
    with pytest.raises(
        UsageError, match="protocol classes is of semantic tasks, and these are bin"
    ):
        map_protocol("classes")


def test_the_facts_of_one_class_come_when_they_are_asked_for():
    sky = get_metric("iou/sky")
    assert (sky.key, sky.label, sky.per_image) == ("iou/sky", "IoU sky", False)
    assert "iou/sky" in METRICS
    assert METRICS.get("acc/a b/c").label == "Acc a b/c"
    assert METRICS.get("iou/") is None
    assert "dice/sky" not in METRICS
    stems = ("iou", "acc", "box_ap", "mask_ap", "pq")
    assert [key for key in METRICS if "/" in key] == [f"{stem}/NAME" for stem in stems]
    assert dict(explain_metric(sky))["of"] == "a whole data set"
    with pytest.raises(UsageError, match="unknown metric 'f1/sky'"):
        get_metric("f1/sky")
    with pytest.raises(UsageError, match=r"mIoU.*means different.*iou_classes_dataset, mean_iou"):
        refuse_ambiguous("mIoU")
    with pytest.raises(UsageError, match="'aAcc' is called pixel_acc here"):
        refuse_ambiguous("aAcc")


def test_rows_give_scores_and_a_score_that_is_no_function_of_sums_needs_only_its_own():
    found = result(pairs=list(drawn(3)))
    texts = [row["confusion"] for row in found.rows]
    for key, value in found.scores.items():
        rule = row_score(key, CLASSES, NAMES)
        assert rule is not None
        parts = rule.read([["", *texts]])
        assert parts.counted.tolist() == [False] + 5 * [True]
        assert rule.of_all(parts.of_image) == pytest.approx(value, abs=1e-15)
        # The general way, by weights, and the sums agree.
        plain = RowScore(columns=rule.columns, read=rule.read, score=rule.score)
        places, units = np.array([0, 1, 0, 2, 1]), 3
        ours, general = (r.leave_out(parts.of_image, places, units) for r in (rule, plain))
        np.testing.assert_allclose(ours, general, atol=1e-15)
        np.testing.assert_allclose(
            rule.of_each(parts.of_image), plain.of_each(parts.of_image), atol=1e-15
        )
    assert row_score("iou/elsewhere", CLASSES, NAMES) is None
    assert row_score("mean_iou", None, NAMES) is row_score("mae") is None
