"""Cells that a warm process forks: what they are, what befalls them, and what befalls it."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from fake_sweeps import FAKE, fake_cell, fake_sweep, states
from tiny_runs import is_alive

from lpmoe_bench.console import Terminal
from lpmoe_bench.errors import FailedCellsError
from lpmoe_bench.sweep.execute import SweepMode, run_planned
from lpmoe_bench.sweep.local import Forked, LocalEngine
from lpmoe_bench.sweep.plan import Sweep
from lpmoe_bench.sweep.warm import WarmProcess, can_adopt

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="cells start by themselves there"),
]


def settled(program=FAKE) -> WarmProcess:
    assert can_adopt()
    warm = WarmProcess(program, {"OF_CELLS": "7"})
    while not warm.is_settled():
        time.sleep(0.01)
    return warm


def written(path: Path, text: str) -> tuple[str, ...]:
    path.write_text(text)
    return (sys.executable, str(path))


def run_warm(sweep: Sweep, runs: Path, jobs: int = 1) -> WarmProcess:
    warm = settled()
    engine = LocalEngine([{} for _ in range(jobs)], FAKE, warm)
    run_planned(sweep, runs, False, SweepMode(), False, Terminal(quiet=True), {}, engine)
    return warm


def outcomes(sweep: Sweep, runs: Path) -> list[list[str]]:
    found = states(sweep, runs).values()
    return [[attempt.outcome for attempt in state.attempts] for state in found]


def test_a_forked_cell_is_a_process_like_one_that_was_started(tmp_path):
    program = written(
        tmp_path / "cell.py",
        "import json, os, sys\n"
        "facts = {'words': sys.argv[1:], 'name': __name__, 'parent': os.getppid(),\n"
        "         'group': os.getpgid(0) == os.getpid(), 'of_cells': os.environ['OF_CELLS']}\n"
        "print(json.dumps(facts), file=sys.stderr)\n"
        "print('to nobody')\n"
        "sys.exit(5)\n",
    )
    warm = settled(program)
    log = tmp_path / "log"
    log.write_text("# head\n")
    for word in ("a b", "c"):
        pid = warm.fork([word], log)
        assert pid
        process = Forked(pid)
        assert process.wait() == process.poll() == 5
        process.terminate()  # gone already: nobody else is meant
    warm.close()
    head, *lines = log.read_text().splitlines()
    assert head == "# head"
    assert [json.loads(line) for line in lines] == [
        {"words": [w], "name": "__main__", "parent": os.getpid(), "group": True, "of_cells": "7"}
        for w in ("a b", "c")
    ]


def test_a_crash_costs_the_forked_cell_alone(tmp_path):
    sweep = fake_sweep(fake_cell("signal=11"), fake_cell(seed=1), fake_cell("fail=1", seed=2))
    with pytest.raises(FailedCellsError, match=r"1 of 3 cells failed.*signal 11"):
        run_warm(sweep, tmp_path, jobs=2)
    assert outcomes(sweep, tmp_path) == [["failed"] * 3, ["finished"], ["failed", "finished"]]


def test_cells_outlive_the_warm_process_and_the_others_start_by_themselves(tmp_path):
    warm = settled()
    sweep = fake_sweep(fake_cell("steps=3 pause=0.1"), fake_cell(seed=1))
    fork, pids = warm.fork, []

    def fork_and_be_killed(words, log):
        pids.append(fork(words, log))
        if len(pids) == 1:
            os.kill(warm.process.pid, signal.SIGKILL)
        return pids[-1]

    warm.fork = fork_and_be_killed
    engine = LocalEngine([{}], FAKE, warm)
    run_planned(sweep, tmp_path, False, SweepMode(), False, Terminal(quiet=True), {}, engine)
    assert pids[0]
    assert pids[1] is None
    assert outcomes(sweep, tmp_path) == [["finished"], ["finished"]]


def test_without_a_warm_process_that_starts_cells_start_by_themselves(tmp_path):
    warm = settled((sys.executable, "-m", "no_such_module"))
    assert warm.fork([], tmp_path / "log") is None
    engine = LocalEngine([{}], FAKE, warm)
    sweep = fake_sweep(fake_cell())
    run_planned(sweep, tmp_path, False, SweepMode(), False, Terminal(quiet=True), {}, engine)
    assert outcomes(sweep, tmp_path) == [["finished"]]


def test_it_ends_with_the_sweep_and_a_cell_that_is_stopped_too(tmp_path):
    program = written(tmp_path / "cell.py", "import time\ntime.sleep(60)\n")
    warm, log = settled(program), tmp_path / "log"
    log.touch()
    pid = warm.fork([], log)
    assert pid
    cell = Forked(pid)
    assert cell.poll() is None
    warm.close()
    assert not is_alive(warm.process.pid)
    assert is_alive(pid)
    cell.send_signal(signal.SIGKILL)
    assert cell.wait() == -signal.SIGKILL
