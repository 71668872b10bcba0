"""All tasks and data sets by name: datasets.yaml merged with a user's own, read safely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from lpmoe_bench.errors import UsageError
from lpmoe_bench.registry.schema import GIVEN_BY_LOADER, Dataset, Task
from method_zoo.errors import unknown


@dataclass(frozen=True)
class Registry:
    """All tasks and data sets by name."""

    tasks: dict[str, Task]
    datasets: dict[str, Dataset]

    def task(self, name: str) -> Task:
        """Return a task; raises UsageError with the nearest name."""
        if name not in self.tasks:
            raise UsageError(unknown("task", name, self.tasks))
        return self.tasks[name]

    def dataset(self, name: str) -> Dataset:
        """Return a data set; raises UsageError with the nearest name."""
        if name not in self.datasets:
            raise UsageError(unknown("data set", name, self.datasets))
        return self.datasets[name]

    def split(self, reference: str) -> tuple[Dataset, str]:
        """Return the data set and split of `data set/split`; raises UsageError."""
        name, slash, split = reference.partition("/")
        if not slash:
            raise UsageError(f"'{reference}' names no split; write it as data set/split")
        dataset = self.dataset(name)
        if split not in dataset.split_names:
            raise UsageError(unknown(f"split of {name}", split, dataset.split_names))
        return dataset, split


def load_registry(extra: Path | None = None) -> Registry:
    """Read the packaged datasets.yaml and merge a user's own file into it.

    Raises UsageError naming file and entry for broken YAML, unknown or missing keys, names that
    exist already, and references to tasks, data sets or splits that do not.
    """
    package = Path(__file__).parents[1]
    packaged = package / "datasets.yaml"
    tasks: dict[str, Task] = {}
    datasets: dict[str, Dataset] = {}
    _merge(packaged if packaged.exists() else package.parent / packaged.name, None, tasks, datasets)
    if extra is not None:
        _merge(extra, extra.resolve().parent, tasks, datasets)
    registry = Registry(tasks, datasets)
    _check_references(registry)
    return registry


def _check_references(registry: Registry) -> None:
    """Raise UsageError, naming the entry, where one names what is not there."""
    for kind, items in (("data set", registry.datasets), ("task", registry.tasks)):
        for item in items.values():
            try:
                if isinstance(item, Dataset):
                    registry.task(item.task)
                    listed = item.confirmed if isinstance(item.confirmed, list) else []
                    named = (*item.counts, *item.local, *item.checksums, *listed)
                    references = [f"{item.name}/{split}" for split in named]
                else:
                    references = item.references
                for reference in references:
                    registry.split(reference)
            except UsageError as error:
                raise UsageError(f"{kind} '{item.name}': {error}") from None


def _merge(
    path: Path, base: Path | None, tasks: dict[str, Task], datasets: dict[str, Dataset]
) -> None:
    """Add the entries of one file."""
    content = _read(path)
    for section in content:
        if section not in ("tasks", "datasets"):
            raise UsageError(f"{path}: {unknown('section', str(section), ('tasks', 'datasets'))}")
    _add(path, "task", content.get("tasks"), tasks, Task, {})
    _add(path, "data set", content.get("datasets"), datasets, Dataset, {"base": base})


Model = TypeVar("Model", Task, Dataset)


def _add(
    path: Path, kind: str, section: Any, known: dict[str, Model], model: type[Model], given: dict
) -> None:
    if section is not None and not isinstance(section, Mapping):
        raise UsageError(f"{path}: the section of {kind}s must hold entries by name")
    for name, entry in (section or {}).items():
        where = f"{path}: {kind} '{name}'"
        if name in known:
            raise UsageError(f"{where} exists already; give yours another name")
        if not isinstance(entry, Mapping):
            raise UsageError(f"{where} must hold settings by name, such as 'title: My set'")
        keys = set(model.model_fields) - GIVEN_BY_LOADER
        for key in entry:
            if key not in keys:
                raise UsageError(f"{where}: {unknown('key', str(key), keys)}")
        try:
            known[name] = model.model_validate({**entry, **given, "name": name})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            text = first["msg"].removeprefix("Value error, ")
            text = text[:1].lower() + text[1:]
            raise UsageError(f"{where}: " + (f"key '{key}': {text}" if key else text)) from None


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that stands twice: the first would be lost."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1 and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{key}' stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Mapping[str, Any]:
    """Read a YAML file into a mapping; raises UsageError in one sentence."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no UTF-8 text; save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unexpected character"
        raise UsageError(f"{path}{line} is not valid YAML: {problem}") from None
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply to be a list of data sets") from None
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} must hold the sections 'tasks' or 'datasets'")
    return content
