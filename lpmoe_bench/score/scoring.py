"""Scores of anybody's maps: from folders to records, each mask read once for all folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.pairs import shown
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.extra import get_extra
from lpmoe_bench.metrics.scorer import Scorer, ScoreResult
from lpmoe_bench.records.store import StoredRecord
from lpmoe_bench.score.checks import look_swapped, mask_sentences, refuse_zero_one, sentences
from lpmoe_bench.score.folders import MapFolder
from lpmoe_bench.score.plan import ScorePlan, ScoreRequest
from lpmoe_bench.score.pool import score_all
from lpmoe_bench.score.record import Scored, finished, write_scored
from lpmoe_bench.score.sets import TestSet
from lpmoe_bench.score.work import Item, Job, Part, Variant

# {test set: {method: its result by each variant, None where a variant has none}}
Results = Mapping[str, Mapping[str, Sequence[ScoreResult | None]]]


@dataclass(frozen=True)
class ScoreOutcome:
    """One record a folder, in order; results of the maps that were scored, not of those that had a
    record. fresh: whether each record is new."""

    records: list[StoredRecord]
    results: Results
    fresh: list[bool]


def score(
    plan: ScorePlan, request: ScoreRequest, terminal: Terminal, variants: Sequence[Variant] = ()
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
    found: dict[str, list[Scored]] = {folder.title: [] for folder in chosen}
    for test in plan.sets:
        for one in _score_set(plan, request, test, chosen, variants, terminal):
            found[one.title].append(one)
    records, environment = [], collect_environment("cpu")
    for index, (place, record) in enumerate(zip(plan.places, known, strict=True)):
        if record is None:
            scored = found[plan.folders[index].title]
            record = write_scored(plan, index, scored, environment)
        records.append(StoredRecord(place, record))
    results: dict[str, dict[str, Sequence[ScoreResult | None]]] = {}
    for one in (one for ones in found.values() for one in ones):
        results.setdefault(one.facts.label, {})[one.title] = one.results
    return ScoreOutcome(records, results, [record is None for record in known])


def _score_set(
    plan: ScorePlan,
    request: ScoreRequest,
    test: TestSet,
    chosen: Sequence[MapFolder],
    variants: Sequence[Variant],
    terminal: Terminal,
) -> list[Scored]:
    """Score the maps of one test set and say what is unusual about them."""
    folders = [folder for folder in chosen if test.label in folder.matches]
    if not folders:
        return []
    job = Job(test.label, (Variant(plan.protocol), *variants), plan.extra, request.curves)
    items = _items(plan, test, folders)
    with terminal.bar(f"scoring {test.label}", len(items)) as bar:
        part = score_all(job, items, len(folders), request.jobs, bar.update)
    if part.problems:
        raise DataError(
            f"{len(part.problems)} files of {test.label} and its maps cannot be scored: "
            f"{shown(part.problems, '; ')}"
        )
    of_masks = mask_sentences(part.mask_flags, len(items))
    for note in of_masks:
        terminal.note(f"{test.label}: {note}")
    scored = []
    for index, folder in enumerate(folders):
        notes = _look(plan, test, folder, part, index)
        for note in notes:
            terminal.note(f"{folder.title}, {test.label}: {note}")
        first, *others = part.scorers[index]
        results = [first.result(), *map(_result, others)]
        checks, notes = part.checks[index], (*notes, *of_masks)
        scored.append(Scored(folder.title, test.facts, results, checks, notes))
    return scored


def _items(plan: ScorePlan, test: TestSet, folders: Sequence[MapFolder]) -> list[Item]:
    """Return the masks that have a map in any folder, with these maps."""
    files = [folder.matches[test.label].files for folder in folders]
    seen = any(get_extra(key).needs_image for key in plan.extra)
    return [
        Item(name, mask, tuple(f.get(name) for f in files), test.images[name] if seen else None)
        for name, mask in sorted(test.masks.items())
        if any(name in f for f in files)
    ]


def _look(
    plan: ScorePlan, test: TestSet, folder: MapFolder, part: Part, index: int
) -> tuple[str, ...]:
    """Return what is unusual about a folder's maps; raises DataError for what cannot be meant."""
    count = len(folder.matches[test.label].files)
    refuse_zero_one(part.checks[index], count, plan.protocol, folder.title)
    said = sentences(part.checks[index], count, plan.protocol)
    exact = not any(mask.suffix.lower().startswith(".jp") for mask in test.masks.values())
    if exact and look_swapped(part.checks[index], part.mask_flags, count):  # JPEG: always grey
        said.append("every mask is grey and every map binary: are the two folders swapped?")
    return tuple(said)


def _result(scorer: Scorer) -> ScoreResult | None:
    """Return a variant's result, None where all masks are empty and the variant leaves them out."""
    try:
        return scorer.result()
    except DataError:
        return None
