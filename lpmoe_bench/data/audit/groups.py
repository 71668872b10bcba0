"""What an audit looks at and what it found: images, splits, groups."""

import csv
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lpmoe_bench.data.pairs import split_pairs
from lpmoe_bench.data.registry import Dataset, Groups
from lpmoe_bench.data.splits import Split, contents, digest_of
from lpmoe_bench.errors import DataError

# What an audit found: images that are in two places, groups, and how it was looked for.


VERSION = 1  # of the method: what is kept of another version is not used

Role = Literal["train", "validation", "test"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AuditedSplit(_Model):
    """A split that was looked at. label: `data set/split`; digest: of its content, as in records;
    within: splits of the same set that hold all of its images, so that they are not compared."""

    label: str
    role: Role
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


def known_groups(dataset: Dataset, place: Path, names: Iterable[str]) -> tuple[dict[str, str], str]:
    """Return {image: group} as far as it is known, and a sentence that says from where.

    Raises DataError for a table that is there and cannot be read.
    """
    rule = dataset.groups
    if rule is None:
        return {}, ""
    sure = "" if rule.confirmed else "; a list not confirmed by the set's own"
    if rule.table and (place / rule.table[0]).is_file():
        table = _read(place / rule.table[0], *rule.table[1:])
        found = {name: table[name] for name in names if name in table}
        return found, f"{rule.what}s of {len(found)} images by {rule.table[0]}{sure}"
    if rule.starts:
        found = {name: group for name in names if (group := _by_number(rule, name))}
        return found, f"{rule.what}s of {len(found)} images by their numbers{sure}"
    missing = f"{rule.table[0]} is not there, so no {rule.what} is known" if rule.table else ""
    return {}, missing or f"no {rule.what} is known"


def _by_number(rule: Groups, name: str) -> str:
    """Return the group of a name that is a number, empty for other names."""
    if not name.isdecimal() or not rule.starts[0] <= int(name) <= rule.last:
        return ""
    return str(bisect_right(rule.starts, int(name)))


def _read(path: Path, name: str, group: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"table {path} cannot be read ({error})") from None
    if not rows or not {name, group} <= rows[0].keys():
        raise DataError(f"table {path} must have rows with the columns {name} and {group}")
    return {row[name]: row[group] for row in rows if row[name] and row[group]}


def connected(pairs: Iterable[Sequence[int]]) -> list[list[int]]:
    """Return what pairs of numbers join, each sorted, in the order of their first."""
    root: dict[int, int] = {}

    def find(item: int) -> int:
        root.setdefault(item, item)
        while root[item] != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    for one, other in pairs:
        first, second = sorted((find(one), find(other)))
        root[second] = first
    joined: dict[int, list[int]] = {}
    for item in sorted(root):
        joined.setdefault(find(item), []).append(item)
    return list(joined.values())


# The images of data sets that are on disk: each file once, with the splits that list it.


@dataclass(frozen=True)
class Image:
    """An image file of a set. splits: labels of those that list it; content: SHA-256 of the file;
    group: `data set/what group`, empty where none is known."""

    dataset: str
    name: str
    path: Path
    content: str
    splits: tuple[str, ...]
    group: str = ""

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
    names = dataset.split_names if place else []
    listed: dict[str, dict[Path, tuple[str, str]]] = {}
    digests: dict[str, str] = {}
    for name in names:
        assert place is not None
        pairs = split_pairs(dataset, place, name)
        if pairs is None:
            continue
        read = list(contents(Split(dataset.name, name, (), ""), pairs, cache))
        digests[name] = digest_of(read)
        listed[name] = {p.image: (p.name, facts.content.partition("\0")[0]) for p, facts in read}
    if not listed:
        where = f"under {root}" if root else "anywhere (LPMOE_BENCH_DATA is not set)"
        raise DataError(f"{dataset.name} is not {where}; see lpmoe-bench data show {dataset.name}")
    assert place is not None
    facts = {path: fact for files in listed.values() for path, fact in files.items()}
    groups, source = known_groups(dataset, place, [name for name, _ in facts.values()])
    splits = [_split(dataset, name, listed, digests[name]) for name in listed]
    images = [
        Image(
            dataset.name,
            name,
            path,
            content,
            tuple(f"{dataset.name}/{split}" for split in listed if path in listed[split]),
            group_label(dataset, groups[name]) if name in groups else "",
        )
        for path, (name, content) in sorted(facts.items())
    ]
    return Gathered(dataset, splits, images, source)


def group_label(dataset: Dataset, group: str) -> str:
    assert dataset.groups is not None
    return f"{dataset.name}: {dataset.groups.what} {group}"


def _split(
    dataset: Dataset, name: str, listed: dict[str, dict[Path, tuple[str, str]]], digest: str
) -> AuditedSplit:
    files = listed[name].keys()
    around = [n for n in listed if n != name and files <= listed[n].keys()]
    labels = [f"{dataset.name}/{n}" for n in around]
    label = f"{dataset.name}/{name}"
    role = dataset.role(name)
    return AuditedSplit(label=label, role=role, images=len(files), digest=digest, within=labels)


def compared(splits: Sequence[AuditedSplit]) -> list[tuple[str, str]]:
    """Return the pairs of splits that are compared: all of which neither holds the other."""
    return [
        (one.label, other.label)
        for one, other in combinations(splits, 2)
        if one.label not in other.within and other.label not in one.within
    ]
