"""Images and masks of a test set, found again and proven to be those that were scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.registry import Registry
from lpmoe_bench.data.splits import Split
from lpmoe_bench.data.tasks import MANIFESTS, open_split, resolve
from lpmoe_bench.errors import BenchError, DataError
from lpmoe_bench.records.context import test_facts
from lpmoe_bench.records.model import Record


@dataclass(frozen=True)
class Source:
    """Where images are looked for: the data root, the registry, the cache of drawn sets."""

    registry: Registry
    root: Path | None
    cache: Path


def find_test_images(source: Source, record: Record, test: str) -> dict[str, Pair]:
    """Return the pairs of a record's test set by name.

    Raises DataError, in one sentence, where they are not here or are not those of the record.
    """
    facts = test_facts(record, test)
    if facts is None:
        raise DataError(f"the records do not say what {test} is")
    try:
        split = _open(source, record, test, facts.generated)
    except BenchError as error:
        raise DataError(f"images of {test} could not be opened: {error}") from None
    if split is None:
        where = "in the data root" if source.root else "here: name the data root with --data-root"
        raise DataError(f"the images of {test} are not found {where}")
    if split.digest != facts.digest:
        raise DataError(
            f"the images of {test} that are found are others than those that were scored "
            f"({split.digest[:8]} against {facts.digest[:8]})"
        )
    return {pair.name: pair for pair in split.pairs}


def _open(source: Source, record: Record, test: str, generated: bool) -> Split | None:
    if generated:
        task = source.registry.task(record.task)
        drawn = resolve(task, source.registry, None, None, True, source.cache)
        return next((split for split in drawn.tests if split.label == test), None)
    name, _, split = test.partition("/")
    if name not in source.registry.datasets:  # somebody's own folders
        return None
    dataset = source.registry.dataset(name)
    if split not in dataset.split_names:
        return None
    return open_split(dataset, split, source.root, source.cache / MANIFESTS)
