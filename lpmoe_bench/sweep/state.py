"""How a cell stands, read off what is on disk: its run's folder, its attempts, its locks."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lpmoe_bench.errors import DataError, DivergedError, UsageError
from lpmoe_bench.files import hold_lock, is_locked
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import RECORD, StoredRecord, check_files, find_records, read_record
from lpmoe_bench.sweep.plan import SWEEPS, Attempt, SweepCell, last_log, read_attempts

# Who runs which cell now: locks that the system takes back from a process that dies.

CLAIMS = ".claims"


def claim_file(runs: Path, cell: SweepCell) -> Path:
    """Return the lock of a cell: of the run, not of the sweep, so that two sweeps share it."""
    return runs / SWEEPS / CLAIMS / f"{cell.fingerprint[:12]}-s{cell.seed}"


class Claims:
    """The cells that this process runs; two sweeps never run the same one at the same time."""

    def __init__(self, runs: Path):
        self.runs = runs
        self.held: dict[str, ExitStack] = {}

    def take(self, cell: SweepCell) -> bool:
        """Claim a cell; False where another process has it."""
        # Beside the run's own lock, which the cell's process takes only when it has started.
        lock = hold_lock(claim_file(self.runs, cell))
        if lock is not None:
            self.held[cell.name] = lock
        return lock is not None

    def release(self, cell: SweepCell, finished: bool = False) -> None:
        """Give a claim back; that of a finished cell goes, so that a folder does not fill."""
        with self.held.pop(cell.name):
            if finished:
                # Who opened the file before may hold a lock that nobody else sees. He finds the
                # record there, as he looks for it only then.
                with suppress(OSError):
                    claim_file(self.runs, cell).unlink()


def is_running(runs: Path, cell: SweepCell) -> bool:
    """Whether a sweep, or a run by hand, works on a cell now."""
    return is_locked(claim_file(runs, cell)) or is_locked(runs / cell.folder / ".lock")


@contextmanager
def wait_for_lock(folder: Path) -> Iterator[None]:
    """Hold a run's lock, waiting for it."""
    while (lock := hold_lock(folder / ".lock")) is None:
        time.sleep(0.2)
    with lock:
        yield


MOST_ATTEMPTS = 3
# Exit codes that the same cell would only have again: settings that are refused, and a loss that is
# no number, since a run goes on from its last good state with the very draws it had.
DETERMINISTIC = (UsageError.exit_code, DivergedError.exit_code)
RESUME = "resume.safetensors"
State = Literal["done", "running", "failed", "partial", "waiting"]
Published = dict[tuple[str, int], StoredRecord]


@dataclass(frozen=True)
class CellState:
    """A cell and how it stands. done_in: where its record is, of this sweep or of another root.

    partial: it has a saved state to go on from. failed: it will not be tried again by itself.
    """

    cell: SweepCell
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


def is_given_up(failures: Iterable[Attempt]) -> bool:
    """Whether a cell that failed so is not tried again: three times, or once for good."""
    failures = list(failures)
    return len(failures) >= MOST_ATTEMPTS or any(a.exit_code in DETERMINISTIC for a in failures)


def published(roots: Iterable[Path]) -> Published:
    """Return the runs under other roots by fingerprint and seed."""
    runs = [one for one in find_records(roots).stored if one.record.kind == "run"]
    return {(one.record.fingerprint, one.record.seed or 0): one for one in runs}


def cell_state(runs: Path, folder: Path, cell: SweepCell, elsewhere: Published) -> CellState:
    """Return how a cell of the sweep in `folder` stands."""
    attempts = read_attempts(folder, cell)
    record = own_record(runs, cell)
    # Finished comes first: what a later process did to the folder's locks does not matter then.
    if record is not None:
        return CellState(cell, "done", attempts, record, runs / cell.folder)
    other = elsewhere.get((cell.fingerprint, cell.seed))
    if other is not None:
        return CellState(cell, "done", attempts, other.record, other.folder)
    log = last_log(folder, cell)
    if is_running(runs, cell):
        return CellState(cell, "running", attempts, log=log)
    partial = (runs / cell.folder / RESUME).exists()
    state = CellState(cell, "partial" if partial else "waiting", attempts, log=log)
    # Running out of memory or being stopped counts for nothing: only failures use attempts up.
    return replace(state, state="failed") if is_given_up(state.failures) else state


def own_record(runs: Path, cell: SweepCell) -> Record | None:
    """Return the finished record of a cell; None where there is none, or another run's."""
    # A run by hand may have made it; what counts is that it is of the planned fingerprint and seed.
    if not (runs / cell.folder / RECORD).exists():
        return None
    try:
        record = read_record(runs / cell.folder)
        check_files(runs / cell.folder, record)
    except DataError:
        return None
    return record if (record.fingerprint, record.seed) == (cell.fingerprint, cell.seed) else None
