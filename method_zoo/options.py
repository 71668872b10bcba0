"""Methods and decoders by name: their classes, and options checked against their signatures.

A class's signature is its config. Names are read from files, so nothing is imported to list them.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import math
import pkgutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .errors import ZooError

if TYPE_CHECKING:
    from .method import Method

T = TypeVar("T")
ALIASES = {"parax": "adaroute"}  # the paper's second version renamed it
NO_METHODS = ("errors", "method", "options")  # files of this package that are none


def list_methods() -> list[str]:
    """Return the names of all methods, sorted.

    They are read from the files of this package, so no method is imported.

    Returns:
        Names that `get_method` and `--method` take.
    """
    return names_in(sys.modules[__name__.rpartition(".")[0]], NO_METHODS)


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
        ZooError: The name is unknown; the closest ones are named.
    """
    name = method_name(name)
    if name not in list_methods():  # before torch is imported for the base class
        raise ZooError.unknown("method", name, list_methods())
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


class SourceFacts(NamedTuple):
    """What the source of a class says, read without importing it.

    options: its parameters that have a default. attributes: the class attributes that are plain
    values, its bases' too.
    """

    options: dict[str, object]
    attributes: dict[str, Any]


def read_source(package: ModuleType, name: str, base: str = "Method") -> SourceFacts:
    """Read the class of a file of a package, `base` or derived from it, without torch.

    A misspelt option can so be refused at once. What computes takes the class itself; a test holds
    both against each other.
    """
    chain = _bases(Path(package.__path__[0]), package.__name__, name, base)
    attributes: dict[str, Any] = {}
    options: dict[str, object] | None = None
    for cls in chain:  # the most derived one first: what it says holds
        for node in cls.body:
            target, value = _assignment(node)
            if target and value is not None:
                # What has to be computed is left to the class itself.
                with suppress(ValueError):
                    attributes.setdefault(target, ast.literal_eval(value))
            if isinstance(node, ast.FunctionDef) and node.name == "__init__" and options is None:
                options = _defaults(node.args)
    return SourceFacts(options or {}, attributes)


def vars_of(cls: type) -> dict[str, Any]:
    """Return the class attributes of a class, as `read_source` reads them from its file."""
    return {name: value for one in reversed(cls.__mro__) for name, value in vars(one).items()}


def _bases(folder: Path, package: str, name: str, base: str) -> list[ast.ClassDef]:
    """Return a file's class of the line of `base`, and its bases up to that, in this order."""
    tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    places = {
        alias.name: (node.module or "").rpartition(".")[2]
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.level == 1 or node.module)
        for alias in node.names
        if node.level == 1 or str(node.module).startswith(package)
    }

    def line(cls: ast.ClassDef) -> list[ast.ClassDef] | None:
        if cls.name == base:
            return [cls]
        for parent in cls.bases:
            known = parent.id if isinstance(parent, ast.Name) else ""
            if known in classes and (above := line(classes[known])):
                return [cls, *above]
            if places.get(known):
                return [cls, *_bases(folder, package, places[known], base)]
        return None

    return next((found for cls in classes.values() if (found := line(cls))), [])


def _assignment(node: ast.stmt) -> tuple[str, ast.expr | None]:
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return "", None
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    return (target.id, node.value) if isinstance(target, ast.Name) else ("", None)


def _defaults(args: ast.arguments) -> dict[str, object]:
    # Python keeps defaults apart from the names: those of positional ones belong to the last names.
    with_default = args.args[len(args.args) - len(args.defaults) :]
    pairs = [*zip(with_default, args.defaults, strict=True)]
    pairs += [(a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d]
    return {arg.arg: ast.literal_eval(default) for arg, default in pairs}


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
