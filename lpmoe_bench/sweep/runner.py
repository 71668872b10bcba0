"""The loop of a sweep: which cell is next, what became of it, whether it is tried again."""

import random
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, Protocol

from lpmoe_bench.console import Bar, Terminal
from lpmoe_bench.errors import InterruptedRun
from lpmoe_bench.files import is_locked
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import RECORD
from lpmoe_bench.sweep import local, plan
from lpmoe_bench.sweep.local import CellJob, Ended, outcome_of
from lpmoe_bench.sweep.state import (
    CLAIMED,
    DETERMINISTIC,
    FINISHED,
    MOST_ATTEMPTS,
    Claims,
    Journal,
    is_given_up,
    own_record,
)

# How long cells will take, by the records of runs that are finished.

SAME, LIKE, UNKNOWN = "same settings", "same method", "unknown"


class Estimate(NamedTuple):
    """Seconds of training and scoring, None where nothing tells; `basis` is what tells it."""

    seconds: float | None
    basis: str


def estimate_cells(
    cells: Iterable[plan.SweepCell], records: Iterable[Record]
) -> dict[str, Estimate]:
    """Estimate cells by name: by runs of their very settings, else by the speed of their method's.

    Runs of the same method count where backbone and size are the same; the time to start and to
    compute metrics is not in a record and not in the estimate. Each record is looked at once.
    """
    same: dict[tuple[str, str], list[Record]] = {}
    like: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for record in records:
        if record.kind != "run":
            continue
        method, costs = record.method.name, record.costs
        same.setdefault((method, record.fingerprint), []).append(record)
        if costs.train_images_per_second:
            key = _work(method, record.config)
            # Seconds an image, which may be averaged over runs; images a second may not.
            inference = costs.inference_images_per_second or inf
            paces = (1 / costs.train_images_per_second, 1 / inference)
            like.setdefault(key, []).append(paces)
    pace = {key: tuple(map(fmean, zip(*paces, strict=True))) for key, paces in like.items()}

    def estimate(cell: plan.SweepCell) -> Estimate:
        runs = same.get((cell.method, cell.fingerprint), ())
        if known := [s for record in runs if (s := _seconds(cell, record)) is not None]:
            return Estimate(fmean(known), SAME)
        key = _work(cell.method, cell.settings)
        if key not in pace:
            return Estimate(None, UNKNOWN)
        train, test = pace[key]
        return Estimate(cell.train_images * train + cell.test_images * test, LIKE)

    return {cell.name: estimate(cell) for cell in cells}


def _work(method: str, settings: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what the seconds of an image depend on most; a size may be two sides, a list."""
    size = settings.get("size")
    size = list(size) if isinstance(size, list | tuple) else size
    return (method, str(settings.get("backbone")), str(size))


def _seconds(cell: plan.SweepCell, record: Record) -> float | None:
    """Return what a run of the same settings took, or would take at its speed."""
    costs = record.costs
    seconds = costs.train_seconds
    if not seconds:
        if not costs.train_images_per_second:
            return None
        seconds = cell.train_images / costs.train_images_per_second
    if costs.inference_images_per_second:
        seconds += cell.test_images / costs.inference_images_per_second
    return seconds


def total_words(estimates: Mapping[str, Estimate], jobs: int) -> str:
    """Say how long cells take together, and what the figure rests on."""
    if not estimates:
        return "nothing is left to run"
    known = [one.seconds for one in estimates.values() if one.seconds is not None]
    counts = {b: sum(one.basis == b for one in estimates.values()) for b in (SAME, LIKE)}
    if not known:
        return f"time unknown: no record of these methods to go by ({len(estimates)} cells)"
    basis = ", ".join(f"{n} by records of the {b}" for b, n in counts.items() if n)
    at_once = f", {jobs} at a time" if jobs > 1 else ""
    total = f"about {duration(sum(known) / jobs)} for {len(known)} cells{at_once} ({basis})"
    missing = len(estimates) - len(known)
    return f"{total}; {missing} cells unknown" if missing else total


def duration(seconds: float) -> str:
    """Write seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"


class TimeLeft:
    """Seconds that the cells to do still take, as sums: a step costs the same in any sweep.

    Cells that differ in the seed alone are one kind and take as long as each other: as those that
    ended here did, else as the estimates say.
    """

    def __init__(self, estimates: Mapping[str, Estimate]):
        self.names = set(estimates)
        self.cells = Counter(map(_kind, estimates))
        known: dict[str, list[float]] = {}
        for name, one in estimates.items():
            if one.seconds is not None:
                known.setdefault(_kind(name), []).append(one.seconds)
        self.expected = {kind: fmean(seconds) for kind, seconds in known.items()}
        self.total = sum(self.expected[kind] * self.cells[kind] for kind in known)
        self.known = sum(self.cells[kind] for kind in known)
        self.taken: dict[str, tuple[int, float]] = {}  # cells that ended here, their mean seconds
        self.means = 0.0  # the sum of these means

    def end(self, name: str, seconds: float | None = None) -> None:
        """Leave a cell out; `seconds` is what it took, where it finished here."""
        kind = _kind(name)
        if seconds is not None:
            count, mean = self.taken.get(kind, (0, 0.0))
            # The running mean, and by how much the total
            # of its kind moves: no list is summed again.
            new = mean + (seconds - mean) / (count + 1)
            self.taken[kind] = (count + 1, new)
            self.means += new - mean
            self._expect(kind, new)
        if name in self.names:
            self.names.remove(name)
            self.cells[kind] -= 1
            if kind in self.expected:
                self.total -= self.expected[kind]
                self.known -= 1

    def _expect(self, kind: str, seconds: float) -> None:
        if kind not in self.expected:
            self.known += self.cells[kind]
        self.total += self.cells[kind] * (seconds - self.expected.get(kind, 0.0))
        self.expected[kind] = seconds

    def seconds(self) -> float | None:
        """Return the seconds left for one worker, cells of which nothing is known at the mean."""
        # Cells of which nothing is known are taken for the mean of all that something is known of.
        tellers = self.known + len(self.taken)
        if not self.names or not tellers:
            return None
        unknown = len(self.names) - self.known
        return max(self.total, 0.0) + unknown * (self.total + self.means) / tellers


# What people see while a sweep runs: a bar in a terminal, a line for each event in a log.


class SweepProgress:
    """Counts cells and says what happens to them; `estimates` are of the cells still to do."""

    def __init__(
        self,
        terminal: Terminal,
        bar: Bar,
        total: int,
        done: int,
        failed: int,
        estimates: Mapping[str, Estimate],
        jobs: int,
    ):
        self.terminal, self.bar, self.jobs = terminal, bar, jobs
        self.total, self.done, self.failed = total, done, failed
        self.left = TimeLeft(estimates)

    def started(self, cell: plan.SweepCell, changes: Sequence[str]) -> None:
        with_ = f" with {', '.join(changes)}" if changes else ""
        self.terminal.say(f"start   {name_of(cell)}{with_}")

    def ended(self, cell: plan.SweepCell, attempt: plan.Attempt, failures: int, log: Path) -> None:
        """Say how an attempt ended."""
        if attempt.outcome == "finished":
            self.left.end(cell.name, attempt.seconds)
            self.done += 1
            took = duration(attempt.seconds)
            self.terminal.say(f"done    {name_of(cell)} in {took} ({self.so_far()})")
        elif attempt.outcome == "failed":
            for_good = attempt.exit_code in DETERMINISTIC
            if for_good or failures >= MOST_ATTEMPTS:
                self.failed += 1
                self.left.end(cell.name)
            tries = f"attempt {failures} of {MOST_ATTEMPTS}"
            tries = "another try would end the same" if for_good else tries
            self.terminal.say(f"failed  {name_of(cell)}, {tries}: {attempt.reason}; log: {log}")
        elif attempt.outcome == "out of memory":
            self.terminal.say(f"memory  {name_of(cell)}: {attempt.reason}; trying with less")
        else:
            self.terminal.say(f"stopped {name_of(cell)}: {attempt.reason}")

    def elsewhere(self, cell: plan.SweepCell, done: bool) -> None:
        """Say that another process has finished a cell meanwhile, or given it up."""
        self.done += done
        self.failed += not done
        self.left.end(cell.name)
        how = "done   " if done else "failed "
        self.terminal.say(f"{how} {name_of(cell)} by another process ({self.so_far()})")

    def stopping(self, running: int) -> None:
        self.terminal.say(
            f"stopping: {running} cells save their state; once more ends them at once"
        )

    @property
    def is_over(self) -> bool:
        """Whether every cell is done or given up."""
        return self.done + self.failed == self.total

    def tick(self, running: Sequence[plan.SweepCell]) -> None:
        """Move the bar, where there is a terminal for it."""
        if self.bar.progress is not None:
            names = ", ".join(f"{c.method} {c.task} s{c.seed}" for c in running[:3])
            more = f" and {len(running) - 3} more" if len(running) > 3 else ""
            failed = f"  {self.failed} failed" if self.failed else ""
            self.bar.update(self.done, self.total, f"{names}{more}{failed}  {self.time_left()}")

    def so_far(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        left = self.time_left()
        return f"{self.done} of {self.total} cells done{failed}{', ' + left if left else ''}"

    def time_left(self) -> str:
        """Estimate the rest by what cells of the same method took here, else by older records."""
        seconds = self.left.seconds()
        return "" if seconds is None else f"about {duration(seconds / self.jobs)} left"


def name_of(cell: plan.SweepCell) -> str:
    return f"{cell.method} on {cell.task}, seed {cell.seed}"


def _kind(name: str) -> str:
    """Return a cell's name without its seed."""
    return name.rpartition("-")[0]


POLL_SECONDS = 0.1
AGAIN_SECONDS = 3.0  # until a cell that another process has is looked at again
PATIENCE_SECONDS = 60.0  # for such cells, when nothing else is left to do


class Engine(Protocol):
    """What runs jobs, so many at a time: here, or on other machines."""

    jobs: int

    def free(self) -> bool: ...
    def start(self, job: CellJob) -> None: ...
    def ended(self) -> list[tuple[CellJob, Ended, float]]: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


@dataclass
class SweepRun:
    """A sweep at work: what is still to do, what runs, and when cells of others are looked at.

    finished: names of cells whose records were seen here, or by another worker that wrote so.
    """

    sweep: plan.Sweep
    folder: Path
    runs: Path
    engine: Engine
    progress: SweepProgress
    stopped: Callable[[], bool]
    journal: Journal
    offline: bool = False
    finished: set[str] = field(default_factory=set)
    to_do: deque[plan.SweepCell] = field(default_factory=deque)
    running: dict[str, plan.SweepCell] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)  # cells whose last process found them locked
    active: float = field(default_factory=time.monotonic)  # when something was last achieved


def run_cells(run: SweepRun) -> None:
    """Run what is to do until nothing is left, or only what other processes work on.

    Raises InterruptedRun when it is asked to stop, after all its processes have saved and ended.
    """
    claims = Claims(run.runs)
    try:
        # Start what fits, settle what has ended, sleep: no thread, so no state is shared.
        while run.to_do or run.running:
            if run.stopped():
                _stop(run, claims)
            while run.engine.free() and (cell := _next(run, claims)):
                _start(run, cell)
            for job, ended, seconds in run.engine.ended():
                _settle(run, claims, job, ended, seconds, stopping=False)
            # A cell that is refused again and again does
            # not count as progress: someone else has it.
            if run.running.keys() - run.refused:
                run.active = time.monotonic()
            elif not run.running and time.monotonic() - run.active > PATIENCE_SECONDS:
                break
            run.progress.tick(list(run.running.values()))
            time.sleep(POLL_SECONDS)
    finally:
        run.engine.close()


def _next(run: SweepRun, claims: Claims) -> plan.SweepCell | None:
    """Claim the next cell that nobody works on; what others have settled meanwhile is dropped."""
    lost = 0
    for _ in range(len(run.to_do)):
        _hear(run)
        cell = run.to_do.popleft()
        # One look at the folder, no lock and no record: all workers come by all cells.
        if cell.name in run.finished and (run.runs / cell.folder / RECORD).exists():
            run.progress.elsewhere(cell, True)
            continue
        # First claim, then look: between the two nobody else can start or finish the cell.
        if time.monotonic() < run.not_before.get(cell.name, 0):
            run.to_do.append(cell)
            continue
        if not claims.take(cell):
            _later(run, cell)
            # Workers that are all free at once go for the same cells: the more of them there seem
            # to be, the further this one goes out of their way.
            lost += 1
            run.to_do.rotate(-random.randrange(min(2**lost, len(run.to_do))))
            continue
        done = own_record(run.runs, cell) is not None
        if done or is_given_up(_failures(run, cell)):
            claims.release(cell, done)
            run.finished.update([cell.name] * done)
            run.progress.elsewhere(cell, done)
        elif is_locked(run.runs / cell.folder / ".lock"):  # a run by hand, or one just ending
            claims.release(cell)
            _later(run, cell)
        else:
            run.journal.tell(CLAIMED, cell)
            return cell
    return None


def _hear(run: SweepRun) -> None:
    """Learn what other workers have claimed and finished."""
    now = time.monotonic()
    for what, name in run.journal.news():
        if what == FINISHED:
            run.finished.add(name)
        elif what == CLAIMED:  # whether it still has it, its lock tells later
            run.not_before[name] = now + AGAIN_SECONDS


def _failures(run: SweepRun, cell: plan.SweepCell) -> list[plan.Attempt]:
    """Return the failures of a cell since its reset, by whatever process."""
    attempts = plan.read_attempts(run.folder, cell)
    return [attempt for attempt in attempts if attempt.outcome == "failed"]


def _later(run: SweepRun, cell: plan.SweepCell) -> None:
    now = time.monotonic()
    if now >= run.not_before.get(cell.name, 0):
        run.not_before[cell.name] = now + AGAIN_SECONDS
    run.to_do.append(cell)


def _start(run: SweepRun, cell: plan.SweepCell) -> None:
    # From the attempts on disk, not from memory: another process may have tried with less already.
    changes = local.changes_next(cell, plan.read_attempts(run.folder, cell))
    log = plan.log_file(run.folder, cell, plan.new_stem())
    settings = plan.settings_file(run.folder, cell).resolve()
    job = CellJob(cell, settings, changes, log, run.runs, run.sweep.places, run.offline)
    run.running[cell.name] = cell
    run.progress.started(cell, changes)
    run.engine.start(job)


def _settle(
    run: SweepRun, claims: Claims, job: CellJob, ended: Ended, seconds: float, stopping: bool
) -> None:
    """Keep what became of an attempt and decide whether the cell is tried again."""
    cell = job.cell
    # The record on disk decides first: a process may be killed after it has written it.
    outcome, reason = outcome_of(ended, own_record(run.runs, cell) is not None, stopping)
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
    if outcome == "out of memory" and changes == local.memory_steps(cell)[-1]:
        outcome, reason = "failed", f"{reason}; nothing is left that takes less memory"
    attempt = plan.Attempt(
        ended=plan.now(),
        seconds=round(seconds, 1),
        outcome=outcome,
        exit_code=ended.exit_code,
        reason=reason,
        host=ended.host or socket.gethostname(),
        changes=changes,
        log=job.log.name,
    )
    # Written before the claim is given back: who takes the cell next counts this attempt too.
    plan.write_attempt(run.folder, cell, attempt, job.log.stem)
    claims.release(cell, outcome == "finished")
    if outcome == "finished":
        run.finished.add(cell.name)
        run.journal.tell(FINISHED, cell)
    failures = _failures(run, cell)
    run.progress.ended(cell, attempt, len(failures), job.log)
    if outcome == "out of memory":  # at once, with less: it has not lost its place in the queue
        run.to_do.appendleft(cell)
    elif outcome == "failed" and not is_given_up(failures):
        run.to_do.append(cell)


def _stop(run: SweepRun, claims: Claims) -> None:
    """Let what runs save and end, keep what became of it, and say that it can go on."""
    # Engines are asked again and again; the longer it takes, the less politely they stop a cell.
    run.progress.stopping(len(run.running))
    while run.running:
        run.engine.stop()
        for job, ended, seconds in run.engine.ended():
            _settle(run, claims, job, ended, seconds, stopping=True)
        time.sleep(POLL_SECONDS)
    # The last cells may have finished while they were asked to stop: then nothing is interrupted.
    if run.progress.is_over:
        return
    raise InterruptedRun(
        f"interrupted with {run.progress.so_far()}; the same command goes on there"
    )
