"""Scored maps in tables: beside runs, with their coverage, their name as plain text, published."""

import pytest
from drawn_maps import draw_folders, label, out, score_folders, stored
from records import record as run_record

from lpmoe_bench.errors import UsageError
from lpmoe_bench.records.folder import publish
from lpmoe_bench.tables.formats import FORMATS, format_table
from lpmoe_bench.tables.table import build_table


@pytest.fixture
def partial(tmp_path):
    draw_folders(tmp_path, 4)
    (tmp_path / "A" / "p3.png").unlink()
    outcome, notes, _ = score_folders(tmp_path, "A", "B", allow_missing=True)
    return tmp_path, outcome, notes


def test_a_partial_folder_shows_its_coverage_and_wins_nothing(partial):
    root, outcome, notes = partial
    assert any("1 of 4 masks" in note and "(p3)" in note for note in notes)
    record, rows = stored(outcome)
    counts = record.counts[label(root)]
    assert (counts["images"], counts["expected"], len(rows)) == (3, 4, 3)
    (group,) = build_table([one.record for one in outcome.records]).groups
    rows = {row.label: row for row in group.rows}
    assert set(rows) == {"A (3/4 images)", "B"}
    assert {cell.mark for cell in rows["A (3/4 images)"].cells} == {""}
    assert any("take no part in bold" in line for line in group.footer)


def test_scored_maps_stand_beside_runs_on_the_same_set(tmp_path):
    outcome, _, _ = score_folders(draw_folders(tmp_path, 3))
    maps = outcome.records[0].record
    test, protocol = maps.data.tests[0], maps.protocol.model_dump()

    def run(name, digest=test.digest, **changes):
        made = run_record(name, task="own", **{"protocol": protocol} | changes)
        made = made.model_dump() | {
            "scores": {test.label: maps.scores[test.label]},
            "data": {"tests": [test.model_dump() | {"digest": digest}]},
        }
        return type(maps).model_validate(made)

    table = build_table([run("lora"), maps, run("vpt", backbone={"name": "other"})])
    labels = sorted([row.label for row in group.rows] for group in table.groups)
    assert labels == [["LoRA", "A"], ["VPT", "A"]]
    for kind in FORMATS:
        assert "A" in format_table(table, kind)
    text = format_table(table, "markdown")
    assert "| A | - | - | - |" in text
    assert "Maps from a folder" in text
    assert "lr:" not in text  # what nobody knows of maps is no difference
    for other in (
        run("lora", digest="0" * 64),
        run("lora", protocol=protocol | {"hash": "1" * 64}),
    ):
        assert [len(group.rows) for group in build_table([other, maps]).groups] == [1, 1]


def test_publish_copies_a_scored_record(tmp_path):
    _, _, plan = score_folders(draw_folders(tmp_path, 3))
    target = publish(plan.places[0], tmp_path / "records", allow_dirty=True)
    assert target == tmp_path / "records" / plan.places[0].relative_to(tmp_path / "runs")
    assert sorted(path.name for path in target.iterdir()) == ["per_image.csv", "run.json"]
    with pytest.raises(UsageError, match="holds published records"):
        score_folders(tmp_path, runs=tmp_path / "results" / "records")


NAME = r"../..\[bold]_x_|$&%#{}<b>`~^"


def test_a_name_is_text_everywhere(tmp_path):
    outcome, _, plan = score_folders(draw_folders(tmp_path, 3), names=[NAME])
    assert (tmp_path / "runs").resolve() in plan.places[0].resolve().parents
    record, _ = stored(outcome)
    assert record.method.title == NAME
    table = build_table([record])
    text = format_table(table, "markdown")
    assert r"../..\\\[bold\]\_x\_\|$&amp;%#{}&lt;b&gt;\`\~^" in text
    latex = format_table(table, "latex")
    assert r"../..\textbackslash{}[bold]\_x\_\textbar{}\$\&\%\#\{\}\textless{}b" in latex
    shown = out(tmp_path, "--name", NAME)
    assert NAME in shown.stdout.replace("\n", "")
