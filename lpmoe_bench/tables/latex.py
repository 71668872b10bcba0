"""Tables as LaTeX with booktabs."""

from __future__ import annotations

from collections.abc import Iterator

from lpmoe_bench.tables.cell_text import bands_of, cell_text, has_seeds, head_text, is_mixed
from lpmoe_bench.tables.parts import Group, Table

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
