"""Training curves: loss and validation score by step, of each seed and their mean."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lpmoe_bench.errors import BenchError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.records.store import CURVE, StoredRecord, read_rows
from lpmoe_bench.report import contents, plots

MOST_POINTS = 120  # of a curve; more are averaged
KINDS = ("loss", "validation")


@dataclass(frozen=True)
class TrainingCurves:
    """Rows that trained alike, whatever they were tested on.

    curves: by kind, of each row that has some, those of its seeds. missing: rows without any.
    """

    tables: Sequence[contents.ReportTable]
    curves: dict[str, list[tuple[contents.ReportRow, list[pd.Series]]]]
    missing: Sequence[str]

    @property
    def selected_by(self) -> str:
        """The label of the score that validation is about, where all runs agree."""
        rows = [row for having in self.curves.values() for row, _ in having]
        records = [record for row in rows for record in row.row.records]
        names = {record.config.get("train", {}).get("select") for record in records}
        key = names.pop() if len(names) == 1 else ""
        return METRICS[key].label if key in METRICS else "score"


def read_training(tables: Sequence[contents.ReportTable]) -> list[TrainingCurves]:
    """Read the curves of all runs once, though their tables may be several: one a test set."""
    by_runs: dict[frozenset[int], list[contents.ReportTable]] = {}
    for table in tables:
        if runs := frozenset(id(one) for one in table.stored if one.record.kind == "run"):
            by_runs.setdefault(runs, []).append(table)
    return [_read(alike) for alike in by_runs.values()]


def _read(tables: list[contents.ReportTable]) -> TrainingCurves:
    found = TrainingCurves(tables, {kind: [] for kind in KINDS}, [])
    missing = []
    for row in tables[0].best:
        if row.stored[0].record.kind != "run":
            continue
        seeds = [_rows(one) for one in row.stored]
        own = {kind: [seed_curve(rows, kind) for rows in seeds] for kind in KINDS}
        for kind, curves in own.items():
            if having := [curve for curve in curves if len(curve)]:
                found.curves[kind].append((row, having))
        if not any(len(curve) for curves in own.values() for curve in curves):
            missing.append(row.label)
    return TrainingCurves(tables, found.curves, missing)


def _rows(stored: StoredRecord) -> list[dict[str, Any]]:
    try:
        return read_rows(stored.folder / CURVE)
    except BenchError:  # told as one of the missing
        return []


def seed_curve(rows: Iterable[dict[str, Any]], key: str) -> pd.Series:
    """Return the values by step where there are any; of a long curve the means of equal parts."""
    pairs = ((row.get("step"), row.get(key)) for row in rows)
    # A step that is there twice was trained again after a kill: the last one counts.
    found = {step: value for step, value in pairs if step is not None and value is not None}
    curve = pd.Series([*found.values()], pd.Index([*found], dtype=float), dtype=float)
    if len(curve) > MOST_POINTS:
        size = math.ceil(len(curve) / MOST_POINTS)
        parts = [curve.iloc[start : start + size] for start in range(0, len(curve), size)]
        curve = pd.Series([part.mean() for part in parts], [part.index[-1] for part in parts])
    return curve


def mean_of_seeds(curves: Sequence[pd.Series]) -> pd.Series:
    """Return the mean at each step that all curves have."""
    return pd.concat(curves, axis=1).dropna().mean(axis=1)


def draw_training(
    trained: TrainingCurves, kind: str, label: str
) -> tuple[plots.Plot, list[contents.ReportRow]]:
    """Draw `loss` or `validation` of all rows that have it in one figure, to be taken apart.

    What belongs to row k alone has ids that begin with `row-k-`; seeds are thin, their mean is
    bold. The grey band spans the means of all rows. No rows: nothing was drawn.
    """
    having = trained.curves[kind]
    axes = plots.new_axes(2.35, 1.5, 0.4, 0.3, 0.08, 0.24)
    plot = plots.Plot(axes.figure, f"{label} in training, by step")
    if not having:
        return plot, []
    points = pd.concat([curve for _, curves in having for curve in curves])
    # The highest half percent may leave the plot: one jump of the loss would flatten the rest.
    most = np.sort(points)[: max(2, round(len(points) * 0.995))]
    low, high = float(most[0]), float(most[-1])
    room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    axes.set(
        title=label, ylim=(low - room, high + room), xlim=(0, float(np.max(points.index)) * 1.03)
    )
    axes.locator_params(nbins=3)
    axes.text(1, 0.03, "step", ha="right", color=plots.SOFT, transform=axes.transAxes, fontsize=7)
    means = [mean_of_seeds(curves) for _, curves in having]
    band = pd.concat(means, axis=1).sort_index().interpolate("index", limit_area="inside")
    if len(having) > 1 and len(band) > 1:
        grey = {"color": "#dfe4ea", "linewidth": 0}
        axes.fill_between(band.index, band.min(axis=1), band.max(axis=1), **grey)
    for number, ((row, curves), mean) in enumerate(zip(having, means, strict=True)):
        key, last = f"row-{number}-", ""
        for seed, curve in enumerate(curves if len(curves) > 1 else []):
            axes.plot(curve, color="#7fb2e0", linewidth=0.7, gid=f"{key}seed{seed}")
        if len(mean):
            # A few points, such as validations, would hardly be seen as a line alone.
            dots = {"marker": "o", "markersize": 2.6} if len(mean) <= 12 else {}
            axes.plot(mean, color=plots.FRONT, linewidth=1.5, gid=f"{key}mean", **dots)
            last = f", {label} {mean.iloc[-1]:.3g} at step {mean.index[-1]:.0f}"
        seeds = f"{len(curves)} seed{'s' * (len(curves) != 1)}"
        plot.marks[key] = (row.name, f"{row.label}: {seeds}{last}")
    return plot, [row for row, _ in having]
