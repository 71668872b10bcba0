"""Two methods' records, paired over seeds and images: differences, intervals, verdicts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.analysis import significance
from lpmoe_bench.analysis.significance import Comparison, Samples, SeedRows, Spread
from lpmoe_bench.errors import DataError, NotComparableError, UsageError
from lpmoe_bench.metrics.facts import METRICS, refuse_ambiguous
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import context_of, flat, plain
from lpmoe_bench.records.store import ROWS, Found, StoredRecord, find_records

FEWEST_DIGITS = 6  # of a fingerprint that stands for a name


@dataclass(frozen=True)
class ComparisonLine:
    """One metric on one test set: means of A and of B, and the comparison A - B.

    a_sd, b_sd: standard deviations over the seeds in common, n - 1; None for one seed.
    """

    test_set: str
    metric: str
    a: float
    b: float
    a_sd: float | None
    b_sd: float | None
    result: Comparison


@dataclass(frozen=True)
class Report:
    """All lines of one comparison; `notes` say what a reader of the verdicts must know."""

    a: str
    b: str
    seeds: tuple[int, ...]
    lines: tuple[ComparisonLine, ...]
    notes: tuple[str, ...]


def choose_records(name: str, found: Found | None) -> list[StoredRecord]:
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


def compare_records(
    a: Sequence[StoredRecord],
    b: Sequence[StoredRecord],
    metrics: Sequence[str] | None = None,
    margin: float = 0.0,
) -> Report:
    """Compare two methods on every test set they share; A - B, Holm over all lines.

    Raises NotComparableError naming what differs, DataError where rows do not pair.
    """
    sides = [(test, *_of_test(a, b, test)) for test in _tests(a, b)]
    pairs = []
    for test, x, y in sides:
        one, two = SeedRows(x, test), SeedRows(y, test)
        pairs += [(test, key, pair_rows(one, two, key)) for key in _keys(x, y, test, metrics)]
    seeds = tuple(sorted({seed for *_, pair in pairs for seed in pair.seeds}))
    ups = [METRICS[key].higher_is_better for _, key, _ in pairs]
    results = judge_paired([pair for *_, pair in pairs], ups, margin)
    lines = tuple(
        ComparisonLine(test, key, pair.a.mean, pair.b.mean, pair.a.sd, pair.b.sd, result)
        for (test, key, pair), result in zip(pairs, results, strict=True)
    )
    notes = []
    for side in (a, b) if seeds else ():  # maps of no known seed have no partner to begin with
        if single := {s.record.seed for s in side} - {None, *seeds}:
            title = side[0].record.method.title
            text = f"{title} also has seed {_list(single)}, left out: the other has none to pair"
            notes.append(text)
    a = list({s.folder: s for _, x, _ in sides for s in x}.values())
    b = list({s.folder: s for _, _, y in sides for s in y}.values())
    if len(seeds) == 1:
        notes.append(
            "one seed: intervals and p are of these very models on other images of this kind"
        )
    elif len(seeds) == 2:
        notes.append("two seeds: the intervals are wide, and cover a little less than they promise")
    if any(line.result.spread.images == 1 for line in lines):
        text = "metrics without rows an image vary over seeds alone: the images count as fixed"
        notes.append(text)
    titles = [side[0].record.method.title for side in (a, b)]
    for title, side in zip(titles, (a, b), strict=True):
        if dirty := sum(bool(s.record.environment.git_dirty) for s in side):
            text = f"{dirty} records of {title} were made by code that differs from its commit"
            notes.append(text)
    return Report(titles[0], titles[1], seeds, lines, tuple(notes))


def common_seeds(a: Sequence[StoredRecord], b: Sequence[StoredRecord]) -> tuple[int, ...]:
    """Return the seeds of both sides, sorted; raises NotComparableError where there is none."""
    own, other = ({s.record.seed for s in side} for side in (a, b))
    common = sorted(seed for seed in own & other if seed is not None)
    if not common and own != {None} and other != {None}:
        raise NotComparableError(
            f"the two have no seed in common ({_list(own)} against {_list(other)}): "
            f"run the same seeds of both"
        )
    return tuple(common)


def _list(seeds: set[int | None]) -> str:
    return ", ".join(str(seed) for seed in sorted(seeds, key=lambda seed: (seed is None, seed)))


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


@dataclass(frozen=True)
class PairedRows:
    """Two rows on one test set by one metric: values on the seeds and images in common, and how
    their difference A - B varies. seeds: none where a side is maps of no known seed."""

    seeds: tuple[int, ...]
    a: Samples
    b: Samples
    spread: Spread


def pair_up(
    a: Sequence[StoredRecord], b: Sequence[StoredRecord], test: str, key: str
) -> PairedRows:
    """Pair two rows, over seeds and images.

    Args:
        a: the records of one row, one a seed.
        b: those of the other.
        test: the test set.
        key: the metric.

    Returns:
        What `judge_paired` judges.

    Raises:
        NotComparableError: seeds or images do not pair.
        DataError: rows cannot be read, or a record lacks the metric.
    """
    return pair_rows(SeedRows(a, test), SeedRows(b, test), key)


def pair_rows(a: SeedRows, b: SeedRows, key: str) -> PairedRows:
    """Pair two rows as `pair_up` does, for who pairs one of them with many or by many metrics."""
    seeds = common_seeds(a.stored, b.stored)
    x, y = (side.of(seeds).samples(key) for side in (a, b))
    return pair_samples(x, y, seeds, f"{key} on {a.test}")


def pair_samples(x: Samples, y: Samples, seeds: Sequence[int], what: str) -> PairedRows:
    """Pair the values of two rows, for who compares many rows and reads each of them once.

    Args:
        x: the values of one row.
        y: those of the other.
        seeds: those in common, of which both have values; none for maps of no known seed.
        what: the metric and test set, for errors.

    Returns:
        What `judge_paired` judges.

    Raises:
        NotComparableError: images do not pair, or there is nothing that varies.
    """
    x, y = (side.of(seeds) if seeds else side for side in (x, y))
    if not (x.images and y.images) and x.images != y.images:
        raise NotComparableError(
            f"{what} has no rows of single images on one side: its {ROWS} is missing, or lacks it; "
            f"restore the file or run again"
        )
    if x.images != y.images:
        raise NotComparableError(
            f"{what} has rows of {len(x.images)} images against {len(y.images)}, "
            f"or of others: score both on the same images"
        )
    # Images that are hard for one are hard for the other: their difference varies far less.
    difference = x.values - y.values
    if difference.size < 2:
        raise NotComparableError(
            f"{what} is one number of one seed: it has no spread; run more seeds"
        )
    return PairedRows(tuple(seeds), x, y, significance.spread_of(difference))


def judge_paired(
    pairs: Sequence[PairedRows], higher_is_better: Sequence[bool], margin: float
) -> list[Comparison]:
    """Judge pairs of rows: the one place from which `table`, `report` and `compare` have verdicts.

    Two methods of one seed stay inconclusive, since luck may have made the difference. Maps of no
    known seed are judged as the very models that they are, since no other seed is asked about.

    Args:
        pairs: all that are judged together, which Holm's correction runs over.
        higher_is_better: for each, whether a positive difference is better.
        margin: differences within it are equal; in units of the score.

    Returns:
        One comparison for each pair; `significance.settling` says what would settle it.
    """
    return significance.compare_paired(
        [pair.spread for pair in pairs],
        margin,
        higher_is_better=higher_is_better,
        models=[not pair.seeds for pair in pairs],
    )
