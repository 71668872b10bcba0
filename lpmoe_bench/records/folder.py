"""The folder of a run: its lock, its files, what is set aside, what is published."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import hold_lock, write_atomically
from lpmoe_bench.records.model import Record, record_folder
from lpmoe_bench.records.store import ADAPTER_FILE, CURVE, RECORD, ROWS, STATE_FILE, read_record

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
    lock = hold_lock(folder / ".lock")
    if lock is None:
        raise UsageError(f"another process is working on {folder}; wait for it")
    with lock:
        yield


# Publishing: copy a record's numbers, never weights and never images, to where they are kept.


def publish(run_folder: Path, results_root: Path, allow_dirty: bool = False) -> Path:
    """Copy run.json, per_image.csv and curve.csv under `results_root` and return their folder.

    An identical record that is there already is accepted. Raises UsageError for another record in
    its place, or one made by code that differs from its commit (unless `allow_dirty`), and
    DataError where the run's files are missing.
    """
    record = read_record(run_folder)
    if not allow_dirty:
        _refuse_dirty(record)
    files = {name: run_folder / name for name in (ROWS, CURVE, RECORD)}
    if not files[CURVE].exists():
        del files[CURVE]
    try:
        contents = {name: path.read_bytes() for name, path in files.items()}
    except OSError as error:
        raise DataError(f"{error.filename} could not be read ({error.strerror})") from None
    target = results_root / record_folder(record)
    if _holds(target, record, contents):
        return target
    for name, content in contents.items():  # run.json last
        write_atomically(target / name, content)
    return target


def _refuse_dirty(record: Record) -> None:
    if record.environment.git_dirty:
        sha = (record.environment.git_sha or "unknown")[:12]
        raise UsageError(
            f"run {record.id} was made by code that differs from its commit {sha}, so nobody can "
            f"rerun it; commit and rerun, or allow a dirty tree on purpose"
        )


def _holds(target: Path, record: Record, contents: dict[str, bytes]) -> bool:
    """Whether the same record is there; raises UsageError when it is another one."""
    if not (target / RECORD).exists():
        return False
    names = (ROWS, CURVE, RECORD)
    there = {name: (target / name).read_bytes() for name in names if (target / name).exists()}
    if there == contents:
        return True
    raise UsageError(
        f"{target} already holds another record of this fingerprint and seed, made "
        f"{read_record(target).created}; yours was made {record.created}; published records "
        f"are never overwritten: move the old one away if yours must replace it"
    )
