from __future__ import annotations

from typing import Any


def plain(value: Any) -> str:
    """Write the value of a setting as people type it."""
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
