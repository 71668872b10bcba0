"""Downloads that break, lie, stall or change under way; all from a server on this machine."""

import json

import pytest
from http_site import Page, serve

from lpmoe_bench.data.library import fetch as fetch_module
from lpmoe_bench.data.library.fetch import Resuming
from lpmoe_bench.errors import DataError, ResourceError

BODY = bytes(range(256)) * 2000


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(fetch_module, "WAIT_SECONDS", 0)
    monkeypatch.setattr(fetch_module, "PIECE_BYTES", 1 << 16)
    with serve() as site:
        yield site


@pytest.fixture
def fetch(tmp_path, site):
    """Fetch /a.zip; returns its bytes."""

    def get(**options) -> bytes:
        target = tmp_path / "done"
        Resuming(tmp_path / "a.zip.part", **options)(f"{site.url}/a.zip", target, None)
        assert not (tmp_path / "a.zip.part").exists()
        assert not (tmp_path / "a.zip.part.json").exists()
        return target.read_bytes()

    return get


def ranges(site) -> list[str | None]:
    return [asked for _, asked in site.asked]


def test_a_whole_answer(site, fetch):
    told = []
    site.pages["/a.zip"] = Page(BODY)
    assert fetch(report=lambda done, total: told.append((done, total))) == BODY
    assert ranges(site) == [None]
    assert told[-1] == (len(BODY), len(BODY))
    assert len(told) > 3


def test_broken_answers_are_continued(site, fetch):
    site.pages["/a.zip"] = Page(BODY, cuts=[100_000, 50_000, 0])
    assert fetch() == BODY
    assert ranges(site) == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]


def test_a_kill_is_continued_by_the_next_command(site, fetch, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_module, "ATTEMPTS", 1)
    site.pages["/a.zip"] = Page(BODY, cuts=[100_000])
    with pytest.raises(DataError, match=r"in 1 attempts .* goes on from there"):
        fetch()
    assert (tmp_path / "a.zip.part").stat().st_size == 100_000
    assert fetch() == BODY
    assert ranges(site) == [None, "bytes=100000-"]


def test_a_file_that_changed_starts_over(site, fetch, monkeypatch):
    monkeypatch.setattr(fetch_module, "ATTEMPTS", 1)
    site.pages["/a.zip"] = Page(BODY, cuts=[100_000])
    with pytest.raises(DataError):
        fetch()
    new = BODY[::-1]
    site.pages["/a.zip"] = Page(new, etag='"two"')
    assert fetch() == new


def test_servers_that_cannot_continue(site, fetch):
    site.pages["/a.zip"] = Page(BODY, ranges=False, cuts=[100_000])
    assert fetch() == BODY
    # No mark of identity: a part could belong to another version.
    site.asked.clear()
    site.pages["/a.zip"] = Page(BODY, etag="", cuts=[100_000])
    assert fetch() == BODY
    assert ranges(site) == [None, None]
    # A weak ETag promises nothing byte by byte.
    site.asked.clear()
    site.pages["/a.zip"] = Page(BODY, etag='W/"one"', cuts=[100_000])
    assert fetch() == BODY
    assert ranges(site) == [None, None]


def test_a_server_that_continues_elsewhere_is_not_believed(site, fetch):
    site.pages["/a.zip"] = Page(BODY, cuts=[100_000], wrong_range=True)
    assert fetch() == BODY
    assert ranges(site) == [None, "bytes=100000-", None]


def test_a_part_of_another_address_is_not_continued(site, fetch, tmp_path):
    site.pages["/a.zip"] = Page(BODY)
    (tmp_path / "a.zip.part").write_bytes(b"other")
    note = tmp_path / "a.zip.part.json"
    for text in (json.dumps({"url": "http://other/a.zip", "validator": '"one"'}), "{", "[]"):
        note.write_text(text)
        assert fetch() == BODY
    assert ranges(site) == [None, None, None]


def test_a_busy_server_is_asked_again(site, fetch):
    site.pages["/a.zip"] = Page(BODY, busy=2)
    assert fetch() == BODY
    site.pages["/a.zip"] = Page(BODY, busy=99)
    with pytest.raises(DataError, match=r"in 5 attempts .the server answers 503"):
        fetch()


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        (None, "the server answers 404"),
        (Page(BODY, status=403), "the server answers 403"),
        (Page(b"log in", headers={"Content-Type": "text/html; charset=utf-8"}), "a web page"),
        (Page(BODY, headers={"Content-Encoding": "gzip"}), "an encoding that was not asked for"),
        (Page(b"x", length=2**50), r"says it is 1125899906842624 bytes"),
        (
            Page(b"", status=302, headers={"Location": "file:///etc/passwd"}),
            "cannot be fetched .Inv",
        ),
    ],
)
def test_answers_that_are_not_the_file(site, fetch, page, sentence):
    if page is not None:
        site.pages["/a.zip"] = page
    with pytest.raises(DataError, match=sentence):
        fetch()
    assert len(site.asked) == 1  # another attempt would not help


def test_a_circle_of_redirects_is_left_at_once(site, fetch):
    site.pages["/a.zip"] = Page(b"", status=302, headers={"Location": "/a.zip"})
    with pytest.raises(DataError, match=r"cannot be fetched .TooManyRedirects"):
        fetch()
    assert len(site.asked) < 40


def test_more_than_is_allowed_is_cut_off(site, fetch, tmp_path):
    site.pages["/a.zip"] = Page(BODY)
    with pytest.raises(DataError, match="says it is 512000 bytes; 1000 are allowed"):
        fetch(most_bytes=1000)
    assert not (tmp_path / "done").exists()
    site.pages["/a.zip"] = Page(b"x", length=2**48)
    with pytest.raises(ResourceError, match="disk is too full"):
        fetch(most_bytes=2**60)


@pytest.mark.parametrize(
    ("limit", "value", "pause", "words"),
    [
        ("SLOW_SECONDS", 0.1, 0.02, r"\(only \d+ bytes in 0.1 seconds\)"),
        ("TIMEOUT_SECONDS", (1, 0.1), 1, r".*[Tt]imed? ?out"),
    ],
)
def test_a_stalling_or_silent_server_is_given_up(
    site, fetch, monkeypatch, limit, value, pause, words
):
    monkeypatch.setattr(fetch_module, limit, value)
    monkeypatch.setattr(fetch_module, "ATTEMPTS", 2)
    site.pages["/a.zip"] = Page(BODY, trickle_seconds=pause)
    with pytest.raises(DataError, match=rf"in 2 attempts {words}"):
        fetch()


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_module, "WAIT_SECONDS", 0)
    with pytest.raises(DataError, match="in 5 attempts") as caught:
        Resuming(tmp_path / "part")("http://127.0.0.1:9/a.zip", tmp_path / "done", None)
    assert "\n" not in str(caught.value)


def test_an_encrypted_address_is_not_left_for_a_plain_one():
    class Answer:
        url = "http://elsewhere/a.zip"

    with pytest.raises(DataError, match="which is not encrypted; it is not followed"):
        fetch_module._refuse("https://somewhere/a.zip", Answer())
