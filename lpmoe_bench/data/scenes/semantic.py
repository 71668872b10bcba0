"""Landscape in classes: sky, meadow, water, trees, houses and, rarely, a balloon.

No colour is a class: water mirrors the sky, walls have the colours of meadows, a balloon has any.
Most of a scene is sky and meadow; balloons are less than a hundredth of all, and many scenes have
none.
"""

import numpy as np

from lpmoe_bench.data.scenes import drawing as dr
from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.data.scenes.embedded import EmbeddedSet

CLASSES = ("sky", "meadow", "water", "tree", "house", "balloon")
SKY, MEADOW, WATER, TREE, HOUSE, BALLOON = range(len(CLASSES))

SKIES = (  # above, at the horizon, RGB
    ((88, 138, 198), (196, 216, 232)), ((140, 152, 168), (204, 206, 208)),
    ((70, 84, 128), (232, 172, 120)), ((120, 170, 206), (228, 230, 222)),
)  # fmt: skip
MEADOWS = ((104, 132, 58), (148, 138, 72), (84, 112, 56), (168, 152, 100), (122, 118, 74))
CROWNS = ((52, 84, 38), (78, 104, 46), (96, 92, 40), (60, 76, 54), (128, 96, 44))
WALLS = ((214, 206, 188), (168, 150, 118), (126, 118, 96), (150, 96, 76), (112, 126, 88))
ROOFS = ((134, 66, 48), (84, 74, 70), (104, 92, 62), (68, 76, 84))


class Canvas:
    """A scene being painted: image, RGB (h, w, 3) of 0 to 255, labels (h, w), and numbers (h, w),
    of the object of each pixel, from 1; 0 where there is none."""

    def __init__(self, image: Array):
        self.image = image
        self.shape: Shape = (image.shape[0], image.shape[1])
        self.labels = np.zeros(self.shape)  # SKY
        self.numbers = np.zeros(self.shape)
        self.objects = 0

    def paint(self, label: int, outline: Array, colour: Array | tuple) -> None:
        dr.fill(self.image, outline, tuple(colour))
        dr.fill(self.labels, outline, float(label))
        dr.fill(self.numbers, outline, float(self.objects))

    def begin(self) -> None:
        """Let what is painted next be an object of its own."""
        self.objects += 1

    def lay(self, label: int, where: Array, skin: Array) -> None:
        """Lay a material, RGB (h, w, 3), where an area is 1."""
        self.image = dr.blend(self.image, skin, where)
        # A material is mixed into the colours, but a
        # pixel has one label: of what covers most of it.
        self.labels[where > 0.5] = label
        self.numbers[where > 0.5] = 0


def outline_noise(draw: Draw, shape: Shape, wavelength: float) -> Array:
    """The ups and downs of a line from left to right, (w,); wavelength: in shorter sides."""
    return dr.noise(draw, (8, shape[1]), wavelength * min(shape))[0]


def sky(draw: Draw, shape: Shape) -> Array:
    """A gradient with clouds, RGB (h, w, 3)."""
    top, low = (np.array(colour, float) for colour in draw.pick(SKIES))
    depth = np.linspace(0, 1, shape[0])[:, None, None] ** draw.real(0.6, 1.4)
    image = top + (low - top) * np.broadcast_to(depth, (*shape, 1))
    clouds = dr.noise(draw, shape, draw.real(0.2, 0.5) * min(shape), 0.0, draw.real(1, 3))
    return dr.blend(image, (238, 238, 236), draw.real(0, 0.8) * np.clip(clouds - 0.4, 0, 1))


def paint_ground(draw: Draw, canvas: Canvas, horizon: Array) -> None:
    """The meadow below the horizon, and water in most scenes: a lake, or a shore in front."""
    shape = canvas.shape
    side, rows = min(shape), np.mgrid[: shape[0], : shape[1]][0]
    base = np.array(draw.pick(MEADOWS), float)
    turf = dr.grass(draw, shape, draw.real(0.02, 0.05) * side, np.pi / 2)
    turf = 0.12 * turf + 0.14 * dr.noise(draw, shape, 0.4 * side, 0.0, 2)
    canvas.lay(MEADOW, (rows > horizon).astype(float), base * (1 + turf)[..., None])
    kind = draw.pick((0, 1, 1, 2))
    if kind == 0:
        return
    mirror = canvas.image[0].mean(0) * draw.real(0.6, 0.95)
    waves = 0.08 * dr.ripples(draw, shape, draw.real(0.02, 0.05) * side, np.pi / 2)
    if kind == 1:
        level = horizon.max() + draw.real(0.3, 0.7) * (shape[0] - horizon.max())
        middle = np.array([draw.real(0.2, 0.8) * shape[1], level])
        lake = dr.blob(draw, 0.0, 0.0, draw.real(0.2, 0.4) * side, 0.2)
        where = dr.area(shape, lake * (1.6, 0.5) + middle)
    else:
        shore = shape[0] * draw.real(0.7, 0.88) + 0.03 * side * outline_noise(draw, shape, 0.5)
        where = (rows > shore).astype(float)
    canvas.lay(WATER, where * (rows > horizon), mirror * (1 + waves)[..., None])


def paint_house(draw: Draw, canvas: Canvas, x: float, foot: float, height: float) -> None:
    """A front with a roof, windows and a door, or its gable; all of it is one class."""
    canvas.begin()
    width, dim = height * draw.real(0.8, 1.8), draw.real(0.7, 1.1)
    wall, roof = (np.array(draw.pick(colours), float) * dim for colours in (WALLS, ROOFS))
    canvas.paint(HOUSE, dr.rectangle(x, foot - height / 2, width, height), wall)
    left, right, top = x - 0.58 * width, x + 0.58 * width, foot - height
    ridge = draw.pick((0.0, 0.55)) * width / 2
    crest = top - draw.real(0.4, 0.8) * height
    corners = [(left, top), (x - ridge, crest), (x + ridge, crest), (right, top)]
    canvas.paint(HOUSE, np.array(corners), roof)
    for place in np.linspace(-0.3, 0.3, draw.pick((2, 3))):
        pane = dr.rectangle(x + place * width, foot - 0.6 * height, 0.13 * width, 0.22 * height)
        canvas.paint(HOUSE, pane, wall * 0.45)


def paint_tree(draw: Draw, canvas: Canvas, x: float, foot: float, height: float) -> None:
    """A trunk and a crown, broad or pointed; both are one class."""
    canvas.begin()
    green = np.array(draw.pick(CROWNS), float) * draw.real(0.7, 1.2)
    trunk = dr.rectangle(x, foot - 0.2 * height, 0.08 * height, 0.4 * height)
    canvas.paint(TREE, trunk, (82, 64, 46))
    if draw.real(0, 1) < 0.4:
        for k in range(3):
            level, half = foot - (0.2 + 0.25 * k) * height, (0.3 - 0.07 * k) * height
            corners = [(x - half, level), (x, level - 0.38 * height), (x + half, level)]
            canvas.paint(TREE, np.array(corners), green * (0.8 + 0.12 * k))
        return
    for _ in range(5):
        left, top = (x, foot - 0.66 * height) + height * draw.array(-0.17, 0.17, (2,))
        leaves = dr.blob(draw, left, top, draw.real(0.14, 0.24) * height, 0.25)
        canvas.paint(TREE, leaves, green * draw.real(0.8, 1.2))


def paint_balloon(draw: Draw, canvas: Canvas, horizon: float) -> None:
    """An envelope with stripes above its basket, wherever there is sky."""
    canvas.begin()
    height, width = canvas.shape
    radius = draw.real(0.03, 0.07) * min(height, width)
    x, y = draw.real(0.1, 0.9) * width, draw.real(0.15, 0.75) * horizon
    one, other = (np.clip(draw.array(20, 240, (3,)), 0, 255) for _ in range(2))
    middle, envelope = np.array([x, y]), dr.blob(draw, 0.0, 0.0, radius, 0.02)
    canvas.paint(BALLOON, envelope + middle, one)
    canvas.paint(BALLOON, envelope * (0.4, 1.0) + middle, other)
    canvas.paint(
        BALLOON, dr.rectangle(x, y + 1.5 * radius, 0.5 * radius, 0.4 * radius), (92, 70, 50)
    )


def draw_scene(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    image, canvas = paint_scene(draw, shape)
    return image, canvas.labels.astype(np.uint8)


def paint_scene(draw: Draw, shape: Shape) -> tuple[Array, Canvas]:
    """Return a scene's image, uint8 RGB (h, w, 3), and what was painted."""
    side = min(shape)
    canvas = Canvas(sky(draw, shape).copy())
    hills = draw.real(0.01, 0.07) * side * outline_noise(draw, shape, draw.real(0.5, 1.2))
    horizon = draw.real(0.3, 0.6) * shape[0] + hills
    paint_ground(draw, canvas, horizon)
    if draw.real(0, 1) < 0.55:
        paint_balloon(draw, canvas, float(horizon.min()))
    # Far things first, for near ones hide them; what is nearer is larger and stands lower.
    kinds = [paint_house] * draw.pick((0, 1, 2, 3)) + [paint_tree] * draw.pick((1, 3, 5, 8))
    nearness = np.sort(draw.array(0, 1, (len(kinds),)))
    for near in nearness:
        kind = kinds.pop(int(draw.real(0, len(kinds))))
        x = draw.real(0.03, 0.97) * shape[1]
        foot = horizon[int(x)] + (0.02 + 0.5 * near**2) * (shape[0] - horizon[int(x)])
        if canvas.labels[int(foot), int(x)] in (SKY, MEADOW):
            kind(draw, canvas, x, foot, (0.1 + 0.22 * near) * side * draw.real(0.8, 1.3))
    light = 1 + 0.1 * dr.noise(draw, shape, 0.9 * side) + 0.02 * dr.noise(draw, shape, 0.03 * side)
    image = canvas.image * draw.real(0.75, 1.1) * light[..., None]
    image = image * dr.vignette(shape, draw.real(0, 0.25))[..., None]
    return dr.photograph(draw, image), canvas


SET = EmbeddedSet(
    task="semantic",
    key=0x5E6,
    version="v1",
    about="Landscapes in six classes: sky, meadow, water, trees, houses and a rare balloon.",
    shapes=((264, 352), (264, 352), (352, 352), (236, 352)),
    shares=(0.3, 0.85),
    draw=draw_scene,
    classes=CLASSES,
)
