"""Predicted maps of records: kept beside a run, or in a folder that a user names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lpmoe_bench.errors import BenchError, UsageError
from lpmoe_bench.records.store import StoredRecord
from lpmoe_bench.report.material import Chapter, Entry
from lpmoe_bench.scoring.folders import find_files, match

KEPT = "predictions"  # folder of a run that keeps its maps, one folder a test set


def parse_maps(texts: Sequence[str]) -> dict[str, Path]:
    """Read NAME=FOLDER for each; raises UsageError for another form or a folder that is none."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UsageError(
                f"--maps got '{text}'; write it as NAME=FOLDER, such as OtherNet=maps/"
            )
        if not Path(folder).is_dir():
            raise UsageError(f"--maps {name}: {folder} is no folder; name one that holds maps")
        found[name] = Path(folder)
    return found


def find_maps(
    chapter: Chapter, entry: Entry, names: Collection[str], given: Mapping[str, Path]
) -> tuple[StoredRecord, dict[str, Path]] | None:
    """Return the first of a row's records whose maps are found, and these by image; else None."""
    for one in entry.stored:
        folders = [one.folder / KEPT / chapter.test.replace("/", "-")]
        method = one.record.method
        if one.record.kind == "score":
            folders += _given(given.get(method.title) or given.get(method.name), chapter.test)
        for folder in folders:
            if not folder.is_dir():
                continue
            try:
                files = match(names, find_files(folder)).files
            except BenchError:  # an empty folder, or names that nobody can tell apart
                continue
            if files:
                return one, files
    return None


def _given(folder: Path | None, test: str) -> list[Path]:
    """Return where a user's folder may keep the maps of a test set."""
    if folder is None:
        return []
    return [folder / test.replace("/", "-"), folder / test, folder]
