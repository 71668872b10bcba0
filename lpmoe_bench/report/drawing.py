"""What a plot is made of: lines, dots and words in pixels, whatever file they end up in."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Literal

INK, SOFT, GRID = "#1f2328", "#57606a", "#e4e7eb"
FRONT, OTHER = "#0a5cad", "#6b7280"
# Okabe and Ito's colours, darkened where they are faint on white, without yellow.
COLOURS = ("#0072B2", "#D55E00", "#008562", "#B3488A", "#2A8FCB", "#A66F00", "#1f2328")
DASHES = ("", "7 3", "2 3", "9 3 2 3")

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]
WIDE = 1.12  # system typefaces differ: an estimate on the safe side


@dataclass(frozen=True)
class Line:
    """A line through points. dash: lengths of strokes and gaps."""

    points: tuple[Point, ...]
    colour: str = INK
    width: float = 1.0
    dash: str = ""


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    radius: float
    fill: str
    edge: str


@dataclass(frozen=True)
class Words:
    """Text whose baseline starts, has its middle or ends at a point."""

    x: float
    y: float
    text: str
    size: float = 11
    anchor: Anchor = "start"
    colour: str = INK
    bold: bool = False
    halo: bool = False  # a white edge, for words that lie over lines


@dataclass(frozen=True)
class Mark:
    """Shapes of one method: `title` shows where the pointer rests, `name` is what filters read."""

    shapes: tuple[Line | Dot | Words, ...]
    title: str
    name: str


@dataclass(frozen=True)
class Again:
    """Shapes that stand in the page once under this name, and are shown here too."""

    name: str


Shape = Line | Dot | Words | Mark | Again


@dataclass
class Drawing:
    """Shapes on white, in the order they are drawn; `title` says in words what is seen."""

    width: float
    height: float
    title: str
    shapes: list[Shape] = field(default_factory=list)


def text_width(text: str, size: float) -> float:
    """Estimate the width of words in a plain typeface, in pixels."""
    return sum(_width(sign) for sign in text) * size * WIDE


def shorten(text: str, size: float, width: float) -> str:
    """Cut the end off a text that is wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _width(sign: str) -> float:
    if unicodedata.east_asian_width(sign) in "WF":
        return 1.0
    if sign in "ijl.,:;'|!()[] ":
        return 0.32
    if sign in "mwMW%@":
        return 0.86
    return 0.68 if sign.isupper() else 0.56
