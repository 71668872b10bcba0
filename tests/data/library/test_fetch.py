"""From archives on a server to a set in its place: checksums kept, mirrors, hostile content."""

import hashlib
import io
import json
import tarfile
import zipfile

import cv2
import pytest
from downloads import QUIET
from drawn_files import noise_image, square_mask
from http_site import Page, serve

from lpmoe_bench.data.library import fetch
from lpmoe_bench.data.library.fetch import LOCK, fetch_set, file_names
from lpmoe_bench.data.registry import Dataset
from lpmoe_bench.data.tasks import open_split
from lpmoe_bench.errors import DataError


def png(pixels) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def part(folder: str, seeds: range, masks: bool = False) -> bytes:
    made = {
        f"{folder}/{seed}.png": png(square_mask() if masks else noise_image(seed=seed))
        for seed in seeds
    }
    return zipped(made)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(fetch, "WAIT_SECONDS", 0)
    monkeypatch.setattr(fetch, "ATTEMPTS", 2)
    with serve() as site:
        site.pages["/images.zip"] = Page(part("images", range(3)))
        site.pages["/masks.zip"] = Page(part("gt", range(3), masks=True))
        yield site


def dataset(site, **changes) -> Dataset:
    facts = {
        "name": "mine",
        "title": "Mine",
        "task": "cod",
        "page": "http://page",
        "licence": "free",
        "layouts": [{"all": ["images", "gt"]}],
        "counts": {"all": 3},
        "archives": [{"url": f"{site.url}/images.zip"}, {"url": f"{site.url}/masks.zip"}],
    }
    return Dataset.model_validate(facts | changes)


def test_two_archives_become_one_set(site, tmp_path):
    mine = dataset(site)
    added = fetch_set(mine, tmp_path, QUIET)
    assert added.splits[0].pairs == 3
    split = open_split(mine, "all", tmp_path)
    assert split is not None
    assert [pair.name for pair in split.pairs] == ["0", "1", "2"]
    text = (tmp_path / "mine/all/SOURCE.txt").read_text()
    assert "Licence: free" in text
    assert "images.zip, sha256" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == [".downloads", LOCK, "mine"]
    assert list((tmp_path / ".downloads").iterdir()) == []
    lock = json.loads((tmp_path / LOCK).read_text())
    content = site.pages["/masks.zip"].content
    assert lock["mine/masks.zip"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert lock["mine/masks.zip"]["bytes"] == len(content)


def test_what_is_there_is_not_fetched_again(site, tmp_path):
    mine = dataset(site)
    fetch_set(mine, tmp_path, QUIET)
    site.asked.clear()
    with pytest.raises(DataError, match=r"mine/all is in .* already; --replace puts that aside"):
        fetch_set(mine, tmp_path, QUIET)
    assert site.asked == []
    added = fetch_set(mine, tmp_path, QUIET, replace=True)
    assert len(added.aside) == 1
    assert len(list((tmp_path / "mine/.all-replaced-1/images").iterdir())) == 3


def test_the_checksum_of_the_first_fetch_is_enforced(site, tmp_path):
    mine = dataset(site)
    fetch_set(mine, tmp_path, QUIET)
    first = site.pages["/masks.zip"]
    site.pages["/masks.zip"] = Page(part("gt", range(3, 6), masks=True), etag='"two"')
    with pytest.raises(DataError, match=r"masks\.zip gives a file of another checksum than sha256"):
        fetch_set(mine, tmp_path, QUIET, replace=True)
    assert len(list((tmp_path / "mine/all/masks").iterdir())) == 3
    site.pages["/masks.zip"] = first
    assert fetch_set(mine, tmp_path, QUIET, replace=True).splits[0].pairs == 3


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_published_checksum(site, tmp_path, kind):
    right = f"{kind}:{hashlib.new(kind, site.pages['/images.zip'].content).hexdigest()}"
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    for checksum in (wrong, right):
        archives = [{"url": f"{site.url}/images.zip", "checksum": checksum},
                    {"url": f"{site.url}/masks.zip"}]  # fmt: skip
        mine = dataset(site, archives=archives)
        if checksum == wrong:
            with pytest.raises(DataError, match=r"another checksum than .*; else download it from"):
                fetch_set(mine, tmp_path, QUIET)
            assert not (tmp_path / "mine").exists()
            assert not (tmp_path / LOCK).exists()
        else:
            assert fetch_set(mine, tmp_path, QUIET).splits[0].pairs == 3


def test_mirrors_are_tried_in_turn(site, tmp_path):
    site.pages["/page"] = Page(b"<html>", headers={"Content-Type": "text/html"})
    site.pages["/junk"] = Page(b"no archive")
    urls = [f"{site.url}/{path}" for path in ("gone", "page", "junk", "images.zip")]
    mine = dataset(site, archives=[{"url": urls}, {"url": f"{site.url}/masks.zip"}])
    assert fetch_set(mine, tmp_path, QUIET).splits[0].pairs == 3
    lock = json.loads((tmp_path / LOCK).read_text())
    assert lock["mine/gone"]["url"].endswith("/images.zip")


def test_when_no_mirror_helps_all_reasons_are_named(site, tmp_path):
    site.pages["/junk"] = Page(b"no archive")
    urls = [f"{site.url}/{path}" for path in ("gone", "junk")]
    with pytest.raises(DataError, match=r"404; .*/junk is no zip or tar archive; else download it "
                       "from http://page and give it to lpmoe-bench data add mine"):  # fmt: skip
        fetch_set(dataset(site, archives=[{"url": urls}]), tmp_path, QUIET)
    assert not (tmp_path / LOCK).exists()


def test_a_download_that_broke_goes_on_next_time(site, tmp_path):
    page = site.pages["/masks.zip"]
    page.cuts = [100, 50]
    with pytest.raises(DataError, match="goes on from there"):
        fetch_set(dataset(site), tmp_path, QUIET)
    site.asked.clear()
    assert fetch_set(dataset(site), tmp_path, QUIET).splits[0].pairs == 3
    assert site.asked == [("/masks.zip", "bytes=150-")]  # images.zip is there whole


def test_hostile_archives_leave_nothing_behind(site, tmp_path):
    site.pages["/masks.zip"] = Page(zipped({"../../evil.png": b"1", "gt/0.png": b"1"}))
    root = tmp_path / "deep" / "root"
    with pytest.raises(DataError, match="leads out of it"):
        fetch_set(dataset(site), root, QUIET)
    assert sorted(p.name for p in root.iterdir()) == [".downloads"]
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("way", ["byte", "end"])
def test_a_damaged_archive_does_not_keep_the_sound_one_out(site, tmp_path, way):
    sound = site.pages["/images.zip"].content
    if way == "byte":
        bad = bytearray(sound)
        bad[100] ^= 255
    else:  # what a server that cuts off without telling the length leaves of a tar
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            info = tarfile.TarInfo("images/0.png")
            info.size = len(sound)
            archive.addfile(info, io.BytesIO(sound))
        bad = packed.getvalue()[:-100]
    site.pages["/images.zip"] = Page(bytes(bad))
    with pytest.raises(
        DataError, match=r"images\.zip is damaged .*; it is deleted, the same command"
    ):
        fetch_set(dataset(site), tmp_path, QUIET)
    assert not (tmp_path / LOCK).exists()
    site.pages["/images.zip"] = Page(sound, etag='"two"')
    site.asked.clear()
    assert fetch_set(dataset(site), tmp_path, QUIET).splits[0].pairs == 3
    assert site.asked == [("/images.zip", None)]  # masks.zip is there whole


def test_archives_of_one_name_are_kept_apart(site, tmp_path):
    urls = [f"{site.url}/{kind}/data.zip" for kind in ("images", "masks")]
    for kind in ("images", "masks"):
        site.pages[f"/{kind}/data.zip"] = site.pages[f"/{kind}.zip"]
    mine = dataset(site, archives=[{"url": url} for url in urls])
    assert fetch_set(mine, tmp_path, QUIET).splits[0].pairs == 3
    assert set(json.loads((tmp_path / LOCK).read_text())) == {"mine/1-data.zip", "mine/2-data.zip"}


def test_an_address_that_ends_in_no_name(site):
    archives = [{"url": f"{site.url}/a/.."}, {"url": f"{site.url}/get?file=a.zip"}]
    assert file_names(dataset(site, archives=archives)) == ["archive", "get"]


def test_what_is_not_recognised_is_kept_for_the_user(site, tmp_path):
    site.pages["/images.zip"] = Page(part("left", range(3)))
    mine = dataset(site)
    with pytest.raises(DataError, match=r"what was downloaded is kept in .*mine$"):
        fetch_set(mine, tmp_path, QUIET)
    assert len(list((tmp_path / ".downloads/mine").iterdir())) == 2
    assert not (tmp_path / LOCK).exists()


def test_broken_pairs_are_refused_or_left_out(site, tmp_path):
    whole = part("gt", range(2), masks=True)
    buffer = io.BytesIO(whole)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("gt/2.png", b"nonsense")
    site.pages["/masks.zip"] = Page(buffer.getvalue())
    with pytest.raises(DataError, match=r"1 of 3 pairs of mine/all are broken: masks/2\.png cannot "
                       r"be decoded.*--skip-broken leaves them out"):  # fmt: skip
        fetch_set(dataset(site), tmp_path, QUIET)
    assert not (tmp_path / "mine").exists()
    added = fetch_set(dataset(site), tmp_path, QUIET, skip=True)
    assert added.splits[0].pairs == 2
    assert added.splits[0].remarks == ["2 pairs counted, officially 3 (not confirmed)"]
    assert "mine/all: masks/2.png cannot be decoded" in added.skipped[0]
    assert len(list((tmp_path / "mine/all/images").iterdir())) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"mine/images.zip": 3}'])
def test_a_damaged_lock_is_a_sentence(site, tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(DataError, match="correct it or move it away"):
        fetch_set(dataset(site), tmp_path, QUIET)
