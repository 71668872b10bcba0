"""Scoring over several processes: the same bits for any number of them, or one sentence."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext

from lpmoe_bench.errors import InterruptedRun, ResourceError
from lpmoe_bench.score.work import Item, Job, Part, score_items

Report = Callable[[int, int], None]

CHUNK = 8  # items a task: few, so that the bar moves and no process waits long for the last
WORTH = 200  # maps a process: with fewer, its start costs more than it saves
# What every process needs and functions import only when they are called.
PRELOAD = [f"lpmoe_bench.metrics.{name}" for name in ("counting", "distance", "smoothing")]


def score_all(
    job: Job, items: Sequence[Item], folders: int, jobs: int | None, report: Report
) -> Part:
    """Score all items, by default with a process for each core; `report` is told (done, all).

    Raises ResourceError when a process is killed and InterruptedRun on Ctrl-C.
    """
    maps = len(items) * folders * len(job.variants)
    count = jobs or max(1, min(_cores(), maps // WORTH))
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    count = min(count, len(chunks))
    total, done = Part.empty(job, folders), 0
    try:
        parts = _in_turn(job, chunks, folders)
        if count > 1:
            parts = _side_by_side(job, chunks, folders, count)
        for part, size in parts:
            total.take(part)
            done += size
            report(done, len(items))
    except KeyboardInterrupt:
        raise InterruptedRun(
            f"interrupted after {done} of {len(items)} images; nothing was written, the same "
            f"command starts over"
        ) from None
    except BrokenProcessPool:
        raise ResourceError(
            f"a scoring process was killed after {done} of {len(items)} images, as happens where "
            f"memory runs out; nothing was written, try --jobs {max(1, count // 2)}"
        ) from None
    return total.sort()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_turn(
    job: Job, chunks: Sequence[Sequence[Item]], folders: int
) -> Iterator[tuple[Part, int]]:
    for chunk in chunks:
        yield score_items(job, chunk, folders), len(chunk)


def _side_by_side(
    job: Job, chunks: Sequence[Sequence[Item]], folders: int, count: int
) -> Iterator[tuple[Part, int]]:
    """Yield parts as they are finished; few are waiting, so that no data set is held twice."""
    pool = ProcessPoolExecutor(count, _context(), initializer=_prepare)
    try:
        queue, waiting = iter(chunks), {}
        while True:
            for chunk in queue:
                waiting[pool.submit(score_items, job, chunk, folders)] = len(chunk)
                if len(waiting) >= 3 * count:
                    break
            if not waiting:
                return
            finished: set[Future] = wait(waiting, return_when=FIRST_COMPLETED).done
            for future in finished:
                yield future.result(), waiting.pop(future)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _context() -> BaseContext:
    """Start processes from one that has loaded the code but has no threads of ours."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *PRELOAD])
    return context


def _prepare() -> None:
    """Leave Ctrl-C to the parent, and end with it even where it was killed."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
