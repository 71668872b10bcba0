"""CPU time of PySODMetrics 1.6.2 divided by that of the metrics engine, on the same pairs.

Both compute MAE, S, E, weighted F and seven overlap scores (F with beta^2 0.3 and 1, precision,
recall, IoU, Dice, BER) over 256 levels, at the adaptive threshold and at 0.5. They take turns in
this process, on one thread; each pair counts with its fastest turn. "alone" is a map with its
mask, "shared" a further map on a mask that is prepared already. Pairs are drawn: blobs, and soft
maps made at 352 pixels and enlarged.

    python benchmarks/metrics.py [--json] [--pairs 4] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import py_sod_metrics as sod
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lpmoe_bench.metrics.engine import Measured
from lpmoe_bench.metrics.maps import PreparedMask
from lpmoe_bench.metrics.protocols import REFERENCE

# Before numpy is loaded: one thread, or the comparison is of thread pools.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))


SIZES = {"352 x 352": (352, 352), "512 x 512": (512, 512), "740 x 1000": (740, 1000)}
TARGETS = {"352 x 352": (8, 20), "740 x 1000": (12, 30)}
HANDLERS: dict[str, Callable] = {
    "precision": sod.PrecisionHandler,
    "recall": sod.RecallHandler,
    "iou": sod.IOUHandler,
    "dice": sod.DICEHandler,
    "ber": sod.BERHandler,
}


def noise(rng: np.random.Generator, side: int, scale: float) -> np.ndarray:
    """Return smooth noise of deviation 1, (side, side)."""
    field = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), scale)
    return field / field.std()


def draw(seed: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a map and a mask of 5 to 30% object, uint8 (h, w)."""
    rng = np.random.default_rng(seed)
    blobs, share = noise(rng, 352, 30), rng.uniform(0.05, 0.3)
    blobs -= np.quantile(blobs, 1 - share)
    soft = 1 / (1 + np.exp(-6 * (blobs + 0.4 * noise(rng, 352, 9))))
    size = shape[::-1]
    mask = cv2.resize(blobs, size, interpolation=cv2.INTER_CUBIC) > 0
    pred = cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR) * 255 + 0.5
    return pred.astype(np.uint8), mask.astype(np.uint8) * 255


def by_pysodmetrics(pred: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    handlers = {name: make(True, True, with_binary=True) for name, make in HANDLERS.items()}
    for beta2 in (0.3, 1.0):
        handlers[f"f{beta2}"] = sod.FmeasureHandler(True, True, with_binary=True, beta=beta2)
    mae, s, e, w = sod.MAE(), sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure()
    for recorder in (mae, s, e, w, sod.FmeasureV2(handlers)):
        recorder.step(pred, mask)
    scores = {"mae": mae.maes[0], "s": s.sms[0], "wf": w.weighted_fms[0]}
    scores |= {"e": e.changeable_ems[0], "e adaptive": e.adaptive_ems[0]}
    for name, handler in handlers.items():
        scores |= {f"{name} curve": handler.dynamic_results[0]}
        scores |= {f"{name} adaptive": handler.adaptive_results[0]}
        scores |= {f"{name} binary": handler.binary_results[0]}
    return scores


def by_engine(pred: np.ndarray, mask: PreparedMask) -> dict[str, np.ndarray]:
    pair = Measured(pred, mask, mode=REFERENCE)
    scores = {"mae": pair.mae, "s": pair.s_measure, "wf": pair.weighted_f}
    scores |= {"e": pair.e_curve, "e adaptive": pair.e_adaptive}
    for name, counts in (
        ("curve", pair.curve),
        ("adaptive", pair.adaptive),
        ("binary", pair.binary),
    ):
        scores |= {f"{score} {name}": getattr(counts, score) for score in HANDLERS}
        scores |= {f"f{beta2} {name}": counts.f(beta2) for beta2 in (0.3, 1.0)}
    return scores


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(shape: tuple[int, int], seed: int, rounds: int) -> tuple[list[float], float]:
    """Return CPU seconds of PySODMetrics, alone and shared, and the largest difference."""
    pred, mask = draw(seed, shape)
    shared = PreparedMask(mask).everything()
    theirs, ours = by_pysodmetrics(pred, mask), by_engine(pred, shared)  # compiles, too
    assert theirs.keys() == ours.keys()
    difference = max(float(np.max(np.abs(ours[key] - theirs[key]))) for key in theirs)
    runs = [
        lambda: by_pysodmetrics(pred, mask),
        lambda: by_engine(pred, PreparedMask(mask)),
        lambda: by_engine(pred, shared),
    ]
    turns = [[seconds(run) for run in runs] for _ in range(rounds)]
    return [min(times) for times in zip(*turns, strict=True)], difference


def rows(pairs: int, rounds: int) -> Iterator[dict]:
    for size, shape in SIZES.items():
        console = Console(stderr=True)
        seeds = track(range(pairs), f"measuring {size}", console=console, transient=True)
        found = [measure(shape, seed, rounds) for seed in seeds]
        theirs, alone, shared = np.mean([times for times, _ in found], axis=0).tolist()
        yield {
            "size": size,
            "pysodmetrics_seconds": theirs,
            "alone_seconds": alone,
            "shared_seconds": shared,
            "alone_ratio": theirs / alone,
            "shared_ratio": theirs / shared,
            "targets": TARGETS.get(size),
            "largest_difference": max(difference for _, difference in found),
        }


def table(found: list[dict]) -> Table:
    out = Table(title="Metrics, CPU time on one thread: PySODMetrics / engine")
    out.add_column("size", no_wrap=True)
    for name in ("PySODMetrics ms", "alone ms", "shared ms", "x alone", "x shared", "targets"):
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("largest difference", justify="right", no_wrap=True)
    for row in found:
        times = (row[f"{key}_seconds"] for key in ("pysodmetrics", "alone", "shared"))
        out.add_row(
            row["size"],
            *(f"{1000 * value:.2f}" for value in times),
            *(f"[bold]{row[f'{key}_ratio']:.1f}[/]" for key in ("alone", "shared")),
            " / ".join(map(str, row["targets"] or ())),
            f"{row['largest_difference']:.1e}",
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4, help="of each size")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each pair; the fastest")
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    found = list(rows(args.pairs, args.rounds))
    if args.json:
        print(json.dumps({"pairs": args.pairs, "rounds": args.rounds, "rows": found}, indent=1))
    else:
        console = Console()
        console.width = max(console.width, 120)
        console.print(table(found))


if __name__ == "__main__":
    main()
