"""Which code computed a record: a digest of the modules that method, decoder and loss are made of.

The digest is of syntax trees without docstrings, comments and layout, so that only what can move a
number moves it. It stands in the record and never in the fingerprint: the same question has the
same fingerprint, and whoever finds an answer of other code is told so.
"""

import ast
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lpmoe_bench.config.settings import LOSSES as OWN_LOSSES
from lpmoe_bench.records.model import CodeFacts, Record
from method_zoo.plugins import Plugin, find_plugin

# Beside method, decoder and loss: what opens the backbone, and what joins the parts to a model.
ALWAYS = ("method_zoo.backbones.create", "lpmoe_bench.model.segmenter")
METHODS, DECODERS = "method_zoo", "lpmoe_bench.model.decoders"
LOSSES = "lpmoe_bench.model.losses"
INSIDE = ("method_zoo", "lpmoe_bench.model")
# They compute nothing: sentences of errors, names and options, and files of weights, whose digests
# stand in the record by themselves.
WITHOUT = ("method_zoo.errors", "method_zoo.options", f"{DECODERS}.names")
WITHOUT_PACKAGES = ("lpmoe_bench.model.weights",)
DIGITS = 16  # of a module's digest


def code_facts(method: str, decoder: str, loss: str = "") -> CodeFacts | None:
    """Return the digest of the code that a run of this method and decoder computes with.

    Args:
        method: its name in the zoo, or that of a plug-in.
        decoder: likewise.
        loss: likewise; all of our own losses count, whichever it is.

    Returns:
        The digest, and that of each module: of the method, the decoder, all losses, what opens
        backbones, what joins them, and all that these import inside `method_zoo` and
        `lpmoe_bench.model`, less what reads weights and names. Of a plug-in the files of its
        package, or its file and what that imports from beside it. None where one of them is neither
        here nor there, such as a method that is not installed.
    """
    modules: dict[str, str] = {}
    left = [LOSSES, *ALWAYS]
    for kind, package, name in (("methods", METHODS, method), ("decoders", DECODERS, decoder)):
        if _file(f"{package}.{name}"):
            left.append(f"{package}.{name}")
        elif plugin := find_plugin(kind, name, ()):
            modules |= _of_plugin(plugin)
        else:
            return None
    if plugin := find_plugin("losses", loss, OWN_LOSSES) if loss else None:
        modules |= _of_plugin(plugin)
    while left:
        name = left.pop()
        # Modules import each other in circles: each is read once.
        if name in modules or name in WITHOUT or name.startswith(WITHOUT_PACKAGES):
            continue
        digest, imported = _read(name)
        modules[name] = digest
        left.extend(imported)
    # Sorted by name: the order in which imports were followed does not matter.
    text = "".join(f"{name} {modules[name]}\n" for name in sorted(modules))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return CodeFacts(digest=digest, modules=dict(sorted(modules.items())))


def code_of_record(record: Record) -> CodeFacts | None:
    """Return the digest that a record's method and decoder have in this program."""
    if not record.decoder:
        return None
    loss = str((record.config.get("train") or {}).get("loss") or "")
    return code_facts(record.method.name, record.decoder.name, loss)


def is_other_code(record: Record) -> bool:
    """Whether a record was made by code that this program does not have; not where nobody knows."""
    return record.code is not None and record.code != code_of_record(record)


def changed_code(record: Record) -> list[str]:
    """Say which modules of a record's code are others here; nothing where it tells of none."""
    if record.code is None or not is_other_code(record):
        return []
    return code_changes(record.code, code_of_record(record))


def code_changes(there: CodeFacts, here: CodeFacts | None) -> list[str]:
    """Say which modules differ, each in a word or two, such as `method_zoo.lora changed`."""
    if here is None:
        return ["its method or decoder is not in this program"]
    changes = []
    for name in sorted({*there.modules, *here.modules}):
        if name not in here.modules:
            changes.append(f"{name} is used no more")
        elif name not in there.modules:
            changes.append(f"{name} is new")
        elif there.modules[name] != here.modules[name]:
            changes.append(f"{name} changed")
    return changes


def syntax_digest(source: str) -> str:
    """Return 64 hex digits of what source code does: comments, docstrings and layout do not count.

    Raises:
        SyntaxError: it is no Python.
    """
    return _digest_of(ast.parse(source))


def _digest_of(tree: ast.AST) -> str:
    return hashlib.sha256("\n".join(_words(tree)).encode()).hexdigest()


def _words(node: ast.AST) -> Iterator[str]:
    """Yield a tree as words. `ast.dump` is not used: versions of Python print trees differently."""
    yield f"({type(node).__name__}"
    body = getattr(node, "body", None)
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and body
    for field, value in ast.iter_fields(node):
        # What is absent or empty is left out: newer versions of Python have fields of their own.
        if value is None or value == [] or field in ("type_comment", "kind"):
            continue
        yield f".{field}"
        items: list[Any] = value if isinstance(value, list) else [value]
        if documented and field == "body" and _is_text(items[0]):
            items = items[1:]
        for item in items:
            if isinstance(item, ast.AST):
                yield from _words(item)
            else:
                yield f"{type(item).__name__} {item!r}"
    yield ")"


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@cache
def _read(name: str) -> tuple[str, list[str]]:
    """Return the digest of a module and the modules of ours that it imports."""
    path = _file(name)
    assert path is not None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return _digest_of(tree)[:DIGITS], [*_ours(_imports(tree.body, package))]


def _of_plugin(plugin: Plugin) -> dict[str, str]:
    """Return the digests of a plug-in's files, none of which is imported."""
    if plugin.file:
        base, files, left = plugin.file.parent, set[Path](), [plugin.file]
        while left:
            path = left.pop()
            if path in files:
                continue
            files.add(path)
            tree = _parsed(path)
            for name in _imports(tree.body, "") if tree else ():
                near = base / name.partition(".")[0]
                if (near / "__init__.py").is_file():
                    left += near.rglob("*.py")
                elif near.with_suffix(".py").is_file():
                    left.append(near.with_suffix(".py"))
    else:
        spec = find_spec(plugin.place.partition(":")[0].partition(".")[0])
        folders = list(spec.submodule_search_locations or ()) if spec else []
        files = {path for folder in folders for path in Path(folder).rglob("*.py")}
        if spec and spec.origin and not folders:
            files = {Path(spec.origin)}
        base = Path(folders[0] if folders else spec.origin if spec and spec.origin else ".").parent
    return {
        f"plug-in {plugin.name}: {Path(os.path.relpath(path, base)).as_posix()}": _of_file(path)
        for path in files
    }


def _parsed(path: Path) -> ast.Module | None:
    """Return the syntax tree of a file; None for no Python, such as a template in a package."""
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None


def _of_file(path: Path) -> str:
    tree = _parsed(path)
    whole = _digest_of(tree) if tree else hashlib.sha256(path.read_bytes()).hexdigest()
    return whole[:DIGITS]


def _imports(nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
    """Yield what code imports, inside functions too; not what is for type checkers alone."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the package itself, each further dot one package up.
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            parts = [*(base if node.level else []), *([node.module] if node.module else [])]
            whole = ".".join(parts)
            yield from (f"{whole}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _imports(node.orelse, package)
        else:
            yield from _imports(ast.iter_child_nodes(node), package)


def _ours(names: Iterable[str]) -> Iterator[str]:
    """Yield the modules that names stand in: a name may be of a module or of something in it."""
    for name in names:
        # What `method_zoo` itself gives out comes from modules that every method imports.
        for one in (name, name.rpartition(".")[0]):
            if one.startswith(tuple(f"{inside}." for inside in INSIDE)) and _file(one):
                yield one
                break


@cache
def _file(name: str) -> Path | None:
    """Return the file of a module of ours, found without importing it."""
    if not all(part.isidentifier() for part in name.split(".")):  # a name from a record
        return None
    root, _, rest = name.partition(".")
    package = sys.modules.get(root)
    spec = package.__spec__ if package else find_spec(root)
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in places:
        path = Path(place, *rest.split("."))
        for one in (path.with_suffix(".py"), path / "__init__.py"):
            if one.is_file():
                return one
    return None
