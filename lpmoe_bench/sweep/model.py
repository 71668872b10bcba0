"""What a sweep is on disk: its cells as planned, and what became of each attempt."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1
Outcome = Literal["finished", "failed", "out of memory", "interrupted", "busy", "reset"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Cell(_Frozen):
    """One run of a sweep: a method on a task with a seed, all its settings resolved.

    folder: of the run, below the folder of all runs. settings: what `run --config` takes, the
    device as it was asked for. batch_statistics: the method refuses micro-batches.
    train_images, test_images: how many are read in all epochs, and to be scored.
    """

    name: str
    task: str
    method: str
    seed: int
    fingerprint: str
    folder: Path
    settings: dict[str, Any]
    batch_statistics: bool = False
    train_images: int = 0
    test_images: int = 0


class Places(_Frozen):
    """Where the data of a sweep is; absolute paths."""

    data_root: Path | None = None
    datasets: Path | None = None
    embedded: bool = False


class Sweep(_Frozen):
    """The plan of a sweep; its id is a hash of all that its cells are."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    created: str  # UTC, ISO 8601
    version: str
    git_sha: str | None = None
    places: Places
    cells: list[Cell]


class Attempt(_Frozen):
    """One try of a cell that has ended. exit_code is negative for a signal, None for no process.

    changes: settings of runtime that it was given because memory had run out before. log: file
    beside the attempt's own. A `reset` is no try: what was before it no longer counts.
    """

    ended: str  # UTC, ISO 8601
    seconds: float = 0.0
    outcome: Outcome
    exit_code: int | None = None
    reason: str = ""
    host: str = ""
    changes: list[str] = []
    log: str = ""


def sweep_id(cells: list[Cell], places: Places) -> str:
    """Return 12 hex digits that change with any setting, fingerprint, seed or place."""
    content = [places.model_dump(mode="json"), *(cell.model_dump(mode="json") for cell in cells)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
