"""What must stay exact, parameters and FLOPs, beside speed, which is a ratio on one hardware."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from lpmoe_bench.check.baseline import CellPin, Policy
from lpmoe_bench.check.cells import Cell
from lpmoe_bench.check.pin import counts_of, hardware_of
from lpmoe_bench.check.verdicts import Line

WORDS = {"train": "training images/s", "inference": "inference images/s"}


def count_lines(pin: CellPin, cell: Cell) -> Iterator[Line]:
    """Yield one line for each pinned count: any difference is a regression until it is re-pinned,
    since a smaller model that nobody meant to change is as wrong as a larger one."""
    found = [counts_of(stored.record) for stored in cell.stored]
    for key, expected in pin.counts.items():
        values = [counts.get(key) for counts in found]
        name = key.replace(".", " ").replace("_", " ").replace("flops", "FLOPs")
        wrong = [value for value in values if value is not None and value != expected]
        if None in values:
            reason = "the candidate does not tell it"
            yield Line(pin.name, "count", name, "not comparable", reason, expected)
        elif wrong:
            reason = f"{wrong[0]:,} against {expected:,}, which must be equal"
            yield Line(pin.name, "count", name, "regressed", reason, expected, wrong[0])
        else:
            yield Line(pin.name, "count", name, "pass", "", expected, expected)


def speed_lines(pin: CellPin, cell: Cell, policy: Policy) -> Iterator[Line]:
    """Yield training and inference speed where both sides ran on the same hardware."""
    if policy.speed_tolerance >= 1 or pin.speed is None or _unlike(pin, cell):
        return
    for kind, words in WORDS.items():
        before: list[float] = getattr(pin.speed, kind)
        costs = [stored.record.costs for stored in cell.stored]
        after = [value for c in costs if (value := getattr(c, f"{kind}_images_per_second"))]
        if not before or not after:
            continue
        old, new = statistics.median(before), statistics.median(after)
        share = new / old
        if share < 1 - policy.speed_tolerance:
            reason = f"{share:.0%} of the baseline's, {1 - policy.speed_tolerance:.0%} is the limit"
            yield Line(pin.name, "speed", words, "regressed", reason, old, new)
        else:
            yield Line(pin.name, "speed", words, "pass", f"{share:.0%}", old, new)


def speed_note(pin: CellPin, cell: Cell, policy: Policy) -> list[str]:
    """Say that speed was not judged, where it was pinned on other hardware."""
    if policy.speed_tolerance >= 1 or pin.speed is None or not _unlike(pin, cell):
        return []
    here = hardware_of(cell.stored[0].record)
    words = f"{pin.name}: speed was not judged, pinned on {pin.speed.hardware}, here {here}"
    return [words]


def _unlike(pin: CellPin, cell: Cell) -> bool:
    assert pin.speed is not None
    return any(hardware_of(stored.record) != pin.speed.hardware for stored in cell.stored)
