"""Several processes: the same bits, and one sentence where a process or the user ends it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawn_maps import draw_folders
from tiny_runs import is_alive

from lpmoe_bench.errors import InterruptedRun, ResourceError
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.scoring.scoring import CHUNK, score_all
from lpmoe_bench.scoring.work import Item, MaskJob, Variant

pytestmark = pytest.mark.faults

COUNT = 8 * CHUNK + 3  # more than two processes are given at once: six tasks
JOB = MaskJob("set", (Variant(get_protocol("cod")),), curves=True)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    root = draw_folders(tmp_path_factory.mktemp("pool"), COUNT)
    return [
        Item(path.stem, path, (root / "A" / path.name, root / "B" / path.name))
        for path in sorted((root / "masks").iterdir())
    ]


def score(items, jobs, report=lambda done, total: None):
    return score_all(JOB, items, 2, jobs, report)


def facts(part):
    return [scorers[0].result() for scorers in part.scorers], part.checks, part.mask_flags


def test_the_same_bits_for_any_number_of_processes(items):
    seen = []
    whole = facts(score(items, 1, lambda done, total: seen.append((done, total))))
    assert seen[-1] == (COUNT, COUNT)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    for jobs, order in ((2, items), (3, items[::-1])):
        assert facts(score(order, jobs)) == whole
    assert facts(score(items[::-1], 1)) == whole


def test_a_killed_process_is_one_sentence(items):
    def kill(done, total):
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)

    words = rf"process was killed after \d+ of {COUNT} images.*nothing was written, try --jobs 1"
    with pytest.raises(ResourceError, match=words):
        score(items, 2, kill)


@pytest.fixture
def heard():
    """Ctrl-C as a terminal gives it, also where the tests themselves run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def hears_nothing(pid: int) -> bool:
    """Whether a process ignores SIGINT, as its status says."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigIgn:")[2].split()[0], 16) & 1 << signal.SIGINT - 1)


@pytest.mark.usefixtures("heard")
def test_control_c_reaches_the_parent_only(items):
    """A terminal sends it to all; the others must not die of it with a traceback each."""

    def press(done, total):
        for process in multiprocessing.active_children():
            while not hears_nothing(process.pid):  # one that still starts would die of it
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGINT)
        if done > CHUNK:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    with pytest.raises(InterruptedRun, match=rf"after \d+ of {COUNT} images; nothing was written"):
        score(items, 2, press)
    assert not multiprocessing.active_children()


def test_control_c_with_one_process(items):
    def press(done, total):
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRun) as caught:
        score(items, 1, press)
    assert caught.value.exit_code == 130


ENDLESS = """
import multiprocessing, sys, time
from pathlib import Path

def wait(done, total):
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    from lpmoe_bench.metrics.protocols import get_protocol
    from lpmoe_bench.scoring.scoring import score_all
    from lpmoe_bench.scoring.work import Item, MaskJob, Variant

    masks = sorted(Path(sys.argv[1], "masks").iterdir())
    items = [Item(path.stem, path, (Path(sys.argv[1], "A", path.name),)) for path in masks]
    score_all(MaskJob("set", (Variant(get_protocol("cod")),)), items, 1, 2, wait)
"""


def test_no_process_outlives_a_killed_parent(items, tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    command = [sys.executable, script, items[0].mask.parent.parent]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + 120  # so that a failure ends
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{pids} are still running"
        time.sleep(0.05)
