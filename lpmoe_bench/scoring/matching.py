"""Which map belongs to which mask: by name, with a note where names are only alike."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lpmoe_bench.data.maps import MAP_SUFFIXES
from lpmoe_bench.data.matching import named_files, shown
from lpmoe_bench.errors import DataError, UsageError

# Endings that programs and data sets add to the name of an image.
ENDINGS = (
    *("_segmentation", "_seg", "_mask", "_masks", "_gt", "_label", "_groundtruth"),
    *("_prediction", "_pred", "_prob", "_sal", "_saliency", "_map", "_output", "_out"),
)
OVERLAY = "_overlay"  # what `predict` writes beside a map
RESULTS = "predictions"  # what it calls the file of detections of all images
TRIED = 3  # names from which a rule that fits all names is guessed
FRAMES = 4  # digits, with which the name of a frame of a video is filled up at least

Key = tuple[str, str]  # the folders that tell a name from others, and the name itself
Files = Mapping[str, Path]


@dataclass(frozen=True)
class MatchedMaps:
    """Maps by the names of their masks.

    files: or what a job attaches to them. missing: names without a map. extra: files without a
    mask. notes: a sentence for each rule but equality that matched some.
    """

    files: dict[str, Any]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    notes: tuple[str, ...]


def match_maps(names: Iterable[str], files: Files) -> MatchedMaps:
    """Match names of masks with the files of a folder, as `find_files` returns them.

    Rules in order, each for what is left: equal paths; equal but for folders that all have, such
    as bear/GT/00000 and bear/00000; equal file names; then the same but for upper and lower case,
    less a second file ending, less one known ending such as _segmentation. A rule applies only
    where one name and one file of all are alike by it. Where none of them matches anything, one
    rule that fits all names is looked for, such as the mask's name followed by _sal_fuse.
    """
    notes = []
    overlays = {f for f in files if f.endswith(OVERLAY) and f.removesuffix(OVERLAY) in files}
    if overlays:
        notes.append(f"{len(overlays)} overlays beside a map of that name are no maps: left out")
        files = {name: path for name, path in files.items() if name not in overlays}
    names = set(names)
    whole = files.get(RESULTS)
    if whole and whole.suffix == ".json" and len(files) > 1 and RESULTS not in names:
        notes.append(f"{whole.name}, which holds the results of all images, is no file of one")
        files = {name: path for name, path in files.items() if name != RESULTS}
    # The strictest rule first, so that a.png is never taken for A.png where both are there. Every
    # rule looks at all names, those that are matched too: what is alike to two is nobody's.
    names, matched = sorted(names), dict[str, str]()
    keys = telling_folders(names), telling_folders(files)
    for rule, how in _RULES:
        if len(matched) == len(names):
            break
        alike = _alike(*({name: rule(name, own[name][0]) for name in own} for own in keys))
        found = {
            name: file
            for name, file in alike.items()
            if name not in matched and not _contradict(name, file, *keys)
        }
        matched |= found
        if found and how:
            name, file = next(iter(found.items()))
            notes.append(f"{len(found)} maps match their masks {how} (such as {file} for {name})")
    if not matched and (fitted := _fitted(*keys)):
        matched, how = fitted
        name, file = next(iter(matched.items()))
        notes.append(f"{len(matched)} maps match their masks by one rule for all names: {how}")
    pairs = {name: files[matched[name]] for name in names if name in matched}
    missing = tuple(name for name in names if name not in matched)
    extra = tuple(sorted(files.keys() - set(matched.values())))
    return MatchedMaps(pairs, missing, extra, tuple(notes))


def telling_folders(names: Iterable[str]) -> dict[str, Key]:
    """Return each name as (folders, file name), less the folders that all names have."""
    parts = {name: PurePosixPath(name).parts for name in names}
    common = set[str].intersection(*(set(path[:-1]) for path in parts.values())) if parts else set()
    return {
        name: ("/".join(part for part in path[:-1] if part not in common), path[-1])
        for name, path in parts.items()
    }


def are_frames(names: Iterable[str]) -> bool:
    """Whether all names are numbers of frames, such as 00000, in two or more folders."""
    keys = telling_folders(names).values()
    digits = all(name.isdecimal() and len(name) >= FRAMES for _, name in keys)
    return digits and len({folder for folder, _ in keys}) > 1


def _alike(names: Mapping[str, str], files: Mapping[str, str]) -> dict[str, str]:
    """Return {name: file} where exactly one of each has a key."""
    groups: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, items in enumerate((names, files)):
        for item, key in items.items():
            groups[key][side].append(item)
    return {ours[0]: theirs[0] for ours, theirs in groups.values() if len(ours) == len(theirs) == 1}


def _contradict(name: str, file: str, names: Mapping[str, Key], files: Mapping[str, Key]) -> bool:
    """Whether the folders of a name and a file say that they are of two videos, or two sets."""
    ours, theirs = names[name][0], files[file][0]
    if not ours or not theirs or ours.casefold() == theirs.casefold():
        return False
    others = {folder for folder, _ in files.values()}, {folder for folder, _ in names.values()}
    return ours in others[0] or theirs in others[1]


# Rules for one name and one file.


def _base(name: str) -> str:
    return PurePosixPath(name).name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", _base(name).casefold())


def _single(name: str) -> str:
    """Return a name less a file ending that it still has, as a.jpg of a.jpg.png."""
    folded = _folded(name)
    ending = next((e for e in MAP_SUFFIXES if folded.endswith(e)), "")
    return folded.removesuffix(ending) or folded


def _bare(name: str) -> str:
    single = _single(name)
    ending = max((e for e in ENDINGS if single.endswith(e)), key=len, default="")
    return single.removesuffix(ending) or single


def _with_folders(rule: Callable[[str], str]) -> Callable[[str, str], str]:
    return lambda name, folders: f"{folders.casefold()}/{rule(name)}"


def _alone(rule: Callable[[str], str]) -> Callable[[str, str], str]:
    return lambda name, folders: rule(name)


_PARTS = "by the parts of their paths that tell them apart, in other sub-folders"
_RULES: tuple[tuple[Callable[[str, str], str], str], ...] = (
    (lambda name, folders: name, ""),
    (_with_folders(_base), _PARTS),
    (_alone(_base), "by file name, in other sub-folders"),
    *((shape(_folded), "but for upper and lower case") for shape in (_with_folders, _alone)),
    *((shape(_single), "less a second file ending") for shape in (_with_folders, _alone)),
    *(
        (shape(_bare), "less an ending such as _segmentation or _mask")
        for shape in (_with_folders, _alone)
    ),
)


# One rule for all names.


def _fitted(
    names: Mapping[str, Key], files: Mapping[str, Key]
) -> tuple[dict[str, str], str] | None:
    """Return {name: file} and the rule in words, where exactly one rule fits all names.

    With maps missing it fits all files instead, two at least.
    """
    # Where only one side has folders, they tell nothing.
    if {folder for folder, _ in names.values()} != {folder for folder, _ in files.values()}:
        names, files = ({n: ("", base) for n, (_, base) in side.items()} for side in (names, files))
    found: dict[tuple[tuple[str, str], ...], str] = {}
    for pairs, how in _candidates(names, files):
        # One file alone would fit any rule, so it takes two to confirm one.
        whole = len(pairs) == len(names) or len(pairs) == len(files) > 1
        if whole:
            found.setdefault(tuple(sorted(pairs.items())), how)
    if len(found) != 1:
        return None
    ((pairs, how),) = found.items()
    return dict(pairs), how


def _candidates(
    names: Mapping[str, Key], files: Mapping[str, Key]
) -> Iterator[tuple[dict[str, str], str]]:
    for first, second, what in ((names, files, "mask"), (files, names, "map")):
        for front, back in _affixes(first, second):
            pairs = _alike_keys(
                {n: (folder, f"{front}{base}{back}") for n, (folder, base) in first.items()}, second
            )
            words = [f"{front} before"] * bool(front) + [f"{back} behind"] * bool(back)
            pairs = pairs if what == "mask" else {name: file for file, name in pairs.items()}
            yield pairs, f"{' and '.join(words)} the {what}'s name"
    fronts = [_shared(side, front=True) for side in (names, files)]
    backs = [_shared(side, front=False) for side in (names, files)]
    cut = [
        {name: (folder, base[len(f) : len(base) - len(b)]) for name, (folder, base) in side.items()}
        for side, f, b in zip((names, files), fronts, backs, strict=True)
    ]
    if len(names) > 1 and all(base for side in cut for _, base in side.values()):
        ours, theirs = (f"{f}*{b}" for f, b in zip(fronts, backs, strict=True))
        yield _alike_keys(*cut), f"maps are {theirs} where masks are {ours}"


def _affixes(first: Mapping[str, Key], second: Mapping[str, Key]) -> Iterator[tuple[str, str]]:
    """Yield (before, behind) that make one of the first few names of one side one of the other."""
    said = set()
    for name in list(first)[:TRIED]:
        folder, base = first[name]
        for other_folder, other in second.values():
            at = other.find(base)
            if at < 0 or other_folder != folder or other == base:
                continue
            front, back = other[:at], other[at + len(base) :]
            # A digit more makes another number: 10 is not 1 with an ending.
            joined = (front[-1:] + base[0], base[-1] + back[:1])
            if not any(len(two) == 2 and two.isdecimal() for two in joined):
                if (front, back) not in said:
                    yield front, back
                said.add((front, back))


def _alike_keys(names: Mapping[str, Key], files: Mapping[str, Key]) -> dict[str, str]:
    return _alike(*({n: "/".join(key) for n, key in side.items()} for side in (names, files)))


def _shared(side: Mapping[str, Key], front: bool) -> str:
    """Return what all names begin or end with, up to a sign that is no letter and no digit."""
    bases = [base if front else base[::-1] for _, base in side.values()]
    low, high = min(bases, default=""), max(bases, default="")
    size = next((k for k, pair in enumerate(zip(low, high, strict=False)) if len({*pair}) > 1), 0)
    found = re.match(r".*[\W_]", low[:size])
    text = found[0] if found and any(map(str.isalpha, found[0])) else ""
    return text if front else text[::-1]


# What a user says of names.


def pattern_of(pattern: str | None, prefix: str, suffix: str) -> str | None:
    """Return one pattern in which * stands for the mask's name; raises UsageError."""
    if pattern is None:
        return f"{prefix}*{suffix}" if prefix or suffix else None
    if prefix or suffix:
        raise UsageError("--pattern says all of a name; drop --prefix and --suffix, or --pattern")
    if "*" not in pattern:
        raise UsageError(
            f"--pattern is '{pattern}'; let * stand for the mask's name, as in '*_sal.png'"
        )
    return pattern


def choose_files(files: Files, pattern: str, folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the files of a folder that fit a pattern, by what its * stands for.

    Args:
        files: as `find_files` returns them.
        pattern: of file names, or of paths in the folder where it has a slash; with or without the
            ending of the files. What several * stand for is joined by slashes.
        folder: for messages.

    Returns:
        The files, and the names of those that do not fit.

    Raises:
        DataError: none fits, or two stand for one name.
    """
    form = re.compile("(.+)".join(map(re.escape, pattern.split("*"))))
    found: dict[str, Path] = {}
    left, twice = [], []
    for name, path in files.items():
        inner = PurePosixPath(name)
        tried = (name, name + path.suffix) if "/" in pattern else (inner.name, path.name)
        fit = next(filter(None, map(form.fullmatch, tried)), None)
        if fit is None:
            left.append(name)
            continue
        own = "/".join(fit.groups())
        if "/" not in pattern and len(inner.parts) > 1:
            own = f"{inner.parent.as_posix()}/{own}"
        if found.setdefault(own, path) is not path:
            twice.append(own)
    if twice:
        raise DataError(f"{folder}: several files fit '{pattern}' for {shown(twice)}; say more")
    if not found:
        raise DataError(
            f"no file in {folder} fits the pattern '{pattern}': files such as {shown(left[:3])}"
        )
    return found, left


# Several test sets, or videos, under one folder of masks.


def set_folders(masks: Path, maps: Sequence[Path], known: Iterable[str]) -> list[Path]:
    """Return the sub-folders of a folder of masks that are test sets of their own, if any.

    They are where each folder of maps has two or more of these sub-folders too, all masks lie in
    sub-folders, and these do not hold the frames of videos, whose names are numbers; a name of
    `known` test sets is a set in any case.
    """
    inside = [place for place in sorted(masks.iterdir()) if not place.name.startswith(".")]
    folders = [place for place in inside if place.is_dir()]
    loose = any(place.suffix.lower() in MAP_SUFFIXES for place in inside if not place.is_dir())
    shared = Counter(
        plain_name(place.name)
        for folder in maps
        if folder.is_dir()
        for place in folder.iterdir()
        if place.is_dir()
    )
    answered = [place for place in folders if shared[plain_name(place.name)] == len(maps)]
    if loose or len(answered) < 2:
        return []
    named = {plain_name(place.name) for place in answered} & {*map(plain_name, known)}
    return [] if not named and are_frames(named_files(masks, MAP_SUFFIXES)) else folders


def plain_name(name: str) -> str:
    """Return the letters and digits of a name, in lower case."""
    return "".join(filter(str.isalnum, name.casefold()))
