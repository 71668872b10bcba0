"""The record of scored maps: the same files as a run's, without what nobody knows of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lpmoe_bench.environment import Environment
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.records.model import DataFacts, MethodFacts, ProtocolFacts, Record, SplitFacts
from lpmoe_bench.records.store import RECORD, ROWS, read_record, write_record
from lpmoe_bench.score.checks import check_counts
from lpmoe_bench.score.folders import MapFolder
from lpmoe_bench.score.plan import ScorePlan

FIDELITY = "maps from a folder; how they were made is not known"


@dataclass(frozen=True)
class Scored:
    """One method's maps of one test set. results: the first counts, others are variants. checks:
    names of images by check. notes: what was said of maps and masks."""

    title: str
    facts: SplitFacts
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
        return {"expected": self.facts.images} | self.result.counts | check_counts(self.checks)


def finished(place: Path, folder: MapFolder) -> Record | None:
    """Return the record of these maps where there is one; raises UsageError for another name's."""
    if not (place / RECORD).exists():
        return None
    record = read_record(place)
    if record.method.name != folder.title:
        raise UsageError(
            f"{place} holds the same maps under the name {record.method.name}; use that, or one "
            f"that differs in more than punctuation from it"
        )
    return record


def write_scored(
    plan: ScorePlan, index: int, scored: Sequence[Scored], environment: Environment
) -> Record:
    """Write the record of a plan's folder of maps, scored on some test sets, and return it.

    One that stood there keeps its files under other names.
    """
    place, folder = plan.places[index], plan.folders[index]
    record = Record(
        kind="score",
        id="/".join(place.parts[-4:]),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config={"task": plan.task, "protocol": plan.protocol.name}
        | ({"extra": list(plan.extra)} if plan.extra else {}),
        fingerprint=plan.fingerprints[index],
        method=MethodFacts(name=folder.title, title=folder.title, fidelity=FIDELITY),
        task=plan.task,
        protocol=ProtocolFacts(
            name=plan.protocol.name, version=plan.protocol.version, hash=plan.protocol.hash
        ),
        scores={one.facts.label: dict(one.result.scores) for one in scored},
        counts={one.facts.label: one.counts for one in scored},
        environment=environment,
        test_opened=1,
        data=DataFacts(tests=[one.facts for one in scored]),
        notes=[*folder.notes, *_notes(scored)],
    )
    _set_aside(place)
    write_record(place, record, [row for one in scored for row in one.result.rows])
    return record


def _notes(scored: Sequence[Scored]) -> list[str]:
    return [f"{one.facts.label}: {note}" for one in scored for note in one.notes]


def _set_aside(place: Path) -> None:
    """Rename a finished record's files, so that scoring again loses nothing."""
    number = 1 + len(list(place.glob(f"superseded-*-{RECORD}")))
    for name in (RECORD, ROWS):
        if (place / name).exists():
            (place / name).rename(place / f"superseded-{number}-{name}")
