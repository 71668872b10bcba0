"""Cast shadow: light that is missing on any material, not a material that is dark.

The ground is made of light and dark materials; a shadow dims whatever lies below it by the same
factor, a little bluish, with a soft edge. Dark things, dark paving and wet patches are no shadow.
"""

import numpy as np

from lpmoe_bench.data.scenes import drawing as dr
from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.data.scenes.embedded import EmbeddedSet

GROUNDS = (  # RGB
    # dark: asphalt, grass, slate, soil, tar, moss, wet planks
    ((92, 92, 96), (80, 104, 46), (58, 62, 70), (84, 62, 44), (46, 44, 46), (64, 74, 52),
     (92, 68, 52)),
    # light: concrete, dry grass, snow, sand, brick, planks, lawn
    ((182, 176, 166), (166, 158, 96), (218, 224, 232), (208, 180, 138), (186, 118, 92),
     (176, 138, 98), (126, 164, 84)),
)  # fmt: skip


def joints(draw: Draw, shape: Shape) -> Array:
    """Lines between slabs, bricks or planks: 0 on a joint, else 1."""
    angle, pitch = draw.real(0, np.pi), draw.real(0.06, 0.25) * min(shape)
    x, y = dr.frame(shape, angle)
    rows = np.floor(y / pitch)
    length = pitch * draw.pick((1.0, 2.2, 9.0))
    across = np.abs((x + 0.5 * length * (rows % 2)) / length % 1 - 0.5) * length
    along = np.abs(y / pitch % 1 - 0.5) * pitch
    return np.clip((0.5 * pitch - np.maximum(along, across - 0.5 * (length - pitch))) / 1.5, 0, 1)


def material(draw: Draw, shape: Shape, kind: int) -> Array:
    """A lit ground, dark (0) or light (1), RGB (h, w, 3)."""
    side = min(shape)
    colour = np.array(draw.pick(GROUNDS[kind]), float) * (1 + 0.06 * draw.array(-1, 1, (3,)))
    field = draw.pick(dr.TEXTURES)(draw, shape, draw.real(0.012, 0.04) * side, draw.real(0, np.pi))
    tone = 1 + draw.real(0.03, 0.13) * np.tanh((field - field.mean()) / field.std())
    tone = tone + 0.05 * dr.noise(draw, shape, 0.5 * side)
    if draw.real(0, 1) < 0.5:
        tone = tone * (0.78 + 0.22 * joints(draw, shape))
    return colour * tone[..., None]


def ground(draw: Draw, shape: Shape, light: float) -> Array:
    """Dark and light materials side by side with things on them, all lit."""
    side, kind = min(shape), draw.pick((0, 1))
    image = material(draw, shape, kind)
    for k in range(draw.pick((1, 2, 2, 3))):
        across = dr.frame(shape, draw.real(0, 2 * np.pi))[1]
        low, high = across.min(), across.max()
        edge = low + (high - low) * draw.real(0.3, 0.7)
        bend = draw.pick((0.0, 0.02, 0.06)) * side * dr.noise(draw, shape, 0.7 * side)
        other = material(draw, shape, (kind + k + 1) % 2)
        image = dr.blend(image, other, np.clip(across - edge + bend, 0, 1))
    for _ in range(draw.pick((2, 3, 5, 7))):
        x, y = draw.real(0, shape[1]), draw.real(0, shape[0])
        radius = draw.real(0.04, 0.15) * side
        outline = draw.pick((
            dr.blob(draw, x, y, radius, 0.2, 1.4),
            dr.rectangle(x, y, 2 * radius, draw.real(0.5, 2) * radius, draw.real(0, np.pi)),
        ))  # fmt: skip
        thing = dr.area(shape, outline)
        level = draw.pick((26, 34, 44, 60, 150))
        colour = level * (1 + 0.35 * draw.array(-1, 1, (3,)))
        lit = 1 + 0.5 * dr.relief(1.5 * dr.dome(thing, 0.5 * radius) * radius, light)
        lit = lit + 0.15 * dr.noise(draw, shape, 0.03 * side)
        image = dr.blend(image, colour * lit[..., None], thing)
    return image


def tree(draw: Draw, shape: Shape) -> Array:
    """A tree's shadow: branches and leaves, 0 or 1."""
    side, outlines = min(shape), []
    root = np.array([draw.real(0, shape[1]), draw.real(0, shape[0])])
    turn = np.arctan2(shape[0] / 2 - root[1], shape[1] / 2 - root[0])
    tip = root + draw.real(0.5, 0.9) * side * np.array([np.cos(turn), np.sin(turn)])
    trunk = dr.curved_line(root, tip, draw.real(-0.1, 0.1))
    outlines.append(dr.ribbon(trunk, 0.09 * side, 0.03 * side))
    leafy = draw.pick((0, 1))
    for k in range(5, 17, 2):
        end = trunk[k] + side * draw.array(-0.28, 0.28, (2,))
        outlines.append(dr.stroke(trunk[k], end, 0.1, 0.03 * side, 0.014 * side))
        if leafy:
            outlines += [
                dr.blob(draw, end[0], end[1], draw.real(0.05, 0.11) * side, 0.3) for _ in range(2)
            ]
    return dr.area(shape, *outlines)


def bars(draw: Draw, shape: Shape) -> Array:
    """The shadow of a fence, of poles or of one wall, 0 or 1."""
    across = dr.frame(shape, draw.real(0, np.pi))[1]
    span, count = across.max() - across.min(), draw.pick((1, 2, 3, 5))
    if count == 1 or draw.real(0, 1) < 0.3:
        edge = across.min() + span * draw.real(0.6, 0.8)
        return (across > edge).astype(float)
    pitch = span / (count + 1)
    share = draw.real(0.15, 0.4)
    return (np.abs((across - across.min()) / pitch % 1 - 0.5) < share / 2).astype(float)


def draw_scene(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    side, light = min(shape), draw.real(0, 2 * np.pi)
    kind = draw.pick((0, 0, 0, 1, 1, 2))
    if kind == 0:
        cast = dr.body(draw, shape, 0.07 * 4 ** draw.real(0, 1)).astype(float)
    else:
        cast = tree(draw, shape) if kind == 1 else bars(draw, shape)
    image = ground(draw, shape, light)
    missing = dr.soft(cast, draw.real(0.002, 0.007) * side)
    dim = draw.real(0.4, 0.6) * np.array([0.93, 1.0, 1.14])
    daylight = 1 + 0.08 * dr.noise(draw, shape, 0.9 * side)
    # Light is taken away by one factor, whatever the material: that is what makes it a shadow.
    image = image * daylight[..., None] * (1 - missing[..., None] * (1 - dim))
    warmth = 1 + draw.real(-0.1, 0.1) * np.array([1.0, 0.2, -1.0])
    return dr.photograph(draw, draw.real(0.6, 1.4) * image * warmth), cast > 0.5


SET = EmbeddedSet(
    task="shadow",
    key=0x5AD,
    version="v2",
    about="Cast shadows across light and dark materials, beside dark things that are no shadow.",
    shapes=((264, 352), (264, 352), (352, 264), (352, 352)),
    shares=(0.04, 0.5),
    draw=draw_scene,
)
