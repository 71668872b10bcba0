"""Scores of a few images computed again by PySODMetrics, with the largest difference."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.protocols import Protocol

if TYPE_CHECKING:
    import numpy as np

    from lpmoe_bench.metrics.engine import PairScores

Load = Callable[[str], "tuple[np.ndarray, np.ndarray]"]
COUNTS = ("tp", "fp", "fn", "tn")


class Verification(NamedTuple):
    """What was compared.

    images: names, sorted. differences: the largest of each metric over the images; for metrics of
    the data set's counts that of the images' counts, in pixels, as `counts`. skipped: {metric or
    metric of an image: why it was not compared}.
    """

    images: tuple[str, ...]
    differences: dict[str, float]
    skipped: dict[str, str]

    @property
    def largest(self) -> float:
        """The largest difference of any metric; 0 where nothing was compared."""
        return max(self.differences.values(), default=0.0)


def verify(
    rows: Sequence[Mapping[str, Any]],
    load: Load,
    protocol: Protocol,
    count: int,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Verification:
    """Score `count` randomly drawn images again by PySODMetrics and compare with their rows.

    `rows` are `ScoreResult.rows`; all images are taken where there are fewer, and none that the
    protocol leaves out. `load` returns a name's map and mask as they were scored: uint8 (h, w) of
    one size. Curves, of which a row holds one level, are compared at all 256 levels.
    `report(done, total)` is called after each image. Raises UsageError for a count below 1.
    """
    if count < 1:
        raise UsageError(f"{count} images cannot be verified; ask for 1 or more")
    from lpmoe_bench.metrics import reference
    from lpmoe_bench.metrics.engine import score_pair

    usable = {row["image"]: row for row in rows if _scored(row, protocol)}
    names = sorted(random.Random(seed).sample(sorted(usable), min(count, len(usable))))
    skipped = _without_counterpart(protocol)
    kept = replace(protocol, metrics=tuple(k for k in protocol.metrics if k not in skipped))
    worst: dict[str, float] = {}
    for done, name in enumerate(names, start=1):
        pred, mask = load(name)
        theirs = reference.reference_scores(pred, mask, kept)
        found = _differences(usable[name], score_pair(pred, mask, kept), theirs)
        if "s_unstable" in usable[name]["flags"].split(";") and "s_measure" in found:
            del found["s_measure"]
            skipped[f"s_measure of {name}"] = "it rests on rounding in PySODMetrics"
        worst |= {key: max(value, worst.get(key, 0.0)) for key, value in found.items()}
        report(done, len(names))
    return Verification(tuple(names), worst, skipped)


def _scored(row: Mapping[str, Any], protocol: Protocol) -> bool:
    keys = {*protocol.metrics, *COUNTS} & row.keys()
    return any(row[key] is not None for key in keys) and protocol.counts_mask(
        "empty_mask" not in row["flags"].split(";")
    )


def _without_counterpart(protocol: Protocol) -> dict[str, str]:
    """Return the metrics that PySODMetrics does not compute as the protocol says, and why."""
    if protocol.thresholds == "256 levels, at least":
        return {}
    over = [k for k in protocol.metrics if k.endswith(("_mean", "_max", "_mean256", "_mean_pr"))]
    if protocol.thresholds.endswith("E above"):
        over += [key for key in protocol.metrics if key == "e_adaptive"]
    return dict.fromkeys(over, "PySODMetrics has not MATLAB's thresholds")


def _differences(row: Mapping[str, Any], ours: PairScores, theirs: PairScores) -> dict[str, float]:
    import numpy as np

    found = {}
    for key, value in theirs.values.items():
        own = row[key] if np.ndim(value) == 0 and get_metric(key).per_image else ours.values[key]
        found[key] = float(np.max(np.abs(np.asarray(own) - np.asarray(value))))
    if all(row.get(key) is not None for key in COUNTS):
        pairs = zip(COUNTS, theirs.counts, strict=True)
        found["counts"] = float(max(abs(row[key] - value) for key, value in pairs))
    return found
