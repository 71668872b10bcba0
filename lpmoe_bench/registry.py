"""From a task to verified lists of image and mask files: found sets, own folders or drawn ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.generated import ensure_generated
from lpmoe_bench.pairs import Pair, find_pairs, read_stems
from lpmoe_bench.registry_model import Dataset, Registry, Task, load_registry
from lpmoe_bench.splits import Report, Split, check_pairs, make_split

__all__ = [
    "Dataset",
    "Folders",
    "Pair",
    "Registry",
    "Split",
    "Task",
    "TaskData",
    "check_pairs",
    "load_registry",
    "make_split",
    "open_split",
    "resolve",
]


@dataclass(frozen=True)
class Folders:
    """A user's own images and masks."""

    train_images: Path
    train_masks: Path
    test_images: Path
    test_masks: Path


@dataclass(frozen=True)
class TaskData:
    """What a run trains and tests on, and what a reader of its numbers should know about it."""

    train: Split
    tests: list[Split]
    notes: list[str]


def resolve(
    task: Task,
    registry: Registry,
    root: Path | None,
    folders: Folders | None = None,
    embedded: bool = False,
    generated_root: Path = Path("cache"),
    report: Report | None = None,
) -> TaskData:
    """Return the train and test splits of a task.

    A user's own folders win; else the real sets under root, a missing test set left out with a
    note; where the training set is not there, or `embedded` asks for it, the task's set drawn in
    code, kept under generated_root. `report` is told (scenes drawn, all scenes). Raises DataError
    when root does not exist or a set is broken, UsageError for contradicting requests.
    """
    if folders is not None:
        if embedded:
            raise UsageError("your own folders and the embedded set were both asked for; drop one")
        return _own(folders)
    if embedded:
        train, test, note = _drawn(task, "the embedded set was asked for", generated_root, report)
        return TaskData(train, [test], [note])
    if root is not None and not root.is_dir():
        raise DataError(
            f"the data folder {root} does not exist; correct LPMOE_BENCH_DATA or unset it"
        )
    found, missing = _open_all(task.train, registry, root)
    tests, missing_tests = _open_all(task.test, registry, root)
    where = f"not under {root}" if root else "not found (LPMOE_BENCH_DATA is not set)"
    if not found:
        why = f"{', '.join(task.train)} is {where}"
        train, test, note = _drawn(task, why, generated_root, report)
        return TaskData(train, [test, *tests], [note, *_remarks(tests)])
    if missing or not tests:
        raise DataError(
            f"task {task.name} needs {', '.join(missing or task.test)}, which is {where}; add it, "
            f"or define a task of your own without it"
        )
    train = _joined(found)
    left_out = [f"{label} is {where} and is left out" for label in missing_tests]
    return TaskData(train, tests, left_out + _remarks([train, *tests]))


def open_split(dataset: Dataset, split: str, root: Path | None) -> Split | None:
    """Return one split of a data set, None where its folder is not there; raises DataError when
    the folder is broken."""
    place = dataset.location(root)
    if place is None:
        return None
    pairs = _listed(place, dataset.splits[split], dataset.images, dataset.masks)
    remarks = [dataset.note] if dataset.note else []
    official = dataset.counts.get(split)
    if official not in (None, len(pairs)):
        sure = "" if dataset.confirmed else " (a figure not confirmed)"
        remarks.insert(0, f"{len(pairs)} pairs counted, officially {official}{sure}")
    if split in dataset.local:
        remarks.insert(0, "a local split, comparable with no published table")
    return make_split(Split(dataset.name, split, (), "", "; ".join(remarks)), split, pairs)


def _listed(
    folder: Path, listed: str | None, images: str = "images", masks: str = "masks"
) -> list[Pair]:
    """Return the pairs of a list file, or all of them."""
    stems = None if listed is None else read_stems(folder / listed)
    return find_pairs(folder / images, folder / masks, stems)


def _own(folders: Folders) -> TaskData:
    """Return a user's own folders as the splits own/train and own/test."""
    train = find_pairs(folders.train_images, folders.train_masks)
    test = find_pairs(folders.test_images, folders.test_masks)
    like = Split("own", "train", (), "")
    notes = []
    if folders.train_images.resolve() == folders.test_images.resolve():
        notes.append("train and test are the same folder: the scores say nothing about new images")
    return TaskData(make_split(like, "train", train), [make_split(like, "test", test)], notes)


def _open_all(
    references: Sequence[str], registry: Registry, root: Path | None
) -> tuple[list[Split], list[str]]:
    """Return the splits that are there, and the references of those that are not."""
    splits = [(label, open_split(*registry.split(label), root)) for label in references]
    return [s for _, s in splits if s is not None], [label for label, s in splits if s is None]


def _remarks(splits: list[Split]) -> list[str]:
    return [f"{split.label}: {split.note}" for split in splits if split.note]


def _joined(splits: list[Split]) -> Split:
    """Return several training splits as one; names get their data set in front."""
    if len(splits) == 1:
        return splits[0]
    pairs = [replace(p, name=f"{s.dataset}-{p.name}") for s in splits for p in s.pairs]
    dataset, name = (
        "+".join(dict.fromkeys(parts)) for parts in zip(*map(_label, splits), strict=True)
    )
    return make_split(Split(dataset, name, (), "", "; ".join(_remarks(splits))), name, pairs)


def _label(split: Split) -> tuple[str, str]:
    return split.dataset, split.name


def _drawn(task: Task, why: str, place: Path, report: Report | None) -> tuple[Split, Split, str]:
    """Return the train and test split of a task's embedded set, and what to say about it."""
    if not task.embedded:
        raise DataError(
            f"{why}, and task {task.name} has no embedded set; get {', '.join(task.train)}"
        )
    folder = ensure_generated(task.embedded, place, report)
    like = Split(task.embedded, "", (), "", "scenes drawn in code, no photographs", True)
    try:
        train, test = (
            make_split(like, split, _listed(folder, f"{split}.txt")) for split in ("train", "test")
        )
    except DataError as error:
        raise DataError(f"{error}; delete {folder} to have it drawn again") from None
    note = (
        f"{why}: training on {task.embedded}, {len(train.pairs)} scenes drawn in code; its scores "
        f"say nothing about real images"
    )
    return train, test, note
