"""Folders of anybody's maps: what each is called, and which map belongs to which mask."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lpmoe_bench.data.pairs import SUFFIXES, find_pairs, shown
from lpmoe_bench.data.registry import Registry, Task
from lpmoe_bench.data.splits import Split, make_split
from lpmoe_bench.data.tasks import MANIFESTS, open_split, resolve
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import sha256_file
from lpmoe_bench.metrics.protocols import Protocol
from lpmoe_bench.records.model import SplitFacts

# Which map belongs to which mask: by name, and said aloud where names are only alike.


# Endings that programs and data sets add to the name of an image.
ENDINGS = (
    *("_segmentation", "_seg", "_mask", "_masks", "_gt", "_label", "_groundtruth"),
    *("_prediction", "_pred", "_prob", "_sal", "_saliency", "_map", "_output", "_out"),
)
OVERLAY = "_overlay"  # what `predict` writes beside a map


@dataclass(frozen=True)
class Match:
    """Maps by the names of their masks. missing: names without a map. extra: files without a
    mask. notes: a sentence for each rule but equality that matched some."""

    files: dict[str, Path]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    notes: tuple[str, ...]


def find_files(folder: Path) -> dict[str, Path]:
    """Return the image files below a folder by their path in it, less the suffix.

    Hidden files and folders are ignored. Raises DataError for a folder that is missing or holds no
    image, and for two files of one name.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name one that holds image files")
    found: dict[str, Path] = {}
    doubles = []
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for file in sorted(files):
            path = Path(place, file)
            if path.suffix.lower() not in SUFFIXES or file.startswith("."):
                continue
            name = path.relative_to(folder).with_suffix("").as_posix()
            other = found.setdefault(unicodedata.normalize("NFC", name), path)
            if other is not path:
                doubles.append(f"{other.name} and {path.name}")
    if doubles:
        raise DataError(
            f"{len(doubles)} names in {folder} belong to two files: {shown(doubles)}; keep one each"
        )
    if not found:
        raise DataError(f"folder {folder} holds no image files ({', '.join(SUFFIXES)})")
    return found


def match(names: Iterable[str], files: Mapping[str, Path]) -> Match:
    """Match names of masks with the files of a folder, as `find_files` returns them.

    Rules in order, each for what is left: equal paths, equal file names, equal but for upper and
    lower case, equal less one known ending such as _segmentation. A rule applies only where one
    name and one file of all are alike by it.
    """
    notes = []
    if overlays := {f for f in files if _is_overlay(f, files)}:
        notes.append(f"{len(overlays)} overlays beside a map of that name are no maps: left out")
        files = {name: path for name, path in files.items() if name not in overlays}
    names, matched = sorted(set(names)), {}
    for rule, words in _RULES:
        found = {n: f for n, f in _alike(names, files, rule).items() if n not in matched}
        matched |= found
        if found and words:
            name, file = next(iter(found.items()))
            notes.append(f"{len(found)} maps match their masks {words} (such as {file} for {name})")
    pairs = {name: files[matched[name]] for name in names if name in matched}
    missing = tuple(name for name in names if name not in matched)
    extra = tuple(sorted(files.keys() - set(matched.values())))
    return Match(pairs, missing, extra, tuple(notes))


def _is_overlay(name: str, files: Mapping[str, Path]) -> bool:
    return name.endswith(OVERLAY) and name.removesuffix(OVERLAY) in files


def _alike(
    names: Iterable[str], files: Iterable[str], rule: Callable[[str], str]
) -> dict[str, str]:
    """Return {name: file} where exactly one of each has a key under the rule."""
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for side, items in enumerate((names, files)):
        for item in items:
            groups.setdefault(rule(item), ([], []))[side].append(item)
    return {ours[0]: theirs[0] for ours, theirs in groups.values() if len(ours) == len(theirs) == 1}


def _base(name: str) -> str:
    return PurePosixPath(name).name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", _base(name).casefold())


def _bare(name: str) -> str:
    folded = _folded(name)
    ending = max((e for e in ENDINGS if folded.endswith(e)), key=len, default="")
    return folded.removesuffix(ending) or folded


_RULES: tuple[tuple[Callable[[str], str], str], ...] = (
    (str, ""),
    (_base, "by file name, in other sub-folders"),
    (_folded, "but for upper and lower case"),
    (_bare, "less an ending such as _segmentation or _mask"),
)


# The masks that maps are scored against: those of a task's test sets, or of a folder.


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


# Folders of maps: what each is called, and which of its files are maps of which test set.


LONGEST_BYTES = 120  # of a name, which becomes part of a path
GENERIC = ("", "test", "all", "gt", "mask", "masks")  # names that tell no test set from another


@dataclass(frozen=True)
class MapFolder:
    """One method's maps. matches: by the label of each test set that it has maps of."""

    title: str
    path: Path
    matches: Mapping[str, Match]
    notes: tuple[str, ...] = field(default=())

    def fingerprint(self, sets: Sequence[TestSet], protocol: Protocol, extra: Sequence[str]) -> str:
        """Return 64 hex digits of what decides the scores: maps, masks and how they are scored."""
        facts = {
            "maps": {label: digest_of(found.files) for label, found in self.matches.items()},
            "tests": {s.label: s.facts.digest for s in sets if s.label in self.matches},
            "protocol": protocol.hash,
            "extra": sorted(extra),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def titles_of(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Return the methods' names: those given, one a folder, else the folders' own.

    Raises UsageError for another number of names, equal ones, the same folder twice, or a name that
    cannot stand in a table.
    """
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise UsageError("one folder of maps was named twice; name each once")
    if names and len(names) != len(folders):
        raise UsageError(
            f"--name is given {len(names)} times for {len(folders)} folders; give it once for each"
        )
    titles = [" ".join(name.split()) for name in names or [place.name for place in places]]
    for title in titles:
        if not title or not title.isprintable() or len(title.encode()) > LONGEST_BYTES:
            raise UsageError(
                f"the name {title[:40]!r} cannot stand in a table; give one of printable signs, at "
                f"most {LONGEST_BYTES} bytes, with --name"
            )
        if titles.count(title) > 1:
            raise UsageError(f"two methods are called {title}; tell them apart with --name")
    return titles


def open_folder(
    title: str,
    folder: Path,
    sets: Sequence[TestSet],
    allow_missing: bool,
    absent: Sequence[str] = (),
) -> MapFolder:
    """Find the maps of each test set in a folder, or in a sub-folder of it named after the set.

    `absent` are sets of the task whose masks are not found: maps of them are noted.
    Raises DataError for a folder of the masks themselves, names that match nothing and, unless
    allowed, missing or extra ones.
    """
    _refuse_masks(folder, sets)
    labels = [test.label for test in sets]
    places = _sub_folders(folder, [*labels, *absent])
    notes = [
        f"{title} has maps of {label} in {places.pop(label).name}, but no masks of it are found: "
        f"not scored"
        for label in absent
        if label in places
    ]
    if not places:
        label = sets[0].label if len(sets) == 1 else _only_set(folder, sets)
        places = {label: folder}
    elif missing := [label for label in labels if label not in places]:
        notes.append(f"{title} has no sub-folder for {', '.join(missing)}: not scored")
    matches = {}
    for test in sets:
        if test.label in places:
            found = match(test.masks, find_files(places[test.label]))
            _check(found, test, places[test.label], allow_missing)
            matches[test.label] = found
            said = (*found.notes, *_gaps(found, test))
            notes += [f"{title}, {test.label}: {note}" for note in said]
    return MapFolder(title, folder, matches, tuple(notes))


def _refuse_masks(folder: Path, sets: Sequence[TestSet]) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name one that holds maps")
    place = folder.resolve()
    for test in sets:
        if any(mask.resolve().is_relative_to(place) for mask in test.masks.values()):
            raise DataError(
                f"{folder} holds the masks of {test.label} themselves; name the folder of maps"
            )


def _sub_folders(folder: Path, labels: Sequence[str]) -> dict[str, Path]:
    """Return the sub-folder of each test set that has one: named after it and no other.

    That of sinet_cod/test_camo may be called sinet_cod-test_camo, sinet_cod/test_camo or, where no
    other set answers to it, CAMO; case and punctuation do not matter.
    """
    answers = Counter(alias for label in labels for alias in _aliases(label))
    inside = {_plain(place.name): place for place in sorted(folder.iterdir()) if place.is_dir()}
    found = {}
    for label in labels:
        own = [folder / label] if (folder / label).is_dir() else []
        own += [
            inside[alias] for alias in _aliases(label) if alias in inside and answers[alias] < 2
        ]
        if own:
            found[label] = own[0]
    return found


def _aliases(label: str) -> list[str]:
    dataset, _, split = label.partition("/")
    names = (label, split.removeprefix("test_"), dataset)
    return [plain for plain in dict.fromkeys(map(_plain, names)) if plain not in GENERIC]


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _only_set(folder: Path, sets: Sequence[TestSet]) -> str:
    """Return the one test set that names in the folder belong to; raises UsageError."""
    files = find_files(folder)
    fitting = [test.label for test in sets if match(test.masks, files).files]
    if len(fitting) == 1:
        return fitting[0]
    labels = ", ".join(fitting or [test.label for test in sets])
    raise UsageError(
        f"names in {folder} match {len(fitting)} test sets ({labels}); choose one with --set, or "
        f"put maps into sub-folders such as {sets[0].label.replace('/', '-')}"
    )


def _check(found: Match, test: TestSet, folder: Path, allow_missing: bool) -> None:
    if not found.files:
        raise DataError(
            f"no file in {folder} has the name of a mask of {test.label}: files such as "
            f"{shown(found.extra[:3])}, masks such as {shown(found.missing[:3])}"
        )
    if (found.missing or found.extra) and not allow_missing:
        raise DataError(
            f"{folder}: {'; '.join(_gaps(found, test))}; with --allow-missing the "
            f"{len(found.files)} that match are scored"
        )


def _gaps(found: Match, test: TestSet) -> list[str]:
    parts = []
    if found.missing:
        parts.append(
            f"{len(found.missing)} of {len(test.masks)} masks of {test.label} have no map "
            f"({shown(found.missing)})"
        )
    if found.extra:
        parts.append(f"{len(found.extra)} files belong to no mask ({shown(found.extra)})")
    return parts
