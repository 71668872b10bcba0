"""LaTeX of tables compiles, with a real compiler, whatever names and kinds of rows they have."""

import shutil
import subprocess

import pytest
from test_published import own
from test_table import nasty, three_methods
from test_table_stacked import BOTH
from test_table_wide import of_two
from test_verdicts import judged, three

from lpmoe_bench.tables.formats import to_latex
from lpmoe_bench.tables.ledger import load_ledger
from lpmoe_bench.tables.parts import CellCounts
from lpmoe_bench.tables.table import build_table

HEAD = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"


@pytest.fixture
def compiled(tmp_path):
    """A function that compiles tables into a page; skips where there is no compiler."""
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("no pdflatex here")

    def compile_(*tables):
        text = HEAD + "\\clearpage\n".join(map(to_latex, tables)) + "\\end{document}\n"
        (tmp_path / "t.tex").write_text(text, encoding="utf-8")
        command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, errors="replace"
        )
        assert done.returncode == 0, done.stdout[-2000:]
        return done.stdout

    return compile_


@pytest.mark.latex
def test_tables_of_records_compile(compiled):
    compiled(build_table(three_methods(), cells=CellCounts(50, 47, 3)), nasty())


@pytest.mark.latex
def test_wide_tables_stay_within_the_line(compiled):
    table = build_table([of_two(), of_two("vpt")], group="task", columns=["all"])
    own = build_table(three_methods(), columns=["all"])
    assert "Overfull \\hbox" not in compiled(table, own, build_table([], source="conv_lora"))


@pytest.mark.latex
def test_stacked_tables_compile(compiled):
    assert "Overfull \\hbox" not in compiled(build_table(BOTH, group="all", columns=["all"]))


@pytest.mark.latex
def test_published_rows_and_verdicts_compile(compiled, tmp_path):
    shown = compiled(
        build_table([own(), own("vpt")], published=True), judged(three(tmp_path), group="task")
    )
    assert "Overfull \\hbox" not in shown


@pytest.mark.latex
def test_every_published_table_compiles(compiled):
    compiled(*(build_table([], source=name) for name in load_ledger().tables))


@pytest.mark.parametrize("title", ["[x] net", "*net*"])
def test_a_name_after_the_end_of_a_row_is_no_argument(title):
    records = [of_two(method={"name": "lora", "title": title}), of_two("vpt")]
    assert f"{{{title[0]}}}{title[1:]} & " in to_latex(build_table(records))
