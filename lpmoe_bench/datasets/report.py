"""A verification as text for people, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lpmoe_bench.datasets.verify import Verified

SHOWN = 10  # problems of one split in text; JSON has them all


def as_json(found: Sequence[Verified]) -> dict[str, Any]:
    """Return what was verified, and whether all of it is sound."""
    return {"sound": not any(one.problems for one in found), "splits": [asdict(v) for v in found]}


def as_text(found: Sequence[Verified]) -> str:
    """Return a few lines for each split."""
    lines = []
    for one in found:
        lines.append(f"{one.label}: {'sound' if not one.problems else 'not sound'}")
        lines += [f"  {field:<9} {text}" for field, text in _facts(one)]
    return "\n".join(lines)


def as_markdown(found: Sequence[Verified]) -> str:
    """Return one table row for each split, then what is wrong and how to repair it."""
    lines = [
        "| split | sound | pairs | official | sizes | masks | content sha256 |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        cells = (
            one.label,
            "no" if one.problems else "yes",
            str(one.pairs),
            _official(one),
            _size_words(one),
            _masks(one),
            f"`{one.checksum[:16]}`" if one.checksum else "",
        )
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    for one in found:
        said = [(field, text) for field, text in _facts(one) if field in ("problem", "repair")]
        if said:
            lines += ["", f"{one.label}:", ""]
            lines += [f"- {field}: {text}" for field, text in said]
    return "\n".join(lines) + "\n"


def _facts(one: Verified) -> list[tuple[str, str]]:
    """Return (field, text) of one split, leaving out what is empty."""
    more = len(one.problems) - SHOWN
    hidden = [("problem", f"and {more} more")] if more > 0 else []
    lines = [
        ("folder", one.place),
        ("pairs", str(one.pairs)),
        ("sizes", _size_words(one)),
        ("masks", _masks(one)),
        ("content", one.checksum),
        ("digest", one.digest),
        *(("problem", text) for text in one.problems[:SHOWN]),
        *hidden,
        *(("remark", text) for text in one.remarks),
        *(("repair", text) for text in one.repairs),
    ]
    return [(field, text) for field, text in lines if text]


def _official(one: Verified) -> str:
    if one.official is None:
        return ""
    return f"{one.official}" + ("" if one.confirmed else " (not confirmed)")


def _size_words(one: Verified) -> str:
    if one.sizes is None:
        return ""
    small, large = one.sizes
    return small if small == large else f"{small} to {large}"


def _masks(one: Verified) -> str:
    return ", ".join(f"{count} {words}" for words, count in one.masks.items())
