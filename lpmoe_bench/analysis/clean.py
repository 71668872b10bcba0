"""Scores of a record on its clean subset: the test images that training has not seen."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from lpmoe_bench.data.audit.groups import Audit
from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import ROWS, StoredRecord, read_rows

TOLERANCE = 1e-6  # between a record's score and the mean of its rows


@dataclass(frozen=True)
class Clean:
    """Scores of one record on one test set, {metric: value}: official, and without the images that
    training has seen. removed: their names; grouped: how many of them only share a group with a
    training image. note: why there are no clean scores, or what to know about them."""

    record: str
    title: str
    seed: int | None
    test: str
    images: int
    removed: list[str] = field(default_factory=list)
    grouped: int = 0
    official: dict[str, float] = field(default_factory=dict)
    clean: dict[str, float] = field(default_factory=dict)
    note: str = ""


def clean_scores(stored: Iterable[StoredRecord], audit: Audit) -> list[Clean]:
    """Score the records again whose test sets were audited; raises DataError for broken rows."""
    return [one for record in stored for one in _of_record(record, audit)]


def _of_record(stored: StoredRecord, audit: Audit) -> Iterator[Clean]:
    digests, record = {split.label: split.digest for split in audit.splits}, stored.record
    for test in record.data.tests:
        if test.label not in digests or test.label not in record.scores:
            continue
        begin = (record.id, record.method.title, record.seed, test.label, test.images)
        train, note = _training(record, test.label, audit)
        if test.digest != digests[test.label]:
            note, train = "its test images are not those that were audited", []
        if not train:
            yield Clean(*begin, note=note)
            continue
        copies, grouped = seen(audit, train, test.label)
        removed = copies | grouped
        official, clean = _scores(stored, test.label, removed)
        yield Clean(
            *begin, sorted(removed), len(grouped - copies), official, clean, note if clean else
            "the record has no rows an image"
        )  # fmt: skip


def _training(record: Record, test: str, audit: Audit) -> tuple[list[str], str]:
    """Return the audited splits that a record was trained on, and what to know about that."""
    labels = [split.label for split in audit.splits]
    if record.data.train is None:
        assumed = [s.label for s in audit.splits if s.role != "test" and s.label != test]
        said = "what these maps' model was trained on is not known: all audited training and "
        return assumed, said + "validation splits are taken for it"
    sets, _, names = record.data.train.label.partition("/")
    parts = [f"{a}/{b}" for a, b in product(sets.split("+"), names.split("+"))]
    known = [label for label in parts if label in labels]
    if not known:
        return [], f"its training set {record.data.train.label} is not among those audited"
    digests = {split.label: split.digest for split in audit.splits}
    if len(parts) == 1 and digests[known[0]] != record.data.train.digest:
        return [], "its training images are not those that were audited"
    own = record.data.validation
    if own is not None and own.label in digests and own.label not in known:
        known.append(own.label)  # one that the set has: the best epoch was picked on it
    return known, "the whole training list counts as seen, its validation part included"


def seen(audit: Audit, train: Sequence[str], test: str) -> tuple[set[str], set[str]]:
    """Return the test images that are a copy of a training image, and those that share a group with
    one."""
    copies: set[str] = set()
    for pair in audit.twins:
        sides = ((pair.one, pair.one_splits), (pair.other, pair.other_splits))
        for (label, splits), (_, others) in (sides, sides[::-1]):
            if test in splits and set(train) & set(others) and not pair.group:
                copies.add(label.partition("/")[2])
    grouped: set[str] = set()
    for groups in audit.groups:
        for where in groups.shared.values():
            if any(label in where for label in train):
                grouped |= set(where.get(test, ()))
    return copies, grouped


def _scores(
    stored: StoredRecord, test: str, removed: set[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return {metric: score} of the record and without some images; others than means over images
    and ratios of counts cannot be told from rows and are left out."""
    official: dict[str, float] = {}
    clean: dict[str, float] = {}
    has_rows = (stored.folder / ROWS).is_file()
    found = read_rows(stored.folder / ROWS) if has_rows else []
    # A metric that rows do not give back as the record has it is none that they can tell anew.
    rows = [row for row in found if row["dataset"] == test]
    kept = [row for row in rows if row["image"] not in removed]
    for metric, score in stored.record.scores[test].items():
        whole, rest = (_value(stored, own, metric) for own in (rows, kept))
        if score is None or whole is None or rest is None:
            continue
        # Only what rows give back as the record has it can be told without some of them.
        if abs(whole - score) < TOLERANCE:
            official[metric], clean[metric] = score, rest
    return official, clean


def _value(stored: StoredRecord, rows: Sequence[dict[str, Any]], metric: str) -> float | None:
    """Return a score of a record's rows; None where they do not give it. Raises DataError."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    if values:
        return sum(values) / len(values)
    rule = stored.record.row_score(metric)
    if rule is None:
        return None
    try:
        parts = rule.read([[row.get(name) for row in rows] for name in rule.columns])
    except ValueError as error:
        raise DataError(f"{stored.folder / ROWS} is no table of numbers ({error})") from None
    again = rule.of_all(parts.of_image) if len(parts.of_image) else math.nan
    return None if math.isnan(again) else again


def clean_json(found: Sequence[Clean]) -> list[dict[str, Any]]:
    return [asdict(one) for one in found]


def clean_text(found: Sequence[Clean], protocols: dict[str, str]) -> str:
    """Return the headline scores; protocols: {record: name of its protocol}."""
    lines = []
    for one in found:
        seed = "" if one.seed is None else f", seed {one.seed}"
        lines.append(f"{one.title}{seed}, on {one.test} ({one.record})")
        if one.note and not one.clean:
            lines.append(f"  {one.note}")
            continue
        left = one.images - len(one.removed)
        by_group = f", {one.grouped} of them by group" if one.grouped else ""
        lines.append(f"  {one.images} images; {left} without the {len(one.removed)} seen{by_group}")
        protocol = PROTOCOLS.get(protocols[one.record])
        for metric in [m for m in (protocol.headline if protocol else one.clean) if m in one.clean]:
            whole, rest = one.official[metric], one.clean[metric]
            label = METRICS[metric].label if metric in METRICS else metric
            lines.append(f"  {label:<12} {whole:.4f} -> {rest:.4f} ({rest - whole:+.4f})")
    lines += [f"note: {text}" for text in dict.fromkeys(c.note for c in found if c.clean) if text]
    return "\n".join(lines)
