"""What the source of a method or decoder says of it, read as a tree: nothing is imported for it."""

from __future__ import annotations

import ast
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple


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
    chain = class_line(Path(package.__path__[0]), package.__name__, name, base)
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


def class_line(
    folder: Path, package: str, name: str, base: str, wanted: str = ""
) -> list[ast.ClassDef]:
    """Return a file's class of the line of `base`, and its bases up to that, in this order.

    wanted: the name of the class; without it the first of that line.
    """
    tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    places = {
        # What the package itself offers, such as its base class, stands in the file of the base.
        alias.name: base.lower() if node.module == package else str(node.module).rpartition(".")[2]
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
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
                return [cls, *class_line(folder, package, places[known], base, known)]
        return None

    asked = [classes[wanted]] if wanted in classes else classes.values()
    return next((found for cls in asked if (found := line(cls))), [])


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
