"""Tables as LaTeX with booktabs, as papers of one and of two columns print them."""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lpmoe_bench.tables.parts import Column, Group, Row, Table
from lpmoe_bench.tables.printing import Printer
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
    "\u2212": "$-$",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}
_GREEK = {
    "αβγδεζηθικλμνξπρςστυφχψω": "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda "
    "mu nu xi pi rho varsigma sigma tau upsilon phi chi psi omega",
    "ΓΔΘΛΞΠΣΥΦΨΩ": "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega",
}
for _letters, _names in _GREEK.items():
    _SIGNS |= {a: rf"$\{b}$" for a, b in zip(_letters, _names.split(), strict=True)}
# Beyond Latin letters pdflatex knows dashes, quotes, the euro and the trade mark alone.
_UNKNOWN = re.compile("[^\0-\u017f\u2013-\u203a\u20ac\u2122]")


def latex_text(text: str) -> str:
    """Return plain text as LaTeX prints it."""
    found = "".join(_SIGNS.get(sign, sign) for sign in " ".join(text.split()))
    return re.sub("([?!])`", r"\1{}`", found)  # which together are a Spanish sign


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
    plain = Printer(group, style)
    lines = [[row.label, *plain.cells(row)] for row in group.rows]
    heads = {False: plain.heads()}
    heads[True] = [max(head.split(" ("), key=len) for head in heads[False]]
    signs = {  # the most that stand in each column, as a reader sees them
        stacked: [max(map(len, column)) for column in zip(own, *lines, strict=True)]
        for stacked, own in heads.items()
    }
    for env in [wanted] if wanted in ENVIRONMENTS else ENVIRONMENTS:
        # What would need the smallest type in one column goes over two.
        sizes = [*SIZES] if wanted or env == "table*" else [*SIZES][:-1]
        for size, stacked in itertools.product(sizes, (False, True)):
            # Signs of usual width and the gaps between columns; the outer gaps may stick out.
            width = SIZES[size] * sum(signs[stacked]) + 2 * GAP * (len(signs[stacked]) - 1)
            fit = Fit(env, size, stacked, width)
            if fit.fits:
                return fit._replace(env=style.env or env)
    return fit._replace(env=style.env or fit.env)


def latex_notes(table: Table) -> list[str]:
    """Say which tables are wider than their place in the smallest type, and what is not printed."""
    return _notes(table, LatexPrinter.print_all(table))


def _notes(table: Table, texts: list[str]) -> list[str]:
    fits = [(group, fit_table(group, table.style)) for group in table.groups]
    lines = [line for text in texts for line in text.split("\n") if not line.startswith("%")]
    strange = dict.fromkeys(_UNKNOWN.findall("".join(lines)))
    said = [f"pdflatex may lack {' '.join(strange)}; use lualatex, or --rename"] if strange else []
    if table.style.env == "none" and table.style.label:
        said.append(f"--label {table.style.label} is not printed, for --env none has no caption")
    return said + [
        f"the table of {group.context.test_set or group.caption} is about {fit.width:.0f} points "
        f"wide at 7 points of type, and {fit.env} has {ENVIRONMENTS[fit.env]:.0f}; choose columns "
        f"by --columns, or --sd none"
        for group, fit in fits
        if not fit.fits
    ]


def to_latex(table: Table) -> str:
    """Return one environment a group, for a document with \\usepackage{booktabs}.

    Test sets side by side have a common head each; a rule parts published rows from own ones. The
    size is the largest usual one that fits, and nothing is scaled. What is not printed of caption
    and notes stands in comments.
    """
    texts = LatexPrinter.print_all(table)
    notes = [_comment(note) for note in (*table.notes, *_notes(table, texts))]
    return "\n".join([r"% needs \usepackage{booktabs}", *notes, *texts]) + "\n"


def _comment(text: str) -> str:
    return f"% {' '.join(text.split())}"


class LatexPrinter(Printer):
    """LaTeX with the rules of booktabs."""

    text = staticmethod(latex_text)
    best, second = r"\textbf{{{}}}", r"\underline{{{}}}"
    pm, small, star, count = r" $\pm$ ", r"{{\scriptsize\,$\pm$\,{}}}", "$^{*}$", "$n$"
    arrows: Mapping[bool | None, str] = {None: "", True: r" $\uparrow$", False: r" $\downarrow$"}
    usual_notes = "short"

    def label(self, column: Column) -> str:
        return column.latex or latex_text(column.label)

    def begin(self) -> Iterator[str]:
        style, fit = self.style, fit_table(self.group, self.style)
        self.env = "" if fit.env == "none" else fit.env
        printed = self.below if self.env else []
        if self.group.caption and (style.caption or not self.env):
            yield _comment(self.group.caption)
        yield from (_comment(line) for line in self.group.below if line not in printed)
        if self.env:
            yield rf"\begin{{{self.env}}}[{'ht' if self.env == 'table' else 't'}]"
            yield "\\centering\n" rf"\caption{{{self.caption}}}"
            yield from [rf"\label{{{self.anchor}}}"] if self.anchor else []
            yield rf"\smallskip{fit.size}\setlength{{\tabcolsep}}{{{GAP:g}pt}}%"
        heads = self.heads()
        if fit.stacked:  # units stand below what they are of
            heads = [re.sub(r"^(.*) (\(.*)$", r"\\shortstack[r]{\1\\\\\2}", head) for head in heads]
        yield rf"\begin{{tabular}}{{@{{}}l{'r' * (len(heads) - 1)}@{{}}}}"
        yield r"\toprule"
        yield from self._spans() if self.group.spans else []
        yield " & ".join(heads) + r" \\"
        yield r"\midrule"

    def _spans(self) -> Iterator[str]:
        """Yield the heads of test sets and the rules below them."""
        place = 1 + self.shows_seeds
        cells, rules = [""] * place, []
        for title, columns in self.group.spans:
            if title:
                text = latex_text(self.set_title(title))
                cells.append(rf"\multicolumn{{{columns}}}{{c}}{{{text}}}")
                rules.append(rf"\cmidrule(lr){{{place + 1}-{place + columns}}}")
            else:
                cells += [""] * columns
            place += columns
        yield " & ".join(cells) + r" \\"
        yield " ".join(rules)

    def band(self, title: str, first: bool) -> Iterator[str]:
        yield from [] if first else [r"\addlinespace"]
        width = 1 + self.shows_seeds + len(self.group.columns)
        yield rf"\multicolumn{{{width}}}{{l}}{{\textit{{{title}}}}} \\"

    def row(self, row: Row, cells: list[str], before: Row | None) -> Iterator[str]:
        if row.origin is not None and self.group.is_mixed and not (before and before.origin):
            yield r"\midrule"
        label = latex_text(row.label)
        # After the end of a row a star or a bracket would be taken for an argument of it.
        label = f"{{{label[0]}}}{label[1:]}" if label.startswith(("*", "[")) else label
        yield " & ".join([label, *cells]) + r" \\"

    def end(self) -> Iterator[str]:
        yield "\\bottomrule\n\\end{tabular}"
        if self.env and self.below:
            below = " ".join(map(latex_text, self.below))
            yield "\\par\\smallskip\n" rf"{{{SMALLEST}\raggedright {below}\par}}"
        if self.env:
            yield rf"\end{{{self.env}}}"
