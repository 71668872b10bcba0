"""Polyp: a bump on folded mucosa, told by its shape, rim and surface, not by its colour.

Light sits beside the lens: near tissue is bright, the lumen dark, wet spots that face the lens
shine white. Folds have the polyp's colours and its shading, but run on as ridges.
"""

import numpy as np

from lpmoe_bench.data.scenes import drawing as dr
from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.data.scenes.embedded import EmbeddedSet

# Tissue from dark to light, RGB: pink, orange, red, pale.
TISSUES = (
    ((40, 12, 12), (140, 58, 55), (205, 112, 102), (248, 196, 182)),
    ((40, 16, 6), (150, 72, 36), (214, 132, 78), (250, 208, 150)),
    ((34, 6, 6), (128, 36, 30), (188, 78, 64), (240, 160, 140)),
    ((46, 26, 20), (138, 88, 70), (198, 148, 122), (246, 220, 196)),
)


def folds(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    """Height of the gut wall in pixels, and its distance: 0 near the lens to 1 in the lumen."""
    side = min(shape)
    x, y = dr.frame(shape, 0.0)
    x, y = x - draw.real(-0.1, 1.1) * shape[1], y - draw.real(-0.1, 1.1) * shape[0]
    radius = np.hypot(x, y * draw.real(0.8, 1.25)) / side
    radius = radius * (1 + 0.12 * dr.noise(draw, shape, 1.1 * side, band=0.25)) + 0.02
    phase = draw.real(7, 12) * np.log(np.maximum(radius, 0.01) + 0.15) + draw.real(0, 6.3)
    phase = phase + draw.real(0.2, 0.7) * dr.noise(draw, shape, 0.8 * side, band=0.25)
    ridges = np.exp(1.6 * (np.cos(phase) - 1)) * draw.real(0.02, 0.05) * np.minimum(3 * radius, 1)
    ridges = ridges * (1 + 0.5 * np.tanh(dr.noise(draw, shape, 0.9 * side, band=0.25)))
    waves = 0.012 * dr.noise(draw, shape, 0.6 * side, band=0.3)
    waves = waves + 0.0016 * dr.noise(draw, shape, 0.1 * side)
    return side * (ridges + waves), np.exp(-radius / draw.real(0.08, 0.2))


def vessels(draw: Draw, shape: Shape) -> Array:
    """Thin branching vessels, 0 to 1."""
    lines = []
    for _ in range(draw.pick((0, 5, 9, 14))):
        start = np.array([draw.real(0, shape[1]), draw.real(0, shape[0])])
        for length in (0.35, 0.22, 0.15):
            turn = draw.real(0, 2 * np.pi)
            end = start + length * min(shape) * np.array([np.cos(turn), np.sin(turn)])
            # The next branch leaves from the middle of this one.
            points = dr.curved_line(start, end, draw.real(-0.3, 0.3))
            lines.append(dr.ribbon(points, 0.02 * length * min(shape), 0.5))
            start = points[8]
    return dr.soft(dr.area(shape, *lines), 0.004 * min(shape))


def outlet(draw: Draw, shape: Shape) -> Array:
    """Where the camera shows tissue, 0 or 1: cut corners, at times a box for the navigator."""
    height, width = shape
    seen, cut = np.ones(shape), draw.pick((0.0, 0.16, 0.22)) * min(shape)
    x, y = dr.frame(shape, 0.0)
    corner = np.minimum(x, width - 1 - x) + np.minimum(y, height - 1 - y)
    seen[corner < cut] = 0
    if draw.real(0, 1) < 0.3:
        box = dr.rectangle(0.17 * width, 0.85 * height, 0.34 * width, 0.32 * height)
        seen -= dr.area(shape, box)
    return np.clip(seen, 0, 1)


def wall(draw: Draw, shape: Shape, mask: Array, size: float) -> Array:
    """Lit tissue, RGB (h, w, 3), with a bump of a size in pixels where the mask is."""
    side, light = min(shape), draw.real(0, 2 * np.pi)
    height, distance = folds(draw, shape)
    bump = dr.dome(mask, draw.real(0.45, 0.8) * size)
    fine = dr.noise(draw, shape, 0.025 * side)
    inside = dr.soft(mask, 0.01 * side)
    height = height * (1 - 0.7 * inside) + 0.55 * size * bump + inside * 0.0025 * side * fine
    height = dr.soft(height, 0.006 * side)
    lit = dr.relief(1.3 * height, light)
    tone = 0.6 + 0.26 * lit - 0.6 * distance + 0.04 * dr.noise(draw, shape, 0.7 * side)
    tone = tone + inside * (draw.real(-0.08, 0.08) + 0.03 * fine)
    tone = tone - 0.16 * dr.thrown(mask, light, 0.3 * size, 0.1 * size)
    tone = tone - 0.08 * vessels(draw, shape) * (1 - inside)
    tissue, stops = np.array(draw.pick(TISSUES), float), np.array([0, 0.35, 0.65, 1])
    image = np.stack([np.interp(tone, stops, tissue[:, k]) for k in range(3)], axis=-1)
    flush = 0.07 * np.tanh(dr.noise(draw, shape, 0.6 * side)) + draw.real(-0.04, 0.08) * inside
    image = image * (1 + flush[..., None] * np.array([0.3, -1.0, -0.8]))
    if draw.real(0, 1) < 0.3:
        stool = 1 / (1 + np.exp(-5 * (dr.noise(draw, shape, 0.6 * side) - 1.5))) * (1 - inside)
        image = dr.blend(image, (178, 138, 40), 0.6 * stool)
    # Wet spots shine where the surface faces the lens from the light's side.
    wet = dr.noise(draw, shape, 0.035 * side, light + 1.6, 2.2)
    wet = wet + 0.8 * dr.noise(draw, shape, 0.3 * side)
    wet = wet + 1.1 * lit + 0.3 * inside
    shine = np.clip(2.5 * (wet - draw.real(2.8, 3.6)), 0, 1) * (distance < 0.5)
    return dr.blend(image, (252, 248, 244), 0.9 * dr.soft(shine, 0.5))


def draw_scene(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    side = min(shape)
    size = side * 0.11 * 3.2 ** draw.real(0, 1)
    x, y = draw.real(0.15, 0.85) * shape[1], draw.real(0.15, 0.85) * shape[0]
    mask = dr.area(shape, dr.blob(draw, x, y, size, 0.13, draw.real(1, 1.6)))
    return _finish(draw, shape, mask, size)


def draw_clear(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    return _finish(draw, shape, np.zeros(shape), 0.1 * min(shape))


def _finish(draw: Draw, shape: Shape, mask: Array, size: float) -> tuple[Array, Array]:
    image = wall(draw, shape, mask, size) * dr.vignette(shape, 0.3)[..., None]
    seen = outlet(draw, shape)
    return dr.photograph(draw, image * dr.soft(seen, 0.7)[..., None]), (mask * seen) > 0.5


SET = EmbeddedSet(
    task="polyp",
    key=0x901,
    version="v1",
    about="Polyps: a bump on mucosa whose folds have its colours.",
    shapes=((288, 352), (288, 352), (352, 352), (264, 352)),
    shares=(0.015, 0.45),
    draw=draw_scene,
    draw_empty=draw_clear,
)
