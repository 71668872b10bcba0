"""`data import`: a folder or archive of anybody's layout becomes an entry of one's own YAML."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from lpmoe_bench.config.kinds import get_kind
from lpmoe_bench.console import Terminal
from lpmoe_bench.data.annotations import ANNOTATIONS, is_coco
from lpmoe_bench.data.audit.group_split import FEW_FOLDERS, OneGroupError, group_split
from lpmoe_bench.data.library.add import ADDING
from lpmoe_bench.data.library.archives import is_archive, unpack
from lpmoe_bench.data.library.recognise import IMAGES, MASKS
from lpmoe_bench.data.matching import MASK_SUFFIXES, SUFFIXES, common_rule, named_files, shown
from lpmoe_bench.data.pairs import Pair, find_pairs, unpaired_name
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules, pixel_rules
from lpmoe_bench.data.registry import NAME, Task
from lpmoe_bench.data.splits import MANIFESTS, Split, check_pairs, sound_pairs
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import staging, write_atomically

# Words that tell a mask from its image, at the end of a name or as the name of a folder.
WORDS = "mask masks lesion segmentation seg gt groundtruth anno annotation label labels manual1"
MARK = re.compile(rf"[ _.-]?({'|'.join(WORDS.split())})(?=[^a-z]|$)", re.IGNORECASE)
LEAST_SHARE = 0.95  # of the images that a way to pair them has to explain


class Way(NamedTuple):
    """Where images and masks of a split lie, as places below the folder."""

    images: str
    masks: str


@dataclass
class Imported:
    """What was recognised and written. file: the YAML; places: images and masks by split."""

    name: str
    folder: Path
    file: Path
    places: dict[str, Way]
    counts: dict[str, int]
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        lines = [f"{self.name}: {self.folder}"]
        for split, count in self.counts.items():
            way = self.places[split]
            lines.append(f"  {split}: {count} pairs, images {way.images}, masks {way.masks}")
        lines += [f"  note: {note}" for note in self.notes]
        lines += [
            f"written to {self.file}; look at it, then:",
            f"  lpmoe-bench data verify {self.name} --datasets {self.file}",
        ]
        if "train" in self.counts:
            lines.append(f"  lpmoe-bench run --task {self.name} --datasets {self.file}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        places = {split: way._asdict() for split, way in self.places.items()}
        return {
            "name": self.name,
            "folder": str(self.folder),
            "file": str(self.file),
            "splits": {k: places[k] | {"pairs": n} for k, n in self.counts.items()},
            "notes": self.notes,
        }


def import_set(
    source: Path,
    like: Task,
    file: Path,
    cache: Path,
    terminal: Terminal,
    *,
    name: str = "",
    share: float = 0.2,
    skip: bool = False,
    root: Path | None = None,
    labels: Mapping[str, Any] | None = None,
) -> Imported:
    """Recognise a data set in a folder or archive, and write an entry and a task of it.

    A folder stays where it is; an archive is unpacked below `root`. Where the set has no training
    and test part of its own, whole groups of near duplicates are set aside for testing.

    Args:
        source: folder, zip or tar.
        like: the task whose protocol, loss and selection the new one takes.
        file: the YAML to write; lists of names lie beside it.
        cache: folder of what was read of files and of the audit.
        terminal: where progress is shown.
        name: of the set and its task; by default that of the source.
        share: of the images that is set aside for testing.
        skip: leave out pairs that are broken.
        root: the data folder, for archives.
        labels: what its label maps mean, where the task is of classes; by default the classes that
            a `classes.txt` in it lists.

    Raises:
        UsageError: for a name that is none, a file that is there already, and labels that are
            missing or no such task's.
        DataError: where nothing is recognised, pairs are broken, or an archive has no data folder.
    """
    if not source.exists():
        raise DataError(f"{source} does not exist; give the archive or folder you have")
    name = set_name(name, source)
    if file.exists():
        raise UsageError(f"{file} exists already; name another file with -o, or move it away")
    folder = source if source.is_dir() else _unpacked(source, root, name, terminal)
    rules = _label_maps(folder, like, labels)
    ways, notes = recognise_ways(folder)
    pairs: dict[str, list[Pair]] = {}
    gone: dict[str, list[str]] = {}
    for split, way in ways.items():
        left_out: list[str] | None = [] if skip else None
        places = folder / way.images, folder / way.masks
        found = find_pairs(*places, left_out=left_out, rules=rules)
        named = Split(name, split, tuple(found))
        if left_out is None:
            with terminal.bar(f"checking {split}", len(found)) as bar:
                notes += check_pairs(named, bar.update, cache / MANIFESTS)
        else:
            unpaired = [unpaired_name(text) for text in left_out]
            found, broken = sound_pairs(named, cache / MANIFESTS)
            sound = {pair.name for pair in found}
            names = unpaired + [pair.name for pair in named.pairs if pair.name not in sound]
            if names:
                gone[split] = sorted(names)
            if left_out := left_out + broken:
                notes.append(f"{split}: {len(left_out)} left out: {shown(left_out, '; ')}")
        pairs[split] = found
    entry: dict[str, Any] = {
        "title": f"{source.name}, as data import recognised it",
        "task": name,
        "folder": str(folder.resolve()),
    }
    if rules.labels is not None:
        entry["labels"] = rules.labels.facts
    lists: dict[str, list[Pair]] = {}
    if "train" not in pairs or "test" not in pairs:
        try:
            lists, said = _set_apart(pairs, share, cache, terminal)
        except OneGroupError as error:
            said = str(error)
        notes.append(said)
    folders = {pair.name.rpartition("/")[0] for found in pairs.values() for pair in found}
    videos = len(folders) >= FEW_FOLDERS
    groups = {"what": "folder", "folder": True} if videos else {"what": "scene"}
    entry["groups"] = {**groups, "alike": True}
    if skip and not lists and len(pairs) == 1:
        lists = pairs
    if lists:
        one = next(iter(ways.values()))
        entry |= {"images": one.images, "masks": one.masks}
        entry["splits"] = {split: f"{name}_{split}.txt" for split in lists}
        entry["local"] = list(lists)
        ways = dict.fromkeys(lists, one)
    else:
        entry["layouts"] = [{split: list(way) for split, way in ways.items()}]
        if gone:
            entry["leave_out"] = {split: f"{name}_{split}_left_out.txt" for split in gone}
    entry["counts"] = counts = {split: len(found) for split, found in (lists or pairs).items()}
    content: dict[str, Any] = {"datasets": {name: entry}}
    if "train" in counts:
        task: dict[str, Any] = {"title": f"{name}, of data import"}
        given = {"protocol": like.protocol, "loss": like.loss, "select": like.select}
        given |= {"kind": like.kind} if rules.labels else {}
        tests = [split for split in counts if not split.startswith(("train", "val"))]
        task |= {k: v for k, v in given.items() if v} | {"train": [f"{name}/train"]}
        content = {
            "tasks": {name: task | {"test": [f"{name}/{split}" for split in tests]}}
        } | content
    else:
        entry["task"] = like.name
    for split, found in lists.items():
        names = "\n".join(pair.name for pair in found)
        write_atomically(file.parent / f"{name}_{split}.txt", names + "\n")
    for split, listed in entry.get("leave_out", {}).items():
        write_atomically(file.parent / listed, "\n".join(gone[split]) + "\n")
    write_atomically(file, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return Imported(name, folder, file, ways, counts, notes)


def _label_maps(folder: Path, like: Task, labels: Mapping[str, Any] | None) -> PixelRules:
    """Return what the label maps of a folder mean, for a task of classes."""
    if not get_kind(like.kind).classed:
        if labels:
            raise UsageError(f"--classes is of label maps, but task {like.name} is {like.kind}")
        return UNDECLARED
    listed = folder / "classes.txt"
    if not labels and not listed.is_file():
        raise UsageError(
            f"task {like.name} is {like.kind}, and {folder} holds no classes.txt; name the list "
            f"with --classes FILE, one name a line in the order of their values"
        )
    return pixel_rules({"labels": {"classes": listed} | dict(labels or {})})


def set_name(name: str, source: Path) -> str:
    """Return the name of a set, by default made of that of its source; raises UsageError."""
    stem = source.resolve().name.partition(".")[0]
    name = name or re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-").lower()
    if not re.match(NAME, name):
        raise UsageError(f"--name is '{name}'; use letters, digits, dots, dashes and underscores")
    return name


def _set_apart(
    pairs: Mapping[str, list[Pair]], share: float, cache: Path, terminal: Terminal
) -> tuple[dict[str, list[Pair]], str]:
    """Return lists of a set without training or test part."""
    if len(pairs) > 1:
        raise DataError(
            f"the parts {', '.join(pairs)} are recognised, but training and testing need one each; "
            f"name the folders in an entry of your own"
        )
    (found,) = pairs.values()
    train, test, said = group_split(
        found, share, cache / "audit", cache / MANIFESTS, terminal=terminal
    )
    return {"train": train, "test": test}, said


def _unpacked(source: Path, root: Path | None, name: str, terminal: Terminal) -> Path:
    """Unpack an archive below the data folder; what is in it is not verified yet."""
    if not is_archive(source):
        raise DataError(
            f"{source} is neither a folder nor a zip or tar archive; unpack it yourself and give "
            f"the folder"
        )
    if root is None:
        raise DataError(
            "an archive is unpacked into the data folder; set LPMOE_BENCH_DATA or give --data-root"
        )
    place = root / name
    if place.exists():
        raise DataError(f"{place} is there already; give another --name, or import that folder")
    with staging(root, ADDING, name) as folder:
        target = folder / "tree"
        target.mkdir()
        with terminal.bar(f"unpacking {source.name}", 1) as bar:
            came = unpack(source, target, bar.update)
        if not came.images:
            inside = f"; it holds archives ({shown(came.nested)})" if came.nested else ""
            raise DataError(f"{source} holds no image{inside}; unpack it yourself and try a folder")
        os.rename(target, place)
    return place


# The layout of a folder, from the names of its files alone.


def recognise_ways(folder: Path) -> tuple[dict[str, Way], list[str]]:
    """Return where images and masks of each split lie, and what to know about it.

    Known are, in this order: COCO files; folders of images beside folders of masks, for each split
    or for all; masks beside their images; a folder an image. Raises DataError where none fits.
    """
    files = [
        path.relative_to(folder).as_posix()
        for group in named_files(folder, MASK_SUFFIXES).values()
        for path in group
    ]
    if not any(file.lower().endswith(SUFFIXES) for file in files):
        raise DataError(f"{folder} holds no image files ({', '.join(SUFFIXES)})")
    for way in (_coco, _folders, _annotations, _beside, _folder_each):
        found = way(folder, files)
        if found:
            return _named_splits(found), []
    first = ", ".join(files[:3])
    raise DataError(
        f"no layout is recognised in {folder} (files such as {first}); say where images and masks "
        f'lie in an entry of your own: `layouts: [{{all: ["*/{{name}}.png", '
        f'"*/{{name}}_mask*.png"]}}]`'
    )


def _named_splits(found: Mapping[str, Way]) -> dict[str, Way]:
    """Name splits train, val and test where their places say so; one alone is `all`."""
    if len(found) == 1:
        return {"all": next(iter(found.values()))}
    named: dict[str, Way] = {}
    for place, way in found.items():
        role = _role(place)
        name = role if role not in named else re.sub(r"[^A-Za-z0-9]+", "_", place).strip("_")
        named[name] = way
    return named


def _role(place: str) -> str:
    words = re.split(r"[^a-z]+", place.lower())
    for role, known in (("train", ("train", "training")), ("val", ("val", "valid", "validation"))):
        if any(word.startswith(known) for word in words):
            return role
    return "test"


def _coco(folder: Path, files: Sequence[str]) -> dict[str, Way]:
    """COCO files, each with the folder that holds its images."""
    found: dict[str, Way] = {}
    for file in files:
        if not file.lower().endswith(".json") or not is_coco(folder / file):
            continue
        places = {str(PurePosixPath(f).parent) for f in files if f.lower().endswith(SUFFIXES)}
        roots = sorted({*places, "."}, key=lambda p: (_role(p) != _role(file), p == ".", len(p)))
        for root in roots:
            try:
                find_pairs(folder / root, folder / file)
            except DataError:
                continue
            found[file] = Way(root, file)
            break
    return found


def _folders(folder: Path, files: Sequence[str]) -> dict[str, Way]:
    """Folders of images beside folders of masks, whose names say what they are."""
    places = {str(parent) for file in files for parent in PurePosixPath(file).parents}
    by_parent: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"images": [], "masks": []})
    for place in sorted(places):
        last = PurePosixPath(place).name.lower()
        kind = "images" if last in IMAGES.split() else "masks" if last in MASKS.split() else ""
        if kind:
            by_parent[str(PurePosixPath(place).parent)][kind].append(place)
    found: dict[str, Way] = {}
    for parent, kinds in by_parent.items():
        if not kinds["images"]:  # beside masks, the only other folder is that of the images
            others = [p for p in places if str(PurePosixPath(p).parent) == parent and p != "."]
            kinds["images"] = [place for place in others if place not in kinds["masks"]]
        if len(kinds["images"]) != 1 or len(kinds["masks"]) != 1:
            continue
        images, masks = kinds["images"][0], kinds["masks"][0]
        # images/train beside masks/train: a pair of folders each, for the split is in the name.
        inner = {str(PurePosixPath(p).relative_to(images)) for p in places if _below(p, images)}
        both = sorted(part for part in inner if f"{masks}/{part}" in places and "/" not in part)
        if both and {_role(part) for part in both} >= {"train", "test"}:
            found |= {f"{parent}/{part}": _way(folder, f"{images}/{part}", f"{masks}/{part}")
                      for part in both}  # fmt: skip
        else:
            found[parent] = _way(folder, images, masks)
    return found


def _below(place: str, upper: str) -> bool:
    return place != upper and PurePosixPath(place).is_relative_to(upper)


def _way(folder: Path, images: str, masks: str) -> Way:
    """Return two folders as places, as patterns where their names differ by one rule."""
    one, other = named_files(folder / images, SUFFIXES), named_files(folder / masks, MASK_SUFFIXES)
    if not one.keys() & other.keys():
        rule, count = common_rule(one, other)
        if rule is not None and count >= LEAST_SHARE * len(one):
            of_image, of_mask = rule.patterns()
            return Way(f"{images}/{of_image}", f"{masks}/{of_mask}")
    return Way(images, masks)


def _annotations(folder: Path, files: Sequence[str]) -> dict[str, Way]:
    """Files of labelme, or arrays, beside the images of their names."""
    for ending in ANNOTATIONS:
        names = {file[: -len(ending)] for file in files if file.lower().endswith(ending)}
        images = [f for f in files if f.lower().endswith(SUFFIXES)]
        fitting = [f for f in images if f.rpartition(".")[0] in names]
        if names and len(fitting) >= LEAST_SHARE * len(images):
            kinds = {file.rpartition(".")[2] for file in images}
            suffix = f".{kinds.pop()}" if len(kinds) == 1 else ""
            return {".": Way(f"**/*{suffix}", f"**/*{ending}")}
    return {}


def _beside(folder: Path, files: Sequence[str]) -> dict[str, Way]:
    """Masks in the folders of their images, told by a word at the end of their names."""
    images = [file for file in files if file.lower().endswith(SUFFIXES)]
    marked: dict[str, list[str]] = defaultdict(list)
    plain = {file.rpartition(".")[0] for file in images}
    for file in images:
        stem = file.rpartition(".")[0]
        match = MARK.search(stem, stem.rfind("/") + 1)
        if match and stem[: match.start()] in plain:
            marked[stem[match.start() : match.end()]].append(stem[: match.start()])
    if not marked:
        return {}
    mark, owners = max(marked.items(), key=lambda item: len(item[1]))
    rest = {stem for stem in plain if mark not in PurePosixPath(stem).name}
    if len(set(owners) & rest) < LEAST_SHARE * len(rest):
        return {}
    parts = sorted({PurePosixPath(owner).parts[0] for owner in owners if "/" in owner})
    if {_role(part) for part in parts} >= {"train", "test"} and len(parts) > 1:
        return {part: Way(f"{part}/**/*", f"{part}/**/*{mark}*") for part in parts}
    return {".": Way("**/*", f"**/*{mark}*")}


def _folder_each(folder: Path, files: Sequence[str]) -> dict[str, Way]:
    """A folder an image: paths that are alike once the name of the folder is taken out."""
    forms: dict[str, set[str]] = defaultdict(set)
    for file in files:
        stem = PurePosixPath(file).with_suffix("").as_posix()
        for part in dict.fromkeys(PurePosixPath(file).parts[:-1]):
            if part in PurePosixPath(stem).name:
                forms[stem.replace(part, "{name}")].add(part)
    if not forms:
        return {}
    most = max(map(len, forms.values()))
    whole = [form for form, names in forms.items() if len(names) >= max(2, LEAST_SHARE * most)]
    masks = [form for form in whole if MARK.search(form.rpartition("/")[2])]
    images = [form for form in whole if form not in masks]
    if len(masks) != 1 or len(images) != 1:
        return {}
    return {".": Way(images[0], masks[0])}
