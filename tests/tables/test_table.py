"""The table of records: rows, order, units, speeds, and what it says where nothing can be shown."""

import csv
import io
import json
import re
import statistics
from pathlib import Path

import pytest
from sample_records import content, record
from table_samples import nasty, scores, three_methods

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.tables.formats import format_table, to_csv, to_latex, to_markdown
from lpmoe_bench.tables.table import build_table, read_speeds

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


def cells(table, key):
    """{label: (printed value, mark)} of the only group."""
    (group,) = table.groups
    index = [column.key for column in group.columns].index(key)
    decimals = group.columns[index].decimals
    return {
        row.label: (f"{row.cells[index].mean:.{decimals}f}", row.cells[index].mark)
        for row in group.rows
    }


@pytest.mark.parametrize("kind", ["markdown", "latex", "csv"])
def test_golden_files(kind):
    text = format_table(build_table(three_methods(), columns=["train_images_per_second"]), kind)
    assert text == (GOLDEN / f"table.{kind}").read_text(encoding="utf-8")


def test_the_order_of_records_does_not_matter():
    assert to_markdown(build_table(three_methods()[::-1])) == to_markdown(
        build_table(three_methods())
    )


def test_mean_and_spread_over_seeds():
    values = (0.71, 0.74, 0.78)
    records = [record("lora", seed, scores=scores(v)) for seed, v in enumerate(values)]
    (group,) = build_table(records).groups
    cell = next(
        c for k, c in zip(group.columns, group.rows[0].cells, strict=True) if k.label == "S"
    )
    assert cell.mean == pytest.approx(sum(values) / 3)
    assert cell.sd == pytest.approx(statistics.stdev(values))
    assert "| 3 |" in to_markdown(build_table(records))
    assert "0.743 ± 0.035" in to_markdown(build_table(records))


def test_marks_follow_the_direction_and_tie_at_the_printed_precision():
    table = build_table(
        [
            record("vpt", scores=scores(0.75004, mae=0.10)),
            record("lora", scores=scores(0.74996, mae=0.12)),
            record("decoder_only", scores=scores(0.70, mae=0.11)),
        ]
    )
    assert cells(table, "s_measure") == {
        "VPT": ("0.750", "best"),
        "LoRA": ("0.750", "best"),
        "Decoder only": ("0.700", "second"),
    }
    assert [mark for _, mark in cells(table, "mae").values()] == ["second", "best", ""]
    assert {mark for _, mark in cells(table, "decoder_parameters").values()} == {""}
    alone = build_table([record()])
    assert cells(alone, "s_measure") == {"LoRA": ("0.750", "")}
    assert "underlined" not in to_markdown(alone)
    alike = build_table([record("vpt", scores=scores(0.0)), record("lora", scores=scores(0.0))])
    assert {mark for _, mark in cells(alike, "s_measure").values()} == {""}


def test_recipe_settings_that_differ_are_said():
    table = to_markdown(build_table(three_methods()))
    assert "lr: 0.001 for Decoder only, LoRA; 0.005 for VPT." in table


def test_rows_of_one_title_say_what_differs():
    def lora(rank, fingerprint, **train):
        method = {"name": "lora", "title": "LoRA", "options": {"rank": rank, "alpha": 8.0}}
        return record("lora", method=method, fingerprint=fingerprint * 64, train=train)

    def labels(*records):
        return {row.label for row in build_table(records).groups[0].rows}

    assert labels(lora(8, "a"), lora(16, "b")) == {"LoRA (rank=8)", "LoRA (rank=16)"}
    assert labels(lora(8, "a"), lora(8, "b", lr=1e-4)) == {"LoRA (lr=0.001)", "LoRA (lr=0.0001)"}
    assert labels(lora(8, "a"), lora(8, "b")) == {"LoRA (aaaaaaaa)", "LoRA (bbbbbbbb)"}


def test_the_newest_of_equal_records_wins_and_that_is_said():
    records = [
        record(scores=scores(0.9), created="2026-01-03T00:00:00+00:00"),
        record(scores=scores(0.1), created="2026-01-02T00:00:00+00:00"),
    ]
    table = build_table(records)
    assert cells(table, "s_measure") == {"LoRA": ("0.900", "")}
    assert "newest of one fingerprint and seed wins: 1 record." in to_markdown(table)


def test_superseded_records_are_left_out():
    table = build_table([record("lora", superseded_by="x"), record("vpt")])
    assert list(cells(table, "mae")) == ["VPT"]
    assert table.notes == ("1 superseded records are left out",)


def test_a_missing_score_is_not_averaged_away():
    records = [record(seed=0), record(seed=1, scores=scores(None)), record("vpt")]
    text = to_markdown(build_table(records))
    assert "S is missing for LoRA" in text
    row = next(line for line in text.splitlines() if line.startswith("| LoRA"))
    assert row.split(" | ")[5] == "n/a"


def test_unusual_facts_stand_below():
    data = content()["data"]
    data["tests"][0] |= {"generated": True}
    dirty = content()["environment"] | {"git_dirty": True}
    counts = {"CAMO": {"images": 248, "scored": 246}}
    text = to_markdown(
        build_table([record(data=data, environment=dirty, counts=counts, test_opened=3)])
    )
    for words in (
        "(248 images; generated set; official split less six images, resized copies)",
        "2 images with an empty mask are left out",
        "comparable with no published ones",
        "opened up to 3 times",
        "Made by code that differs from its commit: 1 record.",
        "Weights of small: abababab (saliency-tuned).",
        "Protocol cod v1 (cdcdcdcd).",
    ):
        assert words in text


def test_maps_of_others_have_no_parameters():
    maps = record("vpt", kind="score", backbone=None, decoder=None, parameters=None, config={})
    assert "| - | - | - | 0.750" in to_markdown(build_table([maps]))


def test_filters_and_columns():
    records = [*three_methods(), record("vpt", task="polyp")]
    assert {g.context.task for g in build_table(records).groups} == {"cod", "polyp"}
    assert {g.context.task for g in build_table(records, task="cod").groups} == {"cod"}
    assert list(cells(build_table(records, task="cod", methods=["lora"]), "mae")) == ["LoRA"]
    (group,) = build_table(
        records, task="cod", metrics=["mae"], columns=["peak_memory_bytes"]
    ).groups
    assert [c.key for c in group.columns][-2:] == ["mae", "peak_memory_bytes"]
    assert "| 3.00 |" in to_markdown(build_table(records, columns=["peak_memory_bytes"]))
    every = record(scores=scores(0.5) | {"iou": 0.25, "newer": 0.1})
    (group,) = build_table([every], metrics=["all"]).groups
    assert [c.label for c in group.columns][-2:] == ["IoU@.5", "newer"]
    (group,) = build_table([every]).groups
    assert [c.label for c in group.columns][3:] == ["S", "E mean", "wF", "MAE"]


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"task": "cot"}, "unknown task among these records 'cot'; did you mean 'cod'"),
        ({"test_set": "CAMA"}, "did you mean 'CAMO'"),
        ({"methods": ["lroa"]}, "did you mean 'lora'"),
        ({"metrics": ["mea"]}, "unknown metric of CAMO 'mea'; did you mean 'mae'"),
        ({"columns": ["train_images_per_secon"]}, "did you mean 'train_images_per_second'"),
        ({"task": "polyp", "methods": ["lora"]}, "no record has this task, method and test set"),
    ],
)
def test_a_wrong_choice_is_one_sentence(choice, sentence):
    records = [record("lora"), record("vpt", task="polyp")]
    with pytest.raises(UsageError, match=sentence):
        build_table(records, **choice)


def test_no_record_and_unknown_format():
    with pytest.raises(DataError, match="there is no record to show"):
        build_table([])
    with pytest.raises(UsageError, match="did you mean 'latex'"):
        format_table(build_table([record()]), "latx")


def test_csv_is_full_precision_and_plain():
    records = [record(scores=scores(1 / 3)), record(seed=1, scores=scores(0.1 + 0.2))]
    (line,) = csv.DictReader(io.StringIO(to_csv(build_table(records))))
    assert float(line["s_measure_mean"]) == (1 / 3 + (0.1 + 0.2)) / 2
    assert float(line["s_measure_sd"]) == pytest.approx(statistics.stdev([1 / 3, 0.3]))
    assert (line["n"], line["seeds"], line["method"]) == ("2", "0 1", "lora")
    assert float(line["method_parameters"]) == 147456
    assert next(csv.DictReader(io.StringIO(to_csv(nasty()))))["label"] == "VPT"


def test_special_characters_are_escaped():
    latex, markdown = to_latex(nasty()), to_markdown(nasty())
    assert r"A\_b \& 50\% \{x\} \#1 \$y\textasciicircum{}2\textasciitilde{}\textless{}z" in latex
    assert r"\textgreater{}\textbackslash{} \textbar{} *t*" in latex
    assert r"&lt;z&gt;\\ \| \*t\* |" in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {9}


# Tables in another order, and tables that mix decoders when asked.


def test_rows_are_sorted_by_a_column_the_best_first():
    rows = [
        record(name, scores={"s_measure": s, "mae": m})
        for name, s, m in (("lora", 0.7, 0.2), ("vpt", 0.8, 0.1), ("decoder_only", 0.6, 0.3))
    ]
    for key, order in (
        ("s_measure", ["VPT", "LoRA", "Decoder only"]),
        ("mae", ["VPT", "LoRA", "Decoder only"]),
        ("method_parameters", ["LoRA", "VPT", "Decoder only"]),
    ):
        (group,) = build_table(rows, metrics=["s_measure", "mae"], sort=key).groups
        assert [row.label for row in group.rows] == order, key
    with pytest.raises(UsageError, match="did you mean 's_measure'"):
        build_table(rows, sort="s_mesure")


def test_decoders_share_a_table_only_when_asked():
    rows = [record("lora"), record("vpt", decoder={"name": "linear", "options": {}})]
    assert len(build_table(rows).groups) == 2
    (group,) = build_table(rows, across=["decoder"]).groups
    assert [row.label for row in group.rows] == ["VPT (decoder linear)", "LoRA"]
    assert "Decoder fpn (width 64) where a row names none." in group.footer
    with pytest.raises(UsageError, match="unknown thing a table may mix 'backbone'"):
        build_table(rows, across=["backbone"])


# Tables of values that are no fractions, and of fractions that the papers print in percent.


def test_values_beyond_one_and_percent_are_printed_as_they_should():
    shadow = {"name": "shadow_per_image", "version": 1, "hash": "cd" * 32}
    records = [
        record(name, protocol=shadow, scores={"ber": ber, "hd95": far, "hce": effort, "iou": 0.5})
        for name, ber, far, effort in (
            ("lora", 0.0254, 38.0634, 1204.0),
            ("vpt", 0.0311, 4.5, 73.66),
        )
    ]
    table = build_table(records, metrics=["all"])
    assert cells(table, "hd95") == {"LoRA": ("38.06", "second"), "VPT": ("4.50", "best")}
    assert cells(table, "hce") == {"LoRA": ("1204.0", "second"), "VPT": ("73.7", "best")}
    text = to_markdown(table)
    assert "BER@.5 (%) ↓" in text
    assert "| **2.54** | <u>38.06</u> | <u>1204.0</u> | 0.500 |" in text
    assert "BER@.5 (\\%)" in to_latex(table)
    assert "HD95@.5 (px) ↓" in text
    (line, _) = csv.DictReader(io.StringIO(to_csv(table)))
    assert float(line["ber_mean"]) in (0.0254, 0.0311)  # a fraction
    assert "2.54" in to_markdown(build_table(records))  # the protocol's headline


# Speeds measured apart stand beside the scores of the very models that were measured.


KEYS = ("measured_train_images_per_second", "step_over_forward")


def written(tmp_path, **changes):
    row = {"method": "lora", "parameters": 147456, "peak_bytes": 2**20}
    row |= {"step_seconds": 0.5, "forward_seconds": 0.25, "time_ratio": 2.0}
    content = {"torch": "2.15", "threads": 1, "cpu": "Some CPU", "backbone": "small"}
    content |= {"size": 256, "batch": 4, "rows": [row]}
    path = tmp_path / "speeds.json"
    path.write_text(json.dumps(content | changes))
    return path


def means(records, path):
    (group,) = build_table(records, speeds=read_speeds(path)).groups
    places = [[column.key for column in group.columns].index(key) for key in KEYS]
    return {row.label: [row.cells[place].mean for place in places] for row in group.rows}, group


def test_images_a_second_are_the_batch_over_the_step(tmp_path):
    found, group = means([record("lora"), record("vpt")], written(tmp_path))
    assert found == {"LoRA": [8.0, 2.0], "VPT": [None, None]}
    assert "one core of Some CPU" in group.footer[-1]


@pytest.mark.parametrize("changes", [{"backbone": "large"}, {"size": 512}, {"rows": []}])
def test_other_work_than_was_measured_stays_empty(tmp_path, changes):
    found, _ = means([record("lora")], written(tmp_path, **changes))
    assert found == {"LoRA": [None, None]}


def test_other_parameters_are_another_model(tmp_path):
    one = record("lora")
    assert one.parameters is not None
    wider = one.parameters.model_copy(update={"method": 2 * one.parameters.method})
    found, _ = means([one.model_copy(update={"parameters": wider})], written(tmp_path))
    assert found == {"LoRA": [None, None]}


@pytest.mark.parametrize("text", ["", "[]", '{"torch": 1}', '{"rows": NaN}'])
def test_a_file_of_something_else_is_refused_in_a_sentence(tmp_path, text):
    path = tmp_path / "speeds.json"
    path.write_text(text)
    with pytest.raises(DataError, match="is not what benchmarks/methods"):
        read_speeds(path)
    with pytest.raises(DataError, match="could not be read"):
        read_speeds(tmp_path / "missing.json")


def test_the_published_speeds_can_be_read():
    assert len(read_speeds(ROOT / "results" / "speed" / "cpu.json").rows) >= 26


def test_two_records_of_one_second_with_other_scores_are_refused():
    with pytest.raises(DataError, match="none is the newest"):
        build_table([record(scores=scores(0.9)), record(scores=scores(0.1))])
    assert len(build_table([record(), record()]).groups[0].rows) == 1
