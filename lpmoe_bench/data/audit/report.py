"""An audit as text for people, as JSON and as Markdown: names and counts, no paths, no pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lpmoe_bench.data.audit.groups import Audit, SetGroups, Twins, compared
from lpmoe_bench.data.audit.search import LEAST_FEATURES, MOST_BITS, MOST_SHIFT, SIDE, SURE

KINDS = ("file", "exact", "near", "reframed")
SHOWN = 20  # of one kind in text; JSON has them all, Markdown too

HOW = (
    f"How it was looked for: exact duplicates have the same pixels once decoded (EXIF applied). "
    f"Near ones have hashes that differ in at most {MOST_BITS} of 128 bits, as they are or "
    f"mirrored left to right, and the fine structure of their {SIDE} x {SIDE} thumbnails "
    f"correlates by {SURE} once one is laid onto the other; reframed ones had to be moved by more "
    f"than {MOST_SHIFT:.0%} of a side for it. This finds copies that were resized, re-encoded, "
    f"brightened, mirrored or cropped by up to about 5 % of a side, half of the crops of 10 %, and "
    f"consecutive frames of a scene. Other rotations, and mirroring upside down, are not sought."
)


class Row(NamedTuple):
    """How many images two splits share, by kind."""

    one: str
    other: str
    roles: str
    file: int
    exact: int
    near: int
    reframed: int
    mirrored: int
    grouped: int

    @property
    def any(self) -> bool:
        return any(self[3:])


def rows(audit: Audit) -> list[Row]:
    """Return one row for each pair of splits that was compared."""
    roles = {split.label: split.role for split in audit.splits}
    found = []
    for one, other in compared(audit.splits):
        here = [t for t in audit.twins if (one, other) in t.between]
        free = [t for t in here if not t.group]
        file, exact, near, reframed = (sum(t.kind == kind for t in free) for kind in KINDS)
        mirrored, grouped = sum(t.mirrored for t in free), len(here) - len(free)
        both = f"{roles[one]}, {roles[other]}"
        found.append(Row(one, other, both, file, exact, near, reframed, mirrored, grouped))
    return found


def as_json(audit: Audit) -> dict[str, Any]:
    """Return all that was found."""
    kinds = ("leaks", "reframed", "repeats", "grouped")
    counts = {name: len(getattr(audit, name)) for name in kinds}
    return counts | audit.model_dump(mode="json")


def as_text(audit: Audit) -> str:
    """Return the findings for a terminal."""
    lines = [f"{s.label}: {s.images} images, for {s.role}" for s in audit.splits]
    lines += ["", verdict(audit)]
    lines += [f"  {row.one} and {row.other}: {_counts(row)}" for row in rows(audit) if row.any]
    for title, twins in _lists(audit):
        lines += ["", f"{title}:", *(f"  {text}" for text in _shown(twins))]
    for groups in audit.groups:
        lines += ["", *_group_lines(groups)]
    lines += ["", _confirmed(audit), HOW, *(f"note: {remark}" for remark in audit.remarks)]
    return "\n".join(lines)


def as_markdown(audit: Audit) -> str:
    """Return tables of splits and of what they share, then every finding by name."""
    lines = [verdict(audit), "", "| split | for | images | content digest |", "|---|---|---|---|"]
    lines += [f"| {s.label} | {s.role} | {s.images} | `{s.digest[:16]}` |" for s in audit.splits]
    said = rows(audit)
    several = len({split.label.partition("/")[0] for split in audit.splits}) > 1
    kept = [row for row in said if row.any] if several else said
    if kept:
        names = "splits, roles, same file, exact, near, reframed, of these mirrored, grouped"
        lines += ["", f"| {names.replace(', ', ' | ')} |", "|---|---|---|---|---|---|---|---|"]
        lines += [f"| {r.one} and {r.other} | {' | '.join(map(str, r[2:]))} |" for r in kept]
    if several:
        lines += ["", f"{len(said) - len(kept)} of {len(said)} pairs of splits share nothing."]
    for title, twins in _lists(audit):
        lines += ["", f"{title}:", "", *(f"- {_words(t)}" for t in twins)]
    for groups in audit.groups:
        lines += ["", *(f"{line.strip()}  " for line in _group_lines(groups, len(groups.shared)))]
    lines += ["", _confirmed(audit), "", HOW]
    lines += [""] * bool(audit.remarks) + [f"- {remark}" for remark in audit.remarks]
    return "\n".join(lines) + "\n"


def verdict(audit: Audit) -> str:
    """Say in one sentence what was found."""
    parts = [f"{_count(audit.leaks, 'duplicate') or 'No duplicate'} between splits or sets"]
    if audit.reframed:
        parts.append(f"{_count(audit.reframed, 'picture')} in two framings: look at them")
    if audit.repeats:
        parts.append(f"{_count(audit.repeats, 'pair')} within one split")
    if audit.grouped:
        parts.append(f"{_count(audit.grouped, 'near duplicate')} within groups, by nature")
    return "; ".join(parts) + "."


def _count(twins: Sequence[Twins], what: str) -> str:
    return f"{len(twins)} {what}{'' if len(twins) == 1 else 's'}" if twins else ""


def _confirmed(audit: Audit) -> str:
    pairs = f"{audit.candidates} pairs of images had close hashes"
    if audit.features:
        return (
            f"{pairs}; near duplicates are confirmed in the features of {audit.features} (at least "
            f"{LEAST_FEATURES}), but for those within a known group."
        )
    return f"{pairs}; near duplicates are confirmed in the pixels alone."


def _lists(audit: Audit) -> Iterator[tuple[str, Sequence[Twins]]]:
    if audit.leaks:
        yield "Duplicates", audit.leaks
    if audit.reframed:
        yield "The same picture or scene in another framing", audit.reframed
    if audit.repeats:
        yield "Within one split, no leak", audit.repeats


def _shown(twins: Sequence[Twins]) -> list[str]:
    more = len(twins) - SHOWN
    hidden = [f"and {more} more; --json and -o list all"] if more > 0 else []
    return [_words(one) for one in twins[:SHOWN]] + hidden


def _words(twins: Twins) -> str:
    if twins.kind == "file":
        return f"{twins.one}: one file in {' and '.join(twins.one_splits)}"
    places = [
        f"{label} ({', '.join(s.partition('/')[2] for s in splits)})"
        for label, splits in ((twins.one, twins.one_splits), (twins.other, twins.other_splits))
    ]
    facts = [twins.kind, *(["mirrored"] if twins.mirrored else [])]
    if twins.kind in ("near", "reframed"):
        facts.append(f"structure {twins.likeness:.2f}")
    if twins.features is not None:
        facts.append(f"features {twins.features:.3f}")
    return f"{' = '.join(places)}: {', '.join(facts)}"


def _counts(row: Row) -> str:
    words = {"file": "the same file", "exact": "exact", "near": "near", "reframed": "reframed"}
    words |= {"grouped": "of one group"}
    said = [f"{getattr(row, key)} {text}" for key, text in words.items() if getattr(row, key)]
    mirrored = [f"{row.mirrored} of them mirrored"] if row.mirrored else []
    return f"{', '.join(said + mirrored)} ({row.roles})"


def _group_lines(groups: SetGroups, most: int = SHOWN) -> list[str]:
    lines = [
        f"{groups.dataset}, groups: {groups.source}. {groups.count} {groups.what}s of several "
        f"images ({groups.images} images), {len(groups.shared)} of them in two splits that should "
        f"be apart."
    ]
    for name, where in list(groups.shared.items())[:most]:
        places = "; ".join(f"{split}: {', '.join(names)}" for split, names in where.items())
        lines.append(f"  {name.partition(': ')[2]}: {places}")
    more = len(groups.shared) - most
    return lines + ([f"  and {more} more; --json and -o list all"] if more > 0 else [])
