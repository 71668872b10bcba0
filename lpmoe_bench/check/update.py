"""A baseline pinned again: what changes, in sentences, and the file with its history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lpmoe_bench.check.baseline import Baseline, CellPin, Policy
from lpmoe_bench.check.cells import Cell, differences, family_of, newest
from lpmoe_bench.check.pin import change_of, pin_cell
from lpmoe_bench.metrics.facts import METRICS


def update(
    baseline: Baseline, cells: Sequence[Cell], policy: Policy, metrics: Sequence[str] | None
) -> tuple[list[CellPin], list[str]]:
    """Return the cells after an update and what changed; cells without new records stay.

    A new cell takes the place of a pinned one with the same identity, else of the only one that
    is meant to be the same with other settings, else it is added. Metrics stay the pinned ones
    unless others are named.
    """
    pins, changes = list(baseline.cells), []
    for cell in cells:
        index = _place(pins, cell, cells)
        old = None if index is None else pins[index]
        keys = metrics or (list(old.metrics) if old else None)
        new = pin_cell(cell, policy, keys)
        changes += list(changed(old, new))
        if index is None:
            pins.append(new)
        else:
            pins[index] = new
    if policy != baseline.policy:
        before, after = baseline.policy.model_dump(), policy.model_dump()
        changes += [f"policy: {d}" for d in differences(before, after)]
    return sorted(pins, key=lambda one: one.name), changes


def with_history(
    baseline: Baseline,
    pins: Sequence[CellPin],
    policy: Policy,
    cells: Sequence[Cell],
    reason: str,
    changes: Sequence[str],
) -> Baseline:
    """Return the new baseline, whose history says why and what."""
    entry = change_of(newest(cells), reason, changes)
    return Baseline(policy=policy, cells=list(pins), history=[*baseline.history, entry])


def changed(old: CellPin | None, new: CellPin) -> Iterator[str]:
    """Say what is different between two pins of a cell; nothing where they are equal."""
    if old is None:
        yield f"{new.name}: new, {len(new.seeds)} seeds"
        return
    words = differences(old.identity, new.identity)
    if old.seeds != new.seeds:
        words.append(f"seeds {_list(old.seeds)} against {_list(new.seeds)}")
    if (old.images, old.image_digest) != (new.images, new.image_digest):
        words.append(f"{old.images} images against {new.images}, or others")
    for key in dict.fromkeys([*old.metrics, *new.metrics]):
        words += _metric(old, new, key)
    words += [f"{d}" for d in differences(old.counts, new.counts)]
    if old.speed != new.speed:
        words.append("speeds measured anew" if new.speed else "speeds dropped")
    if words:
        yield f"{new.name}: " + "; ".join(words)


def _metric(old: CellPin, new: CellPin, key: str) -> list[str]:
    label = METRICS[key].label if key in METRICS else key
    if key not in old.metrics or key not in new.metrics:
        return [f"{label} {'added' if key in new.metrics else 'dropped'}"]
    before, after = old.metrics[key], new.metrics[key]
    if before == after:
        return []
    sds = [" ± " + (f"{pin.sd:.4f}" if pin.sd is not None else "?") for pin in (before, after)]
    return [f"{label} {before.mean:.4f}{sds[0]} -> {after.mean:.4f}{sds[1]}"]


def _place(pins: Sequence[CellPin], cell: Cell, cells: Sequence[Cell]) -> int | None:
    for index, pin in enumerate(pins):
        if not differences(pin.identity, cell.identity):
            return index
    alike = [i for i, pin in enumerate(pins) if family_of(pin.identity) == cell.family]
    rivals = [other for other in cells if other.family == cell.family]
    return alike[0] if len(alike) == len(rivals) == 1 else None


def _list(seeds: Sequence[int | str]) -> str:
    return " ".join(map(str, seeds))
