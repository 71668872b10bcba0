"""Image, mask and every run's prediction side by side, on scenes of the runs' own task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lpmoe_bench.data.pairs import Pair, read_pair
from lpmoe_bench.data.pictures import grid
from lpmoe_bench.errors import UsageError
from lpmoe_bench.predict.tiled import eight_bits, probability_map
from lpmoe_bench.predict.write import write_picture
from lpmoe_bench.records.store import read_record
from lpmoe_bench.trained__predictor import load_predictor


def task_of(runs: Sequence[Path]) -> str:
    """Return the one task of all runs; raises UsageError where there are several."""
    tasks = sorted({read_record(run).task for run in runs})
    if len(tasks) > 1:
        raise UsageError(
            f"these runs are of several tasks, {' and '.join(tasks)}; draw each task's on their own"
        )
    return tasks[0]


def side_by_side(
    runs: Sequence[Path], pairs: Sequence[Pair], output: Path, cache: Path, offline: bool
) -> None:
    """Write one picture: a row for each pair, with image, mask and the map of every run."""
    rows = [list(read_pair(pair)) for pair in pairs]
    titles = ["image", "mask"]
    for run in runs:
        titles.append(read_record(run).method.title)
        predictor, _ = load_predictor(run, cache, offline)
        for row in rows:
            row.append(eight_bits(probability_map(predictor, row[0])))
    write_picture(output, grid(titles, rows))
