"""Scores of anybody's maps: from folders to records, each mask read once for all folders."""

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from lpmoe_bench.console import OnProgress, Terminal
from lpmoe_bench.data.matching import grouped, shown
from lpmoe_bench.data.test_sets import TestSet
from lpmoe_bench.environment import Environment, collect_environment, usable_cores
from lpmoe_bench.errors import DataError, InterruptedRun, ResourceError, UsageError
from lpmoe_bench.files import hold_lock, write_failure
from lpmoe_bench.metrics.extra import needs_image
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.records import model, store
from lpmoe_bench.scoring import work
from lpmoe_bench.scoring.plan import MapFolder, ScorePlan, ScoreRequest

# Scoring over several processes: the same bits for any number of them, or one sentence.

CHUNK = 8  # items a task: few, so that the bar moves and no process waits long for the last
WORTH = 200  # maps a process: with fewer, its start costs more than it saves
# What every process needs and functions import only when they are called.
PRELOAD = ["lpmoe_bench.metrics.kernels", "lpmoe_bench.metrics.surfaces"]


def score_all(
    job: work.ScoringJob,
    items: Sequence[work.Item],
    folders: int,
    jobs: int | None,
    on_progress: OnProgress,
) -> work.Part:
    """Score all items, by default with a process for each core; `on_progress` is told (done, all).

    Raises ResourceError when a process is killed and InterruptedRun on Ctrl-C.
    """
    maps = len(items) * folders * len(job.variants)
    count = jobs or max(1, min(usable_cores(), maps // WORTH))
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    count = min(count, len(chunks))
    total, done = work.Part.empty(job, folders), 0
    try:
        parts = ((work.score_items(job, chunk, folders), len(chunk)) for chunk in chunks)
        if count > 1:
            parts = _side_by_side(job, chunks, folders, count)
        for part, size in parts:
            total.take(part)
            done += size
            on_progress(done, len(items))
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
    # Parts come as they finish. Scorers hold values by image and add up in the order of names, so
    # that sums have the same bits; what is left is to bring the names of checks into order.
    return total.in_order()


def _side_by_side(
    job: work.ScoringJob, chunks: Sequence[Sequence[work.Item]], folders: int, count: int
) -> Iterator[tuple[work.Part, int]]:
    """Yield parts as they are finished; few are waiting, so that no data set is held twice."""
    with tempfile.TemporaryDirectory(prefix="lpmoe-bench-") as place:
        pool = ProcessPoolExecutor(count, _context(), initializer=_prepare)
        try:
            queue, waiting = iter(chunks), {}
            while True:
                for chunk in queue:
                    waiting[pool.submit(_score_into, place, job, chunk, folders)] = len(chunk)
                    # Three chunks a process: enough that none of
                    # them waits, few enough to hold in memory.
                    if len(waiting) >= 3 * count:
                        break
                if not waiting:
                    return
                finished: set[Future] = wait(waiting, return_when=FIRST_COMPLETED).done
                for future in finished:
                    yield _taken(future.result()), waiting.pop(future)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _score_into(place: str, job: work.ScoringJob, chunk: Sequence[work.Item], folders: int) -> str:
    """Score items in a process of the pool, and return the file that the part is in.

    A part is larger than a pipe holds. A process that is killed while it writes one into the pipe
    leaves the parent reading for ever, for the other processes keep the pipe open; a name is
    written at once or not at all.
    """
    part, (handle, name) = work.score_items(job, chunk, folders), tempfile.mkstemp(dir=place)
    try:
        with os.fdopen(handle, "wb") as file:
            pickle.dump(part, file, pickle.HIGHEST_PROTOCOL)
    except OSError as error:
        raise ResourceError(write_failure(Path(name), error)) from None
    return name


def _taken(name: str) -> work.Part:
    data = Path(name).read_bytes()  # written by our own process, in a folder of this user alone
    os.unlink(name)
    return pickle.loads(data)


def _context() -> BaseContext:
    """Start processes from one that has loaded the code but has no threads of ours."""
    # A fork of this process would copy the locks of OpenCV's threads as they are, held for ever
    # where a thread held one; a fresh start of each process would load numba's kernels every time.
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
    # A parent that is killed by the system tells nobody: its children wait for its end and follow.
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


# The record of scored maps: the same files as a run's, without what nobody knows of a run.

WAIT = 60.0  # seconds for whoever writes the same record
FIDELITY = "maps from a folder; how they were made is not known"


@dataclass(frozen=True)
class Scored:
    """One method's maps of one test set. results: the first counts, others are variants. checks:
    names of images by check. notes: what was said of maps and masks."""

    title: str
    facts: model.SplitFacts
    results: Sequence[ScoreResult | None]
    checks: Mapping[str, Sequence[str]]
    notes: tuple[str, ...]

    @property
    def result(self) -> ScoreResult:
        first = self.results[0]
        assert first is not None
        return first

    @property
    def counts(self) -> dict[str, int]:
        """What a record counts. expected: images of the test set, of which `images` have a map."""
        checks = {work.CHECKS[check][0]: len(names) for check, names in self.checks.items()}
        return {"expected": self.facts.images} | self.result.counts | checks


def finished(place: Path, folder: MapFolder) -> model.Record | None:
    """Return the record of these maps where there is one; raises UsageError for another name's.

    A record of wider maps that were rounded to 8 bits, as once they were, is none of these maps.
    """
    if not (place / store.RECORD).exists():
        return None
    record = store.read_record(place)
    store.check_files(place, record)
    if record.method.name != folder.title:
        raise UsageError(
            f"{place} holds the same maps under the name {record.method.name}; use that, or one "
            f"that differs in more than punctuation from it"
        )
    wide = any({"16_bit_maps", "float_maps"} & counts.keys() for counts in record.counts.values())
    return None if wide and record.maps is None else record


def write_scored(
    plan: ScorePlan, index: int, scored: Sequence[Scored], environment: Environment
) -> model.Record:
    """Write the record of a plan's folder of maps, scored on some test sets, and return it.

    One that stood there keeps its files under other names.
    """
    place, folder = plan.places[index], plan.folders[index]
    config: dict[str, Any] = {"task": plan.task, "protocol": plan.protocol.name}
    if plan.extra:  # without, as before there were any: the record has the same bytes
        config["extra"] = list(plan.extra)
    if plan.how.values:  # without which the maps cannot be read again
        config["map_values"] = plan.how.values
    rules = plan.protocol
    if rules.name not in PROTOCOLS:  # whose rules stand nowhere else
        shown = {"headline": list(rules.headline), "percent": list(rules.percent)}
        config |= {"protocol_rules": rules.rules, "protocol_columns": shown}
    record = model.Record(
        kind="score",
        id="/".join(place.parts[-4:]),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=config,
        fingerprint=plan.fingerprints[index],
        method=model.MethodFacts(name=folder.title, title=folder.title, fidelity=FIDELITY),
        task=plan.task,
        protocol=model.ProtocolFacts(name=rules.name, version=rules.version, hash=rules.hash),
        scores={one.facts.label: dict(one.result.scores) for one in scored},
        counts={one.facts.label: one.counts for one in scored},
        environment=environment,
        maps=work.precision_of([check for one in scored for check in one.checks]),
        labels=model.label_facts(plan.classes, {o.facts.label: o.counts for o in scored}),
        test_opened=1,
        data=model.DataFacts(tests=[one.facts for one in scored]),
        notes=[
            *folder.notes,
            *(f"{one.facts.label}: {note}" for one in scored for note in one.notes),
        ],
    )
    # Only now, when all is scored: until here a stop leaves the old record as it was.
    store.set_aside(place)
    rows = [row for one in scored for row in one.result.rows]
    return store.write_record(place, record, rows)


# {test set: {method: its result by each variant, None where a variant has none}}
Results = Mapping[str, Mapping[str, Sequence[ScoreResult | None]]]


@dataclass(frozen=True)
class ScoreOutcome:
    """One record a folder, in order; results of the maps that were scored, not of those that had a
    record. fresh: whether each record is new."""

    records: list[store.StoredRecord]
    results: Results
    fresh: list[bool]


def score_folders(
    plan: ScorePlan,
    request: ScoreRequest,
    terminal: Terminal,
    variants: Sequence[work.Variant] = (),
) -> ScoreOutcome:
    """Score what has no record yet and write the records; all are returned.

    Raises DataError naming all files that cannot be scored, ResourceError when a process is killed
    and InterruptedRun on Ctrl-C; no record is written then.
    """
    known = [
        None if request.force else finished(place, folder)
        for place, folder in zip(plan.places, plan.folders, strict=True)
    ]
    pairs = zip(plan.folders, known, strict=True)
    chosen = [folder for folder, record in pairs if record is None or request.again]
    scored = [
        one
        for test in plan.sets
        for one in score_set(plan, request, test, chosen, variants, terminal)
    ]
    # Only when all is scored: a folder whose record is written is not scored the next time.
    records, environment = [], collect_environment("cpu")
    for index, (place, record) in enumerate(zip(plan.places, known, strict=True)):
        if record is None:
            own = [one for one in scored if one.title == plan.folders[index].title]
            # Others may score the same maps now: who comes second takes the record of the first.
            with _locked(place):
                record = None if request.force else finished(place, plan.folders[index])
                record = record or write_scored(plan, index, own, environment)
        records.append(store.StoredRecord(place, record))
        for label, found_maps in plan.folders[index].matches.items():
            place_of, files = plan.folders[index].path, found_maps.files.values()
            there = place_of if place_of.is_file() else store.common_folder(files)
            # A test set in a sub-folder of the masks is named after it.
            inner = label.rpartition("/")[2] if len(plan.sets) > 1 and request.gt else ""
            images, masks = (f and f / inner for f in (request.images, request.gt))
            store.remember_places(place, label, store.Places(images, masks, there))
    results: dict[str, dict[str, Sequence[ScoreResult | None]]] = {}
    order = [folder.title for folder in chosen]
    for one in sorted(scored, key=lambda one: order.index(one.title)):
        results.setdefault(one.facts.label, {})[one.title] = one.results
    return ScoreOutcome(records, results, [record is None for record in known])


def _locked(place: Path) -> ExitStack:
    """Take the lock of a record's folder, which others hold while they write; ResourceError."""
    lock = hold_lock(place / ".lock", WAIT)
    if lock is None:
        raise ResourceError(
            f"{place} is written by another process for more than {WAIT:g} seconds; let it end, "
            f"then score again"
        )
    return lock


def score_set(
    plan: ScorePlan,
    request: ScoreRequest,
    test: TestSet,
    chosen: Sequence[MapFolder],
    variants: Sequence[work.Variant],
    terminal: Terminal,
) -> list[Scored]:
    """Score the maps that folders hold of one test set; `terminal` is told what is unusual.

    Raises DataError naming the files that cannot be scored.
    """
    folders = [folder for folder in chosen if test.label in folder.matches]
    if not folders:
        return []
    every = (work.Variant(plan.protocol), *variants)
    job = plan.job(test.label, every, plan.extra, request.curves, test.rules, request.how)
    items = _items(plan, test, folders)
    with terminal.bar(f"scoring {test.label}", len(items)) as bar:
        part = score_all(job, items, len(folders), request.jobs, bar.update)
    if part.problems:
        raise DataError(
            f"{len(part.problems)} files of {test.label} and its maps cannot be scored: "
            f"{shown(grouped(part.problems), '; ')}"
        )
    of_masks = job.of_truth(part.mask_flags, len(items))
    for note in of_masks:
        terminal.note(f"{test.label}: {note}")
    scored = []
    # JPEG rounds the edges of every mask to grey levels: only exact files tell of a swap.
    exact = not any(mask.suffix.lower().startswith(".jp") for mask in test.masks.values())
    for folder, scorers, checks in zip(folders, part.scorers, part.checks, strict=True):
        count = len(folder.matches[test.label].files)
        notes = job.of_maps(folder.title, checks, count, part.mask_flags, exact)
        for note in notes:
            terminal.note(f"{folder.title}, {test.label}: {note}")
        first, *others = scorers
        results = [first.result().with_groups(test.split.groups), *map(_result, others)]
        flagged = job.of_result(results[0])
        for note in flagged:
            terminal.note(f"{folder.title}, {test.label}: {note}")
        notes += flagged
        facts = model.SplitFacts(**test.facts)
        scored.append(Scored(folder.title, facts, results, checks, (*notes, *of_masks)))
    return scored


def _items(plan: ScorePlan, test: TestSet, folders: Sequence[MapFolder]) -> list[work.Item]:
    """Return the masks that have a map in any folder, with these maps."""
    files = [folder.matches[test.label].files for folder in folders]
    seen = needs_image(plan.extra)
    return [
        work.Item(
            name,
            mask,
            tuple(f.get(name) for f in files),
            test.images[name] if seen else None,
            test.images.get(name),
        )
        for name, mask in sorted(test.masks.items())
        if any(name in f for f in files)
    ]


def _result(scorer: Any) -> ScoreResult | None:
    """Return a variant's result, None where all masks are empty and the variant leaves them out."""
    try:
        return scorer.result()
    except DataError:
        return None
