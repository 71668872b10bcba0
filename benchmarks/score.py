"""CPU time of a plain loop over PySODMetrics 1.6.2 divided by that of `score`, files included.

Both read the same PNG files, masks and maps, and work out the same scores: those of protocol cod
(S; E and F as mean, maximum and adaptive; weighted F; MAE; BER, Dice and IoU at 0.5). `score` also
matches names, hashes and checks the maps and writes rows and records. They take turns in this
process, on one thread; each counts with its fastest turn. `score_processes.py` measures both as a
user starts them. "floor" is reading and decoding the files alone, "share" the floor's share of the
time of `score`. "two processes" is the wall time of one process divided by that of two, which means
something on an idle machine with two cores only.

    python benchmarks/score.py [--json] [--pairs 100] [--rounds 3] [--folders 4] [--wall-pairs 0]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from pysod_loop import by_pysodmetrics
from rich.console import Console
from rich.table import Table

from lpmoe_bench.console import Terminal
from lpmoe_bench.scoring.plan import ScoreRequest, plan_scores
from lpmoe_bench.scoring.scoring import score_folders

# Before numpy is loaded: one thread, or the comparison is of thread pools.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))


SIZES = {"352 x 352": (352, 352), "740 x 1000": (740, 1000)}
TARGET = 5


def write_files(root: Path, shape: tuple[int, int], pairs: int, folders: int) -> list[Path]:
    """Write masks and, for each folder, maps of other pairs blended in; return the folders."""
    from metrics import draw  # here, as processes import this file: they need no PySODMetrics

    places = [root / f"maps{index}" for index in range(folders)]
    for place in (root / "masks", *places):
        place.mkdir(parents=True)
    for seed in range(pairs):
        pred, mask = draw(seed, shape)
        cv2.imwrite(str(root / "masks" / f"{seed:04}.png"), mask)
        for index, place in enumerate(places):
            weaker = cv2.addWeighted(pred, 1 - 0.1 * index, pred[:, ::-1], 0.1 * index, 0)
            cv2.imwrite(str(place / f"{seed:04}.png"), weaker)
    return places


def by_score(masks: Path, folders: Sequence[Path], jobs: int = 1) -> list[dict]:
    """What the command does, less printing; returns the scores of each folder."""
    runs = Path(tempfile.mkdtemp(prefix="score-runs-"))
    try:
        request = ScoreRequest(folders, gt=masks, protocol="cod", runs=runs, jobs=jobs)
        terminal = Terminal(quiet=True)
        outcome = score_folders(plan_scores(request, terminal), request, terminal)
        return [next(iter(stored.record.scores.values())) for stored in outcome.records]
    finally:
        shutil.rmtree(runs)


def decode_only(masks: Path, folders: Sequence[Path]) -> None:
    for path in sorted(masks.iterdir()):
        for file in (path, *(folder / path.name for folder in folders)):
            cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED)


def seconds(run: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    start = clock()
    run()
    return clock() - start


def measure(root: Path, shape: tuple[int, int], args: argparse.Namespace) -> dict:
    folders = write_files(root, shape, args.pairs, args.folders)
    masks, one = root / "masks", folders[:1]
    theirs, ours = by_pysodmetrics(masks, one[0]), by_score(masks, one)[0]  # compiles, too
    runs = {
        "pysodmetrics": lambda: by_pysodmetrics(masks, one[0]),
        "score": lambda: by_score(masks, one),
        "floor": lambda: decode_only(masks, one),
        "score_many": lambda: by_score(masks, folders),
        "floor_many": lambda: decode_only(masks, folders),
    }
    turns = [[seconds(run) for run in runs.values()] for _ in range(args.rounds)]
    best = dict(zip(runs, (min(times) for times in zip(*turns, strict=True)), strict=True))
    return {
        "seconds": best,
        "ratio": best["pysodmetrics"] / best["score"],
        "share": best["floor"] / best["score"],
        "ratio_many": args.folders * best["pysodmetrics"] / best["score_many"],
        "share_many": best["floor_many"] / best["score_many"],
        "largest_difference": max(abs(ours[key] - theirs[key]) for key in theirs),
    }


def two_processes(root: Path, pairs: int, rounds: int) -> float:
    """Return the wall time of one process over that of two, start of processes included."""
    folders = write_files(root, SIZES["740 x 1000"], pairs, 2)
    runs = [lambda jobs=jobs: by_score(root / "masks", folders, jobs) for jobs in (1, 2)]
    turns = [[seconds(run, time.perf_counter) for run in runs] for _ in range(rounds)]
    one, two = (min(times) for times in zip(*turns, strict=True))
    return one / two


def table(found: dict[str, dict], folders: int) -> Table:
    out = Table(title="score with files, CPU time of one process: PySODMetrics / score")
    out.add_column("size", no_wrap=True)
    heads = ("PySODMetrics ms", "score ms", "floor ms", "x", "share", "target")
    many = f"{folders} folders:"
    for name in (*heads, f"{many} x", "share", "largest difference"):
        out.add_column(name, justify="right")
    for size, row in found.items():
        times = row["seconds"]
        out.add_row(
            size,
            *(f"{1000 * times[key]:.0f}" for key in ("pysodmetrics", "score", "floor")),
            f"[bold]{row['ratio']:.1f}[/]",
            f"{row['share']:.0%}",
            str(TARGET),
            f"[bold]{row['ratio_many']:.1f}[/]",
            f"{row['share_many']:.0%}",
            f"{row['largest_difference']:.1e}",
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100, help="of each size")
    parser.add_argument("--rounds", type=int, default=3, help="turns; the fastest counts")
    parser.add_argument("--folders", type=int, default=4, help="folders of the shared run")
    parser.add_argument("--wall-pairs", type=int, default=0, help="pairs for two processes; 0: no")
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    console, found = Console(), {}
    with tempfile.TemporaryDirectory(prefix="score-") as place:
        for index, (size, shape) in enumerate(SIZES.items()):
            found[size] = measure(Path(place) / str(index), shape, args)
        scaling = None
        if args.wall_pairs:
            scaling = two_processes(Path(place) / "wall", args.wall_pairs, args.rounds)
    if args.json:
        print(json.dumps({"sizes": found, "two_processes": scaling}, indent=1))
        return
    console.width = max(console.width, 130)
    console.print(table(found, args.folders))
    if scaling:
        console.print(f"two processes: {scaling:.2f} times as fast as one, by the clock")


if __name__ == "__main__":
    main()
