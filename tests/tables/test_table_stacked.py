"""Stacked tables: all test sets one below the other, each row with its own protocol's scores."""

import csv
import io

import pytest
from records import content, record

from lpmoe_bench.errors import UsageError
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.formats import to_csv, to_latex, to_markdown
from lpmoe_bench.tables.html import to_html
from lpmoe_bench.tables.table import build_table


def shadow(name="lora", seed=0, ber=0.2):
    """A record of another task: other test set, training set, protocol and loss; BER alone."""
    made = content(name, seed, task="shadow", train={"loss": "balanced_bce"})
    tests = [made["data"]["tests"][0] | {"label": "SBU", "digest": "77" * 32}]
    made["data"] = {"train": made["data"]["train"] | {"label": "SBU-train"}, "tests": tests}
    made["protocol"] = {"name": "shadow_sbu", "version": 1, "hash": "77" * 32}
    return Record.model_validate(
        made | {"scores": {"SBU": {"ber_dataset": ber}}, "counts": {"SBU": {"images": 90}}}
    )


BOTH = [record("vpt"), record("lora"), shadow("vpt", ber=0.1), shadow("lora")]


def stacked(*records, **options):
    (group,) = build_table(records or BOTH, group="all", **options).groups
    return group


def test_each_row_has_the_scores_of_its_own_protocol():
    group = stacked(metrics=["all"])
    keys = [column.key for column in group.columns if column.is_score]
    assert keys[-1] == "ber_dataset"
    assert keys.index("s_measure") < keys.index("mae")
    s, ber = (
        [
            cells[[c.key for c in group.columns].index(key)]
            for cells in (r.cells for r in group.rows)
        ]
        for key in ("s_measure", "ber_dataset")
    )
    assert [cell.absent for cell in s] == [False, False, True, True]
    assert [cell.absent for cell in ber] == [True, True, False, False]
    assert [cell.mark for cell in ber] == ["", "", "best", "second"]  # ranks are within a band
    assert [(band.title, band.rows) for band in group.bands] == [
        ("cod: CAMO", 2),
        ("shadow: SBU", 2),
    ]


def test_what_is_one_tasks_own_is_said_of_it():
    group = stacked()
    assert group.caption.startswith("2 test sets of cod, shadow. Backbone small, ")
    assert "loss" not in group.caption
    assert any(
        line.startswith("SBU (")
        and "trained on SBU-train (" in line
        and "loss balanced_bce" in line
        for line in group.footer
    )
    assert sum("Best bold" in line for line in group.footer) == 1
    assert any(line.startswith("SBU: Protocol shadow_sbu v1") for line in group.footer)


def test_other_backbones_and_budgets_stay_apart():
    few = content("lora", 0)
    few["config"]["train"]["limit_train"] = 50
    table = build_table([*BOTH, Record.model_validate(few)], group="all")
    assert sorted(len(group.rows) for group in table.groups) == [1, 4]
    assert [bool(group.bands) for group in table.groups] in ([True, False], [False, True])


def test_bands_in_every_format():
    table = build_table(BOTH, group="all", metrics=None)
    markdown = to_markdown(table).splitlines()
    width = markdown[2].count("|")
    assert f"| **shadow: SBU** {'|  ' * (width - 2)}|" in markdown
    latex = to_latex(table)
    columns = len(table.groups[0].columns) + 1
    assert rf"\multicolumn{{{columns}}}{{l}}{{\textit{{cod: CAMO}}}} \\" in latex
    assert latex.count(r"\addlinespace") == 1
    html = to_html(table)
    assert html.count('<tr class="band">') == 2
    assert html.count("<tbody>") == html.count("</tbody>") == 2


def test_csv_is_that_of_the_parts():
    lines = list(csv.DictReader(io.StringIO(to_csv(build_table(BOTH, group="all")))))
    assert [(line["test_set"], line["method"]) for line in lines] == [
        ("CAMO", "vpt"), ("CAMO", "lora"), ("SBU", "vpt"), ("SBU", "lora")
    ]  # fmt: skip
    assert to_csv(build_table(BOTH, group="all")) == to_csv(build_table(BOTH))


def test_sorting_skips_what_lacks_the_column():
    group = stacked(sort="ber_dataset")
    assert [row.label for row in group.rows[2:]] == ["VPT", "LoRA"]
    with pytest.raises(UsageError, match="unknown column to sort by 'dice'"):
        stacked(sort="dice")


def test_wanted_metrics_are_those_that_a_test_set_has():
    group = stacked(metrics=["mae", "ber_dataset"])
    assert [column.key for column in group.columns if column.is_score] == ["mae", "ber_dataset"]
    with pytest.raises(UsageError, match="unknown metric of these test sets 'iou'"):
        stacked(metrics=["mae", "iou"])
    only = stacked(metrics=["mae"])  # a test set without any keeps its protocol's
    assert [cell.absent for cell in only.rows[2].cells[-1:]] == [False]


def test_one_metric_is_one_column_in_percent_where_any_protocol_has_it_so():
    from lpmoe_bench.metrics.protocols import PROTOCOLS

    skin, leaf = PROTOCOLS["skin_isic2017"], PROTOCOLS["conv_lora"]
    assert "dice" in leaf.percent
    assert "dice" not in skin.percent
    made = [
        record(task=task, protocol={"name": name, "version": 1, "hash": 64 * name[0]},
               scores={"dice": value})
        for task, name, value in (("skin", skin.name, 0.9), ("leaf", leaf.name, 0.6))
    ]  # fmt: skip
    group = stacked(*made)
    (dice,) = [column for column in group.columns if column.key == "dice"]
    assert dice.scale == 100
    shown = to_markdown(build_table(made, group="all"))
    assert "| 90.00 |" in shown
    assert "| 60.00 |" in shown
