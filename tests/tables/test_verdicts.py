"""Verdicts in tables: each row against a reference, Holm over each family, nothing hidden."""

import csv
import io
import itertools
import re

import pytest
from table_samples import judged, stored, three
from typer.testing import CliRunner

from lpmoe_bench.analysis.comparison import compare_records
from lpmoe_bench.analysis.pairing import Rules
from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import UsageError
from lpmoe_bench.tables.formats import to_csv, to_html, to_latex, to_markdown
from lpmoe_bench.tables.parts import CellCounts
from lpmoe_bench.tables.style import TableStyle

SETS = ("CAMO", "Other")


def verdicts(group):
    """{(label, column): verdict} of one group."""
    return {
        (row.label, index): cell.verdict.verdict
        for row in group.rows
        for index, cell in enumerate(row.cells)
        if cell.verdict
    }


def test_rows_are_better_worse_or_equal(tmp_path):
    near = {"name": "lora", "title": "LoRA (same)"}
    found = three(tmp_path) + [
        stored(tmp_path, seed=seed, fingerprint="e" * 64, method=near) for seed in (0, 1, 2)
    ]
    group = judged(found, "LoRA", margin=0.02).groups[0]
    assert [column.key for column in group.columns][3:] == [
        *("s_measure", "s_measure_against", "mae")
    ]
    assert verdicts(group) == {
        ("VPT", 4): "better",
        ("Decoder only", 4): "worse",
        ("LoRA (same)", 4): "equal",
    }
    (said,) = [line for line in group.footer if line.startswith("Verdicts are of row less LoRA")]
    assert "after Holm over 3 methods on a test set" in said
    assert said.endswith("put it within ±0.02.")
    assert any(line.startswith("Differences from 0.0") for line in group.footer)
    text = to_markdown(judged(found, "LoRA", margin=0.02))
    assert "| vs LoRA |" in text
    assert "| better (+0.05" in text
    assert "| worse (-0.05" in text


def test_holm_runs_over_the_rows_of_a_test_set_or_over_the_whole_table(tmp_path):
    found = three(tmp_path)
    alone = compare_records(found[3:6], found[:3], ["s_measure"], None, found)
    (group,) = judged(found, group="task").groups
    assert [(span.title, span.count) for span in group.spans] == [
        *(("", 3), ("CAMO", 3), ("Other", 3))
    ]
    assert set(verdicts(group).values()) == {"better", "worse"}
    row = next(row for row in group.rows if row.label == "VPT")
    wide = row.cells[4].verdict
    assert wide == alone.lines[0].result
    (whole,) = judged(found, group="task", rules=Rules(family="table")).groups
    row = next(row for row in whole.rows if row.label == "VPT")
    assert (wide.family, row.cells[4].verdict.family) == (2, 4)
    assert row.cells[4].verdict.p > wide.p
    assert any("after Holm over 4 comparisons judged together" in line for line in whole.footer)
    assert "better" in to_latex(judged(found, group="task"))
    html = to_html(judged(found, group="task"))
    assert '<td class="better" data-value="' in html
    assert 'title="95 % interval +0.0' in html
    lines = list(csv.DictReader(io.StringIO(to_csv(judged(found, group="task")))))
    assert len(lines) == 6
    line = next(one for one in lines if (one["method"], one["test_set"]) == ("vpt", "Other"))
    assert line["s_measure_against_verdict"] == "better"
    assert float(line["s_measure_against_low"]) < float(line["s_measure_against"])
    reference = next(one for one in lines if one["method"] == "lora")
    assert reference["s_measure_against"] == ""


def test_a_family_of_a_table_is_the_same_however_test_sets_are_printed(tmp_path):
    found, rules = three(tmp_path), Rules(family="table")
    apart = judged(found, rules=rules).groups
    (wide,) = judged(found, group="task", rules=rules).groups

    def ps(groups):
        cells = (cell.verdict for group in groups for row in group.rows for cell in row.cells)
        return sorted((one.family, one.p) for one in cells if one)

    assert len(apart) == 2
    assert ps(apart) == ps([wide])
    assert ps(apart)[0][0] == 4


def test_a_margin_is_said_in_the_unit_of_the_table(tmp_path):
    style = TableStyle().changed(percent=True)
    (said,) = (
        line
        for line in judged(three(tmp_path), margin=0.02, style=style).groups[0].footer
        if line.startswith("Verdicts are of")
    )
    assert said.endswith("put it within ±2.")


def test_looks_count_in_what_a_table_resolves(tmp_path):
    found = three(tmp_path)
    once, often = (
        next(
            float(re.findall(r"0\.\d+", line)[0])
            for line in judged(found, rules=Rules(looks=looks)).groups[0].footer
            if line.startswith("Differences from")
        )
        for looks in (1, 50)
    )
    assert often > once


def test_one_seed_is_inconclusive_and_resolves_nothing(tmp_path):
    group = judged(three(tmp_path, seeds=(0,))).groups[0]
    assert set(verdicts(group).values()) == {"inconclusive"}
    assert not [line for line in group.footer if line.startswith("Differences from")]


def test_two_seeds_give_intervals_and_no_verdict(tmp_path):
    group = judged(three(tmp_path, seeds=(0, 1))).groups[0]
    assert set(verdicts(group).values()) == {"inconclusive"}
    assert "Two seeds give intervals and no verdict: that takes 3." in group.footer


def test_what_cannot_be_judged_is_said(tmp_path):
    found = [
        *three(tmp_path),
        *(
            stored(
                tmp_path,
                "lora",
                seed,
                images=5,
                fingerprint="f" * 64,
                method={"name": "x", "title": "Few"},
            )
            for seed in (0, 1)
        ),
        stored(tmp_path, "lora", 7, fingerprint="9" * 64, method={"name": "y", "title": "Seven"}),
    ]
    group = judged(found).groups[0]
    assert {label for label, _ in verdicts(group)} == {"VPT", "Decoder only"}
    below = " ".join(group.footer)
    assert "Few is not judged on CAMO: s_measure on CAMO has rows of 5 images against 8" in below
    assert "Seven is not judged on CAMO: the two have no seed in common" in below


def test_test_sets_of_other_records_are_found(tmp_path):
    """An evaluation is a record of its own: the wide table joins both in one row."""
    found = []
    for name, shift in (("lora", 0.0), ("vpt", 0.05)):
        for seed in (0, 1, 2):
            found.append(stored(tmp_path, name, seed, shift, sets=("CAMO",)))
            found.append(stored(tmp_path, name, seed, shift, sets=("Other",)))
    (group,) = judged(found, group="task").groups
    assert verdicts(group) == {("VPT", 4): "better", ("VPT", 7): "better"}


def test_names_of_the_reference(tmp_path):
    other = {"name": "lora", "title": "LoRA", "options": {"rank": 4}}
    found = three(tmp_path, seeds=(0, 1)) + [
        stored(tmp_path, seed=seed, fingerprint="d" * 64, method=other) for seed in (0, 1)
    ]
    with pytest.raises(UsageError, match=r"lora means several rows \(.*\); name one by its label"):
        judged(found)
    assert judged(found, "LoRA (rank=4)").groups[0].columns[4].label == "vs LoRA (rank=4)"
    with pytest.raises(UsageError, match="unknown row to compare with 'vtp'; did you mean 'vpt'"):
        judged(found, "vtp")


def test_tables_without_the_reference_say_so(tmp_path):
    found = [*three(tmp_path, seeds=(0, 1)), stored(tmp_path, "vpt", 5, task="polyp")]
    table = judged(found)
    assert [bool(verdicts(group)) for group in table.groups] == [True, True, False, False]
    assert "no row lora on CAMO, so no verdicts there" in table.notes


def test_published_rows_are_not_judged(tmp_path):
    found = [
        stored(tmp_path, name, seed, sets=("camo/test",))
        for name in ("lora", "vpt")
        for seed in (0, 1)
    ]
    (group,) = judged(found, published=True).groups
    assert any(row.origin for row in group.rows)
    assert {label for label, _ in verdicts(group)} == {"VPT"}


def test_the_command(tmp_path):
    three(tmp_path)
    arguments = ["table", str(tmp_path), "--against", "lora", "--group", "task", "--margin", "0.01"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "CAMO: vs LoRA" in result.stdout
    assert "within ±0.01" in result.stdout


def test_maps_of_no_seed_are_judged_as_they_are_which_is_said(tmp_path):
    maps = stored(
        tmp_path, "lora", None, -0.3, kind="score", backbone=None, decoder=None, parameters=None,
        fingerprint="e" * 64, method={"name": "Maps", "title": "Maps"},
    )  # fmt: skip
    group = judged([*three(tmp_path, seeds=(0,)), maps]).groups[0]
    assert {label: verdict for (label, _), verdict in verdicts(group).items()} == {
        **{"Decoder only": "inconclusive", "VPT": "inconclusive"},
        "Maps": "worse",
    }
    (said,) = [line for line in group.footer if "Maps of no known seed" in line]
    assert said.endswith(": Maps.")
    assert not any(
        "Maps of no known seed" in line for line in judged(three(tmp_path)).groups[0].footer
    )


def test_stacked_test_sets_are_judged_each_by_itself(tmp_path):
    found = three(tmp_path, sets=("CAMO", "Other"))
    speed = CellCounts(9, 8, ["vpt"])
    (group,) = judged(found, group="all", cells=speed).groups
    assert [band.count for band in group.bands] == [3, 3]
    alone = judged(found, cells=speed).groups
    assert verdicts(group) == {
        key: verdict for part in alone for key, verdict in verdicts(part).items()
    }
    assert len([cell for row in group.rows for cell in row.cells if cell.verdict]) == 4
    assert sum("Holm over 2 methods" in line for line in group.footer) == 1
    (whole,) = judged(found, group="all", rules=Rules(family="table")).groups
    assert {cell.verdict.family for row in whole.rows for cell in row.cells if cell.verdict} == {4}
    assert sum("8/9 cells" in line for line in group.footer) == 1


def test_what_a_wide_table_resolves_is_what_its_test_sets_do(tmp_path):
    found = three(tmp_path)

    def resolved(**options):
        lines = [line for group in judged(found, **options).groups for line in group.footer]
        return [
            [float(number) for number in re.findall(r"0\.\d+", line)]
            for line in lines
            if line.startswith("Differences from")
        ]

    (wide,), single = resolved(group="task"), [*itertools.chain(*resolved())]
    assert (wide[0], wide[-1]) == (min(single), max(single))
    ((first, *_),) = resolved(group="task", rules=Rules(family="table"))
    assert first > wide[0]
