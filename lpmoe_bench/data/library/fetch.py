"""One file over HTTP: resumed where it broke off, limited in size, given up when it stalls."""

import json
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpmoe_bench.console import OnProgress, Terminal
from lpmoe_bench.data.library.add import Added, SplitSource, add_sources, read_begun, refuse_present
from lpmoe_bench.data.library.archives import ArchiveError, is_archive
from lpmoe_bench.data.registry import Archive, Dataset
from lpmoe_bench.errors import DataError, ResourceError
from lpmoe_bench.files import sha256_file, write_atomically, write_failure

# Fetching a data set that has direct archives: mirrors, checksums that are kept, then `add`.

LOCK = "checksums.json"  # in the data folder: of every archive that was fetched
DOWNLOADS = ".downloads"


def fetch_set(
    dataset: Dataset,
    root: Path,
    terminal: Terminal,
    *,
    replace: bool = False,
    skip: bool = False,
    keep: bool = False,
) -> Added:
    """Download the archives of a set, unpack and verify them, and put the set under root.

    A download that breaks off goes on at the next call; the archives are removed afterwards unless
    `keep`. Checksums are recorded when the set is in its place: that of a damaged file would keep
    the sound one out. Raises DataError when none of an archive's mirrors gives a sound file, or the
    set is there already, and ResourceError for a full disk.
    """
    if not replace:
        begun = read_begun(root / dataset.folder)
        refuse_present(dataset, root, [name for name in dataset.split_names if name not in begun])
    folder = root / DOWNLOADS / dataset.name
    files = [
        fetch_archive(dataset, archive, name, root, folder, terminal)
        for archive, name in zip(dataset.archives, file_names(dataset), strict=True)
    ]
    pairs = zip(files, dataset.archives, strict=True)
    sources = [SplitSource(path, archive.folder) for (path, _), archive in pairs]
    try:
        added = add_sources(dataset, sources, root, terminal, replace=replace, skip=skip)
    except ArchiveError as error:
        # Kept, a damaged archive would be found complete at every further call, and refused again.
        error.archive.unlink(missing_ok=True)
        why = str(error).removesuffix("; download it again")
        raise DataError(f"{why}; it is deleted, the same command downloads it again") from None
    except DataError as error:
        raise DataError(f"{error}; what was downloaded is kept in {folder}") from None
    lock = read_lock(root / LOCK)  # now: another process may have recorded its own meanwhile
    new = {
        key: {"url": url, "sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path, url in files
        if not lock.get(key := f"{dataset.name}/{path.name}", {}).get("sha256")
    }
    if new:
        text = json.dumps(lock | new, indent=2, sort_keys=True) + "\n"
        write_atomically(root / LOCK, text)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return added


def file_names(dataset: Dataset) -> list[str]:
    """Return the name under which each archive is kept: that of its address, with a number in front
    where several share it."""
    names = [archive.file.strip(".") or "archive" for archive in dataset.archives]
    small = [name.lower() for name in names]
    return [
        f"{k}-{name}" if small.count(name.lower()) > 1 else name
        for k, name in enumerate(names, start=1)
    ]


def fetch_archive(
    dataset: Dataset, archive: Archive, name: str, root: Path, folder: Path, terminal: Terminal
) -> tuple[Path, str]:
    """Return one archive in a folder under a name, of the right checksum, and its address."""
    # A file that nobody published a checksum of is believed once; from then on, all mirrors and all
    # later downloads must give the same bytes.
    recorded = read_lock(root / LOCK).get(f"{dataset.name}/{name}", {}).get("sha256")
    known = archive.checksum or (f"sha256:{recorded}" if recorded else None)
    failures = []
    for url in archive.url:
        try:
            path = _pooch(url, name, known, folder, terminal)
        except DataError as error:
            failures.append(str(error))
            continue
        if is_archive(path):
            return path, url
        path.unlink()
        failures.append(f"{url} is no zip or tar archive")
    by_hand = f"download it from {dataset.page} and give it to lpmoe-bench data add {dataset.name}"
    raise DataError(f"{name}: {'; '.join(failures)}; else {by_hand}")


def _pooch(url: str, file: str, known: str | None, folder: Path, terminal: Terminal) -> Path:
    """Fetch through pooch, which verifies; raises DataError for a wrong checksum."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    store = pooch.create(path=folder, base_url="", registry={file: known}, urls={file: url})
    with terminal.bar(f"fetching {file}", 1) as bar:
        downloader: Any = Resuming(folder / f"{file}.part", bar.update)
        try:
            return Path(store.fetch(file, downloader=downloader))
        except ValueError:  # what pooch raises for another checksum; the file is gone then
            raise DataError(
                f"{url} gives a file of another checksum than {known}, which is "
                f"published or was recorded at the first fetch in {LOCK}; it is not used"
            ) from None


def read_lock(path: Path) -> dict[str, dict[str, Any]]:
    """Return the recorded checksums; raises DataError for a file that holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); correct it or move it away") from None
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise DataError(f"{path} holds no checksums by archive; correct it or move it away")
    return content


ATTEMPTS = 5
WAIT_SECONDS = 1.0  # before the second attempt; twice as long before each further one
TIMEOUT_SECONDS = (10.0, 30.0)  # to connect, and between two pieces of the answer
SLOW_SECONDS, SLOW_BYTES = 60.0, 60 * 1024  # an answer with fewer bytes in that time is given up
MOST_BYTES = 200 * 2**30
PIECE_BYTES = 1 << 18
BUSY = (408, 425, 429, 500, 502, 503, 504)


class _Again(Exception):
    """This attempt failed, but another may not; the text says why."""


@dataclass
class Resuming:
    """A downloader for pooch that keeps a broken download and goes on from there.

    part: where the unfinished file lies; beside it, a note of what it is a part of. A part is only
    continued when the server confirms, by ETag or date, that the file is still the same.
    """

    part: Path
    report: OnProgress | None = None
    most_bytes: int = MOST_BYTES

    @property
    def note(self) -> Path:
        return self.part.with_name(self.part.name + ".json")

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        """Download a URL to a file; raises DataError or ResourceError in one sentence."""
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(WAIT_SECONDS * 2 ** (attempt - 1))
            try:
                self._attempt(url)
                break
            except _Again as error:
                why = str(error)
        else:
            raise DataError(
                f"{url} could not be fetched in {ATTEMPTS} attempts ({why}); what came is kept, "
                f"the same command goes on from there"
            )
        # The note first: a kill between the two leaves a part that is fetched anew, and no note
        # that would vouch for another file's part.
        self.note.unlink(missing_ok=True)
        os.replace(self.part, output_file)

    def _attempt(self, url: str) -> None:
        import requests
        from requests import exceptions as failed
        from urllib3.exceptions import HTTPError

        # The server sends us where no file can be, such as to file://: another attempt is in vain.
        hopeless = (failed.InvalidSchema, failed.InvalidURL, failed.TooManyRedirects)
        have, validator = self._kept(url)
        headers = {"Accept-Encoding": "identity", "User-Agent": "lpmoe-bench"}
        if have:  # the rest if the file is the same, all of it if not: the server decides
            headers |= {"Range": f"bytes={have}-", "If-Range": validator}
        try:
            with requests.get(url, stream=True, timeout=TIMEOUT_SECONDS, headers=headers) as answer:
                self._receive(url, answer, have)
        except hopeless as error:
            raise DataError(f"{url} cannot be fetched ({_short(error)})") from None
        except (requests.RequestException, HTTPError) as error:
            raise _Again(_short(error)) from None
        except OSError as error:
            raise ResourceError(write_failure(self.part, error)) from error

    def _kept(self, url: str) -> tuple[int, str]:
        """Return how many bytes of this URL lie here, and what identifies them."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            have = self.part.stat().st_size
        except (OSError, ValueError):
            return 0, ""
        if not isinstance(note, dict) or note.get("url") != url or not note.get("validator"):
            return 0, ""
        return have, str(note["validator"])

    def _receive(self, url: str, answer: Any, have: int) -> None:
        """Write the body of an answer; raises _Again when it is not whole."""
        _refuse(url, answer)
        if answer.status_code == 416:  # nothing is left of it, or it has changed
            self.note.unlink(missing_ok=True)
            raise _Again("the kept part does not fit")
        start = have if answer.status_code == 206 else 0
        if start and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            self.note.unlink(missing_ok=True)
            raise _Again("the server continued at another place")
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else 0
        if total > self.most_bytes:
            raise DataError(f"{url} says it is {total} bytes; {self.most_bytes} are allowed")
        self.part.parent.mkdir(parents=True, exist_ok=True)
        if total - start > shutil.disk_usage(self.part.parent).free:
            raise ResourceError(
                f"the disk is too full for {url}, {total} bytes; free some space and run the same "
                f"command again"
            )
        # Before the first byte: a part without a note of what it is a part of is never continued.
        write_atomically(self.note, json.dumps({"url": url, "validator": _validator(answer)}))
        with open(self.part, "r+b" if start else "wb") as file:
            file.seek(start)
            self._stream(url, answer, file, start, total)

    def _stream(self, url: str, answer: Any, file: Any, start: int, total: int) -> None:
        """Copy what comes, as it comes; urllib3 raises where less comes than was promised."""
        got, since, mark = 0, time.monotonic(), 0
        while piece := answer.raw.read1(PIECE_BYTES, decode_content=False):
            file.write(piece)
            got += len(piece)
            if start + got > self.most_bytes:  # the head may have promised less, or nothing
                raise DataError(f"{url} is over {self.most_bytes} bytes, which no set is")
            if self.report is not None:
                self.report(start + got, max(total, start + got))
            if time.monotonic() - since > SLOW_SECONDS:
                if got - mark < SLOW_BYTES:
                    raise _Again(f"only {got - mark} bytes in {SLOW_SECONDS:g} seconds")
                since, mark = time.monotonic(), got


def _refuse(url: str, answer: Any) -> None:
    """Raise for an answer that is not the file, by what its head says."""
    if url.startswith("https:") and not answer.url.startswith("https:"):
        raise DataError(f"{url} leads to {answer.url}, which is not encrypted; it is not followed")
    if answer.status_code in BUSY:
        raise _Again(f"the server answers {answer.status_code}")
    if answer.status_code not in (200, 206, 416):
        raise DataError(f"{url} cannot be fetched: the server answers {answer.status_code}")
    kind = answer.headers.get("Content-Type", "")
    if kind.startswith("text/html") and answer.status_code != 416:
        raise DataError(f"{url} answers with a web page, not a file; open it in a browser")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise DataError(f"{url} answers in an encoding that was not asked for")


def _validator(answer: Any) -> str:
    """Return what tells whether a file is still the same: a strong ETag, else its date."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _short(error: Exception) -> str:
    """Name a failed connection in a few words; the library's own text runs over lines."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__
