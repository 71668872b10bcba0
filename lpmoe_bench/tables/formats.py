"""Tables as Markdown, HTML, CSV and JSON; LaTeX is next door."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from html import escape

from lpmoe_bench.errors import UsageError
from lpmoe_bench.files import safe_cell
from lpmoe_bench.tables import parts
from lpmoe_bench.tables.latex import to_latex
from lpmoe_bench.tables.printing import MarkdownPrinter, Printer, markdown_text
from method_zoo.errors import unknown


def format_table(table: parts.Table, kind: str) -> str:
    """Return the table as text of a kind in FORMATS; raises UsageError for another."""
    if kind not in FORMATS:
        raise UsageError(unknown("format", kind, FORMATS))
    return FORMATS[kind](table)


def to_markdown(table: parts.Table) -> str:
    """One Markdown table a group, its caption above, its footer below."""
    texts = MarkdownPrinter.print_all(table)
    if table.style.notes != "none":
        texts += [markdown_text(f"Note: {note}.") for note in table.notes]
    return "\n\n".join(texts) + "\n"


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


def html_page(table: parts.Table) -> str:
    """Return a page that needs nothing else: no script, no network."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Results</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{to_html(table)}</body>\n</html>\n"
    )


def to_html(table: parts.Table) -> str:
    """Return the tables as a fragment: every text escaped, no style, no script.

    A group is a `section.table-group` with a `table.results` and a `p.table-footer`. Rows have the
    class own or published; cells the classes best, second, a verdict, and data-value, the number in
    full, or nothing; the heads of columns have data-key and data-better (higher or lower).
    """
    texts = HtmlPrinter.print_all(table)
    if table.style.notes != "none":
        texts += [f'<p class="table-note">Note: {html_text(note)}.</p>' for note in table.notes]
    return "\n".join(texts) + "\n"


class HtmlPrinter(Printer):
    """HTML: marks are classes of cells, which carry their numbers in full."""

    text = staticmethod(html_text)
    small = " <small>±{}</small>"

    def begin(self) -> Iterator[str]:
        name = f' id="{html_text(self.anchor)}"' if self.anchor else ""
        yield f'<section class="table-group"{name}>'
        yield '<div class="table-wrap">\n<table class="results">'
        yield f"<caption>{self.caption}</caption>\n<thead>"
        if self.group.spans:
            cells = [f'<td colspan="{1 + self.shows_seeds}"></td>']
            for title, columns in self.group.spans:
                tag = 'th scope="colgroup"' if title else "td"
                text = html_text(self.set_title(title))
                cells.append(f'<{tag} colspan="{columns}">{text}</{tag[:2]}>')
            yield f"<tr>{''.join(cells)}</tr>"
        yield f"<tr>{''.join(self.heads())}</tr>\n</thead>\n<tbody>"

    def head(self, key: str, text: str, better: bool | None = None) -> str:
        direction = {None: "", True: ' data-better="higher"', False: ' data-better="lower"'}
        return f'<th scope="col" data-key="{html_text(key)}"{direction[better]}>{text}</th>'

    def band(self, title: str, first: bool) -> Iterator[str]:
        yield from [] if first else ["</tbody>\n<tbody>"]
        yield f'<tr class="band"><th colspan="{len(self.heads())}">{title}</th></tr>'

    def row(self, row: parts.Row, cells: list[str], before: parts.Row | None) -> Iterator[str]:
        kind = f"published {row.origin.level}" if row.origin else "own"
        about = f' title="{html_text(row.origin.source)}"' if row.origin else ""
        label = f'<th scope="row"{about}>{html_text(row.label)}</th>'
        yield f'<tr class="{kind}">{label}{"".join(cells)}</tr>'

    def seeds(self, count: int) -> str:
        return f'<td data-value="{count or ""}">{count or "-"}</td>'

    def cell(self, row: parts.Row, cell: parts.Cell, column: parts.Column) -> str:
        value, classes, about = cell.mean, cell.mark, ""
        if found := cell.verdict:
            value, classes = found.spread.mean, found.verdict
            ends = (f"{end * column.scale:+.{column.decimals}f}" for end in (found.low, found.high))
            about = f' title="95 % interval {" to ".join(ends)}, p {found.p:.2g}"'
        elif cell.printed and cell.printed.flag:
            about = f' title="{html_text(cell.printed.flag)}"'
        named = f' class="{classes}"' if classes else ""
        number = "" if value is None else repr(value)
        text = self.cell_text(row, cell, column)
        return f'<td{named} data-value="{number}"{about}>{text}</td>'

    def end(self) -> Iterator[str]:
        yield "</tbody>\n</table>\n</div>"
        if self.below:
            yield f'<p class="table-footer">{"<br>".join(map(html_text, self.below))}</p>'
        yield "</section>"


# CSV and JSON: full precision, one line for each row and test set.


def to_csv(table: parts.Table) -> str:
    """One line for each method and test set, in full precision, mean and sd apart, no marks.

    Scores are fractions, parameters are counts and shares fractions: no unit of print. Published
    rows name their level and source.
    """
    lines = [line for group in table.groups for line in _group_lines(group)]
    columns = dict.fromkeys(key for line in lines for key in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: safe_cell(cell) for key, cell in line.items()} for line in lines)
    return text.getvalue()


def to_json(table: parts.Table) -> str:
    """One object: captions and footers, with the rows of `to_csv`, and the notes."""
    tables = [
        {"caption": group.caption, "rows": [*_group_lines(group)], "below": list(group.below)}
        for group in table.groups
    ]
    found = {"tables": tables, "notes": list(table.notes)}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _group_lines(group: parts.Group) -> Iterable[dict[str, object]]:
    if group.parts:
        return [line for part in group.parts for line in _group_lines(part)]
    context = asdict(group.context)  # once a table: it walks over twenty fields
    return [_line(group, row, context) for row in group.rows]


def _line(group: parts.Group, row: parts.Row, context: dict[str, object]) -> dict[str, object]:
    line: dict[str, object] = {"method": row.method, "label": row.label}
    if row.origin is None:
        line |= context | {"fingerprint": row.records[0].fingerprint, "n": len(row.records)}
        line["seeds"] = " ".join(str(record.seed) for record in row.records)
    else:
        line |= {key: context[key] for key in ("task", "test_set")}
        line |= {key: getattr(row.origin, key) for key in ("level", "source", "conditions")}
    for column, cell in zip(group.columns, row.cells, strict=True):
        key, found = column.key, cell.verdict
        if found is not None:
            line |= {key: found.spread.mean, f"{key}_low": found.low, f"{key}_high": found.high}
            line |= {f"{key}_p": found.p, f"{key}_verdict": found.verdict}
        elif not column.is_score:
            line[key] = cell.mean
        else:
            line |= {f"{key}_mean": cell.mean, f"{key}_sd": cell.sd}
            if cell.difference is not None:
                line[f"{key}_difference"] = cell.difference
            if cell.printed and cell.printed.flag:
                line[f"{key}_flag"] = cell.printed.flag
    return {key: "" if value is None else value for key, value in line.items()}


FORMATS: dict[str, Callable[[parts.Table], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "html": html_page,
    "json": to_json,
}
