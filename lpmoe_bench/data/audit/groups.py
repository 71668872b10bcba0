"""What an audit looks at and what it found: images, splits, groups."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from lpmoe_bench.data.pairs import not_found, read_table, split_pairs
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules
from lpmoe_bench.data.registry import Dataset, Groups
from lpmoe_bench.data.splits import Split, contents, digest_of

# What an audit found: images that are in two places, groups, and how it was looked for.

VERSION = 1  # of the method: what is kept of another version is not used


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AuditedSplit(_Model):
    """A split that was looked at. label: `data set/split`; digest: of its content, as in records;
    within: splits of the same set that hold all of its images, so that they are not compared."""

    label: str
    role: Literal["train", "validation", "test"]
    images: int
    digest: str
    within: list[str] = []


class Duplicate(_Model):
    """Two image files that show the same.

    one, other: `data set/name`, each with the splits it is in. kind: file (one file that two splits
    list), exact (the same pixels once decoded), near (a copy that was re-encoded, resized, mirrored
    or slightly cropped) or reframed (the same picture or scene, cut out elsewhere). likeness:
    correlation of the fine structure; features: of the backbone's, None where not asked. between:
    the pairs of splits that share it, none for two images of one split. group: what both belong to
    by nature, if anything.
    """

    one: str
    one_splits: list[str]
    other: str
    other_splits: list[str]
    kind: Literal["file", "exact", "near", "reframed"]
    mirrored: bool = False
    likeness: float = 1.0
    features: float | None = None
    between: list[tuple[str, str]] = []
    group: str = ""


class SetGroups(_Model):
    """Groups of one set. source: how they are known. shared: {group: {split: images}} of those in
    two splits that should be apart."""

    dataset: str
    what: str
    source: str
    count: int
    images: int
    shared: dict[str, dict[str, list[str]]] = {}


class Audit(_Model):
    """A whole audit. features: the backbone that confirmed, with its checksum; empty: pixels alone,
    for the reason in `remarks`. candidates: pairs whose hashes are close."""

    version: int = VERSION
    splits: list[AuditedSplit]
    twins: list[Duplicate] = []  # the name that kept reports have
    groups: list[SetGroups] = []
    features: str = ""
    candidates: int = 0
    remarks: list[str] = []

    @property
    def leaks(self) -> list[Duplicate]:
        """Duplicates of no group between training, validation and test, or between sets."""
        return [pair for pair in self._between if pair.kind != "reframed"]

    @property
    def reframed(self) -> list[Duplicate]:
        """The same between them where the framing is another: to be looked at."""
        return [pair for pair in self._between if pair.kind == "reframed"]

    @property
    def _between(self) -> list[Duplicate]:
        return [pair for pair in self.twins if pair.between and not pair.group]

    @property
    def repeats(self) -> list[Duplicate]:
        """Those of no group within one split: no leak, but images that count twice."""
        return [pair for pair in self.twins if not pair.between and not pair.group]

    @property
    def grouped(self) -> list[Duplicate]:
        """Those that one group explains."""
        return [pair for pair in self.twins if pair.group]


# Groups of a data set: which images are frames of one video or show one lesion, where known.


def known_groups(
    dataset: Dataset, place: Path | None, names: Iterable[str]
) -> tuple[dict[str, str], str]:
    """Return {image: group} as far as it is known, and a sentence that says from where.

    place: the set's folder, where a table may lie; None for what names alone tell.
    Raises DataError for a table that is there and cannot be read.
    """
    rule = dataset.groups
    if rule is None:
        return {}, ""
    sure = "" if rule.confirmed else "; a list not confirmed by the set's own"
    if rule.table and place and (place / rule.table[0]).is_file():
        file, image, group = rule.table
        rows = read_table(place / file, image, group)
        table = {row[image]: row[group] for row in rows if row[image] and row[group]}
        found = {name: table[name] for name in names if name in table}
        return found, f"{rule.what}s of {len(found)} images by {file}{sure}"
    if rule.starts:
        found = {name: group for name in names if (group := _by_number(rule, name))}
        return found, f"{rule.what}s of {len(found)} images by their numbers{sure}"
    if rule.folder:
        found = {name: name.rpartition("/")[0] for name in names if "/" in name}
        return found, f"{rule.what}s of {len(found)} images by their folders{sure}"
    if rule.pattern:
        matches = ((name, re.match(rule.pattern, name)) for name in names)
        found = {name: match[1] for name, match in matches if match and match[1]}
        return found, f"{rule.what}s of {len(found)} images by their names{sure}"
    missing = f"{rule.table[0]} is not there, so no {rule.what} is known" if rule.table else ""
    return {}, missing or f"no {rule.what} is known"


def varying_groups(dataset: Dataset, place: Path | None, names: Iterable[str]) -> dict[str, str]:
    """Return {image: group} of the images of a test set that vary together, as far as it is known.

    It is what statistics take for one draw: a known group, or a stretch of it where the set's
    entry cuts groups. Args and errors as of `known_groups`.
    """
    names = list(names)
    found, _ = known_groups(dataset, place, names)
    length = dataset.groups.stretch if dataset.groups else 0
    if not length:
        return found
    seen: Counter[str] = Counter()
    cut: dict[str, str] = {}
    for name in sorted(found, key=_in_order):
        group = found[name]
        cut[name] = f"{group} stretch {1 + seen[group] // length}"
        seen[group] += 1
    return {name: cut[name] for name in names if name in cut}


def _in_order(name: str) -> list[tuple[int, str]]:
    """Sort frame9 before frame10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _by_number(rule: Groups, name: str) -> str:
    """Return the group of a name that is a number, empty for other names."""
    if not name.isdecimal() or not rule.starts[0] <= int(name) <= rule.last:
        return ""
    return str(bisect_right(rule.starts, int(name)))


def connected(pairs: Iterable[Sequence[int]]) -> list[list[int]]:
    """Return what pairs of numbers join, each sorted, in the order of their first."""
    from scipy import sparse  # here, since whoever reads a kept audit has nothing to join
    from scipy.sparse.csgraph import connected_components

    ends = np.array(list(pairs), int).reshape(-1, 2)
    if not len(ends):
        return []
    # Only numbers that occur are nodes of the graph: most images are joined to nothing.
    numbers, places = np.unique(ends, return_inverse=True)
    places = places.reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(len(ends)), places), (len(numbers), len(numbers)))
    joined: dict[int, list[int]] = {}
    for number, label in zip(numbers, connected_components(graph, False)[1], strict=True):
        joined.setdefault(int(label), []).append(int(number))
    return list(joined.values())


# The images of data sets that are on disk: each file once, with the splits that list it.


@dataclass(frozen=True)
class Image:
    """An image file of a set. splits: labels of those that list it; content: SHA-256 of the file;
    group: `data set/what group`, empty where none is known; rules: what its values mean."""

    dataset: str
    name: str
    path: Path
    content: str
    splits: tuple[str, ...]
    group: str = ""
    rules: PixelRules = UNDECLARED

    @property
    def label(self) -> str:
        return f"{self.dataset}/{self.name}"


@dataclass(frozen=True)
class Gathered:
    """A set as it is on disk; groups: where they are known from."""

    dataset: Dataset
    splits: list[AuditedSplit]
    images: list[Image]
    groups: str


def gather_images(dataset: Dataset, root: Path | None, cache: Path | None) -> Gathered:
    """List the images of all splits of a set that are there; raises DataError when none is."""
    place = dataset.location(root)
    if place is None:
        raise not_found(dataset, root)
    listed: dict[str, dict[Path, tuple[str, str]]] = {}  # {split: {image: (name, checksum)}}
    digests: dict[str, str] = {}
    for name in dataset.split_names:
        pairs = split_pairs(dataset, place, name)
        if pairs is not None:
            read = list(contents(Split(dataset.name, name), pairs, cache))
            digests[name] = digest_of(read)
            listed[name] = {pair.image: (pair.name, facts.image_checksum) for pair, facts in read}
    if not listed:
        raise not_found(dataset, root)
    splits = [
        AuditedSplit(
            label=f"{dataset.name}/{name}",
            role=dataset.role(name),
            images=len(files),
            digest=digests[name],
            within=[
                f"{dataset.name}/{other}"
                for other, others in listed.items()
                if other != name and files.keys() <= others.keys()
            ],
        )
        for name, files in listed.items()
    ]
    # Each file once, however many splits list it: those share one image, and not two equal ones.
    facts = {path: fact for files in listed.values() for path, fact in files.items()}
    groups, source = known_groups(dataset, place, [name for name, _ in facts.values()])
    what = f"{dataset.name}: {dataset.groups.what}" if dataset.groups else ""
    images = [
        Image(
            dataset.name,
            name,
            path,
            content,
            tuple(f"{dataset.name}/{split}" for split in listed if path in listed[split]),
            f"{what} {groups[name]}" if name in groups else "",
            dataset.pixels,
        )
        for path, (name, content) in sorted(facts.items())
    ]
    return Gathered(dataset, splits, images, source)


def compared(splits: Sequence[AuditedSplit]) -> list[tuple[str, str]]:
    """Return the pairs of splits that are compared: all of which neither holds the other."""
    return [
        (one.label, other.label)
        for one, other in combinations(splits, 2)
        if one.label not in other.within and other.label not in one.within
    ]
