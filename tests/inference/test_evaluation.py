"""`evaluate`: the run's own scores again, records that tables read, sets that are refused."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_runs import arguments, call, draw_pairs, only_run

from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.inference.evaluation import training_images
from lpmoe_bench.records.model import Record, record_folder
from lpmoe_bench.records.store import find_records, read_record, read_rows
from lpmoe_bench.tables.table import build_table

OWN = """
tasks:
  mine:
    title: Mine
    protocol: cod
    loss: structure
    select: s_measure
    train: [discs/train]
    test: [discs/test]
datasets:
  discs:
    title: Discs
    task: mine
    folder: discs
    splits: {train: train.txt, test: test.txt, all: null}
  others:
    title: Others
    task: skin
    folder: others
    splits: {test: null, train: null}
  absent: {title: Absent, task: mine, folder: absent}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with own.yaml, two sets below data/ and a finished run on the first."""
    place = tmp_path_factory.mktemp("evaluation")
    draw_pairs(place / "data" / "discs", 12, seed=0)
    draw_pairs(place / "data" / "others", 5, seed=2)
    for name, numbers in (("train", range(8)), ("test", range(8, 12))):
        lines = "".join(f"{k:03}\n" for k in numbers)
        (place / "data" / "discs" / f"{name}.txt").write_text(lines)
    (place / "own.yaml").write_text(OWN)
    more = ["--task", "mine", "--set", "train.epochs=1", *where(place)]
    known = arguments(place, place / "runs", *more)
    first = known.index("--train-images")
    done = call([*known[:first], *known[first + 8 :]])
    assert done.code == 0, done.stderr
    return place


def where(place: Path) -> list[str]:
    return ["--datasets", str(place / "own.yaml"), "--data-root", str(place / "data")]


def own(folder: Path) -> list[str]:
    return [a for k in ("images", "masks") for a in (f"--test-{k}", str(folder / k))]


def run_of(place: Path) -> Path:
    return only_run(place / "runs" / "mine")


def evaluate(place: Path, *more: str):
    return call(["evaluate", str(run_of(place)), *where(place), *more])


def records(text: str) -> list[Record]:
    return [Record.model_validate(content) for content in json.loads(text)]


def test_its_own_test_set_gives_its_own_scores_bit_for_bit(place, tmp_path):
    more = ("--data", "discs/test", "--runs", str(tmp_path), "--json")
    known = evaluate(place, *more)
    assert json.loads(known.stdout) == [json.loads((run_of(place) / "run.json").read_text())]
    assert "the run itself was scored on discs/test" in known.stderr
    assert not list(tmp_path.iterdir())
    done = evaluate(place, *more, "--force")
    assert done.code == 0, done.stderr
    (record,), run = records(done.stdout), read_record(run_of(place))
    assert record.scores == run.scores
    assert record.data.tests == run.data.tests
    rows = [
        (folder / "per_image.csv").read_bytes() for folder in (only_run(tmp_path), run_of(place))
    ]
    assert rows[0] == rows[1]


def test_the_record_says_which_model_was_scored_on_what(place, tmp_path):
    more = ("--data", "others/test", "--runs", str(tmp_path), "--save-predictions", "--json")
    done = evaluate(place, *more)
    assert done.code == 0, done.stderr
    (record,), run = records(done.stdout), read_record(run_of(place))
    assert record.kind == "evaluation"
    assert list(record.scores) == ["others/test"]
    assert (record.fingerprint, record.seed) == (run.fingerprint, run.seed)
    assert record.adapter_sha256 == run.adapter_sha256
    assert record.parameters == run.parameters
    assert record.data.train == run.data.train
    assert [facts.images for facts in record.data.tests] == [5]
    assert record.test_opened == 1
    assert record.costs.inference_images_per_second
    assert record.costs.train_images_per_second is None
    folder = only_run(tmp_path)
    assert folder == tmp_path / record_folder(record)
    assert record.id == record_folder(record).as_posix()
    hash_ = run.protocol.hash[:12]
    own = "/".join(run_of(place).parts[-4:])
    assert record.id == f"evaluations/{own}/others-test-{hash_}"
    assert len(read_rows(folder / "per_image.csv")) == 5
    assert len(list((folder / "predictions" / "others-test").glob("*.png"))) == 5
    assert not (folder / "test_opened").exists()
    assert "its own task has skin_isic2017" in done.stderr


def test_a_finished_evaluation_is_returned_and_force_keeps_it(place, tmp_path):
    more = ("--data", "others/test", "--runs", str(tmp_path), "--protocol", "skin_isic2017")
    assert evaluate(place, *more).code == 0
    folder = only_run(tmp_path)
    before = (folder / "run.json").read_bytes()
    again = evaluate(place, *more, "--json")
    assert "is finished" in again.stderr
    assert json.loads(again.stdout) == [json.loads(before)]
    assert (folder / "run.json").read_bytes() == before
    forced = evaluate(place, *more, "--force")
    assert forced.code == 0, forced.stderr
    assert (folder / "superseded-1-run.json").read_bytes() == before
    assert read_record(folder).protocol.name == "skin_isic2017"
    assert read_record(folder).scores == json.loads(before)["scores"]


def test_what_it_was_trained_on_is_refused(place, tmp_path):
    refused = evaluate(place, "--data", "discs/train", "--runs", str(tmp_path))
    assert (refused.code, "was trained on" in refused.stderr) == (2, True)
    part = evaluate(place, "--data", "discs/all", "--runs", str(tmp_path))
    assert part.code == 2
    assert "8 of the 12 images of discs/all are in the run's training list: 000" in part.stderr
    assert not list(tmp_path.iterdir())
    allowed = evaluate(place, "--data", "discs/all", "--runs", str(tmp_path), "--allow-overlap")
    assert allowed.code == 0, allowed.stderr
    notes = read_record(only_run(tmp_path)).notes
    assert any("8 of the 12 images" in note for note in notes)


def test_copies_of_training_images_are_found_under_other_names(place, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        source = place / "data" / "discs" / kind
        shutil.copy(source / "003.png", tmp_path / kind / "renamed.png")
        shutil.copy(source / "009.png", tmp_path / kind / "new.png")
    done = evaluate(place, *own(tmp_path), "--runs", str(tmp_path / "runs"))
    assert (done.code, "1 of the 2 images of own/test" in done.stderr) == (2, True)
    assert ": renamed;" in done.stderr


def test_a_data_set_by_name_means_its_test_splits_less_the_trained_ones(place, tmp_path):
    done = evaluate(place, "--data", "discs", "--runs", str(tmp_path), "--json")
    assert done.code == 0, done.stderr
    assert [list(record.scores) for record in records(done.stdout)] == [["discs/test"]]
    assert "discs/all is left out: 8 of the 12" in done.stderr


def test_own_folders_of_one_name_are_told_apart(place, tmp_path):
    for name, seed in (("a", 5), ("b", 6)):
        draw_pairs(tmp_path / name, 3, seed=seed)

    def on(name: str, *more: str):
        return evaluate(place, *own(tmp_path / name), "--runs", str(tmp_path / "runs"), *more)

    assert on("a").code == 0
    other = on("b")
    assert (other.code, "called own/test too" in other.stderr) == (2, True)
    named = on("b", "--name", "b")
    assert named.code == 0, named.stderr
    labels = {test for r in find_records([tmp_path / "runs"]).records for test in r.scores}
    assert labels == {"own/test", "own/b"}
    assert on("a", "--name", "../b").code == 2


def test_a_training_list_that_is_not_here_is_said(place, tmp_path):
    draw_pairs(tmp_path / "new", 3, seed=7)
    runs = ["--runs", str(tmp_path / "runs")]
    done = call(["evaluate", str(run_of(place)), *own(tmp_path / "new"), *runs])
    assert done.code == 0, done.stderr
    record = read_record(only_run(tmp_path / "runs"))
    assert any(
        "discs/train, which the run was trained on, is not found here" in n for n in record.notes
    )
    registry = load_registry(place / "own.yaml")
    found = training_images(
        read_record(run_of(place)), registry, place / "data", tmp_path / "cache"
    )
    assert found is not None
    assert sorted(found.values()) == [f"{k:03}" for k in range(8)]


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        ([], 2, "name a test set with --test-set"),
        (["--data", "disks"], 2, "did you mean 'discs'"),
        (["--data", "discs/tset"], 2, "did you mean 'test'"),
        (["--data", "absent"], 3, "is not found under"),
        (["--data", "others/test", "--protocol", "codd"], 2, "did you mean 'cod'"),
        (["--test-images", "a"], 2, "need both"),
        (["--data", "others/test", "--runs", "results/records"], 2, "published records"),
    ],
)
def test_errors_are_sentences(place, more, code, sentence):
    done = evaluate(place, *more)
    assert (done.code, sentence in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_tables_and_compare_show_run_and_evaluation(place, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(place / "runs" / "mine", runs / "mine")
    inside = only_run(runs)
    done = call(["evaluate", str(inside), *where(place), "--data", "others/test"])
    assert done.code == 0, done.stderr  # beside the run, as no --runs was given
    assert [path.name for path in runs.iterdir() if path.name != "mine"] == ["evaluations"]
    table = build_table(find_records([runs]).records)
    assert sorted(group.context.test_set for group in table.groups) == ["discs/test", "others/test"]
    for group in table.groups:
        assert [row.label for row in group.rows] == ["LoRA"]
    compared = call(["compare", "lora", "lora", "--root", str(runs), "--json"])
    assert compared.code == 0, compared.stderr
    lines = json.loads(compared.stdout)["lines"]
    assert {line["test_set"] for line in lines} == {"discs/test", "others/test"}
    assert all(line["a"] == line["b"] for line in lines)


def test_an_embedded_set_by_name(place, tmp_path):
    done = evaluate(place, "--data", "generated_cod", "--runs", str(tmp_path), "--json")
    assert done.code == 0, done.stderr
    (record,) = records(done.stdout)
    assert list(record.scores) == ["generated_cod/test"]
    assert record.data.tests[0].generated
