"""The test sets that names or a user's own folders mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.library.listing import how_to_get
from lpmoe_bench.data.pairs import check_root, find_pairs
from lpmoe_bench.data.registry import NAME, Registry
from lpmoe_bench.data.scenes.generate import SETS
from lpmoe_bench.data.splits import Split, make_split
from lpmoe_bench.data.tasks import MANIFESTS, open_split, resolve
from lpmoe_bench.errors import DataError, UsageError

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class TestSet:
    """One test set. protocol: of the task it belongs to, empty for a user's own folders.

    by_name: it was named itself, and not as one of the splits of a data set.
    """

    split: Split
    protocol: str
    by_name: bool


def own_set(images: Path | None, masks: Path | None, name: str, cache: Path) -> TestSet:
    """Return a user's own folders as own/NAME; raises UsageError for half of them, DataError."""
    if images is None or masks is None:
        raise UsageError("your own folders need both: --test-images and --test-masks")
    if not re.match(NAME, name):
        raise UsageError(f"--name is '{name}'; use letters, digits, dots, dashes and underscores")
    pairs = find_pairs(images, masks)
    split = make_split(Split("own", name, (), ""), name, pairs, cache / MANIFESTS)
    return TestSet(split, "", True)


def named_sets(
    names: Sequence[str], registry: Registry, root: Path | None, cache: Path, terminal: Terminal
) -> list[TestSet]:
    """Return the test sets that names mean, each once: `data set/split`, all test splits of a data
    set, or an embedded set.

    Raises UsageError for an unknown name, DataError where what it means is not found or is broken.
    """
    check_root(root)
    found: dict[str, TestSet] = {}
    for name in names:
        if name.removesuffix("/test") in SETS:
            sets = [_embedded(name.removesuffix("/test"), registry, cache, terminal)]
        else:
            sets = _of_registry(name, registry, root, cache, terminal)
        for one in sets:
            found.setdefault(one.split.label, one)
    return list(found.values())


def _of_registry(
    name: str, registry: Registry, root: Path | None, cache: Path, terminal: Terminal
) -> list[TestSet]:
    by_name = "/" in name
    if by_name:
        dataset, split = registry.split(name)
        wanted = [split]
    else:
        dataset = registry.dataset(name)
        wanted = [s for s in dataset.split_names if dataset.role(s) == "test"]
        if not wanted:
            raise UsageError(
                f"{name} has no test split, only {', '.join(dataset.split_names)}; name one of "
                f"them as {name}/{dataset.split_names[0]}"
            )
    splits = {split: open_split(dataset, split, root, cache / MANIFESTS) for split in wanted}
    missing = [f"{dataset.name}/{split}" for split, found in splits.items() if found is None]
    if len(missing) == len(wanted):
        where = f"not found under {root}" if root else "not found: LPMOE_BENCH_DATA is not set"
        raise DataError(f"{', '.join(missing)} is {where}; to get it: {how_to_get(dataset)}")
    for label in missing:
        terminal.note(f"{label} is not in the data folder and is left out")
    protocol = registry.task(dataset.task).protocol
    return [TestSet(split, protocol, by_name) for split in splits.values() if split is not None]


def _embedded(name: str, registry: Registry, cache: Path, terminal: Terminal) -> TestSet:
    task = next(task for task in registry.tasks.values() if task.embedded == name)
    with terminal.bar("drawing scenes", 1) as bar:
        data = resolve(task, registry, None, None, True, cache, bar.update)
    return TestSet(data.tests[0], task.protocol, True)
