"""Archives from strangers: what is taken out, what is refused, and that nothing leads outside."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from lpmoe_bench.data.library.archives import ArchiveError, UnpackLimits, is_archive, unpack
from lpmoe_bench.errors import DataError, ResourceError

pytestmark = pytest.mark.faults


def zipped(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return path


def tarred(path: Path, members: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in others:
            archive.addfile(info)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def target(tmp_path) -> Path:
    folder = tmp_path / "outer" / "target"
    folder.mkdir(parents=True)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


@pytest.mark.parametrize(("make", "name"), [(zipped, "a.zip"), (tarred, "a.tar"),
                                            (tarred, "a.tar.gz")])  # fmt: skip
def test_images_tables_and_lists_come_out_and_nothing_else(tmp_path, target, make, name):
    wanted = {"Set/images/größe 1.jpg": b"jpg", "Set/gt/a.PNG": b"png", "Set/train.csv": b"csv"}
    rest = {"Set/run.sh": b"sh", "Set/a.py": b"py", "__MACOSX/Set/._a.jpg": b"", ".git/b.png": b"",
            "Set/readme.md": b"md", "Set/inner.zip": b"zip"}  # fmt: skip
    told = []
    archive = make(tmp_path / name, wanted | rest)
    done = unpack(archive, target, lambda at, total: told.append((at, total)))
    assert files(target) == wanted
    assert (done.files, done.bytes, done.nested) == (3, 9, ["Set/inner.zip"])
    assert told
    assert all(0 <= at <= total == archive.stat().st_size for at, total in told)
    assert not any(path.stat().st_mode & 0o111 for path in target.rglob("*.jpg"))


def test_folders_written_with_backslashes(tmp_path, target):
    unpack(zipped(tmp_path / "a.zip", {"Set\\images\\a.jpg": b"1"}), target)
    assert files(target) == {"Set/images/a.jpg": b"1"}


@pytest.mark.parametrize(
    "name",
    ["../evil.jpg", "/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "c:evil.jpg",
     "a/../evil.jpg", "ev\nil.jpg"],
)  # fmt: skip
@pytest.mark.parametrize("make", [zipped, tarred])
def test_paths_out_of_the_target_are_refused(tmp_path, target, name, make):
    archive = make(tmp_path / f"a.{make.__name__}", {"ok.jpg": b"1", name: b"evil"})
    with pytest.raises(DataError, match="leads out of it; nothing is taken"):
        unpack(archive, target)
    assert set(files(tmp_path / "outer")) <= {"target/ok.jpg"}


def test_links_and_devices_are_refused(tmp_path, target):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with pytest.raises(DataError, match=r"holds a link, a\.jpg"):
        unpack(zipped(tmp_path / "a.zip", {}, {"a.jpg": str(secret)}), target)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        archive = tarred(tmp_path / "a.tar", {}, special("a.jpg", kind, str(secret)))
        with pytest.raises(DataError, match="holds a link or device"):
            unpack(archive, target)
    # A link to a folder outside, and a file written through it.
    archive = tarred(tmp_path / "b.tar", {}, special("dir", tarfile.SYMTYPE, str(tmp_path)))
    with pytest.raises(DataError, match="link or device"):
        unpack(archive, target)
    assert files(target) == {}


def test_bombs_are_stopped_early(tmp_path, target):
    bomb = zipped(tmp_path / "a.zip", {"a.txt": b"\0" * 4_000_000})
    assert bomb.stat().st_size < 10_000
    limits = UnpackLimits(ratio=50, tolerated_bytes=100_000)
    with pytest.raises(
        DataError, match=r"says that it unpacks to 4000000 or more.*a bomb; nothing"
    ):
        unpack(bomb, target, limits=limits)
    rolled = tarred(tmp_path / "a.tar.gz", {"a.txt": b"\0" * 4_000_000})
    with pytest.raises(
        DataError, match=r"says that it unpacks to 4000000 or more.*a bomb; nothing"
    ):
        unpack(rolled, target, limits=limits)
    assert not files(target)  # before a single byte of it
    # What stands behind the end of a tar is unpacked as well, to reach the checksum.
    rolled.write_bytes(
        tarred(tmp_path / "b.tar.gz", {}).read_bytes() + gzip.compress(bytes(4000000))
    )
    with pytest.raises(DataError, match="a bomb"):
        unpack(rolled, target, limits=limits)
    with pytest.raises(DataError, match="unpacks to over 1000 bytes"):
        unpack(zipped(tmp_path / "b.zip", {"b.txt": b"x" * 2000}), target,
               limits=UnpackLimits(total_bytes=1000))  # fmt: skip
    for kept in ("txt", "bin"):  # what is not taken out costs time as well
        many = zipped(tmp_path / f"{kept}.zip", {f"c{k}.{kept}": b"" for k in range(30)})
        with pytest.raises(DataError, match="over 20 files"):
            unpack(many, target, limits=UnpackLimits(files=20))
    with pytest.raises(ResourceError, match="disk is too full"):
        unpack(zipped(tmp_path / "d.zip", {"d.txt": b"x"}), target,
               limits=UnpackLimits(reserve_bytes=2**60))  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("first", [True, False])
def test_a_name_of_gigabytes_is_not_read(tmp_path, target, kind, first):
    huge = special("a.jpg", kind)
    huge.size = 3 << 30  # of which nothing follows: reading it would fail otherwise
    path = tmp_path / "a.tar"
    sound = tarred(path, {} if first else {"b.jpg": b"1"}).read_bytes()[: 0 if first else 1024]
    path.write_bytes(sound + huge.tobuf(tarfile.USTAR_FORMAT) + b"x" * 2048)
    with pytest.raises(ArchiveError, match=r"is damaged .*an entry without content says it has 32"):
        unpack(path, target)
    assert is_archive(path) is not first  # a first one of this kind is not even taken for a tar


def test_a_bomb_of_three_gigabytes_is_refused_by_what_it_declares(tmp_path, target):
    """Nothing of it is decoded: the content is broken, and that is not even seen."""
    path = zipped(tmp_path / "a.zip", {"a.png": bytes(5_000_000), "b.png": b"1"})
    data = path.read_bytes().replace(
        (5_000_000).to_bytes(4, "little"), (3 << 30).to_bytes(4, "little")
    )
    path.write_bytes(data.replace(b"\0" * 100, b"\1" * 100))
    with pytest.raises(ArchiveError, match=r"says that it unpacks to 3221225473 or more.*a bomb"):
        unpack(path, target)
    assert not files(target)


def test_entries_that_lie_over_each_other_are_refused(tmp_path, target):
    path = zipped(tmp_path / "a.zip", {"a.png": os.urandom(900), "b.png": os.urandom(900)})
    with zipfile.ZipFile(path) as archive:
        first, second = (info.header_offset for info in archive.infolist())
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")  # the entry of b.png points to a.png, and is larger than it was
    data[at + 42 : at + 46] = first.to_bytes(4, "little")
    data[at + 20 : at + 24] = (second + 2000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="lie over each other"):
        unpack(path, target)


def test_the_checksum_of_a_compressed_tar_is_reached(tmp_path, target):
    path = tarred(tmp_path / "a.tar.gz", {"a.jpg": os.urandom(5000)})
    data = bytearray(path.read_bytes())
    data[2500] ^= 1  # within what does not compress: the stream can be read, and is another one
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"is damaged .*CRC check failed"):
        unpack(path, target)


def test_a_lie_about_the_size_does_not_help(tmp_path, target):
    path = zipped(tmp_path / "a.zip", {"a.txt": b"\0" * 500_000})
    data = path.read_bytes().replace((500_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(data)
    with pytest.raises(DataError):  # damaged, or over the limit: never 500 000 bytes on disk
        unpack(path, target, limits=UnpackLimits(total_bytes=100_000))
    assert sum(map(len, files(target).values())) <= 1


def test_one_file_twice_is_refused(tmp_path, target):
    path = zipped(tmp_path / "a.zip", {"a.jpg": b"1"})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.jpg", b"2")
    with pytest.raises(DataError, match=r"a\.zip holds a\.jpg twice"):
        unpack(path, target)


@pytest.mark.parametrize(
    "names", [("Set/A.jpg", "Set/a.jpg"), ("Set/images/1.jpg", "set/images/2.jpg")]
)
def test_names_that_only_case_tells_apart_are_refused(tmp_path, target, names):
    path = zipped(tmp_path / "a.zip", dict.fromkeys(names, b"1"))
    with pytest.raises(ArchiveError, match=r"holds both Set.* and .*not every disk tells apart"):
        unpack(path, target)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a" * 300 + ".jpg"], "holds a name that this disk cannot keep"),
        (["a.txt", "a.txt/b.jpg"], "holds a name that this disk cannot keep|a.txt twice"),
        (["a.txt", "a.txt/b/c.jpg"], "holds a name that this disk cannot keep"),
        (["\udcff.jpg"], r"holds the name '\\udcff\.jpg', which is no UTF-8 text"),
    ],
)
def test_names_that_no_folder_can_hold_are_the_archives_fault(tmp_path, target, names, sentence):
    path = tarred(tmp_path / "a.tar", dict.fromkeys(names, b"1"))
    with pytest.raises(ArchiveError, match=sentence) as caught:
        unpack(path, target)
    assert caught.value.archive == path
    assert str(target) not in str(caught.value)


def test_a_device_in_a_zip_is_refused(tmp_path, target):
    info = zipfile.ZipInfo("a.jpg")
    info.create_system, info.external_attr = 3, (stat.S_IFCHR | 0o666) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, b"")
    with pytest.raises(ArchiveError, match=r"holds a device, a\.jpg"):
        unpack(tmp_path / "a.zip", target)


def test_damaged_and_encrypted_archives(tmp_path, target):
    whole = zipped(tmp_path / "a.zip", {"a.jpg": os.urandom(5000)})
    data = bytearray(whole.read_bytes())
    data[2000] ^= 255
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"b\.zip is damaged .*; download it again"):
        unpack(tmp_path / "b.zip", target)
    data = bytearray(whole.read_bytes())
    for at in (data.find(b"PK\x03\x04") + 6, data.find(b"PK\x01\x02") + 8):
        data[at] |= 1  # encrypted, says the header
    (tmp_path / "c.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"holds an encrypted file, a\.jpg; unpack it yourself"):
        unpack(tmp_path / "c.zip", target)
    gz = tarred(tmp_path / "d.tar.gz", {"d.jpg": os.urandom(5000)})
    gz.write_bytes(gz.read_bytes()[:-1000])
    with pytest.raises(DataError, match="is damaged"):
        unpack(gz, target)


def test_what_is_an_archive(tmp_path):
    assert is_archive(zipped(tmp_path / "a.dat", {"a.jpg": b"1"}))
    assert is_archive(tarred(tmp_path / "b.tar.gz", {"a.jpg": b"1"}))
    (tmp_path / "c.zip").write_text("<html>please log in</html>")
    assert not is_archive(tmp_path / "c.zip")
    (tmp_path / "d.zip").touch()
    assert not is_archive(tmp_path / "d.zip")
    os.mkfifo(tmp_path / "e.zip")
    assert not is_archive(tmp_path / "e.zip")
