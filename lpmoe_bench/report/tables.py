"""Tables of the page: every header sorts, every cell carries the number it is sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lpmoe_bench.report.markup import Child, Markup, tag
from lpmoe_bench.report.material import Chapter, is_headline
from lpmoe_bench.tables.parts import PARAMETERS, Cell, Column

SHOWN_COSTS = ("train_images_per_second", "peak_memory_bytes")  # the others on demand


@dataclass(frozen=True)
class Head:
    """A column. first: the order of the first click, up or down; extra: shown on demand."""

    text: str
    first: str = "up"
    is_number: bool = False
    extra: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Value:
    """A cell: what is shown, the number it is sorted by where it has one, its class."""

    shown: Child
    number: float | None = None
    class_: str = ""


def sortable(
    caption: str, heads: Sequence[Head], rows: Sequence[tuple[dict[str, str], Sequence[Value]]]
) -> Markup:
    """Return a table. rows: attributes for filters, and one value a column, the first a name."""
    head = tag("tr", [_head(one) for one in heads])
    body = [tag("tr", _cells(heads, values), **attributes) for attributes, values in rows]
    table = tag(
        "table",
        tag("caption", caption, class_="unseen"),
        tag("thead", head),
        tag("tbody", body),
        class_="sortable",
    )
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _head(head: Head) -> Markup:
    button = tag("button", head.text, type="button", title=head.hint or None)
    return tag(
        "th",
        button,
        scope="col",
        class_=_class(head),
        aria_sort="none",
        data_first=head.first,
    )


def _cells(heads: Sequence[Head], values: Sequence[Value]) -> list[Markup]:
    cells = []
    for place, (head, value) in enumerate(zip(heads, values, strict=True)):
        number = None if value.number is None else repr(float(value.number))
        classes = " ".join(filter(None, (_class(head), value.class_))) or None
        if place == 0:
            cells.append(tag("th", value.shown, scope="row", class_=classes, data_value=number))
        else:
            cells.append(tag("td", value.shown, class_=classes, data_value=number))
    return cells


def _class(head: Head) -> str | None:
    names = ["number"] * head.is_number + ["extra"] * head.extra
    return " ".join(names) or None


def score_table(chapter: Chapter) -> Markup:
    """Return the table of a chapter: every metric and cost, those a table shows unasked at once."""
    group = chapter.group
    heads = [Head("Method"), Head("n", "down", True, hint="seeds")]
    heads += [_column(chapter, column) for column in group.columns]
    rows = []
    for entry in chapter.entries:
        values = [Value(entry.label), Value(len(entry.stored), len(entry.stored))]
        values += [
            _value(cell, column)
            for cell, column in zip(entry.row.cells, group.columns, strict=True)
        ]
        rows.append(({"data_name": entry.name}, values))
    return sortable(f"Scores on {chapter.test}", heads, rows)


def _column(chapter: Chapter, column: Column) -> Head:
    arrow = {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]
    plain = column in PARAMETERS or column.key in SHOWN_COSTS
    shown = is_headline(chapter.group, column) if column.is_score else plain
    first = "up" if column.higher_is_better is False or column in PARAMETERS else "down"
    return Head(column.label + arrow, first, True, not shown, column.key)


def _value(cell: Cell, column: Column) -> Value:
    if cell.mean is None:
        return Value("n/a" if column.is_score else "-", class_="none")
    text = f"{cell.mean * column.scale:.{column.decimals}f}"
    if column.is_score and cell.sd is not None:
        spread = tag("span", f" ± {cell.sd * column.scale:.{column.decimals}f}", class_="sd")
        return Value([tag("span", text, class_=cell.mark or None), spread], cell.mean)
    return Value(tag("span", text, class_=cell.mark or None), cell.mean)
