"""Parameter-efficient fine-tuning methods on one frozen vision transformer.

Importing the package imports no torch: names are read from its files, a method's module is
imported when it is asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ._discover import class_in, names_in
from ._errors import ZooError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._method import Method

__all__ = [
    "ZooError",
    "check_backbone_name",
    "create_backbone",
    "get_method",
    "list_methods",
    "method_name",
]

ALIASES = {"parax": "adaroute"}  # the paper's second version renamed it


def list_methods() -> list[str]:
    """Return the names of all methods: the files of this package without a leading underscore."""
    return names_in(sys.modules[__name__])


def method_name(name: str) -> str:
    """Return the zoo's own name of a method that papers call by two; others as they are."""
    return ALIASES.get(name, name)


def get_method(name: str) -> type[Method]:
    """Return the method class of that name; raises ZooError for an unknown one."""
    name = method_name(name)
    if name not in list_methods():  # before torch is imported for the base class
        raise ZooError(unknown("method", name, list_methods()))
    from ._method import Method

    return class_in(sys.modules[__name__], name, Method)


def create_backbone(
    name: str,
    state=None,
    pos_antialias: bool | None = None,
    size: tuple[int, int] | None = None,
    **kwargs,
):
    """Build a frozen backbone; see method_zoo._create.create_backbone."""
    from ._create import create_backbone as create

    return create(name, state, pos_antialias, size, **kwargs)


def check_backbone_name(name: str, also: Iterable[str] = ()) -> None:
    """Raise ZooError for an unknown name; see method_zoo._create.check_backbone_name."""
    from ._create import check_backbone_name as check

    check(name, also)
