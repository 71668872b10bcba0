"""The images of data sets that are on disk: each file once, with the splits that list it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from lpmoe_bench.audit.groups import known_groups
from lpmoe_bench.audit.model import AuditedSplit
from lpmoe_bench.errors import DataError
from lpmoe_bench.registry.layouts import split_pairs
from lpmoe_bench.registry.schema import Dataset
from lpmoe_bench.registry.splits import Split, contents, digest_of


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


def gather(dataset: Dataset, root: Path | None, cache: Path | None) -> Gathered:
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
