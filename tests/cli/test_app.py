"""The command line: help in time, lists, descriptions, one-line errors, base install."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import BenchError, UsageError

COMMANDS = (
    "run",
    "evaluate",
    "score",
    "predict",
    "picture",
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
