"""Safe unpacking of archives from strangers: nothing outside the target, no links, no bombs."""

import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from lpmoe_bench.console import OnProgress
from lpmoe_bench.data.matching import MASK_SUFFIXES, SUFFIXES, is_text
from lpmoe_bench.errors import DataError, ResourceError
from lpmoe_bench.files import write_failure

# An archive is a stranger's file. What is unpacked of it can be no program, and can lie nowhere but
# below the target; a header may lie about sizes, so bytes are counted as they come out.
KEPT = (*MASK_SUFFIXES, ".csv", ".txt")  # nothing else is taken out: no program, no document
NESTED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")
CHUNK_BYTES = 1 << 20
UNIX = 3  # in a zip: the system whose kinds of files its entries name
UNNAMEABLE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR)
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
BROKEN += (gzip.BadGzipFile,)  # which is an OSError, though no disk is at fault
UNREADABLE = (RuntimeError, NotImplementedError, ValueError)  # unknown method, bad name
BY_HAND = "unpack it yourself and give the folder"


class ArchiveError(DataError):
    """An archive of which nothing is taken, and why."""

    def __init__(self, archive: Path, why: str):
        super().__init__(f"{archive} {why}")
        self.archive = archive


@dataclass(frozen=True)
class UnpackLimits:
    """How much an archive may hold: entries, bytes in all, and bytes for each of its own bytes once
    it has given `tolerated_bytes`; reserve_bytes of the disk are left free."""

    files: int = 2_000_000
    total_bytes: int = 500 * 2**30
    ratio: int = 500
    tolerated_bytes: int = 2**30
    reserve_bytes: int = 2**30


@dataclass
class Unpacked:
    """What came out: files, of which so many images, and bytes; the names of nested archives, which
    are not opened."""

    files: int = 0
    images: int = 0
    bytes: int = 0
    nested: list[str] = field(default_factory=list)


class Member(NamedTuple):
    """An entry of an archive. what: a file, a folder, or what is refused; at: bytes read so far."""

    name: str
    what: str
    open: Callable[[], IO[bytes] | None]
    at: int


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, plain or compressed, by its content."""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        if zipfile.is_zipfile(path):
            return True
        with tarfile.open(path, tarinfo=_TarInfo):
            return True
    except (OSError, *BROKEN):
        return False


def unpack(
    archive: Path,
    target: Path,
    report: OnProgress | None = None,
    limits: UnpackLimits | None = None,
) -> Unpacked:
    """Unpack images, tables and lists of an archive below a folder of its own.

    `report` is told (bytes of the archive read, all). Raises ArchiveError for an archive that is
    broken, encrypted, holds paths out of the target, links, devices, one file twice, names that
    not every disk tells apart, or more than the limits allow, and ResourceError for a full disk;
    what was unpacked until then is the caller's to remove.
    """
    done = Unpacked()
    try:
        size = archive.stat().st_size
        guard = _Guard(archive, size, shutil.disk_usage(target).free, limits or UnpackLimits())
        with open(archive, "rb") as file:
            read = _zip if zipfile.is_zipfile(archive) else _tar
            for member in read(file, guard):
                _take(member, target, done, guard)
                if report is not None:
                    report(min(member.at, size), size)
    except BROKEN as error:
        why = " ".join(str(error).split())  # tarfile's own words run over lines
        raise ArchiveError(archive, f"is damaged ({why}); download it again") from None
    except UNREADABLE as error:
        raise ArchiveError(archive, f"cannot be unpacked ({error}); {BY_HAND}") from None
    except FileExistsError as error:
        name = os.path.relpath(error.filename, target)
        raise ArchiveError(archive, f"holds {name} twice; nothing is taken") from None
    except OSError as error:
        if error.errno in UNNAMEABLE:
            why = f"holds a name that this disk cannot keep ({error.strerror}); {BY_HAND}"
            raise ArchiveError(archive, why) from None
        raise ResourceError(write_failure(target, error)) from error
    return done


@dataclass
class _Guard:
    """What an archive may still give, and the paths it gave, by their spelling in small letters."""

    archive: Path
    size: int
    free_bytes: int  # of the disk, before anything was unpacked
    limits: UnpackLimits
    entries: int = 0
    declared: int = 0  # bytes that its entries claim to have, whether or not they are kept
    seen: dict[str, str] = field(default_factory=dict)

    def refuse(self, why: str) -> None:
        raise ArchiveError(self.archive, why)

    def enter(self, path: PurePosixPath) -> None:
        """Raise for a path that differs from another one in nothing but case."""
        # Folders too: Images/a.png and images/b.png would fall together on some disks.
        for part in (path, *path.parents[:-1]):
            other = self.seen.setdefault(str(part).casefold(), str(part))
            if other != str(part):
                self.refuse(
                    f"holds both {other} and {part}, which not every disk tells apart; {BY_HAND}"
                )

    def count(self) -> None:
        """Raise for more entries than are sane, whether or not they are kept."""
        self.entries += 1
        if self.entries > self.limits.files:
            self.refuse(f"holds over {self.limits.files} files: nothing is taken")

    def declare(self, size: int) -> None:
        """Raise when entries claim more bytes than is sane, before any of them is unpacked."""
        self.declared += size
        if self.declared > self.sane:
            self.refuse(
                f"is {self.size} bytes but says that it unpacks to {self.declared} or more, over "
                f"{self.sane}: a bomb; nothing is taken"
            )

    @property
    def sane(self) -> int:
        return max(self.limits.tolerated_bytes, self.limits.ratio * self.size)

    def check(self, done: Unpacked) -> None:
        """Raise when what came out so far is more than is sane, or than the disk holds."""
        room, most = self.free_bytes - self.limits.reserve_bytes, self.limits.total_bytes
        if done.bytes > min(room, most):
            if room <= most:
                raise ResourceError(f"the disk is too full to unpack {self.archive}; free some")
            self.refuse(f"unpacks to over {most} bytes; nothing is taken")
        if done.bytes > self.sane:
            self.refuse(
                f"is {self.size} bytes but unpacks to over {self.sane}: a bomb; nothing is taken"
            )


def _take(member: Member, target: Path, done: Unpacked, guard: _Guard) -> None:
    """Write one member, if it is one that is kept."""
    guard.count()
    path = _inside(guard.archive, member.name)
    # A link could lead later members out of the target, however sound their own paths are.
    if member.what not in ("a file", "a folder"):
        guard.refuse(f"holds {member.what}, {member.name}; {BY_HAND}")
    suffix = path.suffix.lower()
    if member.what == "a file" and suffix in NESTED:
        done.nested.append(member.name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    if member.what == "a folder" or suffix not in KEPT or hidden:
        return
    guard.enter(path)
    place = target.joinpath(*path.parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None
    done.files += 1
    done.images += suffix in SUFFIXES
    # "x": a second member of one name must not overwrite the first, which may be verified already.
    with source, open(place, "xb") as file:
        while chunk := source.read(CHUNK_BYTES):
            done.bytes += len(chunk)
            guard.check(done)
            file.write(chunk)
    guard.check(done)


def _inside(archive: Path, name: str) -> PurePosixPath:
    """Return a member's path; raises ArchiveError when it is not one below the target."""
    if not is_text(name):
        raise ArchiveError(archive, f"holds the name {name!a}, which is no UTF-8 text; {BY_HAND}")
    # Some programs of Windows write its own separator into a zip; a colon names a drive there.
    path = PurePosixPath(name.replace("\\", "/"))
    strange = any(ord(letter) < 32 for letter in name) or ":" in name.partition("/")[0]
    if path.is_absolute() or ".." in path.parts or strange:
        raise ArchiveError(
            archive, f"holds the path {name!r}, which leads out of it; nothing is taken"
        )
    return path


def _zip(file: IO[bytes], guard: _Guard) -> Iterator[Member]:
    at = 0
    with zipfile.ZipFile(file) as archive:
        # Its list stands at the end, so all sizes are known first. Entries that share bytes of the
        # archive would multiply them.
        guard.declare(sum(info.file_size for info in archive.infolist()))
        if sum(info.compress_size for info in archive.infolist()) > guard.size:
            guard.refuse("has entries that lie over each other: a bomb; nothing is taken")
        for info in archive.infolist():
            at += info.compress_size
            yield Member(info.filename, _kind(info), lambda info=info: archive.open(info), at)


def _kind(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "an encrypted file"
    # Unix programs keep the mode of a file in the upper half of these bits, as `stat` has it.
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "a link"
    if info.create_system == UNIX and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device"
    return "a folder" if info.is_dir() else "a file"


class _TarInfo(tarfile.TarInfo):
    """An entry that is no bomb: tarfile reads those with long names and the like at once."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.size > CHUNK_BYTES:
            raise tarfile.ReadError(f"an entry without content says it has {self.size} bytes")
        return super()._proc_member(archive)  # pyright: ignore[reportAttributeAccessIssue]


def _tar(file: IO[bytes], guard: _Guard) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r:*", tarinfo=_TarInfo) as archive:
        for info in archive:
            guard.declare(info.size)
            what = "a file" if info.isreg() else "a folder" if info.isdir() else "a link or device"
            yield Member(info.name, what, lambda info=info: archive.extractfile(info), file.tell())
        # To the end of the stream, where a checksum stands that tells what was read from damage.
        while archive.fileobj is not None and (rest := archive.fileobj.read(CHUNK_BYTES)):
            guard.declare(len(rest))
