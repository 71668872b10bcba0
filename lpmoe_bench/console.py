"""What people see on standard error: notes, warnings and progress bars.

rich is imported where something is shown: whoever only names the type of a callback stays light.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

OnProgress = Callable[[int, int], None]
"""Told, again and again, how many steps of how many are done."""

PLAIN_SECONDS = 5.0  # between two lines of progress where there is no terminal


class VerdictStyle(NamedTuple):
    """How a verdict looks: in a terminal, and on a page its sign, its ink and its ground."""

    terminal: str
    sign: str
    ink: str
    ground: str


# Green for better, red for worse, everywhere; the sign tells them apart without colours.
_GOOD = VerdictStyle("green", "▲", "#12491a", "#d8ebd9")
_BAD = VerdictStyle("red", "▼", "#7a2a00", "#f8ddd0")
_EQUAL = VerdictStyle("cyan", "=", "#0b416f", "#dcebf7")
_OPEN = VerdictStyle("yellow", "?", "#57606a", "#ffffff")
VERDICT_STYLES = {
    "better": _GOOD,
    "worse": _BAD,
    "equal": _EQUAL,
    "inconclusive": _OPEN,
    # Those of the gate.
    "pass": _GOOD,
    "regressed": _BAD,
    "improved": _EQUAL,
    "not comparable": _OPEN._replace(terminal="magenta"),
}


class Terminal:
    """Standard error: styled in a terminal, a line now and then in a log, silent when quiet."""

    def __init__(self, quiet: bool = False, no_color: bool = False):
        from rich.console import Console

        # A sentence stays one line in a log, where somebody searches for it.
        self.console = Console(stderr=True, quiet=quiet, no_color=no_color, soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def note(self, text: str) -> None:
        self.console.print(f"note: {text}", style="yellow", markup=False, highlight=False)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Show progress while the block runs."""
        if self.console.is_terminal and not self.console.quiet:
            from rich import progress as shown

            columns = [
                shown.TextColumn("{task.description}"),
                shown.BarColumn(),
                shown.MofNCompleteColumn(),
                shown.TextColumn("{task.fields[about]}"),
                shown.TimeElapsedColumn(),
                shown.TextColumn("left"),
                shown.TimeRemainingColumn(),
            ]
            with shown.Progress(*columns, console=self.console) as progress:
                task = progress.add_task(title, total=total, about="")
                yield Bar(title, self.console, progress, task)
        else:
            yield Bar(title, self.console)


class Bar:
    """One progress bar, or in a log a line every few seconds."""

    def __init__(
        self,
        title: str,
        console: Console,
        progress: Progress | None = None,
        task: TaskID | None = None,
    ):
        self.title, self.console, self.progress, self.task = title, console, progress, task
        self.shown = time.monotonic()

    def update(self, done: int, total: int, about: str = "") -> None:
        """Show that `done` of `total` are finished."""
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=done, total=total, about=about)
        elif time.monotonic() - self.shown >= PLAIN_SECONDS:
            self.shown = time.monotonic()
            self.console.print(f"{self.title} {done}/{total} {about}".rstrip(), highlight=False)


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request to stop after the step; the next one acts."""
    requests: list[int] = []
    previous = {}

    def ask(number: int, frame: object) -> None:
        requests.append(number)
        # The next one acts at once, for who cannot wait for the end of the step.
        for known, handler in previous.items():
            signal.signal(known, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, ask)
    try:
        yield lambda: bool(requests)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
