"""What stands in a cell, in words that every format shares."""

from __future__ import annotations

import itertools
import math

from lpmoe_bench.tables.columns import Column
from lpmoe_bench.tables.parts import Cell, Group, Row


def cell_text(row: Row, cell: Cell, column: Column, between: str = " ± ", star: str = "*") -> str:
    """Return a cell's number with its spread, difference or verdict; `between` joins the ±.

    A published figure keeps the digits of its source; `star` follows one that is in doubt.
    """
    if cell.absent:
        return ""
    if cell.verdict is not None:
        mean = cell.verdict.spread.mean * column.scale
        return f"{cell.verdict.verdict} ({mean:+.{column.decimals}f})"
    if cell.mean is None:
        return "n/a" if column.is_score and row.origin is None else "-"
    digits, spread_digits = _digits(cell, column)
    text = f"{cell.mean * column.scale:.{digits}f}"
    if column.is_score and cell.sd is not None:
        text += f"{between}{cell.sd * column.scale:.{spread_digits}f}"
    if cell.printed and cell.printed.flag:
        text += star
    if cell.difference is not None:
        text += f" ({cell.difference * column.scale:+.{column.decimals}f})"
    elif cell.printed and cell.printed.versus == "barred":
        text += " (-)"
    return text


def _digits(cell: Cell, column: Column) -> tuple[int, int]:
    if cell.printed is None:
        return column.decimals, column.decimals
    shift = round(math.log10(column.scale))
    return max(0, cell.printed.digits - shift), max(0, cell.printed.spread_digits - shift)


def head_text(name: str, column: Column, up: str = "↑", down: str = "↓") -> str:
    """Return a column's head with the arrow of its direction, if it has one."""
    if column.higher_is_better is None:
        return name
    return f"{name} {up if column.higher_is_better else down}"


def span_of(group: Group) -> list[str]:
    """Return the head above each column, a test set or nothing."""
    return [span.title for span in group.spans for _ in range(span.columns)]


def bands_of(group: Group) -> dict[int, str]:
    """Return the title above a row, by the row's number; none where rows are not in bands."""
    starts = itertools.accumulate((band.rows for band in group.bands), initial=0)
    return {start: band.title for start, band in zip(starts, group.bands, strict=False)}


def has_seeds(group: Group) -> bool:
    """Whether a column must count seeds: where any row has several."""
    return any(len(row.records) > 1 for row in group.rows)


def is_mixed(group: Group) -> bool:
    """Whether own and published rows stand together."""
    return len({row.origin is None for row in group.rows}) > 1
