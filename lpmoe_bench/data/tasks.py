"""From a task to verified lists of image and mask files: found sets, own folders or drawn ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lpmoe_bench.data.pairs import check_root, find_pairs, read_names, split_pairs
from lpmoe_bench.data.registry import Dataset, Registry, Task
from lpmoe_bench.data.splits import MANIFESTS, OnProgress, Split, make_split
from lpmoe_bench.errors import DataError, UsageError


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
    report: OnProgress | None = None,
) -> TaskData:
    """Return the train and test splits of a task.

    A user's own folders win; else the real sets under root, or the task's stand-ins where its
    training sets are not there, a missing test set left out with a note; where neither is, or
    `embedded` asks for it, the task's set drawn in code. generated_root keeps it, and what was read
    of files. `report` is told (scenes drawn, all scenes). Raises DataError when root does not exist
    or a set is broken, UsageError for contradicting requests.
    """
    cache = generated_root / MANIFESTS
    if folders is not None and embedded:
        raise UsageError("your own folders and the embedded set were both asked for; drop one")
    if folders is not None:
        return _own(folders, cache)
    if embedded:
        return _drawn(task, "the embedded set was asked for", generated_root, report)
    check_root(root)
    where = "not in the data folder" if root else "not found (LPMOE_BENCH_DATA is not set)"
    own_sets = ", ".join(task.train)
    stand_in = (
        f"{own_sets} is {where}: training on {', '.join(task.stand_in.train)} in its place, which "
        f"compares with no published table"
    )
    half: list[str] = []
    for about, notes in ((task, []), (task.stand_in, [stand_in])):
        found, missing = _open_all(about.train, registry, root, cache)
        if found and not missing:
            tests, absent = _open_all(about.test, registry, root, cache)
            if not tests:
                raise _not_there(task, absent, where)
            train = _joined(found, cache)
            left_out = [f"{label} is {where} and is left out" for label in absent]
            return TaskData(train, tests, [*notes, *left_out, *_remarks([train, *tests])])
        half = half or (missing if found else [])
    # Half of a training list is refused: a smaller one, or scenes in its place without a word,
    # would give a number that looks like that of the whole list.
    if half:
        raise _not_there(task, half, where)
    tests, _ = _open_all([*task.test, *task.stand_in.test], registry, root, cache)
    why = f"{', '.join([*task.train, *task.stand_in.train])} is {where}"
    drawn = _drawn(task, why, generated_root, report)
    return TaskData(drawn.train, [*drawn.tests, *tests], [*drawn.notes, *_remarks(tests)])


def _not_there(task: Task, references: list[str], where: str) -> DataError:
    return DataError(
        f"task {task.name} needs {', '.join(references)}, which is {where}; add it, or define a "
        f"task of your own without it"
    )


def open_split(
    dataset: Dataset, split: str, root: Path | None, cache: Path | None = None
) -> Split | None:
    """Return one split of a data set, None where it is not there; raises DataError when it is
    broken. `cache` is a folder that keeps what was read of files, so that the next time is quick.
    """
    place = dataset.location(root)
    pairs = None if place is None else split_pairs(dataset, place, split)
    if pairs is None:
        return None
    remarks = [dataset.note] if dataset.note else []
    official = dataset.counts.get(split)
    if official not in (None, len(pairs)):
        sure = "" if dataset.is_confirmed(split) else " (a figure not confirmed)"
        remarks.insert(0, f"{len(pairs)} pairs counted, officially {official}{sure}")
    if split in dataset.local:
        remarks.insert(0, "a local split, comparable with no published table")
    return make_split(Split(dataset.name, split, note="; ".join(remarks)), split, pairs, cache)


def _own(folders: Folders, cache: Path) -> TaskData:
    """Return a user's own folders as the splits own/train and own/test."""
    # Both are matched before anything is hashed: an error of names comes at once.
    train = find_pairs(folders.train_images, folders.train_masks)
    test = find_pairs(folders.test_images, folders.test_masks)
    notes = []
    if folders.train_images.resolve() == folders.test_images.resolve():
        notes.append("train and test are the same folder: the scores say nothing about new images")
    like = Split("own", "")
    tests = [make_split(like, "test", test, cache)]
    return TaskData(make_split(like, "train", train, cache), tests, notes)


def _open_all(
    references: Sequence[str], registry: Registry, root: Path | None, cache: Path
) -> tuple[list[Split], list[str]]:
    """Return the splits that are there, and the references of those that are not."""
    splits = [(label, open_split(*registry.split(label), root, cache)) for label in references]
    return [s for _, s in splits if s is not None], [label for label, s in splits if s is None]


def _remarks(splits: list[Split]) -> list[str]:
    return [f"{split.label}: {split.note}" for split in splits if split.note]


def _joined(splits: list[Split], cache: Path) -> Split:
    """Return several training splits as one; names get their data set in front."""
    if len(splits) == 1:
        return splits[0]
    # Two sets may have an image of one name each.
    pairs = [replace(p, name=f"{s.dataset}-{p.name}") for s in splits for p in s.pairs]
    dataset = "+".join(dict.fromkeys(split.dataset for split in splits))
    name = "+".join(dict.fromkeys(split.name for split in splits))
    return make_split(Split(dataset, name, note="; ".join(_remarks(splits))), name, pairs, cache)


def _drawn(task: Task, why: str, place: Path, report: OnProgress | None) -> TaskData:
    """Return a task's embedded set, drawn where it is not there yet, and what to say about it."""
    if not task.embedded:
        raise DataError(
            f"{why}, and task {task.name} has no embedded set; get {', '.join(task.train)}"
        )
    from lpmoe_bench.data.scenes.generate import ensure_generated

    folder = ensure_generated(task.embedded, place, report)
    about = "scenes drawn in code, no photographs"
    like = Split(task.embedded, "", note=about, generated=True)
    images, masks = folder / "images", folder / "masks"
    try:
        train, test = (
            make_split(
                like,
                split,
                find_pairs(images, masks, read_names(folder / f"{split}.txt")),
                place / MANIFESTS,
            )
            for split in ("train", "test")
        )
    except DataError as error:
        raise DataError(f"{error}; delete {folder} to have it drawn again") from None
    note = (
        f"{why}: training on {task.embedded}, {len(train.pairs)} scenes drawn in code; its scores "
        f"say nothing about real images"
    )
    return TaskData(train, [test], [note])
