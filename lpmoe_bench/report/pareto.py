"""The Pareto front: methods that no other one beats in both its score and its cost."""

import math
from dataclasses import dataclass, replace

from lpmoe_bench.errors import UsageError
from lpmoe_bench.report.contents import ReportRow, ReportTable
from lpmoe_bench.tables.parts import COSTS, PARAMETERS, Column
from lpmoe_bench.tables.rows import is_partial
from method_zoo.errors import unknown

COLUMNS = {column.key: column for column in PARAMETERS} | COSTS
# The costs that a report draws, with the label of their axis, in the unit of its column.
PLOTTED = {
    "trainable_parameters": "trainable parameters (M), decoder included",
    "method_parameters": "parameters of the method alone (M)",
    "inference_images_per_second": "test images/s",
    "train_images_per_second": "training images/s",
    "peak_memory_bytes": "peak memory of training (GiB)",
    "training_flops": "GFLOPs of a training image",
}
SHORT = {  # of `--x`
    "parameters": "trainable_parameters",
    "images_per_second": "inference_images_per_second",
    "memory": "peak_memory_bytes",
}
COUNTED = ("parameters", "flops", "state_bytes", "share_")  # the same on every machine


@dataclass(frozen=True)
class ParetoPoint:
    """A row in the plane of cost and score, both as they are written; sd is None for one seed."""

    row: ReportRow
    x: float
    y: float
    sd: float | None
    on_front: bool = False


@dataclass(frozen=True)
class ParetoPlane:
    """The rows of a table that have a cost, the front marked; absent: labels of those without."""

    table: ReportTable
    cost: Column
    points: tuple[ParetoPoint, ...]
    absent: tuple[str, ...]

    @property
    def front(self) -> list[ParetoPoint]:
        """The points of the front, by cost."""
        return sorted((point for point in self.points if point.on_front), key=lambda p: p.x)

    @property
    def label(self) -> str:
        """The words of the cost's axis."""
        return PLOTTED.get(self.cost.key, self.cost.label)

    @property
    def less_is_better(self) -> bool:
        """Whether a lower cost is better: of all but speeds."""
        return not self.cost.key.endswith("images_per_second")

    @property
    def is_log(self) -> bool:
        """Whether the axis is over powers of ten: counts of parameters differ by these."""
        return self.cost.key.endswith("_parameters")

    @property
    def is_measured(self) -> bool:
        """Whether the cost depends on the machine."""
        return not any(part in self.cost.key for part in COUNTED)


def find_cost(name: str) -> Column:
    """Return the column of a cost by its key or short name; raises UsageError for an unknown."""
    key = SHORT.get(name, name)
    if key not in COLUMNS:
        raise UsageError(unknown("cost for --x", name, [*SHORT, *COLUMNS]))
    return COLUMNS[key]


def pareto_plane(table: ReportTable, cost: Column) -> ParetoPlane:
    """Place a table's rows; rows that lack images of the test set are never on the front."""
    found: list[ParetoPoint] = []
    absent: list[str] = []
    scale = table.score.scale
    for row in table.rows:
        x, y, sd = _mean(table, row, cost), table.mean(row), table.sd(row)
        if x is None or y is None:
            absent.append(row.label)
        else:
            found.append(ParetoPoint(row, x, y * scale, None if sd is None else sd * scale))
    plane = ParetoPlane(table, cost, tuple(found), tuple(absent))
    fair = [p for p in found if not any(is_partial(r, table.test) for r in p.row.row.records)]
    if table.score.higher_is_better is None:
        return plane
    front = {id(point) for point in _front(plane, fair)}
    marked = (replace(point, on_front=id(point) in front) for point in found)
    return replace(plane, points=tuple(marked))


def _front(plane: ParetoPlane, points: list[ParetoPoint]) -> list[ParetoPoint]:
    """Return the points that none beats; one pass over them, the cheapest first.

    A point is beaten by one that is no worse in both and better in one, so equals stay together.
    """

    def signed(point: ParetoPoint) -> tuple[float, float]:
        cost = point.x if plane.less_is_better else -point.x
        return cost, -point.y if plane.table.score.higher_is_better else point.y

    kept: list[ParetoPoint] = []
    best: tuple[float, float] | None = None
    for point in sorted(points, key=signed):
        own = signed(point)
        if best is None or own[1] < best[1] or own == best:
            kept.append(point)
            best = own
    return kept


def _mean(table: ReportTable, row: ReportRow, cost: Column) -> float | None:
    values = [cost.value(record, table.test) for record in row.row.records]
    usable = [value for value in values if value is not None and math.isfinite(value)]
    return cost.scale * math.fsum(usable) / len(usable) if usable else None
