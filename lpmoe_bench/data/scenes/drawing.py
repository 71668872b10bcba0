"""What scenes are drawn with: textures, outlines, palettes, light and lens, all seeded."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from scipy import fft, ndimage

# Seeded textures of nature: bark, grass, ripples, blotches, pebbles, litter.
#
# Random numbers are raw PCG64 words, which numpy promises never to change, and every step after
# them is continuous, so a field differs between machines by rounding errors only. A texture takes
# (draw, shape, wavelength in pixels, angle in radians) and returns a field of tones, (h, w).


Array = np.ndarray
Shape = tuple[int, int]  # (h, w)


class Draw:
    """Uniform random numbers whose stream never changes, keyed by a tuple of integers."""

    def __init__(self, *key: int):
        self.bits = np.random.PCG64(np.random.SeedSequence(key))

    def array(self, low: float, high: float, shape: tuple[int, ...]) -> Array:
        words = self.bits.random_raw(int(np.prod(shape))) >> np.uint64(11)
        return low + (high - low) * (words * 2.0**-53).reshape(shape)

    def real(self, low: float, high: float) -> float:
        return float(self.array(low, high, (1,))[0])

    def pick(self, items: Sequence[Any]) -> Any:
        return items[int(self.real(0, len(items)))]


def noise(draw: Draw, shape: Shape, wavelength: float, angle=0.0, stretch=1.0, band=0.45) -> Array:
    """Band-pass noise, mean 0 and variance 1, its grain `stretch` times longer along the angle."""
    # White noise, filtered in the frequency domain: a bell over the logarithm of the frequency, so
    # that octaves count alike, with its top where one wave is `wavelength` pixels long.
    # A margin against the period of the transform, and sides that it handles fast.
    height, width = (-(-(side + int(wavelength)) // 32) * 32 for side in shape)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    along = (fx * np.cos(angle) + fy * np.sin(angle)) * stretch
    across = fy * np.cos(angle) - fx * np.sin(angle)
    radius = np.maximum(np.hypot(along, across) * wavelength, 1e-6)
    # radius is 1 where one wave is `wavelength` long, so the bell has its top there.
    gain = np.exp(-0.5 * (np.log(radius) / band) ** 2)
    spectrum = fft.rfft2(draw.array(-1, 1, (height, width))) * gain
    field = np.asarray(fft.irfft2(spectrum, s=(height, width)))[: shape[0], : shape[1]]
    return (field - field.mean()) / field.std()


def frame(shape: Shape, angle: float) -> tuple[Array, Array]:
    """Pixel coordinates along and across a direction, each (h, w)."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def bark(draw: Draw, shape: Shape, wavelength: float, angle: float) -> Array:
    coarse = noise(draw, shape, 1.8 * wavelength, angle, 7) + 0.35 * noise(draw, shape, wavelength)
    return np.tanh(1.8 * np.abs(coarse)) + 0.15 * noise(draw, shape, 0.6 * wavelength, angle, 5)


def grass(draw: Draw, shape: Shape, wavelength: float, angle: float) -> Array:
    blades = [noise(draw, shape, wavelength, angle + tilt, 9, 0.3) for tilt in (-0.25, 0.0, 0.22)]
    return np.logaddexp.reduce([3 * blade for blade in blades]) / 3


def ripples(draw: Draw, shape: Shape, wavelength: float, angle: float) -> Array:
    phase = 2 * np.pi * frame(shape, angle)[1] / (1.4 * wavelength)
    phase = phase + 1.5 * noise(draw, shape, 5 * wavelength, angle, 1.5)
    return np.sin(phase) + 0.35 * np.sin(2 * phase + 1) + 0.3 * noise(draw, shape, 0.4 * wavelength)


def blotches(draw: Draw, shape: Shape, wavelength: float, angle: float) -> Array:
    spots = np.tanh(2.2 * noise(draw, shape, 1.7 * wavelength, angle, 1.4, 0.3))
    return spots + 0.3 * noise(draw, shape, 0.6 * wavelength)


def pebbles(draw: Draw, shape: Shape, wavelength: float, angle: float) -> Array:
    """Cells around jittered grid points, flattened across `angle`, each with its own tone."""
    side = 1.5 * wavelength
    u, v = frame(shape, angle)
    u, v = (u - u.min()) / (1.5 * side) + 1, (v - v.min()) / side + 1
    cells = (int(v.max()) + 3, int(u.max()) + 3)
    du, dv, tones = draw.array(0, 1, cells), draw.array(0, 1, cells), draw.array(-1, 1, cells)
    # A pixel's cell is that of the nearest centre, which lies in one of nine squares of the grid.
    nearest, tone = np.full(shape, 9.0), np.zeros(shape)
    second = nearest.copy()
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            row, column = v.astype(int) + i, u.astype(int) + j
            gap = np.hypot(column + du[row, column] - u, row + dv[row, column] - v)
            tone = np.where(gap < nearest, tones[row, column], tone)
            second = np.minimum(second, np.maximum(nearest, gap))
            nearest = np.minimum(nearest, gap)
    gaps = 1.6 * np.tanh(3 * (second - nearest))
    return tone + gaps + 0.15 * noise(draw, shape, 0.5 * wavelength)


def litter(draw: Draw, shape: Shape, wavelength: float, angle: float) -> Array:
    """Leaves that lie on one another: half light and half dark along the mid-rib."""
    length = 3.2 * wavelength
    field = np.zeros(shape)
    count = int(14 * shape[0] * shape[1] / length**2) + 8
    spots = draw.array(-0.05, 1.05, (count, 2)) * shape
    tilts, tones = draw.array(-0.7, 0.7, (count,)), draw.array(-1, 1, (count,))
    sizes = draw.array(0.6, 1.2, (count,)) * length / 2
    steps = np.linspace(0, np.pi, 9)
    for (y, x), tilt, tone, size in zip(spots, tilts + angle, tones, sizes, strict=True):
        cos, sin = np.cos(tilt), np.sin(tilt)
        for flank, lift in ((-1, -0.22), (1, 0.22)):
            a, b = size * np.cos(steps), flank * 0.42 * size * np.sin(steps) ** 1.5
            outline = np.stack([x + a * cos - b * sin, y + a * sin + b * cos], axis=-1)
            cv2.fillPoly(field, [np.rint(outline * 16).astype(np.int32)], tone + lift, shift=4)
    return ndimage.gaussian_filter(field, 0.6) + 0.15 * noise(draw, shape, 0.4 * wavelength)


TEXTURES: tuple[Callable[..., Array], ...] = (bark, grass, ripples, blotches, pebbles, litter)


# Outlines as points (n, 2) of x and y in pixels, filled into arrays in integer arithmetic.

SUBPIXEL = 4  # bits: corners lie on a grid of 1/16 pixel, so that every build fills the same


def blob(
    draw: Draw, x: float, y: float, radius: float, wobble: float = 0.15, stretch: float = 1.0
) -> Array:
    """A closed, smooth, uneven outline, `stretch` times longer than wide, turned anyhow."""
    steps, distance = np.linspace(0, 2 * np.pi, 48, endpoint=False), np.ones(48)
    # Wave 1 would do little more than move the outline; the finer a wave, the smaller its swing.
    for wave in (2, 3, 4, 6, 9):
        swing = wobble * draw.real(0.3, 1) * (2 / wave)
        distance = distance + swing * np.cos(wave * steps + draw.real(0, 2 * np.pi))
    points = np.stack([np.cos(steps) * stretch**0.5, np.sin(steps) / stretch**0.5], axis=-1)
    return turned(radius * points * distance[:, None], draw.real(0, 2 * np.pi)) + np.array([x, y])


def rectangle(x: float, y: float, width: float, height: float, angle: float = 0.0) -> Array:
    """A rectangle around a centre."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)
    return turned(corners, angle) + np.array([x, y])


def turned(points: Array, angle: float) -> Array:
    """Points turned around the origin."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([(cos, sin), (-sin, cos)])


def curved_line(start: Array, end: Array, bend: float, steps: int = 17) -> Array:
    """Points on a parabola from start to end whose middle lies aside by `bend` of its length."""
    t = np.linspace(0, 1, steps)[:, None]
    # The way from start to end, turned by a right angle: as long as the line itself.
    across = np.array([start[1] - end[1], end[0] - start[0]])
    return start + t * (end - start) + 4 * bend * t * (1 - t) * across


def ribbon(points: Array, width: float, tip: float | None = None) -> Array:
    """The outline of a stroke along points, its width going over to that of its tip."""
    along = np.gradient(points, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=-1)
    across /= np.maximum(np.hypot(*across.T), 1e-9)[:, None]
    half = np.linspace(width, width if tip is None else tip, len(points))[:, None] / 2
    return np.concatenate([points + half * across, (points - half * across)[::-1]])


def stroke(start: Array, end: Array, bend: float, width: float, tip: float | None = None) -> Array:
    """The outline of a bent stroke from one point to another: see curved_line and ribbon."""
    return ribbon(curved_line(start, end, bend), width, tip)


def fill(canvas: Array, outline: Array, value: float | tuple) -> None:
    """Fill an outline in a float64 array, (h, w) or (h, w, 3), with a number or a colour."""
    # Corners in whole sixteenths of a pixel: from here on the arithmetic is of integers.
    points = np.rint(outline * (1 << SUBPIXEL)).astype(np.int32)
    value = tuple(float(v) for v in np.atleast_1d(value))
    cv2.fillPoly(canvas, [points], value, shift=SUBPIXEL)


def area(shape: Shape, *outlines: Array) -> Array:
    """The union of outlines as 0.0 and 1.0, (h, w)."""
    canvas = np.zeros(shape)
    for outline in outlines:
        fill(canvas, outline, 1.0)
    return canvas


def window(outlines: Array, pad: float, shape: Shape) -> tuple[slice, slice]:
    """Rows and columns of the part of an image that holds points and `pad` pixels around them."""
    low = np.maximum(np.floor(outlines.min(0) - pad), 0).astype(int)
    high = np.maximum(np.minimum(np.ceil(outlines.max(0) + pad), shape[::-1]).astype(int), low)
    return slice(low[1], high[1]), slice(low[0], high[0])


# Animal-like outlines with a bent spine.


def limbs(draw: Draw, spine: Array, girth: float) -> list[tuple]:
    """Pairs of limbs along a spine, as tapered rods: (start, end, radius, radius)."""
    rods = []
    reach, count = draw.real(0.45, 0.85), draw.pick((0, 0, 1, 2, 2, 3))
    for root in spine[[4]] if count == 1 else spine[np.linspace(1, 7, count).astype(int)]:
        for flank in (-1, 1):
            splay = flank * draw.real(0.9, 2.0)
            tip = root + reach * np.array([np.cos(splay), np.sin(splay)])
            rods.append((root, tip, 0.5 * girth, 0.25 * girth))
    return rods


def body(draw: Draw, shape: Shape, share: float) -> Array:
    """An animal-like outline with a bent spine: True inside, (h, w); share is only aimed at."""
    steps, bend = np.linspace(-1, 1, 9), draw.real(-0.9, 0.9)
    spine = np.stack([steps, bend * (steps**2 - 0.4)], axis=-1)
    girth = draw.real(0.22, 0.55) * (1 - draw.real(0.3, 0.8) * np.abs(steps - draw.real(-0.4, 0.4)))
    rods = [(spine[k], spine[k + 1], girth[k], girth[k + 1]) for k in range(8)]
    rods += limbs(draw, spine, float(girth.mean()))
    area = 0.8 * sum(np.hypot(*(b - a)) * (r + s) for a, b, r, s in rods)
    scale, turn = np.sqrt(share * shape[0] * shape[1] / area), draw.real(0, 2 * np.pi)
    x, y = frame(shape, 0.0)
    x = (x - draw.real(0.12, 0.88) * shape[1]) / scale
    y = (y - draw.real(0.12, 0.88) * shape[0]) / scale
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    # Each rod is a segment whose radius grows along it; summed exponentials of the distances make
    # one smooth body of them, without creases where limbs begin.
    heat = np.full(shape, 1e-12)
    for a, b, r, s in rods:
        step = b - a
        t = np.clip(((x - a[0]) * step[0] + (y - a[1]) * step[1]) / (step @ step), 0, 1)
        gap = np.hypot(x - a[0] - t * step[0], y - a[1] - t * step[1])
        heat += np.exp(-14 * (gap - r - t * (s - r)))  # a soft union
    level = np.log(heat) / 14 + 0.035 * noise(draw, shape, 0.55 * scale, band=0.3)
    inside = ndimage.binary_fill_holes(ndimage.gaussian_filter(level, 0.02 * scale) > 0.02)
    labels = np.zeros(shape, np.int32)
    ndimage.label(inside, output=labels)
    sizes = np.bincount(labels.ravel(), minlength=2)[1:]
    return labels == 1 + np.argmax(sizes)  # the largest piece; everything when there is none


# Palettes of nature: tones from dark to light, two rows that a scene mixes.

# Tones from dark to light, RGB; each scene mixes two neighbours of one row.
PALETTES = (
    (((38, 27, 20), (96, 70, 50), (150, 120, 92), (205, 182, 152)),
     ((30, 30, 24), (84, 78, 60), (132, 126, 104), (190, 188, 168))),  # bark
    (((44, 26, 14), (122, 70, 30), (178, 118, 58), (224, 184, 122)),
     ((36, 28, 20), (98, 78, 56), (148, 128, 98), (204, 190, 160))),  # leaf litter
    (((92, 72, 50), (158, 132, 98), (196, 172, 136), (232, 216, 186)),
     ((86, 76, 66), (146, 132, 116), (188, 176, 158), (226, 218, 204))),  # sand
    (((10, 42, 50), (28, 94, 104), (84, 148, 146), (176, 208, 190)),
     ((16, 34, 60), (44, 82, 116), (100, 138, 156), (178, 200, 204))),  # water
    (((18, 30, 12), (56, 84, 30), (112, 138, 58), (188, 200, 124)),
     ((28, 30, 14), (82, 82, 36), (134, 132, 70), (198, 192, 138))),  # moss and grass
    (((40, 40, 42), (96, 96, 96), (146, 144, 138), (206, 202, 192)),
     ((44, 38, 34), (106, 96, 86), (152, 142, 128), (208, 200, 186))),  # rock and lichen
)  # fmt: skip


def coloured(tone: Array, mix: Array, palette: tuple) -> Array:
    """Tones and a mix of two colour rows, both in [0, 1], to RGB in 0 to 255: (h, w, 3)."""
    stops = np.linspace(0, 1, 4)
    one, two = (
        np.stack([np.interp(tone, stops, [c[k] for c in row]) for k in range(3)], axis=-1)
        for row in palette
    )
    return one + (two - one) * mix[..., None]


def vivid(draw: Draw, strongest: float = 0.75) -> tuple:
    """A palette of any hue, weak or strong: two rows of four tones as in PALETTES."""
    hue, strength = draw.real(0, 2 * np.pi), draw.real(0.1, strongest)
    rows = []
    for turn in (0.0, draw.real(-0.9, 0.9)):
        angle = hue + turn + np.array([0, -2, 2]) * np.pi / 3
        colour = 1 + strength * np.cos(angle)
        rows.append(tuple(tuple(level * colour) for level in (34.0, 84.0, 134.0, 190.0)))
    return tuple(rows)


# Light and lens: relief, thrown shadows, vignette, blur, grain and the rounding to 8 bits.


def soft(field: Array, radius: float) -> Array:
    """A field (h, w) or an image (h, w, 3) out of focus by a radius in pixels."""
    sigma = (radius, radius, 0) if field.ndim == 3 else radius
    return ndimage.gaussian_filter(field, sigma, truncate=3.0)


def dome(mask: Array, reach: float) -> Array:
    """Height of a rounded body over its area: 0 outside, 1 from `reach` pixels inside on."""
    # A quarter of a circle rises from the edge.
    depth = np.asarray(ndimage.distance_transform_edt(mask > 0.5))
    rise = np.clip(depth / reach, 0, 1)
    return soft(np.sqrt(rise * (2 - rise)), 0.1 * reach)


def relief(height: Array, angle: float) -> Array:
    """How much a surface faces a light that comes from an angle: -1 to 1; heights in pixels."""
    down, right = np.gradient(height)
    return np.tanh(-(down * np.sin(angle) + right * np.cos(angle)))


def thrown(mask: Array, angle: float, distance: float, blur: float) -> Array:
    """Where an object's shadow falls, 0 to 1, when the light comes from an angle."""
    step = -distance * np.array([np.sin(angle), np.cos(angle)])
    fallen = ndimage.shift(np.asarray(mask, float), step, order=1)
    return np.clip(soft(fallen, blur), 0, 1) * (1 - mask)


def vignette(shape: tuple[int, int], strength: float, reach: float = 1.0) -> Array:
    """Brightness that falls to the corners: 1 in the middle, 1 - strength at radius `reach`,
    in half diagonals."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    y, x = y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2
    radius = np.hypot(x, y) / (np.hypot(*shape) / 2 * reach)
    return 1 - strength * np.minimum(radius, 1.6) ** 2.5


def blend(image: Array, colour: Array | tuple, alpha: Array) -> Array:
    """An image with a colour, or another image, laid over it where alpha (h, w) is 1."""
    return image + (np.asarray(colour, float) - image) * alpha[..., None]


def photograph(draw: Draw, image: Array, grain: float = 2.5, blur: float = 0.6) -> Array:
    """RGB in 0 to 255 as the camera stores it: slight blur, grain, 8 bits last."""
    image = soft(image, blur) + grain * noise(draw, image.shape[:2], 2.5)[..., None]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
