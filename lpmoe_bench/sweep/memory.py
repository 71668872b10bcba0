"""Memory that ran out: what a cell is tried with next, without another batch or result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lpmoe_bench.sweep.model import Attempt, Cell

CHECKPOINTING = "runtime.checkpointing=true"
COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def ladder(cell: Cell) -> list[list[str]]:
    """Return the settings to try one after another: nothing, then ever less memory.

    The micro-batch is halved down to one image, then blocks are computed again in the backward
    pass as well; the latter alone where a method's statistics are those of the whole batch.
    """
    runtime, batch = cell.settings.get("runtime", {}), cell.settings["train"]["batch"]
    on_device = -(-batch // runtime.get("devices", 1))
    size = min(runtime.get("micro_batch") or on_device, on_device)
    steps: list[list[str]] = [[]]
    while size > 1 and not cell.batch_statistics:
        size //= 2
        steps.append([f"runtime.micro_batch={size}"])
    if not runtime.get("checkpointing"):
        steps.append([*steps[-1], CHECKPOINTING])
    return steps


def changes_next(cell: Cell, attempts: Sequence[Attempt]) -> list[str]:
    """Return what the next attempt is made with: less than any that memory did not suffice for.

    Not the latest attempt decides but the most frugal: clocks of several machines differ.
    """
    steps = ladder(cell)
    tried = [
        steps.index(attempt.changes) + (attempt.outcome == "out of memory")
        for attempt in attempts
        if attempt.changes in steps
    ]
    return steps[min(max(tried, default=0), len(steps) - 1)]


def note(cell: Cell, changes: list[str]) -> str:
    """Return what a record says of them."""
    batch = cell.settings["train"]["batch"]
    return (
        f"memory ran out; the sweep went on with {', '.join(changes)}, the batch is still {batch}"
    )


def kernel_kills() -> int:
    """Return how many processes the kernel has killed so far because memory ran out here."""
    for path in COUNTERS:
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
