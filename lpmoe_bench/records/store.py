"""Records on disk: run.json, per_image.csv, curve.csv; the lock of a run, and what is published."""

import csv
import gc
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.files import hold_lock, write_atomically, write_failure
from lpmoe_bench.records.model import Record, parse_record, record_folder

# Writing, reading and finding records: run.json, per_image.csv, curve.csv.


RECORD, ROWS, CURVE = "run.json", "per_image.csv", "curve.csv"
ADAPTER_FILE = "adapter.safetensors"
STATE_FILE = "resume.safetensors"  # of a run that is not finished
SAID_EACH = 3  # of one fault; more of them are said together
TEXT_COLUMNS = ("dataset", "image", "flags")


class StoredRecord(NamedTuple):
    folder: Path
    record: Record


class Found(NamedTuple):
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
) -> None:
    """Write a record; run.json comes last, so a folder that has one is complete.

    `rows` has one entry an image, `curve` one a training step kept (none: no curve.csv). A record
    that stood there is withdrawn first. Raises ResourceError when the disk is full; no half file
    and no run.json is left then.
    """
    text = json.dumps(_finite(record.model_dump()), indent=1, ensure_ascii=False, allow_nan=False)
    for name in (RECORD, CURVE):
        _remove(folder / name)
    write_atomically(folder / ROWS, _to_csv(rows))
    if curve:
        write_atomically(folder / CURVE, _to_csv(curve))
    write_atomically(folder / RECORD, text + "\n")


def read_record(folder: Path) -> Record:
    """Read folder/run.json; raises DataError in one sentence when that is not possible."""
    path = folder / RECORD
    try:
        # NaN and infinity are no JSON, but other programs write them: they are no value here.
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds no {RECORD}: no finished run is there; name one run's own folder"
        ) from None
    except OSError as error:
        raise DataError(f"{path} could not be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path} is not valid JSON: damaged, or no record") from None
    return parse_record(content, path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read per_image.csv or curve.csv: numbers as float, blank cells as None, names as text."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                {key: text if key in TEXT_COLUMNS else _number(text) for key, text in row.items()}
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; the record has no such rows") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is no table of numbers ({error})") from None


class RowColumns(NamedTuple):
    """The columns of per_image.csv as texts; numbers are read where they are asked for."""

    path: Path
    texts: Mapping[str, Sequence[str]]

    def numbers(self, name: str, places: Sequence[int]) -> list[float | None]:
        """Return a column at these rows, None where a cell is blank or there is no such column."""
        column = self.texts.get(name)
        if column is None:
            return [None] * len(places)
        try:
            return [_number(column[place]) for place in places]
        except ValueError as error:
            raise DataError(f"{self.path} is no table of numbers ({error})") from None


def read_columns(path: Path) -> RowColumns:
    """Read per_image.csv by column; one metric after the other needs the file only once."""
    try:
        facts = path.stat()
        return _columns(path, facts.st_mtime_ns, facts.st_size)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} is no table of numbers ({error})") from None


@lru_cache(maxsize=12)  # the seeds of two rows that are compared; more would only take memory
def _columns(path: Path, changed: int, size: int) -> RowColumns:
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    columns = list(zip_longest(*rows, fillvalue=""))
    if len(columns) > len(header):
        raise ValueError(f"a row has {len(columns)} cells, the head {len(header)}")
    columns += [("",) * len(rows)] * (len(header) - len(columns))
    return RowColumns(path, dict(zip(header, columns, strict=True)))


def default_roots() -> list[Path]:
    """Return runs/ where it holds a record, else results/records/."""
    own, published = Path("runs"), Path("results/records")
    return [own] if next(_folders(own), None) or not published.is_dir() else [published]


def find_records(roots: Iterable[Path] | None = None) -> Found:
    """Read all records under the roots (see `default_roots`), in the order of their folders.

    A record that cannot be read becomes a note; raises UsageError for a root that does not exist.
    """
    found, broken = Found([], []), dict[str, list[tuple[Path, str]]]()
    with no_collection():
        for root in default_roots() if roots is None else roots:
            if roots is not None and not root.is_dir():
                raise UsageError(f"{root} is no folder; name one that holds records, such as runs")
            for folder in _folders(root):
                try:
                    found.stored.append(StoredRecord(folder, read_record(folder)))
                except DataError as error:
                    # One kind of fault may be in hundreds of files: it is said once.
                    kind = str(error).replace(str(folder), "")
                    broken.setdefault(kind, []).append((folder, str(error)))
    for faults in broken.values():
        if len(faults) <= SAID_EACH:
            found.notes.extend(f"left out: {text}" for _, text in faults)
        else:
            first = ", ".join(str(folder) for folder, _ in faults[:SAID_EACH])
            found.notes.append(
                f"left out: {len(faults)} records for one reason, such as {first}: {faults[0][1]}"
            )
    return found


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause the search for circles of objects: records have none, and each search would walk over
    all of those that were read."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _folders(root: Path):
    for folder, inner, files in os.walk(root):
        inner.sort()
        if RECORD in files:
            inner.clear()  # predictions may lie below, by the thousand
            yield Path(folder)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(write_failure(path, error)) from error


def _finite(value: Any) -> Any:
    """Replace numbers that JSON cannot hold by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else ""
    return "" if value is None else value


def _number(text: str) -> float | None:
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None


# The folder of a run: its lock, its files, what is set aside, what is published.

OPENED_FILE = "test_opened"


def count_opening(folder: Path) -> int:
    """Count that the test sets are opened now, also over runs that were killed meanwhile."""
    path = folder / OPENED_FILE
    opened = int(path.read_text()) + 1 if path.exists() else 1
    write_atomically(path, str(opened))
    return opened


def set_aside(folder: Path) -> None:
    """Rename a finished run's files, so that a forced rerun loses nothing and starts afresh."""
    for name in (STATE_FILE, OPENED_FILE):
        (folder / name).unlink(missing_ok=True)
    number = 1 + len(list(folder.glob("superseded-*-run.json")))
    for name in ("run.json", "per_image.csv", "curve.csv", ADAPTER_FILE, "predictions"):
        if (folder / name).exists():
            (folder / name).rename(folder / f"superseded-{number}-{name}")


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; a second process on the same run is told so."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        yield
        return
    lock = hold_lock(folder / ".lock")
    if lock is None:
        raise UsageError(f"another process is working on {folder}; wait for it")
    with lock:
        yield


# Publishing: copy a record's numbers, never weights and never images, to where they are kept.


def publish(run_folder: Path, results_root: Path, allow_dirty: bool = False) -> Path:
    """Copy run.json, per_image.csv and curve.csv under `results_root` and return their folder.

    An identical record that is there already is accepted. Raises UsageError for another record in
    its place, or one made by code that differs from its commit (unless `allow_dirty`), and
    DataError where the run's files are missing.
    """
    record = read_record(run_folder)
    if not allow_dirty:
        _refuse_dirty(record)
    files = {name: run_folder / name for name in (ROWS, CURVE, RECORD)}
    if not files[CURVE].exists():
        del files[CURVE]
    try:
        contents = {name: path.read_bytes() for name, path in files.items()}
    except OSError as error:
        raise DataError(f"{error.filename} could not be read ({error.strerror})") from None
    target = results_root / record_folder(record)
    if _holds(target, record, contents):
        return target
    for name, content in contents.items():  # run.json last
        write_atomically(target / name, content)
    return target


def _refuse_dirty(record: Record) -> None:
    if record.environment.git_dirty:
        sha = (record.environment.git_sha or "unknown")[:12]
        raise UsageError(
            f"run {record.id} was made by code that differs from its commit {sha}, so nobody can "
            f"rerun it; commit and rerun, or allow a dirty tree on purpose"
        )


def _holds(target: Path, record: Record, contents: dict[str, bytes]) -> bool:
    """Whether the same record is there; raises UsageError when it is another one."""
    if not (target / RECORD).exists():
        return False
    names = (ROWS, CURVE, RECORD)
    there = {name: (target / name).read_bytes() for name in names if (target / name).exists()}
    if there == contents:
        return True
    raise UsageError(
        f"{target} already holds another record of this fingerprint and seed, made "
        f"{read_record(target).created}; yours was made {record.created}; published records "
        f"are never overwritten: move the old one away if yours must replace it"
    )
