"""Salient object: one sharp, lit thing before blurred others that share its colours.

Saliency is relative: the same colour, texture or size belongs to the object of one scene and to
the clutter of the next; only what stands out in this picture, in focus, counts.
"""

import numpy as np

from lpmoe_bench.data.scenes import drawing as dr
from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.data.scenes.embedded import EmbeddedSet


def thing_surface(draw: Draw, shape: Shape, wavelength: float, palette: tuple) -> Array:
    """A textured material, RGB (h, w, 3)."""
    field = draw.pick(dr.TEXTURES)(draw, shape, wavelength, draw.real(0, np.pi))
    field = field + draw.real(0.2, 0.6) * dr.noise(draw, shape, 0.4 * min(shape))
    low, high = np.quantile(field, [0.02, 0.98])
    tone = np.clip((field - low) / (high - low), 0, 1)
    contrast, lift = draw.real(0.35, 0.8), draw.real(0, 1)
    mix = 0.5 + 0.5 * np.tanh(dr.noise(draw, shape, 0.25 * min(shape)))
    return dr.coloured(tone * contrast + lift * (1 - contrast), mix, palette)


def thing(draw: Draw, x: float, y: float, radius: float) -> list[Array]:
    """Outlines of some man-made or natural thing."""
    kind = draw.pick((0, 0, 1, 2))
    if kind == 0:
        return [dr.blob(draw, x, y, radius, 0.22, draw.real(1, 2.2))]
    width, height = radius * draw.real(0.8, 1.6), radius * draw.real(1.2, 2.4)
    lower = dr.rectangle(x, y + 0.3 * height, width, height, draw.real(-0.1, 0.1))
    top = dr.rectangle(x, y - 0.3 * height, width * draw.real(0.3, 0.8), height)
    crown = dr.blob(draw, x, y - 0.5 * height, 0.7 * width, 0.1)
    return [lower, top if kind == 1 else crown]


def backdrop(draw: Draw, shape: Shape, palettes: list, light: float) -> Array:
    """What lies behind: ground and distance, with clutter of all palettes, out of focus."""
    height, width = shape
    side = min(shape)
    ground = thing_surface(draw, shape, draw.real(0.03, 0.07) * side, palettes[0])
    behind = thing_surface(draw, shape, draw.real(0.05, 0.12) * side, palettes[1])
    y = dr.frame(shape, draw.real(-0.08, 0.08))[1]
    horizon = draw.real(0.15, 0.7) * height
    image = dr.blend(ground, behind, np.clip((horizon - y) / (0.02 * side) + 0.5, 0, 1))
    skins = [
        thing_surface(draw, shape, draw.real(0.02, 0.06) * side, each) for each in palettes[1:]
    ]
    for _ in range(draw.pick((4, 5, 6, 7, 8))):
        radius = draw.real(0.05, 0.14) * side
        outlines = thing(draw, draw.real(0, width), draw.real(0.1, 1) * height, radius)
        skin, here = draw.pick(skins), dr.window(np.concatenate(outlines), 0.12 * side, shape)
        part = image[here]
        if part.size:
            corner = (here[1].start, here[0].start)
            other = dr.area(part.shape[:2], *(outline - corner for outline in outlines))
            lit = 1 + 0.25 * dr.relief(dr.dome(other, 0.5 * radius) * radius, light)
            part = part * (1 - 0.3 * dr.thrown(other, light, 0.03 * side, 0.02 * side))[..., None]
            image[here] = dr.blend(part, skin[here] * lit[..., None], other)
    return dr.soft(image, draw.real(0.006, 0.022) * side)


def draw_scene(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    side, light = min(shape), draw.real(-2.6, -0.5)
    palettes = [
        draw.pick(dr.PALETTES) if draw.real(0, 1) < 0.6 else dr.vivid(draw) for _ in range(2)
    ]
    palettes += [dr.vivid(draw), draw.pick(dr.PALETTES)]
    image = backdrop(draw, shape, palettes, light)
    if draw.real(0, 1) < 0.65:
        mask = dr.body(draw, shape, 0.06 * 6.0 ** draw.real(0, 1)).astype(float)
    else:
        x, y = draw.real(0.2, 0.8) * shape[1], draw.real(0.25, 0.75) * shape[0]
        mask = dr.area(shape, *thing(draw, x, y, draw.real(0.17, 0.34) * side))
    wavelength, palette = draw.real(0.02, 0.06) * side, palettes[2 + draw.pick((0, 0, 1))]
    skin = thing_surface(draw, shape, wavelength, palette)
    mottled = dr.area(shape, *(
        dr.blob(draw, draw.real(0, shape[1]), draw.real(0, shape[0]), 0.12 * side) for _ in range(6)
    ))  # fmt: skip
    other = thing_surface(draw, shape, 0.04 * side, draw.pick(palettes))
    skin = dr.blend(skin, other, dr.soft(mottled, 1.0))
    lit = dr.relief(1.2 * dr.soft(dr.dome(mask, 0.12 * side), 0.01 * side) * 0.12 * side, light)
    skin = skin * (1.05 + 0.4 * lit)[..., None]
    image = image * (1 - 0.45 * dr.thrown(mask, light, 0.05 * side, 0.02 * side))[..., None]
    image = dr.blend(image, skin, dr.soft(mask, 0.5))
    image = image * dr.vignette(shape, draw.real(0, 0.3))[..., None]
    return dr.photograph(draw, image), mask > 0.5


SET = EmbeddedSet(
    task="sod",
    key=0x50D,
    version="v1",
    about="Salient objects: one sharp thing before blurred others that share its colours.",
    shapes=((264, 352), (264, 352), (352, 264), (352, 352), (236, 352)),
    shares=(0.05, 0.5),
    draw=draw_scene,
)
