"""Road: connected strips seen from above, among roofs and yards of the same grey.

What tells a road from a flat roof or a parking lot is that it is long, narrow and goes on.
"""

import numpy as np
from scipy import ndimage

from lpmoe_bench.data.scenes import drawing as dr
from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.data.scenes.embedded import EmbeddedSet

ASPHALTS = ((104, 102, 98), (124, 120, 114), (88, 88, 90), (142, 138, 130), (116, 106, 96))
ROOFS = ((96, 76, 62), (126, 98, 80), (70, 64, 62), (206, 206, 202), (152, 84, 66), (134, 136, 140))
YARDS = ((78, 90, 58), (104, 104, 74), (96, 88, 70), (66, 82, 50), (112, 106, 98), (86, 80, 74),
         (136, 128, 114), (98, 98, 96))  # fmt: skip
CARS = ((214, 214, 214), (40, 40, 46), (140, 40, 36), (60, 80, 120), (180, 180, 176))


def network(draw: Draw, shape: Shape, angle: float) -> tuple[Array, Array]:
    """Distance to the nearest road's edge in pixels, negative on it, and to its middle line."""
    side = min(shape)
    u, v = dr.frame(shape, angle)
    bend = draw.pick((0.0, 0.004, 0.015, 0.05)) * side
    u = u + bend * dr.noise(draw, shape, 1.4 * side, band=0.3)
    v = v + bend * dr.noise(draw, shape, 1.4 * side, band=0.3)
    edge, middle = np.full(shape, 9.0 * side), np.full(shape, 9.0 * side)
    for across, along in ((u, v), (v, u)):
        low, high = across.min(), across.max()
        place = low + draw.real(0.1, 0.35) * side
        while place < high:
            half = draw.pick((0.018, 0.022, 0.03, 0.042)) * side
            gap = np.abs(across - place)
            if draw.real(0, 1) < 0.25:  # a road that ends
                end = along.min() + draw.real(0.3, 0.7) * (along.max() - along.min())
                gap = np.maximum(gap, draw.pick((-1, 1)) * (along - end))
            edge, middle = np.minimum(edge, gap - half), np.minimum(middle, gap)
            place += draw.real(0.22, 0.62) * side
    return edge, middle


def free(edge: Array, x: float, y: float) -> float:
    """Distance from a point to the nearest road, 0 outside the image."""
    inside = 0 <= y < edge.shape[0] and 0 <= x < edge.shape[1]
    return float(edge[int(y), int(x)]) if inside else 0.0


def buildings(draw: Draw, image: Array, edge: Array, angle: float, asphalt: Array) -> None:
    """Roofs in rows along the roads, and parking lots, painted into the image."""
    side = min(edge.shape)
    step, sun = draw.real(0.065, 0.1) * side, draw.real(0, 2 * np.pi)
    reach, middle = np.hypot(*edge.shape) / 2, np.array(edge.shape[::-1]) / 2
    greys = draw.real(0.5, 0.9)
    for u in np.arange(-reach, reach, step):
        for v in np.arange(-reach, reach, step):
            jitter = draw.array(-0.18, 0.18, (2,)) * step
            wide, deep = draw.real(0.5, 0.95) * step, draw.real(0.5, 0.95) * step
            lot = draw.real(0, 1) < 0.05
            wide, deep = (2.2 * wide, 2.2 * deep) if lot else (wide, deep)
            x, y = dr.turned(np.array([u, v]) + jitter, angle) + middle
            colour = np.array(draw.pick(ROOFS), float) * draw.real(0.8, 1.2)
            if lot or draw.real(0, 1) < greys:
                colour = asphalt * draw.real(0.9, 1.1)
            ridge = draw.real(0.88, 1.0)
            # Only now: a roof that has no room takes its numbers all the same, so that the others
            # do not change with it.
            if free(edge, x, y) < 0.62 * max(wide, deep) or draw.real(0, 1) < 0.18:
                continue
            if not lot:
                offset = 0.12 * step * np.array([np.cos(sun), np.sin(sun)])
                dr.fill(image, dr.rectangle(x, y, wide, deep, angle) + offset, (38, 38, 36))
            dr.fill(image, dr.rectangle(x, y, wide, deep, angle), tuple(colour))
            if not lot:
                half = dr.turned(np.array([0, 0.25 * deep]), angle)
                dr.fill(image, dr.rectangle(x + half[0], y + half[1], wide, deep / 2, angle),
                     tuple(colour * ridge))  # fmt: skip


def cars(draw: Draw, image: Array, edge: Array, angle: float) -> None:
    """Cars on roads and on yards, painted into the image."""
    side = min(edge.shape)
    for _ in range(60):
        x, y = draw.real(0, edge.shape[1]), draw.real(0, edge.shape[0])
        turn, colour = angle + draw.pick((0, np.pi / 2)), draw.pick(CARS)
        if free(edge, x, y) < 0 or draw.real(0, 1) < 0.3:
            dr.fill(image, dr.rectangle(x, y, 0.022 * side, 0.011 * side, turn), colour)


def trees(draw: Draw, shape: Shape, edge: Array) -> tuple[Array, Array]:
    """Crowns that may hang over a road, 0 to 1, and their relief."""
    side, outlines, lit = min(shape), [], np.zeros(shape)
    for _ in range(draw.pick((12, 40, 90))):
        x, y = draw.real(0, shape[1]), draw.real(0, shape[0])
        radius = draw.real(0.012, 0.032) * side
        if free(edge, x, y) > -0.004 * side:
            outlines.append(dr.blob(draw, x, y, radius, 0.25))
            dr.fill(lit, dr.blob(draw, x - 0.3 * radius, y - 0.3 * radius, 0.6 * radius, 0.2), 1.0)
    return dr.area(shape, *outlines), dr.soft(lit, 0.006 * side)


def draw_scene(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    side, angle = min(shape), draw.real(0, np.pi / 2)
    edge, middle = network(draw, shape, angle)
    yard = 1 + 0.14 * dr.noise(draw, shape, 0.12 * side) + 0.1 * dr.noise(draw, shape, 0.025 * side)
    colours = [np.array(draw.pick(YARDS), float) for _ in range(2)]
    mix = 0.5 + 0.5 * np.tanh(2 * dr.noise(draw, shape, 0.35 * side))
    image = dr.blend(np.broadcast_to(colours[0], (*shape, 3)), colours[1], mix) * yard[..., None]
    asphalt = np.array(draw.pick(ASPHALTS), float)
    gravel = np.clip(4 * dr.noise(draw, shape, 0.25 * side) - 2, 0, 1)
    image = dr.blend(image, asphalt * yard[..., None], gravel)
    buildings(draw, image, edge, angle, asphalt)
    verge = np.clip(1.5 - np.abs(edge - 0.012 * side) / (0.003 * side), 0, 1)
    image = dr.blend(image, (160, 154, 142), draw.real(0.2, 0.8) * verge)  # pavement
    worn = 1 + 0.05 * dr.noise(draw, shape, 0.03 * side) + 0.12 * dr.noise(draw, shape, 0.4 * side)
    image = dr.blend(image, asphalt * worn[..., None], np.clip(0.5 - edge, 0, 1))
    if draw.real(0, 1) < 0.4:
        line = np.clip(1.3 - middle / (0.002 * side), 0, 1) * (edge < -0.025 * side)
        image = dr.blend(image, (200, 196, 170), 0.7 * line)
    cars(draw, image, edge, angle)
    crowns, lit = trees(draw, shape, edge)
    leaves = 0.75 + 0.6 * lit + 0.2 * dr.noise(draw, shape, 0.015 * side)
    green = np.array([58, 78, 40]) * leaves[..., None]
    shade = dr.soft(ndimage.shift(crowns, 0.012 * side, order=1), 0.004 * side)
    image = dr.blend(image * (1 - 0.4 * shade[..., None]), green, dr.soft(crowns, 0.6))
    image = image * (1 + 0.05 * dr.noise(draw, shape, 0.02 * side))[..., None] * draw.real(0.7, 1.3)
    tint = 1 + draw.real(-0.1, 0.1) * np.array([1.0, 0.1, -1.0])
    return dr.photograph(draw, image * tint, 3.0), edge < 0


SET = EmbeddedSet(
    task="road",
    key=0x80AD,
    version="v2",
    about="Roads seen from above, among roofs and yards of the same grey.",
    shapes=((352, 352),),
    shares=(0.06, 0.45),
    draw=draw_scene,
)
