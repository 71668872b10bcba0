"""Verdicts of the report: those of `table --against` and `compare`; all pairs without any; one
answer over test sets."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest
from report_records import IMAGES, report, stored
from typer.testing import CliRunner

from lpmoe_bench.analysis.comparison import choose_records, compare_records
from lpmoe_bench.analysis.groups import GroupSource
from lpmoe_bench.analysis.pairing import Rules
from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.facts import parse_margins
from lpmoe_bench.records.store import find_records
from lpmoe_bench.report import forest, plots
from lpmoe_bench.report.contents import Selection, gather_contents
from lpmoe_bench.report.verdicts import (
    answer_tasks,
    judge_tables,
    matrix_facts,
    pair_all,
    verdict_facts,
)
from lpmoe_bench.tables.table import build_table
from lpmoe_bench.tables.verdicts import with_verdicts

SHIFTS = {"lora": 0.03, "vpt": 0.004, "decoder_only": 0.0}


def three(root, seeds=range(3), **changes):
    for name, shift in SHIFTS.items():
        for seed in seeds:
            stored(root, name, seed, shift, **changes)
    return root


def two_sets(root, seeds=range(3)):
    """Three methods on two test sets, of which one method lacks the second."""
    three(root / "a", seeds)
    for name, shift in (("lora", 0.02), ("decoder_only", 0.0)):
        for seed in seeds:
            stored(root / "b", name, seed, shift, test="Other")
    return root


def contents(root, **choice):
    return gather_contents(find_records([root]), Selection(**choice)).tables


def judged(root, against=None, rules=None, **choice):
    return judge_tables(contents(root, **choice), against, rules or Rules())


def verdicts(one):
    """{method: comparison} of a judged table."""
    return {row.row.method: result for row, _, result in one.rows()}


def section(text, head):
    """What stands in the first part of a page under a heading, as text with its tags."""
    return text.split(f"<h3>{head}</h3>")[1].split("</details>")[0]


@pytest.mark.parametrize("kind", ["seeded", "two", "single", "maps"])
@pytest.mark.parametrize("metric", ["s_measure", "mae"])
def test_table_report_and_compare_give_one_answer_on_the_same_records(tmp_path, kind, metric):
    seeds = {"seeded": range(4), "two": range(2)}.get(kind, range(1))
    three(tmp_path, seeds, **({"kind": "score"} if kind == "maps" else {}))
    for path in tmp_path.glob("*/run.json") if kind == "maps" else ():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": None}))
    found = find_records([tmp_path])
    ((one,),) = judged(tmp_path, metric=metric)
    results = verdicts(one)
    assert set(results) == {"lora", "vpt"}
    sides = {name: choose_records(name, found) for name in SHIFTS}
    for name, result in results.items():
        both = sides[name], sides["decoder_only"]
        (line,) = compare_records(*both, [metric], among=found.stored).lines
        assert line.result == result
    table = build_table(found.records, metrics=[metric])
    (group,) = with_verdicts(table, found.stored, "decoder_only", Rules()).groups
    cells = {row.method: cell.verdict for row in group.rows for cell in row.cells if cell.verdict}
    assert cells == results
    assert [line for line in group.footer if line in one.lines] == list(one.lines)
    assert (results["lora"].verdict == "better") == (kind in ("seeded", "maps"))


def test_margin_groups_family_and_looks_are_those_of_the_rules(tmp_path):
    two_sets(tmp_path, range(4))
    file = tmp_path / "groups.csv"
    file.write_text("".join(f"img{n:02},g{n // 4}\n" for n in range(IMAGES)))
    found = find_records([tmp_path])
    sides = [choose_records(name, found) for name in ("lora", "decoder_only")]
    for options in (
        {"margins": parse_margins(["0.5"])},
        {"groups": GroupSource(file)},
        {"family": "table"},
        {"looks": 3},
    ):
        rules = Rules(**options)
        ((one, other),) = judged(tmp_path, None, rules)
        lines = compare_records(*sides, ["s_measure"], rules, among=found.stored).lines
        assert [verdicts(own)["lora"] for own in (one, other)] == [line.result for line in lines]
        usual = [verdicts(own)["lora"] for own in judged(tmp_path)[0]]
        assert [line.result for line in lines] != usual
    assert verdicts(judged(tmp_path, None, Rules(family="table"))[0][0])["vpt"].family == 3


def test_the_reference_is_named_or_decoder_only(tmp_path):
    three(tmp_path)
    ((one,),) = judged(tmp_path, "VPT")
    assert (one.reference.label, set(verdicts(one))) == ("VPT", {"lora", "decoder_only"})
    with pytest.raises(UsageError, match="unknown row to compare with 'vtp'; did you mean 'vpt'"):
        judged(tmp_path, "vtp")
    other = {"name": "decoder_only", "title": "Decoder only", "options": {"depth": 2}}
    stored(tmp_path, "decoder_only", 0, method=other, fingerprint="e" * 64)
    ((one,),) = judged(tmp_path)
    assert (one.reference, one.rows()) == (None, [])
    assert one.reason.startswith("No verdicts, for several rows are decoder_only; name the row")
    with pytest.raises(UsageError, match="decoder_only means several rows"):
        judged(tmp_path, "decoder_only")


def test_a_table_without_the_reference_says_how_to_name_one(tmp_path):
    stored(tmp_path / "runs", "lora")
    stored(tmp_path / "runs", "vpt", test="Other")
    text = report(tmp_path / "runs", tmp_path / "page")
    assert text.count("No verdicts, for no row is decoder_only; name the row") == 2
    assert "lpmoe-bench report --against NAME" in text
    text = report(tmp_path / "runs", tmp_path / "page", "--against", "lora")
    assert "No row lora here, so no verdicts." in text
    done = CliRunner().invoke(app, ["report", str(tmp_path / "runs"), "--against", "lroa"])
    assert "did you mean 'lora'" in str(done.exception)


def test_a_line_has_all_that_a_reader_needs(tmp_path):
    three(tmp_path / "runs", range(4))
    place = tmp_path / "page"
    text = section(report(tmp_path / "runs", place), "Who is better, and how sure")
    ((one,),) = judged(tmp_path / "runs")
    result = verdicts(one)["lora"]
    row = re.search(r"<tr[^>]*><th scope=\"row\">LoRA</th>.*?</tr>", text, re.S)
    assert row
    cells = [
        " ".join(re.sub(r"<[^>]*>", "", cell).split())
        for cell in re.findall(r"<td[^>]*>(.*?)</td>", row[0], re.S)
    ]
    assert cells == [
        f"{result.spread.mean:+.3f}",
        f"{result.low:+.3f} to {result.high:+.3f}",
        f"{result.p:.2g}",
        "0.005",
        "▲ better",
        "-",
    ]
    assert "Of 2 rows less Decoder only, 1 better, 0 worse" in text
    assert "would settle it" in text
    for line in one.lines:
        assert line in unescape(text)
    assert text.count("<svg") == 1
    wide = section(
        report(tmp_path / "runs", place, "--margin", "0.5"), "Who is better, and how sure"
    )
    assert "0 better, 0 worse, 2 equal" in wide


def test_the_picture_marks_rows_and_points_at_those_beyond_it(tmp_path):
    for name, shift in (("lora", -0.3), ("vpt", 0.004), ("decoder_only", 0.0)):
        for seed in range(3):
            stored(tmp_path, name, seed, shift)
    near = {"name": "near", "title": "<Near>"}
    for seed in range(3):
        stored(tmp_path, "vpt", seed, 0.002, method=near, fingerprint="f" * 64)
    ((one,),) = judged(tmp_path)
    with plots.plot_style():
        plot = forest.draw_verdicts(one)
        svg = str(plots.to_svg(plot, "key"))
    assert re.findall(r'data-name="([^"]*)"', svg).count("VPT vpt") >= 3  # bar, dot, name
    assert {"VPT vpt", "LoRA lora", "&lt;Near&gt; near"} == set(re.findall(r'name="([^"]*)"', svg))
    texts = re.findall(r"<text[^>]*>(?:<title>[^<]*</title>)?([^<]*)</text>", svg)
    lora = verdicts(one)["lora"]
    assert f"← {lora.spread.mean:+.3f}" in texts
    assert sum(text.startswith("←") for text in texts) == 1
    assert "▼ worse" in texts


def test_the_matrix_holds_differences_and_no_verdicts(tmp_path):
    three(tmp_path / "runs", range(4))
    table = contents(tmp_path / "runs")[0]
    matrix = pair_all(table, GroupSource())
    names = [row.row.method for row in matrix.rows]
    assert names == ["lora", "vpt", "decoder_only"]
    found = find_records([tmp_path / "runs"])
    shown = matrix_facts(table, matrix)["rows"]
    for (a, b), spread in matrix.pairs.items():
        sides = (choose_records(names[place], found) for place in (a, b))
        (line,) = compare_records(*sides, ["s_measure"]).lines
        assert spread == line.result.spread
        low, high = line.result.low, line.result.high
        one, other = shown[a][1][b], shown[b][1][a]
        assert one["interval"] == f"{low:+.3f} to {high:+.3f}"
        assert other["interval"] == f"{-high:+.3f} to {-low:+.3f}"
        assert other["text"] == f"{-spread.mean:+.3f}"
        assert one["kind"] == other["kind"] == ("apart" if low > 0 or high < 0 else "near")
    assert {cell["kind"] for _, cells in shown for cell in cells} == {"apart", "near", "none"}
    text = section(report(tmp_path / "runs", tmp_path / "page"), "Differences of every pair")
    assert "these are no verdicts" in text
    assert not re.search(r"better|worse|equal|inconclusive|[▲▼]", text)


def test_rows_of_one_seed_and_without_rows_are_not_paired(tmp_path):
    for seed in range(2):
        stored(tmp_path, "lora", seed)
    stored(tmp_path, "vpt", 0)
    assert pair_all(contents(tmp_path)[0], GroupSource()).pairs == {}
    stored(tmp_path, "vpt", 1)
    stored(tmp_path, "decoder_only", 7)
    matrix = pair_all(contents(tmp_path)[0], GroupSource())
    assert set(matrix.pairs) == {(0, 1)}
    assert "1 row of one seed or none: not compared" in matrix.notes


def test_one_answer_over_test_sets_is_that_of_compare(tmp_path):
    two_sets(tmp_path)
    (found,) = answer_tasks(judged(tmp_path), Rules())
    assert [table.test for table in found.tables] == ["CAMO", "Other"]
    (row,) = found.rows  # VPT stands on one set alone
    records = find_records([tmp_path])
    sides = [choose_records(name, records) for name in ("lora", "decoder_only")]
    (answer,) = compare_records(*sides, ["s_measure"], over="task").tasks
    assert row.answer == answer
    assert [result.family for result in row.results] == [2, 2]
    assert answer_tasks(judged(tmp_path / "a"), Rules()) == []


def test_one_answer_is_drawn_and_stands_in_numbers(tmp_path):
    two_sets(tmp_path / "runs")
    for seed in range(3):
        stored(tmp_path / "runs" / "b", "vpt", seed, 0.001, test="Other")
    text = report(tmp_path / "runs", tmp_path / "page")
    part = text.split('<section id="over-1"')[1].split("</section>")[0]
    assert "cod · over 2 test sets</h2>" in part
    assert re.findall(r'<figure data-name="([^"]*)"', part) == ["LoRA lora", "VPT vpt"]
    (found,) = answer_tasks(judged(tmp_path / "runs"), Rules())
    one = found.rows[0].answer
    drawn, table = part.split("<table")
    assert (
        f"better with chance {one.better:.3f}, by more than the margin {one.by_margin:.3f}" in drawn
    )
    for text in ("CAMO", "Other", "mean over sets"):
        assert drawn.count(f">{text}</text>") == 2
    assert f"mean {one.mean:+.3f}" in drawn
    row = table.split("LoRA</th>")[1].split("</tr>")[0]
    for number in (one.better, one.by_margin, one.equal):
        assert f">{number:.3f}</td>" in row
    assert f"{one.low:+.3f} to {one.high:+.3f}" in row
    assert "after Holm over all 4 comparisons here" in table


def test_one_seed_has_an_answer_about_the_very_models_which_is_said(tmp_path):
    two_sets(tmp_path / "runs", range(1))
    text = report(tmp_path / "runs", tmp_path / "page")
    part = text.split('<section id="over-1"')[1].split("</section>")[0]
    assert (
        "One seed says nothing of others, so that these are answers about the very models: LoRA."
        in part
    )
    (facts,) = (verdict_facts(one) for one in judged(tmp_path / "runs")[0][:1])
    assert facts["found"] == {"inconclusive": 2}
