"""Tables as text of a kind: Markdown, LaTeX, CSV, HTML."""

from __future__ import annotations

import re
from collections.abc import Callable

from lpmoe_bench.errors import UsageError
from lpmoe_bench.tables.cell_text import (
    bands_of,
    cell_text,
    has_seeds,
    head_text,
    is_mixed,
    span_of,
)
from lpmoe_bench.tables.csv_text import to_csv
from lpmoe_bench.tables.html import html_page, to_html
from lpmoe_bench.tables.latex import to_latex
from lpmoe_bench.tables.parts import Group, Row, Table
from method_zoo.errors import unknown

__all__ = ["FORMATS", "format_table", "to_csv", "to_html", "to_latex", "to_markdown"]


def format_table(table: Table, kind: str) -> str:
    """Return the table as text of a kind in FORMATS; raises UsageError for another."""
    if kind not in FORMATS:
        raise UsageError(unknown("format", kind, FORMATS))
    return FORMATS[kind](table)


def to_markdown(table: Table) -> str:
    """One Markdown table a group: **best**, <u>second</u>, its caption above, its footer below.

    Test sets that stand side by side are named in the heads; published rows have slanted names.
    """
    blocks = [_markdown(group) for group in table.groups]
    blocks += [_markdown_text(f"Note: {note}.") for note in table.notes]
    return "\n\n".join(blocks) + "\n"


def _markdown(group: Group) -> str:
    marks = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
    spans = [f"{_markdown_text(title)}: " if title else "" for title in span_of(group)]
    named = [head_text(c.label, c) for c in group.columns]
    if spans:
        named = [span + head for span, head in zip(spans, named, strict=True)]
    seeds = has_seeds(group)
    heads = ["Method", *(["n"] if seeds else []), *named]
    lines = [heads, ["---", *("---:" for _ in heads[1:])]]
    bands = bands_of(group)
    for number, row in enumerate(group.rows):
        if number in bands:
            lines.append([f"**{_markdown_text(bands[number])}**", *("" for _ in heads[1:])])
        cells = [
            marks[cell.mark].format(cell_text(row, cell, column, star=r"\*"))
            for cell, column in zip(row.cells, group.columns, strict=True)
        ]
        lines.append([_markdown_label(group, row), *(_n(row) if seeds else []), *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    below = "<br>\n".join(_markdown_text(line) for line in group.below)
    return f"{_markdown_text(group.caption)}\n\n{table}\n\n{below}"


def _markdown_label(group: Group, row: Row) -> str:
    label = _markdown_text(row.label)
    return f"*{label}*" if row.origin is not None and is_mixed(group) else label


def _markdown_text(text: str) -> str:
    text = re.sub(r"([\\`*|~\[\]]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _n(row: Row) -> list[str]:
    return [str(len(row.records)) if row.records else "-"]


FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "html": html_page,
}
