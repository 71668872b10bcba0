"""Images, masks and maps of a test set, found again and proven to be those that were scored."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lpmoe_bench.data.images import inspect_map, read_mask
from lpmoe_bench.data.pairs import Pair, read_pair
from lpmoe_bench.data.registry import Registry
from lpmoe_bench.data.tasks import MANIFESTS, open_split, resolve
from lpmoe_bench.data.test_sets import TestSet, find_files, folder_set
from lpmoe_bench.errors import BenchError, DataError, UsageError
from lpmoe_bench.records.context import test_facts
from lpmoe_bench.records.model import SplitFacts
from lpmoe_bench.records.store import StoredRecord, recall_places
from lpmoe_bench.scoring.plan import match_maps
from lpmoe_bench.scoring.work import fit

KEPT = "predictions"  # folder of a run that keeps its maps, one folder a test set


def parse_maps(texts: Iterable[str], option: str = "--maps") -> dict[str, Path]:
    """Read NAME=FOLDER for each; raises UsageError for another form or a folder that is none."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UsageError(
                f"{option} got '{text}'; write it as NAME=FOLDER, such as OtherNet=maps/"
            )
        if not Path(folder).is_dir():
            raise UsageError(f"{option} {name}: {folder} is no folder; name one that holds maps")
        found[name] = Path(folder)
    return found


def find_maps(
    stored: Iterable[StoredRecord], test: str, names: Collection[str], given: Mapping[str, Path]
) -> tuple[StoredRecord, dict[str, Path]] | None:
    """Return the first of a row's records whose maps are found, and these by image; else None.

    Args:
        stored: the seeds of a row.
        test: the label of the test set.
        names: of its images.
        given: folders of scored maps that a user named, by method.
    """
    for one in stored:
        method, folders = one.record.method, []
        if one.record.kind == "score":
            folders += inside(given.get(method.title) or given.get(method.name), test)
        folders += [
            one.folder / KEPT / test.replace("/", "-"),
            recall_places(one.folder, test).maps,
        ]
        for folder in folders:
            if folder is not None and folder.is_dir() and (files := maps_in(folder, names)):
                return one, files
    return None


def maps_in(folder: Path, names: Collection[str]) -> dict[str, Path]:
    """Return the maps of a folder by image; none of an empty one, or where names do not match."""
    try:
        return match_maps(names, find_files(folder)).files
    except BenchError:
        return {}


def inside(folder: Path | None, test: str) -> list[Path]:
    """Return where a user's folder may keep the maps of a test set."""
    return [] if folder is None else [folder / test.replace("/", "-"), folder / test, folder]


@dataclass(frozen=True)
class SetSource:
    """Where images are looked for: the registry, the data root, the cache of drawn sets."""

    registry: Registry
    root: Path | None
    cache: Path


def find_test_set(source: SetSource, stored: Sequence[StoredRecord], test: str) -> TestSet:
    """Return images and masks of the test set of records that share it, at least one record.

    Raises DataError, in one sentence, where they are not here or are not those of the records.
    """
    # Maps of a folder have facts of masks alone, where a run has those of its images.
    first = next((one for one in stored if one.record.kind != "score"), stored[0])
    facts = test_facts(first.record, test)
    if facts is None:
        raise DataError(f"the records do not say what {test} is")
    try:
        found = _open(source, first, stored, facts)
    except BenchError as error:
        raise DataError(f"images of {test} could not be opened: {error}") from None
    if found is None:
        where = "in the data root" if source.root else "here: name the data root with --data-root"
        raise DataError(f"the images of {test} are not found {where}")
    if found.split.digest != facts.digest:
        raise DataError(
            f"the images of {test} that are found are others than those that were scored "
            f"({found.split.digest[:8]} against {facts.digest[:8]})"
        )
    return found


def _open(
    source: SetSource, first: StoredRecord, stored: Sequence[StoredRecord], facts: SplitFacts
) -> TestSet | None:
    test = facts.label
    if facts.generated:
        task = source.registry.task(first.record.task)
        drawn = resolve(task, source.registry, None, None, True, source.cache)
        return next((TestSet.of(split) for split in drawn.tests if split.label == test), None)
    name, _, part = test.partition("/")
    if name in source.registry.datasets:
        dataset = source.registry.dataset(name)
        known = part in dataset.split_names
        cache = source.cache / MANIFESTS
        split = open_split(dataset, part, source.root, cache) if known else None
        return None if split is None else TestSet.of(split)
    found = None
    for place in dict.fromkeys(recall_places(one.folder, test)[:2] for one in stored):
        if place[1] is not None:  # somebody's own folders, which may hold other images by now
            found = folder_set(place[1], place[0], source.cache)
            if found.split.digest == facts.digest:
                break
    return found


def read_image_and_mask(
    test: TestSet, name: str, threshold: int
) -> tuple[np.ndarray | None, np.ndarray]:
    """Return an image, RGB uint8 (h, w, 3), and its mask (h, w) of 0 and 255.

    The image is None where a set has masks alone. Raises DataError for what cannot be read.
    """
    if name in test.images:
        return read_pair(Pair(name, test.images[name], test.masks[name]), threshold)
    return None, read_mask(test.masks[name], threshold)


def read_map(path: Path, mask: np.ndarray) -> np.ndarray:
    """Return a map, uint8 (h, w), at the size of its mask; raises DataError."""
    return fit(inspect_map(path)[0], (mask.shape[0], mask.shape[1]))
