"""Scoring folders of maps: records, scores of the command, tables."""

import json

import numpy as np
import pytest
from drawn_maps import draw_folders, draw_map, draw_mask, label, out, save, score_folders, stored
from sample_records import record as run_record
from tiny_runs import arguments, call, draw_data, only_run
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import BenchError, DataError, UsageError
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import Scorer
from lpmoe_bench.records.store import find_records, read_record, read_rows
from lpmoe_bench.records.verify import publish
from lpmoe_bench.tables.formats import FORMATS, format_table
from lpmoe_bench.tables.table import build_table

COD = get_protocol("cod")


def test_a_record_holds_what_the_scorer_says(tmp_path):
    outcome, _, plan = score_folders(draw_folders(tmp_path, 5), "A", "B")
    for index, noise in enumerate((60.0, 180.0)):
        scorer = Scorer(COD)
        for seed in range(5):
            scorer.add(f"p{seed}", draw_map(seed, noise), draw_mask(seed), label(tmp_path))
        expected = scorer.result()
        record, rows = stored(outcome, index)
        assert record.scores == {label(tmp_path): expected.scores}
        assert rows == expected.rows
        assert record.counts[label(tmp_path)] == expected.counts | {"expected": 5}
    assert (record.kind, record.seed) == ("score", None)
    assert record.backbone is record.parameters is None
    assert record.method.title == "B"
    assert record.protocol.hash == COD.hash
    assert plan.places[0].relative_to(tmp_path / "runs").parts[:3] == ("scored", "own", "A")
    assert plan.places[0].name == stored(outcome)[0].fingerprint[:12]
    assert str(tmp_path) not in json.dumps(record.model_dump())


def test_maps_of_another_size_are_resized_bilinearly(tmp_path):
    import cv2

    save(tmp_path / "masks" / "p0.png", draw_mask(0))
    small = cv2.resize(draw_map(0), (18, 12))
    save(tmp_path / "A" / "p0.png", small)
    outcome, notes, _ = score_folders(tmp_path)
    scorer = Scorer(COD)
    scorer.add("p0", cv2.resize(small, (36, 24), interpolation=cv2.INTER_LINEAR), draw_mask(0))
    assert stored(outcome)[0].scores[label(tmp_path)] == scorer.result().scores
    assert any("were resized bilinearly" in note for note in notes)


def test_the_same_maps_have_one_record(tmp_path):
    draw_folders(tmp_path, 3)
    first, _, plan = score_folders(tmp_path, "A", "B")
    (tmp_path / "A").rename(tmp_path / "moved")  # another place, the same content
    again, _, moved = score_folders(tmp_path, "moved", names=["A"])
    assert (again.fresh, moved.places) == ([False], plan.places[:1])
    assert again.records[0].record == first.records[0].record
    save(tmp_path / "moved" / "p0.png", draw_map(7))
    other, _, changed = score_folders(tmp_path, "moved", names=["A"])
    assert other.fresh == [True]
    assert changed.places != moved.places


@pytest.mark.parametrize(
    "options", [{"protocol": "sod"}, {"extra": ["boundary_iou"]}, {"names": ["C"]}]
)
def test_what_changes_a_record_gives_another(tmp_path, options):
    _, _, plan = score_folders(draw_folders(tmp_path, 3))
    outcome, _, other = score_folders(tmp_path, **options)
    assert outcome.fresh == [True]
    assert plan.places != other.places


def test_forcing_keeps_the_old_record_under_another_name(tmp_path):
    _, _, plan = score_folders(draw_folders(tmp_path, 3))
    old = (plan.places[0] / "run.json").read_bytes()
    outcome, _, _ = score_folders(tmp_path, force=True)
    assert outcome.fresh == [True]
    assert (plan.places[0] / "superseded-1-run.json").read_bytes() == old
    assert len(find_records([tmp_path / "runs"]).stored) == 1


def test_names_that_share_a_folder_are_told_apart(tmp_path):
    score_folders(draw_folders(tmp_path, 3), names=["A/1"])
    with pytest.raises(UsageError, match="the same maps under the name A/1"):
        score_folders(tmp_path, names=["A:1"])


def test_extra_metrics_and_their_images(tmp_path):
    draw_folders(tmp_path, 3)
    outcome, _, _ = score_folders(tmp_path, extra=["hd95", "boundary_iou"])
    record, rows = stored(outcome)
    assert list(record.scores[label(tmp_path)])[-2:] == ["hd95", "boundary_iou"]
    assert all(row["hd95"] is not None for row in rows)
    assert record.config["extra"] == ["hd95", "boundary_iou"]
    with pytest.raises(UsageError, match="name their folder with --images"):
        score_folders(tmp_path, extra=["camouflage_context_measure"])
    with pytest.raises(UsageError, match="did you mean 'hd95'"):
        score_folders(tmp_path, extra=["hd96"])


def test_empty_masks_only_is_one_sentence_and_no_record(tmp_path):
    save(tmp_path / "masks" / "p0.png", np.zeros((9, 9), np.uint8))
    save(tmp_path / "A" / "p0.png", draw_map(0, shape=(9, 9)))
    with pytest.raises(DataError, match="all 1 masks are empty"):
        score_folders(tmp_path)
    assert not list(tmp_path.rglob("run.json"))


def test_the_command_prints_scores_and_json(tmp_path):
    draw_folders(tmp_path, 3)
    plain = out(tmp_path, folders=("A", "B"))
    assert plain.exit_code == 0, plain.output
    assert "no --protocol and no --task: protocol cod counts" in plain.stderr
    assert "protocol cod v1" in plain.stdout
    again = out(tmp_path, "--json", "--protocol", "cod", folders=("A", "B"))
    shown = json.loads(again.stdout)
    assert [record["method"]["title"] for record in shown["records"]] == ["A", "B"]
    assert "A was scored before on these very maps" in again.stderr
    assert out(tmp_path, "--quiet", "--json", "--protocol", "cod").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--protocol", "codd"], 2, "did you mean 'cod'"),
        (["--set", "camo/test"], 2, "--gt names the masks"),
        (["--task", "codd"], 2, "did you mean 'cod'"),
        (["--name", "A", "--name", "B"], 2, "given 2 times for 1 folders"),
        (["--images", "nowhere"], 3, "cannot be opened"),
    ],
)
def test_wrong_requests_are_one_sentence(tmp_path, arguments, code, words):
    draw_folders(tmp_path, 2, ("A",))
    result = out(tmp_path, *arguments)
    assert isinstance(result.exception, BenchError)
    assert (result.exception.exit_code, "\n" in str(result.exception)) == (code, False)
    assert words in str(result.exception)


def test_masks_must_come_from_somewhere(tmp_path):
    draw_folders(tmp_path, 2, ("A",))
    result = CliRunner().invoke(app, ["score", str(tmp_path / "A")])
    assert "name their folder with --gt, or a --task" in str(result.exception)


def test_own_images_make_the_test_set_of_a_run(tmp_path):
    from lpmoe_bench.data.pairs import find_pairs
    from lpmoe_bench.data.splits import Split, make_split

    draw_folders(tmp_path, 3)
    for seed in range(3):
        save(tmp_path / "images" / f"p{seed}.png", np.dstack([draw_map(seed)] * 3))
    outcome, _, _ = score_folders(tmp_path, images=tmp_path / "images", cache=tmp_path, task="cod")
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    expected = make_split(Split("own", "test", (), ""), "test", pairs)
    (facts,) = stored(outcome)[0].data.tests
    assert (facts.label, facts.digest) == ("own/test", expected.digest)
    assert stored(outcome)[0].task == "cod"


def test_worst_verify_and_curves(tmp_path):
    draw_folders(tmp_path, 4)
    asked = ("--worst", "2", "--verify", "3", "--protocol", "cod", "--json")
    shown = json.loads(out(tmp_path, *asked, folders=("A", "B")).stdout)
    (place,) = (tmp_path / "runs" / "scored" / "own" / "A").iterdir()
    rows = {row["image"]: row["s_measure"] for row in read_rows(place / "per_image.csv")}
    worst = shown["worst"][0]
    assert [one["image"] for one in worst["images"]] == sorted(rows, key=rows.get)[:2]
    assert (len(shown["verify"]), len(shown["verify"][0]["images"])) == (2, 3)
    assert 0 < max(one["largest"] for one in shown["verify"]) < 1e-9
    pytest.importorskip("matplotlib")
    made = json.loads(out(tmp_path, "--curves", str(tmp_path / "plots"), "--json").stdout)
    assert len(made["curves"]) == 7
    lines = (tmp_path / "plots" / "curves.csv").read_text().splitlines()
    assert lines[0] == "method,threshold,precision,recall,f,e"
    assert (len(lines), lines[256][:8]) == (257, "A,0.0,0.")  # at 0 everything is object
    assert ",1.0," in lines[256]
    assert all((tmp_path / "plots").joinpath(name).exists() for name in made["curves"])


# Scores of a run's saved maps are the run's own; a task's sets are found by name.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    data = draw_data(root / "data")
    more = ("--set", "runtime.save_predictions=true", "--set", "train.epochs=1")
    done = call(arguments(data, root / "runs", *more))
    assert done.code == 0, done.stderr
    return root, only_run(root / "runs")


def test_saved_maps_score_what_the_run_scored(run):
    """Bit for bit: a run scores the very 8-bit maps that it saves."""
    root, folder = run
    done = call(
        [
            *("score", str(folder / "predictions"), "--name", "Saved", "--task", "cod"),
            *("--gt", str(root / "data" / "test" / "masks"), "--jobs", "1"),
            *("--images", str(root / "data" / "test" / "images"), "--runs", str(root / "scored")),
        ]
    )
    assert done.code == 0, done.stderr
    place = only_run(root / "scored")
    assert read_rows(place / "per_image.csv") == read_rows(folder / "per_image.csv")
    ran, scored = read_record(folder), read_record(place)
    assert scored.scores == ran.scores
    (group,) = build_table([ran, scored]).groups
    assert [row.label for row in group.rows] == ["LoRA", "Saved"]


SETS = """
tasks:
  toy:
    title: Toys
    protocol: glass
    loss: structure
    select: iou
    train: [one/train]
    test: [one/test, two/all]
datasets:
  one: {title: One, task: toy, folder: one, splits: {train: train.txt, test: test.txt}}
  two: {title: Two, task: toy, folder: two}
"""


@pytest.fixture
def task(tmp_path):
    (tmp_path / "sets.yaml").write_text(SETS)
    for name, letter in (("one", "p"), ("two", "q")):
        for seed in range(3):
            save(tmp_path / name / "images" / f"{letter}{seed}.png", draw_map(seed))
            save(tmp_path / name / "masks" / f"{letter}{seed}.png", draw_mask(seed))
            save(tmp_path / "maps" / name / f"{letter}{seed}.png", draw_map(seed))
    for split in ("train", "test"):
        (tmp_path / "one" / f"{split}.txt").write_text("p0\np1\np2\n")
    options = {"gt": None, "protocol": None, "task": "toy", "data_root": tmp_path}
    return tmp_path, options | {"datasets": tmp_path / "sets.yaml", "cache": tmp_path / "cache"}


def test_a_tasks_sets_are_scored_under_its_protocol(task):
    root, options = task
    outcome, _, plan = score_folders(root, "maps", **options)
    record, rows = stored(outcome)
    assert (record.task, record.protocol.name) == ("toy", "glass")
    assert list(record.scores) == ["one/test", "two/all"]
    assert [row["dataset"] for row in rows] == ["one/test"] * 3 + ["two/all"] * 3
    assert plan.places[0].parts[-4:-1] == ("scored", "toy", "maps")


def test_images_that_vary_together_are_recorded(task):
    root, options = task
    file = root / "sets.yaml"
    groups = "groups: {what: video, table: [groups.csv, image, video]}"
    file.write_text(SETS.replace("folder: two}", f"folder: two, {groups}}}"))
    (root / "two" / "groups.csv").write_text("image,video\nq0,a\nq1,a\nq2,b\n")
    outcome, _, _ = score_folders(root, "maps", **options)
    record, rows = stored(outcome)
    assert record.counts["two/all"]["groups"] == 2
    assert "groups" not in record.counts["one/test"]
    told = {row["image"]: row["group"] for row in rows}
    assert told == {**dict.fromkeys(("p0", "p1", "p2"), ""), "q0": "a", "q1": "a", "q2": "b"}


def test_one_set_is_told_by_name_or_by_its_files(task):
    root, options = task
    outcome, _, _ = score_folders(root, "maps", **options, test_set="two/all")
    assert list(stored(outcome)[0].scores) == ["two/all"]
    outcome, _, _ = score_folders(root, "maps/one", **options)
    assert list(stored(outcome)[0].scores) == ["one/test"]


def test_sets_that_are_not_there(task):
    root, options = task
    here = root / "elsewhere" / "sets.yaml"  # a file finds the sets beside it
    here.parent.mkdir()
    here.write_text(SETS)
    (root / "nothing").mkdir()
    with pytest.raises(DataError, match=r"one/test, two/all is not found under .*--embedded"):
        score_folders(root, "maps", **options | {"data_root": root / "nothing", "datasets": here})
    with pytest.raises(UsageError, match="did you mean 'two'"):
        score_folders(root, "maps", **options, test_set="twoo/all")


def test_sub_folders_answer_to_several_names(task):
    root, options = task
    for name in ("ONE_test", "One"):
        (root / "maps" / "one").rename(root / "maps" / name)
        outcome, _, _ = score_folders(root, "maps", **options, force=True)
        assert list(stored(outcome)[0].scores) == ["one/test", "two/all"]
        (root / "maps" / name).rename(root / "maps" / "one")


def test_maps_of_a_set_without_masks_are_noted(task):
    root, options = task
    (root / "two").rename(root / "gone")
    outcome, notes, _ = score_folders(root, "maps", **options)
    assert list(stored(outcome)[0].scores) == ["one/test"]
    assert any("maps has maps of two/all in two, but no masks" in note for note in notes)


def test_folders_with_other_sets_share_one_call(task):
    root, options = task
    (root / "maps" / "two").rename(root / "second")
    draw_folders(root / "unused", 1)
    outcome, notes, _ = score_folders(root, "maps", "second", **options)
    assert [list(stored(outcome, i)[0].scores) for i in (0, 1)] == [["one/test"], ["two/all"]]
    assert any("maps has no sub-folder for two/all" in note for note in notes)


# Scored maps in tables: beside runs, with their coverage, their name as plain text, published.


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
