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
    size = runtime.get("micro_batch") or -(-batch // runtime.get("devices", 1))
    steps: list[list[str]] = [[]]
    while size > 1 and not cell.batch_statistics:
        size //= 2
        steps.append([f"runtime.micro_batch={size}"])
    if not runtime.get("checkpointing"):
        steps.append([*steps[-1], CHECKPOINTING])
    return steps


def changes_now(attempts: Sequence[Attempt]) -> list[str]:
    """Return the settings that the latest attempt was made with."""
    return attempts[-1].changes if attempts else []


def changes_next(cell: Cell, changes: list[str]) -> list[str] | None:
    """Return what comes after these settings on the ladder; None at its end."""
    steps = ladder(cell)
    place = steps.index(changes) if changes in steps else 0
    return steps[place + 1] if place + 1 < len(steps) else None


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
