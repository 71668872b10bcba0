"""Fetching a data set that has direct archives: mirrors, checksums that are kept, then `add`."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from lpmoe_bench.console import Terminal
from lpmoe_bench.datasets.add import Added, Source, add_sources, refuse_present
from lpmoe_bench.datasets.archives import ArchiveError, is_archive
from lpmoe_bench.datasets.download import Resuming
from lpmoe_bench.errors import DataError
from lpmoe_bench.files import sha256_file, write_atomically
from lpmoe_bench.registry.schema import Archive, Dataset

LOCK = "checksums.json"  # in the data folder: of every archive that was fetched
DOWNLOADS = ".downloads"


class Fetched(NamedTuple):
    """An archive on disk, where it is from, and whether its checksum is recorded already."""

    path: Path
    url: str
    recorded: bool


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
        refuse_present(dataset, root, dataset.split_names)
    folder = root / DOWNLOADS / dataset.name
    files = [
        fetch_archive(dataset, archive, name, root, folder, terminal)
        for archive, name in zip(dataset.archives, file_names(dataset), strict=True)
    ]
    sources = [Source(f.path, a.folder) for f, a in zip(files, dataset.archives, strict=True)]
    try:
        added = add_sources(dataset, sources, root, terminal, replace=replace, skip=skip)
    except ArchiveError as error:
        error.archive.unlink(missing_ok=True)
        why = str(error).removesuffix("; download it again")
        raise DataError(f"{why}; it is deleted, the same command downloads it again") from None
    except DataError as error:
        raise DataError(f"{error}; what was downloaded is kept in {folder}") from None
    _record(root / LOCK, dataset.name, files)
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
) -> Fetched:
    """Return one archive in a folder under a name, downloaded and of the right checksum."""
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
            return Fetched(path, url, bool(recorded))
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


def _record(path: Path, name: str, files: list[Fetched]) -> None:
    """Write down the checksums that are not known yet."""
    new = {
        f"{name}/{file.path.name}": {
            "url": file.url,
            "sha256": sha256_file(file.path),
            "bytes": file.path.stat().st_size,
        }
        for file in files
        if not file.recorded
    }
    if new:
        content = read_lock(path) | new
        write_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
