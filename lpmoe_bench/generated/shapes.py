"""Outlines as points (n, 2) of x and y in pixels, filled into arrays in integer arithmetic."""

from __future__ import annotations

import cv2
import numpy as np

from lpmoe_bench.generated.textures import Array, Draw, Shape

SUBPIXEL = 4  # bits: corners lie on a grid of 1/16 pixel, so that every build fills the same


def blob(
    draw: Draw, x: float, y: float, radius: float, wobble: float = 0.15, stretch: float = 1.0
) -> Array:
    """A closed, smooth, uneven outline, `stretch` times longer than wide, turned anyhow."""
    steps, distance = np.linspace(0, 2 * np.pi, 48, endpoint=False), np.ones(48)
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


def curve(start: Array, end: Array, bend: float, steps: int = 17) -> Array:
    """Points on a parabola from start to end whose middle lies aside by `bend` of its length."""
    t = np.linspace(0, 1, steps)[:, None]
    across = np.array([start[1] - end[1], end[0] - start[0]])
    return start + t * (end - start) + 4 * bend * t * (1 - t) * across


def ribbon(points: Array, width: float, tip: float | None = None) -> Array:
    """The outline of a stroke along points, its width going over to that of its tip."""
    along = np.gradient(points, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=-1)
    across /= np.maximum(np.hypot(*across.T), 1e-9)[:, None]
    half = np.linspace(width, width if tip is None else tip, len(points))[:, None] / 2
    return np.concatenate([points + half * across, (points - half * across)[::-1]])


def fill(canvas: Array, outline: Array, value: float | tuple) -> None:
    """Fill an outline in a float64 array, (h, w) or (h, w, 3), with a number or a colour."""
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
