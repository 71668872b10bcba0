"""A process that has imported and listed what every cell of a sweep needs, and forks them.

To import torch and to list the data takes a cell seconds, and more than a small training. This
process does it once and is forked for every cell, which then runs the very program it would have
run by itself. The sweep adopts each cell: it is the sweep's own child, with its own exit code, and
what befalls this process befalls no cell.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lpmoe_bench.console import Terminal
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.sweep.local import ANSWER_SECONDS, end_with
from lpmoe_bench.sweep.plan import SweepCell, settings_file

MOST_SEEDS = 16  # whose division of the training list is prepared
SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux
# What a run imports where it first needs it; torch._dynamo is imported by the first optimiser.
LATE_IMPORTS = ("lpmoe_bench.training.run", "lpmoe_bench.metrics.kernels", "lightning_fabric")
LATE_IMPORTS += ("torch._dynamo", "scipy.linalg")  # numba's, with OpenBLAS threads of its own
ENDING_SECONDS = 2.0  # for threads that have nothing left to do


class WarmProcess:
    """The sweep's end: starts the process, asks it for cells, and does without it where it fails.

    Args:
        program: how a cell is started: the interpreter, and `-m MODULE` or a file.
        environment: what cells have beside this process's environment.
        prepare: cells as `run` takes them (see `prepare_cells`), to be prepared for; may be empty.
    """

    def __init__(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        prepare: Sequence[Mapping[str, Any]] = (),
    ):
        self.is_ready, self.received = False, b""
        self.socket, other = socket.socketpair()
        about = {"program": list(program[1:]), "parent": os.getpid(), "prepare": list(prepare)}
        with other:
            self.process = subprocess.Popen(
                [program[0], "-m", "lpmoe_bench.sweep.warm", str(other.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **environment},
                pass_fds=[other.fileno()],
                start_new_session=True,
            )
        self.is_alive = True
        self._send(about)

    def is_settled(self) -> bool:
        """Whether it is ready, or has failed; until then no cell need be started by itself."""
        if self.is_alive and not self.is_ready:
            answer = self._receive(0)
            self.is_ready = answer is not None and "ready" in answer
        return self.is_ready or not self.is_alive

    def fork(self, words: Sequence[str], log: Path) -> int | None:
        """Start a cell with these words and its messages at the end of a log.

        Returns:
            The id of the process, a child of this one; None where the cell has to be started
            by itself.
        """
        if not self.is_ready or not self.is_alive:
            return None
        self._send({"words": list(words), "log": str(log)})
        answer = self._receive(ANSWER_SECONDS)
        if answer is None or "pid" not in answer:
            self.close()  # whatever it was, one without it is sure to start
            return None
        return int(answer["pid"])

    def close(self) -> None:
        """End the process; cells go on."""
        self.is_alive = False
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.close()

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        """Return the next message; None where none comes in time."""
        until = time.monotonic() + seconds
        # A message may come in pieces, and what is behind its line belongs to the next one.
        while self.is_alive and b"\n" not in self.received:
            self.socket.settimeout(max(0.0, until - time.monotonic()))
            try:
                part = self.socket.recv(4096)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError:
                part = b""
            if not part:  # it has ended
                self.close()
            self.received += part
        if not self.is_alive:
            return None
        line, _, self.received = self.received.partition(b"\n")
        return json.loads(line)


def can_adopt() -> bool:
    """Have orphans of this process's children become its own; False where that cannot be.

    Also False where a forked process is not safe: with the system libraries of other systems than
    Linux.
    """
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def prepare_cells(
    cells: Sequence[SweepCell], folder: Path, more: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return one cell of each task and method, then of each seed, as `WarmProcess` takes them.

    Args:
        cells: those to do.
        folder: of the sweep.
        more: further arguments of a RunRequest.
    """
    # Reversed, so that of equal keys the first cell stays; then the order of the cells again.
    first = {(cell.task, cell.method): cell for cell in reversed(cells)}
    seeds = {(cell.task, cell.seed): cell for cell in reversed(cells)}
    others = [cell for cell in reversed(seeds.values()) if cell not in first.values()]
    to_prepare = [(cell, False) for cell in reversed(first.values())]
    to_prepare += [(cell, True) for cell in others[:MOST_SEEDS]]
    return [
        {"file": str(settings_file(folder, cell).resolve()), "data_alone": data_alone, **more}
        for cell, data_alone in to_prepare
    ]


# The other end: what runs in the process itself.


def _serve(other: socket.socket) -> dict[str, Any] | None:
    """Answer until the sweep ends; returns what to run in a process that was forked."""
    with other.makefile("r", encoding="utf-8") as lines:
        about = json.loads(lines.readline())
        end_with(about["parent"])
        if not _prepare(about):
            return None
        _tell(other, {"ready": True})
        for line in lines:
            job = json.loads(line)
            pid = _fork(job, about["parent"], other)
            if pid is None:
                return about | job
            _tell(other, {"pid": pid} if pid else {"failed": True})
    return None


def _tell(other: socket.socket, message: Mapping[str, Any]) -> None:
    with suppress(OSError):  # the sweep has ended, as the next line will tell
        other.sendall(json.dumps(message).encode() + b"\n")


def _prepare(about: Mapping[str, Any]) -> bool:
    """Import and list what cells need; False where this process must not be forked."""
    program = about["program"]
    before = _threads()
    if program[0] == "-m":
        importlib.import_module(f"{program[1]}.__main__")
        del sys.modules[f"{program[1]}.__main__"]  # which is run in each cell
    if about["prepare"]:
        for name in LATE_IMPORTS:
            importlib.import_module(name)
        before = _threads()
    collect_environment("")  # the commit, likewise
    # Threads of GNU OpenMP are not there in a forked process, which would wait for them for ever.
    # They belong to the thread that entered a parallel region and end with it: what may enter one,
    # such as the drawing of weights, is done in a thread of its own.
    worker = threading.Thread(target=_prepare_cells, args=(about["prepare"],))
    worker.start()
    worker.join()
    _wait_for_threads(before)
    gc.freeze()  # forked processes share this memory as long as nobody writes to it
    return _threads() <= before


def _prepare_cells(cells: Sequence[Mapping[str, Any]]) -> None:
    for cell in cells:
        _prepare_cell(cell)


def _wait_for_threads(most: int) -> None:
    """Wait a moment for threads that are ending."""
    until = time.monotonic() + ENDING_SECONDS
    while _threads() > most and time.monotonic() < until:
        time.sleep(0.01)


def _prepare_cell(cell: Mapping[str, Any]) -> None:
    from lpmoe_bench.config.settings import read_config_file
    from lpmoe_bench.training.plan import prepare_run
    from lpmoe_bench.training.request import RunRequest
    from lpmoe_bench.training.run import prepare_parts

    request = RunRequest(
        flags={},
        file=read_config_file(Path(cell["file"])),
        data_root=Path(cell["data_root"]) if cell["data_root"] else None,
        datasets=[Path(path) for path in cell["datasets"]],
        embedded=cell["embedded"],
        runs=Path(cell["runs"]),
        offline=cell["offline"],
    )
    with suppress(Exception):  # whatever it is, the cell meets it too and says so in its own log
        plan = prepare_run(request, Terminal(quiet=True))
        if not cell["data_alone"]:
            prepare_parts(plan)


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _fork(job: Mapping[str, Any], parent: int, other: socket.socket) -> int | None:
    """Fork twice and return the id of the second, 0 where it failed; None in that process.

    The first ends at once, so that the second, an orphan, is adopted by the sweep.
    """
    reader, writer = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads: those of OpenBLAS are made for it
            first = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        return 0
    if first:
        os.close(writer)
        with open(reader, "rb") as file:
            # Reads until both forked processes have closed
            # the pipe; nothing where the second was not made.
            told = file.read()
        os.waitpid(first, 0)
        return int(told or 0)
    os.close(reader)
    try:
        if os.fork():
            os._exit(0)
        # A group of its own before anybody knows its id, since groups are what is killed.
        os.setsid()
        log = os.open(job["log"], os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 2)
        os.close(log)
        other.close()
        while os.getppid() != parent:
            if not _is_running(parent):
                os._exit(128 + signal.SIGTERM)
            time.sleep(0.0005)
        os.write(writer, str(os.getpid()).encode())
        os.close(writer)
    except OSError:
        os._exit(1)
    return None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _run(job: Mapping[str, Any]) -> None:
    """Run the program of a cell, as the interpreter would have."""
    gc.unfreeze()
    program = job["program"]
    if program[0] == "-m":
        sys.argv = [program[1], *program[2:], *job["words"]]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [*program, *job["words"]]
        runpy.run_path(program[0], run_name="__main__")


def _main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as other:
        job = _serve(other)
    if job is not None:
        _run(job)


if __name__ == "__main__":
    _main()
