"""What became of a process: finished, failed and why, out of memory, interrupted or busy."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.errors import InterruptedRun, UsageError
from lpmoe_bench.sweep.model import Outcome

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


def judge(ended: Ended, has_record: bool, stopping: bool) -> tuple[Outcome, str]:
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
