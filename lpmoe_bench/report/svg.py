"""Figures of matplotlib as parts of a page: SVG that its policy allows, with what filters read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from lpmoe_bench.report.plots import Plot

Element = ElementTree.Element
MANY_DIGITS = re.compile(r"(\.\d\d)\d+")
PREFIX = "figure-of-page-"  # stands before every id, until it is known which plot this is
ROUNDED = ("d", "x", "y", "transform", "points", "width", "height")
# Control signs, halves of signs, and what turns the direction of the text behind it: a name could
# disguise what follows.
BAD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """Replace what no file may hold, or what deceives."""
    return BAD.sub("\ufffd", text)


def to_svg(plot: Plot, key: str) -> Markup:
    """Return a plot as an element of a page, which is as wide as its place; `key`: unique there."""
    root = _parsed(plot)
    return _finished(ElementTree.tostring(root, "unicode"), key)


def to_svgs(plot: Plot, rows: int, key: str) -> list[Markup]:
    """Return a plot for each row: what all share, and what has ids of that row alone."""
    root = _parsed(plot)
    parts: list[list[Element]] = [[] for _ in range(rows)]
    place: tuple[Element, int] | None = None
    for parent in list(root.iter()):
        for child in list(parent):
            found = re.match(r"row-(\d+)-", child.get("data-id", ""))
            if found:
                place = place or (parent, list(parent).index(child))
                parts[int(found[1])].append(child)
                parent.remove(child)
    if place is not None:
        place[0].insert(place[1], Element("own"))
    before, _, after = ElementTree.tostring(root, "unicode").partition("<own />")
    inside = ("".join(ElementTree.tostring(one, "unicode") for one in part) for part in parts)
    return [
        _finished(before + text + after, f"{key}-{number}") for number, text in enumerate(inside)
    ]


def _finished(text: str, key: str) -> Markup:
    return Markup(re.sub(r' data-id="[^"]*"', "", text).replace(PREFIX, f"{key}-"))


def _parsed(plot: Plot) -> Element:
    """Return the drawn figure as elements without styles, names of spaces and needless ids.

    The policy of the page lets no style act that is not in its head; SVG has attributes instead.
    """
    from matplotlib import rc_context

    data = BytesIO()
    with rc_context({"svg.fonttype": "none"}):  # text stays text, in the typeface of the page
        plot.figure.savefig(data, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(data.getvalue())
    for one in list(root.iter()):
        one.tag = one.tag.rsplit("}", 1)[-1]
        one.text, one.tail = (one.text or "").strip() or None, None
        one.attrib = dict(_attributes(one.attrib))
    shared = Element("defs")  # a shape is written where it first stands, and referred to later
    for parent in list(root.iter()):
        for one in list(parent):
            if one.tag in ("metadata", "defs"):
                parent.remove(one)
                shared.extend(part for part in one if one.tag == "defs" and part.tag != "style")
    for one in list(root.iter()):
        _mark(one, plot)
    title = Element("title")
    title.text = clean(plot.title)
    root.insert(0, title)
    root.insert(1, shared)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "stroke-linejoin": "round"}
    return root


def _attributes(found: dict[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in found.items():
        name = key.rsplit("}", 1)[-1]
        if name == "style":
            for rule in filter(None, map(str.strip, value.split(";"))):
                property_, _, setting = rule.partition(":")
                if property_ != "font-family":
                    yield property_.strip(), setting.strip()
        elif name == "id":
            yield "data-id", value
            if re.fullmatch(r"[mpC][0-9a-f_]+", value):  # others are never referred to
                yield "id", PREFIX + value
        elif name in ROUNDED:
            yield name, MANY_DIGITS.sub(r"\1", value).replace("\n", "")
        elif name in ("href", "clip-path"):
            yield name, value.replace("#", f"#{PREFIX}")
        else:
            yield name, value


def _mark(one: Element, plot: Plot) -> None:
    """Tell filters and the pointer whose an element is.

    What has the id `mark-each-...` is a collection: an element for every row, in their order.
    """
    found = re.match(r"(mark|row)-(\w+)-", one.get("data-id", ""))
    if found is None:
        return
    of_rows = [(found[0], one)]
    if found[2] == "each":
        drawn = (part for part in one.iter() if part.tag == "use" or part.get("clip-path"))
        of_rows = [(f"mark-{n}-", part) for n, part in enumerate(drawn)]
    for key, part in of_rows:
        if key in plot.marks:
            name, words = plot.marks[key]
            part.attrib |= {"class": "mark", "data-name": clean(name)}
            title = Element("title")
            title.text = clean(words)
            part.insert(0, title)
            for text in part.iter("text"):  # a white edge, for names that lie over lines
                text.attrib |= {"paint-order": "stroke", "stroke": "#fff", "stroke-width": "2"}
