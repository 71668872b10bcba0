"""How a kernel is compiled: without the interpreter lock, and once for all later starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with numba on its first call and keep the result on disk.

    Floating-point operations keep their order, so that every machine rounds alike. The cache notes
    changes of the kernel's own file only: a kernel calls nothing from another file.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder for the cache can be written
        return njit(nogil=True)(function)
