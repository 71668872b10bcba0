"""Folders of maps: what each is called, and which of its files are maps of which test set."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lpmoe_bench.data.pairs import shown
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.protocols import Protocol
from lpmoe_bench.score.match import Match, find_files, match
from lpmoe_bench.score.sets import TestSet, digest_of

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
