"""Tables as LaTeX with booktabs, as papers of one and of two columns print them."""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from lpmoe_bench.tables import shown
from lpmoe_bench.tables.parts import Group, Table
from lpmoe_bench.tables.style import TableStyle

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


def latex_text(text: str) -> str:
    """Return plain text as LaTeX prints it."""
    return "".join(_SIGNS.get(sign, sign) for sign in " ".join(text.split()))


LATEX = shown.Signs(
    latex_text,
    r"\textbf{{{}}}",
    r"\underline{{{}}}",
    r" $\pm$ ",
    r"{{\scriptsize\,$\pm$\,{}}}",
    "$^{*}$",
    r"$\uparrow$",
    r"$\downarrow$",
)
PLAIN_TEXT = shown.Signs(str)
# Points of width: of the narrower of the usual columns (article has 229, CVPR 237, IEEE 252) and of
# a page (article 469). Sizes of type, the largest first, and the width of a sign in each; in a
# class of 10 points the smallest is 7, below which nobody should print.
ENVIRONMENTS = {"table": 229.0, "table*": 469.0}
SIZES = {r"\small": 4.9, r"\footnotesize": 4.45, r"\scriptsize": 4.15}
GAP = 3.0  # on both sides of a column
SMALLEST = r"\scriptsize"


class Fit(NamedTuple):
    """Where and in which size a table stands, its units below their heads or beside them.

    width: in points, as its signs are counted.
    """

    env: str
    size: str
    stacked: bool
    width: float

    @property
    def fits(self) -> bool:
        return self.width <= ENVIRONMENTS.get(self.env, self.width)


def fit_table(group: Group, style: TableStyle) -> Fit:
    """Choose environment, heads and size: one column before two, and what is large before small."""
    wanted, fit = style.env or "", Fit(style.env or "table*", SMALLEST, False, 0.0)
    for env in [wanted] if wanted in ENVIRONMENTS else ENVIRONMENTS:
        # What would need the smallest type in one column goes over two.
        sizes = [*SIZES] if wanted or env == "table*" else [*SIZES][:-1]
        for size, stacked in itertools.product(sizes, (False, True)):
            signs = _widths(group, style, stacked)
            width = SIZES[size] * sum(signs) + 2 * GAP * (len(signs) - 1)
            fit = Fit(env, size, stacked, width)
            if fit.fits:
                return fit._replace(env=style.env or env)
    return fit._replace(env=style.env or fit.env)


def _widths(group: Group, style: TableStyle, stacked: bool) -> list[int]:
    """Return the most signs that stand in each column, as a reader sees them."""
    seeds = ["n"] if shown.shows_seeds(group, style) else []
    heads = ["Method", *seeds, *(shown.head_text(c, style, PLAIN_TEXT) for c in group.columns)]
    lines = [[row.label, *shown.row_cells(group, row, style, PLAIN_TEXT)] for row in group.rows]
    lines += [[max(head.split(" ("), key=len) if stacked else head for head in heads]]
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def wide_notes(table: Table) -> list[str]:
    """Say which tables are wider than their place in the smallest type."""
    notes = []
    for group in table.groups:
        fit = fit_table(group, table.style)
        if not fit.fits:
            notes.append(
                f"the table of {group.context.test_set or group.caption} is about {fit.width:.0f} "
                f"points wide at 7 points of type, and {fit.env} has "
                f"{ENVIRONMENTS[fit.env]:.0f}; choose columns by --columns, or --sd none"
            )
    return notes


def to_latex(table: Table) -> str:
    """Return one environment a group, for a document with \\usepackage{booktabs}.

    Test sets side by side have a common head each; a rule parts published rows from own ones. The
    size is the largest usual one that fits, and nothing is scaled. What is not printed of caption
    and notes stands in comments.
    """
    lines = [r"% needs \usepackage{booktabs}"]
    for note in (*table.notes, *wide_notes(table)):
        lines.append(f"% {' '.join(note.split())}")
    for number, group in enumerate(table.groups):
        lines += _group(group, table.style, f"-{number + 1}" if table.groups[1:] else "")
    return "\n".join(lines) + "\n"


def _group(group: Group, style: TableStyle, suffix: str) -> Iterator[str]:
    fit = fit_table(group, style)
    below = shown.lines_below(group, style, "short") if fit.env != "none" else []
    hidden = [line for line in group.below if line not in below]
    if group.caption and (style.caption or fit.env == "none"):
        hidden.insert(0, group.caption)
    yield from (f"% {' '.join(line.split())}" for line in hidden)
    if fit.env != "none":
        yield rf"\begin{{{fit.env}}}[{'ht' if fit.env == 'table' else 't'}]"
        yield r"\centering"
        yield rf"\caption{{{latex_text(style.caption or group.caption)}}}"
        yield from [rf"\label{{{style.label}{suffix}}}"] if style.label else []
        yield rf"\smallskip{fit.size}\setlength{{\tabcolsep}}{{{GAP:g}pt}}%"
    yield from _tabular(group, style, fit.stacked)
    if below:
        yield r"\par\smallskip"
        yield rf"{{{SMALLEST}\raggedright {' '.join(map(latex_text, below))}\par}}"
    if fit.env != "none":
        yield rf"\end{{{fit.env}}}"


def _tabular(group: Group, style: TableStyle, stacked: bool) -> Iterator[str]:
    seeds = ["$n$"] if shown.shows_seeds(group, style) else []
    heads = [
        "Method",
        *seeds,
        *(shown.head_text(c, style, LATEX, latex=True) for c in group.columns),
    ]
    if stacked:  # units stand below what they are of
        heads = [re.sub(r"^(.*) (\(.*)$", r"\\shortstack[r]{\1\\\\\2}", head) for head in heads]
    yield rf"\begin{{tabular}}{{@{{}}l{'r' * (len(heads) - 1)}@{{}}}}"
    yield r"\toprule"
    yield from _spans(group, style, 1 + len(seeds))
    yield " & ".join(heads) + r" \\"
    yield r"\midrule"
    published = False
    for number, (band, row) in enumerate(shown.row_bands(group, style)):
        if band:
            yield from [r"\addlinespace"] if number else []
            yield rf"\multicolumn{{{len(heads)}}}{{l}}{{\textit{{{latex_text(band)}}}}} \\"
        if row.origin is not None and not published and group.is_mixed:
            yield r"\midrule"
        published = row.origin is not None
        label = latex_text(row.label)
        # After the end of a row a star or a bracket would be taken for an argument of it.
        label = f"{{{label[0]}}}{label[1:]}" if label.startswith(("*", "[")) else label
        yield " & ".join([label, *shown.row_cells(group, row, style, LATEX)]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _spans(group: Group, style: TableStyle, place: int) -> Iterator[str]:
    """Yield the heads of test sets and the rules below them; `place` columns stand before."""
    if not group.spans:
        return
    cells, rules = [""] * place, []
    for span in group.spans:
        if span.title:
            title = latex_text(shown.set_title(span.title, style))
            cells.append(rf"\multicolumn{{{span.columns}}}{{c}}{{{title}}}")
            rules.append(rf"\cmidrule(lr){{{place + 1}-{place + span.columns}}}")
        else:
            cells += [""] * span.columns
        place += span.columns
    yield " & ".join(cells) + r" \\"
    yield " ".join(rules)
