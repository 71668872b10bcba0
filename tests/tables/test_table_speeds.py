"""Speeds measured apart stand beside the scores of the very models that were measured."""

import json

import pytest
from readme_tree import ROOT
from records import record

from lpmoe_bench.errors import DataError
from lpmoe_bench.tables.table import build_table, read_speeds

KEYS = ("measured_train_images_per_second", "step_over_forward")


def written(tmp_path, **changes):
    row = {"method": "lora", "parameters": 147456, "peak_bytes": 2**20}
    row |= {"step_seconds": 0.5, "forward_seconds": 0.25, "time_ratio": 2.0}
    content = {"torch": "2.15", "threads": 1, "cpu": "Some CPU", "backbone": "small"}
    content |= {"size": 256, "batch": 4, "rows": [row]}
    path = tmp_path / "speeds.json"
    path.write_text(json.dumps(content | changes))
    return path


def cells(records, path):
    (group,) = build_table(records, speeds=read_speeds(path)).groups
    places = [[column.key for column in group.columns].index(key) for key in KEYS]
    return {row.label: [row.cells[place].mean for place in places] for row in group.rows}, group


def test_images_a_second_are_the_batch_over_the_step(tmp_path):
    found, group = cells([record("lora"), record("vpt")], written(tmp_path))
    assert found == {"LoRA": [8.0, 2.0], "VPT": [None, None]}
    assert "one core of Some CPU" in group.footer[-1]


@pytest.mark.parametrize("changes", [{"backbone": "large"}, {"size": 512}, {"rows": []}])
def test_other_work_than_was_measured_stays_empty(tmp_path, changes):
    found, _ = cells([record("lora")], written(tmp_path, **changes))
    assert found == {"LoRA": [None, None]}


def test_other_parameters_are_another_model(tmp_path):
    one = record("lora")
    assert one.parameters is not None
    wider = one.parameters.model_copy(update={"method": 2 * one.parameters.method})
    found, _ = cells([one.model_copy(update={"parameters": wider})], written(tmp_path))
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
