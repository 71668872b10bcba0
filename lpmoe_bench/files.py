"""Writing files so that a kill or a full disk never leaves half of one."""

import errno
import hashlib
import os
import tempfile
from pathlib import Path

from lpmoe_bench.errors import ResourceError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file under another name, flush it to disk, then rename it into place.

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
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise ResourceError(write_failure(path, error)) from error


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
