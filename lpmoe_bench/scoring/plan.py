"""A request to score maps, resolved before anything is scored: folders, masks, protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.images import inspect_map, read_image, read_mask
from lpmoe_bench.data.registry import Registry, Task, load_registry
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.extra import get_extra
from lpmoe_bench.metrics.protocols import Protocol, get_protocol
from lpmoe_bench.records.model import score_folder
from lpmoe_bench.scoring.folders import (
    MapFolder,
    TestSet,
    folder_set,
    open_folder,
    task_sets,
    titles_of,
)
from lpmoe_bench.scoring.work import fit

DEFAULT_PROTOCOL = "cod"
OWN_TASK = "own"  # the task of a record where none was named


@dataclass(frozen=True)
class ScoreRequest:
    """What a user asked for. `jobs`: processes, by default as many as pay. `again`: score maps that
    have a record as well, because something else is made of them, such as curves."""

    folders: Sequence[Path]
    names: Sequence[str] = ()
    gt: Path | None = None
    images: Path | None = None
    task: str | None = None
    test_set: str | None = None
    protocol: str | None = None
    datasets: Path | None = None
    data_root: Path | None = None
    embedded: bool = False
    cache: Path = Path("cache")
    runs: Path = Path("runs")
    allow_missing: bool = False
    force: bool = False
    jobs: int | None = None
    extra: Sequence[str] = ()
    curves: bool = False
    again: bool = False


@dataclass
class ScorePlan:
    """A request resolved: what is scored against what. For each folder, in order, the fingerprint
    of its scores and the place of its record. notes: what a user should know."""

    task: str
    protocol: Protocol
    extra: tuple[str, ...]
    sets: list[TestSet]
    folders: list[MapFolder]
    fingerprints: list[str]
    places: list[Path]
    notes: list[str]

    def load(self, folder: MapFolder, label: str) -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
        """Return what reads an image's map and mask as they are scored, uint8 (h, w)."""
        test = next(test for test in self.sets if test.label == label)

        def read(name: str) -> tuple[np.ndarray, np.ndarray]:
            mask = read_mask(test.masks[name], self.protocol.mask_threshold)
            pred = inspect_map(folder.matches[label].files[name])[0]
            return fit(pred, (mask.shape[0], mask.shape[1])), mask

        return read

    def load_image(self, label: str, name: str) -> np.ndarray | None:
        """Return an image, RGB uint8 (h, w, 3), None where it is not known."""
        test = next(test for test in self.sets if test.label == label)
        return read_image(test.images[name]) if name in test.images else None


def plan_scores(request: ScoreRequest, terminal: Terminal) -> ScorePlan:
    """Resolve a request; raises UsageError or DataError in one sentence each."""
    if "results" in request.runs.resolve().parts[-2:]:
        raise UsageError(f"--runs {request.runs} holds published records; choose another folder")
    titles = titles_of(request.folders, request.names)
    extra = tuple(dict.fromkeys(get_extra(key).key for key in request.extra))
    task, protocol, notes = _rules(request)
    sets, absent = _sets(request, task, terminal)
    if any(get_extra(key).needs_image for key in extra) and not all(s.images for s in sets):
        raise UsageError("an extra metric looks at images; name their folder with --images")
    folders = [
        open_folder(title, path, sets, request.allow_missing, absent)
        for title, path in zip(titles, request.folders, strict=True)
    ]
    used = {label for folder in folders for label in folder.matches}
    sets = [test for test in sets if test.label in used]
    name = task.name if task else OWN_TASK
    prints = [folder.fingerprint(sets, protocol, extra) for folder in folders]
    named = zip(titles, prints, strict=True)
    places = [request.runs / score_folder(name, title, print_) for title, print_ in named]
    notes += [note for folder in folders for note in folder.notes]
    return ScorePlan(name, protocol, extra, sets, folders, prints, places, notes)


def _rules(request: ScoreRequest) -> tuple[Task | None, Protocol, list[str]]:
    """Return the task, if any, and the protocol: the one named, or the task's, or a default."""
    task = None
    if request.task is not None:
        task = _registry(request).task(request.task)
    elif request.gt is None:
        raise UsageError("maps are scored against masks: name their folder with --gt, or a --task")
    if request.protocol is not None or task is not None:
        return task, get_protocol(request.protocol or (task.protocol if task else "")), []
    note = (
        f"no --protocol and no --task: protocol {DEFAULT_PROTOCOL} counts; others give other "
        f"numbers (lpmoe-bench list protocols, --vary)"
    )
    return None, get_protocol(DEFAULT_PROTOCOL), [note]


def _registry(request: ScoreRequest) -> Registry:
    return load_registry(request.datasets)


def _sets(
    request: ScoreRequest, task: Task | None, terminal: Terminal
) -> tuple[list[TestSet], list[str]]:
    """Return the test sets, and the names of those of the task that are not found."""
    if request.gt is not None:
        if request.test_set or request.embedded:
            raise UsageError("--gt names the masks; drop --set and --embedded")
        return [folder_set(request.gt, request.images, request.cache)], []
    if request.images is not None:
        raise UsageError("--images belongs to --gt; a task knows its images")
    assert task is not None
    with terminal.bar("preparing data", 1) as bar:
        return task_sets(
            task,
            _registry(request),
            request.data_root,
            request.test_set,
            request.embedded,
            request.cache,
            bar.update,
        )
