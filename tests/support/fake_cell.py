"""A cell without torch, for tests of sweeps: it locks, saves, resumes and records as `run` does.

`label` in its settings says how it behaves: steps=3 pause=0.1 of work; fail=2 times with an error;
diverge: at once; memory=2 is the largest micro-batch that fits; signal=9 ends it; silent: no
record. It imports little, to start in an instant.
"""

import argparse
import fcntl
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

from lpmoe_bench.files import write_atomically
from lpmoe_bench.sweep.local import end_with

parser = argparse.ArgumentParser()
parser.add_argument("words", nargs=2)
for name in ("parent", "expect", "config", "runs", "note", "data-root", "datasets"):
    parser.add_argument(f"--{name}")
parser.add_argument("--set", action="append", default=[])
asked = parser.parse_args()
end_with(int(asked.parent))
settings = dict(re.findall(r"^ *(\w+): *'?([^'\n]*)'?$", Path(asked.config).read_text(), re.M))
sets = dict(text.split("=") for text in asked.set)
wish = dict(word.partition("=")[::2] for word in settings["label"].split())


def fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


method, seed = settings["method"], int(settings["seed"])
folder = Path(asked.runs) / f"cod/{method}/small/{asked.expect[:12]}-s{seed}"
folder.mkdir(parents=True, exist_ok=True)
lock = open(folder / ".lock", "w")  # noqa: SIM115
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    fail(f"another process is working on {folder}; wait for it", 2)
if (folder / "run.json").exists():
    sys.exit(0)
stopped = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stopped.append(1))

if "fail" in wish:
    counter = folder / "failures"
    count = int(counter.read_text()) if counter.exists() else 0
    if count < int(wish["fail"]):
        write_atomically(counter, str(count + 1))
        fail("a file was cut off at step 1", 3)
if "diverge" in wish:
    fail("training diverged at step 1", 7)
if "memory" in wish:
    size = int(sets.get("runtime.micro_batch", settings["batch"]))
    if size > int(wish["memory"]) and "runtime.checkpointing" not in sets:
        fail(f"out of memory at batch {size}", 6)
if "signal" in wish:
    os.kill(os.getpid(), int(wish["signal"]))
if "silent" in wish:
    sys.exit(0)
state = folder / "resume.safetensors"
step = int(state.read_text()) if state.exists() else 0
while step < int(wish.get("steps", 0)):
    time.sleep(float(wish["pause"]))
    step += 1
    write_atomically(state, str(step))
    if stopped:
        fail(f"interrupted after step {step}", 130)
with open(folder / "trained", "a") as file:  # a line each time that a cell came to its end
    file.write(f"{os.getpid()}\n")
facts = {"python": "3", "platform": "Linux", "cpu": "cpu", "device": "cpu", "version": "0"}
record = {
    "schema_version": 1,
    **{"kind": "run", "id": "fake", "created": "2026-01-02T03:04:05+00:00", "task": "cod"},
    **{"fingerprint": asked.expect, "seed": seed, "notes": [asked.note] if asked.note else []},
    **{"method": {"name": method, "title": method}, "scores": {"CAMO": {"s_measure": 0.75}}},
    "protocol": {"name": "cod", "version": 1, "hash": "cd" * 32},
    "environment": facts | {"git_sha": "ef" * 20},
}
write_atomically(folder / "adapter.safetensors", b"weights" * 1000)
write_atomically(folder / "per_image.csv", "dataset,image,s_measure\n" + "CAMO,a,0.75\n" * 500)
time.sleep(float(wish.get("pause", 0)))
write_atomically(folder / "run.json", json.dumps(record))
state.unlink(missing_ok=True)
