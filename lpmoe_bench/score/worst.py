"""The images that a method segments worst, as a list or as a sheet of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from lpmoe_bench.errors import UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.metrics.engine import OF_COUNTS
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.facts import Metric, get_metric
from lpmoe_bench.metrics.formulas import Counts
from lpmoe_bench.metrics.protocols import Protocol
from lpmoe_bench.score.sheet import Views, sheet

__all__ = ["Views", "Worst", "image_metric", "image_value", "worst_images", "write_worst"]


class Worst(NamedTuple):
    """One of the worst images: its name, and its value of the metric with the key `metric`."""

    image: str
    metric: str
    value: float


def worst_images(
    rows: Sequence[Mapping[str, Any]], protocol: Protocol, count: int, metric: str | None = None
) -> list[Worst]:
    """Return the worst `count` images, worst first, of `ScoreResult.rows` (or of read_rows).

    By `metric`, a column of the rows; by default the protocol's primary one or, where only the
    data set has it, the same of each image's counts. Images without a value are left out; ties
    are in the order of names. Raises UsageError for a count below 1 or a metric that images do
    not have.
    """
    if count < 1:
        raise UsageError(f"the worst {count} images are none; ask for 1 or more")
    facts = image_metric(protocol.primary) if metric is None else _facts(metric)
    values = [(image_value(row, facts.key), row["image"]) for row in rows]
    known = [(value, image) for value, image in values if value is not None]
    if not known:
        raise UsageError(f"no image has a value of {facts.key}; choose another metric")
    sign = 1 if facts.higher_is_better else -1
    known.sort(key=lambda item: (sign * item[0], item[1]))
    return [Worst(image, facts.key, value) for value, image in known[:count]]


def write_worst(
    worst: Sequence[Worst], load: Callable[[str], Views], path: Path, title: str = ""
) -> Path:
    """Write a PNG of image (where there is one), mask, map and error of each, worst first.

    `load` returns an image's views by its name, all of one size; one image is held at a time. In
    the error an object pixel that is missed is blue, background that is called object is orange,
    each as strong as the map is wrong. Returns the path.
    """
    labels = [f"{i}. {one.image}   {one.metric} {one.value:.4g}" for i, one in enumerate(worst, 1)]
    pixels = sheet(labels, (load(one.image) for one in worst), title)
    write_atomically(path, cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return path


def image_metric(key: str) -> Metric:
    """Return the metric that images have for one of a data set; raises UsageError for none."""
    return _facts(key.removesuffix("_dataset"))


def _facts(key: str) -> Metric:
    if key in ("miss", "false_alarm"):
        return get_metric(f"{key}_dataset")
    return known_metrics().get(key) or get_metric(key)


def image_value(row: Mapping[str, Any], key: str) -> float | None:
    """Return a row's value, or that of its counts where it has those only."""
    if row.get(key) is not None:
        return float(row[key])
    of_counts = OF_COUNTS.get(key if key.endswith("_dataset") else f"{key}_dataset")
    if of_counts is None or any(row.get(name) is None for name in Counts._fields):
        return None
    return float(of_counts(Counts(*(int(row[name]) for name in Counts._fields))))
