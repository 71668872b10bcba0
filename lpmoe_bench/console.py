"""What people see: notes, warnings and progress bars, and the streams that they go through.

rich is imported where something is shown: whoever only names the type of a callback stays light.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from lpmoe_bench.errors import OutputClosed, ResourceError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

OnProgress = Callable[[int, int], None]
"""Told, again and again, how many steps of how many are done."""

PLAIN_SECONDS = 5.0  # between two lines of progress where there is no terminal


# Signs that tell a terminal what to do, or turn the direction of a line: names of strangers must do
# neither. Surrogates are the bytes of a name that is no UTF-8, which no stream can encode.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return a text with its control characters written out, as `\\x1b`; tabs and lines stay."""
    return CONTROLS.sub(lambda found: ascii(found.group())[1:-1], text)


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
        self.console.print(printable(text), markup=False, highlight=False)

    def note(self, text: str) -> None:
        text = f"note: {printable(text)}"
        self.console.print(text, style="yellow", markup=False, highlight=False)

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
        about = printable(about)
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=done, total=total, about=about)
        elif time.monotonic() - self.shown >= PLAIN_SECONDS:
            self.shown = time.monotonic()
            self.console.print(f"{self.title} {done}/{total} {about}".rstrip(), highlight=False)


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request to stop after the step; the next one acts.

    Python hears signals in the main thread alone: elsewhere nothing is ever requested.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
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


# Standard output and standard error of a process. A reader may go away and a disk be full; a name
# may hold what the encoding of a terminal has no sign for.


class OutputStream:
    """A stream of text in place of `sys.stdout`: what cannot be written is an expected error."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        with self.failures():
            return self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self.failures():
            self.stream.flush()

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Raise OutputClosed where the reader is gone, ResourceError for another failure."""
        try:
            yield
        except BrokenPipeError:
            raise OutputClosed("whatever reads the output has ended; the rest is lost") from None
        except OSError as error:
            raise ResourceError(
                f"the output could not be written ({error.strerror}); records and files that were "
                f"written are kept"
            ) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class NoteStream(OutputStream):
    """A stream in place of `sys.stderr`: what cannot be written is lost, and the work goes on."""

    @contextmanager
    def failures(self) -> Iterator[None]:
        with suppress(OSError):
            yield


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Let the standard streams of this process fail in sentences while the block runs.

    A stream that was closed before the start leads nowhere. At the end what is left is written;
    raises OutputClosed or ResourceError, as writing does.
    """
    # Else the next file that is opened would get the number, and the output of libraries.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    streams: Any = sys  # where streams are typed as those of the standard library
    streams.stdout = OutputStream(sys.stdout or io.StringIO())
    streams.stderr = NoteStream(sys.stderr or io.StringIO())
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except (OutputClosed, ResourceError):
            with suppress(OSError, AttributeError):
                # What is left in the buffer: Python would try again when it ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), before[0].fileno())
            raise
        finally:
            sys.stdout, sys.stderr = before
