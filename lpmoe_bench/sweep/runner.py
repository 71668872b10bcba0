"""The loop of a sweep: which cell is next, what became of it, whether it is tried again."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lpmoe_bench.errors import InterruptedRun
from lpmoe_bench.sweep import memory
from lpmoe_bench.sweep.locks import Claims, is_locked
from lpmoe_bench.sweep.model import Attempt, Cell, Sweep
from lpmoe_bench.sweep.outcome import Ended, judge
from lpmoe_bench.sweep.process import Job
from lpmoe_bench.sweep.progress import SweepProgress
from lpmoe_bench.sweep.state import MOST_ATTEMPTS, own_record
from lpmoe_bench.sweep.store import (
    log_file,
    new_stem,
    now,
    read_attempts,
    settings_file,
    write_attempt,
)

POLL_SECONDS = 0.1
AGAIN_SECONDS = 3.0  # until a cell that another process has is looked at again
PATIENCE_SECONDS = 60.0  # for such cells, when nothing else is left to do


class Engine(Protocol):
    """What runs jobs, so many at a time: here, or on other machines."""

    jobs: int

    def free(self) -> bool: ...
    def start(self, job: Job) -> None: ...
    def ended(self) -> list[tuple[Job, Ended, float]]: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


@dataclass
class SweepRun:
    """A sweep at work: what is still to do, what runs, and when cells of others are looked at."""

    sweep: Sweep
    folder: Path
    runs: Path
    engine: Engine
    progress: SweepProgress
    stopped: Callable[[], bool]
    offline: bool = False
    to_do: deque[Cell] = field(default_factory=deque)
    running: dict[str, Cell] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)  # cells whose last process found them locked
    active: float = field(default_factory=time.monotonic)  # when something was last achieved


def run_cells(run: SweepRun) -> None:
    """Run what is to do until nothing is left, or only what other processes work on.

    Raises InterruptedRun when it is asked to stop, after all its processes have saved and ended.
    """
    claims = Claims(run.runs)
    try:
        while run.to_do or run.running:
            if run.stopped():
                _stop(run, claims)
            while run.engine.free() and (cell := _next(run, claims)):
                _start(run, cell)
            for job, ended, seconds in run.engine.ended():
                _settle(run, claims, job, ended, seconds, stopping=False)
            if run.running.keys() - run.refused:
                run.active = time.monotonic()
            elif not run.running and time.monotonic() - run.active > PATIENCE_SECONDS:
                break
            run.progress.tick(list(run.running.values()))
            time.sleep(POLL_SECONDS)
    finally:
        run.engine.close()


def _next(run: SweepRun, claims: Claims) -> Cell | None:
    """Claim the next cell that nobody works on; what others have settled meanwhile is dropped."""
    for _ in range(len(run.to_do)):
        cell = run.to_do.popleft()
        if time.monotonic() < run.not_before.get(cell.name, 0) or not claims.take(cell):
            _later(run, cell)
            continue
        done = own_record(run.runs, cell) is not None
        if done or _failures(run, cell) >= MOST_ATTEMPTS:
            claims.release(cell)
            run.progress.elsewhere(cell, done)
        elif is_locked(run.runs / cell.folder / ".lock"):  # a run by hand, or one just ending
            claims.release(cell)
            _later(run, cell)
        else:
            return cell
    return None


def _failures(run: SweepRun, cell: Cell) -> int:
    """Count the failures of a cell since its reset, by whatever process."""
    return sum(attempt.outcome == "failed" for attempt in read_attempts(run.folder, cell))


def _later(run: SweepRun, cell: Cell) -> None:
    now_ = time.monotonic()
    if now_ >= run.not_before.get(cell.name, 0):
        run.not_before[cell.name] = now_ + AGAIN_SECONDS
    run.to_do.append(cell)


def _start(run: SweepRun, cell: Cell) -> None:
    changes = memory.changes_next(cell, read_attempts(run.folder, cell))
    log = log_file(run.folder, cell, new_stem())
    settings = settings_file(run.folder, cell).resolve()
    job = Job(cell, settings, changes, log, run.runs, run.sweep.places, run.offline)
    run.running[cell.name] = cell
    run.progress.started(cell, changes)
    run.engine.start(job)


def _settle(
    run: SweepRun, claims: Claims, job: Job, ended: Ended, seconds: float, stopping: bool
) -> None:
    """Keep what became of an attempt and decide whether the cell is tried again."""
    cell = job.cell
    outcome, reason = judge(ended, own_record(run.runs, cell) is not None, stopping)
    del run.running[cell.name]
    if outcome == "busy":
        run.refused.add(cell.name)
        job.log.unlink(missing_ok=True)
        claims.release(cell)
        _later(run, cell)
        return
    run.refused.discard(cell.name)
    run.active = time.monotonic()
    changes = list(job.changes)
    if outcome == "out of memory" and changes == memory.ladder(cell)[-1]:
        outcome, reason = "failed", f"{reason}; nothing is left that takes less memory"
    attempt = Attempt(
        ended=now(),
        seconds=round(seconds, 1),
        outcome=outcome,
        exit_code=ended.exit_code,
        reason=reason,
        host=ended.host or socket.gethostname(),
        changes=changes,
        log=job.log.name,
    )
    write_attempt(run.folder, cell, attempt, job.log.stem)
    claims.release(cell)
    failures = _failures(run, cell)
    run.progress.ended(cell, attempt, failures, job.log)
    if outcome == "out of memory":
        run.to_do.appendleft(cell)
    elif outcome == "failed" and failures < MOST_ATTEMPTS:
        run.to_do.append(cell)


def _stop(run: SweepRun, claims: Claims) -> None:
    """Let what runs save and end, keep what became of it, and say that it can go on."""
    run.progress.stopping(len(run.running))
    while run.running:
        run.engine.stop()
        for job, ended, seconds in run.engine.ended():
            _settle(run, claims, job, ended, seconds, stopping=True)
        time.sleep(POLL_SECONDS)
    if run.progress.is_over:
        return
    raise InterruptedRun(f"interrupted with {run.progress.words()}; the same command goes on there")
