"""Kernels of the weighted F-measure: smoothed errors on the object, and weighted sums."""

from __future__ import annotations

import numpy as np

from .compiled import kernel


def gaussian_taps() -> np.ndarray:
    """Return the first four taps of the 7-tap Gaussian of sigma 5, which is symmetric."""
    taps = np.exp(-(np.arange(-3, 4) ** 2) / 50)
    return (taps / taps.sum())[:4]


@kernel
def weighted_sum(pred, weights):
    """Return the sum of level times weight, both of integers (h, w), as float."""
    total = 0.0
    for y in range(pred.shape[0]):
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
    t0, t1, t2, t3 = taps[0], taps[1], taps[2], taps[3]
    for x in range(len(out)):
        outer = t0 * (line[x] + line[x + 6]) + t1 * (line[x + 1] + line[x + 5])
        out[x] = outer + t2 * (line[x + 2] + line[x + 4]) + t3 * line[x + 3]


@kernel
def _collect(rows, taps, first, raw, mask, sums):
    """Add the smaller of error and smoothed error of one row's object pixels to `sums`."""
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
    lines, rows = np.zeros((7, right - left + 6)), np.zeros((7, right - left))
    sums, flat = np.zeros(right - left), pred.ravel()
    at = np.searchsorted(near, max(top - 3, 0) * w)
    for y in range(top - 3, bottom + 3):
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
            first = (r - top) % 7
            _collect(rows, taps, first, lines[(first + 3) % 7], mask[r, left:right], sums)
    total = 0.0
    for x in range(len(sums)):
        total += sums[x]
    return total
