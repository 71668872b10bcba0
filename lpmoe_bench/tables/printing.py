"""Tables as text: one walk over a table, in which a printer for each format writes its parts."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from lpmoe_bench.tables import parts
from lpmoe_bench.tables.style import TableStyle


class Printer:
    """One table in one format. As it is here, as plain text; a format has signs of its own.

    text: makes plain text that of the format. small: a standard deviation set smaller. count: the
    head of the column that counts seeds. names_sets: whether heads name the test sets that stand
    side by side. usual_notes: the lines below, where the style names none.
    """

    text: Callable[[str], str] = staticmethod(str)
    best = second = "{}"
    pm, small, star, count = " ± ", " ±{}", "*", "n"
    arrows: Mapping[bool | None, str] = {None: "", True: " ↑", False: " ↓"}
    names_sets = False
    usual_notes = "full"

    def __init__(self, group: parts.Group, style: TableStyle, suffix: str = ""):
        self.group, self.style = group, style
        self.anchor = style.label and f"{style.label}{suffix}"
        exact = parts.exact_columns(style.columns, [column.key for column in group.columns])
        several = any(len(row.records) > 1 for row in group.rows)
        self.shows_seeds = several and (exact is None or parts.SEEDS in exact)

    @classmethod
    def print_all(cls, table: parts.Table) -> list[str]:
        """Return the text of each table; labels have numbers where there are several."""
        several = len(table.groups) > 1
        printers = (
            cls(group, table.style, f"-{number}" * several)
            for number, group in enumerate(table.groups, start=1)
        )
        return ["\n".join(printer.lines()) for printer in printers]

    def lines(self) -> Iterator[str]:
        """Walk over the table: what begins it, its bands and rows, what ends it."""
        starts = itertools.accumulate((band.count for band in self.group.bands), initial=0)
        bands = dict(zip(starts, self.group.bands, strict=False))
        before = None
        yield from self.begin()
        for number, row in enumerate(self.group.rows):
            if number in bands:
                yield from self.band(self.text(self.set_title(bands[number].title)), number == 0)
            yield from self.row(row, self.cells(row), before)
            before = row
        yield from self.end()

    # What a format writes in its own way: caption and heads, the title of a band of rows, a row
    # below another one, what stands below; and, in a line of these, heads and cells.

    def begin(self) -> Iterable[str]:
        return ()

    def band(self, title: str, first: bool) -> Iterable[str]:
        return ()

    def row(self, row: parts.Row, cells: list[str], before: parts.Row | None) -> Iterable[str]:
        return ()

    def end(self) -> Iterable[str]:
        return ()

    def label(self, column: parts.Column) -> str:
        return self.text(column.label)

    def head(self, key: str, text: str, better: bool | None = None) -> str:
        return text

    def cell(self, row: parts.Row, cell: parts.Cell, column: parts.Column) -> str:
        return self.cell_text(row, cell, column)

    def seeds(self, count: int) -> str:
        return str(count or "-")

    # What is the same in all of them.

    def heads(self) -> list[str]:
        """Return the heads of all columns, by their new names, with arrows of their direction."""
        found = [self.head("method", "Method")]
        found += [self.head("n", self.count)] if self.shows_seeds else []
        for column in self.group.columns:
            new, better = self.style.rename.get(column.key), column.higher_is_better
            name = self.label(column) if new is None else self.text(new)
            if self.names_sets and column.head:
                name = f"{self.text(self.set_title(column.head))}: {name}"
            found.append(self.head(column.key, name + self.arrows[better], better))
        return found

    def cells(self, row: parts.Row) -> list[str]:
        """Return the cells of a row behind its label."""
        pairs = zip(row.cells, self.group.columns, strict=True)
        found = [self.cell(row, cell, column) for cell, column in pairs]
        return [self.seeds(len(row.records)), *found] if self.shows_seeds else found

    def cell_text(self, row: parts.Row, cell: parts.Cell, column: parts.Column) -> str:
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
            if self.style.digits is not None and column.is_score:
                most = self.style.digits
            digits = min(most, max(0, cell.printed.digits - shift))
            spread_digits = min(most, max(0, cell.printed.spread_digits - shift))
        text = f"{cell.mean * column.scale:.{digits}f}"
        if column.is_score and cell.sd is not None and self.style.sd != "none":
            sd = f"{cell.sd * column.scale:.{spread_digits}f}"
            text += self.small.format(sd) if self.style.sd == "small" else self.pm + sd
        if cell.printed and cell.printed.flag:
            text += self.star
        if cell.difference is not None:
            text += f" ({cell.difference * column.scale:+.{column.decimals}f})"
        elif cell.printed and cell.printed.versus == "barred":
            text += " (-)"
        return {"": "{}", "best": self.best, "second": self.second}[cell.mark].format(text)

    def set_title(self, title: str) -> str:
        """Return the new name of a test set, alone or behind its task, if it has one."""
        rename = self.style.rename
        task, colon, test = title.rpartition(": ")
        return rename.get(title) or f"{task}{colon}{rename.get(test, test)}"

    @property
    def caption(self) -> str:
        """The caption as the format prints it."""
        return self.text(self.style.caption or self.group.caption)

    @property
    def below(self) -> list[str]:
        """The lines below the table: all of them, those of short notes, or none."""
        wanted = self.style.notes or self.usual_notes
        lines = [] if wanted == "none" else self.group.below
        return [x for x in lines if wanted == "full" or isinstance(x, parts.ShortNote)]


def markdown_text(text: str) -> str:
    """Return plain text as Markdown prints it."""
    text = re.sub(r"([\\`*|~\[\]]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class MarkdownPrinter(Printer):
    """Markdown: **best**, <u>second</u>, published rows have slanted names."""

    text = staticmethod(markdown_text)
    best, second, small, star = "**{}**", "<u>{}</u>", " <sub>±{}</sub>", r"\*"
    names_sets = True

    def begin(self) -> Iterator[str]:
        if self.anchor:
            yield f'<a id="{self.anchor}"></a>\n'
        yield f"{self.caption}\n"
        heads = self.heads()
        yield f"| {' | '.join(heads)} |"
        yield f"| ---{' | ---:' * (len(heads) - 1)} |"

    def band(self, title: str, first: bool) -> Iterator[str]:
        yield f"| **{title}** |{'  |' * (len(self.heads()) - 1)}"

    def row(self, row: parts.Row, cells: list[str], before: parts.Row | None) -> Iterator[str]:
        label = markdown_text(row.label)
        label = f"*{label}*" if row.origin is not None and self.group.is_mixed else label
        yield f"| {' | '.join([label, *cells])} |"

    def end(self) -> Iterator[str]:
        if self.below:
            yield "\n" + "<br>\n".join(map(markdown_text, self.below))
