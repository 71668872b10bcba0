"""A folder to build in beside its place, which a killed program leaves and the next one removes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OWNER = ".owner"  # locked for as long as the program that builds lives, however it ends
YOUNG_SECONDS = 60.0  # between making a folder and locking it


@contextmanager
def staging(root: Path, name: str) -> Iterator[Path]:
    """Make a hidden folder below root, and remove it in the end; `root` is made too.

    Folders of this name's kind that nobody works in any more are removed first.
    """
    root.mkdir(parents=True, exist_ok=True)
    _remove_left(root)
    folder = Path(tempfile.mkdtemp(prefix=f".adding-{name}-", dir=root))
    try:
        with open(folder / OWNER, "wb") as owner:
            with suppress(OSError):  # some network disks know no locks: then age alone counts
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left(root: Path) -> None:
    for folder in root.glob(".adding-*-*"):
        with suppress(OSError):
            if folder.is_dir() and not folder.is_symlink() and _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether no program holds the lock of a folder."""
    try:
        handle = os.open(folder / OWNER, os.O_RDONLY)
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime > YOUNG_SECONDS
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
