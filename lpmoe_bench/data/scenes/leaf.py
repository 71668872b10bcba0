"""Leaf disease: brown and yellow lesions on a leaf that lies on ground of their colours.

Only what is on the leaf counts: soil, dry leaves and twigs below it have every colour of a lesion.
"""

import numpy as np

from lpmoe_bench.data.scenes import drawing as dr
from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.data.scenes.embedded import EmbeddedSet

GREENS = ((74, 112, 40), (52, 96, 44), (102, 138, 52), (128, 152, 60), (44, 78, 48))
LESIONS = (  # core, rim, RGB
    ((122, 82, 48), (74, 46, 28)), ((86, 58, 40), (52, 34, 24)), ((176, 142, 92), (104, 64, 34)),
    ((196, 150, 54), (150, 110, 44)), ((150, 118, 84), (92, 52, 34)),
)  # fmt: skip
SOILS = ((112, 84, 58), (86, 62, 44), (150, 120, 84), (124, 104, 84))


def soil(draw: Draw, shape: Shape) -> Array:
    """Ground with crumbs, dry leaves and twigs in the colours of lesions, RGB (h, w, 3)."""
    side = min(shape)
    field = draw.pick((dr.litter, dr.pebbles))(draw, shape, draw.real(0.03, 0.06) * side, 0.0)
    field = np.tanh(0.6 * field / field.std()) + 0.3 * dr.noise(draw, shape, 0.02 * side)
    image = np.array(draw.pick(SOILS), float) * (1 + 0.28 * field)[..., None]
    for _ in range(draw.pick((6, 10, 14))):
        x, y = draw.real(0, shape[1]), draw.real(0, shape[0])
        dry = dr.blob(draw, x, y, draw.real(0.02, 0.1) * side, 0.25, draw.real(1, 2.2))
        colour = np.array(draw.pick(draw.pick(LESIONS)), float)
        dr.fill(image, dry, tuple(colour * draw.real(0.8, 1.2)))
    for _ in range(5):
        a, b = draw.array(0, 1, (2, 2)) * (shape[1], shape[0])
        a = b + (a - b) * 0.4
        dr.fill(image, dr.stroke(a, b, draw.real(-0.1, 0.1), 0.012 * side), (70, 50, 36))
    return dr.soft(image, 0.003 * side) * (1 + 0.1 * dr.noise(draw, shape, 0.015 * side))[..., None]


def blade(draw: Draw, length: float) -> tuple[Array, list[Array]]:
    """A leaf's outline and its veins, mid-rib first, along the x axis around the origin."""
    t = np.linspace(0, 1, 61)
    width = draw.real(0.3, 0.52) * length
    bulge = np.sin(np.pi * t ** draw.real(0.7, 1.2)) ** draw.real(0.6, 0.9)
    teeth = 1 + draw.real(0, 0.06) * np.sin(2 * np.pi * draw.pick((6, 9, 14)) * t)
    x, half = (t - 0.5) * length, width / 2 * bulge * teeth
    outline = np.concatenate([np.stack([x, half], -1), np.stack([x, -half], -1)[::-1]])
    veins = [
        dr.ribbon(np.stack([(t - 0.6) * 1.2 * length, 0 * t], -1), 0.022 * length, 0.006 * length)
    ]
    for k in range(7, 54, 6):
        for flank in (-1, 1):
            reach = flank * half[k] * 0.85
            end = np.array([x[k] + 0.9 * abs(reach), reach])
            start, width = np.array([x[k], 0]), 0.003 * length
            veins.append(dr.stroke(start, end, -0.08 * flank, 0.009 * length, width))
    return outline, veins


def lesions(draw: Draw, shape: Shape, leaf: Array, count: int) -> list[Array]:
    """Outlines of spots, many small ones or a few large, each around a point of the leaf."""
    side, found = min(shape), []
    rows, columns = np.nonzero(leaf > 0.5)
    large = 0.12 if count < 5 else 0.055
    for _ in range(count):
        at = int(draw.real(0, len(rows)))
        radius = draw.real(0.3, 1) * large * side
        found.append(dr.blob(draw, columns[at], rows[at], radius, 0.22, draw.real(1, 1.7)))
    return found


def paint_leaf(draw: Draw, shape: Shape, count: int) -> tuple[Array, Array]:
    """A leaf with a number of lesions on the ground."""
    side, turn = min(shape), draw.real(0, 2 * np.pi)
    middle = draw.array(0.38, 0.62, (2,)) * (shape[1], shape[0])
    outline, veins = blade(draw, draw.real(0.85, 1.3) * side)
    leaf = dr.area(shape, dr.turned(outline, turn) + middle)
    ribs = dr.soft(dr.area(shape, *(dr.turned(vein, turn) + middle for vein in veins)), 0.6)
    light = draw.real(0, 2 * np.pi)
    height = dr.soft(ribs, 0.02 * side) * 0.1 * side
    lit = dr.relief(height + 0.04 * side * dr.noise(draw, shape, side), light)
    green = np.array(draw.pick(GREENS), float) * (1 + 0.1 * draw.array(-1, 1, (3,)))
    skin = green * (1 + 0.2 * lit + 0.05 * dr.noise(draw, shape, 0.03 * side))[..., None]
    skin = dr.blend(skin, green * 0.6 + 84, 0.6 * ribs)
    spots = lesions(draw, shape, leaf, count)
    sick = dr.area(shape, *spots)
    core, rim = draw.pick(LESIONS)
    halo = dr.soft(sick, 0.02 * side)
    skin = dr.blend(skin, (186, 176, 62), draw.real(0.2, 0.7) * np.minimum(1.5 * halo, 1))
    rough = (1 + 0.11 * dr.noise(draw, shape, 0.02 * side))[..., None]
    skin = dr.blend(skin, np.array(rim, float) * rough, dr.soft(sick, 0.5))
    inner = np.clip((dr.soft(sick, 0.012 * side) - 0.6) / 0.25, 0, 1) * sick
    skin = dr.blend(skin, np.array(core, float) * rough, inner)
    gloss = np.clip(dr.noise(draw, shape, 0.35 * side) - 1.4, 0, 1) * (0.5 + 0.5 * lit)
    skin = dr.blend(skin, (235, 240, 235), 0.4 * gloss)
    # The ground comes last, in colours of lesions: what is no leaf is no lesion.
    image = soil(draw, shape)
    image = image * (1 - 0.55 * dr.thrown(leaf, light, 0.03 * side, 0.015 * side))[..., None]
    image = dr.blend(image, skin, dr.soft(leaf, 0.6)) * draw.real(0.8, 1.15)
    return dr.photograph(draw, image), sick * leaf > 0.5


def draw_scene(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    return paint_leaf(draw, shape, draw.pick((2, 3, 4, 7, 11, 16, 24)))


def draw_healthy(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    return paint_leaf(draw, shape, 0)


SET = EmbeddedSet(
    task="leaf",
    key=0x1EA,
    version="v1",
    about="Leaf disease: lesions on a leaf that lies on ground of their colours.",
    shapes=((264, 352), (352, 264), (352, 352)),
    shares=(0.008, 0.3),
    draw=draw_scene,
    draw_empty=draw_healthy,
)
