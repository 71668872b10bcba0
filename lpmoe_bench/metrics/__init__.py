"""Scores of segmentation maps: what they mean, and one interface that computes them.

The facts load at once; what computes is imported when it is first asked for, so that a table or
`--help` does not wait for numpy, scipy and OpenCV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .facts import METRICS, Metric, get_metric
from .protocols import PROTOCOLS, Protocol, get_protocol, list_protocols

if TYPE_CHECKING:
    from .reference import quick_score
    from .scorer import Scorer, ScoreResult

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Metric",
    "Protocol",
    "ScoreResult",
    "Scorer",
    "get_metric",
    "get_protocol",
    "list_protocols",
    "quick_score",
]


def __getattr__(name: str) -> Any:
    if name in ("Scorer", "ScoreResult"):
        from . import scorer

        return getattr(scorer, name)
    if name == "quick_score":
        from .reference import quick_score

        return quick_score
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
