"""Tables of several tasks: blocks one below the other, and tasks side by side."""

import csv
import io

import pytest
from sample_records import changed, content, record
from table_samples import BOTH, SETS, of_two

from lpmoe_bench.errors import UsageError
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.formats import to_csv, to_html, to_latex, to_markdown
from lpmoe_bench.tables.table import build_table


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
    assert [(band.title, band.count) for band in group.bands] == [
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


# Wide tables: test sets side by side for rows that share everything else, and no others.


def wide(*records, **options):
    (group,) = build_table(records, group="task", metrics=["s_measure", "mae"], **options).groups
    return group


def test_test_sets_stand_side_by_side():
    group = wide(of_two(), of_two("vpt", values=(0.9, 0.6)), columns=["peak_memory_bytes"])
    assert [(span.title, span.count) for span in group.spans] == [
        *(("", 3), ("CAMO", 2), ("Other", 2), ("", 1))
    ]
    assert [row.label for row in group.rows] == ["VPT", "LoRA"]
    assert [cell.mean for cell in group.rows[1].cells[3:7]] == [0.7, 0.1, 0.8, 0.1]
    assert [row.cells[3].mark for row in group.rows] == ["best", "second"]
    assert [row.cells[5].mark for row in group.rows] == ["second", "best"]
    assert group.rows[0].cells[-1].mean == 3 * 2**30
    assert "test sets CAMO (248 images; " in group.caption
    assert ", Other (248 images; " in group.caption
    assert group.footer[:2] == (
        "Protocol cod v1 (cdcdcdcd).",
        "Weights of small: abababab (saliency-tuned).",
    )


def test_formats_have_the_heads_of_test_sets():
    table = build_table([of_two(), of_two("vpt")], group="task", metrics=["s_measure", "mae"])
    latex, html = to_latex(table), to_html(table)
    assert r" &  &  &  & \multicolumn{2}{c}{CAMO} & \multicolumn{2}{c}{Other} \\" in latex
    assert r"\cmidrule(lr){5-6} \cmidrule(lr){7-8}" in latex
    assert latex.startswith("% needs \\usepackage{booktabs}\n")
    assert "| CAMO: S ↑ | CAMO: MAE ↓ | Other: S ↑ | Other: MAE ↓ |" in to_markdown(table)
    assert '<th scope="colgroup" colspan="2">Other</th>' in html
    seeds = build_table([of_two(), of_two(seed=1)], group="task", metrics=["s_measure", "mae"])
    assert r"\cmidrule(lr){6-7} \cmidrule(lr){8-9}" in to_latex(seeds)
    assert '<tr><td colspan="2"></td><td colspan="3"></td>' in to_html(seeds)


def test_csv_stays_long():
    records = [of_two(), of_two("vpt")]
    lines = list(csv.DictReader(io.StringIO(to_csv(build_table(records, group="task")))))
    assert [(line["test_set"], line["method"]) for line in lines] == [
        *(("CAMO", "vpt"), ("CAMO", "lora"), ("Other", "vpt"), ("Other", "lora"))
    ]
    assert to_csv(build_table(records, group="task")) == to_csv(build_table(records))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("task",), "polyp"),
        (("data", "train", "digest"), "33" * 32),
        (("protocol", "hash"), "33" * 32),
        (("backbone", "name"), "large"),
        (("backbone", "weights_sha256"), "33" * 32),
        (("decoder", "name"), "linear"),
        (("decoder", "options"), {"width": 32}),
        (("config", "size"), 512),
        (("config", "train", "limit_train"), 200),
        (("config", "train", "loss"), "bce"),
    ],
)
def test_what_differs_in_more_than_the_test_set_stays_apart(path, value):
    other = changed(path, value)
    scores = {"Other": other.scores["CAMO"]}
    tests = [other.data.tests[0].model_copy(update={"label": "Other"})]
    data = other.data.model_copy(update={"tests": tests})
    moved = other.model_copy(update={"scores": scores, "data": data})
    table = build_table([record("lora"), moved], group="task")
    assert [group.spans for group in table.groups] == [(), ()]
    assert [len(group.rows) for group in table.groups] == [1, 1]


def test_two_contents_of_one_test_set_are_never_joined_into_its_column():
    other = of_two("vpt")
    tests = [facts.model_copy(update={"digest": "9" * 64}) for facts in other.data.tests]
    other = other.model_copy(update={"data": other.data.model_copy(update={"tests": tests})})
    table = build_table([of_two(), other], group="task")
    shown = [[span.title for span in group.spans if span.title] for group in table.groups]
    assert shown == [["CAMO", "Other"], ["CAMO", "Other"]]
    assert [len(group.rows) for group in table.groups] == [1, 1]
    assert "test digest" in table.notes[0]


def test_gaps_are_said():
    missing = record("vpt", scores={"s_measure": 0.5, "mae": 0.2})
    digest = of_two().data.tests[0].digest
    tests = [missing.data.tests[0].model_copy(update={"digest": digest})]
    missing = missing.model_copy(
        update={"data": missing.data.model_copy(update={"tests": tests}), "counts": {}}
    )
    more = of_two(seed=1).model_copy(update={"scores": {"Other": {"s_measure": 0.9, "mae": 0.1}}})
    group = wide(of_two(), missing, more)
    assert "No record of Other: VPT." in group.footer
    assert "LoRA has 1 of its 2 seeds on CAMO." in group.footer
    cells = {row.label: row.cells for row in group.rows}
    assert not cells["VPT"][5].values
    assert cells["LoRA"][5].mean == pytest.approx(0.85)
    assert "CAMO: 2 records, seed 0. Best bold, second underlined." in group.footer


def test_maps_scored_on_each_set_are_one_row():
    plain = {"kind": "score", "backbone": None, "decoder": None, "parameters": None, "config": {}}
    method = {"name": "net", "title": "Net"}
    maps = []
    for label, print_ in zip(SETS, "ab", strict=True):
        one = of_two(method=method, fingerprint=print_ * 64, **plain)
        maps.append(one.model_copy(update={"scores": {label: one.scores[label]}}))
    half = maps[1].model_copy(update={"counts": {"Other": {"images": 200, "expected": 248}}})
    group = wide(of_two(), maps[0], half)
    assert [row.label for row in group.rows] == ["LoRA", "Net"]
    assert all(cell.values for cell in group.rows[1].cells[3:])
    assert "Net has 200 of 248 images of Other." in group.footer


def test_rows_are_sorted_by_the_first_test_set():
    records = [of_two(values=(0.7, 0.8)), of_two("vpt", values=(0.6, 0.9))]
    assert [row.label for row in wide(*records, sort="s_measure").rows] == ["LoRA", "VPT"]


def test_one_test_set_and_an_unknown_grouping():
    alone = build_table([record()], group="task")
    assert to_markdown(alone) == to_markdown(build_table([record()]))
    with pytest.raises(UsageError, match="unknown grouping 'tasks'; did you mean 'task'"):
        build_table([record()], group="tasks")
