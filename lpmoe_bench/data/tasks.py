"""From a task to verified lists of image and mask files: found sets, own folders or drawn ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lpmoe_bench.config.kinds import get_kind
from lpmoe_bench.data.audit.groups import varying_groups
from lpmoe_bench.data.label_rules import LISTING, OBJECTS, label_rules
from lpmoe_bench.data.matching import divide_place, named_files, shown
from lpmoe_bench.data.object_files import label_places
from lpmoe_bench.data.pairs import (
    Pair,
    check_root,
    find_layers,
    find_objects,
    find_pairs,
    read_names,
    split_pairs,
)
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules, pixel_rules
from lpmoe_bench.data.registry import Dataset, Registry, Task, check_same_classes
from lpmoe_bench.data.splits import MANIFESTS, OnProgress, Split, make_split, sound_pairs
from lpmoe_bench.errors import DataError, UsageError

OWN = "own"  # the data set that a user's own folders are


@dataclass(frozen=True)
class Folders:
    """A user's own images and masks: folders or patterns, see find_pairs; of objects their labels.

    Test folders may be missing where `share` of the training images is to be tested on. val_images,
    val_masks: what the best epoch is picked on. skip_broken: leave out what has no partner or
    cannot be read. rules: what is declared of their values.
    """

    train_images: Path
    train_masks: Path
    test_images: Path | None = None
    test_masks: Path | None = None
    val_images: Path | None = None
    val_masks: Path | None = None
    share: float | None = None
    skip_broken: bool = False
    rules: PixelRules = UNDECLARED

    def __post_init__(self) -> None:
        for one, other, what in (
            (self.test_images, self.test_masks, "test"),
            (self.val_images, self.val_masks, "val"),
        ):
            if (one is None) != (other is None):
                raise UsageError(f"--{what}-images and --{what}-masks go together; give both")
        if (self.test_images is None) == (self.share is None):
            raise UsageError(
                "your own folders need test images: name --test-images and --test-masks, or say "
                "--split 0.2 to set a part of the training images aside; one of the two"
            )


@dataclass(frozen=True)
class TaskData:
    """What a run trains and tests on, and what a reader of its numbers should know about it.

    validation: a split of its own where there is one, else it is carved from train.
    """

    train: Split
    tests: list[Split]
    notes: list[str]
    validation: Split | None = None


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
    or a set is broken, UsageError for contradicting requests and for sets of different classes.
    """
    found = _resolve(task, registry, root, folders, embedded, generated_root, report)
    splits = [found.train, *([found.validation] if found.validation else []), *found.tests]
    check_same_classes(task.name, {split.label: split.rules for split in splits})
    return found


def _resolve(
    task: Task,
    registry: Registry,
    root: Path | None,
    folders: Folders | None,
    embedded: bool,
    generated_root: Path,
    report: OnProgress | None,
) -> TaskData:
    cache = generated_root / MANIFESTS
    if folders is not None and embedded:
        raise UsageError("your own folders and the embedded set were both asked for; drop one")
    if folders is not None:
        declared = own_rules(f"task {task.name}", task.kind, folders.train_masks, folders.rules)
        return _own(replace(folders, rules=declared), generated_root)
    if embedded:
        return _drawn(task, "the embedded set was asked for", generated_root, report)
    check_root(root)
    if not task.references:
        return _drawn(task, f"task {task.name} has no photographs", generated_root, report)
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
            train = _joined(found, task, cache)
            left_out = [f"{label} is {where} and is left out" for label in absent]
            remarks = _remarks([train, *tests])
            validation = _validation(about.train, task, registry, root, cache)
            return TaskData(train, tests, [*notes, *left_out, *remarks], validation)
        half = half or (missing if found else [])
    # Half of a training list is refused: a smaller one, or scenes in its place without a word,
    # would give a number that looks like that of the whole list.
    if half:
        raise _not_there(task, half, where)
    tests, _ = _open_all([*task.test, *task.stand_in.test], registry, root, cache)
    why = f"{', '.join([*task.train, *task.stand_in.train])} is {where}"
    drawn = _drawn(task, why, generated_root, report)
    return TaskData(drawn.train, [*drawn.tests, *tests], [*drawn.notes, *_remarks(tests)])


def own_rules(what: str, kind: str, place: Path, rules: PixelRules) -> PixelRules:
    """Return what is declared of a user's own labels, for a kind of task.

    Labels of objects tell their format by their files, and those in COCO's form their classes.

    Args:
        what: they are for, such as "task bccd" or "this run".
        kind: its kind.
        place: of the labels: a folder, a file or a pattern.
        rules: what was declared.

    Raises:
        UsageError: that does not fit.
    """
    formats = get_kind(kind).formats
    if not set(formats) & set(OBJECTS):
        _check_declared(what, kind, rules)
        return rules
    form = _own_format(place, formats)
    if form not in formats:
        raise UsageError(
            f"{place} holds labels of format {form}, and {what} is {kind}, which needs "
            f"{' or '.join(formats)}"
        )
    classes = list(rules.labels.classes) if rules.labels else []
    if form not in LISTING and not classes:
        raise UsageError(
            f"labels of format {form} in {place} do not list their classes; name them with "
            f"--classes FILE, one a line in the order of their numbers"
        )
    return replace(rules, labels=label_rules({"format": form, "classes": classes}))


def _own_format(place: Path, formats: Sequence[str]) -> str:
    """Return the format of labels that a place holds, by the endings of its files."""
    if place.suffix.lower() == ".json":
        return next((form for form in formats if form in LISTING), LISTING[0])
    for form, ending in (("voc", ".xml"), ("yolo", ".txt")):
        if divide_place(place)[0].is_dir() and named_files(place, (ending,)):
            return form
    return "instances"


def _check_declared(what: str, kind: str, rules: PixelRules) -> None:
    """Raise UsageError for own label maps without classes, and for classes of binary masks."""
    classed = get_kind(kind).classed
    if classed and rules.labels is None:
        raise UsageError(
            f"{what} is {kind}: say which classes your label maps have, with --classes FILE, one "
            f"name a line in the order of their values, and --ignore 255 for values that count for "
            f"nothing"
        )
    if rules.labels is not None and not classed:
        raise UsageError(
            f"--classes lists classes of label maps, but {what} is {kind}; choose --task semantic, "
            f"or leave it out"
        )
    if rules.labels is not None and rules.labels.objects:
        raise UsageError(
            f"--classes lists one class, {rules.labels.classes[0]}, and {what} is {kind}: name the "
            f"background too, or use a task of objects, such as --task instance"
        )


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
    remarks = [text for text in (dataset.note, dataset.pixels.note) if text]
    official = dataset.counts.get(split)
    if official not in (None, len(pairs)):
        sure = "" if dataset.is_confirmed(split) else " (a figure not confirmed)"
        remarks.insert(0, f"{len(pairs)} pairs counted, officially {official}{sure}")
    if split in dataset.local:
        remarks.insert(0, "a local split, comparable with no published table")
    groups = varying_groups(dataset, place, [pair.name for pair in pairs])
    like = Split(dataset.name, split, note="; ".join(remarks), groups=groups)
    return make_split(like, split, pairs, cache)


def _own(folders: Folders, place: Path) -> TaskData:
    """Return a user's own folders as the splits own/train, own/test and own/val."""
    # All are matched before anything is hashed: an error of names comes at once.
    skip, notes = folders.skip_broken, []
    cache = place / MANIFESTS
    shared = (folders.rules, skip, cache, notes)
    train = _own_pairs("train", folders.train_images, folders.train_masks, *shared)
    val = _own_pairs("val", folders.val_images, folders.val_masks, *shared)
    if folders.share is None:
        test = _own_pairs("test", folders.test_images, folders.test_masks, *shared)
    else:
        from lpmoe_bench.data.audit.group_split import group_split

        train, test, said = group_split(train, folders.share, place / "audit", cache)
        notes.append(said)
    places = (("test", folders.test_images, test), ("val", folders.val_images, val))
    for name, images, pairs in places:
        if images is None or folders.train_images.resolve() != images.resolve():
            continue
        # Files of objects may divide the images of one folder.
        both = {pair.name for pair in train} & {pair.name for pair in pairs or ()}
        if both:
            notes.append(
                f"train and {name} are the same folder and share {len(both)} images: the scores "
                f"say nothing about new images"
            )
    like = Split(OWN, "", note=folders.rules.note)
    notes += [like.note] if like.note else []
    return TaskData(
        make_split(like, "train", train, cache),
        [make_split(like, "test", test, cache)],
        notes,
        make_split(like, "val", val, cache) if val else None,
    )


def _own_pairs(
    name: str,
    images: Path | None,
    masks: Path | None,
    rules: PixelRules,
    skip: bool,
    cache: Path,
    notes: list[str],
) -> list[Pair]:
    """Return the pairs of two folders of a user, none where they are not named; notes are added."""
    if images is None or masks is None:
        return []
    said: list[str] = []
    left_out: list[str] | None = [] if skip else None
    if rules.labels is not None and rules.labels.objects:
        pairs = find_objects(images, label_places(masks, rules.labels), rules)
    else:
        layers = rules.labels.folders if rules.labels else ()
        places = [masks / name for name in layers] or [masks]
        pairs = find_layers(images, places, left_out=left_out, said=said, rules=rules)
    notes += [f"{OWN}/{name}: {text}" for text in said]
    if left_out is not None:
        pairs, broken = sound_pairs(Split(OWN, name, tuple(pairs)), cache)
        if left_out or broken:
            left_out += broken
            notes.append(
                f"{OWN}/{name}: {len(left_out)} left out as broken: {shown(left_out, '; ')}"
            )
    return pairs


def _validation(
    references: Sequence[str], task: Task, registry: Registry, root: Path | None, cache: Path
) -> Split | None:
    """Return the validation splits that belong to training splits as one, None where one has none
    or is not there."""
    found = []
    for reference in references:
        dataset, split = registry.split(reference)
        name = dataset.validation_of(split)
        own = open_split(dataset, name, root, cache) if name else None
        if own is None:
            return None
        found.append(own)
    return _joined(found, task, cache)


def _open_all(
    references: Sequence[str], registry: Registry, root: Path | None, cache: Path
) -> tuple[list[Split], list[str]]:
    """Return the splits that are there, and the references of those that are not."""
    splits = [(label, open_split(*registry.split(label), root, cache)) for label in references]
    return [s for _, s in splits if s is not None], [label for label, s in splits if s is None]


def _remarks(splits: list[Split]) -> list[str]:
    return [f"{split.label}: {split.note}" for split in splits if split.note]


def _joined(splits: list[Split], task: Task, cache: Path) -> Split:
    """Return several training splits as one; names get their data set in front.

    Raises UsageError for sets of different classes.
    """
    if len(splits) == 1:
        return splits[0]
    # Before they are one, which speaks for all with the classes of its first set alone.
    check_same_classes(task.name, {split.label: split.rules for split in splits})
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
    from lpmoe_bench.data.scenes.generate import ensure_generated, generated_labels, generated_rules

    folder = ensure_generated(task.embedded, place, report)
    about = "scenes drawn in code, no photographs"
    like = Split(task.embedded, "", note=about, generated=True)
    images, masks, rules = folder / "images", folder / "masks", generated_rules(folder)
    formats = get_kind(task.kind).formats

    def drawn_pairs(split: str) -> list[Pair]:
        names = read_names(folder / f"{split}.txt")
        form, files = generated_labels(folder, split, formats)
        if form:
            return find_objects(images, files, pixel_rules({"labels": {"format": form}}), names)
        return find_pairs(images, masks, names, rules=rules)

    try:
        train, test = (
            make_split(like, split, drawn_pairs(split), place / MANIFESTS)
            for split in ("train", "test")
        )
    except DataError as error:
        raise DataError(f"{error}; delete {folder} to have it drawn again") from None
    note = (
        f"{why}: training on {task.embedded}, {len(train.pairs)} scenes drawn in code; its scores "
        f"say nothing about real images"
    )
    return TaskData(train, [test], [note])
