"""Tables as HTML and as LaTeX."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import NamedTuple

import pytest
from sample_records import record
from table_samples import BOTH, judged, nasty, of_two, own, three, three_methods

from lpmoe_bench.tables.formats import format_table, to_html, to_latex
from lpmoe_bench.tables.latex import latex_notes
from lpmoe_bench.tables.parts import CellCounts
from lpmoe_bench.tables.published_figures import load_published
from lpmoe_bench.tables.style import TableStyle
from lpmoe_bench.tables.table import build_table

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Reads a page into (tag, attributes, text) and checks that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self.open.append(len(self.found) - 1)

    def handle_endtag(self, tag):
        assert self.found[self.open.pop()][0] == tag

    def handle_data(self, data):
        if self.open:
            self.found[self.open[-1]][2] += data

    def all(self, tag):
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


def test_cells_have_values_marks_and_text():
    reader = Reader(to_html(build_table(three_methods())))
    heads = [
        attributes.get("data-key") for attributes, _ in reader.all("th") if "data-key" in attributes
    ]
    assert heads == [
        *("method", "n", "method_parameters", "decoder_parameters", "share_of_backbone"),
        *("s_measure", "e_mean", "weighted_f", "mae"),
    ]
    better = {a["data-key"]: a.get("data-better") for a, _ in reader.all("th") if "data-key" in a}
    assert (better["s_measure"], better["mae"], better["n"]) == ("higher", "lower", None)
    cells = [one for one in reader.all("td") if one[1].startswith("0.755")]
    assert cells == [({"data-value": repr((0.75 + 0.76) / 2)}, "0.755 ± 0.007")]
    assert len(reader.all("tr")) == 4
    assert [attributes for attributes, _ in reader.all("tr")] == [{}, *[{"class": "own"}] * 3]


def test_a_missing_value_is_empty_to_sort_by():
    records = [record(scores={"s_measure": None, "mae": 0.1}), record("vpt")]
    reader = Reader(to_html(build_table(records)))
    assert ({"data-value": ""}, "n/a") in reader.all("td")


def test_every_text_is_escaped():
    method = {"name": "lora", "title": "<script>alert(1)</script>\"'&"}
    data = record().data.model_copy(deep=True)
    tests = [data.tests[0].model_copy(update={"note": "<img src=x onerror=y>"})]
    bad = record(method=method, data=data.model_copy(update={"tests": tests}).model_dump())
    text = format_table(build_table([bad, record("vpt")]), "html")
    reader = Reader(text)
    assert not reader.all("script")
    assert not reader.all("img")
    assert ({"scope": "row"}, "<script>alert(1)</script>\"'&") in reader.all("th")
    assert Reader(format_table(nasty(), "html")).all("table")


@pytest.mark.parametrize("group", ["test_set", "task"])
def test_the_page_needs_nothing_else(group):
    page = format_table(build_table(three_methods(), published=True, group=group), "html")
    assert page.startswith("<!doctype html>")
    for word in ("http:", "https:", "<script", "<link", "@import", "url("):
        assert word not in page
    assert to_html(build_table(three_methods(), published=True, group=group)) in page


def test_every_line_has_as_many_cells():
    for table in (
        build_table(three_methods()),
        build_table([], source="conv_lora"),
        build_table([], source="sam_adapter"),
    ):
        lines = to_html(table).split("<tr")[1:]
        widths = set()
        for line in lines:
            cells = Reader("<tr" + line[: line.index("</tr>") + 5]).found[1:]
            widths.add(sum(int(a.get("colspan", 1)) for tag, a, _ in cells if tag in ("td", "th")))
        assert len(widths) == 1


# LaTeX of tables compiles, with a real compiler, whatever names and kinds of rows they have.


CLASSES = {
    "article": r"\documentclass[twocolumn]{article}",
    "cvpr": r"\documentclass[10pt,twocolumn,letterpaper]{article}\usepackage{times}"
    r"\setlength{\textwidth}{6.875in}\setlength{\columnsep}{0.3125in}",
    "ieee": r"\documentclass[conference]{IEEEtran}",
}


class Compiled(NamedTuple):
    """What the compiler said, and the sizes of type in points that the PDF asks for."""

    said: str
    sizes: set[float]


@pytest.fixture
def compiled(tmp_path):
    """A function that compiles tables into a page; skips where there is no compiler."""
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("no pdflatex here")

    def compile_(*tables, kind="article"):
        begin = "\\usepackage{booktabs}\\pagestyle{empty}\\begin{document}\n"
        text = "\\pdfcompresslevel=0\\pdfobjcompresslevel=0" + CLASSES[kind] + begin
        text += "\\clearpage\n".join(map(to_latex, tables)) + "\\end{document}\n"
        (tmp_path / "t.tex").write_text(text, encoding="utf-8")
        command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, errors="replace"
        )
        if "IEEEtran.cls' not found" in done.stdout:
            pytest.skip("no IEEEtran here")
        assert done.returncode == 0, done.stdout[-2000:]
        asked = re.findall(rb"/F\d+ ([\d.]+) Tf", (tmp_path / "t.pdf").read_bytes())
        return Compiled(done.stdout, {round(float(size) * 72.27 / 72, 1) for size in asked})

    return compile_


@pytest.mark.latex
def test_tables_of_records_compile(compiled):
    counts = CellCounts(50, 47, ["vpt", "lora", "ssf"])
    compiled(build_table(three_methods(), cells=counts), nasty())


# Heads without symbols, whose indices are smaller than their letters in any paper.
HEADS = {"s_measure": "S", "e_mean": "E", "weighted_f": "wF", "mae": "MAE"}
EIGHT = ["method_parameters", "decoder_parameters", "share_of_backbone", *HEADS, "forward_flops"]
LOOKS = {
    "eight": TableStyle(columns=EIGHT, rename=HEADS, label="tab:a"),
    "small": TableStyle(columns=EIGHT, rename=HEADS, sd="small", percent=True, digits=1),
    "few": TableStyle(columns=["s_measure", "mae"], rename=HEADS, sd="none", env="table"),
    "page": TableStyle(columns=["n", *HEADS], rename=HEADS, env="table*", notes="full"),
}


@pytest.mark.latex
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("look", LOOKS)
def test_up_to_eight_columns_are_read_in_seven_points_and_stay_within_the_line(
    compiled, kind, look
):
    records = [record(name, seed) for name in ("lora", "vpt") for seed in (0, 1)]
    table = build_table(records, style=LOOKS[look])
    assert latex_notes(table) == []
    found = compiled(table, kind=kind)
    assert "Overfull \\hbox" not in found.said
    # IEEEtran sets the small capitals of its own captions in 6.4 points.
    assert {size for size in found.sizes if size < 7} <= ({6.4} if kind == "ieee" else set())


@pytest.mark.latex
def test_what_is_wider_than_a_page_is_said_and_not_scaled(compiled):
    wide = build_table([of_two(), of_two("vpt")], group="task", columns=["all"])
    (note,) = latex_notes(wide)
    assert "choose columns by --columns" in note
    assert f"% {note}" in to_latex(wide)
    assert "resizebox" not in to_latex(wide)
    compiled(wide, build_table(BOTH, group="all", columns=["all"]))


@pytest.mark.latex
def test_published_rows_and_verdicts_compile(compiled, tmp_path):
    judged_ = judged(three(tmp_path), group="task")
    compiled(build_table([own(), own("vpt")], published=True), judged_)


@pytest.mark.latex
def test_every_published_table_compiles(compiled):
    compiled(*(build_table([], source=name) for name in load_published().tables))


@pytest.mark.parametrize("title", ["[x] net", "*net*"])
def test_a_name_after_the_end_of_a_row_is_no_argument(title):
    records = [of_two(method={"name": "lora", "title": title}), of_two("vpt")]
    assert f"{{{title[0]}}}{title[1:]} & " in to_latex(build_table(records))


def test_signs_that_pdflatex_lacks_are_mathematics_or_said():
    title = "\u03b1-net \u2212 ?` \u6df1"
    table = build_table([record(method={"name": "lora", "title": title})])
    text = to_latex(table)
    assert "$\\alpha$-net $-$ ?{}`" in text
    assert latex_notes(table) == ["pdflatex may lack \u6df1; use lualatex, or --rename"]


def test_a_label_without_an_environment_is_said():
    table = build_table([record()], style=TableStyle(env="none", label="tab:a"))
    assert "% --label tab:a is not printed, for --env none has no caption" in to_latex(table)
