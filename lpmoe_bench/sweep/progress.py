"""What people see while a sweep runs: a bar in a terminal, a line for each event in a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from lpmoe_bench.console import Bar, Terminal
from lpmoe_bench.sweep.estimate import Estimate, duration
from lpmoe_bench.sweep.model import Attempt, Cell
from lpmoe_bench.sweep.state import MOST_ATTEMPTS


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
        self.left = {name: one.seconds for name, one in estimates.items()}
        self.taken: dict[str, list[float]] = {}  # seconds of cells that differ in the seed alone

    def started(self, cell: Cell, changes: Sequence[str]) -> None:
        with_ = f" with {', '.join(changes)}" if changes else ""
        self.terminal.say(f"start   {words_of(cell)}{with_}")

    def ended(self, cell: Cell, attempt: Attempt, failures: int, log: Path) -> None:
        """Say how an attempt ended."""
        if attempt.outcome == "finished":
            self.taken.setdefault(_kind(cell.name), []).append(attempt.seconds)
            self._one_less(cell, done=True)
            took = duration(attempt.seconds)
            self.terminal.say(f"done    {words_of(cell)} in {took} ({self.words()})")
        elif attempt.outcome == "failed":
            last = failures >= MOST_ATTEMPTS
            if last:
                self.failed += 1
                self._one_less(cell, done=False)
            tries = f"attempt {failures} of {MOST_ATTEMPTS}"
            self.terminal.say(f"failed  {words_of(cell)}, {tries}: {attempt.reason}; log: {log}")
        elif attempt.outcome == "out of memory":
            self.terminal.say(f"memory  {words_of(cell)}: {attempt.reason}; trying with less")
        else:
            self.terminal.say(f"stopped {words_of(cell)}: {attempt.reason}")

    def elsewhere(self, cell: Cell, done: bool) -> None:
        """Say that another process has finished a cell meanwhile, or given it up."""
        self.failed += not done
        self._one_less(cell, done)
        how = "done   " if done else "failed "
        self.terminal.say(f"{how} {words_of(cell)} by another process ({self.words()})")

    def stopping(self, running: int) -> None:
        self.terminal.say(
            f"stopping: {running} cells save their state; once more ends them at once"
        )

    @property
    def is_over(self) -> bool:
        """Whether every cell is done or given up."""
        return self.done + self.failed == self.total

    def tick(self, running: Sequence[Cell]) -> None:
        """Move the bar, where there is a terminal for it."""
        if self.bar.progress is not None:
            names = ", ".join(f"{c.method} {c.task} s{c.seed}" for c in running[:3])
            more = f" and {len(running) - 3} more" if len(running) > 3 else ""
            failed = f"  {self.failed} failed" if self.failed else ""
            self.bar.update(self.done, self.total, f"{names}{more}{failed}  {self.time_left()}")

    def words(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        left = self.time_left()
        return f"{self.done} of {self.total} cells done{failed}{', ' + left if left else ''}"

    def time_left(self) -> str:
        """Estimate the rest by what cells of the same method took here, else by older records."""
        known = [seconds for seconds in self.left.values() if seconds is not None]
        known += [fmean(seconds) for seconds in self.taken.values()]
        if not self.left or not known:
            return ""
        total = sum(fmean(known) if s is None else s for s in self.left.values())
        return f"about {duration(total / self.jobs)} left"

    def _one_less(self, cell: Cell, done: bool) -> None:
        self.done += done
        self.left.pop(cell.name, None)
        for name in self.left:
            if _kind(name) in self.taken:
                self.left[name] = fmean(self.taken[_kind(name)])


def words_of(cell: Cell) -> str:
    return f"{cell.method} on {cell.task}, seed {cell.seed}"


def _kind(name: str) -> str:
    """Return a cell's name without its seed."""
    return name.rpartition("-")[0]
