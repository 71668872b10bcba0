"""Test sets: what names, a task, a user's own folders or a folder of masks alone mean."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lpmoe_bench.console import OnProgress, Terminal
from lpmoe_bench.data.annotations import Mask, mask_checksum
from lpmoe_bench.data.images import read_truth
from lpmoe_bench.data.library.listing import how_to_get
from lpmoe_bench.data.matching import SUFFIXES, divide_place, named_files
from lpmoe_bench.data.object_files import listed_images, read_object_files
from lpmoe_bench.data.pairs import (
    check_root,
    find_masks,
    find_objects,
    find_pairs,
    refuse_two_files,
)
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules, Truth
from lpmoe_bench.data.registry import NAME, Registry, Task
from lpmoe_bench.data.splits import MANIFESTS, Split, in_threads, make_split
from lpmoe_bench.data.tasks import OWN, object_places, open_split, resolve
from lpmoe_bench.errors import DataError, UsageError


@dataclass(frozen=True)
class TestSet:
    """Images or masks that something is tested on.

    split: its label, digest and note; its pairs, none where there are masks alone. masks, images:
    files by name. protocol: of the task it belongs to, empty for a user's own folders. by_name: it
    was named itself, and not as one of the splits of a data set. rules: what is declared of their
    values.
    """

    split: Split
    masks: Mapping[str, Mask]
    images: Mapping[str, Path]
    protocol: str = ""
    by_name: bool = False
    rules: PixelRules = UNDECLARED

    @classmethod
    def of(cls, split: Split, protocol: str = "", by_name: bool = False) -> TestSet:
        """Return the test set of a split's pairs."""
        masks = {pair.name: pair.mask for pair in split.pairs}
        images = {pair.name: pair.image for pair in split.pairs}
        return cls(split, masks, images, protocol, by_name, split.rules)

    @property
    def label(self) -> str:
        return self.split.label

    def truth(self, name: str, threshold: int) -> Truth:
        """Return what a mask says; raises DataError as `read_truth`."""
        return read_truth(self.masks[name], threshold, self.rules, self.images.get(name))

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of it."""
        return self.split.facts | {"images": len(self.masks), "pixels": self.rules.facts}


# Test sets to run a model on: each has its images.


def own_set(
    images: Path | None, masks: Path | None, name: str, cache: Path, rules: PixelRules = UNDECLARED
) -> TestSet:
    """Return a user's own folders as own/NAME; raises UsageError for half of them, DataError."""
    if images is None or masks is None:
        raise UsageError("your own folders need both: --test-images and --test-masks")
    if not re.match(NAME, name):
        raise UsageError(f"--name is '{name}'; use letters, digits, dots, dashes and underscores")
    said: list[str] = []
    if rules.labels is not None and rules.labels.objects:
        pairs = find_objects(images, object_places(masks, rules), rules)
    else:
        pairs = find_pairs(images, masks, said=said, rules=rules)
    note = "; ".join(filter(None, [*said, rules.note]))
    split = make_split(Split(OWN, name, note=note), name, pairs, cache / MANIFESTS)
    return TestSet.of(split, by_name=True)


def named_sets(
    names: Sequence[str], registry: Registry, root: Path | None, cache: Path, terminal: Terminal
) -> list[TestSet]:
    """Return the test sets that names mean, each once: `data set/split`, all test splits of a data
    set, or an embedded set.

    Raises UsageError for an unknown name, DataError where what it means is not found or is broken.
    """
    # Here, since it loads scipy, and most that find test sets draw none.
    from lpmoe_bench.data.scenes.generate import SETS

    check_root(root)
    found: dict[str, TestSet] = {}
    for name in names:
        if name.removesuffix("/test") in SETS:
            sets = [_embedded(name.removesuffix("/test"), registry, cache, terminal)]
        else:
            sets = _of_registry(name, registry, root, cache, terminal)
        for one in sets:
            found.setdefault(one.label, one)
    return list(found.values())


def _of_registry(
    name: str, registry: Registry, root: Path | None, cache: Path, terminal: Terminal
) -> list[TestSet]:
    by_name = "/" in name
    if by_name:
        dataset, split = registry.split(name)
        splits = [split]
    else:
        dataset = registry.dataset(name)
        splits = [s for s in dataset.split_names if dataset.role(s) == "test"]
        if not splits:
            raise UsageError(
                f"{name} has no test split, only {', '.join(dataset.split_names)}; name one of "
                f"them as {name}/{dataset.split_names[0]}"
            )
    opened = [open_split(dataset, split, root, cache / MANIFESTS) for split in splits]
    labels = [f"{dataset.name}/{split}" for split in splits]
    missing = [label for label, split in zip(labels, opened, strict=True) if split is None]
    if len(missing) == len(splits):
        where = f"not found under {root}" if root else "not found: LPMOE_BENCH_DATA is not set"
        raise DataError(f"{', '.join(missing)} is {where}; to get it: {how_to_get(dataset)}")
    for label in missing:
        terminal.note(f"{label} is not in the data folder and is left out")
    protocol = registry.task(dataset.task).protocol
    return [TestSet.of(split, protocol, by_name) for split in opened if split is not None]


def _embedded(name: str, registry: Registry, cache: Path, terminal: Terminal) -> TestSet:
    task = next(task for task in registry.tasks.values() if task.embedded == name)
    with terminal.bar("drawing scenes", 1) as bar:
        data = resolve(task, registry, None, None, True, cache, bar.update)
    return TestSet.of(data.tests[0], task.protocol, by_name=True)


# Test sets to score maps against: their masks are enough.


def task_sets(
    task: Task,
    registry: Registry,
    root: Path | None,
    test_set: str | None,
    embedded: bool,
    cache: Path,
    on_progress: OnProgress,
) -> tuple[list[TestSet], list[str]]:
    """Return a task's test sets that are found, and the names of those that are not.

    Args:
        task: whose sets are looked for.
        registry: where they are described.
        root: the folder of data sets.
        test_set: a `data set/split` that is taken in place of the task's own.
        embedded: take the task's set drawn in code, which is kept in `cache`.
        cache: for what was drawn and what was read of files.
        on_progress: told (scenes drawn, all scenes).

    Raises:
        UsageError: for an unknown name.
        DataError: where nothing is found, or a set is broken.
    """
    if embedded:
        drawn = resolve(task, registry, root, None, True, cache, on_progress)
        return [TestSet.of(split) for split in drawn.tests], []
    references = [test_set] if test_set else [*task.test, *task.stand_in.test]
    found = [open_split(*registry.split(name), root, cache / MANIFESTS) for name in references]
    sets = [TestSet.of(split) for split in found if split is not None]
    if not sets:
        where = f"under {root}" if root else "anywhere: LPMOE_BENCH_DATA is not set"
        raise DataError(
            f"{', '.join(references)} is not found {where}; name a folder of masks with --gt, or "
            f"say --embedded for the set drawn in code"
        )
    labels = {test.label for test in sets}
    return sets, [name for name in references if name not in labels]


def folder_set(
    masks: Path,
    images: Path | None,
    cache: Path,
    rules: PixelRules = UNDECLARED,
    name: str = "test",
) -> TestSet:
    """Return a folder of masks as a test set; raises DataError.

    With their images it is the same test set as that of a run on these two folders, own/NAME.
    """
    if rules.labels is not None and rules.labels.objects and masks.is_file():
        return _file_set(masks, rules)
    if images is not None:
        return own_set(images, masks, name, cache, rules)
    files, place = find_masks(masks), divide_place(masks)[0].resolve()
    note = "; ".join(filter(None, ["masks of a folder, without their images", rules.note]))
    split = Split(place.parent.name, place.name, (), files_digest(files, rules.key), note)
    return TestSet(split, files, {}, rules=rules)


def _file_set(path: Path, rules: PixelRules) -> TestSet:
    """Return a file in COCO's form as a test set; that of a panoptic set has its maps beside it."""
    assert rules.labels is not None
    places = object_places(path, rules)
    found = read_object_files(places, listed_images(path), rules.labels)
    own = replace(rules, labels=found.rules)
    digest = files_digest(found.masks, own.key)
    split = Split(path.resolve().parent.name, path.stem, (), digest, "objects of a file alone")
    return TestSet(split, found.masks, {}, rules=own)


def find_files(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> dict[str, Path]:
    """Return the image files below a folder by their path in it, less the suffix.

    Hidden files and folders are ignored, linked ones followed. Raises DataError for a folder that
    is missing or holds no image, and for two files of one name.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name one that holds image files")
    found = named_files(folder, suffixes)
    doubles = [f"{files[0].name} and {o.name}" for files in found.values() for o in files[1:]]
    refuse_two_files(folder, doubles)
    if not found:
        raise DataError(f"folder {folder} holds no image files ({', '.join(suffixes)})")
    return {name: files[0] for name, files in found.items()}


def files_digest(files: Mapping[str, Mask], rules: str = "") -> str:
    """Return 64 hex digits of what files hold and which name each has, whatever their place; and of
    what is declared of them."""
    try:
        hashes = list(in_threads(mask_checksum, files.values()))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from None
    # Sorted: neither the order of a folder nor that of threads may move the digest.
    lines = sorted(f"{name}\0{value}\n" for name, value in zip(files, hashes, strict=True))
    lines += [rules] if rules else []
    return hashlib.sha256("".join(lines).encode()).hexdigest()
