"""Scorers: any division of the images gives the same bits; images and data sets differ."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from test_engine import draw_pairs

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.engine import prepare_mask
from lpmoe_bench.metrics.protocols import REFERENCE, get_protocol
from lpmoe_bench.metrics.scorer import Scorer

COD = get_protocol("cod")
IMAGES = [(f"image{i:03d}", *pair) for i, pair in enumerate(draw_pairs(60, seed=21))]


def score(images, **options):
    scorer = Scorer(COD, **options)
    for name, pred, mask in images:
        scorer.add(name, pred, mask, dataset="set")
    return scorer


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_any_division_gives_the_same_bits(workers):
    whole = score(IMAGES).result()
    order = np.random.default_rng(workers).permutation(len(IMAGES))
    shuffled = [IMAGES[i] for i in order]
    parts = [score(shuffled[i::workers]) for i in range(workers)]
    merged = Scorer(COD)
    for part in reversed(parts):
        merged.merge(pickle.loads(pickle.dumps(part)))
    assert merged.result() == whole
    # Merging in another grouping.
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].result() == whole


def test_threads_that_share_masks_give_the_same_bits():
    whole = score(IMAGES).result()
    masks = {name: prepare_mask(mask).everything() for name, _, mask in IMAGES}
    work = [[(name, pred, masks[name]) for name, pred, _ in IMAGES[i::4]] for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(score, work))
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].result() == whole


def test_an_image_in_two_parts_is_refused():
    first, second = score(IMAGES[:3]), score(IMAGES[2:5])
    with pytest.raises(DataError, match="image image002 was scored twice"):
        first.merge(second)


def grey(rows):
    return np.array([[255 if c == "#" else 0 for c in row] for row in rows.split()], np.uint8)


def test_scores_of_the_data_set_are_not_the_mean_of_the_images():
    # tp, fp, fn, tn: a 1 1 1 13, b 8 0 4 4, c 0 1 1 14
    images = [
        ("a", grey("##.. .... .... ...."), grey("#..# .... .... ....")),
        ("b", grey("#### #### .... ...."), grey("#### #### #### ....")),
        ("c", grey("...# .... .... ...."), grey("#... .... .... ....")),
    ]
    result = score(images).result()
    assert result.pixels == (9, 2, 6, 31)
    assert result.pixels.iou == pytest.approx(9 / 17)
    assert result.pixels.dice == pytest.approx(18 / 26)
    assert result.pixels.ber == pytest.approx(1 - (9 / 15 + 31 / 33) / 2)
    assert result.scores["iou"] == pytest.approx((1 / 3 + 8 / 12 + 0) / 3)
    assert result.scores["dice"] == pytest.approx((2 / 4 + 16 / 20 + 0) / 3)
    balanced = [Fraction(1, 2) + Fraction(13, 14), Fraction(8, 12) + 1, Fraction(14, 15)]
    assert result.scores["ber"] == pytest.approx(float(1 - sum(balanced) / 6))
    assert result.pixels.iou - result.scores["iou"] > 0.19


def test_images_left_out_do_not_count_in_the_data_set():
    empty = ("b", grey("##.."), grey("...."))
    assert score([("a", grey("##.."), grey("#..."))]).result().pixels == (1, 1, 0, 2)
    assert score([("a", grey("##.."), grey("#...")), empty]).result().pixels == (1, 1, 0, 2)


def test_what_is_unusual_is_said_with_the_name():
    last = grey(".... ....").copy()
    last[-1] = 255
    images = [("a", last, last), ("b", 0 * last, grey("#... ...."))]
    result = score(images).result()
    assert [sentence.split(":")[0] for sentence in result.warnings] == ["image a", "image b"]
    assert "leaves out the empty quadrants" in result.warnings[0]
    assert "its map is constant" in result.warnings[1]
    assert np.isnan(score(images, mode=REFERENCE).result().scores["s_measure"])
