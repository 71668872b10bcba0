"""Texts of the guard: what is left out of them, their tables as cells, and how two differ."""

import difflib
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser

# What differs between two runs of one and the same code, or between two machines, and no more.
GONE = [
    (r'"(created|platform|python|cpu|git_sha)": "[^"]*"', r'"\1": "<gone>"'),
    (r'"(git_sha)": null', r'"\1": "<gone>"'),
    (r'"(git_dirty)": (true|false|null)', r'"\1": "<gone>"'),
    (r'": "\d+(\.\d+)+[^"]*"', '": "<version>"'),
    (r'"(\w+_images_per_second|train_seconds|peak_memory_bytes)": [\d.e+-]+', r'"\1": "<gone>"'),
    (r'"adapter_sha256": "\w+"', '"adapter_sha256": "<gone>"'),  # metadata has no order there
    # Digests of what is compared itself, to a precision, and of code that may change.
    (r'"(rows|curve|record|adapter_digest)": "[0-9a-f]{64}"', r'"\1": "<gone>"'),
    (r'"code": \{\s*"digest": "\w+",\s*"modules": \{[^}]*\}\s*\}', '"code": "<gone>"'),
]
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+(?:e[-+]?\d+)?|e[-+]?\d+)(?![\w.])")


def records(text: str) -> str:
    """Take out of the JSON of records what belongs to the machine or the moment."""
    for pattern, put in GONE:
        text = re.sub(pattern, put, text)
    return text


def markdown_cells(text: str) -> Iterator[str]:
    for line in filter(None, map(str.strip, text.splitlines())):
        cells = re.split(r"(?<!\\)\|", line)
        yield " | ".join(c.strip() for c in cells[1:-1]) if line.startswith("|") else line


def latex_cells(text: str) -> Iterator[str]:
    for table in re.split(r"\\begin\{table\*?\}", text)[1:]:
        yield "caption: " + " ".join(re.search(r"\\caption\{(.*)\}\n", table)[1].split())
        body = table.split("\\begin{tabular}")[1].split("\\end{tabular}")[0].split("\n", 1)[1]
        body = re.sub(r"\\(top|mid|bottom)rule|\\addlinespace|\\cmidrule\S*", "", body)
        body = re.sub(r"\\shortstack\[r\]\{(.*?)\\\\(.*?)\}(?= &| \\\\)", r"\1 \2", body)
        for row in re.split(r"\\\\", body):
            if row.strip():
                yield " | ".join(" ".join(c.split()) for c in re.split(r"(?<!\\)&", row))


class Cells(HTMLParser):
    """Captions and rows of the tables of a page; cells marked as best or second say so."""

    def __init__(self, text: str):
        super().__init__()
        self.rows: list[list[str]] = []
        self.open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("caption", "tr"):
            self.rows.append([])
        if tag in ("caption", "th", "td"):
            marks = {"best", "second"} & set((dict(attrs).get("class") or "").split())
            self.rows[-1].append("".join(f"[{mark}] " for mark in marks))
            self.open = True

    def handle_endtag(self, tag: str) -> None:
        self.open = self.open and tag not in ("caption", "th", "td")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.rows[-1][-1] += data


def html_cells(text: str) -> Iterator[str]:
    for row in Cells(text).rows:
        yield " | ".join(" ".join(cell.split()) for cell in row)


def close(old: str, new: str, off: float) -> bool:
    """Whether two texts differ in nothing but fractions, by at most `off`, and digests of bits."""
    old, new = (re.sub(r"bits:\w+", "bits", text) for text in (old, new))
    pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=False)
    return NUMBER.sub("#", old) == NUMBER.sub("#", new) and all(
        math.isclose(float(a), float(b), rel_tol=off, abs_tol=off) for a, b in pairs
    )


def first_difference(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))


def diff(old: str, new: str, most: int = 16) -> Iterator[str]:
    """Lines that differ; of long ones what stands around the first difference."""
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))[2:]
    for line in lines[:most]:
        if line[0] == "@":
            yield line
            continue
        others = [x[1:] for x in lines if x[0] == {"+": "-", "-": "+"}[line[0]]]
        shared = max((first_difference(line[1:], other) for other in others), default=0)
        start = max(0, shared - 60) if len(line) > 160 else 0
        yield line[0] + "..." * bool(start) + line[1 + start : start + 160]
    if len(lines) > most:
        yield f"... and {len(lines) - most} lines more"
