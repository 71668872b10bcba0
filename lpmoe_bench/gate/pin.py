"""Records grouped into cells, and cells turned into pins: scores a seed, spread, counts, speed."""

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpmoe_bench.analysis.samples import SeedRows
from lpmoe_bench.analysis.significance import rest_variance
from lpmoe_bench.errors import DataError, NotComparableError, UsageError
from lpmoe_bench.gate.baseline import Baseline, CellPin, Change, MetricPin, Policy, SpeedPin
from lpmoe_bench.gate.limits import reference_of, tolerance
from lpmoe_bench.metrics.facts import METRICS, refuse_ambiguous
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import context_of, own_settings
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import FoundRecords, StoredRecord

# Candidate records grouped into cells: one method with its settings on one test set.

DIGITS = 12  # of a digest, in sentences


@dataclass(frozen=True)
class GateCell:
    """Records that differ in nothing but the seed; `stored` in the order of `seeds`.

    A seed is a number, or for maps of no known seed the first digits of their digest. reruns: each
    seed run once more, in the same order; empty where none is asked for.
    """

    name: str
    test_set: str
    identity: Mapping[str, Any]
    seeds: tuple[int | str, ...]
    stored: tuple[StoredRecord, ...]
    reruns: tuple[StoredRecord, ...] = ()

    @property
    def family(self) -> tuple[str, ...]:
        return family_of(self.identity)


def gather_cells(found: FoundRecords, where: str, replay: bool = False) -> list[GateCell]:
    """Group the records of a search, by name; those that are superseded take no part.

    Raises NotComparableError where there is none, UsageError where one seed of one cell is there
    twice with different scores, since nobody knows which of the two is meant; for a replay, where
    a seed is not there just twice.
    """
    # A record with several test sets takes part in a cell for each of them.
    groups: dict[tuple[str, Hashable, Hashable], list[StoredRecord]] = {}
    for stored in found.stored:
        record = stored.record
        if record.superseded_by:
            continue
        # Once a record, not once a test set, of which a sweep has thousands.
        own = identity_key(_identity_of_all(record))
        for test in record.scores:
            key = test, own, identity_key(vars(context_of(record, test)))
            groups.setdefault(key, []).append(stored)
    if not groups:
        unread = f" ({'; '.join(found.notes)})" if found.notes else ""
        raise NotComparableError(
            f"no record is found under {where}, so there is nothing to judge{unread}; run the "
            f"cell first, or name the folder of its records"
        )
    make = _replayed_cell if replay else _cell
    cells = [make(stored, test) for (test, *_), stored in groups.items()]
    return sorted(cells, key=lambda cell: cell.name)


def identity_of(record: Record, test: str) -> dict[str, Any]:
    """Return all that must agree between baseline and candidate, by name, in order of names."""
    facts = _identity_of_all(record) | vars(context_of(record, test))
    return dict(sorted(json.loads(json.dumps(facts, default=str)).items()))


def _identity_of_all(record: Record) -> dict[str, Any]:
    """Return what is one for all test sets.

    Maps from elsewhere have another digest whenever they change, so it identifies a seed of them
    and not the cell.
    """
    facts: dict[str, Any] = {"kind": record.kind, "method": record.method.name}
    facts |= {f"options.{key}": value for key, value in record.method.options.items()}
    facts |= {f"setting {key}": value for key, value in own_settings(record).items()}
    return facts | {"fingerprint": "" if record.kind == "score" else record.fingerprint}


def identity_key(identity: Mapping[str, Any]) -> Hashable:
    """Return what two identities share where `differences` finds none: 8 and 8.0 are equal."""
    # None is as good as absent: records of older versions lack fields that newer ones leave empty.
    return tuple((k, _hashable(v)) for k, v in sorted(identity.items()) if v is not None)


def _hashable(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple((k, _hashable(v)) for k, v in sorted(value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def family_of(identity: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what says that two cells of different settings are meant to be the same one."""
    names = ("kind", "task", "method", "backbone", "test_set")
    return tuple(str(identity.get(name)) for name in names)


def differences(pinned: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Say what differs between two identities; the fingerprint only where nothing else does."""
    names = [n for n in sorted({*pinned, *found}) if pinned.get(n) != found.get(n)]
    # The fingerprint differs with anything else, and says less than what it hashes.
    told = [n for n in names if n != "fingerprint"] or names
    return [f"{n.replace('_', ' ')} {_shown(pinned, n)} against {_shown(found, n)}" for n in told]


def images_of(record: Record, test: str) -> int:
    """Return how many images of a test set were scored."""
    counts = record.counts.get(test, {})
    return counts.get("scored", counts.get("images", 0))


def _cell(stored: Sequence[StoredRecord], test: str) -> GateCell:
    seeds: dict[int | str, StoredRecord] = {}
    for one in sorted(stored, key=lambda one: (one.record.seed or 0, one.record.fingerprint)):
        # Maps of no known seed are told apart by what they are, so two of them are two seeds.
        known = one.record.seed
        seed = one.record.fingerprint[:DIGITS] if known is None else known
        first = seeds.setdefault(seed, one)
        if first.record.scores != one.record.scores:
            raise UsageError(
                f"seed {seed} of {first.record.id} is there twice with different scores, in "
                f"{first.folder} and in {one.folder}; name the folder that is meant, or a fresh one"
            )
    first = stored[0].record
    return GateCell(
        _name(first, test), test, identity_of(first, test), tuple(seeds), tuple(seeds.values())
    )


def _replayed_cell(stored: Sequence[StoredRecord], test: str) -> GateCell:
    """Return a cell of which each seed was run twice; a copy of a record is no second run."""
    runs: dict[int, list[StoredRecord]] = {}
    # By what is in them: the same records in other folders are to give the same pin.
    for one in sorted(stored, key=lambda one: (one.record.created, str(one.record.scores))):
        if one.record.seed is None:
            raise UsageError(
                f"{one.folder} holds maps of no known seed, so no two are of one seed run twice; "
                f"pin without --replay"
            )
        known = runs.setdefault(one.record.seed, [])
        if all(one.record != other.record for other in known):
            known.append(one)
    first = stored[0].record
    for seed, known in sorted(runs.items()):
        if len(known) != 2:
            raise UsageError(
                f"seed {seed} of {_name(first, test)} is there {_times(len(known))}, in "
                f"{', '.join(str(one.folder) for one in known)}; --replay takes each seed run "
                f"twice: run it again into another folder by --runs, and name both"
            )
    seeds = sorted(runs)
    firsts, reruns = zip(*(runs[seed] for seed in seeds), strict=True)
    return GateCell(
        _name(first, test), test, identity_of(first, test), tuple(seeds), firsts, reruns
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _name(record: Record, test: str) -> str:
    parts = [record.task, record.method.name, *([record.backbone.name] if record.backbone else [])]
    if record.kind != "score":
        parts.append(record.fingerprint[:DIGITS])
    kind = f"{record.kind}: " if record.kind == "evaluation" else ""
    return f"{kind}{'/'.join(parts)} on {test} by {record.protocol.name}"


def _shown(identity: Mapping[str, Any], name: str) -> str:
    value = identity.get(name)
    text = "nothing" if value is None or value == "" else str(value)
    return text[:DIGITS] if len(text) in (40, 64) else text


def newest_record(cells: Sequence[GateCell]) -> Record:
    """Return the newest record of all, which dates a pin: the clock would change its bytes."""
    records = (stored.record for cell in cells for stored in cell.stored)
    return max(records, key=lambda record: (record.created, record.id))


# Cells turned into pins: scores a seed, their spread, counts, speed.

COUNTS = ("method", "decoder", "trainable", "frozen", "total")
FLOPS = ("forward_flops", "training_flops")


def pin_cells(
    cells: Sequence[GateCell], policy: Policy, reason: str, metrics: Sequence[str] | None = None
) -> Baseline:
    """Return a baseline of cells; `metrics` as in `pin_cell`."""
    record = newest_record(cells)
    pins = [pin_cell(cell, policy, metrics) for cell in cells]
    return Baseline(policy=policy, cells=pins, history=[change_of(record, reason, [])])


def change_of(record: Record, reason: str, changes: Sequence[str]) -> Change:
    """Return the entry of the history that a pin of this newest record makes."""
    where = record.environment
    return Change(
        reason=reason,
        created=record.created,
        version=where.version,
        git_sha=where.git_sha,
        changes=list(changes),
    )


def pin_cell(cell: GateCell, policy: Policy, metrics: Sequence[str] | None = None) -> CellPin:
    """Pin one cell; by default the headline of its protocol, as far as the cell has it.

    Raises UsageError for a metric that it lacks, DataError where seeds scored different images.
    """
    first = cell.stored[0].record
    both = [*cell.stored, *cell.reruns]
    images = {images_of(stored.record, cell.test_set) for stored in both}
    if len(images) > 1:
        counts = ", ".join(map(str, sorted(images)))
        raise DataError(f"the seeds of {cell.name} scored {counts} images; score all on the same")
    rows = SeedRows(both, cell.test_set)  # in the order of seeds, a rerun behind its first run
    found = {key: rows.samples(key) for key in _metrics(cell, metrics)}
    step = 2 if cell.reruns else 1
    names = next((one.images for one in found.values() if one.images), [])
    count = images.pop()
    return CellPin(
        name=cell.name,
        identity=dict(cell.identity),
        seeds=list(cell.seeds),
        images=count,
        image_digest=rows_digest(names),
        metrics={
            key: metric_pin(
                _scores(cell.stored, cell.test_set, key),
                read.values[::step] if read.images else None,
                count,
                policy,
                _scores(cell.reruns, cell.test_set, key) or None,
            )
            for key, read in found.items()
        },
        counts=counts_of(first),
        speed=speed_of(cell),
    )


def _scores(stored: Sequence[StoredRecord], test: str, metric: str) -> list[float]:
    return [float(one.record.scores[test][metric] or 0.0) for one in stored]


def metric_pin(
    scores: Sequence[float],
    rows: Any | None,
    images: int,
    policy: Policy,
    reruns: Sequence[float] | None = None,
) -> MetricPin:
    """Pin the scores of seeds; `rows`, (seeds, images), are what they are the means of, and
    `reruns` the scores of the same seeds run once more."""
    several = len(scores) > 1
    bare = MetricPin(
        scores=list(scores),
        mean=math.fsum(scores) / len(scores),
        sd=statistics.stdev(scores) if several else None,
        rest_variance=rest_variance(rows) if rows is not None and several else None,
        reruns=None if reruns is None else list(reruns),
    )
    # For readers of the file; the gate works it out anew, at the level of Holm's procedure.
    limit = tolerance(reference_of(bare, images), len(scores), policy.level, policy)
    return bare.model_copy(update={"tolerance": limit})


def rows_digest(names: Sequence[str]) -> str | None:
    """Return the SHA-256 of the names of scored images, None where no row names one."""
    text = json.dumps(sorted(names), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest() if names else None


def counts_of(record: Record) -> dict[str, int]:
    """Return the counts that must stay exactly as they are, by name."""
    found = {}
    if record.parameters:
        found |= {f"parameters.{key}": getattr(record.parameters, key) for key in COUNTS}
    flops = {key: getattr(record.costs, key) for key in FLOPS}
    return found | {key: value for key, value in flops.items() if value is not None}


def speed_of(cell: GateCell) -> SpeedPin | None:
    """Return the images a second of every seed; None where the seeds ran on unlike hardware."""
    hardware = {hardware_of(stored.record) for stored in cell.stored}
    if len(hardware) > 1 or not tells_speed(cell):
        return None
    costs = [stored.record.costs for stored in cell.stored]
    train = [cost.train_images_per_second for cost in costs]
    inference = [cost.inference_images_per_second for cost in costs]
    return SpeedPin(
        hardware=hardware.pop(),
        train=[value for value in train if value],
        inference=[value for value in inference if value],
    )


def tells_speed(cell: GateCell) -> bool:
    """Whether any seed has images a second, which maps from elsewhere have not."""
    costs = [stored.record.costs for stored in cell.stored]
    return any(c.train_images_per_second or c.inference_images_per_second for c in costs)


def hardware_of(record: Record) -> str:
    """Return the class within which speeds compare: processor and device, in words."""
    return f"{record.environment.cpu}; {record.environment.device}"


def _metrics(cell: GateCell, asked: Sequence[str] | None) -> Iterator[str]:
    scores = [one.record.scores[cell.test_set] for one in (*cell.stored, *cell.reruns)]
    known = [key for key in scores[0] if key in METRICS]
    present = [key for key in known if all(of_seed.get(key) is not None for of_seed in scores)]
    protocol = PROTOCOLS.get(cell.stored[0].record.protocol.name)
    default = [k for k in protocol.headline if k in present] if protocol else present
    chosen = list(dict.fromkeys(asked or default))
    if not chosen:
        raise DataError(f"{cell.name} has no score that could be pinned; score it anew")
    for key in chosen:
        if key not in present:
            refuse_ambiguous(key)
            raise UsageError.unknown(f"metric of {cell.name}", key, present)
        yield key


# A baseline pinned again: what changes, in sentences, and the file with its history.


def update_pins(
    baseline: Baseline, cells: Sequence[GateCell], policy: Policy, metrics: Sequence[str] | None
) -> tuple[list[CellPin], list[str]]:
    """Return the cells after an update and what changed; cells without new records stay.

    A new cell takes the place of a pinned one with the same identity, else of the only one that
    is meant to be the same with other settings, else it is added. Metrics stay the pinned ones
    unless others are named.
    """
    pins, changes = list(baseline.cells), []
    places = {identity_key(pin.identity): place for place, pin in reversed([*enumerate(pins)])}
    pinned: dict[tuple[str, ...], list[int]] = {}
    for place, pin in enumerate(pins):
        pinned.setdefault(family_of(pin.identity), []).append(place)
    rivals = Counter(cell.family for cell in cells)
    for cell in cells:
        index = places.get(identity_key(cell.identity))
        alike = pinned.get(cell.family, [])
        if index is None and len(alike) == rivals[cell.family] == 1:
            index = alike[0]
        old = None if index is None else pins[index]
        keys = metrics or (list(old.metrics) if old else None)
        new = pin_cell(cell, policy, keys)
        changes += list(changed(old, new))
        if index is None:
            pins.append(new)
        else:
            pins[index] = new
    if policy != baseline.policy:
        before, after = baseline.policy.model_dump(), policy.model_dump()
        changes += [f"policy: {d}" for d in differences(before, after)]
    return sorted(pins, key=lambda one: one.name), changes


def with_history(
    baseline: Baseline,
    pins: Sequence[CellPin],
    policy: Policy,
    cells: Sequence[GateCell],
    reason: str,
    changes: Sequence[str],
) -> Baseline:
    """Return the new baseline, whose history says why and what."""
    entry = change_of(newest_record(cells), reason, changes)
    return Baseline(policy=policy, cells=list(pins), history=[*baseline.history, entry])


def changed(old: CellPin | None, new: CellPin) -> Iterator[str]:
    """Say what is different between two pins of a cell; nothing where they are equal."""
    if old is None:
        yield f"{new.name}: new, {len(new.seeds)} seeds"
        return
    found = differences(old.identity, new.identity)
    if old.seeds != new.seeds:
        found.append(f"seeds {_list(old.seeds)} against {_list(new.seeds)}")
    if (old.images, old.image_digest) != (new.images, new.image_digest):
        found.append(f"{old.images} images against {new.images}, or others")
    for key in dict.fromkeys([*old.metrics, *new.metrics]):
        found += _metric(old, new, key)
    found += differences(old.counts, new.counts)
    if old.speed != new.speed:
        found.append("speeds measured anew" if new.speed else "speeds dropped")
    if found:
        yield f"{new.name}: " + "; ".join(found)


def _metric(old: CellPin, new: CellPin, key: str) -> list[str]:
    label = METRICS[key].label if key in METRICS else key
    if key not in old.metrics or key not in new.metrics:
        return [f"{label} {'added' if key in new.metrics else 'dropped'}"]
    before, after = old.metrics[key], new.metrics[key]
    if before == after:
        return []
    sds = [" ± " + (f"{pin.sd:.4f}" if pin.sd is not None else "?") for pin in (before, after)]
    return [f"{label} {before.mean:.4f}{sds[0]} -> {after.mean:.4f}{sds[1]}"]


def _list(seeds: Sequence[int | str]) -> str:
    return " ".join(map(str, seeds))
