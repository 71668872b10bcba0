"""A sweep that is killed at random moments: no half record, no lost cell, none run twice."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from fake_sweeps import FAKE, fake_cell, fake_sweep
from tiny_runs import environment, is_alive
from tiny_sweeps import draw_sets, finish, records, start, sweep

from lpmoe_bench.records.store import read_record, read_rows
from lpmoe_bench.sweep.local import PROGRAM
from lpmoe_bench.sweep.plan import Sweep, read_attempts, read_sweeps, sweep_folder, write_sweep

pytestmark = pytest.mark.faults

WARM = "warm"
DRIVER = Path(__file__).parents[1] / "support/fake_sweeps.py"


def drive(runs: Path, program: Sequence[str]) -> subprocess.Popen:
    """Start the sweep that is planned in a folder, two cells at a time, forked if asked for."""
    program, jobs = list(program), "2"
    if program[0] == WARM:
        program, jobs = program[1:], "2,warm"
    command, quiet = [sys.executable, str(DRIVER), str(runs), jobs, *program], subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment())


def cells_of(parent: int) -> list[int]:
    """The cells that a sweep has started: those of its children that write into a log."""
    found = []
    with suppress(OSError):  # the sweep has ended
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        for text in listed.split():
            with suppress(OSError):  # the child has
                if os.readlink(f"/proc/{text}/fd/2").endswith(".log"):
                    found.append(int(text))
    return found


def assert_whole(runs: Path) -> dict[str, str]:
    """Check that every record there is complete, and return the digest of each."""
    digests = {}
    for path in sorted(runs.glob("*/*/*/*/run.json")):
        record, rows = read_record(path.parent), read_rows(path.parent / "per_image.csv")
        assert len({row["image"] for row in rows}) >= 1
        if record.adapter_sha256 is not None:
            adapter = (path.parent / "adapter.safetensors").read_bytes()
            assert hashlib.sha256(adapter).hexdigest() == record.adapter_sha256
            assert len(rows) == sum(split.images for split in record.data.tests)
        digests[str(path.parent)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def kill_at_random(
    runs: Path, program: Sequence[str], longest: float, random_: random.Random, cells_too: bool
) -> bool:
    """Start a sweep and kill it; every second time, where `cells_too`, its cells with it.

    Returns whether it was killed, rather than finished first; otherwise cells end by themselves.
    """
    process = drive(runs, program)
    moment = time.monotonic() + random_.uniform(0, longest)
    while process.poll() is None and time.monotonic() < moment:
        time.sleep(0.01)
    cells, killed = cells_of(process.pid), process.poll() is None
    process.kill()
    process.wait()
    if cells_too and random_.random() < 0.5:
        for pid in cells:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while any(is_alive(pid) for pid in cells):  # those that the sweep left behind save and end
        assert time.monotonic() < deadline, "a cell outlived its sweep"
        time.sleep(0.02)
    return killed


def torture(
    root: Path, planned: Sweep, program: Sequence[str], kills: int, seed: int, cells_too=True
) -> None:
    """Kill a sweep so many times, in a new folder whenever it is finished; check what is left."""
    random_, done, round_ = random.Random(seed), 0, 0
    write_sweep(root / "whole", planned)
    clock = time.monotonic()
    assert drive(root / "whole", program).wait() == 0
    longest = time.monotonic() - clock
    assert len(assert_whole(root / "whole")) == len(planned.cells)
    while done < kills:
        round_ += 1
        runs, known = root / f"round-{round_}", {}
        write_sweep(runs, planned)
        while done < kills and len(known) < len(planned.cells):
            done += kill_at_random(runs, program, longest, random_, cells_too)
            now = assert_whole(runs)
            assert known.items() <= now.items()  # what is finished stays as it is
            known = now
        assert drive(runs, program).wait() == 0
        now = assert_whole(runs)
        assert known.items() <= now.items()
        assert len(now) == len(planned.cells)
        assert not list(runs.rglob("superseded-*"))
        for cell in planned.cells:
            attempts = read_attempts(sweep_folder(runs, planned), cell)
            assert sum(attempt.outcome == "finished" for attempt in attempts) <= 1
            assert not any(attempt.outcome == "failed" for attempt in attempts)


def test_three_kills_of_fake_cells(tmp_path):
    cells = [fake_cell("steps=4 pause=0.05", seed=seed) for seed in range(3)]
    torture(tmp_path, fake_sweep(*cells), FAKE, kills=3, seed=0, cells_too=False)
    for path in tmp_path.glob("round-*/cod/*/*/*/trained"):
        assert len(path.read_text().split()) == 1  # SIGTERM lets it end; it trained once


@pytest.mark.parametrize("program", [FAKE, (WARM, *FAKE)])
def test_two_sweeps_at_once_divide_the_cells(tmp_path, program):
    cells = [fake_cell("steps=3 pause=0.05", seed=seed) for seed in range(6)]
    planned = fake_sweep(*cells)
    folder = write_sweep(tmp_path, planned)
    both = [drive(tmp_path, program) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    for cell in cells:
        assert len((tmp_path / cell.folder / "trained").read_text().split()) == 1
        assert [a.outcome for a in read_attempts(folder, cell)] == ["finished"]


@pytest.mark.slow
@pytest.mark.parametrize("program", [FAKE, (WARM, *FAKE)])
def test_forty_kills_of_fake_cells(tmp_path, program):
    cells = [fake_cell("steps=4 pause=0.05", seed=seed) for seed in range(4)]
    torture(tmp_path, fake_sweep(*cells), program, kills=40, seed=1)


@pytest.mark.slow
def test_twenty_kills_of_real_runs(tmp_path):
    command = sweep(draw_sets(tmp_path / "data"), tmp_path / "plan", "--seeds", "0,1,2")
    planning = start([*command, "--jobs", "1"], tmp_path / "log")
    while not list((tmp_path / "plan").glob("sweeps/*/plan.json")):
        assert planning.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    planning.kill()
    planning.wait()
    (_, planned), *_ = read_sweeps(tmp_path / "plan")
    torture(tmp_path / "kills", planned, (WARM, *PROGRAM), kills=20, seed=2)


def saved_at(runs):
    """When the newest state of a training run was saved; 0 where there is none."""
    files = runs.rglob("resume.safetensors")
    return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)


@pytest.mark.slow
def test_the_whole_command_is_killed_interrupted_and_goes_on(tmp_path):
    """Kill, Ctrl-C and a lone cell's kill, of the real command; the result is that of one go."""
    datasets = draw_sets(tmp_path / "data")
    more = ("--methods", "lora,bitfit", "--set", "runtime.save_seconds=0")
    whole, parts = sweep(datasets, tmp_path / "whole", *more), tmp_path / "parts"
    done = finish(whole)
    assert done.returncode == 0, done.stderr
    command = sweep(datasets, parts, *more)
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        process = start(command, tmp_path / "log")
        saved = None
        while saved is None or saved_at(parts) <= saved:  # until its own cell has saved a step
            assert process.poll() is None, (tmp_path / "log").read_text()
            saved = saved_at(parts) if saved is None and cells_of(process.pid) else saved
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait() == code
    assert "the same command goes on" in (tmp_path / "log").read_text()
    process = start(command, tmp_path / "log")
    while not (cells := cells_of(process.pid)):
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.02)
    os.kill(cells[0], signal.SIGKILL)
    assert process.wait() == 0, (tmp_path / "log").read_text()
    one, other = records(tmp_path / "whole"), records(parts)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name]["scores"] == other[name]["scores"]
        rows = [(tmp_path / p / name / "per_image.csv").read_bytes() for p in ("whole", "parts")]
        assert rows[0] == rows[1]
    status = finish([*PROGRAM, "sweep", "status", "--runs", str(parts), "--json"])
    cells = json.loads(status.stdout)[0]["cells"]
    assert [cell["state"] for cell in cells] == ["done", "done"]
    outcomes = [a["outcome"] for cell in cells for a in cell["attempts"]]
    assert sorted(outcomes) == ["failed", "finished", "finished", "interrupted"]
