"""The `table` command: cells of sweeps below, cost columns, files of every format."""

import json
import sys
from types import ModuleType

import pytest
from sample_records import record
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.records.store import write_record
from lpmoe_bench.tables.formats import FORMATS, to_markdown
from lpmoe_bench.tables.parts import COSTS, CellCounts
from lpmoe_bench.tables.table import build_table


@pytest.fixture
def runs(tmp_path):
    """A folder with one record, called runs."""
    write_record(tmp_path / "runs" / "cod" / "lora", record(), [])
    return tmp_path / "runs"


def shown(*arguments):
    result = CliRunner().invoke(app, ["table", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_declared_and_failed_cells_stand_below():
    for counts, words in (
        (
            CellCounts(50, 47, ["vpt seed 1", "lora seed 0", "lora seed 2"]),
            "47/50 cells of the sweeps here, 3 failed: vpt seed 1, lora seed 0, lora seed 2.",
        ),
        (CellCounts(6, 6, []), "6/6 cells of the sweeps here."),
    ):
        for group in ("test_set", "task", "all"):
            assert words in to_markdown(build_table([record()], cells=counts, group=group))
    assert "cells" not in to_markdown(build_table([record()]))


def test_the_command_asks_the_sweep_where_there_is_one(runs, monkeypatch):
    assert "cells" not in shown(runs)
    sweep = ModuleType("lpmoe_bench.sweep.execute")
    asked = []

    def cell_counts(root, elsewhere):
        asked.append(root)
        return 5, 3, ["cod vpt seed 1"]

    sweep.cell_counts = cell_counts
    monkeypatch.setitem(sys.modules, "lpmoe_bench.sweep.execute", sweep)
    assert "cells" not in shown(runs)
    plan = runs / "sweeps" / "a1" / "plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text(json.dumps({}), encoding="utf-8")
    assert "3/5 cells of the sweeps here, 1 failed: cod vpt seed 1." in shown(runs)
    assert asked == [runs]


def test_all_costs_are_columns(runs):
    (group,) = build_table([record()], columns=["all"]).groups
    assert [column.key for column in group.columns][-len(COSTS) :] == list(COSTS)
    text = shown(runs, "--columns", "trainable_parameters,share_of_total,forward_flops")
    assert "| Trains (M) | Share of total (%) | Forward (GFLOPs) |" in text
    row = next(line for line in text.splitlines() if line.startswith("| LoRA"))
    assert row.endswith("| 0.647 | 2.86 | - |")
    assert {
        *("trainable_parameters", "total_parameters", "share_of_total", "forward_flops"),
        *("training_flops", "train_images_per_second", "inference_images_per_second"),
        *("peak_memory_bytes", "state_bytes", "train_seconds"),
    } <= set(COSTS)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_goes_to_a_file(runs, tmp_path, kind):
    file = tmp_path / f"t.{kind}"
    assert shown(runs, "--format", kind, "--output", file, "--published") == ""
    assert "LoRA" in file.read_text(encoding="utf-8")


def test_only_keeps_records_of_a_setting(runs):
    write_record(runs / "cod" / "few", record("vpt", train={"limit_train": 150}), [])
    everything = shown(runs)
    assert "VPT" in everything
    assert "LoRA" in everything
    few = shown(runs, "--only", "train.limit_train=150")
    assert "VPT" in few
    assert "LoRA" not in few


CVC = "cvc_clinicdb/test"
FRAMES = ("1", "2", "26", "30", "52")  # sequences begin at 1, 26 and 51


def of_frames(folder, name="lora", frames=FRAMES, group=None, **changes):
    """A record of frames of CVC-ClinicDB, which say their groups where these are given."""
    facts = {"label": CVC, "digest": "33" * 32, "images": len(FRAMES)}
    made = record(name, data={"tests": [facts]}, **changes)
    made = made.model_copy(update={"scores": {CVC: made.scores["CAMO"]}})
    rows = [{"dataset": CVC, "image": frame, "s_measure": 0.75} for frame in frames]
    rows = [row | ({"group": group} if group else {}) for row in rows]
    write_record(folder, made, rows)


def test_captions_count_the_groups_of_images(tmp_path, runs):
    of_frames(tmp_path / "old" / "a")
    for kind in ("test_set", "task", "all"):
        text = shown(tmp_path / "old", runs, "--group", kind)
        assert f"{CVC} (5 images, 3 sequences" in text
        assert "(248 images; official" in text
    of_frames(tmp_path / "new" / "a", counts={CVC: {"images": 5, "groups": 2}})
    assert "(5 images, 2 sequences)" in shown(tmp_path / "new")
    own = tmp_path / "own.csv"
    own.write_text("".join(f"{frame},all\n" for frame in FRAMES))
    assert "(5 images, 1 group)" in shown(tmp_path / "new", "--groups", own)
    own.write_text("1,all\n")
    result = CliRunner().invoke(app, ["table", str(tmp_path / "new"), "--groups", str(own)])
    assert "has no group of 4 of 5 images of cvc_clinicdb/test" in str(result.exception)


def test_captions_say_nothing_of_groups_that_rows_cannot_tell(tmp_path):
    of_frames(tmp_path / "names" / "a", frames=("x", "y"))
    assert f"{CVC} (5 images)" in shown(tmp_path / "names")
    of_frames(tmp_path / "broken" / "a")
    (tmp_path / "broken" / "a" / "per_image.csv").write_text("dataset,image\na,b,c\n")
    of_frames(tmp_path / "none" / "a")
    (tmp_path / "none" / "a" / "per_image.csv").unlink()
    for folder in ("broken", "none"):
        assert f"{CVC} (5 images)" in shown(tmp_path / folder)


def test_groups_are_counted_on_the_record_with_most_images(tmp_path):
    few, all_ = ({CVC: {"images": n, "expected": 5}} for n in (2, 5))
    of_frames(tmp_path / "a", "vpt", FRAMES[:2], counts=few)
    of_frames(tmp_path / "b", counts=all_)
    assert "5 images, 3 sequences" in shown(tmp_path)
