"""Archives changed at random: what was packed comes out, or a sentence that names the archive."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpmoe_bench.data.library.archives import KEPT, ArchiveError, Unpacked, is_archive, unpack
from lpmoe_bench.errors import ResourceError

COUNT = int(os.environ.get("LPMOE_BENCH_EXAMPLES", "25"))
many = settings(max_examples=COUNT, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MEMBERS = {
    "Set/images/a.jpg": bytes(range(256)) * 4,
    "Set/masks/a.png": b"\0" * 3000,
    "Set/list.txt": b"a b c",
    "Set/tool.sh": b"echo",
}


def packed(kind: str, members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    if kind.startswith("zip"):
        method = {"zip": zipfile.ZIP_DEFLATED, "zip stored": zipfile.ZIP_STORED}[kind]
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(
            fileobj=file, mode=f"w:{kind.removeprefix('tar').lstrip('.')}"
        ) as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


KINDS = ("zip", "zip stored", "tar", "tar.gz", "tar.bz2", "tar.xz")
SOUND = {kind: packed(kind, MEMBERS) for kind in KINDS}


def tried(path: Path, target: Path) -> Unpacked | str:
    """What was unpacked, or the sentence of a refusal; anything else that is raised is a fault."""
    try:
        return unpack(path, target)
    except (ArchiveError, ResourceError) as error:
        return str(error)


def check(path: Path, target: Path) -> dict[str, bytes]:
    """Unpack; nothing may stand beside the target, nothing of another kind in it."""
    beside = {*target.parent.iterdir()}
    found = tried(path, target)
    assert {*target.parent.iterdir()} == beside
    files = [p for p in target.rglob("*") if p.is_file() or p.is_symlink()]
    assert all(p.suffix.lower() in KEPT and not p.is_symlink() for p in files)
    if isinstance(found, str):
        assert str(path) in found
        assert "\n" not in found
        assert "could not be written" not in found  # the archive's fault, never the disk's
        return {}
    assert found.files == len(files)
    return {p.relative_to(target).as_posix(): p.read_bytes() for p in files}


@many
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=5),
    st.floats(0.3, 1),
    st.booleans(),
)
def test_changed_bytes(tmp_path_factory, kind, changes, share, cut):
    data = bytearray(SOUND[kind])
    data = data[: int(len(data) * share)] if cut else data
    for at, value in changes:
        data[at % len(data)] = value
    root = tmp_path_factory.mktemp("own")
    path, target = root / "a.archive", root / "target"
    target.mkdir()
    path.write_bytes(data)
    is_archive(path)
    files = check(path, target)
    # A plain tar has no checksum of its contents; the others must not hand over another content.
    if kind != "tar":
        contents = {*MEMBERS.values(), b""}
        assert all(content in contents for content in files.values())


PARTS = st.sampled_from(["..", ".", "a", "A", "CON", "a.png", "\\", "/", "C:", " "])
PATHS = st.lists(PARTS, max_size=6).map("/".join)
NAMES = st.one_of(st.text(max_size=20), PATHS).map(lambda name: f"{name}.png")


@many
@given(st.sampled_from(("zip", "tar")), st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_names_of_any_kind(tmp_path_factory, kind, names):
    try:
        data = packed(kind, dict.fromkeys(names, b"png"))
    except (UnicodeEncodeError, ValueError):  # of what packs: zips know no lone surrogates
        return
    root = tmp_path_factory.mktemp("own")
    path, target = root / "a.archive", root / "target"
    target.mkdir()
    path.write_bytes(data)
    assert set(check(path, target).values()) <= {b"png"}
