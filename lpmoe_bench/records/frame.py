"""Records as a data frame: a row for each record, test set and metric, or one for each record.

Tables, reports and comparisons of one's own start from it. pandas is imported when a frame is made.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
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
        UserWarning: a record that cannot be read is left out.
    """
    import pandas as pd

    for root in roots:
        if not isinstance(root, str | os.PathLike):
            raise UsageError(f"a root is {root!r}; give folders one by one: load_records('runs')")
    found = find_records([Path(root) for root in roots] or None)
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    rows = [row for stored in found.stored for row in _rows(stored, wide)]
    frame = pd.DataFrame(rows)
    for name in frame.columns:
        # Where some rows have none, pandas would make floats of whole numbers: a seed of 1.0.
        known = [row[name] for row in rows if row.get(name) is not None]
        if known and all(type(value) is int and abs(value) < 2**63 for value in known):
            frame[name] = frame[name].astype("Int64")
    for name, wanted in filters.items() if rows else ():
        if name not in frame.columns:
            raise UsageError.unknown("column of records", name, map(str, frame.columns))
        one = isinstance(wanted, str) or not isinstance(wanted, Iterable)
        values, present = [wanted] if one else list(wanted), frame[name].dropna()
        for value in values if len(frame) else ():
            if value in set(present):
                continue
            there = sorted({*map(str, present)})
            if isinstance(value, str):
                raise UsageError.unknown(f"{name} among these records", value, there)
            raise UsageError(f"no record has {name}={value!r}; there is {', '.join(there[:8])}")
        frame = frame.loc[frame[name].isin(values)]
    return frame.reset_index(drop=True)


def _rows(stored: StoredRecord, wide: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of a record; its own facts win over settings of the same name."""
    record, folder = stored.record, str(stored.folder)
    lead = {key: getattr(record, key) for key in FACTS}
    lead |= {"method": record.method.name, "title": record.method.title}
    facts = {
        "backbone": record.backbone.name if record.backbone else None,
        "decoder": record.decoder.name if record.decoder else None,
        "protocol": record.protocol.name,
        "folder": folder,
    }
    settings = {k: v for k, v in flat(record.config).items() if k not in lead | facts}
    # A list, such as height and width, could neither be looked for nor be grouped by.
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    shared = facts | settings
    for part in ("costs", "parameters"):
        section = getattr(record, part)
        numbers = section.model_dump() if section else {}
        shared |= {f"{part}.{name}": value for name, value in numbers.items()}
    scores = {
        (test_set, metric): value
        for test_set, of_set in record.scores.items()
        for metric, value in of_set.items()
    }
    if wide:
        yield lead | shared | {" ".join(key): value for key, value in scores.items()}
        return
    for (test_set, metric), value in scores.items():
        images = record.counts.get(test_set, {}).get("scored")
        score = dict(zip(SCORE_COLUMNS, (test_set, metric, value, images), strict=True))
        yield lead | score | shared
