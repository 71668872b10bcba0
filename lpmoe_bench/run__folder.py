from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lpmoe_bench.errors import ResourceError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.record import ADAPTER_FILE, STATE_FILE

OPENED_FILE = "test_opened"


def count_opening(folder: Path) -> int:
    """Count that the test sets are opened now, also over runs that were killed meanwhile."""
    path = folder / OPENED_FILE
    opened = int(path.read_text()) + 1 if path.exists() else 1
    write_atomically(path, str(opened))
    return opened


def set_aside(folder: Path) -> None:
    """Rename a finished run's files, so that a forced rerun loses nothing and starts afresh."""
    for name in (STATE_FILE, OPENED_FILE):
        (folder / name).unlink(missing_ok=True)
    number = 1 + len(list(folder.glob("superseded-*-run.json")))
    for name in ("run.json", "per_image.csv", "curve.csv", ADAPTER_FILE, "predictions"):
        if (folder / name).exists():
            (folder / name).rename(folder / f"superseded-{number}-{name}")


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; a second process on the same run is told so."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115
    except OSError as error:
        raise ResourceError(f"{folder} cannot be written ({error.strerror}); use --runs") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process is working on {folder}; wait for it") from None
        yield
