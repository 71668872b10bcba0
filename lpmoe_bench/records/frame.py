"""Records as a data frame: a row for each record, test set and metric, or one for each record.

Tables, reports and comparisons of one's own start from it. pandas is imported when a frame is made.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpmoe_bench.errors import UsageError
from lpmoe_bench.records.context import flat
from lpmoe_bench.records.store import StoredRecord, find_records

if TYPE_CHECKING:
    import pandas as pd

FACTS = ("kind", "id", "label", "task", "seed", "fingerprint", "created")
SCORE_COLUMNS = ("test_set", "metric", "value", "images")


def load_records(*roots: str | Path, wide: bool = False, **filters: Any) -> pd.DataFrame:
    """Read records into a data frame.

    Args:
        roots: folders that are searched for records; by default `runs/` where it holds one, else
            `results/records/`.
        wide: one row a record, with a column `<test set> <metric>` for each score, in place of one
            row for each record, test set and metric.
        filters: keep the rows whose column has this value, or one of these values, such as
            `method="lora"` or `seed=[0, 1]`; a dotted column is given as `**{"train.lr": 1e-3}`.

    Returns:
        A frame with the columns kind (run, evaluation or score), id, label, task, seed,
        fingerprint, created, method, title, backbone, decoder, protocol, folder; test_set, metric,
        value in [0, 1] and images (how many were scored), unless wide; every setting under its
        name, such as size, train.lr and options.rank; and costs as costs.NAME and parameters.NAME.
        What a record does not know is missing.

    Raises:
        UsageError: a root is no folder, or a filter names no column, or a value that no row has.

    Warns:
        A record that cannot be read is left out, with a warning.
    """
    import pandas as pd

    found = find_records([Path(root) for root in roots] or None)
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    make = _wide_rows if wide else _long_rows
    rows = [row for stored in found.stored for row in make(stored)]
    frame = pd.DataFrame(rows)
    for name in frame.columns:
        # Where some rows have none, pandas would make floats of whole numbers: a seed of 1.0.
        known = [row[name] for row in rows if row.get(name) is not None]
        if known and all(type(value) is int for value in known):
            frame[name] = frame[name].astype("Int64")
    for name, wanted in filters.items():
        frame = _keep(frame, name, wanted)
    return frame.reset_index(drop=True)


def _keep(frame: pd.DataFrame, name: str, wanted: Any) -> pd.DataFrame:
    if frame.empty:
        return frame
    if name not in frame.columns:
        raise UsageError.unknown("column of records", name, map(str, frame.columns))
    one = isinstance(wanted, str) or not isinstance(wanted, Iterable)
    values = [wanted] if one else list(wanted)
    column = frame[name]
    present = set(column.dropna())
    for value in values:
        if value not in present:
            there = sorted({str(v) for v in column.dropna().map(str)})
            if isinstance(value, str):
                raise UsageError.unknown(f"{name} among these records", value, there)
            raise UsageError(f"no record has {name}={value!r}; there is {', '.join(there[:8])}")
    return frame.loc[column.isin(values)]


def _long_rows(stored: StoredRecord) -> Iterable[dict[str, Any]]:
    record, shared = stored.record, _shared(stored)
    lead = {key: shared.pop(key) for key in (*FACTS, "method", "title")}
    for test_set, scores in record.scores.items():
        images = record.counts.get(test_set, {}).get("scored")
        for metric, value in scores.items():
            score = dict(zip(SCORE_COLUMNS, (test_set, metric, value, images), strict=True))
            yield lead | score | shared


def _wide_rows(stored: StoredRecord) -> Iterable[dict[str, Any]]:
    scores = stored.record.scores
    yield _shared(stored) | {
        f"{test_set} {metric}": value
        for test_set, of_set in scores.items()
        for metric, value in of_set.items()
    }


def _shared(stored: StoredRecord) -> dict[str, Any]:
    """Return what all rows of a record have in common; its own facts win over settings."""
    record = stored.record
    facts = {key: getattr(record, key) for key in FACTS} | {
        "method": record.method.name,
        "title": record.method.title,
        "backbone": record.backbone.name if record.backbone else None,
        "decoder": record.decoder.name if record.decoder else None,
        "protocol": record.protocol.name,
        "folder": str(stored.folder),
    }
    settings = {k: v for k, v in flat(_plain(record.config)).items() if k not in facts}
    parts: dict[str, Any] = {"costs": record.costs, "parameters": record.parameters}
    numbers = {
        f"{part}.{name}": value
        for part, section in parts.items()
        if section is not None
        for name, value in section.model_dump().items()
    }
    return facts | settings | numbers


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dict(v) if isinstance(v, Mapping) else v for key, v in config.items()}
