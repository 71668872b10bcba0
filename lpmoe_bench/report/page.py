"""The page: markup, the file around the sections, tables that sort."""

import base64
import hashlib
import html
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.report.contents import ReportTable, is_headline
from lpmoe_bench.tables.parts import PARAMETERS, Cell, Column

# HTML and SVG elements as text: whatever is not markup already is escaped.


# Signs that turn the direction of the text behind them: a name could disguise what follows.
_TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_VOID = ("meta", "br", "img", "input", "line", "circle", "rect", "path", "use")

Child = str | int | float | None | Iterable["Child"]


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """Return an element. Children that are no Markup are escaped; lists of them are joined.

    Attributes: `class_` means class, `data_task` data-task; None and False are left out, True
    stands without a value.
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{escape(value)}"')
    start = f"<{' '.join(parts)}>"
    return Markup(start if name in _VOID else f"{start}{join_markup(children)}</{name}>")


def join_markup(children: Iterable[Child]) -> Markup:
    """Return children one after another, each escaped unless it is Markup."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str | int | float):
            parts.append(escape(child))
        elif child is not None:
            parts.append(join_markup(child))
    return Markup("".join(parts))


def escape(value: str | int | float) -> Markup:
    """Return text that shows as it is in HTML, SVG and quoted attributes."""
    return Markup(html.escape(clean(str(value)), quote=True))


def clean(text: str) -> str:
    """Replace what no file may hold or what deceives: control signs, halves of signs, turns."""
    return "".join("\ufffd" if _is_bad(sign) else sign for sign in text)


def _is_bad(sign: str) -> bool:
    if sign.isascii():
        return (sign < " " and sign not in "\n\t") or sign == "\x7f"
    return sign in _TURNING or unicodedata.category(sign) in ("Cc", "Cs")


# The page around the sections: one file whose policy lets it load and run nothing from outside.


HERE = Path(__file__).parent
STYLE, SCRIPT = "report.css", "report.js"  # beside this file, put into the page


def page(title: str, contents: Sequence[tuple[str, str]], parts: Sequence[Child]) -> str:
    """Return the whole file. contents: (anchor, words) of the links at the top."""
    style, script = (Markup((HERE / name).read_text(encoding="utf-8")) for name in (STYLE, SCRIPT))
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        f"img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        # Before anything else: names come from records, and records from anywhere.
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", style),
    )
    links = [tag("li", tag("a", words, href=f"#{anchor}")) for anchor, words in contents]
    body = tag(
        "body",
        tag("header", tag("h1", title), class_="top"),
        tag("nav", tag("ul", links), aria_label="Contents"),
        tag("main", parts),
        tag("script", script),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def filter_bar(tasks: Sequence[str], tests: Sequence[str], records: int) -> Markup:
    """Return the bar that filters; the script shows it, for without a script it does nothing."""
    return tag(
        "form",
        tag("label", "Find ", tag("input", type="search", id="find", placeholder="method")),
        _select("task", "Task ", tasks),
        _select("test", "Test set ", tests),
        tag("label", tag("input", type="checkbox", id="columns"), " all columns"),
        tag("output", f"{records} records", id="count", aria_live="polite"),
        id="filter",
        role="search",
        hidden=True,
    )


def _select(name: str, label: str, values: Sequence[str]) -> Markup:
    options = [tag("option", "all", value="")]
    options += [tag("option", value, value=value) for value in values]
    return tag("label", label, tag("select", options, id=name))


def section(anchor: str, title: str, *parts: Child, **attributes: str) -> Markup:
    """Return a section with its heading; attributes are what filters read."""
    return tag("section", tag("h2", title), parts, id=anchor, **attributes)


def part(title: str, *parts: Child) -> Markup:
    """Return a part of a section, which its reader may fold."""
    return tag("details", tag("summary", tag("h3", title)), parts, class_="part", open=True)


def _hash(text: str) -> str:
    digest = hashlib.sha256(clean(text).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


# Tables of the page: every header sorts, every cell carries the number it is sorted by.


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
        "th", button, scope="col", class_=_class(head), aria_sort="none", data_first=head.first
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


def score_table(chapter: ReportTable) -> Markup:
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


def _column(chapter: ReportTable, column: Column) -> Head:
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
