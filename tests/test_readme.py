"""The README keeps its word: its size, its folders, its make targets, its numbers."""

import re

import pytest
from written_tables import FILES, ROOT, TABLE, renewed

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_tables_and_folders_are_those_of_the_records_and_the_code(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text == renewed(text), "run make tables"


def test_a_table_that_is_old_is_noticed():
    old = re.sub(r"\| LoRA \| 3 \| 0\.147", "| LoRA | 3 | 0.148", README)
    assert old != README
    assert renewed(old) == README
    assert renewed(README.replace("method_zoo/parts/ ", "method_zoo/bits/  ")) == README


def test_there_is_one_table_of_seven_rows():
    (table,) = TABLE.finditer(README)
    assert len([line for line in table[0].splitlines() if line.startswith("|")]) == 2 + 7


def test_it_is_read_in_minutes():
    assert len(README.encode()) <= 9 * 1024
    assert README.count("\n") <= 170


def test_make_targets_exist():
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"run", "test", "docs"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
