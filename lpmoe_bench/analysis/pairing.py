"""Two methods paired over seeds and images, and families of such pairs judged together."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lpmoe_bench.analysis import significance
from lpmoe_bench.analysis.groups import Grouping, GroupSource
from lpmoe_bench.analysis.samples import Samples, SeedRows
from lpmoe_bench.analysis.significance import Comparison, Spread
from lpmoe_bench.errors import NotComparableError, UsageError
from lpmoe_bench.metrics.facts import METRICS, Margins
from lpmoe_bench.records.context import Context, context_of
from lpmoe_bench.records.store import ROWS, StoredRecord

FAMILIES = ("set", "table")  # what Holm's correction runs over: one test set, or all of a table


@dataclass(frozen=True)
class Rules:
    """How differences are judged, the same in `table`, `compare` and `report`.

    margins: which differences are equal. groups: which images vary together. family: one of
    FAMILIES. looks: how often the question was asked before, with fewer seeds, and now.
    """

    margins: Margins = field(default_factory=Margins)
    groups: GroupSource = field(default_factory=GroupSource)
    family: str = "set"
    looks: int = 1

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UsageError.unknown("family", self.family, FAMILIES)
        if self.looks < 1:
            raise UsageError(f"--looks is {self.looks}; it counts how often one looks, from 1 on")


@dataclass(frozen=True)
class PairedRows:
    """Two rows on one test set by one metric: values on the seeds and images in common, and how
    their difference A - B varies. seeds: none where a side is maps of no known seed. groups: of
    images that vary together."""

    test: str
    metric: str
    seeds: tuple[int, ...]
    a: Samples
    b: Samples
    spread: Spread
    groups: Grouping | None = None


def common_seeds(a: Sequence[StoredRecord], b: Sequence[StoredRecord]) -> tuple[int, ...]:
    """Return the seeds of both sides, sorted; raises NotComparableError where there is none."""
    own, other = ({s.record.seed for s in side} for side in (a, b))
    common = sorted(seed for seed in own & other if seed is not None)
    if not common and own != {None} and other != {None}:
        raise NotComparableError(
            f"the two have no seed in common ({listed_seeds(own)} against {listed_seeds(other)}): "
            f"run the same seeds of both"
        )
    return tuple(common)


def listed_seeds(seeds: set[int | None]) -> str:
    """Return seeds as sentences have them."""
    return ", ".join(str(seed) for seed in sorted(seeds, key=lambda seed: (seed is None, seed)))


def pair_up(
    a: Sequence[StoredRecord],
    b: Sequence[StoredRecord],
    test: str,
    key: str,
    groups: GroupSource | None = None,
) -> PairedRows:
    """Pair two rows, over seeds and images.

    Args:
        a: the records of one row, one a seed.
        b: those of the other.
        test: the test set.
        key: the metric.
        groups: tells which images vary together.

    Returns:
        What `judge_paired` judges.

    Raises:
        NotComparableError: seeds or images do not pair.
        DataError: rows cannot be read, or a record lacks the metric.
    """
    return pair_rows(SeedRows(a, test), SeedRows(b, test), key, groups or GroupSource())


def pair_rows(a: SeedRows, b: SeedRows, key: str, groups: GroupSource) -> PairedRows:
    """Pair two rows as `pair_up` does, for who pairs one of them with many or by many metrics."""
    seeds = common_seeds(a.stored, b.stored)
    found = groups.of(a, b)
    x, y = (side.of(seeds).samples(key, found and found.of) for side in (a, b))
    return pair_samples(x, y, seeds, a.test, key, found)


def pair_samples(
    x: Samples,
    y: Samples,
    seeds: Sequence[int],
    test: str,
    key: str,
    groups: Grouping | None = None,
) -> PairedRows:
    """Pair the values of two rows, for who compares many rows and reads each of them once.

    Args:
        x: the values of one row.
        y: those of the other.
        seeds: those in common, of which both have values; none for maps of no known seed.
        test: the test set.
        key: the metric.
        groups: those that are the columns of both, if any.

    Returns:
        What `judge_paired` judges.

    Raises:
        NotComparableError: images do not pair, or there is nothing that varies.
    """
    what = f"{key} on {test}"
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
    spread = significance.spread_of(difference, x.sizes if x.groups else None)
    return PairedRows(test, key, tuple(seeds), x, y, spread, groups if x.groups else None)


def judge_paired(pairs: Sequence[PairedRows], rules: Rules | None = None) -> list[Comparison]:
    """Judge rows against one reference: the one place from which `table`, `report` and `compare`
    have verdicts.

    A family is one reference on one test set by one metric, over all methods beside it, or with
    `family` "table" over all test sets as well. Two methods of one seed stay inconclusive, since
    luck may have made the difference. Maps of no known seed are judged as the very models that they
    are, since no other seed is asked about.

    Args:
        pairs: rows less the reference.
        rules: how they are judged.

    Returns:
        One comparison for each pair; `planning.settling` says what would settle it.
    """
    rules = rules or Rules()
    families: dict[tuple[str, str], list[int]] = {}
    for place, pair in enumerate(pairs):
        key = pair.metric, pair.test if rules.family == "set" else ""
        families.setdefault(key, []).append(place)
    found: dict[int, Comparison] = {}
    for (metric, _), places in families.items():
        own = [pairs[place] for place in places]
        margin = rules.margins.of(metric)
        judged = significance.compare_paired(
            [pair.spread for pair in own],
            # A margin may be a share of the score: that of
            # the reference, the same for all beside it.
            [margin.of(pair.b.mean) for pair in own],
            higher_is_better=METRICS[metric].higher_is_better,
            models=[not pair.seeds for pair in own],
            looks=rules.looks,
        )
        found |= dict(zip(places, judged, strict=True))
    return [found[place] for place in range(len(pairs))]


def rows_beside(
    stored: Sequence[StoredRecord], context: Context
) -> dict[tuple[str, str], list[StoredRecord]]:
    """Return the rows of a table by method and fingerprint: all records of a context, one a seed.

    Maps stand beside the runs on the same data, since nobody knows how they were made.
    """
    rows: dict[tuple[str, str], dict[int | None, StoredRecord]] = {}
    test = context.test_set
    for one in sorted(stored, key=lambda one: one.record.created):
        record = one.record
        if record.superseded_by or test not in record.scores:
            continue
        if record.protocol.hash != context.protocol_hash or record.task != context.task:
            continue
        own = context_of(record, test)
        is_maps = record.kind == "score" and own.test_digest == context.test_digest
        if is_maps or own == context:
            key = record.method.name, record.fingerprint
            rows.setdefault(key, {})[record.seed] = one  # the newest wins
    return {key: list(seeds.values()) for key, seeds in rows.items()}
