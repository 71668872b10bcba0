"""Names beside points, placed so that none lies over another, a point or the edge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lpmoe_bench.report.drawing import Anchor, text_width

SIZE = 11
HEIGHT = 12.0  # of a line of words
NEAR, FAR = (
    (9.0, 15.0, 24.0, 36.0, 50.0),
    12.0,
)  # distances tried; beyond FAR a line leads to the point


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


class Label(NamedTuple):
    """Where the words start, have their middle or end, and the end of the leading line, if any."""

    x: float
    y: float
    anchor: Anchor
    lead: tuple[float, float] | None


def place(
    points: Sequence[tuple[float, float, str]], area: Box, blocked: Sequence[Box]
) -> list[Label | None]:
    """Return a place for the name of each point, the first ones first; None where none is free.

    points: x, y and name. blocked: what no name may cover, such as the points themselves.
    """
    taken, found = list(blocked), []
    for x, y, name in points:
        width = text_width(name, SIZE)
        label = None
        for distance in NEAR:
            for box, anchor, end in _around(x, y, width, distance):
                inside = box.left >= area.left and box.right <= area.right
                inside = inside and box.top >= area.top and box.bottom <= area.bottom
                if inside and not any(box.meets(other) for other in taken):
                    at = {"start": box.left, "end": box.right}.get(anchor, x)
                    lead = end if distance > FAR else None
                    label = Label(at, box.bottom - 2.5, anchor, lead)
                    taken.append(box)
                    break
            if label:
                break
        found.append(label)
    return found


def _around(
    x: float, y: float, width: float, distance: float
) -> Iterator[tuple[Box, Anchor, tuple[float, float]]]:
    """Yield boxes of a name around a point, the usual places first, and the side towards it.

    Words are anchored on that side: their width is an estimate.
    """
    half, slant = HEIGHT / 2, distance * 0.75
    sides: tuple[tuple[Anchor, float, float], ...] = (
        ("start", distance, 0),
        ("end", -distance, 0),
        ("middle", 0, -distance - half + 2),
        ("middle", 0, distance + half - 2),
        ("start", slant, -slant),
        ("start", slant, slant),
        ("end", -slant, -slant),
        ("end", -slant, slant),
    )
    for anchor, right, down in sides:
        at = x + right
        left = {"start": at, "end": at - width}.get(anchor, at - width / 2)
        top = y + down - half
        near = top + HEIGHT if down < -half else top if down > half else y + down
        yield Box(left, top, left + width, top + HEIGHT), anchor, (at, near)
