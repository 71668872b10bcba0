"""Tables as CSV: full precision, one line for each row and test set."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict

from lpmoe_bench.tables.columns import Column
from lpmoe_bench.tables.parts import Cell, Group, Row, Table


def to_csv(table: Table) -> str:
    """One line for each method and test set, in full precision, mean and sd apart, no marks.

    Scores are fractions, parameters are counts and shares fractions: no unit of print. Published
    rows name their level and source.
    """
    lines = [line for group in table.groups for line in _group_lines(group)]
    columns = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _group_lines(group: Group) -> Iterable[dict[str, object]]:
    if group.parts:
        return [line for part in group.parts for line in _group_lines(part)]
    return [_line(group, row) for row in group.rows]


def _line(group: Group, row: Row) -> dict[str, object]:
    if row.origin is None:
        first = row.records[0]
        line: dict[str, object] = {"method": first.method.name, "label": row.label}
        line |= asdict(group.context) | {"fingerprint": first.fingerprint}
        line |= {"n": len(row.records), "seeds": " ".join(str(r.seed) for r in row.records)}
    else:
        line = {"method": row.origin.method, "label": row.label, "task": group.context.task}
        line |= {"test_set": group.context.test_set, "level": row.origin.level}
        line |= {"source": row.origin.source, "conditions": row.origin.conditions}
    for column, cell in zip(group.columns, row.cells, strict=True):
        line |= _values(column, cell)
    return {key: "" if value is None else value for key, value in line.items()}


def _values(column: Column, cell: Cell) -> dict[str, object]:
    key = column.key
    if cell.verdict is not None:
        found = cell.verdict
        return {
            key: found.spread.mean,
            f"{key}_low": found.low,
            f"{key}_high": found.high,
            f"{key}_p": found.p,
            f"{key}_verdict": found.verdict,
        }
    if not column.is_score:
        return {key: cell.mean}
    line: dict[str, object] = {f"{key}_mean": cell.mean, f"{key}_sd": cell.sd}
    if cell.difference is not None:
        line[f"{key}_difference"] = cell.difference
    if cell.printed and cell.printed.flag:
        line[f"{key}_flag"] = cell.printed.flag
    return line
