"""Outputs of the command line are as recorded: quick parts of guard.py, and that it can fail."""

import json

import guard
import pytest
from guard_texts import close, diff, html_cells, latex_cells, markdown_cells

SLOW = [pytest.param(p, marks=[pytest.mark.slow] * guard.PARTS[p].slow) for p in guard.PARTS]


@pytest.mark.parametrize("part", SLOW)
def test_outputs_are_as_recorded(part, tmp_path):
    lines, equal = guard.compare(part, tmp_path)
    assert equal, "\n".join(lines)


def test_every_part_was_recorded():
    assert {p.name for p in guard.GOLDEN.iterdir() if p.is_dir()} == set(guard.PARTS)


@pytest.mark.parametrize("other", [{}, {"cpu": "of somebody else"}])
def test_another_output_is_found(tmp_path, monkeypatch, other):
    made = {"one": "score 0.5\n", "two": "a,b\n1,2\n"}
    monkeypatch.setattr(guard, "GOLDEN", tmp_path)
    monkeypatch.setattr(guard, "make", lambda part, folder: (made, guard.Lab(folder)))
    (tmp_path / guard.MACHINE).write_text(json.dumps(guard.machine() | other))
    guard.record("csv", tmp_path)
    assert guard.compare("csv", tmp_path)[1]
    made["one"] = "score 0.50000000001\n"
    assert guard.compare("csv", tmp_path)[1] == bool(other)
    made |= {"one": "score 0.51\n", "three": ""}
    lines, equal = guard.compare("csv", tmp_path)
    assert not equal
    assert lines[0].endswith("not recorded: three")
    assert lines[-2:] == ["-score 0.5", "+score 0.51"]


def test_texts_are_close_where_only_fractions_differ_a_little():
    assert close("a 0.1 bits:12", "a 0.1000001 bits:34", 1e-3)
    assert not close("a 0.1", "a 0.2", 1e-3)
    assert not close("epoch 1", "epoch 2", 10)
    assert [line[:4] for line in diff("x" * 300 + "1", "x" * 300 + "2")][1:] == ["-...", "+..."]


def test_tables_are_read_as_cells():
    assert list(markdown_cells("T\n\n| a\\|b | **1** |\n")) == ["T", "a\\|b | **1**"]
    table = (
        "\\begin{table}\n\\caption{A \\& B}\n\\begin{tabular}{lr}\n\\toprule\na \\& b & 1 \\\\\n"
    )
    assert list(latex_cells(table + "\\bottomrule\n\\end{tabular}")) == [
        "caption: A \\& B",
        "a \\& b | 1",
    ]
    page = "<caption>A</caption><tr><th>a<b>c</b></th>\n<td class='best'>1</td></tr>"
    assert list(html_cells(page)) == ["A", "ac | [best] 1"]
