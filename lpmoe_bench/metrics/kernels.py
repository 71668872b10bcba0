"""Compiled kernels: counts by line and level, distances to the object, smoothed errors."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit

# How a kernel is compiled: without the interpreter lock, and once for all later starts.


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with numba on its first call and keep the result on disk.

    Floating-point operations keep their order, so that every machine rounds alike. The cache notes
    changes of the kernel's own file only: a kernel calls nothing from another file.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder for the cache can be written
        return njit(nogil=True)(function)


# Kernels that count: foreground by row and column, and 8-bit levels by quadrant and mask.

LANES = 4  # neighbouring pixels count in tables of their own: equal levels need not wait


@kernel
def count_lines(mask):
    """Return the foreground pixels of each row, (h,), and each column, (w,), of a 0/1 mask."""
    h, w = mask.shape
    rows, columns = np.zeros(h, np.int64), np.zeros(w, np.int32)
    for y in range(h):
        total = 0
        for x in range(w):
            total += mask[y, x]
            columns[x] += mask[y, x]
        rows[y] = total
    return rows, columns.astype(np.int64)


@kernel
def _count_part(pred, mask, top, bottom, left, right):
    # Place 256 m + p holds the pixels of level p and mask value m.
    tables = np.zeros((LANES, 512), np.uint32)
    a, b, c, d = tables[0], tables[1], tables[2], tables[3]
    whole = left + (right - left) // LANES * LANES
    for y in range(top, bottom):
        p, g = pred[y], mask[y]
        for x in range(left, whole, LANES):
            # Unsigned places: numba tests a signed one for
            # being negative, as Python's indexing asks.
            a[np.uint64(p[x]) | np.uint64(g[x]) << np.uint64(8)] += 1
            b[np.uint64(p[x + 1]) | np.uint64(g[x + 1]) << np.uint64(8)] += 1
            c[np.uint64(p[x + 2]) | np.uint64(g[x + 2]) << np.uint64(8)] += 1
            d[np.uint64(p[x + 3]) | np.uint64(g[x + 3]) << np.uint64(8)] += 1
        # What is left of the row, fewer than four pixels.
        for x in range(whole, right):
            a[np.uint64(p[x]) | np.uint64(g[x]) << np.uint64(8)] += 1
    return tables


@kernel
def joint_histogram(pred, mask, row, column):
    """Count pixels by quadrant, mask value and level: (4, 2, 256).

    pred: uint8 (h, w). mask: 0/1 as uint8 (h, w). The quadrants meet above row `row` and left of
    column `column`; their order is left to right, then top to bottom.
    """
    h, w = pred.shape
    counts = np.zeros((4, 2, 256), np.int64)
    for part in range(4):
        # Order of quadrants: above left, above right, below left, below right.
        top, bottom = (0, row) if part < 2 else (row, h)
        left, right = (0, column) if part % 2 == 0 else (column, w)
        tables = _count_part(pred, mask, top, bottom, left, right)
        for lane in range(LANES):
            for level in range(256):
                counts[part, 0, level] += tables[lane, level]
                counts[part, 1, level] += tables[lane, level + 256]
    return counts


# Kernels that measure distance to the object: weights of the background, and nearest pixels.
#
# The distance transform of Felzenszwalb and Huttenlocher (Theory of Computing, 2012): the squared
# distance to the object is the least, over the columns s of the row, of (x - s)^2 + f(s), f being
# the squared distance within column s. Each column gives a parabola over the row, and what is
# sought is their lower envelope: one walk to find it, one to read it. All of it is in integers, so
# that distances are exact, and the weights of far pixels, which round to 0, are never worked out.

REACH = 170  # pixels; farther off, a weight is 0 in fixed point
BAND = 18  # squared distance to which the smoothing of the object's errors can read: 3 by 3 pixels
ONE = 2.0**32  # the weight 1 in fixed point: sums of integers do not depend on their order


@cache
def weight_table() -> np.ndarray:
    """Return exp(ln(1/2) / 5 * d) by squared distance, as uint32 in units of 1 / ONE; 0 for 0.

    It goes on to twice the square of REACH: that far apart are pixels within REACH both ways.
    """
    distance = np.sqrt(np.arange(2 * REACH**2 + 1))
    table = np.exp(np.log(0.5) / 5 * distance)
    # Distance 0 is the object itself, which is not part of the sum over the background.
    table[0] = 0
    return np.rint(table * ONE).astype(np.uint32)


@cache
def nearest_offsets() -> tuple[np.ndarray, np.ndarray]:
    """Return offsets (dx, dy), (n, 2), in the order of search, and where each distance begins.

    Of object pixels equally near the one in the leftmost column counts, then the topmost: so does
    scipy's feature transform, which the reference uses.
    """
    reach = range(-4, 5)
    # Sorted by distance, then from left to right, then from top to bottom: the order of search.
    offsets = sorted(
        (dx * dx + dy * dy, dx, dy) for dx in reach for dy in reach if dx * dx + dy * dy <= BAND
    )
    # Offsets starts[d] to starts[d + 1] have exactly the squared distance d, or there are none.
    squares = np.array([square for square, _, _ in offsets])
    starts = np.searchsorted(squares, np.arange(BAND + 2))
    return np.array([(dx, dy) for _, dx, dy in offsets], np.int64), starts


@kernel
def _down_columns(mask, away):
    """Write each pixel's distance to the object within its column; REACH + 1 where too far."""
    h, w = mask.shape
    # Down, then up: each pixel ends with the nearer of the object pixels above and below it.
    for x in range(w):
        away[0, x] = 0 if mask[0, x] else REACH + 1
    for y in range(1, h):
        for x in range(w):
            away[y, x] = 0 if mask[y, x] else min(np.int32(away[y - 1, x]) + 1, REACH + 1)
    for y in range(h - 2, -1, -1):
        for x in range(w):
            away[y, x] = min(np.int32(away[y, x]), np.int32(away[y + 1, x]) + 1)


@kernel
def envelope(away, reach, outside, site, height, start):
    """Find the parabolas that are lowest somewhere along a row; return how many.

    Parabola i, (x - site[i])^2 + height[i], is the lowest from start[i] to start[i + 1]. Columns
    with nothing within `reach` give none. outside: it is only asked for outside of the object.
    """
    w, n = len(away), 0
    for x in range(w):
        f = np.int64(away[x])
        if f > reach:
            continue
        if outside and f == 0 and 0 < x < w - 1 and away[x - 1] == 0 and away[x + 1] == 0:
            continue  # inside the object: of no use to the background
        f, begin = f * f, 0
        # Parabolas of one width cross once. Where the new one is below the last from before the
        # last one began, the last one is nowhere the lowest any more.
        while n > 0:
            rise = x * x + f - site[n - 1] * site[n - 1] - height[n - 1]
            # Where both are equal: x^2 - s^2 + f - h = 2 (x - s) * crossing.
            # From the first column right of the crossing on the new one is the lower.
            begin = np.int64(np.floor(rise * 0.5 / (x - site[n - 1]))) + 1
            if begin > start[n - 1]:
                break
            n -= 1
        begin = begin if n else 0
        # A parabola that would be the lowest only right of the row is dropped.
        if begin < w:
            site[n], height[n], start[n] = x, f, begin
            n += 1
    # A closing mark: the last parabola holds up to the end of the row.
    start[n] = w
    return n


@kernel
def _fill(line, mask, table, n, site, height, start):
    """Write the weights of a row's background from its lowest parabolas."""
    for i in range(n):
        s, f = site[i], height[i]
        # Both parts of the squared distance are at most REACH^2, so the table never ends too soon.
        begin = max(start[i], s - REACH)
        # The next square from this one by adding odd numbers, without a product.
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
    # uint8 is enough: no distance within a column is written above REACH + 1 = 171.
    away, weights = np.empty((h, w), np.uint8), np.zeros((h, w), np.uint32)
    _down_columns(mask, away)
    near, squares, found = np.empty(h * w, np.int32), np.empty(h * w, np.uint8), 0
    site, height, start = np.empty(w, np.int64), np.empty(w, np.int64), np.empty(w + 1, np.int64)
    for y in range(h):
        n = envelope(away[y], REACH, True, site, height, start)
        _fill(weights[y], mask[y], table, n, site, height, start)
        for i in range(n):
            s, f = site[i], height[i]
            if f > BAND:
                continue
            # Parabolas go from left to right, so the flat indices come out sorted, on which
            # object_error relies. Five columns away 5^2 is above BAND already.
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
        # The squared distance is known, so only offsets of just that length are tried.
        y, x = near[i] // w, near[i] % w
        for k in range(starts[squares[i]], starts[squares[i] + 1]):
            u, v = x + offsets[k, 0], y + offsets[k, 1]
            if 0 <= u < w and 0 <= v < h and mask[v, u]:
                nearest[i] = v * w + u
                break
    return nearest


# Kernels of the weighted F-measure: smoothed errors on the object, and weighted sums.
#
# Margolin et al. smooth the errors with a 7 x 7 Gaussian, in which background pixels take the
# error of their nearest object pixel, and let an object pixel keep the smaller of both errors. The
# Gaussian is a product, so a row is smoothed once and stays among the last seven until no row below
# needs it; and only the object's box with a rim of 3 pixels can matter.


@cache
def gaussian_taps() -> np.ndarray:
    """Return the first four taps of the 7-tap Gaussian of sigma 5, which is symmetric."""
    # 50 is 2 sigma^2. The 7 x 7 table of sum 1 is the
    # outer product of these seven with themselves.
    taps = np.exp(-(np.arange(-3, 4) ** 2) / 50)
    return (taps / taps.sum())[:4]


@kernel
def weighted_sum(pred, weights):
    """Return the sum of level times weight, both of integers (h, w), as float."""
    total = 0.0
    for y in range(pred.shape[0]):
        # Integers add up exactly in any order, so the compiler is free to add several at once.
        line = np.uint64(0)
        for x in range(pred.shape[1]):
            line += np.uint64(pred[y, x]) * np.uint64(weights[y, x])
        total += np.float64(line)  # a row fits 64 bits, an image need not
    return total


@kernel
def _errors(line, y, pred, mask, errors, left, right):
    """Write the errors of a row from 3 left of the box to 3 right of it; 0 off the object."""
    for x in range(max(left - 3, 0), min(right + 3, pred.shape[1])):
        line[x - left + 3] = errors[pred[y, x]] if mask[y, x] else 0.0


@kernel
def _along_row(line, taps, out):
    # line begins 3 pixels left of the box: the window of out[x] is line[x] to line[x + 6].
    t0, t1, t2, t3 = taps[0], taps[1], taps[2], taps[3]
    for x in range(len(out)):
        outer = t0 * (line[x] + line[x + 6]) + t1 * (line[x + 1] + line[x + 5])
        out[x] = outer + t2 * (line[x + 2] + line[x + 4]) + t3 * line[x + 3]


@kernel
def _collect(rows, taps, first, raw, mask, sums):
    """Add the smaller of error and smoothed error of one row's object pixels to `sums`."""
    # The seven rows of the window from top to bottom, in a ring of seven; d is the row itself.
    a, b, c, d = rows[first], rows[(first + 1) % 7], rows[(first + 2) % 7], rows[(first + 3) % 7]
    e, f, g = rows[(first + 4) % 7], rows[(first + 5) % 7], rows[(first + 6) % 7]
    t0, t1, t2, t3 = taps[0], taps[1], taps[2], taps[3]
    for x in range(len(sums)):
        outer = t0 * (a[x] + g[x]) + t1 * (b[x] + f[x])
        smooth = outer + t2 * (c[x] + e[x]) + t3 * d[x]
        error = raw[x + 3]
        error = smooth if smooth < error else error
        sums[x] += error if mask[x] else 0.0


@kernel
def object_error(pred, mask, errors, box, near, nearest, taps):
    """Sum the errors on the object, each replaced by the smoothed error where that is smaller.

    pred: integers (h, w), the places of the pixels in `errors`, which holds 1 - map. mask: 0/1 as
    uint8. box: top, bottom, left, right of the object, half open. near, nearest: background pixels
    about the object, in order, and the object pixels whose errors they take for the smoothing.
    """
    h, w = pred.shape
    top, bottom, left, right = box
    # lines: errors as they are, which are still needed three rows later. rows: smoothed along x.
    # Places of `lines` outside of the image are never written and stay 0: the reference pads so.
    lines, rows = np.zeros((7, right - left + 6)), np.zeros((7, right - left))
    sums, flat = np.zeros(right - left), pred.ravel()
    # The first background pixel near the object in the rows that matter.
    at = np.searchsorted(near, max(top - 3, 0) * w)
    for y in range(top - 3, bottom + 3):  # rows of the window of row y - 3, which is then complete
        slot = (y - top + 3) % 7
        if 0 <= y < h:
            line = lines[slot]
            _errors(line, y, pred, mask, errors, left, right)
            while at < len(near) and near[at] < (y + 1) * w:
                x = near[at] - y * w - left + 3
                if 0 <= x < len(line):
                    line[x] = errors[flat[nearest[at]]]
                at += 1
            _along_row(line, taps, rows[slot])
        else:
            rows[slot, :] = 0.0
        r = y - 3
        if r >= top:
            # The slot of row r - 3, the oldest of the window; row r itself lies three slots on.
            first = (r - top) % 7
            _collect(rows, taps, first, lines[(first + 3) % 7], mask[r, left:right], sums)
    total = 0.0  # by column first: the order is part of the result's last bits
    for x in range(len(sums)):
        total += sums[x]
    return total
