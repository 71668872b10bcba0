"""Methods and decoders by name: their classes, and options checked against their signatures.

A class's signature is its config. Names are read from files, so nothing is imported to list them.
Names of others' methods come after them: see `method_zoo.plugins`.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ZooError
from .plugins import find_plugin, load_plugin, plugin_names
from .source import SourceFacts, read_source

if TYPE_CHECKING:
    from .method import Method

T = TypeVar("T")
ALIASES = {"parax": "adaroute"}  # the paper's second version renamed it
# Files of this package that are none.
NO_METHODS = ("errors", "method", "options", "plugins", "source")


def zoo_methods() -> list[str]:
    """Return the names of the methods of this package, sorted.

    They are read from its files, so no method is imported.
    """
    return names_in(_package(), NO_METHODS)


def list_methods() -> list[str]:
    """Return the names of all methods, those of plug-ins last; no method is imported.

    Returns:
        Names that `get_method` and `--method` take.
    """
    return [*zoo_methods(), *plugin_names("methods", taken_names())]


def taken_names() -> list[str]:
    """Return every name that no plug-in's method may have: the zoo's own, and older ones."""
    return [*zoo_methods(), *ALIASES]


def _package() -> ModuleType:
    return sys.modules[__name__.rpartition(".")[0]]


def method_name(name: str) -> str:
    """Return the zoo's own name of a method that papers call by two names.

    Args:
        name: any name, also an unknown one, which is returned as it is.

    Returns:
        The name under which records keep the method.
    """
    return ALIASES.get(name, name)


def get_method(name: str) -> type[Method]:
    """Return the method class of that name.

    Args:
        name: one of `list_methods`, or another name that a paper uses.

    Returns:
        The class. It is built from a backbone and keyword options.

    Raises:
        ZooError: The name is unknown; the closest ones are named. Or it is that of a plug-in that
            cannot be used; why is said.
    """
    name = method_name(name)
    # Before torch is imported for the base class.
    plugin = find_plugin("methods", name, taken_names())
    if plugin is None and name not in zoo_methods():
        raise ZooError.unknown("method", name, list_methods())
    from .method import Method

    return load_plugin(plugin, Method) if plugin else class_in(_package(), name, Method)


def method_facts(name: str) -> SourceFacts:
    """Return options and class attributes of a method; of the zoo's own without torch.

    Raises ZooError as `get_method` does.
    """
    if (name := method_name(name)) in zoo_methods():
        return read_source(_package(), name)
    cls = get_method(name)
    return SourceFacts(signature_options(cls), vars_of(cls))


def names_in(package: ModuleType, without: Iterable[str] = ()) -> list[str]:
    """Return the names of a package's files, less those `without`; folders do not count."""
    found = pkgutil.iter_modules(package.__path__)
    return sorted(one.name for one in found if not one.ispkg and one.name not in without)


def class_in(package: ModuleType, name: str, base: type[T]) -> type[T]:
    """Return the only subclass of `base` in the file of that name, which must be there."""
    module = importlib.import_module(f"{package.__name__}.{name}")
    items = [item for item in vars(module).values() if isinstance(item, type)]
    # What the file imports, such as its base, is not its own.
    found = [i for i in items if issubclass(i, base) and i.__module__ == module.__name__]
    assert len(found) == 1, f"{module.__name__} must define exactly one {base.__name__}"
    return found[0]


# Options of methods and decoders: a class's signature is its config, checked against it.

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}


def signature_options(cls: type) -> dict[str, object]:
    """Return the options of a class: the parameters of its constructor that have a default.

    Args:
        cls: a method or a decoder.

    Returns:
        {option: default}.
    """
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def vars_of(cls: type) -> dict[str, Any]:
    """Return the class attributes of a class, as `read_source` reads them from its file."""
    return {name: value for one in reversed(cls.__mro__) for name, value in vars(one).items()}


def check_options(cls: type, title: str, options: dict[str, object]) -> dict[str, object]:
    """Check options against the constructor of a class and fill its defaults in.

    Args:
        cls: a method or a decoder.
        title: what the class is called in an error.
        options: the options that were given, by name.

    Returns:
        All options of the class, by name.

    Raises:
        ZooError: An option is unknown, of another type than its default, or no finite number.
    """
    return check_values(signature_options(cls), title, options)


def check_values(
    known: dict[str, object], title: str, options: dict[str, object]
) -> dict[str, object]:
    """Fill the known defaults in; raises ZooError for unknown or mistyped options.

    A number must be finite: nan passes every comparison with a limit that it should fail.
    """
    for name, value in options.items():
        if name not in known:
            raise ZooError.unknown(f"option of {title}", name, known)
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
