"""Pictures of objects: what is drawn where, in colours that every eye tells apart."""

import itertools

import numpy as np
import pytest

from lpmoe_bench.data.label_rules import class_colours
from lpmoe_bench.data.object_drawing import (
    BORDER,
    MATCHED,
    Shapes,
    draw_objects,
    draw_outcomes,
    draw_segment_outcomes,
    draw_segments,
    numbers_of,
    object_colours,
    places_shown,
)
from lpmoe_bench.metrics.runs import runs_of_pixels
from lpmoe_bench.scoring.work import INVENTED, MISSED

RED, BLUE = (200, 0, 0), (0, 0, 200)
GREY = np.full((40, 60, 3), 100, np.uint8)


def shapes(*boxes, masks=False, shape=(40, 60)):
    found = np.array(boxes, float).reshape(-1, 4)
    if not masks:
        return Shapes(found)
    runs = []
    for left, top, right, bottom in found.astype(int):
        mask = np.zeros(shape, bool)
        mask[top:bottom, left:right] = True
        runs.append(runs_of_pixels(mask))
    return Shapes(found, runs)


def is_colour(picture, colour):
    return (picture == colour).all(axis=-1)


def test_boxes_are_lines_on_their_outermost_pixels():
    picture = draw_objects(GREY, shapes([10, 5, 30, 25]), [RED])
    drawn = is_colour(picture, RED)
    wanted = np.zeros((40, 60), bool)
    wanted[5:25, 10:30] = True
    wanted[6:24, 11:29] = False
    assert (drawn == wanted).all()
    assert (picture[~wanted] == 100).all()


def test_masks_are_outlined_and_tinted_in_half():
    picture = draw_objects(GREY, shapes([10, 5, 30, 25], masks=True), [RED])
    assert picture[5, 10].tolist() == [*RED]
    assert picture[15, 20].tolist() == [150, 50, 50]
    assert (GREY == 100).all()  # the image itself stays


def test_the_last_object_lies_on_top():
    picture = draw_objects(GREY, shapes([0, 0, 20, 20], [10, 10, 30, 30]), [RED, BLUE])
    assert picture[10, 19].tolist() == [*BLUE]


@pytest.mark.parametrize("masks", [False, True])
def test_one_pixel_at_a_corner_and_boxes_beyond_are_seen(masks):
    for box in ([59, 39, 60, 40], [0, 0, 1, 1]):
        picture = draw_objects(GREY, shapes(box, masks=masks), [RED], ["x 0.9"])
        assert is_colour(picture, RED)[box[1], box[0]]
    picture = draw_objects(GREY, shapes([-9, -9, 70, 50]), [RED])
    assert is_colour(picture, RED).sum() == 2 * 60 + 2 * 38
    empty = Shapes(np.zeros((1, 4)), [np.array([2400])])  # a mask without a pixel
    assert (draw_objects(GREY, empty, [RED]) == GREY).all()


def test_words_never_cover_other_words_and_are_left_out_where_there_are_many():
    image = np.zeros((300, 400, 3), np.uint8)
    twice = draw_objects(image, shapes([50, 50, 200, 200], [52, 52, 202, 202]), [RED, BLUE], "ab")
    one = draw_objects(image, shapes([50, 50, 200, 200]), [RED], "a")
    assert is_colour(one, RED)[:50].sum() > 40  # above its box
    assert is_colour(twice, RED).sum() > is_colour(one, RED).sum() / 2
    boxes = [[x, y, x + 6, y + 6] for x in range(0, 400, 20) for y in range(0, 300, 15)]
    assert len(boxes) == 400
    many = draw_objects(image, shapes(*boxes), [RED] * 400, ["cell 0.90"] * 400)
    plain = draw_objects(image, shapes(*boxes), [RED] * 400)
    assert (many == plain).all()


def test_colours_of_objects_differ_and_stay():
    colours = class_colours(3)
    classes = np.array([1, 0, 1, 1, 0])
    assert numbers_of(classes).tolist() == [0, 0, 1, 2, 1]
    found = object_colours(classes, numbers_of(classes), colours)
    assert found[0] == colours[1]
    assert found[1] == colours[0]
    assert object_colours(classes[2:3], np.array([1]), colours) == found[2:3]
    shades = object_colours(np.zeros(60, int), np.arange(60), colours)
    assert len(set(shades)) == 60
    alone = object_colours(np.zeros(400, int), np.arange(400), [RED])  # one class: any colour
    assert len(set(alone[:254])) == 254


def test_segments_have_borders_and_nothing_where_there_is_none():
    segments = np.zeros((40, 60), int)
    segments[:, 20:40], segments[:, 40:] = 1, 2
    picture = draw_segments(GREY, segments, [RED, BLUE], tint=1.0)
    assert picture[3, 30].tolist() == [*RED]
    assert picture[3, 50].tolist() == [*BLUE]
    assert picture[3, 10].tolist() == [100] * 3
    assert is_colour(picture, BORDER)[3].nonzero()[0].tolist() == [20, 40]


def test_outcomes_by_hand():
    lost, false = tuple(MISSED.tolist()), tuple(INVENTED.tolist())
    picture = draw_outcomes(
        (40, 60),
        [(MATCHED, shapes([2, 2, 12, 12])), (lost, shapes([20, 2, 30, 12])), (false, shapes())],
    )
    assert picture[2, 2].tolist() == [*MATCHED]
    assert picture[2, 20].tolist() == [*lost]
    assert not is_colour(picture, false).any()
    assert (picture[30:] == 255).all()
    segments = np.ones((40, 60), int)
    segments[:, 30:] = 2
    truth = np.where(segments == 2, 1, 0)  # which the second segment misses
    picture = draw_segment_outcomes(segments, [MATCHED, false], truth, np.array([True]), lost)
    assert (picture[:, 5:25] == MATCHED).all()
    right = picture[:, 35:].reshape(-1, 3)
    assert {tuple(one) for one in right.tolist()} == {lost, false}  # stripes of both
    picture = draw_segment_outcomes(np.zeros((40, 60), int), [], truth, np.array([True]), lost)
    assert (picture[:, 35:] == lost).all()


def test_scores_decide_what_is_shown():
    assert places_shown(np.array([0.9, 0.49, 0.5])).tolist() == [2, 0]
    assert places_shown(np.array([0.9, 0.1]), least=0.0).tolist() == [1, 0]
    assert not len(places_shown(np.zeros(0)))


# Machado, Oliveira and Fernandes, 2009: what eyes without one kind of cones see, in linear RGB.
EYES = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
    "usual": np.eye(3),
}  # fmt: skip


@pytest.mark.parametrize("eye", EYES)
def test_outcomes_are_apart_for_every_eye(eye):
    import cv2

    colours = np.array([MATCHED, MISSED, INVENTED]) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.array(EYES[eye]).T).clip(0, 1).astype(np.float32)
    lab = cv2.cvtColor(seen[None], cv2.COLOR_LRGB2Lab)[0]
    for one, other in itertools.combinations(lab, 2):
        assert np.linalg.norm(one - other) > 25  # 2 is just noticed
