"""Verdicts of the report: those of `compare`, corrected over all pairs of a table."""

from __future__ import annotations

import json

from report_records import stored

from lpmoe_bench.analysis.comparison import choose_records, compare_records
from lpmoe_bench.analysis.significance import holm
from lpmoe_bench.records.store import find_records
from lpmoe_bench.report.contents import Selection, gather_contents
from lpmoe_bench.report.verdicts import judge_rows
from lpmoe_bench.tables.table import build_table
from lpmoe_bench.tables.verdicts import with_verdicts


def tables(root):
    return gather_contents(find_records([root]), Selection()).tables


def test_verdicts_are_those_of_compare_with_holm_over_all_pairs(tmp_path):
    for seed in range(4):
        stored(tmp_path, "lora", seed, 0.03)
        stored(tmp_path, "vpt", seed)
        stored(tmp_path, "decoder_only", seed, 0.002)
    found = find_records([tmp_path])
    verdicts = judge_rows(tables(tmp_path)[0])
    names = [row.row.records[0].method.name for row in verdicts.rows]
    assert names[0] == "lora"
    single = {}
    for (a, b), result in verdicts.pairs.items():
        own, other = (choose_records(names[place], found) for place in (a, b))
        (line,) = compare_records(own, other, ["s_measure"], 0.005).lines
        assert (result.low, result.high) == (line.result.low, line.result.high)
        single[a, b] = line.result.p
    assert [r.p for r in verdicts.pairs.values()] == holm(list(single.values()))
    assert verdicts.pairs[0, 1].verdict == "better"


def test_table_report_and_compare_give_one_answer_on_the_same_records(tmp_path):
    seeded, single, maps = (tmp_path / name for name in ("seeded", "single", "maps"))
    for name, shift in (("lora", 0.03), ("vpt", 0.0)):
        for seed in range(3):
            stored(seeded, name, seed, shift)
        stored(single, name, 0, shift)
        path = stored(maps, name, 0, shift, kind="score").folder / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": None}))
    for root, sure in ((seeded, True), (single, False), (maps, True)):
        found = find_records([root])
        a, b = (choose_records(name, found) for name in ("lora", "vpt"))
        (line,) = compare_records(a, b, ["s_measure"], 0.005).lines
        table = build_table([one.record for one in found.stored], metrics=["s_measure"])
        (group,) = with_verdicts(table, found.stored, "vpt", 0.005).groups
        (row,) = (row for row in group.rows if row.records[0].method.name == "lora")
        (judged,) = (cell.verdict for cell in row.cells if cell.verdict)
        assert judged == line.result
        assert (judged.verdict == "better") == sure
        verdicts = judge_rows(tables(root)[0], 0.005)
        # One seed says nothing of methods: what the others call inconclusive is no pair here.
        assert list(verdicts.pairs.values()) == ([line.result] if sure else [])


def test_rows_of_one_seed_and_without_rows_are_not_judged(tmp_path):
    for seed in range(2):
        stored(tmp_path, "lora", seed)
    stored(tmp_path, "vpt", 0)
    assert judge_rows(tables(tmp_path)[0]).pairs == {}
    stored(tmp_path, "vpt", 1)
    stored(tmp_path, "decoder_only", 7)
    verdicts = judge_rows(tables(tmp_path)[0])
    assert set(verdicts.pairs) == {(0, 1)}
    assert "1 row of one seed or none: not compared" in verdicts.notes
