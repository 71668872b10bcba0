"""One cell as a process: its command, its environment, its log, and how it is stopped."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.errors import InterruptedRun, ResourceError, UsageError
from lpmoe_bench.files import write_failure
from lpmoe_bench.sweep.plan import Attempt, Cell, DataPlaces, Outcome

# What became of a process: finished, failed and why, out of memory, interrupted or busy.


BUSY = "another process is working on"  # how `run` words it
OUT_OF_MEMORY = ("out of memory", "not enough memory", "MemoryError", "can't allocate memory")
LOADER_KILLED = "killed by signal: Killed"  # how torch words the end of a loader process
TAIL_BYTES = 16384


@dataclass(frozen=True)
class Ended:
    """A process that has ended, with the tail of its log.

    exit_code is negative for a signal, None where no process could be started or watched, with
    `lost` saying why. kernel_kill: the kernel has killed for memory meanwhile. host: where it ran,
    here where it is empty.
    """

    exit_code: int | None
    log: str = ""
    kernel_kill: bool = False
    lost: str = ""
    host: str = ""


def outcome_of(ended: Ended, has_record: bool, stopping: bool) -> tuple[Outcome, str]:
    """Return the outcome and, unless it is finished, the reason in one line.

    `has_record`: the run's own record is there. `stopping`: the sweep asked the process to stop.
    """
    code, reason = ended.exit_code, _reason(ended)
    if has_record:  # it comes last, so whatever befell the process later does not matter
        return "finished", ""
    if code == UsageError.exit_code and BUSY in reason:
        return "busy", reason
    if stopping:
        return "interrupted", reason
    killed = code == -signal.SIGKILL or LOADER_KILLED in reason
    if killed and ended.kernel_kill:
        return "out of memory", "out of memory: killed by the kernel"
    if any(words in reason for words in OUT_OF_MEMORY):
        return "out of memory", reason
    if code == InterruptedRun.exit_code:
        return "failed", f"stopped from outside ({reason})"
    return "failed", reason


def tail(path: Path) -> str:
    """Return the end of a log."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _reason(ended: Ended) -> str:
    """Return the error that a log ends with, else what the exit code tells."""
    code = ended.exit_code
    if code is None:
        return ended.lost or "its process was lost"
    if code < 0:
        return f"killed by signal {-code} ({signal.strsignal(-code) or 'unknown'})"
    errors = [line for line in ended.log.splitlines() if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    if code == 0:
        return "it ended without a record of the planned fingerprint"
    return last_line(ended.log) or f"exit code {code} without a word"


# Memory that ran out: what a cell is tried with next, without another batch or result.


CHECKPOINTING = "runtime.checkpointing=true"
COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def ladder(cell: Cell) -> list[list[str]]:
    """Return the settings to try one after another: nothing, then ever less memory.

    The micro-batch is halved down to one image, then blocks are computed again in the backward
    pass as well; the latter alone where a method's statistics are those of the whole batch.
    """
    runtime, batch = cell.settings.get("runtime", {}), cell.settings["train"]["batch"]
    on_device = -(-batch // runtime.get("devices", 1))
    size = min(runtime.get("micro_batch") or on_device, on_device)
    steps: list[list[str]] = [[]]
    while size > 1 and not cell.batch_statistics:
        size //= 2
        steps.append([f"runtime.micro_batch={size}"])
    if not runtime.get("checkpointing"):
        steps.append([*steps[-1], CHECKPOINTING])
    return steps


def changes_next(cell: Cell, attempts: Sequence[Attempt]) -> list[str]:
    """Return what the next attempt is made with: less than any that memory did not suffice for.

    Not the latest attempt decides but the most frugal: clocks of several machines differ.
    """
    steps = ladder(cell)
    tried = [
        steps.index(attempt.changes) + (attempt.outcome == "out of memory")
        for attempt in attempts
        if attempt.changes in steps
    ]
    return steps[min(max(tried, default=0), len(steps) - 1)]


def note(cell: Cell, changes: list[str]) -> str:
    """Return what a record says of them."""
    batch = cell.settings["train"]["batch"]
    return (
        f"memory ran out; the sweep went on with {', '.join(changes)}, the batch is still {batch}"
    )


def kernel_kills() -> int:
    """Return how many processes the kernel has killed so far because memory ran out here."""
    for path in COUNTERS:
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


PROGRAM = (sys.executable, "-m", "lpmoe_bench")
# Seconds until a process that does not heed SIGINT gets SIGTERM, and until it is killed.
POLITE_SECONDS, PATIENT_SECONDS = 60.0, 75.0


@dataclass(frozen=True)
class CellJob:
    """An attempt to be made: a cell, its settings file, what memory made necessary, its log."""

    cell: Cell
    settings: Path
    changes: Sequence[str]
    log: Path
    runs: Path
    places: DataPlaces
    offline: bool = False


def arguments(job: CellJob) -> list[str]:
    """Return what `lpmoe-bench run` takes for a job."""
    words = ["--config", str(job.settings), "--runs", str(job.runs)]
    if job.places.data_root:
        words += ["--data-root", str(job.places.data_root)]
    if job.places.datasets:
        words += ["--datasets", str(job.places.datasets)]
    words += ["--embedded"] if job.places.embedded else []
    words += ["--offline"] if job.offline else []
    for change in job.changes:
        words += ["--set", change]
    return words


class CellProcess:
    """A started cell: watched, stopped, and gone when this process is gone."""

    def __init__(
        self, job: CellJob, environment: Mapping[str, str], program: Sequence[str] = PROGRAM
    ):
        self.job, self.started, self.kills = job, time.monotonic(), kernel_kills()
        self.asked: float | None = None
        words = arguments(job)
        notes = ["--note", note(job.cell, list(job.changes))] if job.changes else []
        tether = ["--parent", str(os.getpid()), "--expect", job.cell.fingerprint]
        try:
            with open(job.log, "w", encoding="utf-8") as log:
                log.write(f"# lpmoe-bench run {shlex.join(words)}\n")
                log.flush()
                self.process = subprocess.Popen(
                    [*program, "sweep", "cell", *tether, *notes, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    env={**os.environ, **environment},
                    start_new_session=True,  # Ctrl-C in a terminal reaches the sweep alone
                )
        except OSError as error:
            raise ResourceError(write_failure(job.log, error)) from error

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def ended(self) -> Ended | None:
        """Return how the process ended; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        self._signal_group(signal.SIGKILL)  # what it may have left behind
        return Ended(code, tail(self.job.log), kernel_kills() > self.kills)

    def stop(self) -> None:
        """Ask the process to save and end; the longer ago that was, the less politely."""
        now = time.monotonic()
        if self.asked is None:
            self.asked = now
            self._interrupt()
        elif now - self.asked > PATIENT_SECONDS:
            self._signal_group(signal.SIGKILL)
        elif now - self.asked > POLITE_SECONDS:
            self.process.terminate()

    def kill(self) -> None:
        self._signal_group(signal.SIGKILL)
        self.process.wait()

    def _interrupt(self) -> None:
        """Interrupt the run; the processes of one on several devices all stop at the same step."""
        if self.job.cell.settings.get("runtime", {}).get("devices", 1) > 1:
            self._signal_group(signal.SIGINT)
        else:
            self.process.send_signal(signal.SIGINT)

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # nobody of the group is left
            os.killpg(self.process.pid, number)
