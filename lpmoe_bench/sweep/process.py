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

from lpmoe_bench.errors import ResourceError
from lpmoe_bench.files import write_failure
from lpmoe_bench.sweep.memory import kernel_kills, note
from lpmoe_bench.sweep.model import Cell, Places
from lpmoe_bench.sweep.outcome import Ended, tail

PROGRAM = (sys.executable, "-m", "lpmoe_bench")
# Seconds until a process that does not heed SIGINT gets SIGTERM, and until it is killed.
POLITE_SECONDS, PATIENT_SECONDS = 60.0, 75.0


@dataclass(frozen=True)
class Job:
    """An attempt to be made: a cell, its settings file, what memory made necessary, its log."""

    cell: Cell
    settings: Path
    changes: Sequence[str]
    log: Path
    runs: Path
    places: Places
    offline: bool = False


def arguments(job: Job) -> list[str]:
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

    def __init__(self, job: Job, environment: Mapping[str, str], program: Sequence[str] = PROGRAM):
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
