"""The masks that maps are scored against: those of a task's test sets, or of a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.data.pairs import find_pairs
from lpmoe_bench.data.registry import Registry, Task
from lpmoe_bench.data.splits import Split, make_split
from lpmoe_bench.data.tasks import MANIFESTS, open_split, resolve
from lpmoe_bench.errors import DataError
from lpmoe_bench.files import sha256_file
from lpmoe_bench.records.model import SplitFacts
from lpmoe_bench.score.match import find_files

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class TestSet:
    """One test set: what a record says of it, its masks and, where known, images by name."""

    facts: SplitFacts
    masks: Mapping[str, Path]
    images: Mapping[str, Path]

    @property
    def label(self) -> str:
        return self.facts.label


def task_sets(
    task: Task,
    registry: Registry,
    root: Path | None,
    wanted: str | None,
    embedded: bool,
    cache: Path,
    report: Report,
) -> tuple[list[TestSet], list[str]]:
    """Return a task's test sets that are found under root, or the one that is wanted, and others.

    The others are the names of those that are not found.
    `wanted` is a `data set/split`. With `embedded`, the task's set drawn in code, kept in `cache`.
    Raises UsageError for an unknown name and DataError where nothing is found.
    """
    if embedded:
        drawn = resolve(task, registry, root, None, True, cache, report)
        return [_of_split(split) for split in drawn.tests], []
    references = [wanted] if wanted else [*task.test, *task.stand_in.test]
    found = [open_split(*registry.split(name), root, cache / MANIFESTS) for name in references]
    sets = [_of_split(split) for split in found if split is not None]
    if not sets:
        where = f"under {root}" if root else "anywhere: LPMOE_BENCH_DATA is not set"
        raise DataError(
            f"{', '.join(references)} is not found {where}; name a folder of masks with --gt, or "
            f"say --embedded for the set drawn in code"
        )
    labels = {test.label for test in sets}
    return sets, [name for name in references if name not in labels]


def folder_set(masks: Path, images: Path | None, cache: Path) -> TestSet:
    """Return a folder of masks as a test set; raises DataError.

    With their images it is the same test set as that of a run on these two folders, own/test.
    """
    if images is not None:
        split = make_split(
            Split("own", "test", (), ""), "test", find_pairs(images, masks), cache / MANIFESTS
        )
        return _of_split(split)
    files = find_files(masks)
    resolved = masks.resolve()
    label = "/".join(part for part in (resolved.parent.name, resolved.name) if part)
    facts = SplitFacts(
        label=label,
        digest=digest_of(files),
        images=len(files),
        note="masks of a folder, without their images",
    )
    return TestSet(facts, files, {})


def digest_of(files: Mapping[str, Path]) -> str:
    """Return 64 hex digits of what the files hold and which name each has, whatever their place."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            hashes = list(pool.map(sha256_file, files.values()))
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read ({error.strerror})") from None
    lines = sorted(f"{name}\0{value}\n" for name, value in zip(files, hashes, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _of_split(split: Split) -> TestSet:
    return TestSet(
        SplitFacts(**split.facts),
        {pair.name: pair.mask for pair in split.pairs},
        {pair.name: pair.image for pair in split.pairs},
    )
