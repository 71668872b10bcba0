"""Landscapes whose trees, houses and balloons are told apart; sky, meadow and water are stuff.

The scenes are painted as those of `semantic`, from keys of their own. What hides another object
takes its pixels, and what is left of one in too few pixels is nobody's.
"""

import numpy as np

from lpmoe_bench.data.scenes import semantic
from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.data.scenes.embedded import UNTOLD, EmbeddedSet

THINGS = tuple(semantic.CLASSES[k] for k in (semantic.TREE, semantic.HOUSE, semantic.BALLOON))
LEAST = 12  # pixels of an object that can be told


def draw_scene(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    image, canvas = semantic.paint_scene(draw, shape)
    labels, numbers = canvas.labels.astype(np.int32), canvas.numbers.astype(np.int32)
    things = np.isin(labels, [semantic.CLASSES.index(name) for name in THINGS])
    few = np.bincount(numbers[things], minlength=canvas.objects + 1) < LEAST
    segments = labels * 1000 + np.where(things, numbers, 0)
    segments[things & few[numbers]] = UNTOLD
    return image, segments


SET = EmbeddedSet(
    task="objects",
    key=0x0B7,
    version="v1",
    about="Landscapes whose trees, houses and balloons are told apart; the rest is stuff.",
    shapes=((264, 352), (264, 352), (352, 352), (236, 352)),
    shares=(0.3, 0.85),
    draw=draw_scene,
    classes=semantic.CLASSES,
    things=THINGS,
)
