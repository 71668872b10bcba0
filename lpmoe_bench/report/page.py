"""The page around the sections: one file whose policy lets it load and run nothing from outside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from lpmoe_bench.report.markup import Child, Markup, clean, tag

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
