"""The README keeps its word: its file tree, its commands, its numbers."""

import re

import pytest
from readme_tables import BLOCKS, block, framed, results_page
from readme_tree import ROOT, tree

README = (ROOT / "README.md").read_text(encoding="utf-8")
RENEW = "run python tests/readme_tables.py"


def test_tree_is_that_of_the_code():
    assert tree() in README, RENEW


@pytest.mark.parametrize("name", BLOCKS)
def test_tables_are_those_of_the_published_records(name):
    assert framed(name, f"\n\n{block(name)}\n\n") in README, RENEW


def test_the_page_of_results_is_that_of_the_published_records():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == results_page(), RENEW


def test_make_targets_exist():
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"run", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
