"""Animal-like outlines with a bent spine."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lpmoe_bench.generated.textures import Array, Draw, Shape, frame, noise


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
    x, y = (
        (x - draw.real(0.12, 0.88) * shape[1]) / scale,
        (y - draw.real(0.12, 0.88) * shape[0]) / scale,
    )
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
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
