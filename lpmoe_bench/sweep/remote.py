"""One cell on another machine: run there, in the shared folder or streamed back in pieces."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from lpmoe_bench import __version__
from lpmoe_bench.errors import ResourceError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.records.store import CURVE, RECORD, ROWS
from lpmoe_bench.sweep.locks import locked
from lpmoe_bench.sweep.model import Sweep
from lpmoe_bench.sweep.outcome import Ended
from lpmoe_bench.sweep.process import CellProcess, Job
from lpmoe_bench.sweep.store import PLAN

ADAPTER, PREDICTIONS = "adapter.safetensors", "predictions"
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Task:
    """What a worker needs: the job with the paths of the sweep's machine, and its settings.

    shared: whether those paths are this machine's too; None: look.
    """

    job: Job
    sweep: str
    folder: Path
    settings: str
    shared: bool | None
    version: str
    program: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """How a cell ended on a worker; files and log are empty where the folder is shared."""

    ended: Ended
    seconds: float
    files: dict[str, bytes]
    log: bytes = b""


def run_task(task: Task) -> Result:
    """Run a cell in a process of its own; this is what Ray calls on the worker."""
    host = _here()
    if task.version != __version__:
        lost = f"{host} has lpmoe-bench {__version__}, the sweep {task.version}; install that there"
        return Result(Ended(None, lost=lost, host=host), 0.0, {})
    shared = sees(task) if task.shared is None else task.shared
    job = task.job if shared else local_job(task)
    try:
        process = CellProcess(job, {}, task.program)
    except ResourceError as error:
        return Result(Ended(None, lost=str(error), host=host), 0.0, {})
    ended = _wait(process)
    ended = replace(ended, host=host)
    if shared:
        return Result(ended, process.seconds, {})
    return Result(ended, process.seconds, collect(job), job.log.read_bytes())


def sees(task: Task) -> bool:
    """Whether the folder of the sweep is the same one here: its plan is there, and it can write."""
    plan = task.folder / PLAN
    try:
        known = Sweep.model_validate_json(plan.read_text(encoding="utf-8")).id == task.sweep
    except (OSError, ValueError):
        return False
    return known and os.access(task.folder, os.W_OK)


def local_job(task: Task) -> Job:
    """Return the job with folders of this machine; a later attempt here finds its saved state."""
    base = Path(tempfile.gettempdir()) / f"lpmoe-bench-{os.getuid()}" / f"sweep-{task.sweep}"
    settings = base / "cells" / task.job.settings.name
    write_atomically(settings, task.settings)
    log = base / "logs" / f"{task.job.cell.name}-{task.job.log.name}"
    log.parent.mkdir(parents=True, exist_ok=True)
    return replace(task.job, settings=settings, runs=base / "runs", log=log)


def collect(job: Job) -> dict[str, bytes]:
    """Return the files of a finished run by their names; none where it is not finished."""
    folder = job.runs / job.cell.folder
    if not (folder / RECORD).exists():
        return {}
    paths = [folder / name for name in (ROWS, CURVE, ADAPTER, RECORD)]
    paths += [path for path in (folder / PREDICTIONS).rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.exists()}


def receive(job: Job, result: Result) -> None:
    """Write what was streamed back, the record last; a finished run that is there stays."""
    if result.log:
        write_atomically(job.log, result.log)
    folder = job.runs / job.cell.folder
    if not result.files:
        return
    with locked(folder):
        if (folder / RECORD).exists():
            return
        for name in sorted(result.files, key=lambda name: name == RECORD):
            write_atomically(folder / name, result.files[name])


def _here() -> str:
    """Name this machine, and the node of the cluster: one machine may hold several."""
    import ray

    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
    return f"{socket.gethostname()}, node {node[:8]}" if node else socket.gethostname()


def _wait(process: CellProcess) -> Ended:
    """Wait for a process; when Ray cancels the task, have it save and end."""
    asked = False
    while True:
        try:
            while (ended := process.ended()) is None:
                if asked:
                    process.stop()
                time.sleep(POLL_SECONDS)
            return ended
        except KeyboardInterrupt:
            asked = True
