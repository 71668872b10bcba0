"""Tables as text: Markdown, HTML, CSV and JSON; LaTeX is next door."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from html import escape

from lpmoe_bench.errors import UsageError
from lpmoe_bench.tables import shown
from lpmoe_bench.tables.latex import to_latex
from lpmoe_bench.tables.parts import Cell, Column, Group, Row, Table
from lpmoe_bench.tables.style import TableStyle
from method_zoo.errors import unknown


def format_table(table: Table, kind: str) -> str:
    """Return the table as text of a kind in FORMATS; raises UsageError for another."""
    if kind not in FORMATS:
        raise UsageError(unknown("format", kind, FORMATS))
    return FORMATS[kind](table)


# Markdown.


def markdown_text(text: str) -> str:
    """Return plain text as Markdown prints it."""
    text = re.sub(r"([\\`*|~\[\]]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


MARKDOWN = shown.Signs(markdown_text, "**{}**", "<u>{}</u>", small=" <sub>±{}</sub>", star=r"\*")


def to_markdown(table: Table) -> str:
    """One Markdown table a group: **best**, <u>second</u>, its caption above, its footer below.

    Test sets that stand side by side are named in the heads; published rows have slanted names.
    """
    several = len(table.groups) > 1
    blocks = []
    for number, group in enumerate(table.groups, start=1):
        if table.style.label:
            blocks.append(f'<a id="{table.style.label}{f"-{number}" * several}"></a>')
        blocks += _markdown(group, table.style)
    if table.style.notes != "none":
        blocks += [markdown_text(f"Note: {note}.") for note in table.notes]
    return "\n\n".join(blocks) + "\n"


def _markdown(group: Group, style: TableStyle) -> Iterator[str]:
    yield markdown_text(style.caption or group.caption)
    heads = ["Method", *(["n"] if shown.shows_seeds(group, style) else [])]
    for column in group.columns:
        span = f"{markdown_text(shown.set_title(column.head, style))}: " if column.head else ""
        heads.append(span + shown.head_text(column, style, MARKDOWN))
    lines = [heads, ["---", *("---:" for _ in heads[1:])]]
    for band, row in shown.row_bands(group, style):
        if band:
            lines.append([f"**{markdown_text(band)}**", *("" for _ in heads[1:])])
        label = markdown_text(row.label)
        label = f"*{label}*" if row.origin is not None and group.is_mixed else label
        lines.append([label, *shown.row_cells(group, row, style, MARKDOWN)])
    yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if below := shown.lines_below(group, style):
        yield "<br>\n".join(map(markdown_text, below))


# HTML: a fragment with classes and values to sort by, and a page of its own.


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #1c1c1c; background: #fff; }
.results { border-collapse: collapse; border-block: 2px solid #1c1c1c; }
.results caption { text-align: left; padding-bottom: .5rem; max-width: 60rem; }
.results thead { border-bottom: 1px solid #1c1c1c; }
.results th, .results td { padding: .25rem .6rem; text-align: right; white-space: nowrap; }
.results thead th { font-weight: 600; }
.results th[scope=row], .results thead th:first-child { text-align: left; }
.results th[scope=row] { font-weight: normal; position: sticky; left: 0; background: #fff; }
.results th[scope=colgroup] { text-align: center; border-bottom: 1px solid #8a8a8a; }
.results .band th { text-align: left; padding-top: .7rem; font-style: italic; }
.results tbody tr:hover { background: #f2f5f9; }
.results .best { font-weight: 700; }
.results .second { text-decoration: underline; }
.results tr.published, .results tr.published th { color: #55585d; }
.results tr.own + tr.published > * { border-top: 1px solid #8a8a8a; }
.results .better { color: #13682f; }
.results .worse { color: #a11919; }
.table-group { margin-bottom: 3rem; }
.table-wrap { overflow-x: auto; }
.table-footer, .table-note { color: #55585d; font-size: 13px; max-width: 60rem; }
"""


def html_text(text: str) -> str:
    """Return plain text as HTML shows it, in quotes too."""
    return escape(" ".join(text.split()))


HTML = shown.Signs(html_text, small=" <small>±{}</small>")


def html_page(table: Table) -> str:
    """Return a page that needs nothing else: no script, no network."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Results</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{to_html(table)}</body>\n</html>\n"
    )


def to_html(table: Table) -> str:
    """Return the tables as a fragment: every text escaped, no style, no script.

    A group is a `section.table-group` with a `table.results` and a `p.table-footer`. Rows have the
    class own or published; cells the classes best, second, a verdict, and data-value, the number in
    full, or nothing; the heads of columns have data-key and data-better (higher or lower).
    """
    style, several = table.style, len(table.groups) > 1
    blocks = []
    for number, group in enumerate(table.groups, start=1):
        name = f' id="{html_text(style.label)}{f"-{number}" * several}"' if style.label else ""
        blocks += [f'<section class="table-group"{name}>', *_html(group, style), "</section>"]
    if style.notes != "none":
        blocks += [f'<p class="table-note">Note: {html_text(note)}.</p>' for note in table.notes]
    return "\n".join(blocks) + "\n"


def _html(group: Group, style: TableStyle) -> Iterator[str]:
    yield '<div class="table-wrap">\n<table class="results">'
    yield f"<caption>{html_text(style.caption or group.caption)}</caption>\n<thead>"
    seeds = shown.shows_seeds(group, style)
    if group.spans:
        cells = [f'<td colspan="{1 + seeds}"></td>']
        for span in group.spans:
            tag = 'th scope="colgroup"' if span.title else "td"
            title = html_text(shown.set_title(span.title, style))
            cells.append(f'<{tag} colspan="{span.columns}">{title}</{tag[:2]}>')
        yield f"<tr>{''.join(cells)}</tr>"
    heads = ['<th scope="col" data-key="method">Method</th>']
    heads += ['<th scope="col" data-key="n">n</th>'] if seeds else []
    for column in group.columns:
        better = {None: "", True: "higher", False: "lower"}[column.higher_is_better]
        direction = f' data-better="{better}"' if better else ""
        text = shown.head_text(column, style, HTML)
        heads.append(f'<th scope="col" data-key="{html_text(column.key)}"{direction}>{text}</th>')
    yield f"<tr>{''.join(heads)}</tr>\n</thead>\n<tbody>"
    for number, (band, row) in enumerate(shown.row_bands(group, style)):
        if band:
            if number:
                yield "</tbody>\n<tbody>"
            yield f'<tr class="band"><th colspan="{len(heads)}">{html_text(band)}</th></tr>'
        kind = "own" if row.origin is None else f"published {row.origin.level}"
        about = f' title="{html_text(row.origin.source)}"' if row.origin else ""
        cells = [f'<th scope="row"{about}>{html_text(row.label)}</th>']
        if seeds:
            n = str(len(row.records)) if row.records else ""
            cells.append(f'<td data-value="{n}">{n or "-"}</td>')
        pairs = zip(row.cells, group.columns, strict=True)
        cells += [_html_cell(row, cell, column, style) for cell, column in pairs]
        yield f'<tr class="{kind}">{"".join(cells)}</tr>'
    yield "</tbody>\n</table>\n</div>"
    if below := shown.lines_below(group, style):
        yield f'<p class="table-footer">{"<br>".join(map(html_text, below))}</p>'


def _html_cell(row: Row, cell: Cell, column: Column, style: TableStyle) -> str:
    value, classes, about = cell.mean, cell.mark, ""
    if found := cell.verdict:
        value, classes = found.spread.mean, found.verdict
        ends = (f"{end * column.scale:+.{column.decimals}f}" for end in (found.low, found.high))
        about = f' title="95 % interval {" to ".join(ends)}, p {found.p:.2g}"'
    elif cell.printed and cell.printed.flag:
        about = f' title="{html_text(cell.printed.flag)}"'
    named = f' class="{classes}"' if classes else ""
    number = "" if value is None else repr(value)
    text = shown.cell_text(row, cell, column, style, HTML)
    return f'<td{named} data-value="{number}"{about}>{text}</td>'


# CSV and JSON: full precision, one line for each row and test set.


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


def to_json(table: Table) -> str:
    """One object: captions and footers, with the rows of `to_csv`, and the notes."""
    tables = [
        {"caption": group.caption, "rows": [*_group_lines(group)], "below": list(group.below)}
        for group in table.groups
    ]
    found = {"tables": tables, "notes": list(table.notes)}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _group_lines(group: Group) -> Iterable[dict[str, object]]:
    if group.parts:
        return [line for part in group.parts for line in _group_lines(part)]
    context = asdict(group.context)
    return [_line(group, row, context) for row in group.rows]


def _line(group: Group, row: Row, context: dict[str, object]) -> dict[str, object]:
    if row.origin is None:
        first = row.records[0]
        line: dict[str, object] = {"method": first.method.name, "label": row.label}
        line |= context | {"fingerprint": first.fingerprint}
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


FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "html": html_page,
    "json": to_json,
}
