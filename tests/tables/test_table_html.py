"""Tables as HTML: whole, escaped, without scripts, with values and classes to sort and style by."""

from html.parser import HTMLParser

import pytest
from records import record
from test_table import nasty, three_methods

from lpmoe_bench.tables.formats import format_table
from lpmoe_bench.tables.html import to_html
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
    assert cells == [({"class": "best", "data-value": repr((0.75 + 0.76) / 2)}, "0.755 ± 0.007")]
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
