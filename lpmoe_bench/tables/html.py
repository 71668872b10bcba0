"""Tables as HTML: a fragment with classes and values to sort by, and a page of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

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
)

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
