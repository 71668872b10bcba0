"""Seeded textures of nature: bark, grass, ripples, blotches, pebbles, litter.

Random numbers are raw PCG64 words, which numpy promises never to change, and every step after
them is continuous, so a field differs between machines by rounding errors only. A texture takes
(draw, shape, wavelength in pixels, angle in radians) and returns a field of tones, (h, w).
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from scipy import fft, ndimage

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
    # A margin against the period of the transform, and sides that it handles fast.
    height, width = (-(-(side + int(wavelength)) // 32) * 32 for side in shape)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    along = (fx * np.cos(angle) + fy * np.sin(angle)) * stretch
    across = fy * np.cos(angle) - fx * np.sin(angle)
    radius = np.maximum(np.hypot(along, across) * wavelength, 1e-6)
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
    nearest, tone = np.full(shape, 9.0), np.zeros(shape)
    second = nearest.copy()
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            row, column = v.astype(int) + i, u.astype(int) + j
            gap = np.hypot(column + du[row, column] - u, row + dv[row, column] - v)
            tone = np.where(gap < nearest, tones[row, column], tone)
            second = np.minimum(second, np.maximum(nearest, gap))
            nearest = np.minimum(nearest, gap)
    return (
        tone + 1.6 * np.tanh(3 * (second - nearest)) + 0.15 * noise(draw, shape, 0.5 * wavelength)
    )


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
