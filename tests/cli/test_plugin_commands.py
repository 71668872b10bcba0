"""Plug-ins on the command line: contract, new method, lists, a run with its record, a sweep."""

import json
import re

import pytest
import yaml
from others import GAIN, MIX, write_file, write_wrong
from sample_records import record
from tiny_runs import BACKBONE, call, folders, only_run

from lpmoe_bench.errors import BrokenContractError
from lpmoe_bench.records.store import read_record
from lpmoe_bench.sweep.local import CellJob, arguments
from lpmoe_bench.sweep.plan import DataPlaces, sweep_id
from lpmoe_bench.sweep.ray_engine import CellTask, local_job
from lpmoe_bench.tables.rows import plugin_notes
from method_zoo.contract.checks import CHECKS
from method_zoo.contract.families import BROKEN, HOLDS, OPEN, check_method
from method_zoo.plugins import VARIABLE

QUICK = ["--backbone", BACKBONE, "--weights", "random:3", "--size", "64"]
QUICK += ["--set", "train.batch=4", "--set", "train.epochs=1", "--set", "train.limit_train=4"]


@pytest.fixture(autouse=True)
def unchanged(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")


@pytest.fixture
def gain(tmp_path):
    return write_file(tmp_path, "gain", GAIN)


def test_lists_and_describe_know_a_plug_in(gain):
    done = call(["list", "methods", "--plugin", str(gain)])
    assert done.stdout.splitlines()[-1].endswith("arXiv number. (plug-in, of gain.py)")
    told = dict(json.loads(call(["describe", "gain", "--plugin", str(gain), "--json"]).stdout))
    assert told["title"] == "Gain"
    assert told["options"] == "share=False"
    assert "A plug-in, of gain.py: Gain." in told["about"]


def test_list_plugins_imports_each_and_says_what_is_wrong(gain, tmp_path, monkeypatch):
    bad = write_file(tmp_path, "bad", "import no_such\nLOSSES = {'half': no_such.f, 'x': y}\n")
    worse = write_file(tmp_path, "worse", f"raise ValueError('no')\n{GAIN}")
    monkeypatch.setenv(VARIABLE, f"{gain}:{bad}:{worse}")
    done = call(["list", "plugins", "--json"])
    rows = dict(json.loads(done.stdout))
    assert rows["gain"] == "method of gain.py: ready"
    assert "ValueError: no (line 1 of worse.py)" in rows["worse"]
    assert "LOSSES must stand in the file as plain names" in rows["bad"]
    assert "note: method 'bad' of bad.py cannot be used" in done.stderr


def test_contract_prints_check_by_check(gain, tmp_path):
    words = ["contract", "gain", "--plugin", str(gain), "--check", "shapes,count"]
    done = call(words)
    assert done.code == 0
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", "shapes"],
        ["-", "count"],
    ]
    told = json.loads(call([*words, "--json", "--set", "share=true"]).stdout)
    assert (told["holds"], told["options"]) == (True, {"share": True})
    loud = write_file(tmp_path, "loud", GAIN.replace("x=t.x *", "x=1 + t.x *"))
    checks = ["--check", "identity_at_init,shapes"]
    done = call(["contract", "loud", "--plugin", str(loud), *checks])
    assert done.code == BrokenContractError.exit_code
    assert "BROKEN  identity_at_init" in done.stdout
    assert "1 of 2 checks of 'loud' are broken: identity_at_init" in done.stderr


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tokens", "returns a tensor (4, 16, 64) as the tokens of block 5; prefix 1 and grid"),
        ("small", "gives maps [(4, 64, 3, 4), "),
        ("final", "gives a final map (4, 63, 4, 4); it must be (4, 64, 4, 4)"),
    ],
)
def test_a_run_of_a_plug_in_that_gives_wrong_shapes_names_it(data, tmp_path, name, sentence):
    words = ["run", "--method", name, *folders(data), *QUICK, "--runs", str(tmp_path)]
    done = call([*words, "--plugin", str(write_wrong(tmp_path, name))])
    assert done.code == 2
    assert f"error: method '{name}' of {name}.py {sentence}" in done.stderr


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tokens", "returns a tensor (2, 24, 48) as the tokens of block 3; prefix 1 and grid 4 x"),
        ("plain", "returns a tensor (2, 25, 48) from block 0; it must be Tokens"),
        ("nothing", "returns NoneType; it must return Features(maps, final, aux)"),
        ("pair", "returns tuple of 2 (list of 4 (a tensor (2, 48, 4, 6), "),
        ("maps", "maps are [(2, 48, 4, 6), (2, 48, 4, 6), (2, 48, 4, 6)]; channels and strides"),
        ("final", "final is (2, 47, 4, 6); it must be (2, 48, 4, 6)"),
        ("aux", "gives a tensor (1,) as aux; it must be a scalar"),
    ],
)
def test_contract_says_what_of_a_plug_in_has_a_wrong_shape(tmp_path, name, sentence):
    plugin = ["--plugin", str(write_wrong(tmp_path, name))]
    done = call(["contract", name, *plugin, "--check", "shapes"])
    assert done.code == BrokenContractError.exit_code
    assert done.stdout.startswith("BROKEN  shapes")
    assert sentence in done.stdout


def test_what_a_plug_in_decoder_gives_in_a_wrong_shape_is_its_fault(data, tmp_path):
    flat = write_file(tmp_path, "mix", MIX.replace(".mean(dim=0))", ".mean(dim=0)).mean(1)"))
    words = ["run", "--method", "lora", "--decoder", "mix", *folders(data), *QUICK]
    done = call([*words, "--runs", str(tmp_path), "--plugin", str(flat)])
    assert done.code == 2
    assert (
        "decoder 'mix' of mix.py gives logits (4, 4, 4); they must be (4, 1, H, W)" in done.stderr
    )


def test_a_wrong_shape_of_our_own_keeps_its_traceback():
    from lpmoe_bench.cli.app import as_expected
    from method_zoo import get_method
    from method_zoo.errors import WrongOutputError

    assert as_expected(WrongOutputError(get_method("lora"), "gives nothing")) is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lroa"], "unknown method 'lroa'; did you mean 'lora'"),
        (["lora", "--check", "shape"], "unknown check 'shape'; did you mean 'shapes'"),
        (["lora", "--family", "x"], "unknown family 'x'"),
        (["lora", "--set", "rnk=1"], "unknown option of LoRA 'rnk'"),
        (["lora", "--set", "train.lr=1"], "takes options of the method alone"),
    ],
)
def test_contract_refuses_what_there_is_not(words, sentence):
    done = call(["contract", *words])
    assert done.code == 2
    assert sentence in done.stderr


def test_a_method_that_breaks_is_told_and_one_that_refuses_is_not_checked(gain):
    from method_zoo import Method, ZooError

    class Refuses(Method):
        title = "Refuses"

        def __init__(self, backbone):
            raise ZooError("not this one")

    class Fails(Method):
        title = "Fails"

        def forward(self, image):
            return 1 / 0

    (row,) = check_method(Refuses)
    assert row == ("plain", "build", OPEN, "it refuses this backbone: not this one")
    (row,) = check_method(Fails, checks=["shapes"])
    assert (row.outcome, row.words) == (BROKEN, "ZeroDivisionError: division by zero")


def test_new_method_writes_what_keeps_the_contract(tmp_path):
    folder = tmp_path / "mine"
    done = call(["new", "method", "chan_scale", "-o", str(folder), "--json"])
    files = json.loads(done.stdout)["files"]
    assert files[-1] == str(folder / "lpmoe_bench_chan_scale" / "chan_scale.py")
    assert "$" not in "".join((folder / name).read_text() for name in files).replace("$ ", "")
    from lpmoe_bench.model.plugins import add_plugin
    from method_zoo import get_method

    add_plugin(folder / "lpmoe_bench_chan_scale" / "chan_scale.py")
    quick = [name for name in CHECKS if name != "compile"]
    count = lambda backbone: backbone.depth * backbone.dim  # noqa: E731
    rows = list(check_method(get_method("chan_scale"), checks=quick, count=count))
    assert {row.outcome for row in rows} == {HOLDS, OPEN}
    compile((folder / "tests" / "test_chan_scale.py").read_text(), "test", "exec")
    project = (folder / "pyproject.toml").read_text()
    assert 'chan_scale = "lpmoe_bench_chan_scale.chan_scale:ChanScale"' in project
    again = call(["new", "method", "chan_scale2", "-o", str(folder)])
    assert again.code == 2
    assert "nothing is overwritten" in again.stderr


@pytest.mark.parametrize("name", ["lora", "parax", "train", "My", "a-b", "class", "", "x" * 99])
def test_new_method_refuses_a_name_that_is_none(name, tmp_path):
    done = call(["new", "method", name, "-o", str(tmp_path / "mine")])
    assert done.code == 2
    assert re.search("is no name for a method|exists; give", done.stderr)
    assert not (tmp_path / "mine").exists()


def test_a_run_with_plug_ins_tells_them_and_is_found_again_by_them(gain, data, tmp_path):
    mix = write_file(tmp_path, "mix", MIX)
    plugins = ["--plugin", str(gain), "--plugin", str(mix)]
    words = ["run", "--method", "gain", "--decoder", "mix", *folders(data), *QUICK]
    words += ["--set", "train.loss=absolute", "--runs", str(tmp_path / "runs")]
    assert call([*words, *plugins]).code == 0
    folder = only_run(tmp_path / "runs")
    made = read_record(folder)
    told = [(one.kind, one.name, one.source) for one in made.plugins]
    assert told == [
        ("methods", "gain", "gain.py"),
        ("decoders", "mix", "mix.py"),
        ("losses", "absolute", "mix.py"),
    ]
    assert str(tmp_path) not in json.dumps([one.model_dump() for one in made.plugins])
    output = ["-o", str(tmp_path / "maps")]
    images = str(data / "test" / "images")
    assert call(["predict", str(folder), images, *output, *plugins]).code == 0
    notes = plugin_notes([made])
    assert f"method gain is a plug-in: gain.py ({made.plugins[0].digest[:12]})" in notes
    changed = made.plugins[0].model_copy(update={"digest": "f" * 64})
    other = made.model_copy(update={"plugins": [changed]})
    assert any("several sources" in note for note in plugin_notes([made, other]))


def test_a_record_without_plug_ins_has_the_bytes_that_it_had():
    assert "plugins" not in record().model_dump()
    assert plugin_notes([record()]) == []


def test_workers_of_a_sweep_get_the_files(gain, tmp_path):
    from fake_sweeps import fake_cell

    cell, none = fake_cell(), DataPlaces()
    places = DataPlaces(plugins=(gain,))
    assert sweep_id([cell], none) != sweep_id([cell], places)
    job = CellJob(cell, tmp_path / "c.yaml", [], tmp_path / "l.log", tmp_path / "runs", places)
    assert arguments(job)[-2:] == ["--plugin", str(gain)]
    settings = yaml.safe_dump(cell.settings)
    task = CellTask(job, "0" * 12, tmp_path, settings, False, "1", (), (gain.read_bytes(),))
    (there,) = local_job(task).places.plugins
    assert there.name == "gain.py"
    assert there != gain
    assert there.read_text() == GAIN
