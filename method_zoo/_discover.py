"""Classes found by listing a package: one a file, under the file's name."""

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def names_in(package: ModuleType) -> list[str]:
    """Return the names of a package's files without a leading underscore."""
    found = pkgutil.iter_modules(package.__path__)
    return sorted(module.name for module in found if not module.name.startswith("_"))


def class_in(package: ModuleType, name: str, base: type[T]) -> type[T]:
    """Return the only subclass of `base` in the file of that name, which must be there."""
    module = importlib.import_module(f"{package.__name__}.{name}")
    items = [item for item in vars(module).values() if isinstance(item, type)]
    found = [i for i in items if issubclass(i, base) and i.__module__ == module.__name__]
    assert len(found) == 1, f"{module.__name__} must define exactly one {base.__name__}"
    return found[0]
