"""Groups of a data set: which images are frames of one video or show one lesion, where known."""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path

from lpmoe_bench.errors import DataError
from lpmoe_bench.registry.schema import Dataset, Groups


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
