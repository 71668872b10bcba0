"""How a cell stands, read off what is on disk: its run's folder, its attempts, its locks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lpmoe_bench.errors import DataError
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import RECORD, StoredRecord, find_records, read_record
from lpmoe_bench.sweep.locks import is_running
from lpmoe_bench.sweep.model import Attempt, Cell
from lpmoe_bench.sweep.store import last_log, read_attempts

MOST_ATTEMPTS = 3
RESUME = "resume.safetensors"
State = Literal["done", "running", "failed", "partial", "waiting"]
Published = dict[tuple[str, int], StoredRecord]


@dataclass(frozen=True)
class CellState:
    """A cell and how it stands. done_in: where its record is, of this sweep or of another root.

    partial: it has a saved state to go on from. failed: it will not be tried again by itself.
    """

    cell: Cell
    state: State
    attempts: list[Attempt]
    record: Record | None = None
    done_in: Path | None = None
    log: Path | None = None

    @property
    def failures(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.outcome == "failed"]

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.cell.name,
            "task": self.cell.task,
            "method": self.cell.method,
            "seed": self.cell.seed,
            "fingerprint": self.cell.fingerprint,
            "state": self.state,
            "record": str(self.done_in) if self.done_in else None,
            "log": str(self.log) if self.log else None,
            "attempts": [attempt.model_dump() for attempt in self.attempts],
        }


def published(roots: Iterable[Path]) -> Published:
    """Return the runs under other roots by fingerprint and seed."""
    stored = find_records(roots).stored
    return {
        (one.record.fingerprint, one.record.seed or 0): one
        for one in stored
        if one.record.kind == "run"
    }


def state_of(runs: Path, folder: Path, cell: Cell, elsewhere: Published) -> CellState:
    """Return how a cell of the sweep in `folder` stands."""
    attempts = read_attempts(folder, cell)
    record = own_record(runs, cell)
    if record is not None:
        return CellState(cell, "done", attempts, record, runs / cell.folder)
    other = elsewhere.get((cell.fingerprint, cell.seed))
    if other is not None:
        return CellState(cell, "done", attempts, other.record, other.folder)
    log = last_log(folder, cell)
    if is_running(runs, cell):
        return CellState(cell, "running", attempts, log=log)
    failures = sum(attempt.outcome == "failed" for attempt in attempts)
    if failures >= MOST_ATTEMPTS:
        return CellState(cell, "failed", attempts, log=log)
    partial = (runs / cell.folder / RESUME).exists()
    return CellState(cell, "partial" if partial else "waiting", attempts, log=log)


def own_record(runs: Path, cell: Cell) -> Record | None:
    """Return the finished record of a cell; None where there is none, or another run's."""
    if not (runs / cell.folder / RECORD).exists():
        return None
    try:
        record = read_record(runs / cell.folder)
    except DataError:
        return None
    return record if (record.fingerprint, record.seed) == (cell.fingerprint, cell.seed) else None
