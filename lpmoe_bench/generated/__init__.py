"""Embedded sets: scenes drawn in code, one file a task.

A seed gives the same pixels on every machine: random numbers are raw PCG64 words, every step after
them is continuous or in integers, and the rounding to 8 bits comes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lpmoe_bench.errors import UsageError
from lpmoe_bench.generated import cod, glass, leaf, polyp, road, shadow, skin, sod
from lpmoe_bench.generated.embedded_set import EmbeddedSet
from lpmoe_bench.generated.folder import Report, draw_folder
from lpmoe_bench.generated.textures import Shape
from method_zoo.errors import unknown

__all__ = ["COUNTS", "SETS", "EmbeddedSet", "ensure_generated"]

COUNTS = {"train": 160, "test": 64}
TASKS = (cod, sod, polyp, skin, shadow, glass, leaf, road)
SETS = {each.SET.name: each.SET for each in TASKS}


def ensure_generated(
    name: str,
    root: Path,
    report: Report | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    shape: Shape | None = None,
    seed: int = 0,
) -> Path:
    """Return the folder of an embedded set under root, drawing it first where it is not there.

    `report` is told (scenes drawn, all scenes). Raises UsageError for an unknown set and
    ResourceError when it cannot be written.
    """
    if name not in SETS:
        raise UsageError(unknown("embedded set", name, SETS))
    counts = dict(counts or COUNTS)
    sides = "" if shape is None else f"-{shape[0]}x{shape[1]}"
    amounts = "" if counts == COUNTS else "-" + "-".join(f"{k}{n}" for k, n in counts.items())
    folder = root / f"{name}-{SETS[name].version}-s{seed}{sides}{amounts}"
    return draw_folder(folder, SETS[name], counts, report, shape=shape, seed=seed)
