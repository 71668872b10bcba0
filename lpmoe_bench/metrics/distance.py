"""Kernels that measure distance to the object: weights of the background, and nearest pixels."""

from __future__ import annotations

import numpy as np

from .compiled import kernel

REACH = 170  # pixels; farther off, a weight is 0 in fixed point
BAND = 18  # squared distance to which the smoothing of the object's errors can read: 3 by 3 pixels
ONE = 2.0**32  # the weight 1 in fixed point: sums of integers do not depend on their order


def weight_table() -> np.ndarray:
    """Return exp(ln(1/2) / 5 * d) by squared distance, as uint32 in units of 1 / ONE; 0 for 0.

    It goes on to twice the square of REACH: that far apart are pixels within REACH both ways.
    """
    distance = np.sqrt(np.arange(2 * REACH**2 + 1))
    table = np.exp(np.log(0.5) / 5 * distance)
    table[0] = 0
    return np.rint(table * ONE).astype(np.uint32)


def nearest_offsets() -> tuple[np.ndarray, np.ndarray]:
    """Return offsets (dx, dy), (n, 2), in the order of search, and where each distance begins.

    Of object pixels equally near the one in the leftmost column counts, then the topmost: so does
    scipy's feature transform, which the reference uses.
    """
    reach = range(-4, 5)
    offsets = sorted(
        (dx * dx + dy * dy, dx, dy) for dx in reach for dy in reach if dx * dx + dy * dy <= BAND
    )
    squares = np.array([square for square, _, _ in offsets])
    starts = np.searchsorted(squares, np.arange(BAND + 2))
    return np.array([(dx, dy) for _, dx, dy in offsets], np.int64), starts


@kernel
def _down_columns(mask, away):
    """Write each pixel's distance to the object within its column; REACH + 1 where too far."""
    h, w = mask.shape
    for x in range(w):
        away[0, x] = 0 if mask[0, x] else REACH + 1
    for y in range(1, h):
        for x in range(w):
            away[y, x] = 0 if mask[y, x] else min(np.int32(away[y - 1, x]) + 1, REACH + 1)
    for y in range(h - 2, -1, -1):
        for x in range(w):
            away[y, x] = min(np.int32(away[y, x]), np.int32(away[y + 1, x]) + 1)


@kernel
def _envelope(away, site, height, start):
    """Find the parabolas that are lowest somewhere along a row; return how many.

    Parabola i, (x - site[i])^2 + height[i], is the lowest from start[i] to start[i + 1].
    """
    w, n = len(away), 0
    for x in range(w):
        f = np.int64(away[x])
        if f > REACH:
            continue
        if f == 0 and 0 < x < w - 1 and away[x - 1] == 0 and away[x + 1] == 0:
            continue  # inside the object: of no use to the background
        f, begin = f * f, 0
        while n > 0:
            rise = x * x + f - site[n - 1] * site[n - 1] - height[n - 1]
            begin = np.int64(np.floor(rise * 0.5 / (x - site[n - 1]))) + 1
            if begin > start[n - 1]:
                break
            n -= 1
        begin = begin if n else 0
        if begin < w:
            site[n], height[n], start[n] = x, f, begin
            n += 1
    start[n] = w
    return n


@kernel
def _fill(line, mask, table, n, site, height, start):
    """Write the weights of a row's background from its lowest parabolas."""
    for i in range(n):
        s, f = site[i], height[i]
        begin = max(start[i], s - REACH)
        square, step = (begin - s) * (begin - s) + f, 2 * (begin - s) + 1
        for x in range(begin, min(start[i + 1], s + REACH + 1)):
            line[x] = table[np.uint64(square)]
            square, step = square + step, step + 2
    for x in range(len(line)):
        line[x] = np.uint32(0) if mask[x] else line[x]


@kernel
def weigh_background(mask, table):
    """Return the background's weights, and its pixels near the object.

    mask: 0/1 as uint8 (h, w), not empty. Weights: uint32 (h, w), `table` at the squared distance
    to the nearest object pixel; 0 on the object and beyond REACH. Pixels: flat indices in order,
    (n,), and their squared distances, (n,), of those within BAND.
    """
    h, w = mask.shape
    away, weights = np.empty((h, w), np.uint8), np.zeros((h, w), np.uint32)
    _down_columns(mask, away)
    near, squares, found = np.empty(h * w, np.int32), np.empty(h * w, np.uint8), 0
    site, height, start = np.empty(w, np.int64), np.empty(w, np.int64), np.empty(w + 1, np.int64)
    for y in range(h):
        n = _envelope(away[y], site, height, start)
        _fill(weights[y], mask[y], table, n, site, height, start)
        for i in range(n):
            s, f = site[i], height[i]
            if f > BAND:
                continue
            for x in range(max(start[i], s - 4), min(start[i + 1], s + 5)):
                square = (x - s) * (x - s) + f
                if square <= BAND and not mask[y, x]:
                    near[found], squares[found] = y * w + x, square
                    found += 1
    return weights, near[:found].copy(), squares[:found].copy()


@kernel
def nearest_pixels(mask, near, squares, offsets, starts):
    """Return the flat index of the object pixel nearest to each of the `near` pixels, (n,)."""
    h, w = mask.shape
    nearest = np.empty_like(near)
    for i in range(len(near)):
        y, x = near[i] // w, near[i] % w
        for k in range(starts[squares[i]], starts[squares[i] + 1]):
            u, v = x + offsets[k, 0], y + offsets[k, 1]
            if 0 <= u < w and 0 <= v < h and mask[v, u]:
                nearest[i] = v * w + u
                break
    return nearest
