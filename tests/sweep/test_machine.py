"""A sweep as a state machine: kills, stops, failures and half files in any order lose nothing."""

import hashlib
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from fake_sweeps import fake_cell, fake_sweep, states
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sample_records import record

from lpmoe_bench.console import Terminal
from lpmoe_bench.errors import FailedCellsError, InterruptedRun, ResourceError
from lpmoe_bench.records.store import read_record, write_record
from lpmoe_bench.sweep import execute, runner
from lpmoe_bench.sweep.local import CellJob, Ended
from lpmoe_bench.sweep.plan import read_attempts, sweep_folder
from lpmoe_bench.sweep.state import MOST_ATTEMPTS

COUNT = int(os.environ.get("LPMOE_BENCH_EXAMPLES", "25"))
CELLS = [fake_cell(method=name, seed=seed) for name in ("lora", "vpt") for seed in range(2)]
SWEEP = fake_sweep(*CELLS)
ROWS = [{"dataset": "CAMO", "image": "a", "s_measure": 0.75}]
# What may become of a cell, and of the sweep while it runs one.
ENDS = ("finish", "fail", "memory", "half", "silent", "stop", "kill", "late kill")


class Killed(BaseException):
    """What a kill is to a process: nothing below it is carried out."""


class ScriptedEngine:
    """Cells that end as a script says, at once, and leave on disk what such a cell leaves."""

    jobs = 1

    def __init__(self, script: list[str]):
        self.script, self.started = list(script), list[str]()
        self.results: list[tuple[CellJob, Ended, float]] = []
        self.waiting: list[CellJob] = []

    def free(self) -> bool:
        return not self.results and not self.waiting

    def start(self, job: CellJob) -> None:
        self.started.append(job.cell.name)
        job.log.write_text("# lpmoe-bench run\n")
        end = self.script.pop(0) if self.script else "finish"
        folder = job.runs / job.cell.folder
        if end == "kill":
            raise Killed
        if end == "stop":
            self.waiting.append(job)
            signal.raise_signal(signal.SIGINT)
            return
        if end in ("finish", "late kill"):
            made = record(seed=job.cell.seed, fingerprint=job.cell.fingerprint)
            write_record(folder, made, ROWS)
        if end == "late kill":  # the cell ends well, its sweep never hears of it
            raise Killed
        if end == "half":
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "per_image.csv").write_text("dataset,im")
            (folder / ".run.json.half").write_text('{"schema')
        ended = {
            "finish": Ended(0),
            "fail": Ended(7, "error: training diverged at step 1\n"),
            "memory": Ended(6, "error: out of memory at batch 8\n"),
            "half": Ended(-signal.SIGKILL),
            "silent": Ended(0),
        }
        self.results.append((job, ended[end], 1.0))

    def ended(self) -> list[tuple[CellJob, Ended, float]]:
        found, self.results = self.results, []
        return found

    def stop(self) -> None:
        self.results += [(job, Ended(130, "error: interrupted\n"), 1.0) for job in self.waiting]
        self.waiting = []

    def close(self) -> None:
        self.results, self.waiting = [], []


class SweepMachine(RuleBasedStateMachine):
    """Starts the same sweep again and again; remembers which cells were ever seen finished."""

    def __init__(self):
        super().__init__()
        self.runs = Path(tempfile.mkdtemp(prefix="sweep-machine-"))
        self.finished: dict[str, str] = {}

    def teardown(self):
        shutil.rmtree(self.runs)

    def go(self, script: list[str], killed_at: int | None = None, retry: bool = False):
        """Run the sweep; `killed_at` kills it at that change of a file's name."""
        engine, replace, left = ScriptedEngine(script), os.replace, killed_at

        def counted(*names):
            nonlocal left
            if left is not None:
                if left == 0:
                    raise Killed
                left -= 1
            return replace(*names)

        os.replace = counted
        try:
            execute.run_planned(
                *(SWEEP, self.runs, False, execute.SweepMode(retry=retry), True),
                *(Terminal(quiet=True), {}, engine),
            )
        finally:
            os.replace = replace
            again = [name for name in engine.started if name in self.finished]
            assert not again, f"finished, and started again: {again}"

    @rule(script=st.lists(st.sampled_from(ENDS), max_size=6), retry=st.booleans())
    def run(self, script, retry):
        with suppress(Killed, InterruptedRun, FailedCellsError):
            self.go(script, retry=retry)

    @rule(script=st.lists(st.sampled_from(ENDS[:4]), max_size=4), moment=st.integers(0, 12))
    def run_and_be_killed_while_a_file_is_written(self, script, moment):
        with suppress(Killed, FailedCellsError):
            self.go(script, moment)

    @rule()
    def run_to_the_end(self):
        with suppress(FailedCellsError):
            self.go([])
        kinds = {state.state for state in states(SWEEP, self.runs).values()}
        assert kinds <= {"done", "failed"}

    @rule()
    def retry_to_the_end(self):
        self.go([], retry=True)
        assert {state.state for state in states(SWEEP, self.runs).values()} == {"done"}

    @invariant()
    def nothing_finished_is_lost_or_changed(self):
        if not (self.runs / "sweeps").exists():
            return
        now = {}
        for cell in CELLS:
            folder = self.runs / cell.folder
            if (folder / "run.json").exists():
                read_record(folder)  # whole, wherever the kill came
                content = (folder / "run.json").read_bytes() + (
                    folder / "per_image.csv"
                ).read_bytes()
                now[cell.name] = hashlib.sha256(content).hexdigest()
        assert self.finished.items() <= now.items()
        self.finished = now

    @invariant()
    def attempts_are_counted_as_they_were(self):
        folder = sweep_folder(self.runs, SWEEP)
        if not folder.exists():
            return
        for cell in CELLS:
            outcomes = [attempt.outcome for attempt in read_attempts(folder, cell)]
            assert outcomes.count("finished") <= 1
            assert outcomes.count("failed") <= MOST_ATTEMPTS


def quick(monkeypatch):
    monkeypatch.setattr(runner, "POLL_SECONDS", 0)
    monkeypatch.setattr(execute, "other_code", lambda found: [])  # asks git each time
    monkeypatch.setattr(execute, "show_result", lambda *given: None)


@pytest.mark.faults
def test_any_order_of_kills_stops_and_failures(monkeypatch):
    quick(monkeypatch)
    run_state_machine_as_test(
        SweepMachine,
        settings=settings(
            max_examples=max(3, COUNT // 8),
            stateful_step_count=8,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.faults
def test_a_full_disk_ends_the_sweep_in_a_sentence_and_it_goes_on(monkeypatch):
    quick(monkeypatch)
    machine = SweepMachine()
    try:
        with suppress(Killed):
            machine.go(["finish", "kill"])
        machine.nothing_finished_is_lost_or_changed()
        fsync = os.fsync

        def full(handle):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ResourceError, match="the disk is full"):
            machine.go([])
        monkeypatch.setattr(os, "fsync", fsync)
        machine.nothing_finished_is_lost_or_changed()
        machine.run_to_the_end()
        assert len(machine.finished) == 1
        machine.nothing_finished_is_lost_or_changed()
        assert len(machine.finished) == len(CELLS)
    finally:
        machine.teardown()
