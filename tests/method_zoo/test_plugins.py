"""Methods, decoders and losses of others: found without an import, and faults as one sentence."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import tiny_backbone
from others import GAIN, MIX, install, write_file

from lpmoe_bench.config.settings import LOSSES, RunConfig, known_losses
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.names import get_decoder, list_decoders
from lpmoe_bench.model.losses import get_loss
from lpmoe_bench.model.plugins import (
    add_plugin,
    all_plugins,
    changed_plugins,
    plugins_here,
    used_plugins,
)
from lpmoe_bench.records.model import PluginRecord
from method_zoo import ZooError, get_method, list_methods
from method_zoo.options import method_facts, zoo_methods
from method_zoo.plugins import VARIABLE, explain_fault, read_plugin_file

CLASS = "from method_zoo import Method\n\n\nclass A(Method):\n    title = 'A'\n"
BAD = {
    "syntax": ("x = = 1\n", "line 1: invalid syntax"),
    "null": ("a\0b", "null bytes|holds no class"),
    "nothing": ("class A:\n    pass\n", "holds no class that is derived from Method or Decoder"),
    "two": (f"{CLASS}\n\nclass B(Method):\n    title = 'B'\n", r"several classes .*\(A, B\)"),
    "dictionary": ("METHODS = dict(a=1)\n", "METHODS must stand in the file as plain names"),
    "Upper": (CLASS, "small letters, digits and _, with a letter first; rename the file"),
    "train": (CLASS, "a section of --set has this name"),
    "lora": (CLASS, "a method of this name exists"),
    "parax": (CLASS, "a method of this name exists"),
    "ends": (f"{CLASS}raise SystemExit(3)\n", r"ends the program when it is imported"),
    "raises": (f"{CLASS}raise KeyError('x\\ny')\n", r"KeyError: .*\(line 6 of raises.py\)"),
    "needs": (f"import no_such_package\n{CLASS}", "needs no_such_package, which is not installed"),
    "relative": ("from .method import Method\n\n\nclass A(Method):\n    title = 'A'\n", "from `.`"),
    "untitled": (CLASS.replace("title", "other"), "class A needs a title"),
    "rates": (f"{CLASS}    preset = 3\n", "preset is 3; write numbers by name"),
    "undecided": (
        f"{CLASS}    def __init__(self, backbone, rank=None):\n        pass\n",
        "option rank=None is none that a setting can hold",
    ),
    "bare": (f"{CLASS}    def __init__(self):\n        pass\n", r"begin with \(self, backbone\)"),
    "gone": ("METHODS = {'gone': Gone}\n", "NameError"),
    "helper": (f"{CLASS}METHODS = {{'helper': Helper}}\nHelper = int\n", "NameError|not derived"),
}


@pytest.fixture(autouse=True)
def unchanged(monkeypatch):
    """What a test names is forgotten after it."""
    monkeypatch.setenv(VARIABLE, "")


def add_and_get(path):
    add_plugin(path)
    return get_method(path.stem)


@pytest.mark.parametrize("name", BAD)
def test_a_broken_file_is_one_sentence_and_costs_itself_alone(name, tmp_path, monkeypatch):
    text, sentence = BAD[name]
    path = write_file(tmp_path, name, text)
    with pytest.raises(ZooError, match=sentence) as caught:
        add_and_get(path)
    assert "\n" not in str(caught.value)
    # Beside a sound one, which it does not touch.
    sound = write_file(tmp_path, "gain", GAIN)
    monkeypatch.setenv(VARIABLE, f"{path}{os.pathsep}{sound}")
    assert {*zoo_methods(), "gain"} <= set(list_methods())
    assert get_method("gain").title == "Gain"
    assert get_method("lora").title == "LoRA"


@pytest.mark.parametrize(
    ("path", "words"), [("none.py", "does not exist"), (".", "no file"), ("a.txt", "not exist")]
)
def test_what_is_no_file_of_python_is_refused(path, words, tmp_path):
    with pytest.raises(ZooError, match=words):
        add_plugin(tmp_path / path)
    assert not os.environ[VARIABLE]


def test_a_file_names_its_method_and_is_not_imported_for_it(tmp_path):
    path = write_file(tmp_path, "gain", GAIN)
    add_plugin(path)
    add_plugin(path)  # twice is once
    assert os.environ[VARIABLE] == str(path)
    assert list_methods() == [*zoo_methods(), "gain"]
    assert str(path) not in [getattr(one, "__file__", "") for one in sys.modules.values()]
    assert method_facts("gain").options == {"share": False}
    method = get_method("gain")(tiny_backbone(), share=True)
    assert method.scale.shape == (1, 48)
    assert sys.modules[type(method).__module__].__file__ == str(path)
    assert not (tmp_path / "__pycache__").exists()


def test_a_method_derived_from_one_of_the_zoo_is_found(tmp_path):
    text = "from method_zoo.lora import LoRA, LoRALinear\n\n\nclass {}({}):\n    title = 'Mine'\n"
    (found,) = read_plugin_file(write_file(tmp_path, "mine", text.format("Mine", "LoRA")))
    assert (found.kind, found.name, found.place) == ("methods", "mine", "Mine")
    (found,) = read_plugin_file(write_file(tmp_path, "other", text.format("X", "LoRALinear")))
    assert "holds no class" in found.trouble


def test_decoders_and_losses_come_from_files_too(tmp_path):
    add_plugin(write_file(tmp_path, "mix", MIX))
    assert list_decoders()[-1] == "mix"
    assert get_decoder("mix").title == "Mix"
    assert [*known_losses()] == [*LOSSES, "absolute", "no_scalar"]
    logits, mask = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    mask[..., 0] = -1  # ignored, which the loss is told of
    assert get_loss("absolute")(logits, mask).item() == pytest.approx(0.5)
    with pytest.raises(UsageError, match=r"gives \(2, 1, 8, 8\) for logits .* must give a scalar"):
        get_loss("no_scalar")
    with pytest.raises(UsageError, match="unknown loss 'absolut'; did you mean 'absolute'"):
        get_loss("absolut")


def test_a_loss_that_cannot_take_ignored_pixels_is_refused(tmp_path):
    text = "def f(a, b):\n    return a\n\n\nLOSSES = {'short': f}\n"
    add_plugin(write_file(tmp_path, "losses", text))
    with pytest.raises(ZooError, match=r"loss 'short' of losses.py .* \(logits, mask, counted\)"):
        get_loss("short")


POINTS = """
[lpmoe_bench.methods]
gain = {0}.gain:Gain
lora = {0}.gain:Gain
gone = {0}.gone:Gone
odd = {0}
loss = {0}.mix:absolute
[lpmoe_bench.decoders]
mix = {0}.mix:Mix
[lpmoe_bench.losses]
absolute = {0}.mix:absolute
[console_scripts]
other = {0}:main
"""


def test_an_installed_package_is_found_by_its_metadata(tmp_path, monkeypatch):
    name = "others_of_test"
    monkeypatch.syspath_prepend(install(tmp_path, name, POINTS.format(name), gain=GAIN, mix=MIX))
    assert list_methods() == [*zoo_methods(), "gain", "gone", "loss"]
    assert name not in sys.modules
    troubles = {one.name: one.trouble for one in all_plugins() if one.trouble}
    assert troubles.keys() == {"lora", "odd"}
    assert get_method("lora").title == "LoRA"
    assert get_method("gain").title == "Gain"
    for broken, words in {
        "gone": "needs others_of_test.gone, which is not installed",
        "odd": "entry point is 'others_of_test'; write module:Class",
        "loss": "is not derived from Method",
    }.items():
        with pytest.raises(ZooError, match=rf"method '{broken}' of {name} 1.2 .*{words}"):
            get_method(broken)
    facts = used_plugins(RunConfig(method="gain", decoder="mix"))
    assert [(f.kind, f.name, f.package, f.version) for f in facts] == [
        ("methods", "gain", name, "1.2"),
        ("decoders", "mix", name, "1.2"),
    ]
    # All files of the package count, for a class may call what stands beside it.
    assert facts[0].digest == facts[1].digest


def test_a_name_of_two_plug_ins_is_nobodys(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        write_file(folder, "gain", GAIN)
    monkeypatch.setenv(VARIABLE, f"{one / 'gain.py'}{os.pathsep}{two / 'gain.py'}")
    assert "gain" not in list_methods()
    with pytest.raises(ZooError, match="several plug-ins have this name"):
        get_method("gain")


def test_our_own_code_is_no_plug_in_and_a_changed_source_is_told(tmp_path):
    assert used_plugins(RunConfig()) == []
    add_plugin(write_file(tmp_path, "gain", GAIN))
    (here,) = used_plugins(RunConfig(method="gain"))
    assert (here.kind, here.source, here.package) == ("methods", "gain.py", "")
    assert str(tmp_path) not in here.model_dump_json()
    assert changed_plugins([here], [here]) == []
    then = here.model_copy(update={"digest": "0" * 64})
    assert "it is gain.py" in changed_plugins([then], [here])[0]
    assert "was no plug-in" in changed_plugins([], [here])[0]


def test_a_run_needs_its_plug_ins_but_not_its_loss(tmp_path):
    from sample_records import record

    facts = {"kind": "methods", "name": "gain", "source": "gain.py", "digest": "0" * 64}
    method, loss = PluginRecord(**facts), PluginRecord(**facts | {"kind": "losses"})
    trained = record().model_copy(update={"plugins": [method, loss]})
    with pytest.raises(UsageError, match=r"method 'gain', .* not here: give --plugin gain.py"):
        plugins_here(trained)
    add_plugin(write_file(tmp_path, "gain", GAIN))
    used, notes = plugins_here(trained)
    assert used[1] == loss
    assert len(notes) == 1
    installed = method.model_copy(update={"name": "other", "package": "x", "version": "3"})
    with pytest.raises(UsageError, match="not here: install x 3"):
        plugins_here(trained.model_copy(update={"plugins": [installed]}))


def test_a_fault_in_a_plug_in_names_its_own_line(tmp_path):
    start = "super().__init__(backbone)\n"
    text = GAIN.replace(start, f"{start}        1 / 0\n")
    add_plugin(write_file(tmp_path, "faulty", text))
    with pytest.raises(ZeroDivisionError) as caught:
        get_method("faulty")(tiny_backbone())
    sentence = explain_fault(caught.value)
    assert "method 'faulty' of faulty.py failed in __init__, line 22 of faulty.py" in sentence
    assert "ZeroDivisionError: division by zero" in sentence
    assert explain_fault(ValueError("ours")) is None


LIGHT = """
import sys
from lpmoe_bench.cli.app import app
from typer.testing import CliRunner
for words in (["--help"], ["run", "--help"], ["list", "methods"], ["list", "losses"]):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
assert "gain" in CliRunner().invoke(app, ["list", "methods"]).output
assert not {"torch", "others_of_light"} & set(sys.modules)
"""


def test_help_and_lists_import_neither_torch_nor_a_plug_in(tmp_path):
    points = "[lpmoe_bench.methods]\ngain = others_of_light.gain:Gain\n"
    site = install(tmp_path / "site", "others_of_light", points, gain=GAIN)
    mix = write_file(tmp_path, "mix", MIX)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(site)]))
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        env=os.environ | {"PYTHONPATH": path, VARIABLE: str(mix)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
