"""Files that no kill or full disk leaves half written, and locks that end with their process."""

import errno
import hashlib
import os
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from lpmoe_bench.errors import ResourceError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file under another name, flush it to disk, rename it into place, flush the folder.

    Raises ResourceError when the disk is full or the folder cannot be written; what stood at
    `path` before stays.
    """
    data = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise ResourceError(write_failure(path, error)) from error


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that names in it outlast a power cut; systems without it pass."""
    # A rename is whole at once for other processes, but only in memory until its folder is flushed.
    with suppress(OSError):  # Windows and some network disks flush no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_failure(path: Path, error: OSError) -> str:
    """Return the sentence for a write that failed."""
    if error.errno in FULL:
        return (
            f"the disk is full: {path} could not be written; free some space and run the same "
            f"command again, nothing finished is lost"
        )
    return f"{path} could not be written ({error.strerror}); choose a folder you may write to"


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hold_lock(path: Path, seconds: float = 0.0) -> ExitStack | None:
    """Take the lock of a file; the file and its folder are made.

    The system gives the lock back when the process ends, however it ends: a file that is left
    behind locks nothing.

    Args:
        path: of the file.
        seconds: how long to wait for another holder.

    Returns:
        What gives the lock back on `close()` or at the end of a `with`; None where another
        process, or another holder in this one, has it.

    Raises:
        ResourceError: the file cannot be written.
    """
    return _take_lock(path, seconds)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of that file; False too where it cannot be opened."""
    if not path.exists():
        return False
    try:
        # Who asks holds the lock for an instant. Asking for a little longer than that keeps two
        # processes that ask at once from taking each other for the holder.
        asked = _take_lock(path, seconds=0.05)
    except ResourceError:
        return False
    if asked is not None:
        asked.close()
    return asked is None


def _take_lock(path: Path, seconds: float) -> ExitStack | None:
    from filelock import FileLock, Timeout

    # Not bound to a thread: sweeps take the lock of a cell in one and release it in another.
    lock = FileLock(path, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=seconds, poll_interval=0.01)
    except Timeout:
        return None
    except OSError as error:
        raise ResourceError(write_failure(path, error)) from error
    held = ExitStack()
    held.callback(lock.release)
    return held
