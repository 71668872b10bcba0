"""The README keeps its word: its file tree, its commands, its numbers."""

import re

from readme_tree import ROOT, tree

from lpmoe_bench.record import find_records
from lpmoe_bench.tables.formats import format_table
from lpmoe_bench.tables.speeds import read_speeds
from lpmoe_bench.tables.table import build_table

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tree_is_that_of_the_code():
    assert tree() in README, "run python tests/readme_tree.py and paste its output"


def readme_table():
    records = find_records([ROOT / "results" / "records"]).records
    table = build_table(
        records,
        test_set="camo/test",
        sort="s_measure",
        speeds=read_speeds(ROOT / "results" / "speed" / "cpu.json"),
        across=["decoder"],
    )
    return format_table(table, "markdown").strip()


def results_page():
    records = find_records([ROOT / "results" / "records"]).records
    table = build_table(records, metrics=["all"], sort="s_measure", across=["decoder"])
    title = "# Results\n\nEvery metric of the published records.\n\n"
    return title + format_table(table, "markdown")


def test_results_are_those_of_the_published_records():
    assert readme_table() in README, "run the command below the table and paste its output"


def test_the_page_of_results_is_that_of_the_published_records():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == results_page(), "run lpmoe-bench table results/records --metrics all ..."


def test_make_targets_exist():
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"run", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
