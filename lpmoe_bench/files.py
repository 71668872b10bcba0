"""Files that no kill or full disk leaves half written, and locks that end with their process."""

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
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


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file.

    Raises OSError where it cannot be read, and also for a pipe or a device, which may never end.
    """
    check_regular(path)
    with open(path, "rb") as file:
        return file.read()


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError for a pipe or a device, and for what is not there."""
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # of a folder the system says it better
        raise OSError(errno.EINVAL, "it is a pipe or a device, and no file", os.fspath(path))


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
        lock.acquire(timeout=seconds, poll_interval=0.01, blocking=seconds > 0)
    except Timeout:
        return None
    except OSError as error:
        raise ResourceError(write_failure(path, error)) from error
    held = ExitStack()
    held.callback(lock.release)
    return held


# A folder to build in beside its place, which a killed program leaves and a later one removes.

OWNER = ".owner"  # locked for as long as the program that builds lives, however it ends
YOUNG_SECONDS = 60.0  # between making a folder and locking it


@contextmanager
def staging(root: Path, kind: str, name: str) -> Iterator[Path]:
    """Make a hidden folder below root, and remove it in the end; `root` is made too.

    Folders of this kind that nobody works in any more are removed first.

    Args:
        root: the folder of what is built.
        kind: a word in the folder's name, such as "adding".
        name: what is built.
    """
    root.mkdir(parents=True, exist_ok=True)
    clear_staging(root, kind)
    folder = Path(tempfile.mkdtemp(prefix=f".{kind}-{name}-", dir=root))
    try:
        (folder / OWNER).touch()
        lock = None
        with suppress(ResourceError):  # some network disks know no locks
            lock = hold_lock(folder / OWNER)
        with lock or nullcontext():
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_staging(root: Path, kind: str) -> None:
    """Remove the folders of `staging` that killed programs have left below root."""
    # The lock of a live owner tells a folder that is in use from one that was left; one without a
    # lock file yet may be of a process that has just made it.
    for left in root.glob(f".{kind}-*-*"):
        owner = left / OWNER
        with suppress(OSError):
            young = not owner.exists() and time.time() - left.stat().st_mtime <= YOUNG_SECONDS
            if left.is_dir() and not left.is_symlink() and not young and not is_locked(owner):
                shutil.rmtree(left, ignore_errors=True)


# Cells of CSV. A spreadsheet takes a text that begins like a formula for one and may run it, so an
# apostrophe goes before it, as people write such a text there; who reads the file takes it off.

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # after apostrophes too, else reading would take one off
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|-", re.ASCII)


def safe_cell(value: object) -> object:
    """Return what a CSV holds for a value: a text that looks like a formula after an apostrophe.

    Numbers stay, texts of numbers too, and the single sign `-`, which says that there is nothing.
    """
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def cell_text(text: str) -> str:
    """Return the text that `safe_cell` was given."""
    return text[1:] if text[:1] == "'" and _is_formula(text[1:]) else text


def _is_formula(text: str) -> bool:
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)
