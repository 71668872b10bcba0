"""lpmoe-bench: train, score and compare PEFT methods for segmentation and detection.

The functions of `lpmoe_bench.api` are offered here and imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpmoe_bench.api import (
        Prediction,
        check,
        compare,
        evaluate,
        load_model,
        predict,
        run,
        score,
    )
    from lpmoe_bench.records.frame import load_records

__version__ = "0.2.0.dev0"
__all__ = [
    "Prediction",
    "check",
    "compare",
    "evaluate",
    "load_model",
    "load_records",
    "predict",
    "run",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("lpmoe_bench.api"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
