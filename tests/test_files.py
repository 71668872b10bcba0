"""Locks of files: one holder at a time, and none after a kill."""

import subprocess
import sys

from lpmoe_bench.files import hold_lock, is_locked

HOLD = """
import sys, time
from pathlib import Path
from lpmoe_bench.files import hold_lock
held = hold_lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_one_holder_at_a_time_and_asking_makes_nothing(tmp_path):
    path = tmp_path / "run" / ".lock"
    assert not is_locked(path)
    assert not path.parent.exists()
    held = hold_lock(path)
    assert held
    assert hold_lock(path) is None
    assert is_locked(path)
    held.close()
    assert not is_locked(path)


def test_lock_of_a_killed_process_is_free_again(tmp_path):
    path = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        assert is_locked(path)
        assert hold_lock(path) is None
        other.kill()
    assert not is_locked(path)
    held = hold_lock(path)
    assert held
    held.close()
