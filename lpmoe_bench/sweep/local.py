"""The engine `local`: so many cells at a time on this machine, each with its share of it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from lpmoe_bench.environment import usable_cores
from lpmoe_bench.sweep.plan import Cell
from lpmoe_bench.sweep.process import PROGRAM, CellJob, CellProcess, Ended

Environment = dict[str, str]
Result = tuple[CellJob, Ended, float]


class LocalEngine:
    """Runs at most `jobs` cells at a time; each has a part of the GPUs, or of the cores."""

    def __init__(self, shares: Sequence[Environment], program: Sequence[str] = PROGRAM):
        self.free_shares = list(shares)
        self.jobs = len(shares)
        self.program = program
        self.running: list[tuple[CellProcess, Environment]] = []

    def free(self) -> bool:
        """Whether one more cell can be started."""
        return bool(self.free_shares)

    def start(self, job: CellJob) -> None:
        share = self.free_shares.pop(0)
        self.running.append((CellProcess(job, share, self.program), share))

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


def shares(cells: Sequence[Cell], jobs: int | None) -> tuple[list[Environment], list[str]]:
    """Return the environment of each job, and what to say about them.

    By default one job for each GPU (for so many GPUs as a cell wants), else one. More jobs than
    that share GPUs; on the processor they divide its cores.
    """
    runtimes = [cell.settings.get("runtime", {}) for cell in cells]
    each = max((runtime.get("devices", 1) for runtime in runtimes), default=1)
    on_gpus = any(runtime.get("device", "auto") != "cpu" for runtime in runtimes)
    gpus = visible_gpus() if on_gpus else []
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


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else [str(k) for k in range(count)]
    return [name.strip() for name in names][:count]


# A process that ends with the one that started it, and heeds its signals.


SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


def tether(parent: int) -> None:
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
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
