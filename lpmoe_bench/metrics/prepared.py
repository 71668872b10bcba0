"""PreparedMask: what the scores need to know of a mask, worked out once for all maps."""

from __future__ import annotations

from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from lpmoe_bench.errors import DataError


class Surroundings(NamedTuple):
    """The background as the weighted F-measure sees it.

    weights: uint32 (h, w) in fixed point, 0 on the object. near: flat indices of background pixels
    about the object, in order. nearest: the object pixels nearest to them. box: top, bottom, left,
    right of the object, half open.
    """

    weights: np.ndarray
    near: np.ndarray
    nearest: np.ndarray
    box: tuple[int, int, int, int]


class PreparedMask:
    """A mask with the work done that does not depend on the map; it is not changed afterwards.

    Made from a mask of uint8 (h, w), foreground strictly above `threshold`, or of bool. Raises
    DataError for anything else, and for a mask of nothing but 0 and 1 as uint8.
    """

    def __init__(self, mask: np.ndarray, threshold: int = 128):
        if mask.ndim != 2 or not mask.size or mask.dtype not in (np.uint8, np.bool_):
            raise DataError(
                f"mask is {mask.dtype} {mask.shape}; it must be uint8 of (h, w), 0..255"
            )
        if mask.dtype == np.uint8:
            if mask.max() == 1:  # would silently count as empty
                raise DataError("mask holds only 0 and 1; foreground must be 255")
            mask = mask > threshold
        self.threshold = threshold
        self.pixels = np.ascontiguousarray(mask).view(np.uint8)  # 0 and 1, (h, w)

    @property
    def shape(self) -> tuple[int, int]:
        h, w = self.pixels.shape
        return h, w

    @property
    def size(self) -> int:
        return self.pixels.size

    @cached_property
    def _lines(self) -> tuple[np.ndarray, np.ndarray]:
        from lpmoe_bench.metrics.counting import count_lines

        return count_lines(self.pixels)

    @cached_property
    def foreground(self) -> int:
        """Number of object pixels."""
        return int(self._lines[0].sum())

    @property
    def mixed(self) -> bool:
        """Whether there are both object and background."""
        return 0 < self.foreground < self.size

    @cached_property
    def corner(self) -> tuple[int, int]:
        """Rows above and columns left of the point where the S-measure's quadrants meet.

        It is the object's centroid, rounded half to even, plus 1 as MATLAB counts. A mask that is
        empty or full has one quadrant.
        """
        if not self.mixed:
            return self.shape
        centre = (int(line @ np.arange(len(line))) / self.foreground for line in self._lines)
        row, column = (round(place) + 1 for place in centre)
        return row, column

    @property
    def empty_quadrant(self) -> bool:
        """Whether a quadrant has no pixels although there are both object and background."""
        (row, column), (h, w) = self.corner, self.shape
        return self.mixed and (row == h or column == w)

    def quadrant(self, index: int) -> tuple[slice, slice]:
        """Return the rows and columns of a quadrant: left to right, then top to bottom."""
        row, column = self.corner
        rows = slice(0, row) if index < 2 else slice(row, None)
        return rows, slice(0, column) if index % 2 == 0 else slice(column, None)

    @cached_property
    def surroundings(self) -> Surroundings:
        """What the weighted F-measure needs; the mask must not be empty."""
        from lpmoe_bench.metrics.distance import nearest_pixels, weigh_background

        table, offsets, starts = _tables()
        weights, near, squares = weigh_background(self.pixels, table)
        nearest = nearest_pixels(self.pixels, near, squares, offsets, starts)
        rows, columns = (np.flatnonzero(line) for line in self._lines)
        box = (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
        return Surroundings(weights, near, nearest, box)

    @cached_property
    def weight_sum(self) -> float:
        """Sum of the weights, in their fixed-point unit."""
        return float(self.surroundings.weights.sum(dtype=np.uint64))

    def everything(self) -> PreparedMask:
        """Do all the work now, so that threads that share the mask only read it; return self."""
        self._done = (self.corner, self.weight_sum if self.foreground else 0.0)
        return self


@cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from lpmoe_bench.metrics.distance import nearest_offsets, weight_table

    return weight_table(), *nearest_offsets()
