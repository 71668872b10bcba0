"""Scores of segmentation maps: what they mean, and one interface that computes them.

The facts load at once; what computes is imported when it is first asked for, so that a table or
`--help` does not wait for numpy, and nothing that does not compute waits for numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .facts import METRICS, Metric, get_metric
from .protocols import PROTOCOLS, Protocol, get_protocol, list_protocols

if TYPE_CHECKING:
    from .engine import prepare_mask, quick_score
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
    "prepare_mask",
    "quick_score",
]


def __getattr__(name: str) -> Any:
    if name in ("Scorer", "ScoreResult"):
        from . import scorer

        return getattr(scorer, name)
    if name in ("prepare_mask", "quick_score"):
        from . import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
