"""Records on disk: run.json, per_image.csv, curve.csv; the lock of a run and what is set aside."""

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from lpmoe_bench.environment import no_collection
from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.files import (
    cell_text,
    hold_lock,
    read_regular,
    safe_cell,
    write_atomically,
    write_failure,
)
from lpmoe_bench.records.model import Record, parse_record_text, record_digest

# Writing, reading and finding records: run.json, per_image.csv, curve.csv.


RECORD, ROWS, CURVE = "run.json", "per_image.csv", "curve.csv"
ADAPTER_FILE = "adapter.safetensors"
STATE_FILE = "resume.safetensors"  # of a run that is not finished
KEPT_STATE = "last.safetensors"  # of a finished run that more epochs can go on from
SAID_EACH = 3  # of one fault; more of them are said together
TEXT_COLUMNS = (*("dataset", "image", "group", "confusion", "boxes", "masks", "panoptic", "flags"),)
LONGEST_CELL = 1 << 26  # letters


class StoredRecord(NamedTuple):
    folder: Path
    record: Record


class FoundRecords(NamedTuple):
    """Records by folder, and a sentence for each thing worth saying about the search."""

    stored: list[StoredRecord]
    notes: list[str]

    @property
    def records(self) -> list[Record]:
        return [stored.record for stored in self.stored]


def write_record(
    folder: Path,
    record: Record,
    rows: Sequence[Mapping[str, Any]],
    curve: Sequence[Mapping[str, Any]] = (),
) -> Record:
    """Write a record and seal it; run.json comes last, so a folder that has one is complete.

    Args:
        folder: where its files go; a record that stood there is withdrawn first.
        record: what is known. One of schema version 1 stays unsealed.
        rows: one entry an image.
        curve: one entry a training step kept; none: no curve.csv.

    Returns:
        The record as it is on disk.

    Raises:
        ResourceError: the disk is full; no half file and no run.json is left then.
    """
    row_text, curve_text = rows_to_csv(rows), rows_to_csv(curve) if curve else None
    content = _finite(record.model_dump())
    if record.schema_version > 1:
        curve_digest = None if curve_text is None else _sha256(curve_text.encode())
        # First the digests of the other files, then that of the record, which covers them.
        content["seal"] = {"rows": _sha256(row_text.encode()), "curve": curve_digest}
        content["seal"]["record"] = record_digest(content)
    # Rows come before run.json, which says that the folder is complete.
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # An old run.json goes first: killed from here on, the folder holds no finished run, and never
    # an old record beside new rows.
    for path in (folder / RECORD, folder / CURVE):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError(write_failure(path, error)) from error
    write_atomically(folder / ROWS, row_text)
    if curve_text is not None:
        write_atomically(folder / CURVE, curve_text)
    write_atomically(folder / RECORD, text + "\n")
    return Record.model_validate(content)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check_files(folder: Path, record: Record) -> None:
    """Hold what lies beside run.json against the record's digests; nothing of an unsealed one.

    Raises:
        DataError: a file is missing, was changed or cut off, or is one that the record has not.
    """
    if record.seal is None:
        return
    for name, expected in ((ROWS, record.seal.rows), (CURVE, record.seal.curve)):
        path = f"{folder}/{name}"
        try:
            found = _sha256(read_regular(path))
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise DataError(f"{path} could not be read ({error.strerror})") from None
        if found != expected:
            raise DataError(f"{path} {_difference(found, expected)}; {RESTORE}")


RESTORE = "bring the original back, or run it again"


def _difference(found: str | None, expected: str | None) -> str:
    if found is None:
        return "is missing, but the record has its digest"
    if expected is None:
        return "is there, but the record was written without one"
    return "was changed or cut off after the record was written: its digest is another"


def read_record(folder: Path) -> Record:
    """Read folder/run.json; raises DataError in one sentence when that is not possible.

    That is also where it was changed after it was written. Files beside it: see `check_files`.
    """
    path = f"{folder}/{RECORD}"
    try:
        return parse_record_text(read_regular(path).decode("utf-8"), Path(path))
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds no {RECORD}: no finished run is there; name one run's own folder"
        ) from None
    except OSError as error:
        raise DataError(f"{path} could not be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path} is not valid JSON: damaged, or no record") from None


def _csv_file(text: str) -> io.StringIO:
    """Return text for the csv module, which by itself refuses cells of thousands of detections."""
    csv.field_size_limit(LONGEST_CELL)
    return io.StringIO(text, newline="")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read per_image.csv or curve.csv: numbers as float, blank cells as None, names as text."""
    try:
        file = _csv_file(read_regular(path).decode("utf-8"))
        return [
            {k: cell_text(v) if k in TEXT_COLUMNS else _number(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; the record has no such rows") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is no table of numbers ({error})") from None


class ImageRows(NamedTuple):
    """The lines of per_image.csv on one test set; cells are read as numbers where asked for."""

    path: Path
    images: Sequence[str]
    places: Mapping[str, int]
    lines: Sequence[Sequence[str]]

    def numbers(self, name: str) -> list[float | None]:
        """Return a column, None where a cell is blank or there is no such column."""
        place = self.places.get(name)
        if place is None:
            return [None] * len(self.lines)
        try:
            values = [float(line[place] or "nan") for line in self.lines]
            return [value if math.isfinite(value) else None for value in values]
        except ValueError as error:
            raise DataError(f"{self.path} is no table of numbers ({error})") from None

    def texts(self, name: str) -> list[str]:
        """Return a column as it is written, empty texts where there is no such column."""
        place = self.places.get(name)
        return [cell_text(line[place]) if place is not None else "" for line in self.lines]


def image_rows(folder: Path, test: str) -> ImageRows | None:
    """Return a record's rows on a test set, None where it has no such file; raises DataError."""
    path = f"{folder}/{ROWS}"
    try:
        facts = os.stat(path)
        # With its time and size, a file that was written anew meanwhile is read anew.
        places, by_test = _lines_by_test(path, facts.st_mtime_ns, facts.st_size)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} is no table of numbers ({error})") from None
    lines, place = by_test.get(test, []), places.get("image")
    images = ["" if place is None else cell_text(line[place]) for line in lines]
    return ImageRows(Path(path), images, places, lines)


@lru_cache(maxsize=12)  # the seeds of two rows that are compared; more would only take memory
def _lines_by_test(
    path: str, changed: int, size: int
) -> tuple[dict[str, int], dict[str, list[list[str]]]]:
    text = read_regular(path).decode("utf-8")
    # A quoted cell may hold commas and line breaks.
    if '"' in text or "\r" in text:
        rows = [row for row in csv.reader(_csv_file(text)) if row]
    else:  # what is written here, for which a split is twice as fast
        rows = [line.split(",") for line in text.split("\n") if line]
    head, *lines = rows or [[]]
    widths = {*map(len, lines)}
    if widths - {len(head)}:
        if max(widths) > len(head):
            raise ValueError(f"a row has {max(widths)} cells, the head {len(head)}")
        lines = [line + [""] * (len(head) - len(line)) for line in lines]
    places = {name: place for place, name in enumerate(head)}
    of_test: dict[str, list[list[str]]] = {}
    for line in lines if "dataset" in places else ():
        of_test.setdefault(line[places["dataset"]], []).append(line)
    return places, of_test


def default_roots() -> list[Path]:
    """Return runs/ where it holds a record, else results/records/."""
    own, published = Path("runs"), Path("results/records")
    return [own] if next(folders_of_records(own), None) or not published.is_dir() else [published]


def find_records(roots: Iterable[Path] | None = None) -> FoundRecords:
    """Read all records under the roots (see `default_roots`), in the order of their folders.

    A record that cannot be read, or is not what its digests say, becomes a note; raises UsageError
    for a root that does not exist.
    """
    found, broken = FoundRecords([], []), dict[str, list[tuple[Path, str]]]()
    with no_collection():
        for root in default_roots() if roots is None else roots:
            if roots is not None and not root.is_dir():
                raise UsageError(f"{root} is no folder; name one that holds records, such as runs")
            unread: list[OSError] = []
            for folder in folders_of_records(root, unread.append):
                try:
                    record = read_record(folder)
                    check_files(folder, record)
                    found.stored.append(StoredRecord(folder, record))
                except DataError as error:
                    # One kind of fault may be in hundreds of files: it is said once.
                    kind = str(error).replace(str(folder), "")
                    broken.setdefault(kind, []).append((folder, str(error)))
            for error in unread:
                if isinstance(error, FileNotFoundError):  # there is no runs/ here
                    continue
                text = f"{error.filename} could not be read ({error.strerror})"
                broken.setdefault(f"{error.strerror}", []).append((Path(error.filename), text))
    for faults in broken.values():
        if len(faults) <= SAID_EACH:
            found.notes.extend(f"left out: {text}" for _, text in faults)
        else:
            first = ", ".join(str(folder) for folder, _ in faults[:SAID_EACH])
            found.notes.append(
                f"left out: {len(faults)} records for one reason, such as {first}: {faults[0][1]}"
            )
    return found


def folders_of_records(
    root: Path, unread: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """Yield the folders below a root, or the root itself, that hold a finished record; `unread` is
    told of those that cannot be read."""
    for folder, inner, files in os.walk(root, onerror=unread):
        # In one order on every disk, since output follows that of the records.
        inner.sort()
        if RECORD in files:
            inner.clear()  # predictions may lie below, by the thousand
            yield Path(folder)


def _finite(value: Any) -> Any:
    """Replace numbers that JSON cannot hold by None."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows_to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as the text of a CSV, numbers in full; what is no number is blank."""
    # Rows may have different keys: columns in the order in which they are first met.
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    plain, quoted = (
        csv.DictWriter(text, columns, restval="", lineterminator="\n", quoting=quoting)
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    )
    plain.writeheader()
    for row in _finite(rows):  # numpy's floats write themselves with their type
        cells = {k: float(v) if isinstance(v, float) else safe_cell(v) for k, v in row.items()}
        # Readers end a line at a carriage return, which the module quotes in newer Pythons alone.
        odd = any(isinstance(cell, str) and "\r" in cell for cell in cells.values())
        (quoted if odd else plain).writerow(cells)
    return text.getvalue()


def _number(text: str) -> float | None:
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None


# The folder of a run: its lock, its files, what is set aside, what is published.

OPENED_FILE = "test_opened"


def count_opening(folder: Path) -> int:
    """Count that the test sets are opened now, also over runs that were killed meanwhile."""
    path = folder / OPENED_FILE
    opened = 1
    with suppress(OSError, ValueError):  # none yet, or damaged: a trained run is not lost for it
        opened += int(path.read_text())
    write_atomically(path, str(opened))
    return opened


def set_aside(folder: Path) -> None:
    """Rename a finished run's files, so that a forced rerun loses nothing and starts afresh."""
    for name in (STATE_FILE, OPENED_FILE):
        (folder / name).unlink(missing_ok=True)
    number = 1 + len(list(folder.glob("superseded-*-run.json")))
    for name in ("run.json", "per_image.csv", "curve.csv", ADAPTER_FILE, KEPT_STATE, "predictions"):
        if (folder / name).exists():
            (folder / name).rename(folder / f"superseded-{number}-{name}")


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; a second process on the same run is told so."""
    # Of several processes of one run, the first holds it for all.
    if os.environ.get("LOCAL_RANK", "0") != "0":
        yield
        return
    lock = hold_lock(folder / ".lock")
    if lock is None:
        raise UsageError(f"another process is working on {folder}; wait for it")
    with lock:
        yield


# Where a record's own images, masks and maps lie on this machine: a file beside run.json. It is no
# part of the record: nothing is hashed of it, nothing of it is published, and a folder that moved
# is only not found. With it `report` and `figure` find what a user's own folders hold.


PLACES = "places.json"


class Places(NamedTuple):
    """Folders of one test set: its images, its masks, and the maps that a record is about."""

    images: Path | None = None
    masks: Path | None = None
    maps: Path | None = None


def remember_places(folder: Path, test: str, places: Places) -> None:
    """Write the folders of a test set beside a record, in place of those that stood there."""
    known = _read_places(folder)
    own = {key: os.path.abspath(place) for key, place in places._asdict().items() if place}
    if own and known.get(test) != own:
        text = json.dumps(known | {test: own}, indent=1, ensure_ascii=False)
        write_atomically(folder / PLACES, text + "\n")


def recall_places(folder: Path, test: str, there: bool = True) -> Places:
    """Return the places that a record remembers of a test set: `there` for those that are, else
    those that are not there any more."""
    found = _read_places(folder).get(test, {})
    paths = {key: Path(found[key]) for key in Places._fields if isinstance(found.get(key), str)}
    return Places(**{key: path for key, path in paths.items() if path.exists() is there})


def common_folder(files: Iterable[Path]) -> Path | None:
    """Return the nearest folder that holds all these files; None for no file."""
    parents = [os.path.abspath(file.parent) for file in files]
    return Path(os.path.commonpath(parents)) if parents else None


def _read_places(folder: Path) -> dict[str, dict[str, str]]:
    try:
        found = json.loads(read_regular(folder / PLACES))
    except (OSError, ValueError, RecursionError):  # none, or damaged: nothing is remembered
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {test: places for test, places in pairs if isinstance(places, dict)}
