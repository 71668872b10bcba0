"""What each column of a table shows: its value in a record, unit, precision, direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.facts import refuse_ambiguous
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.model import Record
from method_zoo.errors import unknown

AGAINST = "_against"  # ends the key of a column of verdicts, behind that of its score


@dataclass(frozen=True)
class Column:
    """One column. `value` takes a record and a test set; what is printed is value x scale.

    Only scores have a direction, get marks, and show their spread over seeds.
    """

    key: str
    label: str
    latex: str
    decimals: int
    value: Callable[[Record, str], float | None]
    scale: float = 1.0
    higher_is_better: bool | None = None
    is_score: bool = False


def _parameter(name: str) -> Callable[[Record, str], float | None]:
    return lambda record, _: getattr(record.parameters, name, None)


def _cost(name: str) -> Callable[[Record, str], float | None]:
    return lambda record, _: getattr(record.costs, name, None)


PARAMETERS = (
    Column("method_parameters", "Method (M)", "Method (M)", 3, _parameter("method"), 1e-6),
    Column("decoder_parameters", "Decoder (M)", "Decoder (M)", 3, _parameter("decoder"), 1e-6),
    Column(
        "share_of_backbone", "Share (%)", r"Share (\%)", 2, _parameter("share_of_backbone"), 100
    ),
)
_COUNTS = (
    ("trainable_parameters", "Trains (M)", "trainable", 3, 1e-6),
    ("frozen_parameters", "Frozen (M)", "frozen", 3, 1e-6),
    ("total_parameters", "Total (M)", "total", 3, 1e-6),
    ("share_of_total", "Share of total (%)", "share_of_total", 2, 100.0),
    ("share_of_published", "Share as papers (%)", "share_of_published", 2, 100.0),
)
_COSTS = (
    ("train_images_per_second", "Train images/s", 1, 1.0),
    ("inference_images_per_second", "Test images/s", 1, 1.0),
    ("train_seconds", "Training (min)", 1, 1 / 60),
    ("peak_memory_bytes", "Peak memory (GiB)", 2, 2.0**-30),
    ("state_bytes", "State (MiB)", 2, 2.0**-20),
    ("forward_flops", "Forward (GFLOPs)", 1, 1e-9),
    ("training_flops", "Training (GFLOPs)", 1, 1e-9),
)
COSTS = {
    key: Column(key, label, label.replace("%", r"\%"), decimals, _parameter(name), scale)
    for key, label, name, decimals, scale in _COUNTS
} | {
    key: Column(key, label, label, decimals, _cost(key), scale)
    for key, label, decimals, scale in _COSTS
}


def cost_columns(keys: Sequence[str]) -> list[Column]:
    """Return the cost columns of these keys, all for `all`; raises UsageError for an unknown one.

    Costs are parameters beyond the usual ones, FLOPs, images/s, time and memory.
    """
    if list(keys) == ["all"]:
        return list(COSTS.values())
    for key in keys:
        if key not in COSTS:
            raise UsageError(unknown("column", key, COSTS))
    return [COSTS[key] for key in keys]


def metric_columns(
    records: Sequence[Record], test: str, wanted: Sequence[str] | None
) -> list[Column]:
    """Return the columns of the wanted metrics: by default the protocol's headline, or `all`.

    Raises UsageError for a metric that no record of this test set has.
    """
    present = list(dict.fromkeys(key for record in records for key in record.scores[test]))
    protocol = PROTOCOLS.get(records[0].protocol.name)
    if wanted is None:
        keys = [key for key in protocol.headline if key in present] if protocol else present
    elif list(wanted) == ["all"]:
        keys = present
    else:
        keys = list(wanted)
    for key in keys:
        if key not in present:
            refuse_ambiguous(key)
            raise UsageError(unknown(f"metric of {test}", key, present))
    percent = protocol.percent if protocol else ()
    return [_metric_column(key, key in percent) for key in keys]


def _metric_column(key: str, percent: bool) -> Column:
    def value(record: Record, test: str) -> float | None:
        return record.scores[test].get(key)

    metric = known_metrics().get(key)
    if metric is None:  # a record of a newer program: shown, but nobody knows its direction
        return Column(key, key, key.replace("_", r"\_"), 3, value, is_score=True)
    label, latex, better = metric.label, metric.latex, metric.higher_is_better
    if percent:
        return Column(key, f"{label} (%)", rf"{latex} (\%)", 2, value, 100.0, better, True)
    return Column(key, label, latex, metric.decimals, value, 1.0, better, is_score=True)
