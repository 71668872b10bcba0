"""What is said of a set's groups: how many there are, and which lie in two splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lpmoe_bench.audit.gather import Gathered, Image
from lpmoe_bench.audit.groups import connected
from lpmoe_bench.audit.model import SetGroups
from lpmoe_bench.audit.search import Match


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
