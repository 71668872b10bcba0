"""Candidates against the baseline: one verdict for each score, count and speed."""

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from lpmoe_bench.analysis.samples import SeedRows
from lpmoe_bench.analysis.significance import holm_levels
from lpmoe_bench.errors import DataError, NotComparableError
from lpmoe_bench.gate import limits
from lpmoe_bench.gate import pin as pins
from lpmoe_bench.gate.baseline import Baseline, CellPin, MetricPin, Policy
from lpmoe_bench.gate.limits import Reference
from lpmoe_bench.gate.pin import GateCell
from lpmoe_bench.metrics.facts import METRICS

# What the gate says: a line for each thing judged, the outcome of a call, its exit code.

Verdict = Literal["pass", "improved", "inconclusive", "not comparable", "regressed"]
Kind = Literal["cell", "quality", "count", "speed"]
# From the best to what weighs most in a call.
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
REGRESSED, INCONCLUSIVE = 10, 11


@dataclass(frozen=True)
class Judgement:
    """The numbers behind the verdict on one score; drops are positive where quality falls.

    level: at which Holm's procedure judged it. tolerance: the drop that is still none. limit: the
    score that lies just there. seeds: of the candidate. identical: to the last bit, seed by seed.
    needed: seeds that would settle it, and whether the baseline needs them too.
    """

    reference: Reference
    seeds: int
    drop: float
    p: float | None
    level: float
    family: int
    tolerance: float | None
    limit: float | None
    identical: bool
    needed: tuple[int, bool] | None = None


@dataclass(frozen=True)
class JudgedLine:
    """One thing judged. name: of a metric by its key, else in words. reason: a clause, not a
    sentence; it says why the verdict is not a plain pass."""

    cell: str
    kind: Kind
    name: str
    verdict: Verdict
    reason: str = ""
    baseline: float | None = None
    candidate: float | None = None
    judgement: Judgement | None = None


@dataclass(frozen=True)
class Outcome:
    """All lines of a call; `notes` say what was not judged."""

    lines: tuple[JudgedLine, ...]
    notes: tuple[str, ...]
    policy: Policy

    @property
    def verdict(self) -> Verdict:
        found: list[Verdict] = [line.verdict for line in self.lines]
        return max(found or ["not comparable"], key=VERDICTS.index)  # no line is no pass

    def exit_code(self, strict: bool = False) -> int:
        """Return 10, 5, 11 (strict) or 0: a proven regression weighs more than a missing cell."""
        codes = {"regressed": REGRESSED, "not comparable": NotComparableError.exit_code}
        if strict:
            codes["inconclusive"] = INCONCLUSIVE
        return codes.get(self.verdict, 0)

    def summary(self) -> str:
        """Return the counts of the verdicts, the gravest first."""
        counts = Counter(line.verdict for line in self.lines)
        return ", ".join(f"{counts[v]} {v}" for v in reversed(VERDICTS) if counts[v])

    def as_json(self, strict: bool) -> dict[str, Any]:
        """Return everything for machines."""
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code(strict),
            "policy": self.policy.model_dump(),
            "lines": [_plain(line) for line in self.lines],
            "notes": list(self.notes),
        }


def _plain(line: JudgedLine) -> dict[str, Any]:
    """Return a line for machines; `asdict` would copy each number of it by a slow walk."""
    found = line.judgement
    numbers = found and vars(found) | {"reference": dict(vars(found.reference))}
    return vars(line) | {"judgement": numbers}


# What must stay exact, parameters and FLOPs, beside speed, which is a ratio on one hardware.

SPEEDS = {"train": "training images/s", "inference": "inference images/s"}


def judge_counts(pin: CellPin, cell: GateCell) -> Iterator[JudgedLine]:
    """Yield one line for each pinned count: any difference is a regression until it is re-pinned,
    since a smaller model that nobody meant to change is as wrong as a larger one."""
    found = [pins.counts_of(stored.record) for stored in cell.stored]
    for key, expected in pin.counts.items():
        values = [counts.get(key) for counts in found]
        name = key.replace(".", " ").replace("_", " ").replace("flops", "FLOPs")
        # Every seed has to agree; a count that is not told is no proof that it stayed.
        wrong = [value for value in values if value is not None and value != expected]
        if None in values:
            reason = "the candidate does not tell it"
            yield JudgedLine(pin.name, "count", name, "not comparable", reason, expected)
        elif wrong:
            reason = f"{wrong[0]:,} against {expected:,}, which must be equal"
            yield JudgedLine(pin.name, "count", name, "regressed", reason, expected, wrong[0])
        else:
            yield JudgedLine(pin.name, "count", name, "pass", "", expected, expected)


def judge_speed(pin: CellPin, cell: GateCell, policy: Policy) -> tuple[list[JudgedLine], list[str]]:
    """Return a line for training and one for inference speed; or, where the seeds ran on other
    hardware than the pinned ones, a note that speed was not judged."""
    if policy.speed_tolerance >= 1 or pin.speed is None:
        return [], []
    here = [pins.hardware_of(stored.record) for stored in cell.stored]
    if any(hardware != pin.speed.hardware for hardware in here):
        where = f"pinned on {pin.speed.hardware}, here {here[0]}"
        return [], [f"{pin.name}: speed was not judged, {where}"]
    lines = []
    for kind, name in SPEEDS.items():
        before: list[float] = getattr(pin.speed, kind)
        costs = [stored.record.costs for stored in cell.stored]
        after = [value for c in costs if (value := getattr(c, f"{kind}_images_per_second"))]
        if not before or not after:
            continue
        # Medians: a single run that something else on the machine slowed down moves no verdict.
        old, new = statistics.median(before), statistics.median(after)
        share, least = new / old, 1 - policy.speed_tolerance
        verdict, reason = "pass", f"{share:.0%}"
        if share < least:
            verdict, reason = "regressed", f"{reason} of the baseline's, {least:.0%} is the limit"
        lines.append(JudgedLine(pin.name, "speed", name, verdict, reason, old, new))
    return lines, []


@dataclass(frozen=True)
class Score:
    """One score to be judged with all others of the call. candidate: the mean over its seeds.

    identical: whether its seeds score as they are pinned, to the last bit.
    """

    cell: str
    metric: str
    reference: Reference
    candidate: float
    seeds: int
    identical: bool

    @property
    def drop(self) -> float:
        sign = 1 if METRICS[self.metric].higher_is_better else -1
        return 0.0 if self.identical else sign * (self.reference.mean - self.candidate)


def judge_cells(baseline: Baseline, cells: Sequence[GateCell], policy: Policy) -> Outcome:
    """Judge every pinned cell; candidates that are not pinned are named in the notes."""
    scores: list[Score] = []
    lines, notes, used, missing = [], [], set[str](), set[str]()
    # Reversed: of equal identities the first cell in the list is the one that stays.
    by_identity = {pins.identity_key(cell.identity): cell for cell in reversed(cells)}
    families: dict[tuple[str, ...], list[GateCell]] = {}
    for cell in cells:
        families.setdefault(cell.family, []).append(cell)
    for pin in baseline.cells:
        cell = by_identity.get(pins.identity_key(pin.identity))
        if cell is None:
            lines.append(_missing(pin, families.get(pins.family_of(pin.identity), [])))
            missing.add(pin.name)
            continue
        used.add(cell.name)
        found = list(_scores(pin, cell))
        scores += [one for one in found if isinstance(one, Score)]
        lines += [one for one in found if isinstance(one, JudgedLine)]
        speed_lines, speed_notes = judge_speed(pin, cell, policy)
        speed_notes += _elsewhere(pin, cell)
        lines += [*judge_counts(pin, cell), *speed_lines]
        notes += [*speed_notes, *_moved(pin, cell, policy)]
    told = {pins.family_of(pin.identity) for pin in baseline.cells if pin.name in missing}
    new = [c.name for c in cells if c.name not in used and c.family not in told]
    notes += [f"{name} is not in the baseline and was not judged; add it by update" for name in new]
    # All scores of the call together, for Holm: the more of them, the stricter each is judged.
    everything = [*judge_scores(scores, policy), *lines]
    order = {pin.name: place for place, pin in enumerate(baseline.cells)}
    everything.sort(key=lambda line: order[line.cell])  # stable within a cell
    return Outcome(tuple(everything), tuple(notes), policy)


def _missing(pin: CellPin, near: Sequence[GateCell]) -> JudgedLine:
    """Say why a pinned cell has no candidate: what nearly is one differs, or there is none."""
    if not near:
        reason = "no candidate record of this cell is there; run it, or unpin it by a new pin"
    elif len(near) > 1:
        reason = f"{len(near)} candidates have other settings, and none the pinned ones: "
        reason += "; ".join(pins.differences(pin.identity, near[0].identity)[:3])
    else:
        reason = "; ".join(pins.differences(pin.identity, near[0].identity))
    return JudgedLine(pin.name, "cell", "cell", "not comparable", reason)


def _scores(pin: CellPin, cell: GateCell) -> Iterator[Score | JudgedLine]:
    """Yield each pinned metric of a cell as something to judge, or the line that says why not."""
    # Means over other images are other quantities, so they are not compared at all.
    for stored in cell.stored:
        count = pins.images_of(stored.record, cell.test_set)
        if count != pin.images:
            reason = f"{stored.folder.name} scored {count} images, the baseline {pin.images}"
            yield JudgedLine(pin.name, "cell", "images", "not comparable", reason)
            return
    if reason := _other_seeds(pin, cell):
        yield JudgedLine(pin.name, "cell", "seeds", "not comparable", reason)
        return
    rows = SeedRows(cell.stored, cell.test_set)
    for key, metric in pin.metrics.items():
        values = [one.record.scores[cell.test_set].get(key) for one in cell.stored]
        if key not in METRICS or any(v is None or not math.isfinite(v) for v in values):
            lacking = "this lpmoe-bench knows no such metric"
            reason = "the candidate has no such score" if key in METRICS else lacking
            yield JudgedLine(pin.name, "quality", key, "not comparable", reason)
            continue
        if reason := _other_images(pin, rows, key):
            yield JudgedLine(pin.name, "quality", key, "not comparable", reason)
            continue
        numbers = [value for value in values if value is not None]
        yield Score(
            pin.name,
            key,
            _reference(pin, metric, cell.seeds),
            math.fsum(numbers) / len(numbers),
            len(numbers),
            all(v in _runs(pin, metric, s) for s, v in zip(cell.seeds, numbers, strict=True)),
        )


def _reference(pin: CellPin, metric: MetricPin, seeds: Sequence[int | str]) -> Reference:
    """Return what a metric is judged against; of a replay the mean of the candidate's seeds."""
    found = limits.reference_of(metric, pin.images)
    if metric.reruns is None:
        return found
    paired = dict(zip(pin.seeds, metric.replayed, strict=True))
    return replace(found, mean=math.fsum(paired[seed] for seed in seeds) / len(seeds))


def _runs(pin: CellPin, metric: MetricPin, seed: int | str) -> list[float]:
    """Return the pinned scores of a seed: none, one, or both where it was run twice."""
    if seed not in pin.seeds:
        return []
    place = pin.seeds.index(seed)
    return [scores[place] for scores in (metric.scores, metric.reruns) if scores]


def _other_seeds(pin: CellPin, cell: GateCell) -> str:
    """Say that a replay has seeds that are not pinned; empty where it has none, or is none."""
    others = [str(seed) for seed in cell.seeds if seed not in pin.seeds]
    if not pin.replay or not others:
        return ""
    return (
        f"the baseline is one of replays, which judges seeds {' '.join(map(str, pin.seeds))} "
        f"against themselves, and the candidate has {' '.join(others)}; run pinned seeds alone, or "
        f"pin without --replay"
    )


def _elsewhere(pin: CellPin, cell: GateCell) -> list[str]:
    """Say that a replay runs on other hardware than it was pinned on, where rounding differs."""
    if not pin.replay or pin.speed is None:
        return []
    here = [pins.hardware_of(stored.record) for stored in cell.stored]
    others = [hardware for hardware in here if hardware != pin.speed.hardware]
    return [
        f"{pin.name}: the noise of a rerun was learnt on {pin.speed.hardware}, here is {where}, "
        f"where sums may be rounded in another order; a drop may be no more than that"
        for where in others[:1]
    ]


def _moved(pin: CellPin, cell: GateCell, policy: Policy) -> Iterator[str]:
    """Say that pinned seeds score otherwise now: no verdict, but a change that is not neutral."""
    # A harmless change leaves a seed's score where it is; one that draws other numbers does not.
    most, what, floor = 0.0, "", 0.0
    for key, metric in pin.metrics.items():
        reference = limits.reference_of(metric, pin.images)
        floor = limits.floor_of(policy, reference)
        if metric.reruns is not None and reference.sd:
            continue  # reruns move by themselves, and the verdict is on by how much
        for seed, one in zip(cell.seeds, cell.stored, strict=True):
            value, runs = one.record.scores[cell.test_set].get(key), _runs(pin, metric, seed)
            if value is not None and runs and abs(value - runs[0]) > most:
                most, what = abs(value - runs[0]), f"{key} of seed {seed}"
    if most > floor:
        moved = f"{most:.4f}" if most >= 0.0001 else f"{most:.1g}"
        yield (
            f"{pin.name}: {what} is {moved} from its pinned value, so the change is not "
            f"neutral, whatever the verdict"
        )


def _other_images(pin: CellPin, rows: SeedRows, key: str) -> str:
    """Say that rows are of other images than the pinned ones; empty where they are the same."""
    try:
        names = rows.samples(key).images
    except DataError as error:
        return str(error)
    found = pins.rows_digest(names)
    if found is None or pin.image_digest is None or found == pin.image_digest:
        return ""
    return f"the rows are of {len(names)} images that are not those of the baseline"


def judge_scores(scores: Sequence[Score], policy: Policy) -> list[JudgedLine]:
    """Judge all scores of a call: Holm over the drops for regressions, over the gains apart."""
    # Scores without a spread have no share in the confidence, as no limit of theirs is estimated.
    policy = limits.of_each(policy, sum(score.reference.sd is not None for score in scores))
    worse = _judgements(scores, policy, 1)
    better = _judgements(scores, policy, -1)
    return [_line(*judged, policy) for judged in zip(scores, worse, better, strict=True)]


def _judgements(scores: Sequence[Score], policy: Policy, sign: int) -> list[Judgement]:
    # A score without a spread has no p value: it is judged by floor and cap alone, outside of Holm.
    chances = [limits.p_value(s.reference, sign * s.drop, s.seeds, policy) for s in scores]
    known = [p for p in chances if p is not None]
    steps = iter(holm_levels(known, policy.level))
    found = []
    for score, p in zip(scores, chances, strict=True):
        # Levels come in the order of those scores that have a p, so each takes the next one.
        level = policy.level if p is None else next(steps)
        allowed = limits.tolerance(score.reference, score.seeds, level, policy)
        down = 1 if METRICS[score.metric].higher_is_better else -1
        limit = None if allowed is None else score.reference.mean - sign * down * allowed
        chance = (sign * score.drop, p, level, max(1, len(known)))
        found.append(
            Judgement(score.reference, score.seeds, *chance, allowed, limit, score.identical)
        )
    return found


def _line(score: Score, down: Judgement, up: Judgement, policy: Policy) -> JudgedLine:
    line = JudgedLine(
        score.cell, "quality", score.metric, "pass", "", score.reference.mean, score.candidate, down
    )
    # To the last bit before any statistics: a rerun on this machine passes whatever the spread.
    if score.identical:
        return replace(line, reason="the same to the last bit")
    if down.tolerance is not None and down.drop > down.tolerance:
        beyond = "cap" if policy.cap is not None and down.drop > policy.cap else "limit"
        reason = f"a drop of {down.drop:.4g} is past the {beyond}"
        return replace(line, verdict="regressed", reason=reason)
    several = score.reference.sd is not None  # one seed cannot tell luck from a gain
    if several and up.tolerance is not None and up.drop > up.tolerance:
        return replace(line, verdict="improved", reason=f"better by {up.drop:.4g}")
    if reason := _doubt(down, policy):
        needed = limits.seeds_to_settle(down.reference, down.drop, down.level, policy.confidence)
        reason = f"{reason}; {_settle(down.reference, needed)}"
        judgement = replace(down, needed=needed)
        return replace(line, verdict="inconclusive", reason=reason, judgement=judgement)
    return line


def _doubt(down: Judgement, policy: Policy) -> str:
    """Say why a score that is no regression is no pass either; empty where it is one.

    A drop nearer to the limit than to nothing is explained better by a regression of the size
    of the limit than by none.
    """
    if down.reference.sd is None:
        if down.tolerance is None:
            return "the baseline has one seed, which tells no spread"
        both = policy.floor is not None and policy.cap is not None and down.drop > policy.floor
        return "between floor and cap, and one seed tells no spread" if both else ""
    floor = limits.floor_of(policy, down.reference)
    if down.tolerance is not None and down.drop > max(floor, down.tolerance / 2):
        return f"a drop of {down.drop:.4g} is nearer to the limit than to nothing"
    return ""


def _settle(reference: Reference, needed: tuple[int, bool] | None) -> str:
    if reference.sd is None:
        return "pin 5 seeds, or give --floor or --cap"
    if needed is None:
        return "no number of seeds up to 1000 would settle it"
    count, both = needed
    plural = "seeds" if count > 1 else "seed"
    return f"about {count} {plural} of {'both sides' if both else 'the candidate'} would settle it"
