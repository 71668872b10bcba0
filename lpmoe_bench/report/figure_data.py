"""What a figure is made of: the test set and its maps, from records, runs and folders of maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lpmoe_bench.data.tasks import resolve
from lpmoe_bench.data.test_sets import TestSet, folder_set, task_sets
from lpmoe_bench.errors import BenchError, DataError, UsageError
from lpmoe_bench.metrics.facts import Metric
from lpmoe_bench.metrics.protocols import Protocol, get_protocol
from lpmoe_bench.records.context import test_facts
from lpmoe_bench.records.store import Found, StoredRecord
from lpmoe_bench.report import maps
from lpmoe_bench.report.contents import Selection, gather_contents
from lpmoe_bench.report.figure import MapSource, record_values
from lpmoe_bench.scoring.plan import DEFAULT_PROTOCOL
from lpmoe_bench.scoring.views import image_metric

MOST_METHODS = 12  # columns that a page holds


@dataclass(frozen=True)
class FigureRequest:
    """Whose maps of which images a figure shows.

    found: records and runs, by which maps are found or predicted. folders: of maps, by the name of
    their method. images, masks: a user's own folders. embedded: the set drawn in code of the
    task. choice: which records, by which score, and which test set.
    """

    source: maps.SetSource
    found: Found
    folders: Mapping[str, Path]
    choice: Selection = field(default_factory=Selection)
    images: Path | None = None
    masks: Path | None = None
    embedded: bool = False
    protocol: str | None = None


@dataclass
class FigureData:
    """The test set, its maps by method, and how they are compared; notes: what was left out."""

    test: TestSet
    metric: Metric
    protocol: Protocol
    sources: list[MapSource] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gather_figure(request: FigureRequest) -> FigureData:
    """Find images, masks and maps of a figure.

    Raises:
        UsageError: several tables or tasks, no test set is named, or too many methods.
        DataError: images or maps are not found.
    """
    if request.masks is None and request.images is not None:
        raise UsageError("--images names a folder of images; name that of their masks with --gt")
    if request.masks is not None:
        test = folder_set(request.masks, request.images, request.source.cache)
        data, rows = _data(request, test, None), _methods(request.found.stored)
    elif request.embedded:
        data, rows = _data(request, _drawn(request), None), _methods(request.found.stored)
    elif request.found.stored:
        data, rows = _of_table(request)
    else:
        data, rows = _data(request, _of_task(request), None), []
    if len(rows) + len(request.folders) > MOST_METHODS:
        raise UsageError(
            f"{len(rows) + len(request.folders)} methods are more than the {MOST_METHODS} that a "
            f"page holds; choose some with --method"
        )
    without = []
    for title, stored in rows:
        one = _of_records(data, title, stored)
        data.sources.append(one) if one else without.append(title)
    for title, folder in request.folders.items():
        data.sources.append(_of_folder(data, title, folder))
    if without:
        data.notes.append(f"no maps are kept of {', '.join(without)}, and no trained weights")
    if not data.sources:
        raise DataError(
            f"no maps of {data.test.label} are found: {data.notes[-1] if data.notes else 'none'}; "
            f"keep them with --save-predictions or runtime.save_predictions=true, or name folders "
            f"of maps as NAME=FOLDER"
        )
    return data


def _data(request: FigureRequest, test: TestSet, protocol: str | None) -> FigureData:
    """Return the data without maps; protocol: that of the records, where they have one."""
    first = next(iter(request.found.records), None)
    known = request.protocol or protocol or (first.protocol.name if first else test.protocol)
    rules = get_protocol(known or DEFAULT_PROTOCOL)
    metric = image_metric(request.choice.metric or rules.primary)
    return FigureData(test, metric, rules)


def _drawn(request: FigureRequest) -> TestSet:
    """Return the set drawn in code of the one task; raises UsageError where there are several."""
    tasks = sorted({record.task for record in request.found.records} or {request.choice.task or ""})
    if request.choice.task is None and len(tasks) > 1:
        raise UsageError(
            f"these runs are of several tasks, {' and '.join(tasks)}; draw each task's on their own"
        )
    task = request.source.registry.task(request.choice.task or tasks[0])
    drawn = resolve(task, request.source.registry, None, None, True, request.source.cache)
    return TestSet.of(drawn.tests[0], task.protocol)


def _of_task(request: FigureRequest) -> TestSet:
    """Return the one test set of a task that is found; raises UsageError where there are more."""
    source, choice = request.source, request.choice
    if choice.task is None:
        raise UsageError("name the images with --images and --gt, a --task, or folders of records")
    task = source.registry.task(choice.task)
    found, _ = task_sets(
        task, source.registry, source.root, choice.test_set, False, source.cache, lambda *_: None
    )
    if len(found) > 1:
        labels = ", ".join(test.label for test in found)
        raise UsageError(f"task {task.name} has several test sets ({labels}); use --test-set")
    return found[0]


def _of_table(request: FigureRequest) -> tuple[FigureData, list[tuple[str, list[StoredRecord]]]]:
    """Return the data of the one table that the records make, and its rows."""
    contents = gather_contents(request.found, request.choice)
    table = contents.only_table("figure")
    stored = [one for row in table.rows for one in row.stored]
    test = maps.find_test_set(request.source, stored, table.test)
    data = _data(request, test, table.group.context.protocol)
    return data, [(row.label, list(row.stored)) for row in table.rows]


def _methods(stored: Sequence[StoredRecord]) -> list[tuple[str, list[StoredRecord]]]:
    """Return records by the title of their method, in the order of their folders."""
    found: dict[str, list[StoredRecord]] = {}
    for one in stored:
        found.setdefault(one.record.method.title, []).append(one)
    return list(found.items())


def _of_records(data: FigureData, title: str, stored: Sequence[StoredRecord]) -> MapSource | None:
    """Return the maps of a method: kept ones, or the run that predicts them; None for neither."""
    digest = data.test.split.digest
    for one in stored:
        label = next((f.label for f in one.record.data.tests if f.digest == digest), None)
        kept = label and maps.find_maps([one], label, data.test.masks, {})
        if label and kept:
            values = record_values(one, label, data.metric) if _same_rules(data, one) else {}
            return MapSource(title, kept[1], one, values)
    source = next((s for s in (MapSource(title, {}, one) for one in stored) if s.can_predict), None)
    if source is None or source.stored is None:
        return None
    facts = test_facts(source.stored.record, data.test.label)
    if facts and facts.digest == digest and _same_rules(data, source.stored):
        source.values = record_values(source.stored, data.test.label, data.metric)
    return source


def _same_rules(data: FigureData, stored: StoredRecord) -> bool:
    return stored.record.protocol.hash == data.protocol.hash


def _of_folder(data: FigureData, title: str, folder: Path) -> MapSource:
    """Return the maps of a folder, or of its sub-folder that is named after the test set."""
    for place in maps.inside(folder, data.test.label):
        if place.is_dir() and (files := maps.maps_in(place, data.test.masks)):
            return MapSource(title, files)
    try:
        maps.find_files(folder)
    except BenchError as error:
        raise DataError(f"{title}: {error}") from None
    raise DataError(
        f"no file in {folder} has the name of an image of {data.test.label}, such as "
        f"{next(iter(data.test.masks))}"
    )
