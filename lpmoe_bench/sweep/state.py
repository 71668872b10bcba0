"""How a cell stands, read off what is on disk: its run's folder, its attempts, its locks."""

import os
import secrets
import time
from collections.abc import Container, Iterable, Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from lpmoe_bench.errors import DataError, DivergedError, UsageError
from lpmoe_bench.files import hold_lock, is_locked
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import RECORD, StoredRecord, check_files, find_records, read_record
from lpmoe_bench.sweep.plan import (
    SWEEPS,
    Attempt,
    SweepCell,
    folder_listing,
    last_log,
    read_attempts,
    tried_cells,
)

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


JOURNAL = "journal"
CLAIMED, FINISHED = "claimed", "finished"


class Journal:
    """What the workers of a sweep do since this one started: a line for a claim, and for an end.

    It only saves looking: of a cell whose line is lost the disk tells all. Without it each worker
    would try the lock of each cell that another one runs, and read the record of each finished one.
    """

    def __init__(self, folder: Path):
        self.path, self.rest = folder / JOURNAL, b""
        self.own = secrets.token_hex(8)  # a worker's own lines are no news to it
        # What earlier workers wrote says nothing: a cell may have been opened again since.
        self.place = self.path.stat().st_size if self.path.exists() else 0

    def tell(self, what: str, cell: SweepCell) -> None:
        """Let others know that a cell is claimed, or that its record is there."""
        with suppress(OSError):  # a full disk tells so elsewhere
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(
                    handle, f"{what} {self.own} {cell.name}\n".encode()
                )  # at once: lines never mix
            finally:
                os.close(handle)

    def news(self) -> list[tuple[str, str]]:
        """Return (what, name of the cell) of what was told since this was asked last."""
        try:
            if os.stat(self.path).st_size <= self.place:
                return []
            with open(self.path, "rb") as file:
                file.seek(self.place)
                data = file.read()
        except OSError:
            return []
        self.place += len(data)
        # A line that was half there when it was read waits for its end.
        *lines, self.rest = (self.rest + data).split(b"\n")
        words = [line.decode(errors="replace").split(" ", 2) for line in lines]
        return [(w[0], w[2]) for w in words if len(w) == 3 and w[1] != self.own]


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


class Listed(NamedTuple):
    """Cells with attempts, and claims, by the names of their files: what is worth a look."""

    tried: Set[str]
    claims: Set[str]

    @classmethod
    def of(cls, runs: Path, folder: Path) -> Self:
        return cls(tried_cells(folder), folder_listing(runs / SWEEPS / CLAIMS))


def cell_states(
    runs: Path,
    folder: Path,
    cells: Iterable[SweepCell],
    elsewhere: Published,
    finished: Container[str] = (),
) -> list[CellState]:
    """Return how cells of the sweep in `folder` stand.

    finished: names of those whose records were seen already. They are not read again, neither are
    their attempts.
    """
    listed = Listed.of(runs, folder)
    return [
        CellState(cell, "done", [], None, runs / cell.folder)
        if cell.name in finished and (runs / cell.folder / RECORD).exists()
        else cell_state(runs, folder, cell, elsewhere, listed)
        for cell in cells
    ]


def cell_state(
    runs: Path, folder: Path, cell: SweepCell, elsewhere: Published, listed: Listed | None = None
) -> CellState:
    """Return how a cell of the sweep in `folder` stands; `listed` saves looking for what is not."""
    is_tried = listed is None or cell.name in listed.tried
    attempts = read_attempts(folder, cell) if is_tried else []
    record = own_record(runs, cell)
    # Finished comes first: what a later process did to the folder's locks does not matter then.
    if record is not None:
        return CellState(cell, "done", attempts, record, runs / cell.folder)
    other = elsewhere.get((cell.fingerprint, cell.seed))
    if other is not None:
        return CellState(cell, "done", attempts, other.record, other.folder)
    if not is_tried and not (runs / cell.folder).exists():  # untouched, but for a claim
        claimed = listed is not None and claim_file(runs, cell).name in listed.claims
        running = claimed and is_locked(claim_file(runs, cell))
        return CellState(cell, "running" if running else "waiting", attempts)
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
