"""The engine `ray`: cells as tasks of a Ray cluster, here or on many machines."""

import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lpmoe_bench import __version__
from lpmoe_bench.errors import ResourceError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.records.store import CURVE, RECORD, ROWS
from lpmoe_bench.sweep import local
from lpmoe_bench.sweep.plan import PLAN, Sweep, SweepCell, settings_text
from lpmoe_bench.sweep.state import wait_for_lock

# One cell on another machine: run there, in the shared folder or streamed back in pieces.

ADAPTER, PREDICTIONS = "adapter.safetensors", "predictions"
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class CellTask:
    """What a worker needs: the job with the paths of the sweep's machine, and its settings.

    shared: whether those paths are this machine's too; None: look. plugins: the text of each file
    of the job's places, for a machine that does not see them.
    """

    job: local.CellJob
    sweep: str
    folder: Path
    settings: str
    shared: bool | None
    version: str
    program: tuple[str, ...]
    plugins: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Result:
    """How a cell ended on a worker; files and log are empty where the folder is shared."""

    ended: local.Ended
    seconds: float
    files: dict[str, bytes]
    log: bytes = b""


def run_task(task: CellTask) -> Result:
    """Run a cell in a process of its own; this is what Ray calls on the worker."""
    host = _here()
    # Another version could compute other numbers under the planned fingerprint.
    if task.version != __version__:
        lost = f"{host} has lpmoe-bench {__version__}, the sweep {task.version}; install that there"
        return Result(local.Ended(None, lost=lost, host=host), 0.0, {})
    shared = sees(task) if task.shared is None else task.shared
    job = task.job if shared else local_job(task)
    try:
        process = local.CellProcess(job, {}, task.program)
    except ResourceError as error:
        return Result(local.Ended(None, lost=str(error), host=host), 0.0, {})
    ended = replace(_wait(process), host=host)
    if shared:
        return Result(ended, process.seconds, {})
    return Result(ended, process.seconds, collect(job), job.log.read_bytes())


def sees(task: CellTask) -> bool:
    """Whether the folder of the sweep is the same one here: its plan is there, and it can write."""
    plan = task.folder / PLAN
    try:
        known = Sweep.model_validate_json(plan.read_text(encoding="utf-8")).id == task.sweep
    except (OSError, ValueError):
        return False
    return known and os.access(task.folder, os.W_OK)


def local_job(task: CellTask) -> local.CellJob:
    """Return the job with folders of this machine; a later attempt here finds its saved state."""
    base = Path(tempfile.gettempdir()) / f"lpmoe-bench-{os.getuid()}" / f"sweep-{task.sweep}"
    settings = base / "cells" / task.job.settings.name
    write_atomically(settings, task.settings)
    # Under its own name, which is the name of its method; in a folder of its own, as two may be
    # called alike.
    paths = task.job.places.plugins
    plugins = tuple(base / "plugins" / str(k) / path.name for k, path in enumerate(paths))
    for path, text in zip(plugins, task.plugins, strict=True):
        write_atomically(path, text)
    places = task.job.places.model_copy(update={"plugins": plugins})
    log = base / "logs" / f"{task.job.cell.name}-{task.job.log.name}"
    log.parent.mkdir(parents=True, exist_ok=True)
    return replace(task.job, settings=settings, runs=base / "runs", log=log, places=places)


def collect(job: local.CellJob) -> dict[str, bytes]:
    """Return the files of a finished run by their names; none where it is not finished."""
    folder = job.runs / job.cell.folder
    if not (folder / RECORD).exists():
        return {}
    paths = [folder / name for name in (ROWS, CURVE, ADAPTER, RECORD)]
    paths += [path for path in (folder / PREDICTIONS).rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.exists()}


def receive(job: local.CellJob, result: Result) -> None:
    """Write what was streamed back, the record last; a finished run that is there stays."""
    if result.log:
        write_atomically(job.log, result.log)
    folder = job.runs / job.cell.folder
    if not result.files:
        return
    with wait_for_lock(folder):
        if (folder / RECORD).exists():
            return
        # The record makes a run finished, so all else has to be there before it.
        for name in sorted(result.files, key=lambda name: name == RECORD):
            write_atomically(folder / name, result.files[name])


def _here() -> str:
    """Name this machine, and the node of the cluster: one machine may hold several."""
    import ray

    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
    return f"{socket.gethostname()}, node {node[:8]}" if node else socket.gethostname()


def _wait(process: local.CellProcess) -> local.Ended:
    """Wait for a process; when Ray cancels the task, have it save and end."""
    asked = False
    while True:
        try:
            while (ended := process.ended()) is None:
                if asked:
                    process.stop()
                time.sleep(POLL_SECONDS)
            return ended
        except KeyboardInterrupt:  # how Ray cancels a task; a second one must not end the wait
            asked = True


INSTALL = "the ray engine needs Ray; install it with: pip install 'lpmoe-bench[ray]'"


class Share(NamedTuple):
    """How many cells run at a time, and what of a machine each has."""

    jobs: int
    cpus: int
    gpus: int


class RayEngine:
    """Runs cells as tasks; what a worker or a machine takes down with it is tried again.

    Ray's own retries are off: the sweep counts attempts, keeps their reasons, and gives a cell that
    ran out of memory another micro-batch, which Ray would start unchanged for ever.
    """

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        jobs: int | None,
        address: str | None,
        shared: bool | None,
        say: Callable[[str], None],
    ):
        self.ray = _connect(address)
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        share = share_of(sweep.cells, nodes, jobs)
        self.jobs, self.sweep, self.folder, self.shared = share.jobs, sweep, folder, shared
        self.program = local.PROGRAM
        # Once: every cell has the same text, whatever becomes of the file meanwhile.
        self.plugins = tuple(path.read_bytes() for path in sweep.places.plugins)
        self.remote = self.ray.remote(run_task).options(
            num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0, scheduling_strategy="SPREAD"
        )
        self.running: dict[Any, tuple[local.CellJob, float]] = {}
        self.asked: float | None = None
        gpus = f" and {share.gpus} GPUs" if share.gpus else ""
        say(
            f"Ray cluster of {len(nodes)} machines: {share.jobs} cells at a time, {share.cpus} "
            f"processor cores{gpus} each"
        )

    def free(self) -> bool:
        return len(self.running) < self.jobs

    def start(self, job: local.CellJob) -> None:
        task = CellTask(
            job=job,
            sweep=self.sweep.id,
            folder=self.folder,
            settings=settings_text(job.cell),
            shared=self.shared,
            version=__version__,
            program=tuple(self.program),
            plugins=self.plugins,
        )
        self.running[self.remote.remote(task)] = (job, time.monotonic())

    def ended(self) -> list[tuple[local.CellJob, local.Ended, float]]:
        """Return (job, how it ended, seconds) of tasks that ended; streamed files are written."""
        if not self.running:
            return []
        # With timeout 0 this asks and waits for nothing.
        ready, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        return [self._result(reference) for reference in ready]

    def stop(self) -> None:
        """Ask the tasks to save and end; the longer ago that was, the less politely."""
        forced = self.asked is not None and time.monotonic() - self.asked > local.PATIENT_SECONDS
        # Ray cancels a task by KeyboardInterrupt, by force it kills the worker.
        if self.asked is None or forced:
            self.asked = time.monotonic()
            for reference in self.running:
                self.ray.cancel(reference, force=forced)

    def close(self) -> None:
        """Leave the cluster; Ray ends what still runs for this process, and each cell with it."""
        for reference in self.running:
            self.ray.cancel(reference, force=True)
        self.running = {}
        self.ray.shutdown()

    def _result(self, reference: Any) -> tuple[local.CellJob, local.Ended, float]:
        job, started = self.running.pop(reference)
        seconds = time.monotonic() - started
        try:
            result = self.ray.get(reference)
        except self.ray.exceptions.OutOfMemoryError as error:
            return job, local.Ended(None, lost=f"out of memory: {_first(error)}"), seconds
        except self.ray.exceptions.RayError as error:
            return job, local.Ended(None, lost=f"Ray lost it: {_first(error)}"), seconds
        receive(job, result)
        return job, result.ended, result.seconds


def _connect(address: str | None) -> Any:
    """Join a cluster, or start one here; raises UsageError, or ResourceError where none answers."""
    try:
        import ray
    except ModuleNotFoundError:
        raise UsageError(INSTALL) from None
    place = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_answer(place)
    options: dict[str, Any] = {"include_dashboard": False} if place == "local" else {}
    try:
        ray.init(place, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(place, error) from None
    return ray


def _check_answer(place: str) -> None:
    """Refuse an address where nothing listens, which Ray itself tries for a long time."""
    host, _, port = place.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(place, error) from None


def _no_cluster(place: str, error: Exception) -> ResourceError:
    return ResourceError(
        f"no Ray cluster answers at {place} ({_first(error)}); start one with "
        f"`ray start --head`, or leave --address out to use this machine alone"
    )


def share_of(cells: list[SweepCell], nodes: list[dict[str, float]], jobs: int | None) -> Share:
    """Return how a cluster is shared: a cell has its GPUs, or an equal part of a machine's cores.

    nodes: the resources of each machine, as Ray counts them; one that lends no core, as a head that
    only coordinates, runs no cell. By default one cell for each GPU, where there are any, else one
    for each machine.
    """
    nodes = [node for node in nodes if node.get("CPU", 0) >= 1]
    each, on_gpus = local.devices_of(cells)
    fitting = sum(int(node.get("GPU", 0)) // each for node in nodes) if on_gpus else 0
    if fitting:
        return Share(jobs or fitting, 1, each)
    jobs = jobs or max(1, len(nodes))
    a_machine = -(-jobs // max(1, len(nodes)))
    cores = min((int(node["CPU"]) for node in nodes), default=1)
    return Share(jobs, max(1, cores // a_machine), 0)


def _first(error: Exception) -> str:
    """Return the first line of what Ray says, which goes on for many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
