"""Planning a sweep: cells, their fingerprints, what is refused, how long, what memory changes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_sweeps import fake_cell, fake_sweep
from guard import REGISTRY
from sample_records import record
from tiny_sweeps import draw_sets, sweep
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.console import Terminal
from lpmoe_bench.errors import BenchError, DataError, UsageError
from lpmoe_bench.records.store import write_record
from lpmoe_bench.sweep.plan import DataPlaces, SweepRequest, plan_sweep, settings_text
from method_zoo.errors import ZooError
from method_zoo.options import list_methods

runner = CliRunner()
TASK = """
  {}: {{title: Discs, protocol: cod, loss: structure, select: s_measure,
        train: [tiny_train/all], test: [tiny_test/all]}}"""


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> Path:
    return draw_sets(tmp_path_factory.mktemp("data"))


def name_tasks(datasets: Path, *names: str) -> Path:
    """A file with further tasks on the same sets."""
    file = datasets.with_name("more.yaml")
    file.write_text(
        REGISTRY.replace("\ndatasets:", "".join(map(TASK.format, names)) + "\ndatasets:")
    )
    return file


def call(datasets: Path, runs: Path, *more: str):
    """Run the command in this process."""
    return runner.invoke(app, sweep(datasets, runs, *more)[3:])


def planned(datasets: Path, runs: Path, *more: str) -> dict:
    result = call(datasets, runs, "--dry-run", "--json", "--quiet", *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_cells_are_methods_by_tasks_by_seeds_and_a_dry_run_writes_nothing(datasets, tmp_path):
    plan = planned(datasets, tmp_path, "--method", "lora,bitfit,lora", "--seeds", "0,2")
    names = [cell["name"] for cell in plan["cells"]]
    assert names == ["tiny-lora-s0", "tiny-bitfit-s0", "tiny-lora-s2", "tiny-bitfit-s2"]
    prints = [cell["fingerprint"] for cell in plan["cells"]]
    assert prints[0] == prints[2] != prints[1]
    assert {cell["state"] for cell in plan["cells"]} == {"waiting"}
    assert not list(tmp_path.iterdir())


def test_a_file_says_what_flags_do_not(datasets, tmp_path):
    (tmp_path / "f.yaml").write_text("{method: bitfit, task: tiny, seed: 7, options: {}}")
    request = ["sweep", "--datasets", str(datasets), "--config", str(tmp_path / "f.yaml")]
    request += ["--backbone", "vit_tiny_patch16_224", "--weights", "random:3", "--size", "64"]
    request += ["--runs", str(tmp_path / "runs"), "--dry-run", "--json"]
    for more, name in (([], "tiny-bitfit-s7"), (["--seeds", "1"], "tiny-bitfit-s1")):
        cells = json.loads(runner.invoke(app, [*request, *more]).stdout)["cells"]
        assert [cell["name"] for cell in cells] == [name]


def test_tasks_of_like_names_keep_cells_of_their_own(datasets, tmp_path):
    file = name_tasks(datasets, "ti.ny", "ti-ny", "ti_ny")
    cells = planned(file, tmp_path, "--task", "ti.ny,ti-ny,ti_ny")["cells"]
    assert len({cell["name"] for cell in cells}) == 3


def test_a_cell_has_the_fingerprint_of_its_run(datasets, tmp_path):
    cell = planned(datasets, tmp_path, "--set", "lora.rank=4")["cells"][0]
    words = sweep(datasets, tmp_path, "--dry-run", "--json", "--quiet")[4:]
    plain = {"--task": "--task", "--method": "--method", "--seeds": "--seed"}
    alone = runner.invoke(app, ["run", *(plain.get(w, w) for w in words), "--set", "rank=4"])
    assert json.loads(alone.stdout)["fingerprint"] == cell["fingerprint"]


def test_the_id_follows_settings_but_not_how_it_is_run(datasets, tmp_path):
    first = planned(datasets, tmp_path)["id"]
    assert planned(datasets, tmp_path, "--jobs", "3", "--offline")["id"] == first
    assert planned(datasets, tmp_path, "--set", "rank=4")["id"] != first
    assert planned(datasets, tmp_path, "--seeds", "0,1")["id"] != first


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--method", "lora,lroa"], "did you mean 'lora'"),
        (["--method", ","], "--method is empty"),
        (["--seeds", "0,one"], "--seeds got 'one'"),
        (["--seeds", "-1"], "--seeds got '-1'"),
        (["--task", "tinny"], "did you mean 'tiny'"),
        (["--engine", "rya"], "did you mean 'ray'"),
        (["--seeds", "4611686018427387904"], "whole numbers below 2^62"),
        (
            ["--set", "bitfit.rank=4"],
            "of --set 'bitfit'; known: decoder, facts, lora, runtime, train",
        ),
        (["--set", "loar.rank=4"], "did you mean 'lora'"),
        (["--streamed"], "--shared/--streamed is for --engine ray"),
        (["--address", "auto"], "--address is for --engine ray"),
        (["--done", "nowhere"], "nowhere is no folder"),
        (["--runs", "results/records"], "published records"),
        (["--method", "bitfit,lora", "--set", "lora.rank=0"], "lora cannot be built: rank is 0"),
        (["--backbone", "swinv2_cr_tiny_224"], "SwinTransformerV2Cr is not a plain timm"),
        (["--decoder", "mask2former"], "lora cannot be built: decoder width is 8"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["real", "dry"])
def test_errors_are_sentences_and_nothing_is_started(datasets, tmp_path, more, sentence, dry):
    result = call(datasets, tmp_path / "runs", "--quiet", *more, *dry)
    assert isinstance(result.exception, BenchError | ZooError)
    assert sentence in str(result.exception)
    assert not list(tmp_path.rglob("*.log"))


def test_each_model_is_built_once_on_shapes(datasets, tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(
        "lpmoe_bench.model.segmenter.check_buildable", lambda c: built.append(c.method)
    )
    words = ("--task", "tiny,twin", "--method", "lora,bitfit", "--seeds", "0,1")
    assert len(planned(name_tasks(datasets, "twin"), tmp_path, *words)["cells"]) == 8
    assert built == ["lora", "bitfit"]


def test_a_dry_run_counts_with_a_cell_for_each_gpu(datasets, tmp_path, monkeypatch):
    cell = planned(datasets, tmp_path / "runs")["cells"][0]
    costs = {"train_seconds": 600.0, "inference_images_per_second": None}
    write_record(tmp_path / "records/one", record(fingerprint=cell["fingerprint"], costs=costs), [])
    monkeypatch.setattr("lpmoe_bench.sweep.local.visible_gpus", lambda: ["0", "1"])
    more = ("--seeds", "1,2", "--done", str(tmp_path / "records"), "--dry-run")
    text = call(datasets, tmp_path / "runs", *more).stdout
    assert "about 10 min for 2 cells, 2 at a time" in text
    assert "about 20 min for 2 cells (" in call(datasets, tmp_path, *more, "--jobs", "1").stdout


def test_published_records_count_as_done(datasets, tmp_path):
    cell = planned(datasets, tmp_path)["cells"][0]
    made = record(fingerprint=cell["fingerprint"])
    write_record(tmp_path / "records/one", made, [{"dataset": "CAMO", "image": "a", "flags": ""}])
    more = ("--seeds", "0,1", "--done", str(tmp_path / "records"))
    found = planned(datasets, tmp_path / "runs", *more)["cells"]
    assert [one["state"] for one in found] == ["done", "waiting"]
    text = call(datasets, tmp_path / "runs", *more, "--dry-run", "--quiet").stdout
    assert "2 cells: 1 done, 1 waiting" in text
    assert "1 of 1 finished cells were made by other code (efefefefefef)" in text


def test_status_without_a_sweep_is_a_sentence(tmp_path):
    result = runner.invoke(app, ["sweep", "status", "--runs", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "holds no sweep" in str(result.exception)
    other = runner.invoke(app, ["sweep", "--runs", str(tmp_path), "status"])
    assert str(other.exception) == str(result.exception)


def test_status_imports_no_torch(tmp_path):
    from lpmoe_bench.sweep.plan import write_sweep

    write_sweep(tmp_path, fake_sweep(fake_cell()))
    code = (
        "import sys; from lpmoe_bench.sweep.execute import print_status; from pathlib import Path;"
        "print_status(Path(sys.argv[1]), [], False); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_settings_of_every_methods_cell_lead_to_its_fingerprint(
    datasets, tmp_path, monkeypatch
):
    # That each method can be built is tested with the methods; here all would take 20 seconds.
    monkeypatch.setattr("lpmoe_bench.model.segmenter.check_buildable", lambda config: None)
    from lpmoe_bench.config.settings import read_config_file
    from lpmoe_bench.training.plan import make_plan
    from lpmoe_bench.training.request import RunRequest

    terminal, known = Terminal(quiet=True), {}
    places = DataPlaces(datasets=datasets)
    flags = {"backbone": "vit_tiny_patch16_224", "weights": "random:3", "size": 64}
    base = SweepRequest(list_methods(), ["tiny"], [5], flags, places=places, runs=tmp_path)
    paper = replace(base, methods=["conv_lora"], flags=flags | {"recipe": "conv_lora_paper"})
    for request in (base, paper):
        for cell in plan_sweep(request, terminal).cells:
            file = tmp_path / "cell.yaml"
            file.write_text(settings_text(cell))
            asked = RunRequest(
                {}, {}, read_config_file(file), datasets=datasets, runs=tmp_path, cache=tmp_path
            )
            plan = make_plan(asked, terminal, known)
            assert plan.fingerprint == cell.fingerprint
            assert plan.folder == tmp_path / cell.folder


@pytest.fixture
def untethered(monkeypatch):
    """The process of the tests is nobody's cell."""
    monkeypatch.setattr("lpmoe_bench.sweep.local.end_with", lambda parent: None)


def test_a_cell_of_another_fingerprint_is_refused(datasets, untethered, tmp_path):
    settings = tmp_path / "cell.yaml"
    settings.write_text("{task: tiny, method: lora, weights: 'random:3', size: 64,\n"
                        "backbone: vit_tiny_patch16_224}")  # fmt: skip
    words = ["--config", str(settings), "--datasets", str(datasets), "--runs", str(tmp_path)]
    tether = ["--parent", "1", "--expect", "0" * 64]
    result = runner.invoke(app, ["sweep", "cell", *tether, *words])
    assert isinstance(result.exception, DataError)
    assert "changed since this was planned" in str(result.exception)
    assert "planned was 000000000000" in str(result.exception)
    assert not list(tmp_path.rglob("resume.safetensors"))


def test_a_cell_records_what_memory_made_necessary(datasets, untethered, tmp_path):
    cell = planned(datasets, tmp_path / "plan")["cells"][0]
    words = sweep(datasets, tmp_path / "runs")[4:]
    settings = tmp_path / "cell.yaml"
    values = dict(zip(words[::2], words[1::2], strict=True))
    settings.write_text(
        f"{{task: tiny, method: lora, weights: {values['--weights']}, size: 64, decoder_options: "
        f"{{width: 8}}, backbone: {values['--backbone']}, train: {{batch: 4, epochs: 2}}}}"
    )
    words = ["--config", str(settings), "--datasets", str(datasets), "--runs", str(tmp_path)]
    tether = ["--parent", "1", "--expect", cell["fingerprint"]]
    more = ["--note", "memory ran out", "--set", "runtime.micro_batch=2"]
    result = runner.invoke(app, ["sweep", "cell", *tether, *more, *words])
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made["fingerprint"] == cell["fingerprint"]
    assert made["config"]["runtime"]["micro_batch"] == 2
    assert "memory ran out" in made["notes"]
