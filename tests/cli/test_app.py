"""The command line: help, options that mean one thing, old spellings, refusals without torch."""

import json
import platform
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import segment_anything
import typer
from drawn_files import noise_image, square_mask, write
from typer.testing import CliRunner

import method_zoo
from lpmoe_bench.cli.app import app
from lpmoe_bench.cli.doctor import Finding, changed_files, examine
from lpmoe_bench.cli.options import RENAMED
from lpmoe_bench.config.settings import LOSSES, MATCHING, RunConfig, setting_fields
from lpmoe_bench.console import Terminal
from lpmoe_bench.data.library.add import add_set
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.errors import BenchError, UsageError
from lpmoe_bench.model import decoders
from lpmoe_bench.model.decoders.names import get_decoder, list_decoders
from lpmoe_bench.model.label_losses import LABEL_LOSSES
from lpmoe_bench.model.losses import LOSSES as FORMULAS
from method_zoo.options import signature_options
from method_zoo.source import read_source

REFUSED = {
    "unknown method 'lroa'; did you mean 'lora'": ["run", "--method", "lroa"],
    "unknown option of LoRA 'rnk'; did you mean 'rank'": [
        *("run", "--method", "lora", "--set", "rnk=2")
    ],
    "option rank of LoRA is 'two'": ["run", "--method", "lora", "--set", "rank=two"],
    "unknown option of decoder FPN 'wdth'": ["run", "--task", "cod", "--set", "decoder.wdth=3"],
    "size is 100; it must be a multiple of 32": ["run", "--size", "100"],
    "unknown loss 'dice'": ["run", "--task", "cod", "--set", "train.loss=dice"],
    "unknown setting 'train.lrr'": ["run", "--task", "cod", "--set", "train.lrr=1"],
    "unknown task 'codd'": ["run", "--task", "codd"],
    "unknown decoder 'fpnn'": ["run", "--decoder", "fpnn"],
    "unknown recipe 'x'": ["run", "--recipe", "x"],
    "unknown method 'lpmo'": ["sweep", "--method", "lora,lpmo", "--task", "cod"],
    "size is 33": ["profile", "--method", "lora", "--size", "33"],
    "holds no run.json": ["predict", "tests", "image.png"],
    "tests holds no run.json": ["evaluate", "tests", "--test-set", "camo/test"],
}
EARLY = """
import json, sys
from typer.testing import CliRunner
from lpmoe_bench.cli.app import app
from lpmoe_bench.cli.doctor import Finding, examine
for words, args in json.loads(sys.argv[1]).items():
    done = CliRunner().invoke(app, args)
    assert words in str(done.exception), (args, done.output, done.exception)
    assert "torch" not in sys.modules, args
"""


def commands(group, above: str = ""):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{above}{name} ")
        elif not command.hidden:
            yield f"{above}{name}", command


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_and_the_options_for_machines(name):
    options = {text for p in ALL[name].params for text in (*p.opts, *p.secondary_opts)}
    assert {"--json", "--quiet", "--no-color"} <= options
    assert f"{name.split()[0]} " in call("--help").stdout
    assert "Usage" in call(*name.split(), "--help").stdout


def test_one_name_means_one_thing():
    """Records, test sets, methods and tasks have the same option wherever they are chosen."""
    for name, command in ALL.items():
        options = {text for p in command.params for text in p.opts}
        assert not options & {"--root", "--methods", "--tasks", "--data", "--sets"}, name
        if "--set" in options:
            assert name in ("run", "profile", "contract", "import")  # a setting, as in `sweep`
    for name in ("table", "report", "compare", "check check", "check pin", "check update"):
        options = {text for p in ALL[name].params for text in p.opts}
        assert {"--only", "--task", "--test-set", "--method"} <= options, name


def kind_of(hint):
    """The type of one value: int of `list[int] | None`."""
    inner = [one for one in get_args(hint) if one is not type(None)]
    return kind_of(inner[0]) if inner else hint


def test_no_option_is_a_number_here_and_a_path_there():
    kinds = defaultdict(lambda: defaultdict(list))
    for name, command in ALL.items():
        hints = get_type_hints(command.callback)
        for parameter in (one for one in command.params if one.name in hints):
            for text in parameter.opts:
                kinds[text][kind_of(hints[parameter.name])].append(name)
    several = {text: dict(found) for text, found in kinds.items() if len(found) > 1}
    # Images of `data add` are a folder's name inside another one; to `profile` a number of classes
    # does as well as their list.
    assert several.keys() == {"--images", "--classes"}, several


def test_older_names_lead_to_options_that_exist():
    for name, renamed in RENAMED.items():
        if name in ALL:  # sweep is a group
            known = {text for p in ALL[name].params for text in p.opts}
            assert set(renamed.values()) <= known
            assert not renamed.keys() & known


def test_plain_means_no_escapes_at_all(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    words = ("compare", "41d3b80aaace", "84d0a33ab675", "--records", "results/records")
    assert "\x1b[" in call(*words).stdout
    assert "\x1b[" not in call(*words, "--no-color").stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in call(*words).stdout


def test_what_settings_alone_can_refuse_does_not_wait_for_torch():
    code = [sys.executable, "-c", EARLY, json.dumps(REFUSED)]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_sources_say_what_classes_say():
    for name in method_zoo.list_methods():
        found, cls = read_source(method_zoo, name), method_zoo.get_method(name)
        assert found.options == signature_options(cls), name
        for fact in ("title", "preset", "decoder", "later_options", "batch_statistics"):
            assert found.attributes[fact] == getattr(cls, fact), (name, fact)
    for name in list_decoders():
        found, cls = read_source(decoders, name, "Decoder"), get_decoder(name)
        assert found.options == signature_options(cls), name
        assert found.attributes["title"] == cls.title
    for kind, formulas in (("binary", FORMULAS), ("semantic", LABEL_LOSSES)):
        named = {name for name, facts in LOSSES.items() if kind in facts.kinds}
        assert named - {MATCHING} == formulas.keys()


def test_defaults_in_help_are_those_of_the_settings():
    shown = {p.opts[0]: p.show_default for p in ALL["run"].params}
    for name in ("method", "task", "backbone", "size", "seed"):
        assert shown[f"--{name}"] == str(RunConfig.model_fields[name].default)


def call(*words):
    done = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_old_spellings_work_with_a_note():
    records = "results/records"
    words = ("compare", "41d3b80aaace", "84d0a33ab675", "--json")
    new, old = call(*words, "--records", records), call(*words, "--root", records)
    assert json.loads(new.stdout) == json.loads(old.stdout)
    assert "--root is now --records" in old.stderr
    assert "is now" not in new.stderr


def test_lists_tell_what_can_be_listed_and_settings_explain_themselves():
    kinds = [line.split()[0] for line in call("list").stdout.splitlines()]
    assert {"methods", "metrics", "settings", "losses", "recipes"} <= set(kinds)
    for kind in kinds:
        call("list", kind, "--json")
    listed = {name for name, _ in json.loads(call("list", "settings", "--json").stdout)}
    assert listed == {
        n for n, info in setting_fields().items() if not isinstance(info.default, dict)
    }
    told = dict(json.loads(call("describe", "train.lr", "--json").stdout))
    assert (told["default"], told["limits"]) == ("0.001", "above 0")
    assert "train.loss=structure" in call("describe", "structure").stdout


def test_version_bare_run_and_an_unknown_option_do_not_train():
    unknown = CliRunner().invoke(app, ["run", "--metod", "lora"])
    assert unknown.exit_code == UsageError.exit_code
    from lpmoe_bench import __version__

    assert call("--version").stdout == f"lpmoe-bench {__version__}\n"
    assert "--method" in CliRunner().invoke(app, ["run"]).output


def test_several_settings_of_a_method_say_how_they_differ(tmp_path, monkeypatch):
    done = CliRunner().invoke(app, ["compare", "lora", "lpmoe", "--records", "results/records"])
    (tasks,) = re.findall(r"which differ in task \(([^)]*)\)", str(done.exception))
    assert {"camvid", "cod", "glass"} <= {*tasks.split(", ")}
    found = call(
        *("compare", "lora", "lpmoe", "--records", "results/records", "--task", "cod"),
        *("--only", "train.limit_train=150", "--test-set", "camo/test", "--json"),
    )
    assert {line["test_set"] for line in json.loads(found.stdout)["lines"]} == {"camo/test"}
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["compare", "lora", "lpmoe"])
    assert "there are no records here" in str(done.exception)


def test_a_fault_of_many_records_is_said_once(tmp_path):
    for k in range(30):
        (tmp_path / f"r{k}").mkdir()
        (tmp_path / f"r{k}/run.json").write_text("half")
    for words in (["table"], ["report"], ["compare", "lora", "vpt", "--records"]):
        error = str(CliRunner().invoke(app, [*words, str(tmp_path)]).exception)
        assert error.startswith("no record can be read; left out: 30 records for one reason")
        assert error.count("not valid JSON") == 1


def test_a_fault_of_many_maps_is_said_once(tmp_path):
    for folder in ("maps", "masks"):
        for k in range(5):
            write(tmp_path / folder / f"{k}.png", square_mask())
    for path in (tmp_path / "maps").iterdir():
        path.write_bytes(b"no image")
    where = ("--gt", str(tmp_path / "masks"), "--runs", str(tmp_path / "runs"), "--jobs", "1")
    error = str(CliRunner().invoke(app, ["score", str(tmp_path / "maps"), *where]).exception)
    assert "5 of them, such as" in error
    assert error.count("cannot be decoded") == 1


def test_filters_narrow_baseline_and_candidates_alike(tmp_path):
    words = ("check", "check", "results/records", "--baseline", "results/baseline.json")
    done = CliRunner().invoke(app, [*words, "--method", "vpt"])
    assert "no pinned cell is left by these filters" in str(done.exception)
    done = CliRunner().invoke(app, [*words, "--method", "lora", "--json"])
    assert {line["verdict"] for line in json.loads(done.stdout)["lines"]} == {"not comparable"}
    assert done.exit_code == 5


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
    assert name in [row[0] for row in json.loads(call("list", kind, "--json").stdout)]
    assert name in call("describe", name).stdout


@pytest.mark.parametrize(
    ("name", "known", "facts"),
    [
        ("dinov2_vits14", "vit_small_patch14_dinov2.lvd142m", "patch 14, positions of 37 x 37"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224", "mean 0.5 0.5 0.5"),
        ("uni_perceiver_large", "uni_perceiver_large", "14 x 14 resized without antialias"),
    ],
)
def test_describe_knows_every_name_that_run_accepts(name: str, known: str, facts: str):
    told = dict(json.loads(call("describe", name, "--json").stdout))
    assert told["backbone"] == known
    assert facts in told["facts"]
    assert told["use"] == f"--backbone {known}"
    assert told["weights"]


def test_describe_a_method_shows_options_and_fidelity():
    text = call("describe", "lpmoe").stdout
    assert "renormalise=False" in text
    assert "equal theirs to 1e-5" in text


def test_doctor_reports_without_changing_anything():
    names = [row[0] for row in json.loads(call("doctor", "--json").stdout)]
    assert {"Python", "lpmoe-bench", "device", "data", "disk"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list", "method"], "did you mean 'methods'"),
        (["describe", "lroa"], "did you mean "),
        (["table", "nowhere"], "nowhere"),
        (["publish", "nowhere"], "no finished run"),
        (["run", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "--train-images", "a"], "need --train-images and --train-masks"),
        (["run", "--train-images", "a", "--train-masks", "b"], "--split 0.2"),
    ],
)
def test_errors_are_sentences(arguments: list[str], sentence: str):
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, BenchError)
    assert sentence in str(result.exception)
    assert "\n" not in str(result.exception)


def test_segment_anything_is_the_one_that_was_published(tmp_path):
    (found,) = [finding for finding in examine(None) if finding.name == "segment-anything"]
    assert found == Finding("segment-anything", "1.0, every file as published")
    folder = tmp_path / "segment_anything"
    shutil.copytree(Path(segment_anything.__file__).parent, folder)
    assert changed_files(folder) == []
    (folder / "predictor.py").unlink()
    (folder / "more.py").touch()
    with open(folder / "modeling/common.py", "a") as file:
        file.write("#")
    assert changed_files(folder) == ["modeling/common.py", "more.py", "predictor.py"]


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


PAGES = """
import resource, sys, torch
if sys.argv[1:]:
    from lpmoe_bench.cli.app import main
    from lpmoe_bench.training import run
    run.run_request = lambda *asked: sys.exit()
    try:
        main()
    except SystemExit:
        pass
for keep in (None, None, None, None, None, False):
    if keep is not None:
        from lpmoe_bench.environment import keep_freed_memory
        keep_freed_memory(keep)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24 if keep is None else 2**26)  # 64 or 256 MiB, which are freed at once
    print("pages", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no other allocator is told")
def test_a_run_takes_what_it_freed_again_until_it_is_told_otherwise():
    found = []
    for arguments in ([], ["run", "--method", "lora", "--task", "cod", "--embedded"]):
        command = [sys.executable, "-c", PAGES, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append([int(n) for n in re.findall(r"pages (\d+)", done.stdout)])
    plain, (*kept, given_back) = found
    assert min(*plain, given_back) > 10 * max(kept[-2:])  # at first it grows
