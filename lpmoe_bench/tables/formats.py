"""Tables as text: Markdown, LaTeX, CSV, HTML, JSON."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from html import escape

from lpmoe_bench.errors import UsageError
from lpmoe_bench.tables.parts import (
    Cell,
    Column,
    Group,
    Row,
    Table,
    bands_of,
    cell_text,
    has_seeds,
    head_text,
    is_mixed,
    span_of,
)
from method_zoo.errors import unknown

# Tables as HTML: a fragment with classes and values to sort by, and a page of its own.


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
    blocks = ["\n".join(_group(group)) for group in table.groups]
    blocks += [f'<p class="table-note">Note: {_text(note)}.</p>' for note in table.notes]
    return "\n".join(blocks) + "\n"


def _group(group: Group) -> Iterator[str]:
    yield '<section class="table-group">\n<div class="table-wrap">\n<table class="results">'
    yield f"<caption>{_text(group.caption)}</caption>\n<thead>"
    seeds = has_seeds(group)
    yield from _spans(group, 1 + seeds)
    heads = ['<th scope="col" data-key="method">Method</th>']
    heads += ['<th scope="col" data-key="n">n</th>'] if seeds else []
    yield f"<tr>{''.join([*heads, *map(_head, group.columns)])}</tr>\n</thead>\n<tbody>"
    bands = bands_of(group)
    for number, row in enumerate(group.rows):
        if number in bands:
            width = 1 + seeds + len(group.columns)
            if number:
                yield "</tbody>\n<tbody>"
            yield f'<tr class="band"><th colspan="{width}">{_text(bands[number])}</th></tr>'
        yield _row(row, group.columns, seeds)
    yield "</tbody>\n</table>\n</div>"
    yield f'<p class="table-footer">{"<br>".join(map(_text, group.below))}</p>\n</section>'


def _spans(group: Group, before: int) -> Iterator[str]:
    """Yield the row of test sets above the heads, where there is one."""
    if not group.spans:
        return
    cells = [f'<td colspan="{before}"></td>']
    for span in group.spans:
        if span.title:
            title = _text(span.title)
            cells.append(f'<th scope="colgroup" colspan="{span.columns}">{title}</th>')
        else:
            cells.append(f'<td colspan="{span.columns}"></td>')
    yield f"<tr>{''.join(cells)}</tr>"


def _head(column: Column) -> str:
    better = {None: "", True: "higher", False: "lower"}[column.higher_is_better]
    direction = f' data-better="{better}"' if better else ""
    text = _text(head_text(column.label, column))
    return f'<th scope="col" data-key="{_text(column.key)}"{direction}>{text}</th>'


def _row(row: Row, columns: Sequence[Column], seeds: bool) -> str:
    kind = "own" if row.origin is None else f"published {row.origin.level}"
    about = f' title="{_text(row.origin.source)}"' if row.origin else ""
    cells = [f'<th scope="row"{about}>{_text(row.label)}</th>']
    if seeds:
        n = str(len(row.records)) if row.records else ""
        cells.append(f'<td data-value="{n}">{n or "-"}</td>')
    cells += [_cell(row, cell, column) for cell, column in zip(row.cells, columns, strict=True)]
    return f'<tr class="{kind}">{"".join(cells)}</tr>'


def _cell(row: Row, cell: Cell, column: Column) -> str:
    value, classes, about = cell.mean, [cell.mark] if cell.mark else [], ""
    if cell.verdict is not None:
        found = cell.verdict
        value = found.spread.mean
        classes.append(found.verdict)
        low, high = (f"{bound * column.scale:+.{column.decimals}f}" for bound in _bounds(cell))
        about = f' title="95 % interval {low} to {high}, p {found.p:.2g}"'
    elif cell.printed and cell.printed.flag:
        about = f' title="{_text(cell.printed.flag)}"'
    named = f' class="{" ".join(classes)}"' if classes else ""
    number = "" if value is None else repr(value)
    text = _text(cell_text(row, cell, column))
    return f'<td{named} data-value="{number}"{about}>{text}</td>'


def _bounds(cell: Cell) -> tuple[float, float]:
    assert cell.verdict is not None
    return cell.verdict.low, cell.verdict.high


def _text(text: str) -> str:
    return escape(" ".join(text.split()))


# Tables as text: Markdown, LaTeX, CSV; HTML is next door.


# Tables as CSV: full precision, one line for each row and test set.


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
    return [_line(group, row) for row in group.rows]


def _line(group: Group, row: Row) -> dict[str, object]:
    if row.origin is None:
        first = row.records[0]
        line: dict[str, object] = {"method": first.method.name, "label": row.label}
        line |= asdict(group.context) | {"fingerprint": first.fingerprint}
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


# Tables as LaTeX with booktabs.


_SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "‡": r"$\ddagger$",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}
_MARKS = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}


def to_latex(table: Table) -> str:
    """One `table` environment a group, for a document with \\usepackage{booktabs,graphicx}.

    Test sets side by side have a common head each; a rule parts published rows from own ones.
    What is wider than the line shrinks to it.
    """
    notes = [f"% {' '.join(note.split())}" for note in table.notes]
    blocks = [_latex(group) for group in table.groups]
    return "\n".join([r"% needs \usepackage{booktabs,graphicx}", *notes, *blocks]) + "\n"


def _latex(group: Group) -> str:
    arrows = (r"$\uparrow$", r"$\downarrow$")
    seeds = ["$n$"] if has_seeds(group) else []
    heads = ["Method", *seeds, *(head_text(c.latex, c, *arrows) for c in group.columns)]
    return "\n".join(
        [
            r"\begin{table}[ht]",
            r"\centering",
            rf"\caption{{{latex_text(group.caption)}}}",
            r"\smallskip\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            *_span_lines(group, 1 + len(seeds)),
            " & ".join(heads) + r" \\",
            r"\midrule",
            *_lines(group, bool(seeds)),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\smallskip",
            r"{\footnotesize\raggedright " + " ".join(map(latex_text, group.below)) + r"\par}",
            r"\end{table}",
        ]
    )


def _span_lines(group: Group, place: int) -> Iterator[str]:
    """Yield the heads of test sets and the rules below them; `place` columns stand before."""
    if not group.spans:
        return
    cells, rules = [""] * place, []
    for span in group.spans:
        if span.title:
            cells.append(rf"\multicolumn{{{span.columns}}}{{c}}{{{latex_text(span.title)}}}")
            rules.append(rf"\cmidrule(lr){{{place + 1}-{place + span.columns}}}")
        else:
            cells += [""] * span.columns
        place += span.columns
    yield " & ".join(cells) + r" \\"
    yield " ".join(rules)


def _lines(group: Group, seeds: bool) -> Iterator[str]:
    published, bands = False, bands_of(group)
    for number, row in enumerate(group.rows):
        if number in bands:
            width = 1 + seeds + len(group.columns)
            yield from [r"\addlinespace"] if number else []
            yield rf"\multicolumn{{{width}}}{{l}}{{\textit{{{latex_text(bands[number])}}}}} \\"
        if row.origin is not None and not published and is_mixed(group):
            yield r"\midrule"
        published = row.origin is not None
        cells = [
            _MARKS[cell.mark].format(cell_text(row, cell, column, r" $\pm$ ", "$^{*}$"))
            for cell, column in zip(row.cells, group.columns, strict=True)
        ]
        n = [str(len(row.records)) if row.records else "-"] if seeds else []
        label = latex_text(row.label)
        # After the end of a row a star or a bracket would be taken for an argument of it.
        label = f"{{{label[0]}}}{label[1:]}" if label.startswith(("*", "[")) else label
        yield " & ".join([label, *n, *cells]) + r" \\"


def latex_text(text: str) -> str:
    """Return plain text as LaTeX prints it."""
    return "".join(_SIGNS.get(sign, sign) for sign in " ".join(text.split()))


# Tables as text of a kind: Markdown, LaTeX, CSV, HTML.


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
    "json": to_json,
}
