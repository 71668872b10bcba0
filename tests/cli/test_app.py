"""Command line."""

import json
import subprocess
import sys

import pytest
from drawn_files import noise_image, square_mask, write
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.cli.doctor import Finding, examine
from lpmoe_bench.console import Terminal
from lpmoe_bench.data.library.add import add_set
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.errors import BenchError, UsageError

COMMANDS = (
    "run",
    "evaluate",
    "score",
    "predict",
    "figure",
    "table",
    "list",
    "describe",
    "doctor",
    "publish",
    "merge",
    "export",
    "sweep",
)
runner = CliRunner()


def out(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str):
    assert "Usage" in out(command, "--help")


def test_help_names_every_command():
    text = out("--help")
    assert all(f" {command} " in text for command in COMMANDS)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("methods", "lpmoe"),
        ("tasks", "cod"),
        ("datasets", "camo"),
        ("backbones", "dinov2_small_imgfocus"),
        ("decoders", "fpn"),
        ("protocols", "cod"),
    ],
)
def test_list_and_describe_know_it(kind: str, name: str):
    assert name in [row[0] for row in json.loads(out("list", kind, "--json"))]
    assert name in out("describe", name)


def test_describe_a_method_shows_options_and_fidelity():
    text = out("describe", "lpmoe")
    assert "renormalise=False" in text
    assert "equal theirs to 1e-5" in text


def test_doctor_reports_without_changing_anything():
    names = [row[0] for row in json.loads(out("doctor", "--json"))]
    assert {"Python", "lpmoe-bench", "device", "data", "disk"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list", "method"], "did you mean 'methods'"),
        (["describe", "lroa"], "did you mean "),
        (["table", "nowhere"], "nowhere"),
        (["publish", "nowhere"], "no finished run"),
        (["run", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "--train-images", "a"], "all four"),
    ],
)
def test_errors_are_sentences(arguments: list[str], sentence: str):
    result = runner.invoke(app, arguments)
    assert isinstance(result.exception, BenchError)
    assert sentence in str(result.exception)
    assert "\n" not in str(result.exception)


def test_unknown_option_is_a_usage_error():
    assert runner.invoke(app, ["run", "--metod", "lora"]).exit_code == UsageError.exit_code


def test_help_imports_neither_torch_nor_anything_else_slow():
    code = (
        "import sys; from lpmoe_bench.cli import app; "
        "slow = {'torch', 'numpy', 'pandas', 'scipy', 'cv2', 'pydantic'} & set(sys.modules); "
        "sys.exit(', '.join(slow) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# What doctor finds of the data: sets in every layout, parts of sets, broken ones.


def data(root) -> Finding:
    (found,) = [finding for finding in examine(root) if finding.name == "data"]
    return found


def test_sets_that_data_add_took_in_are_found(tmp_path):
    for kind, pixels in (("image", noise_image()), ("mask", square_mask())):
        write(tmp_path / "down" / "train" / kind / "a.png", pixels)
    root = tmp_path / "root"
    add_set(load_registry().dataset("gdd"), tmp_path / "down", root, Terminal(quiet=True))
    write(root / "mine" / "images" / "a.png", noise_image())
    assert data(root) == Finding("data", f"{root}: gdd (partly), mine")
    (root / "gdd/train/masks/a.png").unlink()
    broken = data(root)
    assert broken.value == f"{root}: gdd (broken), mine"
    assert broken.advice == "lpmoe-bench data verify gdd"


def test_a_folder_without_sets(tmp_path):
    assert data(tmp_path).value == f"{tmp_path}: no sets"
    assert "does not exist" in data(tmp_path / "none").value
