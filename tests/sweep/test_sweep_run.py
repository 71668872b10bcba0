"""The loop of a sweep on fake cells: what is skipped, tried again, given up, and said of it."""

import fcntl
import json

import pytest
from fake_sweeps import fake_cell, fake_sweep, run_fake, states

from lpmoe_bench.errors import FailedCellsError
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.provenance import code_facts
from lpmoe_bench.records.store import read_record, read_rows, write_record
from lpmoe_bench.sweep import runner
from lpmoe_bench.sweep.execute import cell_counts, print_status
from lpmoe_bench.sweep.local import LocalEngine
from lpmoe_bench.sweep.plan import sweep_folder, write_sweep
from lpmoe_bench.sweep.state import Claims


def trainings(runs, cell) -> int:
    """How often a fake cell trained to its end."""
    return len((runs / cell.folder / "trained").read_text().split())


def outcomes(state) -> list[str]:
    return [attempt.outcome for attempt in state.attempts]


def test_every_cell_is_run_once_and_finished_ones_are_skipped(tmp_path):
    cells = [fake_cell(method=method, seed=seed) for method in ("lora", "vpt") for seed in (0, 1)]
    run_fake(fake_sweep(*cells[:3]), tmp_path, jobs=2)
    run_fake(fake_sweep(*cells), tmp_path)  # another sweep, that shares three cells
    found = states(fake_sweep(*cells), tmp_path)
    assert [state.state for state in found.values()] == ["done"] * 4
    assert [trainings(tmp_path, cell) for cell in cells] == [1] * 4
    assert [outcomes(state) for state in found.values()] == [[], [], [], ["finished"]]
    assert cell_counts(tmp_path) == (4, 4, [])  # shared cells count once
    assert list((tmp_path / "sweeps/.claims").iterdir()) == []


def test_cells_whose_records_are_elsewhere_are_finished(tmp_path):
    planned = fake_sweep(fake_cell(seed=0), fake_cell(seed=1))
    run_fake(fake_sweep(fake_cell(seed=0)), tmp_path / "published")
    write_sweep(tmp_path / "runs", planned)
    assert cell_counts(tmp_path / "runs") == (2, 0, [])
    assert cell_counts(tmp_path / "runs", [tmp_path / "published"]) == (2, 1, [])


def test_a_cell_that_fails_twice_is_finished_at_the_third_attempt(tmp_path):
    sweep = fake_sweep(fake_cell("fail=2"), fake_cell(seed=1))
    run_fake(sweep, tmp_path)
    state = states(sweep, tmp_path)["cod-lora-s0"]
    assert outcomes(state) == ["failed", "failed", "finished"]
    assert [attempt.exit_code for attempt in state.attempts] == [3, 3, 0]
    assert state.attempts[0].reason == "a file was cut off at step 1"
    log = sweep_folder(tmp_path, sweep) / "attempts/cod-lora-s0" / state.attempts[0].log
    assert "error: a file was cut off" in log.read_text()


def test_what_would_fail_again_is_tried_once(tmp_path, capsys):
    sweep = fake_sweep(fake_cell("diverge"), fake_cell(seed=1))
    for _ in range(2):
        with pytest.raises(FailedCellsError, match=r"1 of 2 cells failed.*diverged"):
            run_fake(sweep, tmp_path)
    assert outcomes(states(sweep, tmp_path)["cod-lora-s0"]) == ["failed"]
    print_status(tmp_path, [], False)
    assert "(another try would end the same: training diverged" in capsys.readouterr().out
    with pytest.raises(FailedCellsError):
        run_fake(sweep, tmp_path, retry=True)
    assert outcomes(states(sweep, tmp_path)["cod-lora-s0"]) == ["failed"]  # since the reset


def test_finished_cells_of_other_code_are_kept_named_and_run_again_if_asked(tmp_path, capsys):
    sweep = fake_sweep(fake_cell(seed=0), fake_cell(seed=1))
    run_fake(sweep, tmp_path)
    folder = tmp_path / sweep.cells[0].folder
    made = read_record(folder).model_dump() | {"schema_version": 2, "decoder": {"name": "fpn"}}
    facts = code_facts("lora", "fpn")
    made["code"] = {"digest": "0", "modules": facts.modules | {"method_zoo.lora": "0"}}
    rows = read_rows(folder / "per_image.csv")
    old = write_record(folder, Record.model_validate(made), rows)
    run_fake(sweep, tmp_path)
    assert [trainings(tmp_path, cell) for cell in sweep.cells] == [1, 1]
    print_status(tmp_path, [], False)
    text = capsys.readouterr().out
    assert (
        "1 of 2 finished cells were made by other code of method, decoder or loss and are" in text
    )
    assert "kept: cod-lora-s0 (method_zoo.lora changed); --rerun-changed runs them again" in text
    run_fake(sweep, tmp_path, rerun_changed=True)
    assert [trainings(tmp_path, cell) for cell in sweep.cells] == [2, 1]
    kept = json.loads((folder / "superseded-1-run.json").read_text())
    assert kept == json.loads(old.model_dump_json())
    assert [state.state for state in states(sweep, tmp_path).values()] == ["done", "done"]


def test_a_cell_is_given_up_after_three_attempts_until_it_is_reset(tmp_path):
    sweep = fake_sweep(fake_cell("fail=4"), fake_cell(seed=1))
    with pytest.raises(FailedCellsError, match=r"1 of 2 cells failed.*cut off"):
        run_fake(sweep, tmp_path)
    assert trainings(tmp_path, sweep.cells[1]) == 1
    with pytest.raises(FailedCellsError):
        run_fake(sweep, tmp_path)
    assert len(states(sweep, tmp_path)["cod-lora-s0"].attempts) == 3  # nothing was tried
    assert cell_counts(tmp_path) == (2, 1, ["lora on cod, seed 0"])
    run_fake(sweep, tmp_path, retry=True)
    assert outcomes(states(sweep, tmp_path)["cod-lora-s0"]) == ["failed", "finished"]


def test_what_another_sweep_has_settled_meanwhile_is_not_tried_again(tmp_path, monkeypatch):
    """Both began when nothing had failed; together they try a cell three times, as one would."""
    sweep = fake_sweep(fake_cell(seed=2), fake_cell("fail=9"), fake_cell(seed=1))
    monkeypatch.setattr(runner, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(runner, "PATIENCE_SECONDS", 0.5)
    start = LocalEngine.start

    def start_after_the_other_sweep(engine, job):
        monkeypatch.setattr(LocalEngine, "start", start)
        with pytest.raises(FailedCellsError):
            run_fake(sweep, tmp_path)
        start(engine, job)

    monkeypatch.setattr(LocalEngine, "start", start_after_the_other_sweep)
    with pytest.raises(FailedCellsError, match="1 of 3 cells failed"):
        run_fake(sweep, tmp_path)
    assert outcomes(states(sweep, tmp_path)["cod-lora-s0"]) == ["failed"] * 3
    assert [trainings(tmp_path, sweep.cells[k]) for k in (0, 2)] == [1, 1]


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("signal=9", "killed by signal 9"),
        ("signal=11", "killed by signal 11"),
        ("silent", "without a record of the planned fingerprint"),
    ],
)
def test_a_crash_costs_that_cell_only_and_keeps_its_reason(tmp_path, label, reason):
    sweep = fake_sweep(fake_cell(label), fake_cell(seed=1))
    with pytest.raises(FailedCellsError):
        run_fake(sweep, tmp_path)
    found = states(sweep, tmp_path)
    assert [state.state for state in found.values()] == ["failed", "done"]
    assert reason in found["cod-lora-s0"].failures[0].reason


def test_out_of_memory_halves_the_micro_batch_and_is_no_failure(tmp_path):
    sweep = fake_sweep(fake_cell("memory=1"))
    run_fake(sweep, tmp_path)
    state = states(sweep, tmp_path)["cod-lora-s0"]
    assert outcomes(state) == ["out of memory"] * 3 + ["finished"]
    tried = [[f"runtime.micro_batch={size}"] for size in (4, 2, 1)]
    assert [attempt.changes for attempt in state.attempts] == [[], *tried]
    notes = read_record(tmp_path / sweep.cells[0].folder).notes
    assert "micro_batch=1, the batch is still 8" in notes[0]


def test_a_method_of_batch_statistics_recomputes_blocks_instead(tmp_path):
    sweep = fake_sweep(fake_cell("memory=4", batch_statistics=True))
    run_fake(sweep, tmp_path)
    attempts = states(sweep, tmp_path)["cod-lora-s0"].attempts
    assert [attempt.changes for attempt in attempts] == [[], ["runtime.checkpointing=true"]]


def test_memory_that_never_suffices_fails_at_the_end_of_the_ladder(tmp_path):
    cell = fake_cell("memory=0 fail=0")
    cell.settings["runtime"]["checkpointing"] = True  # so that it cannot help
    sweep = fake_sweep(cell)
    with pytest.raises(FailedCellsError, match="nothing is left that takes less memory"):
        run_fake(sweep, tmp_path)
    state = states(sweep, tmp_path)["cod-lora-s0"]
    assert outcomes(state) == ["out of memory"] * 3 + ["failed"] * 3


def test_a_cell_that_another_sweep_has_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(runner, "PATIENCE_SECONDS", 0.5)
    sweep = fake_sweep(fake_cell(), fake_cell(seed=1))
    other = Claims(tmp_path)
    assert other.take(sweep.cells[0])
    run_fake(sweep, tmp_path)
    found = states(sweep, tmp_path)
    assert [state.state for state in found.values()] == ["running", "done"]
    assert found["cod-lora-s0"].attempts == []
    other.release(sweep.cells[0])
    run_fake(sweep, tmp_path)
    assert trainings(tmp_path, sweep.cells[0]) == 1


def test_a_run_by_hand_is_waited_for_and_never_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(runner, "PATIENCE_SECONDS", 0.5)
    sweep = fake_sweep(fake_cell())
    folder = tmp_path / sweep.cells[0].folder
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_fake(sweep, tmp_path)
        assert states(sweep, tmp_path)["cod-lora-s0"].state == "running"
        monkeypatch.setattr(runner, "is_locked", lambda path: False)  # it took it just after
        run_fake(sweep, tmp_path)
    assert states(sweep, tmp_path)["cod-lora-s0"].attempts == []
    run_fake(sweep, tmp_path)
    assert states(sweep, tmp_path)["cod-lora-s0"].state == "done"


def test_status_tells_every_cell_to_people_and_machines(tmp_path, capsys):
    sweep = fake_sweep(fake_cell("fail=9"), fake_cell(seed=1), fake_cell(seed=2))
    write_sweep(tmp_path, sweep)
    print_status(tmp_path, [], False)
    assert "3 cells: 3 waiting" in capsys.readouterr().out
    with pytest.raises(FailedCellsError):
        run_fake(sweep, tmp_path)
    (tmp_path / sweep.cells[2].folder / "run.json").unlink()
    (tmp_path / sweep.cells[2].folder / "resume.safetensors").touch()
    capsys.readouterr()
    print_status(tmp_path, [], False)
    text = capsys.readouterr().out
    assert "3 cells: 1 done, 1 partly done, 1 failed" in text
    assert "3 of 3 attempts failed: a file was cut off at step 1; log: " in text
    assert "1 of 1 finished cells were made by other code (efefefefefef)" in text
    print_status(tmp_path, [], True)
    cells = json.loads(capsys.readouterr().out)[0]["cells"]
    assert [cell["state"] for cell in cells] == ["failed", "done", "partial"]


def test_status_tells_the_last_words_of_what_runs(tmp_path, capsys):
    sweep = fake_sweep(fake_cell("fail=9"))
    with pytest.raises(FailedCellsError):
        run_fake(sweep, tmp_path)
    claims = Claims(tmp_path)
    assert claims.take(sweep.cells[0])
    capsys.readouterr()
    print_status(tmp_path, [], False)
    assert "seed 0: error: a file was cut off at step 1\n" in capsys.readouterr().out
    log = states(sweep, tmp_path)["cod-lora-s0"].log
    assert log is not None
    log.write_text(log.read_text().splitlines()[0] + "\n")
    print_status(tmp_path, [], False)
    assert "lora on cod, seed 0: starting\n" in capsys.readouterr().out
    claims.release(sweep.cells[0])


def test_a_record_of_another_fingerprint_is_not_taken_for_the_cell(tmp_path):
    sweep = fake_sweep(fake_cell())
    run_fake(sweep, tmp_path)
    cell = sweep.cells[0].model_copy(update={"fingerprint": "lora" + "1" * 60})
    assert states(fake_sweep(cell), tmp_path)["cod-lora-s0"].state == "waiting"


def test_the_log_opens_with_the_command_to_type(tmp_path):
    sweep = fake_sweep(fake_cell("memory=4"))
    run_fake(sweep, tmp_path)
    folder = sweep_folder(tmp_path, sweep)
    logs = sorted((folder / "attempts/cod-lora-s0").glob("*.log"))
    first = logs[-1].read_text().splitlines()[0]
    settings = folder / "cells/cod-lora-s0.yaml"
    more = f"--runs {tmp_path} --set runtime.micro_batch=4"
    assert first == f"# lpmoe-bench run --config {settings} {more}"
