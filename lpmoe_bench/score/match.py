"""Which map belongs to which mask: by name, and said aloud where names are only alike."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lpmoe_bench.data.pairs import SUFFIXES, shown
from lpmoe_bench.errors import DataError

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
