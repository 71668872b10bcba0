"""Writing, reading and finding records: run.json, per_image.csv, curve.csv."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.files import write_atomically, write_failure
from lpmoe_bench.records.model import Record, parse_record

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


def default_roots() -> list[Path]:
    """Return runs/ where it holds a record, else results/records/."""
    own, published = Path("runs"), Path("results/records")
    return [own] if next(_folders(own), None) or not published.is_dir() else [published]


def find_records(roots: Iterable[Path] | None = None) -> Found:
    """Read all records under the roots (see `default_roots`), in the order of their folders.

    A record that cannot be read becomes a note; raises UsageError for a root that does not exist.
    """
    found, broken = Found([], []), dict[str, list[tuple[Path, str]]]()
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
