"""Holding a record against what lies beside it, and publishing what stands the test.

Tables look at digests alone. Here the scores are also made again from the rows, as far as these
determine them; what they do not determine is named, and never called proved.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lpmoe_bench.errors import BenchError, DataError, UsageError
from lpmoe_bench.files import read_regular, write_atomically
from lpmoe_bench.metrics.extra import EXTRA
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.records.model import Record, impossible, record_folder
from lpmoe_bench.records.store import (
    ADAPTER_FILE,
    CURVE,
    RECORD,
    ROWS,
    check_files,
    folders_of_records,
    read_record,
    read_rows,
)

ROUNDING = 1e-9  # by which a score may differ from that of its rows
PLURAL = ("empty_mask", "full_mask", "constant_pred", "single_pixel")  # flags as counts name them


@dataclass
class RecordCheck:
    """What was found of one record.

    sealed: it carries digests, which hold where there is no fault. faults: a sentence each.
    recomputed: scores that its rows give again. undetermined: `test set metric` of those that the
    rows do not determine. without: files that the record knows of and that are not here, which is
    no fault: a published copy holds no adapter.
    """

    folder: Path
    sealed: bool = False
    faults: list[str] = field(default_factory=list)
    recomputed: int = 0
    undetermined: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Say in one line how the record stands."""
        if self.faults:
            return f"{self.folder}: NOT SOUND: {'; '.join(self.faults)}"
        words = ["sealed" if self.sealed else "unsealed: it is of schema 1, without digests"]
        words.append(f"{self.recomputed} scores recomputed from rows")
        if self.undetermined:
            words.append(f"rows do not determine {', '.join(self.undetermined)}")
        words += [f"{name} is not held here" for name in self.without]
        return f"{self.folder}: {'; '.join(words)}"

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"folder": str(self.folder), "sound": not self.faults}


def verify_records(roots: Iterable[Path]) -> list[RecordCheck]:
    """Verify every record under some folders, each of which may be a record's own.

    Raises:
        UsageError: a folder does not exist.
        DataError: a folder holds no record.
    """
    found: list[RecordCheck] = []
    for root in roots:
        if not root.is_dir():
            raise UsageError(f"{root} is no folder; name one that holds records, such as runs")
        folders = list(folders_of_records(root))
        if not folders:
            raise DataError(f"{root} holds no finished record, so that nothing can be verified")
        found += map(verify_record, folders)
    return found


def verify_record(folder: Path) -> RecordCheck:
    """Hold one record against its digests, its rows, its curve and its adapter."""
    found = RecordCheck(folder)
    try:
        record = read_record(folder)
        found.sealed = record.seal is not None
        check_files(folder, record)
        rows = read_rows(folder / ROWS)
    except DataError as error:
        found.faults.append(_shorter(str(error), folder))
        return found
    by_test: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_test.setdefault(str(row.get("dataset")), []).append(row)
    if strange := sorted(by_test.keys() - record.scores.keys()):
        found.faults.append(f"{ROWS} has rows of {', '.join(strange)}, of which there is no score")
    for test in record.scores:
        found.faults += _of_test(record, test, by_test.get(test, []), found)
    found.faults += _of_curve(folder, record)
    found.faults += _of_adapter(folder, record, found)
    return found


def _shorter(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "")


def _of_test(
    record: Record, test: str, rows: Sequence[Mapping[str, Any]], found: RecordCheck
) -> Iterator[str]:
    """Yield what is wrong with a test set's scores and counts, by its rows."""
    counts = record.counts.get(test, {})
    if not rows:
        yield f"{ROWS} has no row of {test}"
        return
    names = Counter(str(row.get("image")) for row in rows)
    if twice := [name for name, count in names.items() if count > 1]:
        yield f"{ROWS} has {twice[0]} of {test} more than once"
    if counts.get("images", len(rows)) != len(rows):
        yield f"{test} counts {counts['images']} images, but has {len(rows)} rows"
    flags = Counter(flag for row in rows for flag in str(row.get("flags") or "").split(";"))
    for flag, count in flags.items():
        name = f"{flag}s" if flag in PLURAL else flag
        if flag and counts.get(name, count) != count:
            yield f"{test} counts {counts[name]} {name}, but {count} rows are flagged so"
    for key, value in record.scores[test].items():
        values = [row[key] for row in rows if isinstance(row.get(key), float)]
        for fault in filter(None, (impossible(key, one) for one in values)):
            yield f"a row of {test}: {fault}"
            break
        try:
            again, images = _recomputed(record, key, values, rows)
        except ValueError as error:
            yield f"a row of {test}: {error}"
            break
        if again is None:
            if value is not None or values:
                found.undetermined.append(f"{test} {key}")
            continue
        # An extra metric may have no value for some images, which are then left out of its mean.
        missing = counts.get(f"{key}_undefined", 0) if key in EXTRA else 0
        scored = counts.get("scored", images) - missing
        if images and images != scored:
            yield f"{test} counts {scored} images with {key}, but {images} rows have it"
        # A comparison with NaN is false, so whether there is a score at all is asked for first.
        elif (value is None) != math.isnan(again) or abs((value or 0) - again) > ROUNDING:
            yield f"{test} {key} is {value}, but its rows give {again}"
        else:
            found.recomputed += 1


def _recomputed(
    record: Record, key: str, values: Sequence[float], rows: Sequence[Mapping[str, Any]]
) -> tuple[float | None, int]:
    """Return a data set's score as its rows give it, and of how many images, 0 for nobody knows.

    The score is None where rows do not determine it, NaN where they say that there is none. Raises
    ValueError for a cell that is none.
    """
    if values:
        return math.fsum(values) / len(values), len(values)
    rule = record.row_score(key)
    if rule is None:
        return None, 0
    # Images that the protocol leaves out have counts and no score.
    scored = [row for row in rows if any(isinstance(row.get(k), float) for k in METRICS)]
    for chosen in (scored, rows):
        parts = rule.read([[row.get(name) for row in chosen] for name in rule.columns])
        if count := len(parts.of_image):
            return rule.of_all(parts.of_image), count if rule.exact else 0
    return None, 0


def _of_curve(folder: Path, record: Record) -> Iterator[str]:
    """Yield what is wrong with the curve of a run."""
    if record.kind != "run" or record.training is None or not (folder / CURVE).exists():
        return
    try:
        curve = read_rows(folder / CURVE)
    except DataError as error:
        yield _shorter(str(error), folder)
        return
    facts, steps = record.training, [row.get("step") for row in curve]
    if facts.steps is not None and steps and steps[-1] != facts.steps:
        yield f"{CURVE} ends at step {steps[-1]}, but the record counts {facts.steps} steps"
    best = [r.get("validation") for r in curve if r.get("step") == facts.best_step]
    if facts.best_validation is not None and facts.best_validation not in best:
        yield (
            f"the best validation score is {facts.best_validation} at step {facts.best_step}, but "
            f"{CURVE} does not have it there"
        )


def _of_adapter(folder: Path, record: Record, found: RecordCheck) -> Iterator[str]:
    """Yield what is wrong with the adapter of a run, where it is held here."""
    if record.kind != "run" or record.adapter_sha256 is None:
        return
    path = folder / ADAPTER_FILE
    if not path.exists():
        found.without.append(ADAPTER_FILE)
        return
    try:
        data = read_regular(path)
        digest = tensors_digest(data) if record.adapter_digest else None
    except OSError as error:
        yield f"{ADAPTER_FILE} could not be read ({error.strerror})"
        return
    except (ValueError, RecursionError) as error:
        yield f"{ADAPTER_FILE} is damaged ({error})"
        return
    if digest != record.adapter_digest:
        yield f"{ADAPTER_FILE} holds other tensors than those that were scored"
    elif hashlib.sha256(data).hexdigest() != record.adapter_sha256:
        yield f"{ADAPTER_FILE} is another file than the one that was recorded: its checksum differs"


def tensors_digest(data: bytes) -> str:
    """Return the digest of the tensors of a safetensors file, whatever its header says of itself.

    Args:
        data: the file.

    Returns:
        SHA-256, 64 hex digits, over the tensors by name: name, type, shape and bytes of each.

    Raises:
        ValueError: it is no safetensors file, or is cut off.
    """
    view, length = memoryview(data), int.from_bytes(data[:8], "little")
    if length > len(data):
        raise ValueError("its header is cut off")
    digest = hashlib.sha256()
    header = json.loads(bytes(view[8 : 8 + length]))
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    for name in sorted(header.keys() - {"__metadata__"}):
        try:
            about = [name, header[name]["dtype"], header[name]["shape"]]
            # Offsets count from the end of the header, which has its length in the first 8 bytes.
            start, end = (8 + length + int(place) for place in header[name]["data_offsets"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"its header does not say where {name} is") from None
        if not 8 + length <= start <= end <= len(data):
            raise ValueError(f"{name} is cut off")
        digest.update(json.dumps(about).encode() + b"\n")
        digest.update(view[start:end])
    return digest.hexdigest()


# Publishing: copy a record's numbers, never weights and never images, to where they are kept.


def publish_all(
    roots: Iterable[Path], results_root: Path, allow_dirty: bool = False
) -> Iterator[Path]:
    """Publish every record under some folders, each of which may be a record's own.

    Yields the folder of each copy as it is made. What is refused does not keep the others back.

    Raises:
        UsageError, DataError: in the end, for all that were refused, as `publish` does.
    """
    refused: list[BenchError] = []
    for root in roots:
        # A folder without a record is refused by `publish` in its own words.
        for folder in list(folders_of_records(root)) or [root]:
            try:
                yield publish(folder, results_root, allow_dirty)
            except (UsageError, DataError) as error:
                refused.append(error)
    if refused[1:]:
        kind = DataError if any(isinstance(one, DataError) for one in refused) else UsageError
        raise kind(f"{len(refused)} records are not published: {'; '.join(map(str, refused))}")
    for error in refused:
        raise error


def publish(run_folder: Path, results_root: Path, allow_dirty: bool = False) -> Path:
    """Verify a record, copy its numbers under `results_root`, and return the folder of the copy.

    run.json, per_image.csv and curve.csv are copied. An identical record that is there already is
    accepted.

    Raises:
        UsageError: another record is in its place, or it was made by code that differs from its
            commit (unless `allow_dirty`).
        DataError: files are missing, or not what the record says of them.
    """
    record = read_record(run_folder)
    if record.environment.git_dirty and not allow_dirty:
        sha = (record.environment.git_sha or "unknown")[:12]
        raise UsageError(
            f"run {record.id} was made by code that differs from its commit {sha}, so nobody can "
            f"rerun it; commit and rerun, or allow a dirty tree on purpose"
        )
    verified = verify_record(run_folder)
    if verified.faults:
        raise DataError(f"{run_folder} is not published: {'; '.join(verified.faults)}")
    target, names = results_root / record_folder(record), (ROWS, CURVE, RECORD)
    try:
        contents = {
            name: read_regular(run_folder / name)
            for name in names
            if name != CURVE or (run_folder / name).exists()
        }
    except OSError as error:
        raise DataError(f"{error.filename} could not be read ({error.strerror})") from None
    if (target / RECORD).exists():
        there = {name: (target / name).read_bytes() for name in names if (target / name).exists()}
        if there == contents:
            return target
        raise UsageError(
            f"{target} already holds another record of this fingerprint and seed, made "
            f"{read_record(target).created}; yours was made {record.created}; published records "
            f"are never overwritten: move the old one away if yours must replace it"
        )
    for name, content in contents.items():  # run.json last
        write_atomically(target / name, content)
    return target
