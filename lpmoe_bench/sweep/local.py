"""One cell as a process, and the engine that runs so many of them on this machine."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lpmoe_bench.environment import usable_cores
from lpmoe_bench.errors import MEMORY_SIGNS, InterruptedRun, ResourceError, UsageError
from lpmoe_bench.files import write_failure
from lpmoe_bench.sweep.plan import Attempt, DataPlaces, Outcome, SweepCell

# What became of a process: finished, failed and why, out of memory, interrupted or busy.

BUSY = "another process is working on"  # how `run` words it
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
    # From the surest sign to the least: record, refusal, the sweep's own stop, memory, the rest.
    if has_record:  # it comes last, so whatever befell the process later does not matter
        return "finished", ""
    if code == UsageError.exit_code and BUSY in reason:
        return "busy", reason
    if stopping:
        return "interrupted", reason
    # A kill alone may be anybody's; it was for memory where the kernel's own count has risen.
    killed = code == -signal.SIGKILL or LOADER_KILLED in reason
    if killed and ended.kernel_kill:
        return "out of memory", "out of memory: killed by the kernel"
    if any(sign in reason for sign in MEMORY_SIGNS):
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


def memory_steps(cell: SweepCell) -> list[list[str]]:
    """Return the settings to try one after another: nothing, then ever less memory.

    The micro-batch is halved down to one image, then blocks are computed again in the backward
    pass as well; the latter alone where a method's statistics are those of the whole batch.
    """
    runtime, batch = cell.settings.get("runtime", {}), cell.settings["train"]["batch"]
    # Shares of a batch on several devices, rounded up.
    on_device = -(-batch // runtime.get("devices", 1))
    size = min(runtime.get("micro_batch") or on_device, on_device)
    steps: list[list[str]] = [[]]
    while size > 1 and not cell.batch_statistics:
        size //= 2
        steps.append([f"runtime.micro_batch={size}"])
    if not runtime.get("checkpointing"):
        steps.append([*steps[-1], CHECKPOINTING])
    return steps


def changes_next(cell: SweepCell, attempts: Sequence[Attempt]) -> list[str]:
    """Return what the next attempt is made with: less than any that memory did not suffice for.

    Not the latest attempt decides but the most frugal: clocks of several machines differ.
    """
    steps = memory_steps(cell)
    tried = [
        steps.index(attempt.changes) + (attempt.outcome == "out of memory")
        for attempt in attempts
        if attempt.changes in steps
    ]
    # An attempt that ran out of memory points to the step after its own, the others to their own.
    return steps[min(max(tried, default=0), len(steps) - 1)]


def note(cell: SweepCell, changes: list[str]) -> str:
    """Return what a record says of them."""
    batch = cell.settings["train"]["batch"]
    return (
        f"memory ran out; the sweep went on with {', '.join(changes)}, the batch is still {batch}"
    )


def kernel_kills() -> int:
    """Return how many processes the kernel has killed so far because memory ran out here."""
    # The group's own counter where there is one: a container sees kills of others in vmstat.
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
ANSWER_SECONDS = 20.0  # for a warm process to fork a cell


class Forker(Protocol):
    """What starts a cell quicker than the interpreter does: see `warm.WarmProcess`."""

    def is_settled(self) -> bool: ...
    def fork(self, words: Sequence[str], log: Path) -> int | None: ...
    def close(self) -> None: ...


class Forked:
    """A child of this process that was not started by `subprocess`, with what is used of Popen."""

    def __init__(self, pid: int):
        self.pid = pid
        self.code: int | None = None

    def poll(self) -> int | None:
        return self._ask(os.WNOHANG)

    def wait(self) -> int | None:
        return self._ask(0)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:  # else the id may be another process's by now
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _ask(self, how: int) -> int | None:
        if self.code is None:
            # With WNOHANG the id is 0 while the process runs.
            # A status is given out once, so it is kept.
            pid, status = os.waitpid(self.pid, how)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code


@dataclass(frozen=True)
class CellJob:
    """An attempt to be made: a cell, its settings file, what memory made necessary, its log."""

    cell: SweepCell
    settings: Path
    changes: Sequence[str]
    log: Path
    runs: Path
    places: DataPlaces
    offline: bool = False


def arguments(job: CellJob) -> list[str]:
    """Return what `lpmoe-bench run` takes for a job."""
    places = job.places
    made = ["--config", str(job.settings), "--runs", str(job.runs)]
    made += ["--data-root", str(places.data_root)] if places.data_root else []
    made += [part for path in places.datasets for part in ("--datasets", str(path))]
    made += [part for path in places.plugins for part in ("--plugin", str(path))]
    made += ["--embedded"] * places.embedded + ["--offline"] * job.offline
    return made + [part for change in job.changes for part in ("--set", change)]


class CellProcess:
    """A started cell: watched, stopped, and gone when this process is gone."""

    def __init__(
        self,
        job: CellJob,
        environment: Mapping[str, str],
        program: Sequence[str] = PROGRAM,
        warm: Forker | None = None,
    ):
        self.job, self.started, self.kills = job, time.monotonic(), kernel_kills()
        self.asked: float | None = None
        asked = arguments(job)
        notes = ["--note", note(job.cell, list(job.changes))] if job.changes else []
        checks = ["--parent", str(os.getpid()), "--expect", job.cell.fingerprint]
        words = ["sweep", "cell", *checks, *notes, *asked]
        try:
            with open(job.log, "w", encoding="utf-8") as log:
                log.write(f"# lpmoe-bench run {shlex.join(asked)}\n")
                log.flush()
                pid = warm.fork(words, job.log) if warm else None
                self.process = (
                    Forked(pid)
                    if pid
                    else subprocess.Popen(
                        [*program, *words],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=log,
                        env={**os.environ, **environment},
                        start_new_session=True,  # Ctrl-C in a terminal reaches the sweep alone
                    )
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
        # Loader processes outlive a killed parent, and would hold its memory and its GPU.
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
        # A single process saves by itself; its loader processes must not be interrupted under it.
        if self.job.cell.settings.get("runtime", {}).get("devices", 1) > 1:
            self._signal_group(signal.SIGINT)
        else:
            self.process.send_signal(signal.SIGINT)

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # nobody of the group is left
            os.killpg(self.process.pid, number)


# The engine `local`: so many cells at a time on this machine, each with its share of it.

Environment = dict[str, str]
Result = tuple[CellJob, Ended, float]


class LocalEngine:
    """Runs at most `jobs` cells at a time; each has a part of the GPUs, or of the cores."""

    def __init__(
        self,
        shares: Sequence[Environment],
        program: Sequence[str] = PROGRAM,
        warm: Forker | None = None,
    ):
        self.warm = warm
        self.free_shares = list(shares)
        self.jobs = len(shares)
        self.program = program
        self.running: list[tuple[CellProcess, Environment]] = []

    def free(self) -> bool:
        """Whether one more cell can be started."""
        return bool(self.free_shares) and (self.warm is None or self.warm.is_settled())

    def start(self, job: CellJob) -> None:
        # Given back when the cell has ended, so no two cells ever have the same GPUs.
        share = self.free_shares.pop(0)
        self.running.append((CellProcess(job, share, self.program, self.warm), share))

    def ended(self) -> list[Result]:
        """Return (job, how it ended, seconds) of what has ended since this was asked last."""
        results, still = [], []
        for process, share in self.running:
            ended = process.ended()
            if ended is None:
                still.append((process, share))
            else:
                self.free_shares.append(share)
                results.append((process.job, ended, process.seconds))
        self.running = still
        return results

    def stop(self) -> None:
        """Ask what runs to save and end; to be called again until nothing runs."""
        for process, _ in self.running:
            process.stop()

    def close(self) -> None:
        """End at once what still runs; it resumes from its last saved state."""
        for process, _ in self.running:
            process.kill()
        self.running = []
        if self.warm is not None:
            self.warm.close()


def shares(cells: Sequence[SweepCell], jobs: int | None) -> tuple[list[Environment], list[str]]:
    """Return the environment of each job, and what to say about them.

    By default one job for each GPU (for so many GPUs as a cell wants), else one. More jobs than
    that share GPUs; on the processor they divide its cores.
    """
    each, on_gpus = devices_of(cells)
    gpus = visible_gpus() if on_gpus else []
    # GPUs that are left over, fewer than a cell wants, stay idle.
    groups = [gpus[k : k + each] for k in range(0, len(gpus) - each + 1, each)]
    if groups:
        count, notes = jobs or len(groups), []
        if count > len(groups):
            notes = [f"{count} jobs share {len(groups)} GPUs; their images/s say little"]
        made = [",".join(groups[k % len(groups)]) for k in range(count)]
        return [{"CUDA_VISIBLE_DEVICES": text} for text in made], notes
    count = jobs or 1
    if count == 1 or "OMP_NUM_THREADS" in os.environ:
        return [{} for _ in range(count)], []
    threads = str(max(1, usable_cores() // count))
    return [{"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} for _ in range(count)], []


def devices_of(cells: Sequence[SweepCell]) -> tuple[int, bool]:
    """Return how many devices the cell that wants most has, and whether any may run on a GPU."""
    runtimes = [cell.settings.get("runtime", {}) for cell in cells]
    each = max((runtime.get("devices", 1) for runtime in runtimes), default=1)
    return each, any(runtime.get("device", "auto") != "cpu" for runtime in runtimes)


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else [str(k) for k in range(count)]
    return [name.strip() for name in names][:count]


# A process that ends with the one that started it, and heeds its signals.

SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


def end_with(parent: int) -> None:
    """Have this process sent SIGTERM when its parent dies; at once where it is dead already.

    In training that saves the state first, elsewhere it ends the process. `parent` is the process
    id that the starter knows itself by.
    """
    # Ray blocks SIGINT for its workers, a shell ignores it for what it starts in the background,
    # and both are inherited.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("LOCAL_RANK", "0") != "0":  # one of several, started by the first of them
        parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    # It may have died before the line above, and then nothing would tell.
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
