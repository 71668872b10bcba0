"""The test sets that names or a user's own folders mean, and whether a run was trained on them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.library.listing import how_to_get
from lpmoe_bench.data.pairs import check_root, find_pairs, shown
from lpmoe_bench.data.registry import NAME, Registry
from lpmoe_bench.data.scenes.generate import SETS
from lpmoe_bench.data.splits import Split, image_checksums, make_split
from lpmoe_bench.data.tasks import MANIFESTS, open_split, resolve
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.model import Record

# The test sets that names or a user's own folders mean.


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


# Images of a test set that a run was trained on, told by what their files hold.


def refuse_training_set(record: Record, split: Split) -> None:
    """Raise UsageError when a split is the very one a run was trained on or selected by."""
    for facts in (record.data.train, record.data.validation):
        if facts is not None and split.digest == facts.digest:
            raise UsageError(
                f"{split.label} is {facts.label}, which this run was trained on: its scores "
                f"would say nothing about new images; name another set"
            )
    trained = record.data.train
    if trained is not None and split.label == trained.label and split.dataset != "own":
        raise UsageError(
            f"{split.label} is the set this run was trained on, in another copy: its scores would "
            f"say nothing about new images; name another set"
        )


def training_images(
    record: Record, registry: Registry, root: Path | None, cache: Path
) -> dict[str, str] | None:
    """Return {checksum: name} of the images of a run's training list, or None where they are not
    found here."""
    facts = record.data.train
    if facts is None:
        return None
    sets, names = (part.split("+") for part in facts.label.split("/", 1))
    references = [facts.label]
    if len(sets) > 1 or len(names) > 1:  # several sets as one: the task says which went together
        task = registry.tasks.get(record.task)
        listed = [*task.train, *task.stand_in.train] if task else []
        parts = [(label, *label.split("/", 1)) for label in dict.fromkeys(listed)]
        references = [label for label, one, split in parts if one in sets and split in names]
    found: dict[str, str] = {}
    for reference in references:
        name, _, part = reference.partition("/")
        dataset = registry.datasets.get(name)
        if dataset is None or part not in dataset.split_names:
            return None
        split = open_split(dataset, part, root, cache / MANIFESTS)
        if split is None:
            return None
        found |= image_checksums(split, cache / MANIFESTS)
    return found or None


def shared_images(split: Split, trained: dict[str, str], cache: Path) -> list[str]:
    """Return the names of the images of a split that are among the trained ones, sorted."""
    own = image_checksums(split, cache / MANIFESTS)
    return sorted(name for checksum, name in own.items() if checksum in trained)


def overlap_words(split: Split, shared: Sequence[str]) -> str:
    """Say how many images of a split a run was trained on, and which."""
    return (
        f"{len(shared)} of the {len(split.pairs)} images of {split.label} are in the run's "
        f"training list: {shown(shared)}"
    )
