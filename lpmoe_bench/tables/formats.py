"""Tables as text: Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import asdict

from lpmoe_bench.errors import UsageError
from lpmoe_bench.tables.columns import Column
from lpmoe_bench.tables.table import Cell, Group, Table
from method_zoo._errors import unknown


def format_table(table: Table, kind: str) -> str:
    """Return the table as text of a kind: markdown, latex or csv; raises UsageError for another."""
    if kind not in FORMATS:
        raise UsageError(unknown("format", kind, FORMATS))
    return FORMATS[kind](table)


def to_markdown(table: Table) -> str:
    """One Markdown table a group: **best**, <u>second</u>, its caption above, its footer below."""
    blocks = [_markdown(group) for group in table.groups]
    blocks += [_markdown_text(f"Note: {note}.") for note in table.notes]
    return "\n\n".join(blocks) + "\n"


def _markdown(group: Group) -> str:
    marks = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
    heads = ["Method", *_n(group, "n"), *(_head(c.label, c, "↑", "↓") for c in group.columns)]
    lines = [heads, ["---", *("---:" for _ in heads[1:])]]
    for row in group.rows:
        cells = [
            marks[cell.mark].format(_number(cell, column, " ± "))
            for cell, column in zip(row.cells, group.columns, strict=True)
        ]
        lines.append([_markdown_text(row.label), *_n(group, str(len(row.records))), *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    below = "<br>\n".join(_markdown_text(line) for line in group.footer)
    return f"{_markdown_text(group.caption)}\n\n{table}\n\n{below}"


def _markdown_text(text: str) -> str:
    text = re.sub(r"([\\`*|~\[\]]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}


def to_latex(table: Table) -> str:
    """One `table` environment a group, for a document with \\usepackage{booktabs}."""
    notes = [f"% {' '.join(note.split())}" for note in table.notes]
    blocks = [_latex(group) for group in table.groups]
    return "\n".join(["% needs \\usepackage{booktabs}", *notes, *blocks]) + "\n"


def _latex(group: Group) -> str:
    marks = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
    arrows = (r"$\uparrow$", r"$\downarrow$")
    heads = ["Method", *_n(group, "$n$"), *(_head(c.latex, c, *arrows) for c in group.columns)]
    lines = []
    for row in group.rows:
        cells = [
            marks[cell.mark].format(_number(cell, column, r" $\pm$ "))
            for cell, column in zip(row.cells, group.columns, strict=True)
        ]
        lines.append([_latex_text(row.label), *_n(group, str(len(row.records))), *cells])
    return "\n".join(
        [
            r"\begin{table}[ht]",
            r"\centering",
            rf"\caption{{{_latex_text(group.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *(" & ".join(line) + r" \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip",
            r"{\footnotesize " + " ".join(map(_latex_text, group.footer)) + r"\par}",
            r"\end{table}",
        ]
    )


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def to_csv(table: Table) -> str:
    """One line for each method and test set, in full precision, mean and sd apart, no marks.

    Scores are fractions, parameters are counts and shares fractions: no unit of print.
    """
    lines = [line for group in table.groups for line in _csv_lines(group)]
    columns = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _csv_lines(group: Group) -> list[dict[str, object]]:
    lines = []
    for row in group.rows:
        first = row.records[0]
        line: dict[str, object] = {"method": first.method.name, "label": row.label}
        line |= asdict(group.context) | {"fingerprint": first.fingerprint}
        line |= {"n": len(row.records), "seeds": " ".join(str(r.seed) for r in row.records)}
        for column, cell in zip(group.columns, row.cells, strict=True):
            if column.is_score:
                line |= {f"{column.key}_mean": cell.mean, f"{column.key}_sd": cell.sd}
            else:
                line[column.key] = cell.mean
        lines.append({key: "" if value is None else value for key, value in line.items()})
    return lines


def _n(group: Group, text: str) -> list[str]:
    """Return the cell of the column that counts seeds, which is there where any row has several."""
    return [text] if any(len(row.records) > 1 for row in group.rows) else []


def _head(name: str, column: Column, up: str, down: str) -> str:
    if column.higher_is_better is None:
        return name
    return f"{name} {up if column.higher_is_better else down}"


def _number(cell: Cell, column: Column, between: str) -> str:
    if cell.mean is None:
        return "n/a" if column.is_score else "-"
    text = f"{cell.mean * column.scale:.{column.decimals}f}"
    if column.is_score and cell.sd is not None:
        text += f"{between}{cell.sd * column.scale:.{column.decimals}f}"
    return text


FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
}
