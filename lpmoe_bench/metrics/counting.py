"""Kernels that count: foreground by row and column, and 8-bit levels by quadrant and mask."""

from __future__ import annotations

import numpy as np

from .compiled import kernel

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
    tables = np.zeros((LANES, 512), np.uint32)
    a, b, c, d = tables[0], tables[1], tables[2], tables[3]
    whole = left + (right - left) // LANES * LANES
    for y in range(top, bottom):
        p, g = pred[y], mask[y]
        for x in range(left, whole, LANES):
            a[np.uint64(p[x]) | np.uint64(g[x]) << np.uint64(8)] += 1
            b[np.uint64(p[x + 1]) | np.uint64(g[x + 1]) << np.uint64(8)] += 1
            c[np.uint64(p[x + 2]) | np.uint64(g[x + 2]) << np.uint64(8)] += 1
            d[np.uint64(p[x + 3]) | np.uint64(g[x + 3]) << np.uint64(8)] += 1
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
        top, bottom = (0, row) if part < 2 else (row, h)
        left, right = (0, column) if part % 2 == 0 else (column, w)
        tables = _count_part(pred, mask, top, bottom, left, right)
        for lane in range(LANES):
            for level in range(256):
                counts[part, 0, level] += tables[lane, level]
                counts[part, 1, level] += tables[lane, level + 256]
    return counts
