"""Methods and decoders by name: their classes, and options checked against their signatures.

A class's signature is its config. Names are read from files, so nothing is imported to list them.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from .errors import ZooError, unknown

if TYPE_CHECKING:
    from .method import Method

# Classes found by listing a package: one a file, under the file's name.


T = TypeVar("T")


ALIASES = {"parax": "adaroute"}  # the paper's second version renamed it
NO_METHODS = ("errors", "method", "options")  # files of this package that are none


def list_methods() -> list[str]:
    """Return the names of all methods: the files of this package, less what they are built on."""
    return names_in(sys.modules[__name__.rpartition(".")[0]], NO_METHODS)


def method_name(name: str) -> str:
    """Return the zoo's own name of a method that papers call by two; others as they are."""
    return ALIASES.get(name, name)


def get_method(name: str) -> type[Method]:
    """Return the method class of that name.

    Raises:
        ZooError: the name is unknown; the closest ones are named.
    """
    name = method_name(name)
    if name not in list_methods():  # before torch is imported for the base class
        raise ZooError(unknown("method", name, list_methods()))
    from .method import Method

    return class_in(sys.modules[__name__.rpartition(".")[0]], name, Method)


def names_in(package: ModuleType, without: Iterable[str] = ()) -> list[str]:
    """Return the names of a package's files, less those `without`; folders do not count."""
    found = pkgutil.iter_modules(package.__path__)
    return sorted(one.name for one in found if not one.ispkg and one.name not in without)


def class_in(package: ModuleType, name: str, base: type[T]) -> type[T]:
    """Return the only subclass of `base` in the file of that name, which must be there."""
    module = importlib.import_module(f"{package.__name__}.{name}")
    items = [item for item in vars(module).values() if isinstance(item, type)]
    found = [i for i in items if issubclass(i, base) and i.__module__ == module.__name__]
    assert len(found) == 1, f"{module.__name__} must define exactly one {base.__name__}"
    return found[0]


# Options of methods and decoders: a class's signature is its config, checked against it.


KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}


def signature_options(cls: type) -> dict[str, object]:
    """Return the options of a class and their defaults: the parameters that have a default."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def check_options(cls: type, title: str, options: dict[str, object]) -> dict[str, object]:
    """Fill the defaults in and return all options; raises ZooError for unknown or mistyped ones.

    A number must be finite: nan passes every comparison with a limit that it should fail.
    """
    known = signature_options(cls)
    for name, value in options.items():
        if name not in known:
            raise ZooError(unknown(f"option of {title}", name, known))
        default = known[name]
        whole_for_float = type(default) is float and type(value) is int
        if type(value) is not type(default) and not whole_for_float:
            raise ZooError(
                f"option {name} of {title} is {value!r}; "
                f"it takes {KINDS.get(type(default), 'a value')}, such as {default!r}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ZooError(
                f"option {name} of {title} is {value}; "
                f"it takes a finite number, such as {default!r}"
            )
    given = {k: float(v) if type(known[k]) is float else v for k, v in options.items()}  # type: ignore[arg-type]
    return known | given
