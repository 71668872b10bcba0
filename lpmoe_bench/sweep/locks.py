"""Who runs which cell now: locks that the system takes back from a process that dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lpmoe_bench.errors import ResourceError
from lpmoe_bench.files import write_failure
from lpmoe_bench.sweep.model import Cell
from lpmoe_bench.sweep.store import SWEEPS

CLAIMS = ".claims"


def claim_file(runs: Path, cell: Cell) -> Path:
    """Return the lock of a cell: of the run, not of the sweep, so that two sweeps share it."""
    return runs / SWEEPS / CLAIMS / f"{cell.fingerprint[:12]}-s{cell.seed}"


class Claims:
    """The cells that this process runs; two sweeps never run the same one at the same time."""

    def __init__(self, runs: Path):
        self.runs = runs
        self.held: dict[str, int] = {}

    def take(self, cell: Cell) -> bool:
        """Claim a cell; False where another process has it."""
        path = claim_file(self.runs, cell)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise ResourceError(write_failure(path, error)) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self.held[cell.name] = handle
        return True

    def release(self, cell: Cell) -> None:
        os.close(self.held.pop(cell.name))


def is_running(runs: Path, cell: Cell) -> bool:
    """Whether a sweep, or a run by hand, works on a cell now."""
    return is_locked(claim_file(runs, cell)) or is_locked(runs / cell.folder / ".lock")


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of that file.

    Who asks holds the lock for an instant; a sweep that is refused just then tries again.
    """
    try:
        with open(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's lock, waiting for it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.2)
        yield
