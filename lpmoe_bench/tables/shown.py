"""What stands in a table as text: heads, cells and lines below, in the signs of each format."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lpmoe_bench.tables.parts import SEEDS, Cell, Column, Group, Row, ShortNote, exact_columns
from lpmoe_bench.tables.style import TableStyle


@dataclass(frozen=True)
class Signs:
    """How a format writes what all of them show; `small` is a standard deviation set smaller."""

    escape: Callable[[str], str]
    best: str = "{}"
    second: str = "{}"
    pm: str = " ± "
    small: str = " ±{}"
    star: str = "*"
    up: str = "↑"
    down: str = "↓"


def cell_text(row: Row, cell: Cell, column: Column, style: TableStyle, signs: Signs) -> str:
    """Return a cell's number with its spread, difference or verdict, and its mark.

    A published figure keeps the digits of its source, unless the style asks for fewer; a star
    follows one that is in doubt.
    """
    if cell.absent:
        return ""
    if cell.verdict is not None:
        mean = cell.verdict.spread.mean * column.scale
        return f"{cell.verdict.verdict} ({mean:+.{column.decimals}f})"
    if cell.mean is None:
        return "n/a" if column.is_score and row.origin is None else "-"
    digits = spread_digits = column.decimals
    if cell.printed is not None:
        shift, most = round(math.log10(column.scale)), 99
        if style.digits is not None and column.is_score:
            most = style.digits
        digits = min(most, max(0, cell.printed.digits - shift))
        spread_digits = min(most, max(0, cell.printed.spread_digits - shift))
    text = f"{cell.mean * column.scale:.{digits}f}"
    if column.is_score and cell.sd is not None and style.sd != "none":
        sd = f"{cell.sd * column.scale:.{spread_digits}f}"
        text += signs.small.format(sd) if style.sd == "small" else signs.pm + sd
    if cell.printed and cell.printed.flag:
        text += signs.star
    if cell.difference is not None:
        text += f" ({cell.difference * column.scale:+.{column.decimals}f})"
    elif cell.printed and cell.printed.versus == "barred":
        text += " (-)"
    return {"": "{}", "best": signs.best, "second": signs.second}[cell.mark].format(text)


def row_cells(group: Group, row: Row, style: TableStyle, signs: Signs) -> list[str]:
    """Return the texts of a row behind its label: its number of seeds, where shown, and cells."""
    seeds = [str(len(row.records)) if row.records else "-"] if shows_seeds(group, style) else []
    cells = zip(row.cells, group.columns, strict=True)
    return seeds + [cell_text(row, cell, column, style, signs) for cell, column in cells]


def head_text(column: Column, style: TableStyle, signs: Signs, latex: bool = False) -> str:
    """Return a column's head, by its new name if it has one, with the arrow of its direction."""
    if column.key in style.rename:
        name = signs.escape(style.rename[column.key])
    else:
        name = (latex and column.latex) or signs.escape(column.label)
    if column.higher_is_better is None:
        return name
    return f"{name} {signs.up if column.higher_is_better else signs.down}"


def shows_seeds(group: Group, style: TableStyle) -> bool:
    """Whether a column counts seeds: where rows have several, and nobody chose other columns."""
    exact = exact_columns(style.columns, [column.key for column in group.columns])
    return group.has_seeds and (exact is None or SEEDS in exact)


def row_bands(group: Group, style: TableStyle) -> Iterator[tuple[str, Row]]:
    """Yield each row, with the title of its band where it is the first of one."""
    starts = itertools.accumulate((band.rows for band in group.bands), initial=0)
    titles = {start: band.title for start, band in zip(starts, group.bands, strict=False)}
    for number, row in enumerate(group.rows):
        yield set_title(titles.get(number, ""), style), row


def set_title(title: str, style: TableStyle) -> str:
    """Return the new name of a test set, alone or behind its task, if it has one."""
    task, colon, test = title.rpartition(": ")
    return style.rename.get(title) or f"{task}{colon}{style.rename.get(test, test)}"


def lines_below(group: Group, style: TableStyle, usual: str = "full") -> list[str]:
    """Return the lines below a table: all of them, those of short notes, or none."""
    wanted = style.notes or usual
    lines = [] if wanted == "none" else group.below
    return [line for line in lines if wanted == "full" or isinstance(line, ShortNote)]
