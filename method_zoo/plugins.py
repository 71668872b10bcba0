"""Methods, decoders and losses of others: found without importing them, loaded one by one.

A plug-in is an entry point of an installed package, in one of `GROUPS`, or stands in a file that
the environment variable LPMOE_BENCH_PLUGINS names. A file gives its one method, and its one
decoder, the name of the file; METHODS, DECODERS and LOSSES in it give names of their own, such as
`LOSSES = {"hausdorff": hausdorff_loss}`.

What is here never takes the name of something that exists. One that is broken costs itself alone:
its fault is a sentence, said by whoever asks for it by name.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from .errors import WrongOutputError, ZooError
from .source import class_line

GROUPS = {
    "methods": "lpmoe_bench.methods",
    "decoders": "lpmoe_bench.decoders",
    "losses": "lpmoe_bench.losses",
}
SINGULAR = {"methods": "method", "decoders": "decoder", "losses": "loss"}
VARIABLE = "LPMOE_BENCH_PLUGINS"  # files, divided as folders are in PATH
BASES = {"methods": "Method", "decoders": "Decoder"}
GIVEN = {"methods": ("backbone",), "decoders": ("inputs", "classes")}  # what is no option
RESERVED = ("decoder", "runtime", "train")  # sections of --set, where names of methods stand too
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
MOST_BYTES = 2**21  # of a file: more is no source that a person has written
PLAIN = (bool, int, float, str)


class Plugin(NamedTuple):
    """Something of others that has a name here.

    Attributes:
        kind: methods, decoders or losses.
        name: what `--method` and its kin take.
        place: module:attribute of a package, or the attribute of a file.
        package, version: of the installed package; empty for a file.
        file: the file; None for a package.
        trouble: why it cannot be used, as far as that is known without importing it.
    """

    kind: str
    name: str
    place: str
    package: str = ""
    version: str = ""
    file: Path | None = None
    trouble: str = ""

    @property
    def origin(self) -> str:
        """The file's name, or package and version."""
        return self.file.name if self.file else f"{self.package} {self.version}".strip()

    def refusal(self, trouble: str) -> ZooError:
        """Return the error that says why it cannot be used."""
        return ZooError(
            f"{SINGULAR[self.kind]} '{self.name}' of {self.origin} cannot be used: {trouble}"
        )


class PluginFacts(NamedTuple):
    """What a record says of a plug-in that a run used; `digest` is a SHA-256 of its source."""

    kind: str
    name: str
    package: str
    version: str
    source: str
    digest: str


# What there is, without an import.


def plugin_files() -> list[Path]:
    """Return the files that LPMOE_BENCH_PLUGINS names, in their order."""
    return list(map(Path, filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))))


def add_plugin_file(path: Path) -> Path:
    """Add a file to LPMOE_BENCH_PLUGINS, so that processes started from here know it too.

    Args:
        path: of the file.

    Returns:
        The whole path.

    Raises:
        ZooError: The file cannot be read, or holds no plug-in.
    """
    whole = Path(os.path.abspath(path.expanduser()))
    if os.pathsep in str(whole):
        raise ZooError(
            f"plug-in {path} has '{os.pathsep}' in its path, which divides files; move it"
        )
    for one in read_plugin_file(whole):
        if one.trouble:
            raise one.refusal(one.trouble)
    if whole not in (known := plugin_files()):
        os.environ[VARIABLE] = os.pathsep.join(map(str, [*known, whole]))
    return whole


def find_plugins(kind: str, own: Iterable[str]) -> list[Plugin]:
    """Return the plug-ins of a kind, also those with trouble, sorted by name; imports none.

    Args:
        kind: methods, decoders or losses.
        own: the names that exist without plug-ins, which no plug-in may take.
    """
    scanned = _scan(os.environ.get(VARIABLE, ""), tuple(sys.path))
    of_kind = [one for one in scanned if one.kind == kind]
    own, named = set(own), [one.name for one in of_kind]
    found = []
    for one in of_kind:
        trouble = one.trouble or _name_trouble(one, own)
        if not trouble and named.count(one.name) > 1:
            others = ", ".join(str(x.file or x.origin) for x in of_kind if x.name == one.name)
            trouble = f"several plug-ins have this name ({others}); keep one of them"
        found.append(one._replace(trouble=trouble))
    return sorted(found, key=lambda one: (one.name, one.origin))


def plugin_names(kind: str, own: Iterable[str]) -> list[str]:
    """Return the names of the plug-ins of a kind that have no trouble; imports none."""
    return [one.name for one in find_plugins(kind, own) if not one.trouble]


def find_plugin(kind: str, name: str, own: Iterable[str]) -> Plugin | None:
    """Return the plug-in of that name, None where there is none or the name is an own one.

    Raises ZooError where it cannot be used.
    """
    own = set(own)
    found = next((one for one in find_plugins(kind, own) if one.name == name), None)
    if found is None or name in own:
        return None
    if found.trouble:
        raise found.refusal(found.trouble)
    return found


def _name_trouble(one: Plugin, own: set[str]) -> str:
    if one.name in own:
        return f"a {SINGULAR[one.kind]} of this name exists; give yours another one"
    if not NAME.fullmatch(one.name):
        rename = "; rename the file" if one.file else ""
        return f"its name must be small letters, digits and _, with a letter first{rename}"
    if one.name in RESERVED:
        return "a section of --set has this name; give yours another one"
    return ""


@lru_cache(maxsize=4)
def _scan(files: str, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    # By their arguments alone the cache knows when to look again; both are read inside.
    return (*_of_packages(), *(one for file in plugin_files() for one in read_plugin_file(file)))


def _of_packages() -> Iterator[Plugin]:
    from importlib import metadata  # half as long to import as the rest of the command line

    kinds, seen = {group: kind for kind, group in GROUPS.items()}, set()
    for package in metadata.distributions():
        try:
            # To parse the metadata of all packages takes far longer than to look for a word.
            if "lpmoe_bench." not in (package.read_text("entry_points.txt") or ""):
                continue
            name, version = package.metadata["Name"], package.version
            points = [point for point in package.entry_points if point.group in kinds]
        except Exception:  # a damaged package, which pip is there to tell about
            continue
        if name in seen:  # the first on the path is the one that Python imports
            continue
        seen.add(name)
        for point in points:
            whole = re.fullmatch(r"[\w.]+:[\w.]+", point.value.split("[")[0].strip())
            trouble = "" if whole else f"its entry point is {point.value!r}; write module:Class"
            place = whole[0] if whole else point.value
            yield Plugin(kinds[point.group], point.name, place, name, version, None, trouble)


# A file, read as a tree.


def read_plugin_file(path: Path) -> list[Plugin]:
    """Return what a file offers; one that cannot be read is a method with trouble."""

    def troubled(trouble: str) -> list[Plugin]:
        return [Plugin("methods", path.stem, "", file=path, trouble=trouble)]

    try:
        if path.suffix != ".py" or not path.is_file():
            what = "is no file that ends with .py" if path.exists() else "does not exist"
            return troubled(f"{path} {what}; name one of Python")
        if path.stat().st_size > MOST_BYTES:
            return troubled(f"{path} holds more than {MOST_BYTES // 2**20} MiB")
        tree = ast.parse(path.read_bytes())
        found = {kind: _declared(tree, kind) for kind in GROUPS}
        for kind, base in BASES.items():
            found[kind] = found[kind] or dict(zip([path.stem], _classes(tree, base), strict=False))
    except ValueError as error:  # which this module, or the parser, has worded
        return troubled(str(error))
    except (OSError, SyntaxError, RecursionError, MemoryError) as error:
        return troubled(_told(error))
    plugins = [
        Plugin(kind, name, place, file=path)
        for kind, names in found.items()
        for name, place in names.items()
    ]
    nothing = (
        "it holds no class that is derived from Method or Decoder, and neither METHODS, DECODERS "
        "nor LOSSES"
    )
    return plugins or troubled(nothing)


def _declared(tree: ast.Module, kind: str) -> dict[str, str]:
    """Return {name: attribute} of METHODS and its kin, as they stand in the file."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(one, ast.Name) and one.id == kind.upper() for one in targets):
            value = getattr(node, "value", None)
            if isinstance(value, ast.Dict):
                pairs = list(zip(value.keys, value.values, strict=True))
                if all(isinstance(k, ast.Constant) and isinstance(v, ast.Name) for k, v in pairs):
                    return {str(k.value): v.id for k, v in pairs}  # type: ignore[union-attr]
            raise ValueError(
                f"{kind.upper()} must stand in the file as plain names, such as "
                f'{kind.upper()} = {{"name": Thing}}'
            )
    return {}


def _classes(tree: ast.Module, base: str) -> list[str]:
    """Return the one public class of a file that is derived from `base`, or none.

    Raises ValueError for several.
    """
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    imported = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def derived(cls: ast.ClassDef, above: tuple[str, ...] = ()) -> bool:
        for parent in cls.bases:
            if isinstance(parent, ast.Attribute) and parent.attr == base:
                return True
            name = parent.id if isinstance(parent, ast.Name) else ""
            if name in classes and name not in above:
                if derived(classes[name], (*above, name)):
                    return True
            elif name in imported and _is_own(*imported[name], base):
                return True
        return False

    found = [name for name, cls in classes.items() if name[0] != "_" and derived(cls)]
    if len(found) > 1:
        raise ValueError(
            f"it holds several classes derived from {base} ({', '.join(found)}); begin the names "
            f"of those that are none by themselves with _, or name all in {base.upper()}S"
        )
    return found


def _is_own(module: str, name: str, base: str) -> bool:
    """Whether a class that a file imports is `base`, or one of ours that is derived from it."""
    root, _, leaf = module.rpartition(".")
    if name == base:
        return True
    if base != "Method" or root != __package__:
        return False
    folder = Path(__file__).parent
    if not (folder / f"{leaf}.py").is_file():
        return False
    return name in [cls.name for cls in class_line(folder, root, leaf, base)]


def read_docstring(plugin: Plugin) -> str:
    """Return the docstring of a plug-in's module, read without importing it; empty where none is
    found."""
    path = plugin.file or _module_file(plugin.place.partition(":")[0])
    try:
        return ast.get_docstring(ast.parse(path.read_bytes())) or "" if path else ""
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ""


def _module_file(module: str) -> Path | None:
    """Find the source of a module without importing the packages above it."""
    from importlib.machinery import PathFinder
    from importlib.util import find_spec

    top, *rest = module.split(".")
    try:
        spec = find_spec(top)  # imports nothing, having no dot
        for k in range(len(rest)):
            if spec is None or spec.submodule_search_locations is None:
                return None
            name = ".".join([top, *rest[: k + 1]])
            spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


# One plug-in, imported.

_LOADED: dict[Plugin, tuple[Any, str]] = {}  # with the digest of the source that was imported
_FILES: dict[Path, tuple[ModuleType, str]] = {}


def load_plugin(plugin: Plugin, base: type | None = None) -> Any:
    """Import a plug-in and check it.

    Args:
        plugin: as `find_plugin` found it.
        base: what its class must be derived from; None for a loss.

    Returns:
        The class or the loss.

    Raises:
        ZooError: It cannot be imported, or is not what it should be.
    """
    if plugin not in _LOADED:
        try:
            # What it prints would stand among the output of the command.
            with redirect_stdout(sys.stderr):
                found, digest = _from_file(plugin) if plugin.file else _from_package(plugin)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # an import may end the program: not this one
            raise plugin.refusal(_told(error)) from error
        wrong = _class_trouble(found, base, plugin) if base else _loss_trouble(found)
        if wrong:
            raise plugin.refusal(wrong)
        _LOADED[plugin] = found, digest
    return _LOADED[plugin][0]


def plugin_facts(plugin: Plugin) -> PluginFacts:
    """Return what a record says of a loaded plug-in; a path is told by its last name alone."""
    source = plugin.file.name if plugin.file else plugin.place
    digest = _LOADED[plugin][1]
    return PluginFacts(plugin.kind, plugin.name, plugin.package, plugin.version, source, digest)


def plugin_sources(plugin: Plugin) -> list[Path]:
    """Return the source files of a loaded plug-in: its file, or all of its package, sorted."""
    if plugin.file:
        return [plugin.file]
    top = sys.modules[plugin.place.partition(":")[0].partition(".")[0]]
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    if not folders:
        return [Path(top.__file__)] if top.__file__ else []
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def _from_file(plugin: Plugin) -> tuple[Any, str]:
    path = plugin.file
    assert path is not None
    if path not in _FILES:
        # From the very bytes that are hashed: a compiled file beside it could be of other ones.
        text = path.read_bytes()
        mark = hashlib.sha256(str(path).encode()).hexdigest()[:8]
        module = ModuleType(f"lpmoe_bench_plugin_{path.stem}_{mark}")
        module.__file__, module.__package__ = str(path), ""
        sys.modules[module.__name__] = module  # where dataclasses and pickle look for it
        try:
            exec(compile(text, str(path), "exec"), vars(module))
        except BaseException:
            del sys.modules[module.__name__]
            raise
        _FILES[path] = module, hashlib.sha256(text).hexdigest()
    module, digest = _FILES[path]
    return getattr(module, plugin.place), digest


def _from_package(plugin: Plugin) -> tuple[Any, str]:
    module, _, attributes = plugin.place.partition(":")
    found: Any = importlib.import_module(module)
    for name in attributes.split("."):
        found = getattr(found, name)
    digest, paths = hashlib.sha256(), plugin_sources(plugin)
    above = Path(os.path.commonpath(paths)).parent if paths else Path()
    for path in paths:
        text = path.read_bytes()
        digest.update(f"{path.relative_to(above).as_posix()}\0{len(text)}\0".encode() + text)
    return found, digest.hexdigest()


def _class_trouble(found: Any, base: type, plugin: Plugin) -> str:
    """Say what is wrong with a class; empty where it is right."""
    if not (isinstance(found, type) and issubclass(found, base)):
        return f"{plugin.place} is not derived from {base.__name__} of {base.__module__}"
    for attribute in ("title", "fidelity"):
        if not isinstance(text := getattr(found, attribute, None), str) or not text.strip():
            return f"class {found.__name__} needs a {attribute}, such as {attribute} = 'Mine'"
    if base.__name__ == "Decoder" and getattr(found, "reads", None) not in ("maps", "final"):
        return f"class {found.__name__} must say what it reads: 'maps' or 'final'"
    preset = getattr(found, "preset", {})
    if not isinstance(preset, dict) or not all(isinstance(v, int | float) for v in preset.values()):
        return f'preset is {preset!r}; write numbers by name, such as {{"lr": 1e-3}}'
    given = GIVEN[plugin.kind]
    parameters = list(inspect.signature(found.__init__).parameters.values())[1:]
    if len(parameters) < len(given) or any(
        one.default is not one.empty or one.kind is not one.POSITIONAL_OR_KEYWORD
        for one in parameters[: len(given)]
    ):
        return f"its constructor must begin with (self, {', '.join(given)})"
    for one in parameters[len(given) :]:
        if one.kind is not one.POSITIONAL_OR_KEYWORD or type(one.default) not in PLAIN:
            return (
                f"option {one} is none that a setting can hold; give it a default that is a "
                f"number, a name, true or false"
            )
    return ""


def _loss_trouble(found: Any) -> str:
    if not callable(found):
        return "it is no function of (logits, mask, counted)"
    try:
        inspect.signature(found).bind(None, None, None)
    except (TypeError, ValueError):
        return "it must take (logits, mask, counted), counted being None where all pixels count"
    return ""


# Faults of others as sentences.


def explain_fault(error: BaseException) -> str | None:
    """Return an error that came out of a plug-in's code as a sentence; None for any other.

    Args:
        error: as it was caught.
    """
    if isinstance(error, WrongOutputError):  # told where the output was taken, after its code
        for plugin, (found, _) in _LOADED.items():
            if found is error.owner:
                return (
                    f"{SINGULAR[plugin.kind]} '{plugin.name}' of {plugin.origin} {error.sentence}"
                )
        return None
    places = {plugin: [str(path) for path in plugin_sources(plugin)] for plugin in _LOADED}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        for plugin, paths in places.items():
            if frame.filename in paths:
                return (
                    f"{SINGULAR[plugin.kind]} '{plugin.name}' of {plugin.origin} failed in "
                    f"{frame.name}, line {frame.lineno} of {Path(frame.filename).name} "
                    f"(`{frame.line}`): {describe_error(error)}"
                )
    return None


def describe_error(error: BaseException) -> str:
    """Return kind and words of any error in one line."""
    try:
        words = " ".join(str(error).split())
    except Exception:  # of a class whose own text fails
        words = ""
    short = words if len(words) <= 300 else f"{words[:300]}..."
    return f"{type(error).__name__}: {short}" if short else type(error).__name__


def _told(error: BaseException) -> str:
    """Say why an import failed."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs {error.name}, which is not installed or cannot be found from there"
    if isinstance(error, SyntaxError):
        name = Path(error.filename or "").name
        place = f"line {error.lineno}" + (f" of {name}" if name.endswith(".py") else "")
        return f"{place}: {error.msg}"
    if isinstance(error, SystemExit):
        return f"it ends the program when it is imported (SystemExit {error.code})"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "it imports from `.`, where one file has no package; write `from method_zoo import`"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""
    return describe_error(error) + place


def name_troubles(plugins: Sequence[Plugin]) -> list[str]:
    """Return a sentence for each of these that has trouble."""
    return [str(one.refusal(one.trouble)) for one in plugins if one.trouble]
