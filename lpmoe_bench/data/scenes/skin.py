"""Skin lesion: pigment with an uneven border, below hairs and beside other marks.

Pigment takes away light in proportion, so the same lesion is pale on light skin and dark on dark
skin; ink, hairs, the corners of the lens and small moles are as dark as it is.
"""

import numpy as np

from lpmoe_bench.data.scenes import drawing as dr
from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.data.scenes.embedded import EmbeddedSet

SKINS = (  # RGB, as dermoscopes show them
    (226, 200, 190), (232, 168, 172), (214, 120, 112), (204, 152, 122), (196, 186, 200),
    (168, 116, 88), (128, 84, 62), (236, 222, 206), (98, 64, 50), (170, 96, 84),
)  # fmt: skip
PIGMENTS = (  # light that a unit of pigment takes from R, G, B
    (0.45, 0.85, 1.05), (0.7, 0.95, 1.0), (0.35, 0.9, 0.7), (0.9, 1.0, 0.8), (0.3, 0.6, 1.0),
)  # fmt: skip
STICKERS = ((150, 84, 60), (96, 60, 50), (58, 92, 150), (196, 150, 60), (170, 70, 74))


def lesion(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    """A lesion's area, 0 or 1, and how deep inside each pixel lies, 0 to about 1."""
    side = min(shape)
    radius = side * 0.12 * 3.2 ** draw.real(0, 1)
    x, y = draw.real(0.22, 0.78) * shape[1], draw.real(0.22, 0.78) * shape[0]
    outlines = [dr.blob(draw, x, y, radius, 0.2, draw.real(1, 1.6))]
    for _ in range(draw.pick((0, 1, 2))):  # lobes
        turn = draw.real(0, 2 * np.pi)
        to_x, to_y = x + 0.8 * radius * np.cos(turn), y + 0.8 * radius * np.sin(turn)
        outlines.append(dr.blob(draw, to_x, to_y, 0.5 * radius, 0.25))
    rough = dr.soft(dr.area(shape, *outlines), 0.12 * radius)
    rough = rough + 0.12 * dr.noise(draw, shape, 0.45 * radius) * (rough > 0.02)
    return (rough > 0.5).astype(float), rough


def pigment(draw: Draw, shape: Shape, mask: Array, rough: Array) -> Array:
    """How much pigment there is, (h, w): the lesion with its network and blotches."""
    side = min(shape)
    fade = dr.soft(mask, draw.real(0.004, 0.02) * side)
    blotches = 0.5 + 0.5 * np.tanh(dr.noise(draw, shape, draw.real(0.08, 0.3) * side, band=0.7))
    network = np.abs(dr.noise(draw, shape, 0.035 * side, band=0.25))
    depth = np.clip(rough, 0, 1.2)
    dense = 0.4 + draw.real(0.1, 0.5) * blotches + draw.real(0, 0.6) * depth
    dense = dense - draw.real(0, 0.25) * np.minimum(network, 1.5)
    return draw.real(0.4, 1.15) * fade * np.clip(dense, 0.18, None)


def marks(draw: Draw, shape: Shape, mask: Array) -> Array:
    """Pigment of moles and freckles, none of them the lesion, (h, w)."""
    side, spots = min(shape), np.zeros(shape)
    for _ in range(draw.pick((0, 3, 6, 10, 16))):
        x, y = draw.real(0, shape[1]), draw.real(0, shape[0])
        radius = side * draw.real(0.006, 0.03)
        dr.fill(spots, dr.blob(draw, x, y, radius, 0.2), draw.real(0.3, 1.0))
    near = dr.soft(mask, 0.02 * side)
    return dr.soft(spots, 0.006 * side) * np.clip(1 - 4 * near, 0, 1)


def hairs(draw: Draw, shape: Shape) -> Array:
    """Hairs over everything, 0 to 1."""
    side, lean = min(shape), draw.real(0, np.pi)
    lines = []
    for _ in range(draw.pick((0, 0, 4, 10, 20))):
        start = np.array([draw.real(-0.1, 1.1) * shape[1], draw.real(-0.1, 1.1) * shape[0]])
        turn, length = lean + draw.real(-0.6, 0.6), draw.real(0.3, 0.9) * side
        end = start + length * np.array([np.cos(turn), np.sin(turn)])
        lines.append(dr.stroke(start, end, draw.real(-0.15, 0.15), 0.009 * side, 0.003 * side))
    return dr.soft(dr.area(shape, *lines), 0.5)


def ink(draw: Draw, shape: Shape) -> Array:
    """A pen's strokes or a ruler's ticks at one edge of the image, 0 to 1."""
    side, drawn = min(shape), np.zeros(shape)
    kind = draw.pick((0, 0, 1, 2))
    middle, angle = np.array([shape[1], shape[0]]) / 2, draw.real(0, 2 * np.pi)
    for k in range(14 if kind == 1 else 3 if kind == 2 else 0):
        long = 0.06 if k % 5 else 0.1
        place = np.array([(k - 7) * 0.06, 0.44]) if kind == 1 else draw.array(-0.1, 0.1, (2,))
        place = place if kind == 1 else place + np.array([0.0, 0.42])
        width, height = (0.008, long) if kind == 1 else (draw.real(0.1, 0.4), 0.03)
        x, y = dr.turned(side * place, angle) + middle
        tilt = angle if kind == 1 else angle + draw.real(-0.5, 0.5)
        dr.fill(drawn, dr.rectangle(x, y, side * width, side * height, tilt), 1.0)
    return dr.soft(drawn, 0.004 * side) * (0.7 + 0.3 * np.tanh(dr.noise(draw, shape, 0.05 * side)))


def sticker(draw: Draw, shape: Shape, image: Array, mask: Array) -> Array:
    """The image, at times with a round coloured patch beside the lesion, as doctors stick it on."""
    side, turn = min(shape), draw.real(0, 2 * np.pi)
    reach = draw.real(0.42, 0.6) * np.array(shape[::-1])
    x, y = np.array(shape[::-1]) / 2 + reach * np.array([np.cos(turn), np.sin(turn)])
    disc = dr.area(shape, dr.blob(draw, x, y, draw.real(0.12, 0.24) * side, 0.02))
    colour = np.array(draw.pick(STICKERS))
    colour = colour * (1 + 0.05 * dr.noise(draw, shape, 0.3 * side))[..., None]
    here = draw.real(0, 1) < 0.4 and not (disc * mask).any()
    return dr.blend(image, colour, dr.soft(disc, 1.0)) if here else image


def draw_scene(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    side = min(shape)
    mask, rough = lesion(draw, shape)
    skin = np.array(draw.pick(SKINS), float) * draw.real(0.8, 1.05)
    absorbs = np.array(draw.pick(PIGMENTS))
    lines = np.abs(dr.noise(draw, shape, 0.03 * side, draw.real(0, np.pi), 2.5))
    tone = 1 + 0.04 * dr.noise(draw, shape, 0.5 * side) - 0.025 * lines
    flush = draw.real(0, 0.14) * np.tanh(dr.noise(draw, shape, 0.5 * side, band=0.7))
    dense = pigment(draw, shape, mask, rough) + marks(draw, shape, mask)
    # Beer and Lambert's law: twice the pigment takes the same part of the light twice.
    image = skin * tone[..., None] * np.exp(-dense[..., None] * absorbs)
    image = image * (1 - np.maximum(flush, 0)[..., None] * np.array([0.2, 1.0, 0.8]))
    image = sticker(draw, shape, image, mask)
    image = image * np.exp(-ink(draw, shape)[..., None] * np.array([1.3, 1.4, 0.5]))
    hair = draw.pick(((40, 26, 20), (70, 44, 30), (206, 178, 140)))
    image = dr.blend(image, hair, 0.85 * hairs(draw, shape))
    x, y = dr.frame(shape, 0.0)
    radius = np.hypot(x - shape[1] / 2, y - shape[0] / 2) / np.hypot(*shape) * 2
    reach, deep = draw.pick(((1.4, 0.5), (1.1, 0.7), (0.95, 0.95))), draw.real(0.4, 1)
    dark = deep * reach[1] / (1 + np.exp(-(radius - reach[0]) * draw.real(12, 40)))
    image = image * (1 - 0.12 * radius**2 - dark * (1 - 0.12))[..., None]
    return dr.photograph(draw, image, 2.0), mask > 0.5


SET = EmbeddedSet(
    task="skin",
    key=0x5C1,
    version="v1",
    about="Skin lesions: pigment with an uneven border, below hairs and beside other marks.",
    shapes=((264, 352),),
    shares=(0.02, 0.45),
    draw=draw_scene,
)
