"""Two methods on every test set that they share: differences, intervals, verdicts, one answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.analysis.groups import few_groups
from lpmoe_bench.analysis.over_sets import TaskAnswer, answer_by_rules
from lpmoe_bench.analysis.pairing import (
    PairedRows,
    Rules,
    common_seeds,
    judge_paired,
    listed_seeds,
    pair_rows,
    rows_beside,
)
from lpmoe_bench.analysis.planning import seeds_needed
from lpmoe_bench.analysis.samples import SeedRows
from lpmoe_bench.analysis.significance import FEWEST_SEEDS, Comparison
from lpmoe_bench.errors import DataError, NotComparableError, UsageError
from lpmoe_bench.metrics.facts import METRICS, refuse_ambiguous
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import (
    SAME_TRAINING_IMAGES,
    all_training_images,
    context_of,
    flat,
    plain,
)
from lpmoe_bench.records.store import FoundRecords, StoredRecord, find_records

FEWEST_DIGITS = 6  # of a fingerprint that stands for a name
OVER = ("", "task")


# The answer of `compare`: two methods on every test set and by every metric.


@dataclass(frozen=True)
class ComparisonLine:
    """One metric on one test set: means of A and of B, and the comparison A - B.

    a_sd, b_sd: standard deviations over the seeds in common, n - 1; None for one seed. groups: such
    as "5 sequences" where these vary and not single images. seeds_needed: how many would settle an
    inconclusive line; None where none would, or where it is settled.
    """

    test_set: str
    metric: str
    a: float
    b: float
    a_sd: float | None
    b_sd: float | None
    result: Comparison
    groups: str = ""
    seeds_needed: int | None = None


@dataclass(frozen=True)
class Report:
    """All lines of one comparison; `notes` say what a reader of the verdicts must know.

    tasks: one answer over all test sets for each metric, where that was asked for.
    """

    a: str
    b: str
    seeds: tuple[int, ...]
    lines: tuple[ComparisonLine, ...]
    notes: tuple[str, ...]
    tasks: tuple[TaskAnswer, ...] = ()


def compare_records(
    a: Sequence[StoredRecord],
    b: Sequence[StoredRecord],
    metrics: Sequence[str] | None = None,
    rules: Rules | None = None,
    among: Sequence[StoredRecord] = (),
    over: str = "",
) -> Report:
    """Compare two methods on every test set they share; A - B.

    Args:
        a: the records of one setting of a method.
        b: those of the reference.
        metrics: their keys; by default the protocol's headline.
        rules: how differences are judged.
        among: all records given, whose other methods count in the families.
        over: "task" for one answer over all test sets beside the lines of each.

    Raises:
        NotComparableError: with what differs.
        DataError: rows do not pair.
    """
    rules = rules or Rules()
    if over not in OVER:
        raise UsageError.unknown("thing to answer over", over, OVER[1:])
    pairs, others = [], []
    sides = [(test, *_of_test(a, b, test)) for test in _tests(a, b)]
    for test, x, y in sides:
        keys = list(_keys(x, y, test, metrics))
        one, two = SeedRows(x, test), SeedRows(y, test)
        pairs += [pair_rows(one, two, key, rules.groups) for key in keys]
        others += _rivals(x, two, keys, [*among, *a, *b], rules)
    rules.groups.require_use()
    seeds = tuple(sorted({seed for pair in pairs for seed in pair.seeds}))
    # The other methods are judged along, so that a table and `compare` give the same verdict.
    results = judge_paired([*pairs, *others], rules)[: len(pairs)]
    lines = tuple(
        ComparisonLine(
            pair.test,
            pair.metric,
            pair.a.mean,
            pair.b.mean,
            pair.a.sd,
            pair.b.sd,
            result,
            pair.groups.text if pair.groups else "",
            seeds_needed(result) if result.verdict == "inconclusive" and pair.seeds else None,
        )
        for pair, result in zip(pairs, results, strict=True)
    )
    titles = [side[0].record.method.title for side in (a, b)]
    notes = [*_notes_on_seeds(a, b, seeds), *_notes_on_units(pairs)]
    a = list({s.folder: s for _, x, _ in sides for s in x}.values())
    b = list({s.folder: s for _, _, y in sides for s in y}.values())
    for title, side in zip(titles, (a, b), strict=True):
        if dirty := sum(bool(s.record.environment.git_dirty) for s in side):
            text = f"{dirty} records of {title} were made by code that differs from its commit"
            notes.append(text)
    tasks = tuple(_over_task(pairs, rules)) if over else ()
    return Report(titles[0], titles[1], seeds, lines, tuple(notes), tasks)


def _over_task(pairs: Sequence[PairedRows], rules: Rules) -> Iterator[TaskAnswer]:
    """Yield one answer for each metric that was compared."""
    for metric in dict.fromkeys(pair.metric for pair in pairs):
        yield answer_by_rules([pair for pair in pairs if pair.metric == metric], rules)


def _rivals(
    a: Sequence[StoredRecord],
    reference: SeedRows,
    keys: Sequence[str],
    among: Sequence[StoredRecord],
    rules: Rules,
) -> Iterator[PairedRows]:
    """Yield the other methods of a table less its reference, as far as they pair with it."""
    runs = [one for one in (*reference.stored, *a) if one.record.kind != "score"]
    context = context_of((runs or reference.stored)[0].record, reference.test)
    both = {(s.record.method.name, s.record.fingerprint) for s in (*a, *reference.stored)}
    for key, stored in rows_beside(among, context).items():
        rows = SeedRows(stored, reference.test)
        for metric in keys if key not in both else ():
            try:
                yield pair_rows(rows, reference, metric, rules.groups)
            except (NotComparableError, DataError):
                continue  # a table says why it has no verdict there


def _notes_on_seeds(
    a: Sequence[StoredRecord], b: Sequence[StoredRecord], seeds: Sequence[int]
) -> Iterator[str]:
    for side in (a, b) if seeds else ():  # maps of no known seed have no partner to begin with
        if single := {s.record.seed for s in side} - {None, *seeds}:
            title, left = side[0].record.method.title, listed_seeds(single)
            yield f"{title} also has seed {left}, left out: the other has none to pair"
    if len(seeds) == 1:
        yield "one seed: intervals and p are of these very models on other images of this kind"
    elif 1 < len(seeds) < FEWEST_SEEDS:
        yield "two seeds give intervals and no verdict: run a third"
    if len(seeds) > 1 and all(all_training_images(s.record) for s in (*a, *b)):
        yield SAME_TRAINING_IMAGES


def _notes_on_units(pairs: Sequence[PairedRows]) -> Iterator[str]:
    if any(pair.spread.units == 1 and not pair.groups for pair in pairs):
        yield "metrics without rows an image vary over seeds alone: the images count as fixed"
    grouped = {pair.test: (pair.groups, pair.spread) for pair in pairs if pair.groups}
    for test, (groups, spread) in grouped.items():
        few = few_groups(groups, spread.effective_units)
        yield f"{test}: {groups.text} vary, not single images{few}"


def choose_records(name: str, found: FoundRecords | None) -> list[StoredRecord]:
    """Return the records that a name means: a folder of them, or a method among those found.

    A fingerprint, or six digits of it or more, means one setting of a method. Raises UsageError for
    an unknown name, or one that means several settings.
    """
    folder = Path(name)
    if folder.is_dir():
        stored = find_records([folder]).stored
        if not stored:
            raise DataError(f"{folder} holds no record; name the folder of a run, or a method")
    else:
        found = found if found is not None else find_records()
        stored = [s for s in found.stored if _is_meant(s, name)]
        if not found.stored:
            raise DataError(
                "there are no records here to compare; train with `lpmoe-bench run`, or name their "
                "folder with --records"
            )
        if not stored:
            known = sorted({s.record.method.name for s in found.stored})
            raise UsageError.unknown("method among these records", name, known)
    stored = [s for s in stored if not s.record.superseded_by]
    # A fingerprint is a setting: seeds of several settings have no common mean.
    prints = {s.record.fingerprint for s in stored}
    if len(prints) > 1:
        settings = sorted({(s.record.task, s.record.fingerprint[:12]) for s in stored})
        several = ", ".join(f"{print_} on {task}" for task, print_ in settings[:8])
        several += f" and {len(settings) - 8} more" if len(settings) > 8 else ""
        raise UsageError(
            f"{name} means {len(prints)} different settings ({several}), which differ in "
            f"{_differences(stored)}; choose by --only NAME=VALUE or --task, or name a fingerprint"
        )
    # A run and its evaluations on other sets are several records of one seed.
    newest = {
        (s.record.seed, tuple(s.record.scores), s.record.protocol.hash): s
        for s in sorted(stored, key=lambda s: s.record.created)
    }
    return list(newest.values())


def _differences(stored: Sequence[StoredRecord]) -> str:
    """Say which settings take which values, the seed aside."""
    configs = {s.record.fingerprint: flat(s.record.config) for s in stored}.values()
    told = []
    for name in dict.fromkeys(name for config in configs for name in config):
        # Older records lack a setting that is an empty text in newer ones.
        found = [None if config.get(name) == "" else config.get(name) for config in configs]
        values = [*dict.fromkeys(map(plain, found))]
        if values[1:] and name not in ("seed", "label"):
            told.append(f"{name} ({', '.join(values[:5])})")
    more = f" and {len(told) - 6} more" if len(told) > 6 else ""
    return (", ".join(told[:6]) or "data or weights alone") + more


def _is_meant(stored: StoredRecord, name: str) -> bool:
    """Whether a record is of the method, or the fingerprint, of that name."""
    record = stored.record
    whole = len(name) >= FEWEST_DIGITS and record.fingerprint.startswith(name)
    return whole or name in (record.method.name, record.method.title)


def _tests(a: Sequence[StoredRecord], b: Sequence[StoredRecord]) -> list[str]:
    """Return the test sets that both sides have, in the order of the first."""
    own, other = (list(dict.fromkeys(t for s in side for t in s.record.scores)) for side in (a, b))
    tests = [test for test in own if test in other]
    if not tests:
        raise NotComparableError(
            f"the two share no test set ({', '.join(own)} against {', '.join(other)}); "
            f"evaluate both on one"
        )
    return tests


def _of_test(
    a: Sequence[StoredRecord], b: Sequence[StoredRecord], test: str
) -> tuple[list[StoredRecord], list[StoredRecord]]:
    """Return the records of both sides on a test set that share a seed, one a seed.

    Where a side was scored by several protocols, those of one that both have.
    """
    # A score means something under its protocol alone, so both sides keep to one.
    own, other = ([s for s in side if test in s.record.scores] for side in (a, b))
    hashes = [s.record.protocol.hash for s in other]
    shared = next((s.record.protocol.hash for s in own if s.record.protocol.hash in hashes), None)
    sides = []
    for side in (own, other):
        fitting = [s for s in side if shared in (None, s.record.protocol.hash)]
        newest = sorted(fitting, key=lambda s: s.record.created)
        sides.append(list({s.record.seed: s for s in newest}.values()))
    seeds = common_seeds(*sides)
    one, two = ([s for s in side if not seeds or s.record.seed in seeds] for side in sides)
    return one, two


def _keys(
    a: Sequence[StoredRecord], b: Sequence[StoredRecord], test: str, metrics: Sequence[str] | None
) -> Iterator[str]:
    """Yield the metrics to compare on a test set; raises for what either lacks."""
    for one in (*a[1:], *b):  # an evaluation may have seen another state of the set
        _check_context(a[0], one, test)
    scores = [one.record.scores[test] for one in (*a, *b)]
    present = [k for k in scores[0] if k in METRICS and all(k in other for other in scores)]
    protocol = PROTOCOLS.get(a[0].record.protocol.name)
    for key in metrics or (protocol.headline if protocol else present):
        if key not in present:
            refuse_ambiguous(key)
            raise UsageError.unknown(f"metric of {test}", key, present)
        yield key


def _check_context(a: StoredRecord, b: StoredRecord, test: str) -> None:
    one, other = (vars(context_of(side.record, test)) for side in (a, b))
    names = [*one]
    if "score" in (a.record.kind, b.record.kind):  # maps say nothing of how they were made
        names = ["test_set", "test_digest", "protocol_hash"]
    wrong = [name for name in names if one[name] != other[name]]
    if wrong:
        facts = (f"{name.replace('_', ' ')} {one[name]} against {other[name]}" for name in wrong)
        raise NotComparableError(f"the two are not comparable on {test}: {'; '.join(facts)}")
