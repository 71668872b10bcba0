"""Safe unpacking of archives from strangers: nothing outside the target, no links, no bombs."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from lpmoe_bench.errors import DataError, ResourceError
from lpmoe_bench.files import write_failure
from lpmoe_bench.registry.pairs import SUFFIXES

KEPT = (*SUFFIXES, ".csv", ".txt")  # nothing else is taken out: no program, no document
NESTED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")
CHUNK_BYTES = 1 << 20
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
UNREADABLE = (RuntimeError, NotImplementedError, ValueError)  # encrypted, unknown method, bad name
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold: files, bytes in all, and bytes for each of its own bytes once
    it has given `tolerated_bytes`; reserve_bytes of the disk are left free."""

    files: int = 2_000_000
    total_bytes: int = 500 * 2**30
    ratio: int = 500
    tolerated_bytes: int = 2**30
    reserve_bytes: int = 2**30


@dataclass
class Unpacked:
    """What came out: files and bytes, and the names of nested archives, which are not opened."""

    files: int = 0
    bytes: int = 0
    nested: list[str] = field(default_factory=list)


class Member(NamedTuple):
    """An entry of an archive. what: file, folder, or what is refused; at: bytes read so far."""

    name: str
    what: str
    open: Callable[[], IO[bytes] | None]
    at: int


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, plain or compressed, by its content."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except (OSError, *BROKEN):
        return False


def unpack(
    archive: Path, target: Path, report: Report | None = None, limits: Limits | None = None
) -> Unpacked:
    """Unpack images, tables and lists of an archive below a folder of its own.

    `report` is told (bytes of the archive read, all). Raises DataError for an archive that is
    broken, encrypted, holds paths out of the target, links, devices, one file twice, or more than
    the limits allow, and ResourceError for a full disk; what was unpacked until then is the
    caller's to remove.
    """
    limits, done = limits or Limits(), Unpacked()
    try:
        size = archive.stat().st_size
        room = shutil.disk_usage(target).free - limits.reserve_bytes
        budget = _Budget(archive, size, min(limits.total_bytes, room), room, limits)
        with open(archive, "rb") as file:
            members = _zip(file) if zipfile.is_zipfile(archive) else _tar(file)
            for member in members:
                _take(archive, member, target, done, budget)
                if report is not None:
                    report(min(member.at, size), size)
    except BROKEN as error:
        raise DataError(f"{archive} is damaged ({error}); download it again") from None
    except UNREADABLE as error:
        raise DataError(
            f"{archive} cannot be unpacked ({error}); unpack it yourself and give the folder"
        ) from None
    except FileExistsError as error:
        raise DataError(f"{archive} holds {error.filename} twice; nothing is taken") from None
    except OSError as error:
        raise ResourceError(write_failure(target, error)) from error
    return done


@dataclass
class _Budget:
    archive: Path
    size: int
    most: int
    room: int
    limits: Limits

    def check(self, done: Unpacked) -> None:
        """Raise when what came out so far is more than is sane, or than the disk holds."""
        if done.bytes > self.most:
            if self.most == self.room:
                raise ResourceError(f"the disk is too full to unpack {self.archive}; free some")
            raise DataError(f"{self.archive} unpacks to over {self.most} bytes; nothing is taken")
        sane = max(self.limits.tolerated_bytes, self.limits.ratio * self.size)
        if done.bytes > sane:
            raise DataError(
                f"{self.archive} is {self.size} bytes but unpacks to over {sane}: a bomb; nothing "
                f"is taken"
            )
        if done.files > self.limits.files:
            raise DataError(
                f"{self.archive} holds over {self.limits.files} files: nothing is taken"
            )


def _take(archive: Path, member: Member, target: Path, done: Unpacked, budget: _Budget) -> None:
    """Write one member, if it is one that is kept."""
    path = _inside(archive, member.name)
    if member.what not in ("file", "folder"):
        raise DataError(
            f"{archive} holds a {member.what}, {member.name}; unpack it yourself and give the "
            f"folder"
        )
    suffix = path.suffix.lower()
    if member.what == "file" and suffix in NESTED:
        done.nested.append(member.name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    if member.what == "folder" or suffix not in KEPT or hidden:
        return
    place = target.joinpath(*path.parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None
    done.files += 1
    with source, open(place, "xb") as file:
        while chunk := source.read(CHUNK_BYTES):
            done.bytes += len(chunk)
            budget.check(done)
            file.write(chunk)
    budget.check(done)


def _inside(archive: Path, name: str) -> PurePosixPath:
    """Return a member's path; raises DataError when it is not one below the target."""
    path = PurePosixPath(name.replace("\\", "/"))
    strange = any(ord(letter) < 32 for letter in name) or ":" in name.partition("/")[0]
    if path.is_absolute() or ".." in path.parts or strange:
        raise DataError(
            f"{archive} holds the path {name!r}, which leads out of it; nothing is taken"
        )
    return path


def _zip(file: IO[bytes]) -> Iterator[Member]:
    at = 0
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            at += info.compress_size
            mode = info.external_attr >> 16
            what = "folder" if info.is_dir() else "link" if stat.S_ISLNK(mode) else "file"
            yield Member(info.filename, what, lambda info=info: archive.open(info), at)


def _tar(file: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for info in archive:
            what = "file" if info.isreg() else "folder" if info.isdir() else "link or device"
            yield Member(info.name, what, lambda info=info: archive.extractfile(info), file.tell())
