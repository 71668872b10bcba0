"""The `check` commands: files, errors in one sentence, exit codes, what CI systems read."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gate_records import METRICS as KEYS
from gate_records import call, cells, draw, pinned, store
from sample_records import record
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import BenchError
from lpmoe_bench.gate.baseline import Policy, read_baseline, write_baseline
from lpmoe_bench.gate.judge import judge_cells
from lpmoe_bench.gate.outputs import plain_markdown, summary_markdown, to_junit
from lpmoe_bench.gate.pin import pin_cells

METRICS = ",".join(KEYS)


@pytest.fixture
def base(tmp_path):
    return pinned(tmp_path)


def test_exit_codes_and_every_form_of_output(base, tmp_path, monkeypatch):
    _, file = base
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    for seed in range(2):
        store(tmp_path / "new", seed, values=draw(seed, shift=-0.2))
    junit = tmp_path / "out" / "gate.xml"
    arguments = ("check", tmp_path / "new", "--baseline", file, "--junit", junit)
    shown = call(*arguments, code=10)
    assert "gate: regressed (2 regressed, 6 pass)" in shown
    assert "is past the limit" in shown
    found = json.loads(call(*arguments, "--json", "--summary", tmp_path / "own.md", code=10))
    assert (found["verdict"], found["exit_code"]) == ("regressed", 10)
    suite = ElementTree.parse(junit).getroot()[0]
    assert suite.attrib["failures"] == "2"
    assert len(suite.findall("testcase/failure")) == 2
    assert step.read_text().startswith("before\n## Gate: ❌ regressed")
    assert "| ❌ | S ↑ |" in (tmp_path / "own.md").read_text()
    missing = call("check", tmp_path / "base", "--baseline", file)
    assert "gate: pass" in missing


def test_a_damaged_candidate_is_told_wherever_a_verdict_is_read(base, tmp_path):
    records, file = base
    next(records.rglob("run.json")).write_text("{")
    places = ("--junit", tmp_path / "gate.xml", "--summary", tmp_path / "own.md")
    found = json.loads(call("check", records, "--baseline", file, "--json", *places))
    assert any("run.json is not valid JSON" in note for note in found["notes"])
    assert "is not valid JSON" in call("check", records, "--baseline", file)
    assert "note:" not in call("check", records, "--baseline", file, "--quiet")
    for place in places[1::2]:
        assert "is not valid JSON" in place.read_text()


def test_speeds_of_unlike_hardware_are_not_pinned_which_is_said(tmp_path):
    where = record().environment.model_dump()
    for seed in range(2):
        store(tmp_path / "new", seed, environment=where | {"device": f"cpu, {seed} threads"})
    command = ["check", "pin", str(tmp_path / "new"), "--baseline", str(tmp_path / "b.json")]
    result = CliRunner().invoke(app, command)
    assert "no speed is pinned, its seeds ran on unlike hardware" in result.stderr
    assert read_baseline(tmp_path / "b.json").cells[0].speed is None


def test_no_candidates_and_folders_that_are_none(base, tmp_path):
    _, file = base
    (tmp_path / "empty").mkdir()
    assert "nothing to judge" in call("check", tmp_path / "empty", "--baseline", file, code=5)
    assert "is no folder" in call("check", tmp_path / "typo", "--baseline", file, code=2)


EVIL = "<b>&\"'|`*_[x](http://x)\n# @me\x00\x1b]]>"


def test_names_cannot_write_into_what_others_read(tmp_path):
    made = {"task": EVIL, "method": {"name": EVIL, "title": EVIL}}
    for seed in range(2):
        store(tmp_path, seed, "lora", **made)
    found = cells(tmp_path)
    outcome = judge_cells(pin_cells(found, Policy(), "x", ["mae"]), found, Policy())
    root = ElementTree.fromstring(to_junit(outcome, strict=True).encode())
    assert "<b>&\"'|`*_[x](http://x)" in root[0][0].attrib["classname"]
    text = summary_markdown(outcome)
    assert "<b>" not in text
    assert "[x]" not in text
    assert "@me" not in text
    assert "\x1b" not in text
    heading = next(line for line in text.splitlines() if line.startswith("### "))
    assert "x&#41;" in heading  # one line: a heading cannot be broken out of


def test_a_cell_of_a_table_stays_one_cell():
    assert "|" not in plain_markdown("a|b")
    assert "\n" not in plain_markdown("a\nb")
    assert plain_markdown("plain words 1.5") == "plain words 1.5"


def test_strict_makes_a_doubt_a_failure_in_junit(tmp_path):
    store(tmp_path / "one", 0)
    baseline = pin_cells(cells(tmp_path / "one"), Policy(), "x", ["mae"])
    store(tmp_path / "new", 1)
    outcome = judge_cells(baseline, cells(tmp_path / "new"), Policy())
    for strict, failures, skipped in ((False, "0", "1"), (True, "1", "0")):
        suite = ElementTree.fromstring(to_junit(outcome, strict).encode())[0]
        assert (suite.attrib["failures"], suite.attrib["skipped"]) == (failures, skipped)


def test_update_shows_what_changes_and_wants_a_reason(base, tmp_path):
    _, file = base
    before = file.read_bytes()
    for seed in range(3):
        store(tmp_path / "new", seed, values=draw(seed, shift=0.1))
        store(tmp_path / "new", seed, "vpt")
    shown = CliRunner().invoke(
        app, ["check", "update", str(tmp_path / "new"), "--baseline", str(file)]
    )
    assert shown.exit_code == 0
    assert "--reason TEXT" in shown.stdout
    assert "seeds 0 1 2 3 4 against 0 1 2" in shown.stdout
    assert "cod/vpt/small/vpt000000000 on CAMO by cod: new, 3 seeds" in shown.stdout
    assert file.read_bytes() == before
    call("update", tmp_path / "new", "--baseline", file, "--reason", "a better schedule")
    read = read_baseline(file)
    assert [change.reason for change in read.history] == ["first pin", "a better schedule"]
    assert len(read.history[1].changes) == 2
    assert [len(cell.seeds) for cell in read.cells] == [3, 3]
    assert list(read.cells[0].metrics) == METRICS.split(",")  # those that were pinned
    said = call("update", tmp_path / "new", "--baseline", file)
    assert "change nothing" in said


def test_update_takes_a_new_setting_for_the_old_one(base, tmp_path):
    _, file = base
    store(tmp_path / "new", 0, fingerprint="e" * 64, train={"epochs": 9})
    shown = call("update", tmp_path / "new", "--baseline", file, "--reason", "longer")
    assert "epochs 3 against 9" in shown
    assert [cell.seeds for cell in read_baseline(file).cells] == [[0]]


def test_explain_says_where_the_limit_comes_from(base, tmp_path):
    _, file = base
    for seed in range(2):
        store(tmp_path / "new", seed, values=draw(seed, shift=-0.01))
    said = call("explain", tmp_path / "new", "--baseline", file, "--metric", "mae")
    for words in (
        "5 seeds with a mean of",
        "nested within the seeds",
        "since 2 scores share the 0.05",
        "So the limit is",
        "a score above it is a regression",
        "The candidate scores",
        "seed 0 +0.01",
    ):
        assert words in said
    (tmp_path / "none").mkdir()
    said = call("explain", tmp_path / "none", "--baseline", file)
    assert "No candidate is there" in said
    assert "did you mean 'mae'" in call("explain", "--baseline", file, "--metric", "maee", code=2)
    assert "unknown cell" in call("explain", "--baseline", file, "--cell", "zzz", code=2)


def test_explain_asks_which_of_several_cells(base, tmp_path):
    records, file = base
    store(tmp_path / "new", 0, "vpt")
    call("update", tmp_path / "new", "--baseline", file, "--reason", "one more")
    assert "means 2 cells" in call("explain", "--baseline", file, code=2)
    assert "one seed" in call("explain", records, "--baseline", file, "--cell", "vpt")


@pytest.mark.faults
def test_a_full_disk_leaves_the_old_baseline(base, monkeypatch):
    _, file = base
    before, read = file.read_bytes(), read_baseline(file)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BenchError, match="the disk is full"):
        write_baseline(file, read)
    assert file.read_bytes() == before


def test_workflow_and_make_run_the_same_cell():
    import yaml

    root = Path(__file__).parents[2]
    jobs = yaml.safe_load((root / ".github" / "workflows" / "metrics.yml").read_text())["jobs"]
    steps = " ".join(step.get("run", "") for step in jobs["gate"]["steps"])
    make = (root / "Makefile").read_text()
    for words in ("--config .ci/gate.yaml --embedded", "--baseline results/baseline.json"):
        assert words in steps
        assert words in make
    assert "for seed in 0 1" in steps
    assert "GATE_SEEDS ?= 0 1" in make
