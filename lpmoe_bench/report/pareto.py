"""The Pareto front: rows that no other row beats in both its score and its cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lpmoe_bench.records.model import Record
from lpmoe_bench.report.material import Chapter, Entry
from lpmoe_bench.tables.rows import is_partial


@dataclass(frozen=True)
class Cost:
    """What an axis shows: value x scale of a record. log: over powers of ten."""

    label: str
    value: Callable[[Record], float | None]
    less_is_better: bool
    log: bool
    scale: float = 1.0
    exact: bool = True  # the same on every machine


def _parameter(name: str) -> Callable[[Record], float | None]:
    return lambda record: getattr(record.parameters, name, None)


def _cost(name: str) -> Callable[[Record], float | None]:
    return lambda record: getattr(record.costs, name, None)


COSTS = {
    "parameters": Cost(
        "trainable parameters, decoder included", _parameter("trainable"), True, True
    ),
    "method_parameters": Cost("parameters of the method alone", _parameter("method"), True, True),
    "images_per_second": Cost(
        "test images/s", _cost("inference_images_per_second"), False, False, exact=False
    ),
    "train_images_per_second": Cost(
        "training images/s", _cost("train_images_per_second"), False, False, exact=False
    ),
    "memory": Cost(
        "peak memory of training (GiB)", _cost("peak_memory_bytes"), True, False, 2.0**-30, False
    ),
    "training_flops": Cost(
        "GFLOPs of a training image", _cost("training_flops"), True, False, 1e-9
    ),
}


@dataclass(frozen=True)
class Dot:
    """A row in the plane of cost and score, both as they are written; sd is None for one seed."""

    entry: Entry
    x: float
    y: float
    sd: float | None
    on_front: bool = False


@dataclass(frozen=True)
class Plane:
    """The rows that have a cost, the front marked; absent: labels of those without."""

    chapter: Chapter
    cost: Cost
    dots: tuple[Dot, ...]
    absent: tuple[str, ...]

    @property
    def front(self) -> list[Dot]:
        return sorted((dot for dot in self.dots if dot.on_front), key=lambda dot: dot.x)


def plane(chapter: Chapter, cost: Cost) -> Plane:
    """Place a chapter's rows; rows that lack images of the test set are never on the front."""
    found, absent = [], []
    scale = chapter.score.scale
    for entry in chapter.entries:
        x, y, sd = _mean(entry, cost), chapter.mean(entry), chapter.sd(entry)
        if x is None or y is None:
            absent.append(entry.label)
        else:
            found.append(Dot(entry, x, y * scale, None if sd is None else sd * scale))
    better = chapter.score.higher_is_better
    fair = [d for d in found if not any(is_partial(r, chapter.test) for r in d.entry.row.records)]
    dots = tuple(
        Dot(
            d.entry,
            d.x,
            d.y,
            d.sd,
            d in fair and better is not None and not _beaten(d, fair, cost, better),
        )
        for d in found
    )
    return Plane(chapter, cost, dots, tuple(absent))


def _beaten(dot: Dot, others: list[Dot], cost: Cost, better: bool) -> bool:
    """Whether another is no worse in both and better in one."""
    own = _signed(dot, cost, better)
    rivals = (_signed(other, cost, better) for other in others)
    return any(x >= own[0] and y >= own[1] and (x, y) != own for x, y in rivals)


def _signed(dot: Dot, cost: Cost, better: bool) -> tuple[float, float]:
    return (-dot.x if cost.less_is_better else dot.x, dot.y if better else -dot.y)


def _mean(entry: Entry, cost: Cost) -> float | None:
    values = [cost.value(record) for record in entry.row.records]
    usable = [value for value in values if value is not None and math.isfinite(value)]
    return cost.scale * math.fsum(usable) / len(usable) if usable else None
