"""The audit: every image of the sets compared with every other, exact and near, groups apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lpmoe_bench.data.audit.groups import (
    VERSION,
    Audit,
    AuditedSplit,
    Gathered,
    Image,
    SetGroups,
    Twins,
    compared,
    connected,
    gather,
)
from lpmoe_bench.data.audit.likeness import FeatureLikeness
from lpmoe_bench.data.audit.search import MOST_SHIFT, Match, Signatures, find_matches, signatures
from lpmoe_bench.data.library.verify import Bars
from lpmoe_bench.data.registry import Dataset
from lpmoe_bench.data.tasks import MANIFESTS
from lpmoe_bench.errors import ResourceError
from lpmoe_bench.files import write_atomically

# What is said of a set's groups: how many there are, and which lie in two splits.


def join_alike(images: Sequence[Image], matches: Iterable[Match], sets: set[str]) -> list[Image]:
    """Make near duplicates of these sets one group each, where no group is known: by likeness."""
    joined = list(images)
    pairs = [
        (match.first, match.second)
        for match in matches
        if not match.exact
        and images[match.first].dataset == images[match.second].dataset
        and images[match.first].dataset in sets
        and not (images[match.first].group and images[match.second].group)
    ]
    for members in connected(pairs):
        known = {images[k].group for k in members if images[k].group}
        label = f"{images[members[0]].dataset}: like {images[members[0]].name}"
        for k in members:
            joined[k] = replace(joined[k], group=min(known) if len(known) == 1 else label)
    return joined


def report_groups(
    one: Gathered, images: Sequence[Image], pairs: Sequence[tuple[str, str]]
) -> SetGroups | None:
    """Return what is known of a set's groups; None for a set whose entry names none."""
    rule = one.dataset.groups
    if rule is None:
        return None
    members: dict[str, list[Image]] = {}
    for image in images:
        if image.dataset == one.dataset.name and image.group:
            members.setdefault(image.group, []).append(image)
    several = {name: inner for name, inner in members.items() if len(inner) > 1}
    source = one.groups
    if rule.alike:
        source += f"; near duplicates are taken for one {rule.what}"
    shared = {}
    for name, inner in several.items():
        where = _where(inner)
        if any(a in where and b in where for a, b in pairs):
            shared[name] = where
    return SetGroups(
        dataset=one.dataset.name,
        what=rule.what,
        source=source,
        count=len(several),
        images=sum(map(len, several.values())),
        shared=shared,
    )


def _where(images: Sequence[Image]) -> dict[str, list[str]]:
    """Return {split: names} of a group."""
    found: dict[str, list[str]] = {}
    for image in images:
        for split in image.splits:
            found.setdefault(split, []).append(image.name)
    return found


FOLDER = "audit"  # of the cache: signatures by set, reports by everything that they depend on


def audit_sets(
    datasets: Sequence[Dataset],
    root: Path | None,
    cache: Path,
    bars: Bars,
    features: FeatureLikeness | None = None,
    why_not: str = "",
) -> Audit:
    """Compare all images of these sets with each other; what is known is taken from the cache.

    features: of the backbone that confirms near duplicates; None leaves it to the pixels, and
    `why_not` is said. Raises DataError for a set that is not there or an image that is broken.
    """
    sets = []
    for dataset in datasets:
        with bars.bar(f"opening {dataset.name}", 1) as bar:
            sets.append(gather(dataset, root, cache / MANIFESTS))
            bar.update(1, 1)
    file = cache / FOLDER / f"report-{_key(sets, features)}.json"
    known = _kept(file)
    if known is not None:
        return known
    found = _audit(sets, cache / FOLDER, bars, features, why_not)
    with suppress(ResourceError):  # a full or read-only disk: the next time is slower, that is all
        write_atomically(file, found.model_dump_json())
    return found


def _key(sets: Sequence[Gathered], features: FeatureLikeness | None) -> str:
    """Hash what a report depends on: content, lists and groups of the sets, method, weights."""
    lines = [f"audit {VERSION}", features.sha256 if features else "pixels"]
    for one in sets:
        lines += [one.groups, *(split.model_dump_json() for split in one.splits)]
        lines += [f"{i.label}\0{i.content}\0{i.group}\0{i.splits}" for i in one.images]
        lines += [one.dataset.groups.model_dump_json()] if one.dataset.groups else []
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]


def _kept(file: Path) -> Audit | None:
    try:
        return Audit.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None


def _audit(
    sets: list[Gathered], cache: Path, bars: Bars, features: FeatureLikeness | None, why_not: str
) -> Audit:
    images = [image for one in sets for image in one.images]
    splits = [split for one in sets for split in one.splits]
    found = [_signatures(one, cache, bars) for one in sets]
    together = Signatures(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    matches, candidates = find_matches(images, together, bars, features)
    alike = {one.dataset.name for one in sets if one.dataset.groups and one.dataset.groups.alike}
    images = join_alike(images, matches, alike)
    pairs = compared(splits)
    twins = [_twins(match, images, pairs) for match in matches]
    twins += _same_files(images, pairs)
    return Audit(
        splits=splits,
        twins=sorted(twins, key=lambda t: (not t.between, t.kind, t.one, t.other)),
        groups=[r for one in sets if (r := report_groups(one, images, pairs)) is not None],
        features=f"{features.backbone}, weights {features.sha256[:12]}" if features else "",
        candidates=candidates,
        remarks=list(_remarks(splits, why_not if features is None else "")),
    )


def _signatures(one: Gathered, cache: Path, bars: Bars) -> Signatures:
    paths, contents = [i.path for i in one.images], [i.content for i in one.images]
    with bars.bar(f"reading {one.dataset.name}", len(paths)) as bar:
        return signatures(paths, contents, cache, bar.update)


def _twins(match: Match, images: Sequence[Image], pairs: list[tuple[str, str]]) -> Twins:
    one, other = images[match.first], images[match.second]
    same = bool(one.group) and one.group == other.group
    return Twins(
        one=one.label,
        one_splits=list(one.splits),
        other=other.label,
        other_splits=list(other.splits),
        kind="exact" if match.exact else "near" if match.shift <= MOST_SHIFT else "reframed",
        mirrored=match.mirrored,
        likeness=round(match.likeness, 4),
        features=None if match.features is None else round(match.features, 4),
        between=between(one.splits, other.splits, pairs),
        group=one.group if same else "",
    )


def between(
    one: Sequence[str], other: Sequence[str], pairs: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return those of the compared pairs of splits that two images lie in, one each."""
    return [(a, b) for a, b in pairs if (a in one and b in other) or (b in one and a in other)]


def _same_files(images: Sequence[Image], pairs: list[tuple[str, str]]) -> Iterator[Twins]:
    """Yield the files that two splits list which should be apart."""
    for image in images:
        shared = [(a, b) for a, b in pairs if a in image.splits and b in image.splits]
        if shared:
            splits = list(image.splits)
            yield Twins(
                one=image.label,
                one_splits=splits,
                other=image.label,
                other_splits=splits,
                kind="file",
                between=shared,
            )


def _remarks(splits: Sequence[AuditedSplit], why_not: str) -> Iterator[str]:
    for split in splits:
        if split.within:
            yield f"{split.label} is a part of {', '.join(split.within)}: these are not compared"
    if why_not:
        yield f"near duplicates are confirmed by pixels alone: {why_not}"
