"""The audit: every image of the sets compared with every other, exact and near, groups apart."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.audit import groups as grouping
from lpmoe_bench.data.audit import search
from lpmoe_bench.data.registry import Dataset
from lpmoe_bench.data.splits import MANIFESTS
from lpmoe_bench.errors import ResourceError
from lpmoe_bench.files import write_atomically

FOLDER = "audit"  # of the cache: signatures by set, reports by everything that they depend on


def audit_sets(
    datasets: Sequence[Dataset],
    root: Path | None,
    cache: Path,
    terminal: Terminal,
    features: search.FeatureLikeness | None = None,
    why_not: str = "",
) -> grouping.Audit:
    """Compare all images of these sets with each other; what is known is taken from the cache.

    features: of the backbone that confirms near duplicates; None leaves it to the pixels, and
    `why_not` is said. Raises DataError for a set that is not there or an image that is broken.
    """
    sets = []
    for dataset in datasets:
        with terminal.bar(f"opening {dataset.name}", 1) as bar:
            sets.append(grouping.gather_images(dataset, root, cache / MANIFESTS))
            bar.update(1, 1)
    file = cache / FOLDER / f"report-{_key(sets, features)}.json"
    with suppress(OSError, ValueError):  # not there, or not what was written: made again
        return grouping.Audit.model_validate_json(file.read_text(encoding="utf-8"))
    found = _audit(sets, cache / FOLDER, terminal, features, why_not)
    with suppress(ResourceError):  # a full or read-only disk: the next time is slower, that is all
        write_atomically(file, found.model_dump_json())
    return found


def _key(sets: Sequence[grouping.Gathered], features: search.FeatureLikeness | None) -> str:
    """Hash what a report depends on: content, lists and groups of the sets, method, weights."""
    lines = [f"audit {grouping.VERSION}", features.sha256 if features else "pixels"]
    for one in sets:
        lines += [one.groups, *(split.model_dump_json() for split in one.splits)]
        lines += [f"{i.label}\0{i.content}\0{i.group}\0{i.splits}" for i in one.images]
        lines += [one.dataset.groups.model_dump_json()] if one.dataset.groups else []
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]


def _audit(
    sets: list[grouping.Gathered],
    cache: Path,
    terminal: Terminal,
    features: search.FeatureLikeness | None,
    why_not: str,
) -> grouping.Audit:
    images = [image for one in sets for image in one.images]
    splits = [split for one in sets for split in one.splits]
    found = [search.signatures(one.dataset.name, one.images, cache, terminal) for one in sets]
    together = search.Signatures(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    matches, candidates = search.find_matches(images, together, terminal, features)
    # Only after the search: it asks the backbone about all that the set's own groups leave open.
    alike = {one.dataset.name for one in sets if one.dataset.groups and one.dataset.groups.alike}
    images = _join_alike(images, matches, alike)
    pairs = grouping.compared(splits)
    duplicates = [_duplicate(match, images, pairs) for match in matches]
    duplicates += _same_files(images, pairs)
    remarks = [
        f"{split.label} is a part of {', '.join(split.within)}: these are not compared"
        for split in splits
        if split.within
    ]
    if features is None and why_not:
        remarks.append(f"near duplicates are confirmed by pixels alone: {why_not}")
    return grouping.Audit(
        splits=splits,
        twins=sorted(duplicates, key=lambda t: (not t.between, t.kind, t.one, t.other)),
        groups=[_groups_of(one, images, pairs) for one in sets if one.dataset.groups],
        features=f"{features.backbone}, weights {features.sha256[:12]}" if features else "",
        candidates=candidates,
        remarks=remarks,
    )


def _join_alike(
    images: Sequence[grouping.Image], matches: Iterable[search.Match], sets: set[str]
) -> list[grouping.Image]:
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
    for members in grouping.connected(pairs):
        # One known group takes the others in. Two known ones are apart by the set's own word, so
        # what links them gets a group of its own.
        known = {images[k].group for k in members if images[k].group}
        label = f"{images[members[0]].dataset}: like {images[members[0]].name}"
        for k in members:
            joined[k] = replace(joined[k], group=min(known) if len(known) == 1 else label)
    return joined


def _groups_of(
    one: grouping.Gathered, images: Sequence[grouping.Image], pairs: Sequence[tuple[str, str]]
) -> grouping.SetGroups:
    """Return what is known of a set's groups: how many there are, and which lie in two splits."""
    rule = one.dataset.groups
    assert rule is not None
    members: dict[str, list[grouping.Image]] = defaultdict(list)
    for image in images:
        if image.dataset == one.dataset.name and image.group:
            members[image.group].append(image)
    several = {name: inner for name, inner in members.items() if len(inner) > 1}
    shared = {}
    for name, inner in several.items():
        where: dict[str, list[str]] = defaultdict(list)
        for image in inner:
            for split in image.splits:
                where[split].append(image.name)
        if any(a in where and b in where for a, b in pairs):
            shared[name] = where
    more = f"; near duplicates are taken for one {rule.what}" if rule.alike else ""
    return grouping.SetGroups(
        dataset=one.dataset.name,
        what=rule.what,
        source=one.groups + more,
        count=len(several),
        images=sum(map(len, several.values())),
        shared=shared,
    )


def _duplicate(
    match: search.Match, images: Sequence[grouping.Image], pairs: list[tuple[str, str]]
) -> grouping.Duplicate:
    one, other = images[match.first], images[match.second]
    return grouping.Duplicate(
        one=one.label,
        one_splits=list(one.splits),
        other=other.label,
        other_splits=list(other.splits),
        kind="exact" if match.exact else "near" if match.shift <= search.MOST_SHIFT else "reframed",
        mirrored=match.mirrored,
        likeness=round(match.likeness, 4),
        features=None if match.features is None else round(match.features, 4),
        between=[
            (a, b)
            for a, b in pairs
            if (a in one.splits and b in other.splits) or (b in one.splits and a in other.splits)
        ],
        group=one.group if one.group == other.group else "",
    )


def _same_files(
    images: Sequence[grouping.Image], pairs: list[tuple[str, str]]
) -> Iterator[grouping.Duplicate]:
    """Yield the files that two splits list which should be apart."""
    for image in images:
        shared = [(a, b) for a, b in pairs if a in image.splits and b in image.splits]
        if shared:
            splits = list(image.splits)
            yield grouping.Duplicate(
                one=image.label,
                one_splits=splits,
                other=image.label,
                other_splits=splits,
                kind="file",
                between=shared,
            )


# An audit as text for people, as JSON and as Markdown: names and counts, no paths, no pixels.

KINDS = {"file": "the same file", "exact": "exact", "near": "near", "reframed": "reframed"}
SHOWN = 20  # of one kind in text; JSON has them all, Markdown too

HOW = (
    f"How it was looked for: exact duplicates have the same pixels once decoded (EXIF applied). "
    f"Near ones have hashes that differ in at most {search.MOST_BITS} of 128 bits, as they are or "
    f"mirrored left to right, and the fine structure of their {search.SIDE} x {search.SIDE} "
    f"thumbnails correlates by {search.SURE} once one is laid onto the other; reframed ones had to "
    f"be moved by more than {search.MOST_SHIFT:.0%} of a side for it. This finds copies that were "
    f"resized, re-encoded, brightened, mirrored or cropped by up to about 5 % of a side, half of "
    f"the crops of 10 %, and consecutive frames of a scene. Other rotations, and mirroring upside "
    f"down, are not sought."
)


def _rows(audit: grouping.Audit) -> Iterator[tuple[str, str, dict[str, int]]]:
    """Yield (splits, roles, images that they share by kind) for each pair that was compared."""
    roles = {split.label: split.role for split in audit.splits}
    for one, other in grouping.compared(audit.splits):
        here = [t for t in audit.twins if (one, other) in t.between]
        free = [t for t in here if not t.group]
        counts = {kind: sum(t.kind == kind for t in free) for kind in KINDS}
        counts |= {"mirrored": sum(t.mirrored for t in free), "grouped": len(here) - len(free)}
        yield f"{one} and {other}", f"{roles[one]}, {roles[other]}", counts


def audit_json(audit: grouping.Audit) -> dict[str, Any]:
    """Return all that was found."""
    kinds = ("leaks", "reframed", "repeats", "grouped")
    counts = {name: len(getattr(audit, name)) for name in kinds}
    return counts | audit.model_dump(mode="json")


def audit_text(audit: grouping.Audit) -> str:
    """Return the findings for a terminal."""
    lines = [f"{s.label}: {s.images} images, for {s.role}" for s in audit.splits]
    lines += ["", _verdict(audit)]
    for splits, roles, counts in _rows(audit):
        said = [f"{counts[kind]} {text}" for kind, text in KINDS.items() if counts[kind]]
        said += [f"{counts['grouped']} of one group"] if counts["grouped"] else []
        said += [f"{counts['mirrored']} of them mirrored"] if counts["mirrored"] else []
        lines += [f"  {splits}: {', '.join(said)} ({roles})"] if said else []
    for title, duplicates in _lists(audit):
        lines += ["", f"{title}:", *_first(f"  {_sentence(one)}" for one in duplicates)]
    for groups in audit.groups:
        first, *others = _group_lines(groups)
        lines += ["", first, *_first(f"  {line}" for line in others)]
    lines += ["", _confirmed(audit), HOW, *(f"note: {remark}" for remark in audit.remarks)]
    return "\n".join(lines)


def audit_markdown(audit: grouping.Audit) -> str:
    """Return tables of splits and of what they share, then every finding by name."""
    lines = [_verdict(audit), "", "| split | for | images | content digest |", "|---|---|---|---|"]
    lines += [f"| {s.label} | {s.role} | {s.images} | `{s.digest[:16]}` |" for s in audit.splits]
    rows = list(_rows(audit))
    several = len({split.label.partition("/")[0] for split in audit.splits}) > 1
    # The pairs of many sets are many, and most share nothing; those of one set are all told.
    kept = [row for row in rows if any(row[2].values())] if several else rows
    if kept:
        names = "splits, roles, same file, exact, near, reframed, of these mirrored, grouped"
        lines += ["", f"| {names.replace(', ', ' | ')} |", "|---|---|---|---|---|---|---|---|"]
        for splits, roles, counts in kept:
            lines.append(f"| {' | '.join((splits, roles, *map(str, counts.values())))} |")
    if several:
        lines += ["", f"{len(rows) - len(kept)} of {len(rows)} pairs of splits share nothing."]
    for title, duplicates in _lists(audit):
        lines += ["", f"{title}:", "", *(f"- {_sentence(one)}" for one in duplicates)]
    for groups in audit.groups:
        lines += ["", *(f"{line}  " for line in _group_lines(groups))]
    lines += ["", _confirmed(audit), "", HOW]
    lines += [""] * bool(audit.remarks) + [f"- {remark}" for remark in audit.remarks]
    return "\n".join(lines) + "\n"


def _verdict(audit: grouping.Audit) -> str:
    """Say in one sentence what was found."""
    kinds = (
        (audit.leaks, "duplicate", "between splits or sets"),
        (audit.reframed, "picture", "in two framings: look at them"),
        (audit.repeats, "pair", "within one split"),
        (audit.grouped, "near duplicate", "within groups, by nature"),
    )
    parts = [
        f"{len(found)} {what}{'' if len(found) == 1 else 's'} {where}"
        for found, what, where in kinds
        if found
    ]
    if not audit.leaks:  # what the reader came for is always answered
        parts.insert(0, "No duplicate between splits or sets")
    return "; ".join(parts) + "."


def _confirmed(audit: grouping.Audit) -> str:
    pairs = f"{audit.candidates} pairs of images had close hashes; near duplicates are confirmed in"
    if audit.features:
        return (
            f"{pairs} the features of {audit.features} (at least {search.LEAST_FEATURES}), but for "
            f"those within a known group."
        )
    return f"{pairs} the pixels alone."


def _lists(audit: grouping.Audit) -> list[tuple[str, list[grouping.Duplicate]]]:
    """Return (title, duplicates) of each kind that is named one by one, where there are any."""
    lists = {
        "Duplicates": audit.leaks,
        "The same picture or scene in another framing": audit.reframed,
        "Within one split, no leak": audit.repeats,
    }
    return [(title, found) for title, found in lists.items() if found]


def _first(lines: Iterable[str]) -> list[str]:
    """Return the first lines, and how many more there are."""
    lines = list(lines)
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"  and {more} more; --json and -o list all"] if more > 0 else [])


def _sentence(found: grouping.Duplicate) -> str:
    if found.kind == "file":
        return f"{found.one}: one file in {' and '.join(found.one_splits)}"
    places = [
        f"{label} ({', '.join(s.partition('/')[2] for s in splits)})"
        for label, splits in ((found.one, found.one_splits), (found.other, found.other_splits))
    ]
    facts = [found.kind, *(["mirrored"] if found.mirrored else [])]
    if found.kind in ("near", "reframed"):
        facts.append(f"structure {found.likeness:.2f}")
    if found.features is not None:
        facts.append(f"features {found.features:.3f}")
    return f"{' = '.join(places)}: {', '.join(facts)}"


def _group_lines(groups: grouping.SetGroups) -> list[str]:
    """Return a summary of a set's groups, then a line for each that lies in two splits."""
    lines = [
        f"{groups.dataset}, groups: {groups.source}. {groups.count} {groups.what}s of several "
        f"images ({groups.images} images), {len(groups.shared)} of them in two splits that should "
        f"be apart."
    ]
    for name, where in groups.shared.items():
        places = "; ".join(f"{split}: {', '.join(names)}" for split, names in where.items())
        lines.append(f"{name.partition(': ')[2]}: {places}")
    return lines
