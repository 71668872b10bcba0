"""Glass: a pane told by what it does to the light, not by a colour of its own.

Behind it the same room goes on, a little displaced, tinted and dimmed; on it lie faint mirror
images and slanting streaks. Open frames and framed pictures have the same rims, but no glass.
"""

import cv2
import numpy as np
from scipy import ndimage

from lpmoe_bench.data.scenes import drawing as dr
from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.data.scenes.embedded import EmbeddedSet

RIMS = ((52, 48, 46), (206, 204, 198), (120, 82, 52), (150, 154, 160), (34, 60, 58))


def pane_surface(draw: Draw, shape: Shape) -> Array:
    """A wall, floor or cover, RGB (h, w, 3)."""
    side, is_vivid = min(shape), draw.real(0, 1) < 0.5
    palette = dr.vivid(draw, 0.4) if is_vivid else draw.pick(dr.PALETTES)
    field = draw.pick(dr.TEXTURES)(draw, shape, draw.real(0.02, 0.06) * side, draw.real(0, np.pi))
    tone = draw.real(0.2, 0.8) + draw.real(0.01, 0.08) * field / field.std()
    tone = np.clip(tone + 0.06 * dr.noise(draw, shape, 0.6 * side), 0, 1)
    return dr.coloured(tone, 0.5 + 0.5 * np.tanh(dr.noise(draw, shape, 0.5 * side)), palette)


def room(draw: Draw, shape: Shape) -> Array:
    """A wall, a floor and many things before them, RGB (h, w, 3)."""
    height, width = shape
    side, light = min(shape), draw.real(0, 2 * np.pi)
    covers = [pane_surface(draw, shape) for _ in range(4)]
    y = dr.frame(shape, draw.real(-0.1, 0.1))[1]
    image = dr.blend(covers[0], covers[1], np.clip(y - draw.real(0.5, 0.85) * height, 0, 1))
    for _ in range(draw.pick((8, 11, 14))):
        x, y, size = draw.real(0, width), draw.real(0.1, 1) * height, draw.real(0.06, 0.2) * side
        outline = dr.rectangle(x, y, size, size * draw.real(0.6, 2.4))
        if draw.real(0, 1) < 0.35:
            outline = dr.blob(draw, x, y, 0.6 * size, 0.2, draw.real(1, 1.8))
        cover, bright = draw.pick(covers[1:]), draw.real(0.6, 1.4)
        here = dr.window(outline, 0.1 * side, shape)
        part = image[here]
        if part.size:
            thing = dr.area(part.shape[:2], outline - (here[1].start, here[0].start))
            part = part * (1 - 0.35 * dr.thrown(thing, light, 0.02 * side, 0.012 * side))[..., None]
            lit = bright + 0.25 * dr.relief(dr.soft(thing, 0.15 * size) * 0.4 * size, light)
            image[here] = dr.blend(part, cover[here] * lit[..., None], thing)
    return image


def quad(draw: Draw, shape: Shape, low: float, high: float) -> Array:
    """A rectangle seen a little from aside, as corners (4, 2)."""
    side = min(shape)
    x, y = draw.real(0.15, 0.85) * shape[1], draw.real(0.2, 0.8) * shape[0]
    width, height = draw.real(low, high) * side, draw.real(low, 1.2 * high) * side
    corners = dr.rectangle(x, y, width, height, draw.real(-0.06, 0.06))
    return corners + 0.1 * min(width, height) * draw.array(-1, 1, (4, 2))


def rim(draw: Draw, shape: Shape, image: Array, corners: Array) -> Array:
    """The image with a frame around a quadrilateral."""
    bar, light = draw.real(0.014, 0.035) * min(shape), draw.real(0, 2 * np.pi)
    sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    bars = [dr.ribbon(np.stack([a - 0.5 * bar * (b - a) / np.hypot(*(b - a)), b]), bar)
            for a, b in sides]  # fmt: skip
    if draw.real(0, 1) < 0.3:  # a cross bar
        bars.append(dr.ribbon((corners + np.roll(corners, -1, axis=0))[[0, 2]] / 2, 0.8 * bar))
    drawn = dr.area(shape, *bars)
    shadow = dr.thrown(drawn, light, 0.012 * min(shape), 0.008 * min(shape))
    image = image * (1 - 0.35 * shadow)[..., None]
    lit = 1 + 0.3 * dr.relief(2 * dr.soft(drawn, 0.2 * bar) * 0.4 * bar, light)
    return dr.blend(image, np.array(draw.pick(RIMS), float) * lit[..., None], dr.soft(drawn, 0.5))


def glazed(draw: Draw, shape: Shape, image: Array, corners: Array, ghost: Array) -> Array:
    """The image with a pane: refracted behind it, a mirror image and streaks on it."""
    side, pane = min(shape), dr.area(shape, corners)
    # Refraction: what lies behind is displaced as a whole, out of focus and dimmed, never hidden.
    step = side * draw.array(0.008, 0.022, (2,)) * [draw.pick((-1, 1)), draw.pick((-1, 1))]
    behind = ndimage.shift(image, (*step, 0), order=1, mode="nearest")
    behind = dr.soft(behind, draw.real(0.001, 0.005) * side) * draw.real(0.72, 0.88)
    tint = 1 + draw.real(0, 0.07) * np.array([-1.0, 0.6, 0.4])
    faint = dr.soft(ghost, draw.real(0.004, 0.012) * side) * draw.real(0.22, 0.4)
    across = dr.frame(shape, draw.pick((-1, 1)) * draw.real(0.6, 1.1))[1] / side
    bands = np.sin(2 * np.pi * across * draw.real(0.8, 1.6) + draw.real(0, 6.3))
    bands = bands + 0.7 * np.sin(2 * np.pi * across * draw.real(2.5, 4) + draw.real(0, 6.3))
    streaks = draw.real(18, 46) / (1 + np.exp(-9 * (bands - 0.7)))
    seen = behind * tint + faint + streaks[..., None]
    edge = np.clip(dr.soft(pane, 0.006 * side) * 2 - 1, 0, 1)
    seen = seen + 26 * (pane - edge)[..., None]  # the cut edge catches light
    return dr.blend(image, seen, dr.soft(pane, 0.5))


def draw_scene(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    image, coarse = room(draw, shape), room(draw, (shape[0] // 3, shape[1] // 3))
    ghost = cv2.resize(coarse[:, ::-1], shape[::-1])  # only ever seen blurred
    for _ in range(draw.pick((0, 1, 1, 2))):  # open frames and framed pictures
        corners = quad(draw, shape, 0.25, 0.55)
        if draw.real(0, 1) < 0.5:
            image = dr.blend(image, pane_surface(draw, shape), dr.area(shape, corners))
        image = rim(draw, shape, image, corners)
    mask = np.zeros(shape)
    for _ in range(draw.pick((1, 1, 2))):
        corners = quad(draw, shape, 0.28, 0.56)
        image = glazed(draw, shape, image, corners, ghost)
        mask = np.maximum(mask, dr.area(shape, corners))
        if draw.real(0, 1) < 0.7:
            image = rim(draw, shape, image, corners)
    return dr.photograph(draw, image * dr.vignette(shape, 0.15)[..., None]), mask > 0.5


SET = EmbeddedSet(
    task="glass",
    key=0x61A,
    version="v1",
    about="Glass panes told by reflection and refraction, beside open frames and pictures.",
    shapes=((264, 352), (352, 264), (352, 352)),
    shares=(0.06, 0.6),
    draw=draw_scene,
)
